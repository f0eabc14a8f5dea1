"""A rental of each kind, kept alive on the real stacks by the schedules of the examples.

A rental of any kind lasts as long as the service's settings say, which is a minute or so. In the middle the
scheduler (of Prefect: the worker) is killed with all that it runs, as soon as it has sent a renewal; the
answer to another renewal is lost, and another one finds the wallet empty. Each period is paid once, and the
service never sees the end of a rental. All counts are the service's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from smsverify import SmsVerifyHook
from smsverify.simulator import Control, Fault, SimulatedOrder
from stacks import Account, AirflowStack, PrefectServer, Processes, SimulatorProcess

pytestmark = pytest.mark.timeout(1800)  # the first test of each stack runs everything

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".venv"
SOURCES = ":".join(str(ROOT / name) for name in ("core", "provider", "prefect_tasks"))
PERIODS = 5
SPEED = 60
PERIOD = 80.0  # seconds that a rental lasts, and each renewal extends it by
WITHIN = 65.0  # seconds before its end from which on it is due
EVERY = 15  # seconds between two runs, which take about as long on a busy machine
PATIENCE = 300.0
SERVICE = {
    "speed": SPEED,
    "balance": "500.00",
    "sms_delay": "never",
    "products": {name: {"validity": PERIOD * SPEED} for name in ("rental", "rent-1day", "rent-30days")},
}
RENTALS: dict[str, dict[str, Any]] = {
    "three": {"product": "rental", "service": "WhatsApp", "duration": 3},
    "thirty": {"product": "rental", "service": "Telegram", "duration": 30},
    "day": {"product": "rent-1day", "service": "Tinder"},
    "month": {"product": "rent-30days", "service": "Instagram"},
}
# What a killed process may have sent counts as lost when its answer cannot come any more.
TIMEOUTS = {"connect_timeout": "1", "read_timeout": "3", "purchase_grace": "4"}


@dataclass
class Evidence:
    """What has become of the rentals.

    Attributes:
        orders: the rentals as they were in the end, by their kind.
        renewals: when each kind was renewed, in seconds since 1970.
        faults: how often each fault was met.
        refused: how often the rate limit was met.
        reported: the texts with which runs have failed.
    """

    orders: dict[str, SimulatedOrder]
    renewals: dict[str, list[float]]
    faults: dict[str, int]
    refused: int
    reported: list[str]


class Story:
    """The rentals at the service, and what happens to them.

    Args:
        processes: notices when one of them ends.
        simulator: the service.
        account: as the stack knows it.
    """

    def __init__(self, processes: Processes, simulator: SimulatorProcess, account: Account) -> None:
        self._processes = processes
        self.service: Control = simulator.control()
        settings: dict[str, Any] = dict(account.settings)
        self._hook = SmsVerifyHook(**settings)
        self.ids: dict[str, int] = {}

    def rent(self) -> None:
        """Rents a number of each kind."""
        self.ids = {kind: self._hook.order(**wanted).order_id for kind, wanted in RENTALS.items()}

    def renewals(self) -> dict[str, list[float]]:
        """When each kind was renewed."""
        moves = [move for move in self.service.movements() if move.kind == "renewal"]
        return {
            kind: [move.at.timestamp() for move in moves if move.order_id == order_id]
            for kind, order_id in self.ids.items()
        }

    def until_renewed(self, kind: str, times: int) -> None:
        """Waits until a rental was renewed so often."""

        def is_renewed() -> bool:
            ended = [order.order_id for order in self.service.orders() if order.status == "expired"]
            assert not ended, f"{ended} have ended: {self.renewals()}"
            return len(self.renewals()[kind]) >= times

        self._processes.wait_until(is_renewed, PERIODS * PERIOD, f"renewal {times} of the rental {kind}")

    def play(self, kill: Callable[[], None]) -> None:
        """What happens, while the schedule runs."""
        for kind in self.ids:
            self.until_renewed(kind, 1)
        self.service.add_fault(Fault("lost_answer", f"order/{self.ids['day']}/renew/"))
        empty = {"status": 402, "body": '{"success": false, "error": "Insufficient balance"}', "times": 2}
        self.service.add_fault(Fault("out_of_stock", f"order/{self.ids['three']}/renew/", **empty))
        for kind in self.ids:
            self.until_renewed(kind, 2)
        self.until_renewed("month", 3)
        kill()
        for kind in self.ids:
            self.until_renewed(kind, PERIODS)

    def evidence(self, reported: list[str]) -> Evidence:
        """What is left in the end."""
        orders = {order.order_id: order for order in self.service.orders()}
        stats = self.service.stats()
        return Evidence(
            {kind: orders[order_id] for kind, order_id in self.ids.items()},
            self.renewals(),
            stats.faults,
            stats.refused,
            reported,
        )


def scaled(text: str, changes: dict[str, str]) -> str:
    """An example with its times made short."""
    for old, new in changes.items():
        text, count = re.subn(re.escape(old), new, text)
        assert count == 1, old
    return text


def on_airflow(base: Path) -> Evidence:
    """The example Dag as it stands, except for its times."""
    dags = base / "dags"
    dags.mkdir()
    changes = {
        "timedelta(hours=1)": f"timedelta(seconds={EVERY})",
        "timedelta(hours=4)": f"timedelta(seconds={WITHIN})",
        "timedelta(minutes=2)": "timedelta(seconds=1)",
    }
    example = (ROOT / "example_dags" / "keep_rentals_alive.py").read_text()
    (dags / "keep_rentals_alive.py").write_text(scaled(example, changes))
    environment = ENVIRONMENTS / "airflow"
    with (
        Processes(base / "logs") as processes,
        SimulatorProcess(processes, environment, **SERVICE) as simulator,
    ):
        account = Account({**simulator.account(base / "store.db").settings, **TIMEOUTS})
        variables = account.airflow_connection() | {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{base}/airflow/airflow.db?timeout=60",
            # Who notices that a task's process was killed with the scheduler, and when.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
            "PYTHONPATH": SOURCES,
        }
        stack = AirflowStack(processes, environment, dags=dags, home=base / "airflow", variables=variables)
        with stack as airflow:
            story = Story(processes, simulator, account)
            airflow.wait_for_dag("keep_rentals_alive")
            story.rent()
            airflow.unpause("keep_rentals_alive")

            def kill() -> None:
                airflow.kill("scheduler")
                airflow.start(["scheduler"])

            story.play(kill)
            failed = [run for run in airflow.runs("keep_rentals_alive") if run.state == "failed"]
            reported = [
                finding for run in failed for finding in airflow.xcom(run, "renew_expiring", "findings") or []
            ]
        return story.evidence(reported)


def on_prefect(base: Path) -> Evidence:
    """The deployment of `prefect.yaml` as it stands, except for its times."""
    folder = base / "examples"
    folder.mkdir()
    examples = ROOT / "prefect_tasks" / "examples"
    (folder / "keep_rentals_alive.py").write_text((examples / "keep_rentals_alive.py").read_text())
    changes = {
        'cron: "0 * * * *"\n        timezone: UTC': f"interval: {EVERY}",
        "credentials: default\n      within: 14400": f"credentials: mine\n      within: {WITHIN}",
    }
    (folder / "prefect.yaml").write_text(scaled((examples / "prefect.yaml").read_text(), changes))
    environment = ENVIRONMENTS / "prefect"
    variables = {"PYTHONPATH": SOURCES, "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "10"}
    with (
        Processes(base / "logs") as processes,
        SimulatorProcess(processes, environment, **SERVICE) as simulator,
        PrefectServer(processes, environment, home=base / "prefect", variables=variables) as prefect,
    ):
        account = Account({**simulator.account(base / "store.db").settings, **TIMEOUTS})
        prefect.save_credentials("mine", account)
        worker = prefect.start_worker("rentals", at_once=2)
        story = Story(processes, simulator, account)
        story.rent()
        prefect.deploy_folder(folder, ["renew-rentals"])

        def kill() -> None:
            processes.stop([worker], kill=True)
            prefect.start_worker("rentals", at_once=2)

        story.play(kill)
        runs = prefect.rest.post(
            "/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["FAILED"]}}}}
        )
        tables = {"flow_run_id": {"any_": [run["id"] for run in runs]}, "type": {"any_": ["table"]}}
        artifacts = prefect.rest.post("/artifacts/filter", {"artifacts": tables})
        rows = [row for one in artifacts for row in json.loads(one["data"])]
        reported = [f"rental {row['order_id']}: {row['outcome']}" for row in rows if row["reason"]]
        return story.evidence(reported)


STACKS = {"airflow": on_airflow, "prefect": on_prefect}


@pytest.fixture(scope="module", params=list(STACKS))
def evidence(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return STACKS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("kind", RENTALS)
def test_each_period_is_paid_once_and_no_rental_ever_ends(evidence: Evidence, kind: str) -> None:
    order, renewals = evidence.orders[kind], evidence.renewals[kind]
    assert order.status in ("pending", "active")
    assert order.renewals == len(renewals) >= PERIODS
    # The n-th renewal is made in the n-th period: neither twice in one, nor after its end.
    began = order.created_at.timestamp()
    assert [int((when - began) // PERIOD) for when in renewals] == list(range(len(renewals)))
    assert order.paid == order.price * (1 + len(renewals))


def test_what_went_wrong_went_wrong_and_is_reported(evidence: Evidence) -> None:
    assert evidence.faults["lost_answer"] == 1
    assert evidence.faults["out_of_stock"] == 2
    (text,) = {text for text in evidence.reported if str(evidence.orders["three"].order_id) in text}
    assert "insufficient_balance" in text
    assert evidence.refused == 0
