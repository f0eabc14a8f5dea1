"""What becomes of the money when flow runs go wrong, on a real Prefect server with a worker.

Each scenario runs twice, side by side: with `prefect_smsverify`, and with tasks as one writes them by hand on
`requests`. Every order of ours that is paid, not refunded and not used has to stand in the reconciliation's
report. What the hand-written tasks lose is printed for comparison.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest

from smsverify import SmsVerifyHook
from smsverify.simulator import Fault, SimulatedOrder
from stacks import Account, PrefectServer, Processes, SimulatorProcess

T = TypeVar("T")

pytestmark = pytest.mark.timeout(900)  # the first test starts everything, on a busy machine perhaps

ENVIRONMENTS = Path(__file__).parents[2] / ".venv"
PATIENCE = 120.0
POOL = "money"
TERMINAL = ("Completed", "Failed", "Crashed", "Cancelled", "TimedOut")
SERVICE = {
    "speed": 60,
    "balance": "100.00",
    "sms_delay": 1,
    "services": {"telegram": {"sms_delay": "never"}},
    "products": {"temporary": {"validity": 360_000}},
}

OURS = """
from prefect import flow, task
from prefect.runtime import flow_run

from prefect_smsverify import order_number, rented_number, wait_for_otp


@task
def fill_in_the_form(phone):
    raise RuntimeError("the form is not what it was")


@task
def sign_up(service):
    order = order_number("mine", "temporary", service=service, max_price=1)
    fill_in_the_form(order.phone)
    return wait_for_otp("mine", order).otp


@flow
def fails(service: str):
    sign_up(service)


@flow
def waits(service: str):
    order = order_number("mine", "temporary", service=service, max_price=1)
    wait_for_otp("mine", order)


@flow
def waits_in_threads(service: str):
    order = order_number.submit("mine", "temporary", service=service, max_price=1)
    wait_for_otp.submit("mine", order).result()


@flow(retries=1)
def retries(service: str):
    order = order_number("mine", "temporary", service=service, max_price=1)
    if flow_run.run_count == 1:
        raise RuntimeError("something else has failed")
    wait_for_otp("mine", order)
"""

BY_HAND = """
import os
import time

import requests
from prefect import flow, task
from prefect.runtime import flow_run

API = "{url}/api/v1/"
KEY = {{"Authorization": "Bearer {key}"}}


@task(retries=3)
def order_number(service):
    services = requests.get(API + "services/temporary/", headers=KEY, timeout=5).json()["data"]["services"]
    wanted = {{"service_id": next(one["service_id"] for one in services if one["name"] == service)}}
    answer = requests.post(API + "order/temporary/", headers=KEY, json=wanted, timeout=5)
    answer.raise_for_status()
    return answer.json()["data"]["order_id"]


@task(retries=3)
def wait_for_otp(order_id):
    for _ in range(600):
        answer = requests.get(f"{{API}}order/{{order_id}}/status/", headers=KEY, timeout=5)
        answer.raise_for_status()
        if answer.json()["data"].get("otp"):
            return answer.json()["data"]["otp"]
        time.sleep(1)
    raise TimeoutError


@task
def fill_in_the_form(order_id):
    raise RuntimeError("the form is not what it was")


@flow
def fails(service: str):
    order_id = order_number(service)
    fill_in_the_form(order_id)
    wait_for_otp(order_id)


@flow
def waits(service: str):
    wait_for_otp(order_number(service))


@flow
def waits_in_threads(service: str):
    wait_for_otp.submit(order_number.submit(service)).result()


@flow(retries=1)
def retries(service: str):
    order_id = order_number(service)
    if flow_run.run_count == 1:
        raise RuntimeError("something else has failed")
    wait_for_otp(order_id)
