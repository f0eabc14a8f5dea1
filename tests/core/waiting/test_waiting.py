"""Waiting: one poll for all waiters, deadlines that hold, no code lost, and nothing that hangs."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from requests_mock import Mocker
from rigs import await_end_of_waits, eventually
from rigs.postgres import PrivatePostgres
from rigs.processes import beside, in_processes, results_of
from rigs.rooms import going_back, hold_up, rooms_of

from smsverify import errors
from smsverify._store.store import open_store
from smsverify._waiting import waiter as waiting_room
from smsverify.hook import SmsVerifyHook
from smsverify.models import Message
from smsverify.simulator import Fault, Simulator
from smsverify.wings import claim

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]
PATIENT = 60.0  # seconds; for waits that end by themselves


def buy(hook: SmsVerifyHook, count: int = 1) -> list[int]:
    return [hook.order("temporary", service="WhatsApp").order_id for _ in range(count)]


class Waiting:
    """Waits in threads of their own; how each ends is in `ends`."""

    def __init__(
        self, hook: SmsVerifyHook, order_ids: list[int], timeout: float = PATIENT, **options: Any
    ) -> None:
        self.ends: list[Message | BaseException | None] = [None] * len(order_ids)
        self._hook = hook
        self._options = options
        self._threads = [
            threading.Thread(target=self._wait, args=(place, order_id, timeout), daemon=True)
            for place, order_id in enumerate(order_ids)
        ]
        for thread in self._threads:
            thread.start()

    def _wait(self, place: int, order_id: int, timeout: float) -> None:
        try:
            self.ends[place] = self._hook.wait_for_otp(order_id, timeout, **self._options)
        except errors.SmsVerifyError as error:
            self.ends[place] = error

    def join(self) -> list[Message | BaseException | None]:
        for thread in self._threads:
            thread.join(PATIENT + 30)
        assert None not in self.ends, "a wait hangs"
        return self.ends

    def codes(self) -> list[str | None]:
        ends = self.join()
        assert all(isinstance(end, Message) for end in ends), ends
        return [end.otp for end in ends if isinstance(end, Message)]


def status_requests(simulator: Simulator) -> int:
    return simulator.stats().by_endpoint.get("GET order/{id}/status/", 0)


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


def test_orders_beyond_the_fifty_newest_get_their_codes(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(rate_limit=None, balance="100", products={"temporary": {"validity": 1e6}})
    hook = make_hook(simulator, store_url, rate_limit=1000)
    order_ids = buy(hook, 4)
    buy(hook, 51)
    waiting = Waiting(hook, order_ids)
    for order_id in order_ids:
        simulator.deliver_sms(order_id, otp="424242")
    assert waiting.codes() == ["424242"] * 4


# ------------------------------------------------------------------ one poll for all


@pytest.mark.parametrize("orders", [1, 5])
def test_the_cost_of_waiting_does_not_grow_with_the_waiters(
    orders: int, simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    """Counted in polls of one waiter for each order against thirty of them."""

    def requests_per_second(waiters: int) -> float:
        simulator = simulate(balance="100")
        hook = make_hook(simulator, store_url.replace("store.db", f"{waiters}.db"))
        order_ids = buy(hook, orders)
        before = simulator.stats().requests
        began = time.monotonic()
        stop = threading.Event()
        waiting = Waiting(hook, order_ids * waiters, stop=stop)
        eventually(lambda: simulator.stats().requests >= before + 12, "polling")
        seconds = time.monotonic() - began
        made = simulator.stats().requests - before
        stop.set()
        assert {type(end) for end in waiting.join()} == {errors.WaitStoppedError}
        await_end_of_waits()
        # A poll of one order asks each 1.5 s of a minute. One of more reads the list, and one order besides
        # with every third poll as long as the list has not shown any news.
        longest = seconds * (60 / 1.5) * (1 if orders == 1 else 4 / 3) + 4
        assert made <= longest
        return made / seconds

    alone, together = requests_per_second(1), requests_per_second(30)
    assert together <= 2 * alone + 8


def test_processes_share_the_poll(simulate: Simulate, make_hook: MakeHook, any_store_url: str) -> None:
    simulator = simulate(sms_delay=60)
    hook = make_hook(simulator, any_store_url)
    (order_id,) = buy(hook)
    results = in_processes("wait", 4, settings=hook._given, order_ids=[order_id] * 5, timeout=PATIENT)
    otp = simulator.order(order_id).otp
    assert results == [[otp] * 5] * 4
    # One second of waiting at 1.5 s of a 60 s minute each, for twenty waiters in four processes.
    assert status_requests(simulator) <= 1 * 60 / 1.5 + 20


def test_a_wait_in_one_process_is_ended_by_what_another_learns(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    """The other process may not ask at all: its key is held up."""
    simulator = simulate()
    hook = make_hook(simulator, any_store_url, account="wallet")
    (order_id,) = buy(hook)
    held_up = {**hook._given, "api_key": "another"}
    hold_up(make_hook(simulator, any_store_url, account="wallet", api_key="another"), 3000)
    simulator.deliver_sms(order_id, otp="123456")
    with beside("wait", settings=held_up, order_ids=[order_id], timeout=PATIENT) as process:
        hook.get_status(order_id)
        assert results_of(process) == [["123456"]]


def test_a_poller_that_was_killed_is_replaced(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    (order_id,) = buy(hook)
    with beside("wait", settings=hook._given, order_ids=[order_id], timeout=PATIENT) as process:
        eventually(lambda: status_requests(simulator) > 0, "the other's poll")
        waiting = Waiting(hook, [order_id])
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        simulator.deliver_sms(order_id, otp="123456")
        assert waiting.codes() == ["123456"]


def test_a_fork_while_others_wait_waits_for_itself(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(sms_delay=90)
    hook = make_hook(simulator, store_url)
    order_ids = buy(hook, 3)
    (codes,) = in_processes("wait_and_fork", 1, settings=hook._given, order_ids=order_ids, timeout=PATIENT)
    assert codes == [simulator.order(order_id).otp for order_id in order_ids]


# ------------------------------------------------------------------ deadlines and stops


def test_on_its_deadline_an_order_is_cancelled_and_refunded(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    (order_id,) = buy(hook)
    with pytest.raises(errors.WaitTimeoutError, match=str(order_id)) as caught:
        hook.wait_for_otp(order_id, 0.3)
    assert (caught.value.order_id, caught.value.cancelled) == (order_id, True)
    assert simulator.order(order_id).status == "cancelled"
    assert simulator.balance() == Decimal(50)


def test_on_its_deadline_an_order_is_kept_where_that_is_asked_for(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    (order_id,) = buy(hook)
    with pytest.raises(errors.WaitTimeoutError) as caught:
        hook.wait_for_otp(order_id, 0, cancel_on_timeout=False)
    assert not caught.value.cancelled
    assert simulator.order(order_id).status == "pending"
    simulator.deliver_sms(order_id, otp="123456")
    assert hook.wait_for_otp(order_id, PATIENT).otp == "123456"


def test_an_order_that_cannot_be_cancelled_on_the_deadline_stays_on_record(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    (order_id,) = buy(hook)
    simulator.add_fault(Fault("error_before", path="order/**", times=None))
    with pytest.raises(errors.WaitTimeoutError) as caught:
        hook.wait_for_otp(order_id, 0.2)
    assert not caught.value.cancelled
    assert going_back(hook) == [order_id]


def test_a_rental_in_use_is_not_cancelled_on_a_deadline(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(cancel_active="no-refund")
    hook = make_hook(simulator, store_url)
    order_id = hook.order("rental", service="WhatsApp", duration=3).order_id
    with pytest.raises(errors.WaitTimeoutError) as caught:
        hook.wait_for_otp(order_id, 0.2)
    assert not caught.value.cancelled
    assert simulator.order(order_id).status == "active"


def test_a_code_that_comes_at_the_last_moment_is_handed_out_after_all(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    (order_id,) = buy(hook)
    simulator.deliver_sms(order_id, otp="123456")
    simulator.add_fault(Fault("error_before", path="order/*/status/", times=4))  # the poll does not see it
    assert hook.wait_for_otp(order_id, 0.3).otp == "123456"
    assert simulator.order(order_id).status == "completed"


def test_a_waiter_that_has_lost_its_order_to_another_does_not_cancel_it(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    (order_id,) = buy(hook)
    waiting = Waiting(hook, [order_id], 1.0, waiter="first")
    eventually(lambda: status_requests(simulator) > 0, "the first poll")
    claim(hook, order_id, "second")
    (end,) = waiting.join()
    assert isinstance(end, errors.WaitTimeoutError)
    assert not end.cancelled
    assert simulator.order(order_id).status == "pending"


def test_a_stop_ends_a_wait_and_leaves_the_order_alone(simulator: Simulator, hook: SmsVerifyHook) -> None:
    order_ids, stop = buy(hook, 3), threading.Event()
    waiting = Waiting(hook, order_ids, stop=stop)
    eventually(lambda: simulator.stats().requests > 4, "polling")
    stop.set()
    assert {type(end) for end in waiting.join()} == {errors.WaitStoppedError}
    assert {order.status for order in simulator.orders()} == {"pending"}
    await_end_of_waits()
    with open_store(hook._given["store_url"]).read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM smsverify_waits").scalar_one() == 0


def test_nobody_asks_when_nobody_waits(simulator: Simulator, hook: SmsVerifyHook) -> None:
    order_ids = buy(hook, 2)
    stop = threading.Event()
    waiting = Waiting(hook, order_ids, stop=stop)
    eventually(lambda: status_requests(simulator) > 2, "polling")
    stop.set()
    waiting.join()
    await_end_of_waits()
    before = simulator.stats().requests
    with pytest.raises(errors.WaitTimeoutError):  # time enough for polls, for another order
        hook.wait_for_otp(order_ids[0], 0.5, cancel_on_timeout=False)
    asked = {request.path for request in simulator.requests()[before:]}
    assert asked <= {f"/api/v1/order/{order_ids[0]}/status/"}


def test_waits_under_one_name_are_waits_of_their_own(simulator: Simulator, hook: SmsVerifyHook) -> None:
    first, second = buy(hook, 2)
    waiting = Waiting(hook, [first, second, first], waiter="the same task")
    simulator.deliver_sms(second, otp="222222")
    eventually(lambda: waiting.ends[1], "the second's code")
    simulator.deliver_sms(first, otp="111111")
    assert waiting.codes() == ["111111", "222222", "111111"]


def test_what_is_no_time_span_is_refused(simulator: Simulator, hook: SmsVerifyHook) -> None:
    (order_id,) = buy(hook)
    for timeout in (-1, float("nan"), float("inf"), "soon"):
        with pytest.raises(errors.InvalidRequestError, match="seconds") as caught:
            hook.wait_for_otp(order_id, timeout)  # type: ignore[arg-type]
        assert caught.value.field == "timeout"
    assert simulator.order(order_id).status == "pending"


# ------------------------------------------------------------------ the order ends


@pytest.mark.parametrize("status", ["cancelled", "expired", "failed", "refunded", "Canceled"])
def test_an_order_that_ends_without_a_code_ends_the_wait(
    status: str, simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate(products={"temporary": {"end_status": status}})
    hook = make_hook(simulator, any_store_url)
    order_ids = buy(hook, 4)
    waiting = Waiting(hook, order_ids)
    for order_id in order_ids:
        simulator.set_time_left(order_id, 0)
    for order_id, end in zip(order_ids, waiting.join(), strict=True):
        assert isinstance(end, errors.OrderEndedError)
        assert (end.order_id, (end.status or "").lower()) == (order_id, status.lower())


def test_an_order_that_was_completed_without_a_code_is_looked_at_again_before_that_is_believed(
    requests_mock: Mocker, make_hook: MakeHook, store_url: str
) -> None:
    url = "http://127.0.0.1:9/api/v1/order/{}/status/"
    empty = {"order_id": 7, "status": "completed", "otp": "", "message": None}
    hook = make_hook("http://127.0.0.1:9", store_url)
    requests_mock.get(url.format(7), [{"json": empty}, {"json": empty}, {"json": {**empty, "otp": "123456"}}])
    assert hook.wait_for_otp(7, PATIENT).otp == "123456"
    requests_mock.get(url.format(8), json={**empty, "order_id": 8})
    with pytest.raises(errors.OrderEndedError, match="completed"):
        hook.wait_for_otp(8, PATIENT)


def test_an_unknown_status_is_logged_once_and_never_ends_or_hangs_a_wait(
    simulate: Simulate, make_hook: MakeHook, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    simulator = simulate(products={"temporary": {"start_status": "Verifying", "sms_status": "Verified"}})
    hook = make_hook(simulator, store_url)
    (order_id,) = buy(hook)
    stop = threading.Event()
    waiting = Waiting(hook, [order_id], stop=stop)
    eventually(lambda: simulator.order(order_id).status_requests > 3, "polling")
    assert waiting.ends == [None]
    stop.set()
    waiting.join()
    with pytest.raises(errors.WaitTimeoutError):
        hook.wait_for_otp(order_id, 0.2, cancel_on_timeout=False)
    lines = [record.message for record in caplog.records if "verifying" in record.message.lower()]
    assert len(lines) == 1
    assert str(order_id) in lines[0]


def test_a_code_is_handed_out_whatever_the_status_says(
    requests_mock: Mocker, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook("http://127.0.0.1:9", store_url)
    for number, status in enumerate(("pending", "active", "cancelled", "expired", "Verified"), 1):
        url = f"http://127.0.0.1:9/api/v1/order/{number}/status/"
        requests_mock.get(url, json={"order_id": number, "status": status, "otp": 4711, "message": "0-04711"})
        assert hook.wait_for_otp(number, PATIENT).otp == "004711"


# ------------------------------------------------------------------ what goes wrong meanwhile

TRANSIENT = [
    Fault("error_before", path="order/*/status/", times=9),
    Fault("reset", path="order/*/status/", times=9),
    Fault("lost_answer", path="order/*/status/", times=9),
    Fault("html", path="order/*/status/", times=9),
    Fault("truncated_body", path="order/*/status/", times=9),
    Fault("redirect", path="order/*/status/", times=3),
    Fault("out_of_stock", path="order/*/status/", times=3),
    Fault("rate_limited", path="order/*/status/", times=2, retry_after=0),
]


@pytest.mark.parametrize("fault", TRANSIENT, ids=lambda fault: fault.kind)
def test_a_passing_failure_never_ends_a_wait(
    fault: Fault, simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, store_url)
    (order_id,) = buy(hook)
    simulator.add_fault(fault)
    waiting = Waiting(hook, [order_id])
    eventually(lambda: not simulator.faults(), "the end of the failure")
    assert waiting.ends == [None]
    simulator.deliver_sms(order_id, otp="123456")
    assert waiting.codes() == ["123456"]


def test_a_service_that_is_down_for_a_while_never_ends_a_wait(
    simulator: Simulator, hook: SmsVerifyHook, caplog: pytest.LogCaptureFixture
) -> None:
    (order_id,) = buy(hook)
    waiting = Waiting(hook, [order_id])
    eventually(lambda: status_requests(simulator) > 0, "polling")
    simulator.stop()
    eventually(lambda: "the wait goes on" in caplog.text, "a failed poll")
    assert waiting.ends == [None]
    simulator.start()
    simulator.deliver_sms(order_id, otp="123456")
    assert waiting.codes() == ["123456"]
    assert caplog.text.count("the wait goes on") == 1


@pytest.mark.parametrize("status", [400, 404, 500], ids=str)
def test_a_list_that_cannot_be_read_is_done_without(
    status: int, simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, store_url)
    order_ids = buy(hook, 4)
    simulator.add_fault(Fault("error_before", path="orders/", status=status, times=None))
    waiting = Waiting(hook, order_ids)
    for order_id in order_ids:
        simulator.deliver_sms(order_id, otp="123456")
    assert waiting.codes() == ["123456"] * 4


def test_an_order_that_cannot_be_looked_at_does_not_stand_in_the_way_of_others(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, store_url)
    for count in (2, 5):
        broken, *order_ids = buy(hook, count)
        simulator.add_fault(Fault("error_before", path=f"order/{broken}/status/", times=None))
        stop = threading.Event()
        in_the_way = Waiting(hook, [broken], stop=stop)
        waiting = Waiting(hook, order_ids)
        for order_id in order_ids:
            simulator.deliver_sms(order_id, otp="123456")
        assert waiting.codes() == ["123456"] * len(order_ids)
        stop.set()
        in_the_way.join()


def test_a_store_that_is_locked_for_a_while_never_ends_a_wait(
    simulate: Simulate,
    make_hook: MakeHook,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("smsverify._store.store.BUSY_TIMEOUT", 0.2)
    simulator = simulate()
    hook = make_hook(simulator, store_url)
    (order_id,) = buy(hook)
    waiting = Waiting(hook, [order_id])
    eventually(lambda: status_requests(simulator) > 0, "polling")
    other = sqlite3.connect(store_url.removeprefix("sqlite:///"), isolation_level=None, timeout=30)
    other.execute("BEGIN EXCLUSIVE")
    eventually(lambda: "locked" in caplog.text, "the lock")
    simulator.deliver_sms(order_id, otp="123456")
    assert waiting.ends == [None]
    other.execute("ROLLBACK")
    other.close()
    assert waiting.codes() == ["123456"]


def test_a_database_that_is_gone_for_a_while_never_ends_a_wait_and_sells_nothing(
    simulate: Simulate, make_hook: MakeHook, postgres: PrivatePostgres, caplog: pytest.LogCaptureFixture
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, postgres.create_database())
    first, second = buy(hook, 2)
    before = simulator.stats().by_endpoint.get("GET orders/", 0)
    waiting = Waiting(hook, [first, second])
    eventually(lambda: simulator.stats().by_endpoint.get("GET orders/", 0) > before, "polling")
    with postgres.gone():
        simulator.deliver_sms(first, otp="123456")
        eventually(lambda: "no code can be delivered" in caplog.text, "the outage")
        with pytest.raises(errors.StoreError, match="cannot be used"):
            hook.order("temporary", service="WhatsApp")
        assert waiting.ends == [None, None]
    simulator.deliver_sms(second, otp="654321")
    assert waiting.codes() == ["123456", "654321"]
    assert len(simulator.orders()) == 2
    assert simulator.stats().refused == 0


@pytest.mark.parametrize("seconds", [-30, 30])
def test_a_host_whose_clock_is_wrong_shares_rate_limit_and_waits_all_the_same(
    seconds: int, simulate: Simulate, make_hook: MakeHook, postgres: PrivatePostgres
) -> None:
    """The clock that counts is the database's."""
    simulator = simulate(rate_limit=10, sms_delay=60)
    hook = make_hook(simulator, postgres.create_database(), rate_limit=10)
    use = {"settings": hook._given, "seconds": seconds, "requests": 12, "timeout": PATIENT}
    with beside("use_with_a_wrong_clock", **use) as process:
        for _ in range(12):
            hook.get_balance()
        (order_id,) = buy(hook)
        codes = [hook.wait_for_otp(order_id, PATIENT, cancel_on_timeout=False).otp, *results_of(process)[0]]
    assert set(codes) == {order.otp for order in simulator.orders()}
    assert (simulator.stats().refused, simulator.stats().max_in_window <= 10) == (0, True)


