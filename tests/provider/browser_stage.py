"""The Airflow that the page is looked at in, whose runs have filled each section.

A purchase whose answer was lost, a rental that is too expensive, a number that cannot be given back, a code
that came by a callback, a callback that was refused, and two waits that go on.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from smsverify.hook import SmsVerifyHook
from smsverify.overview import Overview
from smsverify.simulator import Fault
from stacks import AirflowStack, Processes, SimulatorProcess
from stacks.airflow import USER

ROOT = Path(__file__).parents[2]
SECRET = "a-callback-secret-of-a-browser"
READER = "reader"
SETTINGS = {
    "balance": "80.00",
    "services": {"whatsapp": {"sms_delay": 5}}
    | {name: {"sms_delay": "never"} for name in ("telegram", "google", "uber", "instagram")},
}
DAGS = '''
from datetime import timedelta

from airflow.sdk import dag, task_group

from smsverify_provider.operators.smsverify import SmsVerifyOrderOperator, SmsVerifyRenewExpiringOperator
from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor


@dag(schedule=None)
def rent_numbers():
    SmsVerifyOrderOperator(task_id="instagram", product="rent-30days", service="Instagram")
    SmsVerifyOrderOperator(task_id="whatsapp", product="rent-1day", service="WhatsApp")


@dag(schedule=None)
def keep_rentals_alive():
    """Instagram's costs 12 USD."""
    SmsVerifyRenewExpiringOperator(task_id="renew_expiring", within=timedelta(hours=4), max_price="10")


@dag(schedule=None)
def provision_many():
    @task_group
    def account(service):
        order = SmsVerifyOrderOperator(task_id="order_number", product="temporary", service=service)
        SmsVerifyOtpSensor(
            task_id="wait_for_code", order_id=order.output["order_id"], timeout=1100, deferrable=True
        )

    account.expand(service=["WhatsApp", "Telegram", "Google"])


@dag(schedule=None)
def provision_account():
    """The answer to this purchase is lost."""
    SmsVerifyOrderOperator(task_id="order_number", product="best-temp", service="PayPal")


@dag(schedule=None)
def give_up():
    order = SmsVerifyOrderOperator(task_id="order_number", product="temporary", service="Uber")
    SmsVerifyOtpSensor(task_id="wait_for_code", order_id=order.output["order_id"], timeout=2, deferrable=True)


for one in (rent_numbers, keep_rentals_alive, provision_many, provision_account, give_up):
    one()
'''


@dataclass(frozen=True)
class Stage:
    """What the tests look at: Airflow, its users' passwords, and the account that its runs have used."""

    processes: Processes
    airflow: AirflowStack
    simulator: SimulatorProcess
    variables: dict[str, str]
    hook: SmsVerifyHook

    def api_server_at(self, path: str, base_url: str) -> AirflowStack:
        """One more API server on the same records, for users who call it by another address."""
        home = self.airflow.home.parent / "behind"
        return AirflowStack(
            self.processes,
            Path(sys.prefix),
            dags=home.parent / "dags",
            home=home,
            variables=self.variables,
            options={
                "database__sql_alchemy_conn": f"sqlite:///{self.airflow.database}",
                "api__base_url": base_url,
            },
            path=path,
        )


@contextmanager
def set_stage() -> Iterator[Stage]:
    """Starts everything, and ends it after the block."""
    environment = Path(sys.prefix)
    with tempfile.TemporaryDirectory(prefix="smsverify-") as directory:
        base = Path(directory)
        (base / "dags").mkdir()
        (base / "dags" / "dags.py").write_text(DAGS)
        with (
            Processes(base / "logs") as processes,
            SimulatorProcess(processes, environment, **SETTINGS) as simulator,
        ):
            connection = json.loads(
                simulator.account(base / "store.db").airflow_connection()["AIRFLOW_CONN_SMSVERIFY_DEFAULT"]
            )
            # Somebody else may buy on the account too, so the order whose answer was lost is not adopted.
            connection["extra"] |= {"account": "sign-ups", "exclusive_account": False}
            connection["extra"] |= {"callback_secrets": SECRET, "daily_budget": 40}
            variables = {
                "AIRFLOW_CONN_SMSVERIFY_DEFAULT": json.dumps(connection),
                "PYTHONPATH": f"{ROOT / 'core'}:{ROOT / 'provider'}",
            }
            hook = SmsVerifyHook(connection["password"], base_url=connection["host"], **connection["extra"])
            with AirflowStack(
                processes,
                environment,
                dags=base / "dags",
                home=base / "airflow",
                variables=variables,
                options={"core__simple_auth_manager_users": f"{USER}:admin,{READER}:viewer"},
            ) as airflow:
                stage = Stage(processes, airflow, simulator, variables, hook)
                fill(stage)
                yield stage


def fill(stage: Stage) -> None:
    """Runs the Dags until each section of the page has something to show."""
    airflow, control = stage.airflow, stage.simulator.control()
    control.configure(callback_url=f"{airflow.url}/smsverify/callback/{SECRET}")
    control.add_fault(Fault("lost_answer", path="order/best-temp/"))
    control.add_fault(Fault("error_before", path="order/*/cancel/", times=None))
    stranger = requests.post(f"{airflow.url}/smsverify/callback/the-secret-of-nobody", json={}, timeout=60)
    assert stranger.status_code == 404
    rent = airflow.trigger_dag("rent_numbers")
    for dag_id in ("provision_many", "provision_account", "give_up"):
        airflow.trigger_dag(dag_id)
    airflow.wait_for_run(rent)
    for order in control.orders():
        if order.product.startswith("rent"):
            control.set_time_left(order.order_id, 3 * 3600 + 600)
    airflow.trigger_dag("keep_rentals_alive")
    stage.processes.wait_until(lambda: is_full(stage.hook.overview()) or None, 300, "all sections")


def is_full(seen: Overview) -> bool:
    kinds = {need.kind for need in seen.needs.rows}
    return (
        kinds == {"purchase_unknown", "rental_not_kept", "not_given_back"}
        and {rental.outcome for rental in seen.rentals.rows} == {"too_expensive", "renewed"}
        and {"code_arrived", "unknown", "waiting"} <= {order.state for order in seen.orders.rows}
        and {wait.service for wait in seen.waits.rows} == {"Telegram", "Google"}
        and (seen.releases.count, seen.callbacks.state, seen.callbacks.refused) == (1, "healthy", 1)
    )
