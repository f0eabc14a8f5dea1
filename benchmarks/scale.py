"""Both wings on many hosts at once, on one account and one store, with kills, a partition and a wrong clock.

    .venv/core/bin/python benchmarks/scale.py [--airflow 200] [--prefect 100] [--write]

Airflow runs with the CeleryExecutor, Redis and PostgreSQL: two schedulers, two triggerers, two workers.
Prefect runs with PostgreSQL and three workers of a process pool. Each is a host of its own: a network
namespace with an address, a host name and a home. One account serves both. On the way every component is
killed once and started again, PostgreSQL restarts, one worker is cut off for 30 seconds, and the clock of
another is 40 seconds ahead.

The exit code is 0 if every account was verified, the money is exact, and the service refused no request.
Needs Linux, root, and the programs of PostgreSQL, Redis, iproute2 and faketime. `--write` puts the figures
into docs/how-to/deploy.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import report
import sqlalchemy as sa

from smsverify import SmsVerifyHook
from smsverify._store.tables import attempts
from stacks import Account, AirflowStack, Interrupted, PrefectServer, Processes, Run, SimulatorProcess
from stacks.hosts import Host, Network
from stacks.rest import Unreachable
from stacks.services import PostgreSQL, Redis

ROOT = Path(__file__).resolve().parents[1]
CORE, AIRFLOW, PREFECT = (ROOT / ".venv" / name for name in ("core", "scale", "prefect"))
FILES = Path(__file__).parent / "scale"
PAGE = ROOT / "docs" / "how-to" / "deploy.md"
# Two cores that run thirty processes of Airflow and Prefect verify some 15 accounts a minute, half as many as
# the limit allows. So the minute of the service lasts two.
SPEED = 0.5
SERVICE = {"balance": "1000", "sms_delay": [5, 40], "seed": 1, "speed": SPEED}
PRICE = Decimal("0.40")
PATIENCE = 3600.0
POOL = "scale"
CUT_OFF = 30.0
STARTED_WITHIN = 60.0  # seconds that a living worker takes to start a flow run that it has taken
BETWEEN = 20.0  # seconds from the end of one event to the next
CLOCK = 40.0
COMPONENTS = ("scheduler", "scheduler-2", "triggerer", "triggerer-2", "worker", "worker-2")
AIRFLOW_OPTIONS = {
    "core__executor": "CeleryExecutor",
    # A task that waits for a worker longer than `task_queued_timeout` fails, so few are queued at a time.
    "core__parallelism": "16",
    "celery__worker_concurrency": "3",
    "celery__worker_prefetch_multiplier": "1",
    "celery_broker_transport_options__visibility_timeout": "300",
    # How soon what a dead component leaves behind is taken up by another.
    "scheduler__task_instance_heartbeat_timeout": "60",
    "scheduler__task_instance_heartbeat_timeout_detection_interval": "10",
    "scheduler__task_queued_timeout": "180",
    "scheduler__task_queued_timeout_check_interval": "15",
    "scheduler__scheduler_health_check_threshold": "30",
    "scheduler__orphaned_tasks_check_interval": "30",
    "triggerer__triggerer_health_check_threshold": "30",
}


@dataclass(frozen=True)
class Outcome:
    """What a run has come to."""

    verified: int
    wanted: int
    orders: int
    charged: Decimal
    refused: int
    fullest: int
    requests: int
    minutes: float  # of the service
    findings: list[str]
    repeated: list[str]  # the keys of what was verified once more
    ended_by_themselves: list[str]

    @property
    def use(self) -> float:
        """The share of the limit that was used from the first order to the last."""
        return self.requests / (60 * self.minutes)

    @property
    def failures(self) -> list[str]:
        """The promises that did not hold."""
        promises = {
            f"{self.wanted - self.verified} accounts are not verified": self.verified == self.wanted,
            f"{self.charged} USD were charged for {self.verified} codes": self.charged
            == PRICE * self.verified,
            f"{self.refused} requests were refused": self.refused == 0,
            f"reconcile found {'; '.join(self.findings)}": not self.findings,
        }
        return [failure for failure, held in promises.items() if not held]

    def lines(self) -> str:
        """As Markdown."""
        rows = (
            ("accounts verified", f"{self.verified} of {self.wanted}"),
            ("orders, charged", f"{self.orders}, {self.charged} USD"),
            ("from the first order to the last", f"{self.minutes:.1f} min of the service"),
            ("use of the limit meanwhile", f"{self.use:.0%}"),
            ("most requests in a minute, refused", f"{self.fullest}, {self.refused}"),
            ("findings of reconcile", str(len(self.findings))),
        )
        return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


class Cluster:
    """All hosts and what runs on them."""

    def __init__(self, processes: Processes, network: Network, base: Path) -> None:
        self._processes = processes
        self._database = PostgreSQL(processes, base / "postgres", network.address)
        self._redis = Redis(processes, network.address)
        self.simulator = SimulatorProcess(processes, CORE, address=network.address, **SERVICE)
        self._network = network
        self._base = base
        self._runs: dict[str, str] = {}
        self.ended_by_themselves: list[str] = []

    def start(self) -> None:
        """Starts everything, and waits until it is up."""
        self._database.start(["airflow", "prefect", "smsverify"])
        self._redis.start()
        self.simulator.start()
        store = f"postgresql+psycopg://{self._database.address('smsverify')}"
        settings = {**self.simulator.account(self._base).settings, "store_url": store, "insecure": "true"}
        self.account = Account(settings)
        self._start_airflow()
        self._start_prefect()

    def _start_airflow(self) -> None:
        metadata = self._database.address("airflow")
        options = {
            **AIRFLOW_OPTIONS,
            "database__sql_alchemy_conn": f"postgresql+psycopg2://{metadata}",
            "celery__broker_url": self._redis.url,
            "celery__result_backend": f"db+postgresql+psycopg2://{metadata}",
        }
        clocks = {"worker": CLOCK}
        self.hosts = {name: self._network.host(name, clock=clocks.get(name, 0)) for name in COMPONENTS}
        self.airflow = AirflowStack(
            self._processes,
            AIRFLOW,
            dags=FILES,
            home=self._base / "airflow",
            variables=self.account.airflow_connection(),
            options=options,
            address=self._network.address,
            hosts=self.hosts,
            lasting=False,
        )
        self.airflow.migrate()
        self.airflow.start(["api-server"])
        self.airflow.wait_until_ready()
        self.airflow.start(["dag-processor", *COMPONENTS])
        self.airflow.wait_until_ready()

    def _start_prefect(self) -> None:
        url = f"postgresql+asyncpg://{self._database.address('prefect')}"
        self.prefect = PrefectServer(
            self._processes,
            PREFECT,
            home=self._base / "prefect",
            address=self._network.address,
            database_url=url,
        )
        self.prefect.start()
        self.prefect.wait_until_ready()
        self.prefect.save_credentials("scale", self.account)
        self.flow_hosts = [self._network.host(f"flows-{number}") for number in (1, 2, 3)]
        self.workers = {
            host: self.prefect.start_worker(POOL, at_once=3, host=host) for host in self.flow_hosts
        }
        self.deployment = self.prefect.deploy(POOL, FILES / "flow.py", ["account"])["account"]

    # -------------------------------------------------------------- what happens to it

    def revive(self) -> None:
        """Starts again what has ended by itself, as a supervisor of services does, and an automation for flow
        runs that have crashed.
        """
        self.ended_by_themselves += self.airflow.revive()
        for run_id in self.prefect.runs_in_state("CRASHED"):
            self.prefect.set_run_state(run_id, "SCHEDULED", "AwaitingRetry")

    def kill(self, component: str) -> None:
        """Kills a component of Airflow; a supervisor starts it again."""
        self.airflow.kill(component)
        self.airflow.start([component])

    def restart_database(self) -> None:
        """All connections break."""
        self._database.restart()

    def kill_flows(self) -> None:
        """Kills a worker of Prefect with its flow runs. They count as crashed, and begin again elsewhere."""
        host = self.flow_hosts[0]
        begun = self._begun_runs()
        self._processes.stop([self.workers[host]], kill=True)
        self.workers[host] = self.prefect.start_worker(POOL, at_once=3, host=host)
        time.sleep(STARTED_WITHIN)
        for run_id in begun & self._begun_runs():
            pid = self.prefect.run_process(run_id)
            if pid is None or not Path("/proc", str(pid)).exists():
                # No worker takes a run that its own process was to try again, unless it has ended.
                self.prefect.set_run_state(run_id, "CRASHED", "Crashed")

    def _begun_runs(self) -> set[str]:
        return {run_id for kind in ("PENDING", "RUNNING") for run_id in self.prefect.runs_in_state(kind)}

    def kill_prefect_server(self) -> None:
        """Kills Prefect's server and starts it again."""
        self.prefect.kill()
        self.prefect.start()
        self.prefect.wait_until_ready()


