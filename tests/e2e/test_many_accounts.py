"""Many accounts at once, at a service where four of ten numbers get no SMS and one of ten cancels is refused.

On the real stacks: a real Airflow whose tasks and whose scheduler with all its workers are killed on the way,
and a real Prefect whose worker is killed twice, with its flow run, which starts again. Every account has a
code in the end, or an error that lists its numbers; every number is used, or its money is back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from smsverify import SmsVerifyHook
from smsverify.simulator import Fault, SimulatedOrder, Stats
from stacks import Account, AirflowStack, PrefectServer, Processes, SimulatorProcess

pytestmark = pytest.mark.timeout(2400)  # the first test runs everything, on a busy machine perhaps

ROOT = Path(__file__).parents[2]
FILES = Path(__file__).parent / "many_accounts"
ENVIRONMENTS = ROOT / ".venv"
SOURCES = [ROOT / "core", ROOT / "provider", ROOT / "prefect_tasks", FILES]
BALANCE = 500
SERVICE = {
    "speed": 10,
    "balance": str(BALANCE),
    "sms_delay": "never",
    "products": {"temporary": {"validity": 36_000}},
}
REFUSES = Fault(  # one of ten
    "out_of_stock", "order/*/cancel/", status=400, body='{"error": "not now"}', times=None, probability=0.1
)
AIRFLOW, PREFECT = 60, 100  # accounts that two cores verify in some minutes
UNLUCKY = {7, 23}  # as in many_accounts/form.py
PATIENCE = 1800.0


@dataclass(frozen=True)
class Evidence:
    """What has become of the accounts of one wing.

    Attributes:
        accounts: how many there are.
        verified: the order of each account that has a code.
        reports: of each other account, the orders that its error lists.
        left: the orders that were not refunded.
        used: those of them whose code was returned to a task, which may have been killed before its end.
        found: what a reconciliation has to say at the end.
    """

    wing: str
    accounts: int
    verified: dict[int, int]
    reports: dict[int, list[int]]
    left: list[SimulatedOrder]
    used: set[int]
    found: list[str]
    balance: Decimal
    stats: Stats

    def line(self) -> str:
        """The figures, for people."""
        return (
            f"{self.wing}: {self.accounts} accounts, {len(self.verified)} verified, {len(self.reports)} "
            f"reported; {self.stats.orders} numbers, {len(self.left)} paid, {BALANCE - self.balance} USD, "
            f"{len(self.used) - len(self.verified)} codes of killed tasks; {self.stats.requests} requests, "
            f"at most {self.stats.max_in_window} in a minute, {self.stats.refused} answered 429; "
            f"{self.stats.faults.get('out_of_stock', 0)} cancellations refused"
        )


class Service:
    """The simulated service, its account, and what is found there in the end."""

    def __init__(self, simulator: SimulatorProcess, base: Path) -> None:
        self._control = simulator.control()
        timeouts = {"connect_timeout": "4", "read_timeout": "8"}
        self.account = Account({**simulator.account(base / "store.db").settings, **timeouts})
        self._control.add_fault(REFUSES)

    def codes(self) -> int:
        """How many numbers have had their SMS."""
        return sum(order.status == "completed" for order in self._control.orders())

    def evidence(
        self, wing: str, accounts: int, verified: dict[int, int], reports: dict[int, list[int]]
    ) -> Evidence:
        """What a reconciliation leaves, once the wing has ended."""
        self._control.clear_faults()
        hook = SmsVerifyHook(**self.account.settings)
        hook.reconcile(cancel_after=0)  # cancels what was refused
        found = [str(finding) for finding in hook.reconcile().findings]
        left = [order for order in self._control.orders() if order.paid > order.refunded]
        used = {order.order_id for order in left if hook._parts.orders.handover.was_used(order.order_id)}
        balance, stats = self._control.balance(), self._control.stats()
        return Evidence(wing, accounts, verified, reports, left, used, found, balance, stats)


def run_airflow(base: Path, processes: Processes, simulator: SimulatorProcess) -> Evidence:
    """Kills tasks, and the scheduler with its workers when a third of the codes has come."""
    service, deaths, home = Service(simulator, base), base / "deaths", base / "airflow"
    deaths.mkdir()
    variables = service.account.airflow_connection() | {
        "ACCOUNTS": str(AIRFLOW),
        "DEATHS": str(deaths),
        "SIMULATOR": simulator.url,
        "PYTHONPATH": ":".join(map(str, SOURCES)),
    }
    options = {
        "core__parallelism": "6",
        "database__sql_alchemy_conn": f"sqlite:///{home}/airflow.db?timeout=60",
        # How soon what a killed process leaves behind is taken up again.
        "scheduler__task_instance_heartbeat_timeout": "60",
        "scheduler__task_instance_heartbeat_timeout_detection_interval": "10",
        "scheduler__scheduler_health_check_threshold": "20",
        "scheduler__orphaned_tasks_check_interval": "20",
    }
    environment = ENVIRONMENTS / "airflow"
    stack = AirflowStack(processes, environment, dags=FILES, home=home, variables=variables, options=options)
    with stack as airflow:
        run = airflow.trigger_dag("many_accounts")
        wait_until(processes, lambda: service.codes() >= AIRFLOW / 3, "a third of the codes")
        airflow.kill("scheduler")
        airflow.start(["scheduler"])
        airflow.wait_for_run(run, PATIENCE)
        verified = {int(account): order_id for account, order_id in airflow.xcom(run, "report").items()}
    logs = home.joinpath("logs", "dag_id=many_accounts")
    reports = {
        account: listed_in("\n".join(path.read_text() for path in logs.rglob(f"map_index={account}/*.log")))
        for account in set(range(AIRFLOW)) - verified.keys()
    }
    assert len(list(deaths.iterdir())) == 6
    return service.evidence("Airflow", AIRFLOW, verified, reports)


def run_prefect(base: Path, processes: Processes, simulator: SimulatorProcess) -> Evidence:
    """Kills the worker with the flow run when a third of the codes has come, and when two thirds have."""
    service, report = Service(simulator, base), base / "report.json"
    variables = {"SIMULATOR": simulator.url, "REPORT": str(report), "PYTHONPATH": ":".join(map(str, SOURCES))}
    environment = ENVIRONMENTS / "prefect"
    server = PrefectServer(processes, environment, home=base / "prefect", variables=variables)
    with server as prefect:
        prefect.save_credentials("mine", service.account)
        worker = prefect.start_worker("many")
        deployment = prefect.deploy("many", FILES / "flow.py", ["many_accounts"])["many_accounts"]
        run_id = prefect.create_run(deployment, {"accounts": PREFECT})
        for share in (1 / 3, 2 / 3):
            wait_until(
                processes, lambda share=share: service.codes() >= share * PREFECT, f"{share:.0%} of the codes"
            )
            processes.stop([worker], kill=True)  # and the flow run, which is its process
            prefect.set_run_state(run_id, "CRASHED", "Crashed")
            prefect.set_run_state(run_id, "SCHEDULED", "AwaitingRetry")
            worker = prefect.start_worker("many")
        wait_until(processes, lambda: prefect.run_state(run_id) in ("Completed", "Failed"), "the end")
    outcomes = dict(enumerate(json.loads(report.read_text())))
    verified = {account: end for account, end in outcomes.items() if isinstance(end, int)}
    reports = {account: end for account, end in outcomes.items() if isinstance(end, list)}
    return service.evidence("Prefect", PREFECT, verified, reports)


def wait_until(processes: Processes, condition: Callable[[], bool], what: str) -> None:
    """Waits for a condition."""
    processes.wait_until(condition, PATIENCE, what)


def listed_in(text: str) -> list[int]:
    """The orders that the errors of a log list, each once."""
    return sorted({int(order_id) for order_id in re.findall(r"order (\d+) \(\+\d", text)})


@pytest.fixture(scope="module", params=[run_airflow, run_prefect], ids=["airflow", "prefect"])
def evidence(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    base = tmp_path_factory.mktemp("many")
    with (
        Processes(base / "logs") as processes,
        SimulatorProcess(processes, ENVIRONMENTS / "core", **SERVICE) as simulator,
    ):
        seen: Evidence = request.param(base, processes, simulator)
    return seen


def test_each_account_has_a_code_or_a_full_report(
    evidence: Evidence, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(f"\n{evidence.line()}")
    assert evidence.verified.keys() | evidence.reports.keys() == set(range(evidence.accounts))
    assert len(set(evidence.verified.values())) == len(evidence.verified)
    assert evidence.reports.keys() >= UNLUCKY
    for listed in evidence.reports.values():
        assert len(listed) >= 4
        assert len(listed) % 4 == 0


def test_the_money_is_exact(evidence: Evidence) -> None:
    left = {order.order_id for order in evidence.left}
    assert evidence.used == left, "what is paid was used"
    assert set(evidence.verified.values()) <= left
    assert evidence.balance == BALANCE - sum(order.paid - order.refunded for order in evidence.left)
    assert evidence.found == []


def test_the_rate_limit_is_never_met(evidence: Evidence) -> None:
    assert evidence.stats.refused == 0
