"""Real stacks as processes: the simulator, Airflow and Prefect, for the demo and for tests of the real thing.

Standard library only, so that any Python 3.10 or later can run it, in an environment with Airflow, with
Prefect or with neither.

    with Processes(directory) as processes, SimulatorProcess(processes, python) as simulator:
        with AirflowStack(processes, environment, dags=folder, variables=...) as airflow:
            run = airflow.trigger_dag("provision_account", {"service": "Google"})
            airflow.wait_for_run(run)

Whatever happens to the program, `Processes` leaves nothing running.
"""

from stacks.account import Account
from stacks.airflow import AirflowStack, Run
from stacks.prefect import FlowRun, PrefectServer
from stacks.processes import Interrupted, Managed, Processes, ProcessFailed
from stacks.rest import HttpError
from stacks.simulator import SimulatorProcess

__all__ = [
    "Account",
    "AirflowStack",
    "FlowRun",
    "HttpError",
    "Interrupted",
    "Managed",
    "PrefectServer",
    "ProcessFailed",
    "Processes",
    "Run",
    "SimulatorProcess",
]
