"""A task of the user's own that uses the hook and is ended by Airflow, which then calls its `on_kill`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG, TaskInstanceState, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, AirflowTaskTimeout
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from rigs import let_go_of_all_numbers

from smsverify._orders import holding
from smsverify._parts import Parts
from smsverify._store.store import Store
from smsverify.errors import StoreError, WaitStoppedError
from smsverify.simulator import Fault, Simulator
from smsverify.wings import plan_release
from smsverify_provider import kills
from smsverify_provider.hooks.smsverify import SmsVerifyHook
from smsverify_provider.operators.smsverify import SmsVerifyOperator, SmsVerifyOrderOperator

pytestmark = pytest.mark.smsverify_simulator(sms_delay="never")

TIMEOUT = 60.0


def end_when(condition: Callable[[], bool]) -> None:
    """Has the running task ended, as Airflow's signal handler does it, as soon as something is the case."""
    running = get_current_context()["ti"].task

    def end() -> None:
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.on_kill()

    threading.Thread(target=end, daemon=True).start()


def asked_for(sim: Simulator) -> Callable[[], bool]:
    return lambda: any(order.status_requests for order in sim.orders())


@pytest.fixture
def run(run_task: Any, connection: Any) -> Callable[..., Any]:
    """Runs a function as a task."""

    def run(function: Callable[[], Any], *, run_callbacks: bool = False, **arguments: Any) -> Any:
        with DAG("dag"):
            operator = task(function, task_id="own", **arguments)().operator
        return run_task(operator, run_callbacks=run_callbacks)

    return run


def wait_in_a_block() -> None:
    with SmsVerifyHook().rented_number("temporary", service="WhatsApp") as number:
        number.wait_for_otp(TIMEOUT)


def wait_for_an_order() -> None:
    hook = SmsVerifyHook()
    hook.wait_for_otp(hook.order("temporary", service="WhatsApp").order_id, TIMEOUT)


def wait_in_a_thread() -> None:
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            wait_for_an_order()
        except WaitStoppedError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    raise errors[0]


def wait_in_an_event_loop() -> None:
    hook = SmsVerifyHook()
    orders = [hook.order("temporary", service="WhatsApp") for _ in range(3)]

    async def wait() -> None:
        await asyncio.gather(*[hook.await_otp(order.order_id, TIMEOUT) for order in orders])

    asyncio.run(wait())


@pytest.mark.parametrize(
    "work", [wait_in_a_block, wait_for_an_order, wait_in_a_thread, wait_in_an_event_loop]
)
def test_a_wait_ends_and_its_number_is_given_back(
    run: Any, sim: Simulator, airflow_says: Any, work: Callable[[], None]
) -> None:
    def own() -> None:
        end_when(asked_for(sim))
        work()

    result = run(own)
    assert isinstance(result.error, WaitStoppedError)
    wait_until(lambda: all(order.status == "cancelled" for order in sim.orders()))
    assert sim.balance() == 50


@pytest.mark.slow
@pytest.mark.parametrize("work", [wait_in_a_block, wait_for_an_order, wait_in_an_event_loop])
@pytest.mark.parametrize("retries", [0, 1])
def test_a_task_whose_time_is_over_gives_its_number_back(
    run: Any, sim: Simulator, airflow_says: Any, work: Callable[[], None], retries: int, going_back: Any
) -> None:
    airflow_says("running")
    result = run(work, execution_timeout=timedelta(seconds=4), retries=retries)
    assert isinstance(result.error, AirflowTaskTimeout)
    if retries and work is not wait_in_a_block:  # the next try is handed it again
        wait_until(lambda: all(order.order_id in going_back() for order in sim.orders()))
        assert {order.status for order in sim.orders()} == {"pending"}
    else:
        wait_until(lambda: all(order.status == "cancelled" for order in sim.orders()))


@contextmanager
def rented() -> Iterator[int]:
    with SmsVerifyHook().rented_number("temporary", service="WhatsApp") as number:
        yield number.order_id


@contextmanager
def tried() -> Iterator[int]:
    for attempt in SmsVerifyHook().attempts("temporary", service="WhatsApp"):
        with attempt as number:
            yield number.order_id


