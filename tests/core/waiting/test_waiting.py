"""Waiting: no code is lost, all waiters share one poll, and an event loop is never blocked."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from rigs import await_end_of_waits, eventually
from rigs.processes import beside, in_processes, results_of
from rigs.rooms import hold_up, rooms_of, settings_of
from rigs.waits import PATIENT, Waiting, buy, status_requests

from smsverify import errors
from smsverify._messages.filters import MessageFilter
from smsverify._store.store import open_store
from smsverify._store.tables import waits
from smsverify._waiting import waiter as waiting_room
from smsverify._waiting.otp_waits import OtpWaits
from smsverify.hook import SmsVerifyHook
from smsverify.models import Message
from smsverify.simulator import Simulator

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]


# ------------------------------------------------------------------ the code comes


def test_a_wait_ends_with_the_message(simulate: Simulate, make_hook: MakeHook, any_store_url: str) -> None:
    simulator = simulate(sms_delay=10)
    hook = make_hook(simulator, any_store_url)
    order = hook.order("temporary", service="WhatsApp")
    message = hook.wait_for_otp(order.order_id, PATIENT)
    sold = simulator.order(order.order_id)
    assert (message.order_id, message.otp, message.message) == (order.order_id, sold.otp, sold.message)
    assert (message.phone, message.sender) == (order.phone, None)
    assert message.received_at is not None
    assert hook.wait_for_otp(order.order_id, PATIENT) == message  # again, without a request
    assert simulator.order(order.order_id).status == "completed"


def test_a_message_without_a_code_is_handed_out_as_it_is(simulator: Simulator, hook: SmsVerifyHook) -> None:
    (order_id,) = buy(hook)
    simulator.deliver_sms(order_id, text="Welcome to our service!")
    message = hook.wait_for_otp(order_id, PATIENT)
    assert (message.otp, message.message) == (None, "Welcome to our service!")


@pytest.mark.parametrize("shows", [True, False], ids=["list shows completions", "list does not"])
@pytest.mark.slow
def test_many_orders_get_their_codes(
    shows: bool, simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate(list_shows_completion=shows, balance="100")
    hook = make_hook(simulator, any_store_url)
    order_ids = buy(hook, 6)
    waiting = Waiting(hook, order_ids)
    for number, order_id in enumerate(order_ids):
        simulator.deliver_sms(order_id, otp=f"10000{number}")
    assert waiting.codes() == [f"10000{number}" for number in range(6)]
    assert simulator.stats().refused == 0


@pytest.mark.slow
def test_orders_beyond_the_fifty_newest_get_their_codes(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(rate_limit=None, balance="100")
    hook = make_hook(simulator, store_url, rate_limit=1000)
    order_ids = buy(hook, 4)
    buy(hook, 51)
    waiting = Waiting(hook, order_ids)
    for order_id in order_ids:
        simulator.deliver_sms(order_id, otp="424242")
    assert waiting.codes() == ["424242"] * 4


# ------------------------------------------------------------------ one poll for all


@pytest.mark.parametrize("orders", [1, 5])
@pytest.mark.slow
def test_the_cost_of_waiting_does_not_grow_with_the_waiters(
    orders: int, simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    """One waiter for each order, and thirty of them, cost no more than the same number of polls."""

    def wait(waiters: int) -> None:
        simulator = simulate(balance="100")
        hook = make_hook(simulator, store_url.replace("store.db", f"{waiters}.db"))
        order_ids = buy(hook, orders)
        before = simulator.stats().requests
        began = time.monotonic()
        stop = threading.Event()
        waiting = Waiting(hook, order_ids * waiters, stop=stop)
        eventually(lambda: simulator.stats().requests >= before + 12, "polling")
        made = simulator.stats().requests - before
        seconds = time.monotonic() - began
        stop.set()
        assert {type(end) for end in waiting.join()} == {errors.WaitStoppedError}
        await_end_of_waits()
        # A poll of one order asks each 1.5 s of a minute. One of more reads the list, and one order besides
        # with every third poll as long as the list has not shown any news.
        longest = seconds * (60 / 1.5) * (1 if orders == 1 else 4 / 3) + 4
        assert made <= longest

    wait(1)
    wait(30)


@pytest.mark.slow
def test_processes_share_the_poll(simulate: Simulate, make_hook: MakeHook, any_store_url: str) -> None:
    simulator = simulate(sms_delay=60)
    hook = make_hook(simulator, any_store_url)
    (order_id,) = buy(hook)
    results = in_processes("wait", 4, settings=settings_of(hook), order_ids=[order_id] * 5, timeout=PATIENT)
    otp = simulator.order(order_id).otp
    assert results == [[otp] * 5] * 4
    # One second of waiting at 1.5 s of a 60 s minute each, for twenty waiters in four processes.
    assert status_requests(simulator) <= 1 * 60 / 1.5 + 20


@pytest.mark.slow
def test_a_wait_in_one_process_is_ended_by_what_another_learns(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    """The other process may not ask at all: its key is held up."""
    simulator = simulate()
    hook = make_hook(simulator, any_store_url, account="wallet")
    (order_id,) = buy(hook)
    held_up = {**settings_of(hook), "api_key": "another"}
    hold_up(make_hook(simulator, any_store_url, account="wallet", api_key="another"), 3000)
    simulator.deliver_sms(order_id, otp="123456")
    with beside("wait", settings=held_up, order_ids=[order_id], timeout=PATIENT) as process:
        hook.get_status(order_id)
        assert results_of(process) == [["123456"]]


@pytest.mark.slow
def test_a_poller_that_was_killed_is_replaced(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    (order_id,) = buy(hook)
    with beside("wait", settings=settings_of(hook), order_ids=[order_id], timeout=PATIENT) as process:
        eventually(lambda: status_requests(simulator) > 0, "the other's poll")
        waiting = Waiting(hook, [order_id])
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        simulator.deliver_sms(order_id, otp="123456")
        assert waiting.codes() == ["123456"]


@pytest.mark.slow
def test_a_fork_while_others_wait_waits_for_itself(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(sms_delay=90)
    hook = make_hook(simulator, store_url)
    order_ids = buy(hook, 3)
    (codes,) = in_processes(
        "wait_and_fork", 1, settings=settings_of(hook), order_ids=order_ids, timeout=PATIENT
    )
    assert codes == [simulator.order(order_id).otp for order_id in order_ids]


@pytest.mark.slow
def test_a_list_that_does_not_show_completions_is_done_without(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(list_shows_completion=False, rate_limit=60, speed=10, balance=100)
    hook = make_hook(simulator, store_url, rate_period=simulator.rate_period)
    order_ids = buy(hook, 20)
    for order_id in order_ids:
        simulator.deliver_sms(order_id, otp="123456")
    assert Waiting(hook, order_ids).codes() == ["123456"] * 20
    # One by one beside the list, 20 orders would take 20 polls.
    assert simulator.stats().by_endpoint["GET orders/"] < 15
    assert simulator.stats().refused == 0


@pytest.mark.slow
def test_a_look_for_many_that_finds_nothing_is_one_query(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify._waiting.waiter.FULL_LOOKS", 1_000_000)
    monkeypatch.setattr("smsverify._waiting.schedule.Schedule.is_poll_due", lambda *_: False)
    monkeypatch.setattr("smsverify._waiting.waiter.Waiter._send_heartbeat", lambda *_: None)
    hook = make_hook(simulate(), any_store_url)
    stop, statements = threading.Event(), list[str]()
    waiting = Waiting(hook, buy(hook, 20), stop=stop)

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if threading.current_thread().name == "smsverify-waiter":
            statements.append(statement)

    def none_is_new() -> bool:
        waits = list(rooms_of(hook).waiter._waits.values())
        return len(waits) == 20 and not any(wait.is_new for wait in waits)

    eventually(none_is_new, "the start of all waits")
    sa.event.listen(open_store(any_store_url)._engine, "before_cursor_execute", note)
    eventually(lambda: len(statements) > 60, "enough looks")
    stop.set()
    waiting.join()
    looks = [
        one for one in statements[10:60] if one != "BEGIN"
    ]  # the one in which the last wait was new may not have been over
    assert len(set(looks)) == 1
    assert "smsverify_polls" in looks[0]


def test_waits_that_begin_together_share_looks(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook(simulate(speed=1.0), store_url)
    waiter, looks = rooms_of(hook).waiter, list[str]()

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "smsverify_messages" in statement and "smsverify_polls" in statement:
            looks.append(statement)

    sa.event.listen(open_store(store_url)._engine, "before_cursor_execute", note)
    began = time.monotonic()
    waits = [waiter.add(order_id, PATIENT, wanted=MessageFilter()) for order_id in range(1, 101)]
    eventually(lambda: not any(wait.is_new for wait in waits), "a look for each of them")
    seconds = time.monotonic() - began
    for wait in waits:
        wait.future.cancel()
    assert 0 < len(looks) <= seconds / waiter._gap + 2


def test_a_wait_whose_heartbeat_is_in_the_future_is_not_counted(
    make_hook: MakeHook, any_store_url: str
) -> None:
    """It was left by a process whose clock was wrong, or by an old copy of the store."""
    hook = make_hook("http://127.0.0.1:9", any_store_url)
    rooms, account = rooms_of(hook), hook.settings.account_id
    with rooms.store.write() as connection:
        now = rooms.store.now(connection)
        row = {"id": "left", "account": account, "order_id": 7, "since": now, "cancels": False}
        connection.execute(sa.insert(waits).values(**row, seen_at=now + 86_400))
    assert rooms.waiter.seen().waiting == 0


@pytest.mark.parametrize("index", ["smsverify_messages_newest", "smsverify_looks_next"])
def test_a_look_does_not_read_what_an_account_has_behind_it(store_url: str, index: str) -> None:
    store = open_store(store_url)
    with store.read() as connection:
        query = waiting_room._snapshot_query(store, "account")
        text = str(query.compile(connection, compile_kwargs={"literal_binds": False}))
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", ("account",) * text.count("?")).all()
    assert any(f"INDEX {index}" in row.detail for row in plan), plan


# ------------------------------------------------------------------ event loops


@pytest.mark.slow
def test_many_waits_of_an_event_loop_hold_no_thread_and_never_block_it(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(balance="100")
    hook = make_hook(simulator, store_url)
    order_ids = buy(hook, 8)

    async def wait_for_all() -> tuple[list[Message], set[str], int]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(2, "executor"))
        ticks = 0
        waits = [asyncio.create_task(hook.await_otp(order_id, PATIENT)) for order_id in order_ids * 5]
        while status_requests(simulator) < 3:
            ticks += 1
            await asyncio.sleep(0.001)
        names = {thread.name for thread in threading.enumerate()}
        for order_id in order_ids:
            simulator.deliver_sms(order_id, otp=str(order_id))
        return await asyncio.gather(*waits), names, ticks

    messages, names, ticks = asyncio.run(wait_for_all())
    assert [message.otp for message in messages] == [str(order_id) for order_id in order_ids * 5]
    beginning = [name for name in names if name.startswith("smsverify-loop-wait")]
    assert len(beginning) <= 8  # threads begin the 40 waits
    assert {name for name in names if name.startswith("smsverify-") and "-loop-" not in name} <= {
        "smsverify-waiter",
        "smsverify-poll",
        "smsverify-watch",
        "smsverify-simulator",
        "smsverify-simulator-agenda",
    }
    assert not [name for name in names if name.startswith("executor")]
    assert ticks > 10


def test_a_wait_of_an_event_loop_that_is_cancelled_while_it_begins_does_not_go_on(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    (order_id,) = buy(hook)
    begin, begins, may_begin = OtpWaits._begin, threading.Event(), threading.Event()

    def slowly(*args: Any, **options: Any) -> Any:
        begins.set()
        may_begin.wait(60)
        return begin(*args, **options)

    monkeypatch.setattr(OtpWaits, "_begin", slowly)

    async def run() -> None:
        task = asyncio.create_task(hook.await_otp(order_id, 600))
        await asyncio.to_thread(begins.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        may_begin.set()

    asyncio.run(run())  # which lets its threads come to their end
    await_end_of_waits()
    assert simulator.order(order_id).status == "pending"


def test_a_wait_of_an_event_loop_ends_like_any_other(simulator: Simulator, hook: SmsVerifyHook) -> None:
    late, stopped, timed_out, cancelled = buy(hook, 4)

    async def run() -> Any:
        stop = threading.Event()
        simulator.deliver_sms(late, otp="123456")
        task = asyncio.create_task(hook.await_otp(cancelled, PATIENT))
        ends = asyncio.gather(
            hook.await_otp(late, PATIENT),
            hook.await_otp(stopped, PATIENT, stop=stop),
            hook.await_otp(timed_out, 0.3),
            task,
            return_exceptions=True,
        )
        await asyncio.sleep(0.05)
        stop.set()
        task.cancel()
        return await ends

    first, second, third, fourth = asyncio.run(run())
    assert isinstance(first, Message)
    assert isinstance(second, errors.WaitStoppedError)
    assert isinstance(third, errors.WaitTimeoutError)
    assert third.cancelled
    assert isinstance(fourth, asyncio.CancelledError)
    states = [simulator.order(order_id).status for order_id in (late, stopped, timed_out, cancelled)]
    assert states == ["completed", "pending", "cancelled", "pending"]
    await_end_of_waits()
