"""The operator that orders a number, whose task Airflow ends: before its success, and after it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from airflow.sdk import Context, TaskInstanceState

from smsverify.errors import WaitStoppedError
from smsverify.simulator import Fault, Simulator
from smsverify.wings import claim
from smsverify_provider.operators.smsverify import SmsVerifyOrderOperator

pytestmark = [pytest.mark.slow, pytest.mark.smsverify_simulator(sms_delay="never")]
WHATSAPP = {"product": "temporary", "service": "WhatsApp"}


class Killable(SmsVerifyOrderOperator):
    """Records which instance runs: Airflow executes, and kills, a copy of the one in the Dag."""

    running: ClassVar[list[SmsVerifyOrderOperator]] = []
    is_killed_with_its_number: ClassVar[bool] = False

    def execute(self, context: Context) -> dict[str, Any]:
        self.running.append(self)
        return super().execute(context)

    def _returned(self, context: Context, result: dict[str, Any]) -> dict[str, Any]:
        if self.is_killed_with_its_number:
            self.on_kill()
        return super()._returned(context, result)


class KilledWithItsNumber(Killable):
    """Is killed while it has its number and has not returned it."""

    is_killed_with_its_number = True


@pytest.fixture(autouse=True)
def running(monkeypatch: pytest.MonkeyPatch) -> list[SmsVerifyOrderOperator]:
    """The operators that have run."""
    monkeypatch.setattr(Killable, "running", [])
    return Killable.running


@pytest.fixture
def kill_when(running: list[SmsVerifyOrderOperator]) -> Callable[[Callable[[], bool]], threading.Thread]:
    """Kills the running task as soon as something is the case."""

    def kill_when(condition: Callable[[], bool]) -> threading.Thread:
        def wait() -> None:
            while not (running and running[0]._hook is not None and condition()):
                time.sleep(0.01)
            running[0].on_kill()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        return thread

    return kill_when


# ------------------------------------------------------------------ before it has its result


@pytest.mark.parametrize("state", ["failed", "success", "skipped", "running"])
def test_a_task_that_is_killed_gives_back_what_it_has_bought(
    run_task: Any, connection: Any, sim: Simulator, airflow_says: Any, going_back: Any, state: str
) -> None:
    airflow_says(state)
    result = run_task(KilledWithItsNumber(task_id="order", **WHATSAPP))
    assert isinstance(result.error, WaitStoppedError)
    assert [order.status for order in sim.orders()] == ["cancelled"]
    assert sim.balance() == 50
    assert going_back() == []


@pytest.mark.parametrize(("retries", "status"), [(0, "cancelled"), (1, "pending")])
def test_a_task_that_is_killed_while_its_purchase_is_on_the_way_does_not_succeed(
    run_task: Any,
    connection: Any,
    sim: Simulator,
    kill_when: Any,
    airflow_says: Any,
    going_back: Any,
    retries: int,
    status: str,
) -> None:
    """Airflow lets the code of a killed task run on, and its next try would never come."""
    airflow_says("running")  # nobody has marked it: its pod is evicted
    sim.add_fault(Fault("slow_after", path="order/temporary/", seconds=1))
    killer = kill_when(lambda: bool(sim.orders()))
    result = run_task(Killable(task_id="order", **WHATSAPP, retries=retries), run_callbacks=True)
    killer.join()
    assert isinstance(result.error, WaitStoppedError)
    assert "return_value" not in result.xcoms
    (order,) = sim.orders()
    assert order.status == status
    assert going_back() == ([order.order_id] if retries else [])


@pytest.mark.parametrize(("state", "retries"), [("running", 1), ("restarting", 0), (None, 0)])
def test_a_task_that_is_killed_and_runs_again_hands_out_the_same_order(
    run_task: Any,
    connection: Any,
    sim: Simulator,
    airflow_says: Any,
    state: Any,
    retries: int,
    going_back: Any,
) -> None:
    airflow_says(state)
    run_task(KilledWithItsNumber(task_id="order", **WHATSAPP, retries=retries), dag_id="dag")
    (order,) = sim.orders()
    assert order.order_id in going_back()
    result = run_task(SmsVerifyOrderOperator(task_id="order", **WHATSAPP), dag_id="dag", try_number=2)
    assert result.xcoms["order_id"] == order.order_id
    assert order.order_id not in going_back()
    assert [order.status for order in sim.orders()] == ["pending"]


def test_a_task_that_is_killed_before_it_begins_buys_nothing(
    run_task: Any, connection: Any, sim: Simulator
) -> None:
    killed = Killable(task_id="order", **WHATSAPP, pre_execute=lambda context: context["task"].on_kill())
    assert isinstance(run_task(killed).error, WaitStoppedError)
    assert sim.orders() == []


@pytest.mark.smsverify_simulator(speed=1, sms_delay="never")
def test_a_task_that_is_killed_while_it_waits_for_the_rate_budget_buys_nothing(
    run_task: Any, connection: Any, hook: Any, sim: Simulator, kill_when: Any
) -> None:
    hook.order("temporary", service="WhatsApp")  # the catalogue is known from now on
    while hook.rate_limit().available:
        hook.get_balance()
    killer = kill_when(lambda: hook.rate_limit().waiting > 0)
    result = run_task(Killable(task_id="order", **WHATSAPP))
    killer.join()
    assert isinstance(result.error, WaitStoppedError)
    assert len(sim.orders()) == 1


# ------------------------------------------------------------------ after that


@pytest.mark.parametrize("is_claimed", [False, True])
def test_a_task_that_has_succeeded_leaves_its_number_alone_however_long_its_callbacks_take(
    run_task: Any,
    connection: Any,
    hook: Any,
    sim: Simulator,
    airflow_says: Any,
    going_back: Any,
    running: list[SmsVerifyOrderOperator],
    is_claimed: bool,
) -> None:
    """After `[core] task_success_overtime`, Airflow sends SIGTERM to a task that has succeeded."""
    airflow_says("success")

    def slow(_context: Any) -> None:
        if is_claimed:
            claim(hook, sim.orders()[0].order_id, "the next task")
        running[0].on_kill()

    order = Killable(task_id="order", **WHATSAPP, on_success_callback=slow)
    assert run_task(order, run_callbacks=True).state == TaskInstanceState.SUCCESS
    assert [order.status for order in sim.orders()] == ["pending"]
    assert going_back() == []


@pytest.mark.parametrize("retries", [0, 1])
def test_a_kill_after_the_result_and_before_the_success_is_no_harm_if_the_task_succeeds(
    run_task: Any, connection: Any, sim: Simulator, airflow_says: Any, going_back: Any, retries: int
) -> None:
    airflow_says("running")
    seen: list[Any] = []

    def kill(context: Any, _result: Any) -> None:
        context["task"].on_kill()
        seen.append(going_back())

    order = Killable(task_id="order", **WHATSAPP, retries=retries, post_execute=kill)
    result = run_task(order, run_callbacks=True)
    assert result.state == TaskInstanceState.SUCCESS, result.error
    assert seen == [[result.xcoms["order_id"]]]  # if the process dies now, another one gives it back
    assert [order.status for order in sim.orders()] == ["pending"]
    assert going_back() == []


@pytest.mark.parametrize(("retries", "status"), [(0, "cancelled"), (1, "pending")])
def test_a_kill_after_the_result_gives_the_number_back_if_the_task_fails_after_all(
    run_task: Any, connection: Any, sim: Simulator, airflow_says: Any, retries: int, status: str
) -> None:
    airflow_says("running")

    def kill(context: Any, _result: Any) -> None:
        context["task"].on_kill()
        raise ZeroDivisionError

    order = Killable(task_id="order", **WHATSAPP, retries=retries, post_execute=kill)
    assert isinstance(run_task(order, run_callbacks=True).error, ZeroDivisionError)
    assert [order.status for order in sim.orders()] == [status]


def test_a_task_that_its_user_marks_as_failed_after_the_result_gives_the_number_back(
    run_task: Any, connection: Any, sim: Simulator, airflow_says: Any
) -> None:
    airflow_says("failed")
    order = Killable(task_id="order", **WHATSAPP, post_execute=lambda context, _: context["task"].on_kill())
    run_task(order)
    assert [order.status for order in sim.orders()] == ["cancelled"]


def test_a_kill_after_the_success_and_before_airflows_word_of_it_leaves_the_number_alone(
    run_task: Any, connection: Any, sim: Simulator, airflow_says: Any, running: list[SmsVerifyOrderOperator]
) -> None:
    run_task(Killable(task_id="order", **WHATSAPP))
    airflow_says("success")
    running[0].on_kill()
    assert [order.status for order in sim.orders()] == ["pending"]
