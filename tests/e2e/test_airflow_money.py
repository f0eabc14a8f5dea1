"""Every way in which a task of a real Airflow can end, and what becomes of the number that it holds.

One stack for all: scheduler, triggerer, API server and Dag processor, and two simulated services, one for the
operators of smsverify, one for the same Dags with the operators for HTTP. The last test prints what either
lost.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from smsverify.simulator import Fault, SimulatedOrder
from stacks import AirflowStack, Processes, Run, SimulatorProcess

pytestmark = pytest.mark.timeout(1200)  # the first test runs everything, on a busy machine perhaps

ROOT = Path(__file__).parents[2]
DAGS = Path(__file__).parent / "airflow_money"
AIRFLOW = ROOT / ".venv" / "airflow"
SOURCES = ":".join(str(ROOT / name) for name in ("core", "provider"))
SERVICE = {"balance": "50.00", "sms_delay": "never", "rate_period": 6}
PATIENCE = 240.0

# By area code, which names the scenario at both services.
SCENARIOS = {
    201: "lost_answer",
    202: "worker_killed",
    203: "marked_failed",
    204: "marked_success",
    205: "cleared",
    206: "cleared_from_the_start",
    207: "run_timeout",
    208: "timed_out",
    209: "teardown",
    210: "triggerer_killed",
    211: "triggerer_killed_until_too_late",
    212: "backstop",
    301: "poke_marked_failed",
    302: "poke_cleared",
    303: "poke_execution_timeout",
    304: "own_marked_failed",
    305: "own_busy_marked_failed",
    306: "queued_after_clear",
}
WITH_PLAIN = [name for code, name in SCENARIOS.items() if code <= 210]
# Their SMS comes, and the task that waits for it after all that has happened uses it.
USED = {
    "lost_answer",
    "worker_killed",
    "cleared",
    "cleared_from_the_start",
    "triggerer_killed",
    "poke_cleared",
    "poke_execution_timeout",
    "queued_after_clear",
}
# How the task that waits ends where nobody has decided that, and where somebody has.
ENDS = {
    "timed_out": "failed",
    "run_timeout": "skipped",
    "backstop": "failed",
    "marked_success": "success",
    "triggerer_killed_until_too_late": "failed",
}


@dataclass
class Side:
    """One of the two ways to write the Dags: its service, and what has become of its runs."""

    prefix: str
    simulator: SimulatorProcess
    waiting: tuple[str, ...]
    runs: dict[str, Run] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def orders(self, scenario: str) -> list[SimulatedOrder]:
        """What was bought in a scenario."""
        return [
            order
            for order in self.simulator.control().orders()
            if SCENARIOS[int(order.area_code or 0)] == scenario
        ]

    def lost(self, scenario: str) -> Decimal:
        """USD that were paid, not refunded, and whose code nobody has used."""
        paid = [order.paid - order.refunded for order in self.orders(scenario)]
        used = max(paid, default=Decimal(0)) if scenario in self.used else Decimal(0)
        return sum(paid, Decimal(0)) - used


@dataclass
class Evidence:
    """What all the scenarios have left behind."""

    ours: Side
    plain: Side
    states: dict[str, dict[str, str]]
    report: dict[str, Any]


class Story:
    """Lets things happen to the runs of both sides."""

    def __init__(self, airflow: AirflowStack, processes: Processes, ours: Side, plain: Side) -> None:
        self._airflow = airflow
        self._processes = processes
        self.ours = ours
        self.plain = plain

    def start(self, *scenarios: str, sides: tuple[Side, ...] | None = None) -> None:
        """Starts runs, of both sides where both have the scenario."""
        for scenario in scenarios:
            for side in sides or (self.ours, *([self.plain] if scenario in WITH_PLAIN else [])):
                side.runs[scenario] = self.start_dag(f"{side.prefix}_{scenario}")

    def start_dag(self, dag_id: str) -> Run:
        """Starts a run of a Dag."""
        return self._airflow.trigger_dag(dag_id)

    def waiting(self, scenario: str) -> Iterator[Side]:
        """The sides that have a scenario, each as soon as its task waits for the code."""
        for side in (self.ours, self.plain):
            if scenario in side.runs:
                self.wait_for(side, scenario, side.waiting)
                self._processes.wait_until(
                    lambda side=side: any(order.status_requests for order in side.orders(scenario)),  # type: ignore[misc]
                    PATIENCE,
                    f"the first look of {scenario}",
                )
                yield side

    def holding_a_worker(self, scenario: str) -> Side:
        """Our side, as soon as a task that holds a worker has its number."""
        has_looked = scenario != "own_busy_marked_failed"
        self._processes.wait_until(
            lambda: any(order.status_requests or not has_looked for order in self.ours.orders(scenario)),
            PATIENCE,
            f"the number of {scenario}",
        )
        return self.ours

    def wait_for(self, side: Side, scenario: str, states: tuple[str, ...], task_id: str = "wait") -> str:
        return self._airflow.wait_for_state(side.runs[scenario], task_id, states, PATIENCE)

    def mark(self, side: Side, scenario: str, state: Any) -> None:
        """Marks the task that waits, as a user does."""
        self._airflow.mark(side.runs[scenario], "wait", state)

    def clear(self, side: Side, scenario: str, *task_ids: str) -> None:
        """Clears tasks, as a user does."""
        self._airflow.clear(side.runs[scenario], task_ids)

    def wait_for_try(self, side: Side, scenario: str, number: int) -> None:
        """Waits until a later try of the task waits for the code."""

        def waits() -> bool:
            task = self._airflow.task(side.runs[scenario], "wait")
            return task["try_number"] >= number and task["state"] in (*side.waiting, "running")

        self._processes.wait_until(waits, PATIENCE, f"try {number} of {scenario}")

    def deliver(self, side: Side, scenario: str) -> None:
        """Lets the SMS of the newest order come."""
        newest = max(side.orders(scenario), key=lambda order: order.order_id)
        side.simulator.control().deliver_sms(newest.order_id)

    def use(self, scenario: str) -> None:
        """Waits until the code was used."""
        for side in (self.ours, self.plain):
            if scenario in side.runs:
                assert self.wait_for(side, scenario, ("success", "failed")) == "success", scenario
                side.used.add(scenario)

    def until_refunded(self, scenario: str) -> None:
        """Gives the operators of smsverify the time that they need."""
        self._processes.wait_until(
            lambda: all(order.status == "cancelled" for order in self.ours.orders(scenario)),
            PATIENCE,
            f"the refund of {scenario}",
        )


def play(story: Story, airflow: AirflowStack) -> None:
    """What happens. A few runs at a time: SQLite takes no more."""
    lose_answers(story)
    mark(story)
    clear(story)
    fail(story)
    airflow.make_pool("narrow", slots=1)
    act_on_what_holds_a_worker(story)
    kill_the_triggerer(story, airflow)
    for scenario in sorted(set(SCENARIOS.values()) - USED):
        story.until_refunded(scenario)
    for scenario in ENDS:
        airflow.wait_for_run(story.ours.runs[scenario], PATIENCE)
    for scenario in ("run_timeout", "timed_out", "teardown"):
        airflow.wait_for_run(story.plain.runs[scenario], PATIENCE)


def lose_answers(story: Story) -> None:
    for side in (story.ours, story.plain):
        side.simulator.control().add_fault(Fault("lost_answer", path="order/temporary/"))
    story.start("lost_answer")
    for side in story.waiting("lost_answer"):
        story.deliver(side, "lost_answer")


def mark(story: Story) -> None:
    story.start("run_timeout", "marked_failed", "marked_success")
    for side in story.waiting("marked_failed"):
        story.mark(side, "marked_failed", "failed")
    for side in story.waiting("marked_success"):
        story.mark(side, "marked_success", "success")


def clear(story: Story) -> None:
    story.start("worker_killed", "cleared", "cleared_from_the_start")
    for side in story.waiting("cleared"):
        story.clear(side, "cleared", "wait")
    for side in story.waiting("cleared_from_the_start"):
        story.clear(side, "cleared_from_the_start", "order", "wait")
    for side in story.waiting("worker_killed"):
        story.deliver(side, "worker_killed")
    for scenario in ("cleared", "cleared_from_the_start"):
        for side in story.waiting(scenario):
            story.wait_for_try(side, scenario, 2)
            story.deliver(side, scenario)
    for scenario in ("lost_answer", "worker_killed", "cleared", "cleared_from_the_start"):
        story.use(scenario)


def fail(story: Story) -> None:
    story.start("timed_out", "teardown", "triggerer_killed", "triggerer_killed_until_too_late")


def act_on_what_holds_a_worker(story: Story) -> None:
    killed = ("own_marked_failed", "own_busy_marked_failed", "poke_marked_failed")
    cleared = ("poke_cleared", "poke_execution_timeout", "queued_after_clear")
    story.start("queued_after_clear", *killed)
    for scenario in killed:
        story.mark(story.holding_a_worker(scenario), scenario, "failed")
    story.wait_for(story.ours, "queued_after_clear", ("deferred",))
    story.start("poke_cleared", "poke_execution_timeout", "fill_the_pool", sides=(story.ours,))
    story.wait_for(story.ours, "fill_the_pool", ("running",))
    story.clear(story.ours, "queued_after_clear", "wait")
    story.clear(story.holding_a_worker("poke_cleared"), "poke_cleared", "wait")
    for scenario in cleared:
        story.wait_for_try(story.ours, scenario, 2)
        story.deliver(story.ours, scenario)
    for scenario in cleared:
        story.use(scenario)


def kill_the_triggerer(story: Story, airflow: AirflowStack) -> None:
    both = ("triggerer_killed_until_too_late", "triggerer_killed")
    for scenario in both:
        waiting = list(story.waiting(scenario))
    airflow.kill("triggerer")
    for side in waiting:
        story.deliver(side, "triggerer_killed")
    story.start("backstop")
    story.wait_for(story.ours, "backstop", ("failed",))
    airflow.start(["triggerer"])
    story.use("triggerer_killed")


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    base = tmp_path_factory.mktemp("money")
    with (
        Processes(base / "logs") as processes,
        Processes(base / "ours") as for_ours,
        Processes(base / "plain") as for_plain,
        SimulatorProcess(for_ours, AIRFLOW, **SERVICE) as service,
        SimulatorProcess(for_plain, AIRFLOW, **SERVICE) as service_of_plain,
    ):
        ours = Side("ours", service, ("deferred",))
        plain = Side("plain", service_of_plain, ("up_for_reschedule",))
        account = service.account(base / "store.db")
        key = service_of_plain.account(base).settings["api_key"]
        variables = account.airflow_connection() | {
            "AIRFLOW_CONN_SMS": json.dumps(
                {
                    "conn_type": "http",
                    "host": plain.simulator.url,
                    "extra": {"Authorization": f"Bearer {key}"},
                }
            ),
            "AIRFLOW__CORE__PARALLELISM": "6",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{base}/airflow/airflow.db?timeout=60",
            "PYTHONPATH": SOURCES,
        }
        stack = AirflowStack(processes, AIRFLOW, dags=DAGS, home=base / "airflow", variables=variables)
        with stack as airflow:
            play(Story(airflow, processes, ours, plain), airflow)
            states = {
                scenario: {"": airflow.look(run).state} | airflow.task_states(run)
                for scenario, run in ours.runs.items()
            }
        report = reconcile(account.environment())
        yield Evidence(ours, plain, states, report)


def reconcile(environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "smsverify", "reconcile", "--json"]
    done = subprocess.run(
        command, env={"PYTHONPATH": SOURCES, **environment}, capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("scenario", SCENARIOS.values())
def test_no_number_is_lost(evidence: Evidence, scenario: str) -> None:
    reported = {
        order["order_id"] for kind in ("to_cancel", "leaks") for order in evidence.report[kind]
    } | set(evidence.report["cancelled"])
    orders = evidence.ours.orders(scenario)
    held = [order for order in orders if order.paid > order.refunded]
    if scenario in USED:
        (used,) = held
        assert used.status == "completed"
        assert len(orders) == 1, "the next try is handed the same order"
    else:
        assert {order.order_id for order in held} <= reported
    assert evidence.ours.lost(scenario) == 0, evidence.states[scenario]


@pytest.mark.parametrize(("scenario", "state"), ENDS.items())
def test_a_task_ends_as_airflow_says(evidence: Evidence, scenario: str, state: str) -> None:
    assert evidence.states[scenario]["wait"] == state


def test_the_records_agree_with_the_service(evidence: Evidence) -> None:
    assert evidence.report["unknown"] == evidence.report["foreign"] == []
    spent = sum(order.paid - order.refunded for order in evidence.ours.simulator.control().orders())
    assert Decimal(evidence.report["spent"]) == spent
    assert Decimal(evidence.report["balance"]) == 50 - spent
    assert evidence.ours.simulator.control().stats().refused == 0


def test_what_either_way_to_write_them_has_lost(
    evidence: Evidence, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("scenario", "lost with plain HTTP operators", "lost with smsverify")]
    for scenario in SCENARIOS.values():
        plain = f"{evidence.plain.lost(scenario):.2f} USD" if scenario in WITH_PLAIN else "-"
        rows.append((scenario.replace("_", " "), plain, f"{evidence.ours.lost(scenario):.2f} USD"))
    with capsys.disabled():
        print()
        for row in rows:
            print(" | ".join(cell.ljust(32) for cell in row))
    assert sum(evidence.plain.lost(scenario) for scenario in WITH_PLAIN) > 0