def verify(cluster: Cluster, processes: Processes, airflow: int, prefect: int) -> Outcome:
    """Has accounts verified by both wings at once, while things happen."""
    wanted = airflow + prefect
    run = cluster.airflow.trigger_dag("scale", {"accounts": airflow})
    flow_runs = [
        cluster.prefect.create_run(cluster.deployment, {"name": f"prefect-{number}"})
        for number in range(prefect)
    ]
    events: deque[tuple[float, str, Callable[[], None]]] = deque(
        sorted(story(cluster), key=lambda event: event[0])
    )
    control = cluster.simulator.control()
    deadline = time.monotonic() + PATIENCE
    quiet_until = 0.0
    while time.monotonic() < deadline:
        completed = sum(order.status == "completed" for order in control.orders())
        if events and completed >= events[0][0] * wanted and time.monotonic() > quiet_until:
            _, what, happen = events.popleft()
            print(f"{completed} of {wanted} codes: {what}", flush=True)
            happen()
            quiet_until = time.monotonic() + BETWEEN
        cluster.revive()
        processes.check()
        if is_over(cluster, run, flow_runs):
            break
        time.sleep(1)
    return outcome(cluster, run, flow_runs, wanted)


def story(cluster: Cluster) -> list[tuple[float, str, Callable[[], None]]]:
    """What happens, and at which share of the codes."""
    worker = cluster.hosts["worker-2"]
    killed = ("worker", "scheduler", "triggerer", "worker-2", "scheduler-2", "triggerer-2")
    kills = [
        (0.1 + 0.12 * number, f"{component} is killed", lambda component=component: cluster.kill(component))
        for number, component in enumerate(killed)
    ]
    return [
        *kills,
        (0.3, f"{worker.name} is cut off for {CUT_OFF:.0f} s", lambda: cut_off(worker)),
        (0.4, "PostgreSQL restarts", cluster.restart_database),
        (0.5, "a worker of Prefect is killed, with its flow runs", cluster.kill_flows),
        (0.6, "Prefect's server is killed", cluster.kill_prefect_server),
        (0.65, "the Dag processor is killed", lambda: cluster.kill("dag-processor")),
        (0.75, "the API server is killed", lambda: cluster.kill("api-server")),
    ]