"""
FLOWS = ("fails", "waits", "waits_in_threads", "retries")


@dataclass
class Side:
    """One of the two ways to do it, with a service of its own.

    Attributes:
        name: for people.
        processes: notices when one of them ends.
        simulator: the service.
        deployments: ids by the flows' names.
        seen: how many orders earlier scenarios have made.
    """

    name: str
    processes: Processes
    prefect: PrefectServer
    simulator: SimulatorProcess
    deployments: dict[str, str]
    seen: int = 0
    run_id: str = field(default="", init=False)

    def start(self, flow: str, service: str) -> None:
        """Starts a scenario with a flow run."""
        self.seen = len(self.simulator.control().orders())
        self.run_id = self.prefect.create_run(self.deployments[flow], {"service": service})

    def orders(self) -> list[SimulatedOrder]:
        """What the scenario has bought."""
        return self.simulator.control().orders()[self.seen :]

    def until(self, condition: Callable[[], T | None], what: str) -> T:
        """Waits for a condition."""
        return self.processes.wait_until(condition, PATIENCE, f"{self.name}: {what}")

    def until_it_waits(self, count: int = 1) -> None:
        """Waits until the newest of so many orders is polled."""

        def is_polled() -> bool:
            paths = [request.path for request in self.simulator.control().requests()]
            bought = max(index for index, path in enumerate(paths) if path == "/api/v1/order/temporary/")
            polls = {"/api/v1/orders/", f"/api/v1/order/{self.orders()[-1].order_id}/status/"}
            return not polls.isdisjoint(paths[bought:])

        self.until(lambda: len(self.orders()) >= count and is_polled(), "wait")

    def state(self) -> str:
        """The state of the flow run."""
        return self.prefect.run_state(self.run_id)

    def until_over(self) -> str:
        """Waits for the end of the flow run; the name of its state."""
        self.until(lambda: self.state() in TERMINAL, "end")
        return self.state()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process of the flow run."""
        pid = self.until(lambda: self.prefect.run_process(self.run_id), "process")
        os.kill(pid, number)

    def lost(self) -> Decimal:
        """USD of the scenario that were paid, not refunded, and not for the code that the flow has used."""
        orders = self.orders()
        if self.state() == "Completed":
            orders.remove(next(order for order in reversed(orders) if order.status == "completed"))
        return sum((order.paid - order.refunded for order in orders), Decimal(0))


@dataclass(frozen=True)
class Stage:
    """The server, both sides, the hook of ours, and the table of what was lost."""

    ours: Side
    by_hand: Side
    hook: SmsVerifyHook
    table: dict[str, tuple[Decimal, Decimal]]

    def play(self, title: str, flow: str, service: str, action: Callable[[Side], None]) -> None:
        """Plays a scenario on both sides at once, and notes what is lost."""
        sides = (self.by_hand, self.ours)
        for side in sides:
            side.start(flow, service)
        for side in sides:
            action(side)
        self.note(title)

    def note(self, title: str) -> None:
        """Notes what a scenario has lost."""
        self.table[title] = (self.by_hand.lost(), self.ours.lost())

    def reported(self) -> set[int]:
        """The orders that are reported to a person."""
        report = self.hook.reconcile()
        unknown = {order_id for call in report.unknown for order_id in call.order_ids}
        return unknown | {held.order_id for held in [*report.leaks, *report.to_cancel, *report.foreign]}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    base = tmp_path_factory.mktemp("money")
    environment = ENVIRONMENTS / "prefect"
    with (
        Processes(base / "logs") as processes,
        Processes(base / "logs-by-hand") as others,
        SimulatorProcess(processes, ENVIRONMENTS / "core", **SERVICE) as simulator,
        SimulatorProcess(others, ENVIRONMENTS / "core", **SERVICE) as simulator_by_hand,
        PrefectServer(processes, environment, home=base / "prefect") as prefect,
    ):
        # A request that was cut off counts as lost as soon as its answer could not come any more.
        timeouts = {"connect_timeout": "2", "read_timeout": "8"}
        account = Account({**simulator.account(base / "store.db").settings, **timeouts})
        prefect.save_credentials("mine", account)
        prefect.start_worker(POOL)
        sides = []
        for name, text, service in (("ours", OURS, simulator), ("by hand", BY_HAND, simulator_by_hand)):
            file = base / f"{name.replace(' ', '_')}.py"
            key = service.account(base / "none.db").settings["api_key"]
            file.write_text(text if name == "ours" else text.format(url=service.url, key=key))
            sides.append(Side(name, processes, prefect, service, prefect.deploy(POOL, file, FLOWS)))
        settings: dict[str, Any] = dict(account.settings)
        stage = Stage(*sides, SmsVerifyHook(**settings), {})
        yield stage
    print(f"\n{'scenario':<58} | {'by hand':>8} | {'ours':>8}")
    for title, (by_hand, ours) in stage.table.items():
        print(f"{title:<58} | {by_hand:>4.2f} USD | {ours:>4.2f} USD")


def test_a_task_fails_after_the_order(stage: Stage) -> None:
    stage.play("a task fails after the order", "fails", "Telegram", lambda side: [side.until_over()])
    assert stage.ours.state() == "Failed"
    assert [order.status for order in stage.ours.orders()] == ["cancelled"]
    assert stage.ours.lost() == 0
    assert stage.by_hand.lost() > 0, "the comparison compares nothing"