IN_A_BLOCK = pytest.mark.parametrize("block", [rented, tried])


@IN_A_BLOCK
def test_a_number_is_given_back_while_the_block_is_busy_with_something_else(
    run: Any, sim: Simulator, airflow_says: Any, block: Any
) -> None:
    def own() -> str:
        with block() as order_id:
            end_when(lambda: True)
            wait_until(lambda: sim.order(order_id).status == "cancelled")
            return "the block goes on"

    assert run(own).xcoms["return_value"] == "the block goes on"


@IN_A_BLOCK
def test_what_is_bought_while_the_task_is_ended_is_given_back_at_once(
    run: Any, sim: Simulator, airflow_says: Any, block: Any
) -> None:
    sim.add_fault(Fault("slow_after", path="order/temporary/", seconds=1))

    def own() -> None:
        end_when(lambda: bool(sim.orders()))
        with block():
            raise AssertionError("the block must not begin")

    assert isinstance(run(own).error, WaitStoppedError)
    assert [order.status for order in sim.orders()] == ["cancelled"]


def test_a_task_of_a_function_that_is_ended_while_it_buys_does_not_call_it(
    run_task: Any, connection: Any, sim: Simulator, airflow_says: Any
) -> None:
    sim.add_fault(Fault("slow_after", path="order/temporary/", seconds=1))

    def sign_up(_number: Any) -> None:
        raise AssertionError("the function must not be called")

    result = run_task(
        SmsVerifyOperator(
            task_id="own",
            python_callable=sign_up,
            product="temporary",
            service="WhatsApp",
            pre_execute=lambda _context: end_when(lambda: bool(sim.orders())),
        )
    )
    assert isinstance(result.error, WaitStoppedError)
    assert [order.status for order in sim.orders()] == ["cancelled"]


def test_a_task_of_a_function_that_is_ended_meanwhile_does_not_wait(
    run_task: Any, connection: Any, sim: Simulator, airflow_says: Any, going_back: Any
) -> None:
    def sign_up(number: Any) -> None:
        end_when(lambda: True)
        wait_until(lambda: sim.order(number["order_id"]).status == "cancelled")

    result = run_task(
        SmsVerifyOperator(
            task_id="own", python_callable=sign_up, product="temporary", service="WhatsApp", attempts=1
        )
    )
    assert isinstance(result.error, WaitStoppedError)
    wait_until(lambda: going_back() == [])  # a thread of the kill may be at it


@pytest.mark.smsverify_simulator(speed=1, sms_delay="never")
@pytest.mark.parametrize("block", [None, rented, tried])
def test_a_purchase_that_waits_for_the_rate_budget_is_not_made(
    run: Any, sim: Simulator, hook: Any, block: Any
) -> None:
    hook.order("temporary", service="WhatsApp")  # the catalogue is known from now on
    while hook.rate_limit().available > 3:  # which are kept for what gives money back
        hook.get_balance()

    def own() -> None:
        end_when(lambda: hook.rate_limit().waiting > 0)
        if block is None:
            SmsVerifyHook().order("temporary", service="WhatsApp")
        else:
            block().__enter__()

    assert isinstance(run(own).error, WaitStoppedError)
    assert len(sim.orders()) == 1


def test_a_task_that_runs_again_keeps_what_it_waits_for(
    run: Any, sim: Simulator, airflow_says: Any, going_back: Any
) -> None:
    airflow_says("running")

    def own() -> None:
        end_when(asked_for(sim))
        wait_for_an_order()

    assert isinstance(run(own, retries=1).error, WaitStoppedError)
    (order,) = sim.orders()
    wait_until(
        lambda: order.order_id in going_back()
    )  # in a task it is the signal handler, which comes first
    assert order.status == "pending"
    assert order.order_id in going_back()


def test_the_next_try_of_a_task_takes_the_release_off_the_record(
    run: Any, sim: Simulator, hook: Any, going_back: Any
) -> None:
    def own() -> int:
        with SmsVerifyHook().rented_number("temporary", service="WhatsApp", key="mine") as number:
            assert number.order_id not in going_back()
            return number.order_id

    order_id = hook.order("temporary", service="WhatsApp", key="mine").order_id
    plan_release(hook, order_id, "an earlier try was killed", patience=600)
    assert run(own).xcoms["return_value"] == order_id