def cut_off(host: Host) -> None:
    """No packet reaches the host or leaves it for a while."""
    host.cut()
    time.sleep(CUT_OFF)
    host.mend()


def is_over(cluster: Cluster, run: Run, flow_runs: list[str]) -> bool:
    """Whether no account is waited for any more."""
    try:
        return cluster.airflow.look(run).state in ("success", "failed") and all(
            cluster.prefect.run_state(run_id) in ("Completed", "Failed", "Crashed", "Cancelled")
            for run_id in flow_runs
        )
    except Unreachable:  # a server was killed, and starts again
        return False


def outcome(cluster: Cluster, run: Run, flow_runs: list[str], wanted: int) -> Outcome:
    """Counts at the service and at the frameworks."""
    control = cluster.simulator.control()
    stats, requests, orders = control.stats(), control.requests(), control.orders()
    states = cluster.airflow.task_states(run)
    verified = sum(state == "success" for task, state in states.items() if task.startswith("sign_up["))
    verified += sum(cluster.prefect.run_state(run_id) == "Completed" for run_id in flow_runs)
    first, last = (moment(order.created_at.timestamp() for order in orders) for moment in (min, max))
    hook = SmsVerifyHook(**cluster.account.settings)
    found = hook.reconcile(cancel_after=0).findings
    return Outcome(
        verified=verified,
        wanted=wanted,
        orders=len(orders),
        charged=sum((order.paid - order.refunded for order in control.orders()), Decimal(0)),
        refused=stats.refused,
        fullest=stats.max_in_window,
        requests=sum(first <= request.at <= last for request in requests),
        minutes=(last - first) * SPEED / 60,
        findings=[str(finding) for finding in found],
        repeated=verified_again(hook),
        ended_by_themselves=cluster.ended_by_themselves,
    )


def verified_again(hook: SmsVerifyHook) -> list[str]:
    """The keys under which a further series of attempts was begun, and the numbers of these series."""
    of_key = sa.select(attempts.c.key, sa.func.max(attempts.c.series).label("series")).group_by(
        attempts.c.key
    )
    with hook._parts.store.read() as connection:
        rows = connection.execute(of_key.having(sa.func.max(attempts.c.series) > 1)).all()
    return [f"{row.key}: {row.series}" for row in rows]


def main() -> int:
    """The benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--airflow", type=int, default=200, help="accounts that Airflow verifies")
    parser.add_argument("--prefect", type=int, default=100, help="accounts that Prefect verifies")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    args = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="smsverify-scale-"))
    base.chmod(0o755)  # PostgreSQL runs as another user
    try:
        with Network() as network, Processes(base / "logs") as processes:
            cluster = Cluster(processes, network, base)
            cluster.start()
            result = verify(cluster, processes, args.airflow, args.prefect)
    except Interrupted as signal:
        shutil.rmtree(base)
        return 128 + signal.number
    print(result.lines())
    print(f"ended by themselves, and were started again: {', '.join(result.ended_by_themselves) or 'none'}")
    print(f"verified again: {', '.join(result.repeated) or 'none'}")
    for failure in result.failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    if result.failures:
        print(f"All logs are in {base}", file=sys.stderr)
    else:
        shutil.rmtree(base)
    if args.write and not result.failures:
        today = time.strftime("%Y-%m-%d")
        how = (
            f"Made by `make e2e-scale` on {today}, {args.airflow} + {args.prefect} accounts, on "
            f"{os.cpu_count()} cores. A minute of the service lasts {1 / SPEED:g} minutes."
        )
        report.write_into(PAGE, "scale", f"{how}\n\n{result.lines()}")
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