def test_a_refused_key_ends_all_waits_with_its_reason_and_the_asking(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    order_ids = buy(hook, 5)
    stop = threading.Event()
    waiting = Waiting(hook, order_ids * 2, stop=stop)
    with beside("wait", settings=hook._given, order_ids=order_ids, timeout=PATIENT) as process:
        eventually(lambda: simulator.stats().by_endpoint.get("GET orders/", 0) > 3, "polling")
        simulator.configure(api_key="rotated")
        for end in waiting.join():
            assert isinstance(end, errors.AuthenticationError)
            assert end.status_code == 401
            assert "Invalid API key" in str(end) or "Invalid or missing API key" in str(end)
        (others,) = results_of(process)
    assert others == ["AuthenticationError"] * 5
    await_end_of_waits()
    refused = [request for request in simulator.requests() if request.status == 401]
    assert len(refused) < 20
    simulator.configure(api_key=hook._given["api_key"])
    simulator.deliver_sms(order_ids[0], otp="123456")
    assert hook.wait_for_otp(order_ids[0], PATIENT).otp == "123456"  # a new wait asks anew


def test_an_order_that_does_not_exist_ends_the_wait_but_not_a_later_one(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = buy(hook)[0] + 1
    with pytest.raises(errors.NotFoundError, match=str(order_id)):
        hook.wait_for_otp(order_id, PATIENT)
    await_end_of_waits()
    assert buy(hook) == [order_id]
    simulator.deliver_sms(order_id, otp="123456")
    assert hook.wait_for_otp(order_id, PATIENT).otp == "123456"


@pytest.mark.parametrize("seconds", [0, 30], ids=["right clock", "buyer's clock is off"])
def test_an_order_of_ours_that_the_service_does_not_show_yet_is_waited_for(
    seconds: int,
    simulate: Simulate,
    make_hook: MakeHook,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, store_url)
    simulator.add_fault(Fault("status_lag", path="order/temporary/", seconds=30))
    with monkeypatch.context() as patched:
        patched.setattr("smsverify._purchases.purchasing.datetime", clock_that_is_off(seconds))
        (order_id,) = buy(hook)
    waiting = Waiting(hook, [order_id])
    eventually(lambda: status_requests(simulator) > 1, "polling")
    simulator.deliver_sms(order_id, otp="123456")
    assert waiting.codes() == ["123456"]


def clock_that_is_off(seconds: float) -> type[datetime]:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=seconds)

    return Wrong


def test_a_wait_after_a_renewal_does_not_end_with_the_end_before_it(
    requests_mock: Mocker, make_hook: MakeHook, store_url: str
) -> None:
    url = "http://127.0.0.1:9/api/v1/order/7/status/"
    hook = make_hook("http://127.0.0.1:9", store_url)
    requests_mock.get(url, json={"order_id": 7, "status": "expired"})
    with pytest.raises(errors.OrderEndedError):
        hook.wait_for_otp(7, PATIENT)
    requests_mock.get(url, json={"order_id": 7, "status": "active", "otp": "123456"})
    assert hook.wait_for_otp(7, PATIENT).otp == "123456"


# ------------------------------------------------------------------ event loops


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
    assert {name for name in names if name.startswith("smsverify-")} <= {
        "smsverify-waiter",
        "smsverify-poll",
        "smsverify-simulator",
        "smsverify-simulator-agenda",
    }
    assert len([name for name in names if name.startswith("executor")]) <= 2
    assert ticks > 10


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


def test_a_list_that_does_not_show_completions_is_done_without(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(list_shows_completion=False, rate_limit=60, speed=10, balance=100)
    hook = make_hook(simulator, store_url, rate_period=simulator.rate_period)
    order_ids = buy(hook, 20)
    for order_id in order_ids:
        simulator.deliver_sms(order_id, otp="123456")
    began = time.monotonic()
    assert Waiting(hook, order_ids).codes() == ["123456"] * 20
    # One by one beside the list, 20 orders would take 20 polls.
    assert (time.monotonic() - began) / simulator.rate_period < 20 * 5.0 / 60
    assert simulator.stats().refused == 0


def test_every_waiter_of_an_order_gets_a_last_look(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify._waiting.schedule.Schedule.is_poll_due", lambda *_: False)
    (order_id,) = buy(hook)
    waiting = Waiting(hook, [order_id, order_id], timeout=0.5)
    simulator.deliver_sms(order_id, otp="123456")
    assert waiting.codes() == ["123456"] * 2


def test_a_service_that_hangs_does_not_hold_a_wait_long_beyond_its_deadline(
    simulator: Simulator, make_hook: MakeHook, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify._service.transport.HASTE", 0.2)
    hook = make_hook(simulator, store_url, read_timeout=20.0)
    (order_id,) = buy(hook)
    simulator.add_fault(Fault("slow_after", path="order/*/status/", seconds=20, times=None))
    began = time.monotonic()
    with pytest.raises(errors.WaitTimeoutError):
        hook.wait_for_otp(order_id, 0.2)
    assert time.monotonic() - began < 10
    assert going_back(hook) == [order_id]


def test_a_look_for_many_that_finds_nothing_is_one_query(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify._waiting.waiter.FULL_LOOKS", 1_000_000)
    monkeypatch.setattr("smsverify._waiting.schedule.Schedule.is_poll_due", lambda *_: False)
    monkeypatch.setattr("smsverify._waiting.waiter.Waiter._show_alive", lambda *_: None)
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


@pytest.mark.parametrize("index", ["smsverify_messages_newest", "smsverify_looks_next"])
def test_a_look_does_not_read_what_an_account_has_behind_it(store_url: str, index: str) -> None:
    store = open_store(store_url)
    with store.read() as connection:
        query = waiting_room._glancing(store, "account")
        text = str(query.compile(connection, compile_kwargs={"literal_binds": False}))
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", ("account",) * text.count("?")).all()
    assert any(f"INDEX {index}" in row.detail for row in plan), plan