def test_the_release_is_on_record_when_airflow_does_not_answer(
    run: Any, sim: Simulator, monkeypatch: pytest.MonkeyPatch, going_back: Any
) -> None:
    """The signal may have interrupted a call to the supervisor: then nobody can ask it until the end."""
    monkeypatch.setattr(kills, "KILL_BUDGET", 0.3)
    is_over = threading.Event()
    monkeypatch.setattr(kills, "state_of", lambda _ti: is_over.wait(10 * TIMEOUT))

    def own() -> None:
        end_when(asked_for(sim))
        wait_for_an_order()

    try:
        assert isinstance(run(own).error, WaitStoppedError)
        (order,) = sim.orders()
        wait_until(lambda: order.order_id in going_back())
    finally:
        is_over.set()


def test_a_store_that_fails_after_the_release_is_on_record_is_logged_as_that(
    hook: Any, sim: Simulator, monkeypatch: pytest.MonkeyPatch, going_back: Any, caplog: Any
) -> None:
    def fail(*_args: Any, **_options: Any) -> None:
        raise StoreError("it is out of reach")

    order_id = hook.order("temporary", service="WhatsApp").order_id
    monkeypatch.setattr(type(hook), "release", fail)
    kills.give_back(hook, order_id, ti=None)
    assert going_back() == [order_id]
    assert f"The release of order {order_id} stays on record" in caplog.text
    assert "is not given back" not in caplog.text


def test_what_has_ended_before_is_left_alone(run: Any, sim: Simulator, hook: Any, airflow_says: Any) -> None:
    def own() -> int:
        with suppress(ZeroDivisionError), SmsVerifyHook().rented_number("temporary", service="WhatsApp"):
            raise ZeroDivisionError
        order_id = SmsVerifyHook().order("temporary", service="Telegram").order_id
        sim.deliver_sms(order_id)
        SmsVerifyHook().wait_for_otp(order_id)
        kept = SmsVerifyHook().order("temporary", service="Google")
        get_current_context()["ti"].task.on_kill()
        return kept.order_id

    result = run(own)
    assert result.state == TaskInstanceState.SUCCESS, result.error
    assert [order.status for order in sim.orders()] == ["cancelled", "completed", "pending"]


@pytest.mark.parametrize(
    ("map_index", "answer", "state"),
    [
        (-1, {"run": {"wait": "failed"}}, "failed"),
        (None, {"run": {"wait": None}}, None),
        (2, {"run": {"wait_2": "queued"}}, "queued"),
        (-1, {}, "removed"),
    ],
)
def test_airflow_is_asked_for_the_state_of_this_task(
    monkeypatch: pytest.MonkeyPatch, map_index: int | None, answer: Any, state: str | None
) -> None:
    class Instance:
        dag_id, run_id, task_id = "dag", "run", "wait"

    asked: list[dict[str, Any]] = []

    def get_task_states(**criteria: Any) -> Any:
        asked.append(criteria)
        return answer

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", get_task_states)
    instance = Instance()
    instance.map_index = map_index  # type: ignore[attr-defined]
    assert kills.state_of(instance) == state
    assert asked == [
        {
            "dag_id": "dag",
            "run_ids": ["run"],
            "task_ids": ["wait"],
            "map_index": 2 if map_index == 2 else None,
        }
    ]


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_wait_that_its_event_loop_has_cancelled_is_no_matter_once_the_task_has_succeeded(
    run: Any, sim: Simulator, airflow_says: Any, going_back: Any
) -> None:
    airflow_says("success")

    def own() -> None:
        hook = SmsVerifyHook()
        order_id = hook.order("temporary", service="WhatsApp").order_id
        with suppress(asyncio.TimeoutError):
            asyncio.run(asyncio.wait_for(hook.await_otp(order_id, TIMEOUT), 0.1))

    def slow(context: Any) -> None:
        """Airflow ends a task whose callbacks take too long."""
        context["ti"].task.on_kill()

    assert run(own, run_callbacks=True, on_success_callback=slow).state == TaskInstanceState.SUCCESS
    assert [order.status for order in sim.orders()] == ["pending"]
    assert going_back() == []