@pytest.mark.parametrize("flow", ["waits", "waits_in_threads"])
def test_the_flow_run_is_cancelled(flow: str, stage: Stage) -> None:
    def cancel(side: Side) -> None:
        side.until_it_waits()
        side.prefect.set_run_state(side.run_id, "CANCELLING", "Cancelling")
        side.until(lambda: side.state() == "Cancelled", "cancellation")

    stage.play(f"the flow run is cancelled ({flow})", flow, "Telegram", cancel)
    assert [order.status for order in stage.ours.orders()] == ["cancelled"]
    assert stage.ours.lost() == 0


def test_the_process_gets_a_sigterm(stage: Stage) -> None:
    def terminate(side: Side) -> None:
        side.until_it_waits()
        side.signal(signal.SIGTERM)
        side.until_over()

    stage.play("SIGTERM", "waits", "Telegram", terminate)
    assert [order.status for order in stage.ours.orders()] == ["cancelled"]
    assert stage.ours.lost() == 0


def kill(side: Side) -> None:
    side.until_it_waits()
    side.signal(signal.SIGKILL)
    assert side.until_over() == "Crashed"


def run_again(side: Side) -> None:
    """Has the flow run start again; the newest number gets its SMS as soon as somebody waits for it."""
    before = len(side.orders())
    side.prefect.set_run_state(side.run_id, "SCHEDULED", "AwaitingRetry")
    side.until(lambda: side.state() == "Running", "second attempt")
    side.until(lambda: len(side.orders()) > before or side.name == "ours", "order")
    side.simulator.control().deliver_sms(side.orders()[-1].order_id, otp="123456")
    assert side.until_over() == "Completed"


def test_the_process_is_killed_and_the_flow_run_starts_again(stage: Stage) -> None:
    def kill_and_run_again(side: Side) -> None:
        kill(side)
        run_again(side)

    stage.play("SIGKILL, and the flow run starts again", "waits", "Telegram", kill_and_run_again)
    assert [order.status for order in stage.ours.orders()] == ["completed"]
    assert stage.ours.lost() == 0


def test_the_process_is_killed_while_it_orders_and_the_flow_run_starts_again(stage: Stage) -> None:
    def kill_and_run_again(side: Side) -> None:
        side.until(side.orders, "order")
        side.signal(signal.SIGKILL)
        assert side.until_over() == "Crashed"
        run_again(side)

    for side in (stage.ours, stage.by_hand):
        side.simulator.control().add_fault(Fault("slow_after", path="order/temporary/", seconds=60))
    title = "SIGKILL before the answer, and the run starts again"
    stage.play(title, "waits", "Telegram", kill_and_run_again)
    assert [order.status for order in stage.ours.orders()] == ["completed"]
    assert stage.ours.lost() == 0


def test_the_process_is_killed_and_nobody_starts_it_again(stage: Stage) -> None:
    title = "SIGKILL, and nobody starts it again"
    stage.play(title, "waits", "Telegram", kill)
    (order,) = stage.ours.orders()
    assert order.status == "pending"
    stage.ours.until(lambda: order.order_id in stage.reported(), "report")
    assert stage.hook.reconcile(cancel_after=0).cancelled == [order.order_id]
    assert stage.ours.lost() == 0
    stage.note(title)
    assert stage.hook.reconcile().findings == []


def test_the_flow_is_retried(stage: Stage) -> None:
    stage.play("the flow is retried", "retries", "WhatsApp", lambda side: [side.until_over()])
    assert stage.ours.state() == "Completed"
    assert [order.status for order in stage.ours.orders()] == ["completed"]
    assert stage.ours.lost() == 0


def test_the_answer_is_lost(stage: Stage) -> None:
    for side in (stage.ours, stage.by_hand):
        side.simulator.control().add_fault(Fault("lost_answer", path="order/temporary/"))
    stage.play("the answer is lost", "waits", "WhatsApp", lambda side: [side.until_over()])
    assert stage.ours.state() == "Completed"
    assert [order.status for order in stage.ours.orders()] == ["completed"]
    assert stage.ours.lost() == 0


def test_in_the_end_all_is_accounted_for(stage: Stage) -> None:
    control = stage.ours.simulator.control()
    lost = {order.order_id for order in control.orders() if order.status not in ("completed", "cancelled")}
    assert lost <= stage.reported()
    assert control.balance() == 100 - sum(order.paid - order.refunded for order in control.orders())