# ------------------------------------------------------------------ who has what a task has bought


def buy_a_rental() -> None:
    SmsVerifyHook().order("rent-1day", service="Tinder")


def buy_and_fail() -> None:
    buy_a_rental()
    raise AirflowFailException


def buy_and_skip() -> None:
    buy_a_rental()
    raise AirflowSkipException


def buy_look_and_fail() -> None:
    hook = SmsVerifyHook()
    hook.get_status(hook.order("rent-1day", service="Tinder").order_id)
    raise AirflowFailException


def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some time after the process of the task is gone."""
    now = Store.now
    monkeypatch.setattr(Store, "now", lambda self, connection: now(self, connection) + 3600)


@pytest.mark.parametrize("work", [buy_and_fail, buy_and_skip, buy_look_and_fail])
def test_a_rental_of_a_task_that_does_not_succeed_is_named_and_not_renewed_until_somebody_has_it(
    run: Any, sim: Simulator, hook: Any, monkeypatch: pytest.MonkeyPatch, work: Callable[[], None]
) -> None:
    run(work, run_callbacks=True)
    (order,) = sim.orders()
    later(monkeypatch)
    (finding,) = hook.reconcile().findings
    assert str(order.order_id) in finding
    (kept,) = hook.renew_expiring(10**6).rentals
    assert kept.outcome == "unclaimed"
    assert f"smsverify status {order.order_id}" in (kept.reason or "")
    hook.get_status(order.order_id)
    assert hook.reconcile().findings == []
    (kept,) = hook.renew_expiring(10**6).rentals
    assert kept.outcome == "renewed"


def test_a_rental_of_a_task_that_succeeds_is_handed_over(
    run: Any, run_task: Any, sim: Simulator, hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        run(buy_a_rental, run_callbacks=True)
    operator = SmsVerifyOrderOperator(task_id="order", product="rent-1day", service="Tinder")
    run_task(operator, run_callbacks=True)
    later(monkeypatch)
    assert hook.reconcile().findings == []
    assert {kept.outcome for kept in hook.renew_expiring(10**6).rentals} == {"renewed"}


def test_an_order_is_handed_over_before_a_callback_of_the_user_may_end_the_process(
    run: Any, sim: Simulator, rooms: Parts
) -> None:
    seen: list[float | None] = []

    def callback(_context: Any) -> None:
        seen.append(rooms.orders.handover.unclaimed_for(sim.orders()[0].order_id))

    run(buy_a_rental, run_callbacks=True, on_success_callback=callback)
    assert seen == [None]


def test_a_rental_of_a_task_that_was_killed_is_given_back_where_that_is_wanted(
    run: Any, sim: Simulator, hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever that was after its purchase: nothing of the task has run since."""
    run(buy_a_rental)  # a task that is killed has no callbacks
    let_go_of_all_numbers()  # nor a process that sends heartbeats
    later(monkeypatch)
    report = hook.reconcile(cancel_after=0)
    assert report.cancelled == [order.order_id for order in sim.orders()]
    assert sim.balance() == 50


def test_a_rental_of_a_task_that_runs_is_left_alone(
    run: Any, sim: Simulator, hook: Any, rooms: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "FORGOTTEN", 0.4)

    def own() -> None:
        buy_a_rental()
        (order,) = sim.orders()
        ages = [rooms.orders.handover.unclaimed_for(order.order_id)]

        def is_younger() -> bool:
            ages.append(rooms.orders.handover.unclaimed_for(order.order_id))
            return ages[-1] < ages[-2]

        wait_until(is_younger)
        assert hook.reconcile(cancel_after=0).findings == []
        assert {kept.outcome for kept in hook.renew_expiring(10**6).rentals} == {"not_due"}

    assert run(own, run_callbacks=True).error is None
    assert {kept.outcome for kept in hook.renew_expiring(10**6).rentals} == {"renewed"}
