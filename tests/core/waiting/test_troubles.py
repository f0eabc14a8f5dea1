"""What goes wrong while somebody waits ends no wait, unless it stays so."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from requests_mock import Mocker
from rigs import await_end_of_waits, eventually
from rigs.postgres import PrivatePostgres
from rigs.processes import beside, results_of
from rigs.rooms import rooms_of, settings_of, store_of
from rigs.waits import PATIENT, Waiting, buy, status_requests

from smsverify import errors
from smsverify._messages.callbacks import Callback
from smsverify._messages.inbox import Inbox
from smsverify._orders.records import Records
from smsverify._service.rate_limit import RateLimit
from smsverify._store.store import open_store
from smsverify._store.tables import looks, polls, waits
from smsverify._waiting.schedule import Schedule
from smsverify.hook import SmsVerifyHook
from smsverify.models import Order
from smsverify.simulator import Fault, Simulator

pytestmark = pytest.mark.slow

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]


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


@pytest.mark.parametrize("fault", TRANSIENT, ids=[one.kind for one in TRANSIENT])
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


def test_a_wait_whose_looks_were_refused_says_why(simulator: Simulator, hook: SmsVerifyHook) -> None:
    (order_id,) = buy(hook)
    body = '{"error": "SMS not received yet"}'
    simulator.add_fault(Fault("error_before", path="order/*/status/", status=400, body=body, times=None))
    with pytest.raises(errors.WaitTimeoutError, match=r"at last: .* not received yet$") as caught:
        hook.wait_for_otp(order_id, 1.5)
    assert caught.value.cancelled
    assert "not received yet" in caught.value.reason
    assert isinstance(caught.value.__cause__, errors.ServiceError)


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
    use = {"settings": settings_of(hook), "seconds": seconds, "requests": 12, "timeout": PATIENT}
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
    with beside("wait", settings=settings_of(hook), order_ids=order_ids, timeout=PATIENT) as process:
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
    simulator.configure(api_key=settings_of(hook)["api_key"])
    simulator.deliver_sms(order_ids[0], otp="123456")
    assert hook.wait_for_otp(order_ids[0], PATIENT).otp == "123456"  # a new wait asks anew


def test_a_refused_key_ends_no_wait_with_another_key_of_the_account(
    simulator: Simulator, make_hook: MakeHook, any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = make_hook(simulator, any_store_url, account="wallet")
    old = make_hook(simulator, any_store_url, account="wallet", api_key="rotated")
    order_ids = buy(hook, 2)
    with monkeypatch.context() as patched:
        patched.setattr(rooms_of(hook).waiter._poller, "ask", lambda *_, **__: None)
        waiting = Waiting(hook, order_ids)
        (end,) = Waiting(old, order_ids[:1]).join()
        assert isinstance(end, errors.AuthenticationError)
        store = store_of(hook)
        with store.read() as connection:
            assert connection.execute(sa.select(polls.c.next_at)).scalar_one() <= store.now(connection)
        assert waiting.ends == [None, None]
    for order_id in order_ids:
        simulator.deliver_sms(order_id, otp="123456")
    assert waiting.codes() == ["123456"] * 2


def test_a_refused_key_takes_no_look_of_others_until_it_is_accepted_again(any_store_url: str) -> None:
    store = open_store(any_store_url)
    inbox = Inbox(store, "wallet", retention=1000)
    good, old = (
        Schedule(store, RateLimit(store, key, limit=60, period=60.0, lease=5.0), "wallet")
        for key in ("good", "old")
    )
    with store.write() as connection:
        now = store.now(connection)
        Records(store, "wallet").put(connection, Order(order_id=1))
        wait = {"id": "a wait", "account": "wallet", "order_id": 1, "since": now, "seen_at": now}
        connection.execute(sa.insert(waits).values(**wait))
        good.expect(connection)
    old._rate_limit.state()  # which puts the key on record, as its first request does
    old.note_refusal("Invalid API key")
    assert inbox.take(Callback(True, "sms", order_id=1, message="Hello")) is not None
    assert old.claim_due(urgent=True, looks=True, poll=False) == []
    old.note_acceptance()
    assert len(old.claim_due(urgent=True, looks=True, poll=False)) == 1
    assert inbox.take(Callback(True, "sms", order_id=1, message="Hello again")) is not None
    old.note_refusal("Invalid API key")
    with store.write() as connection:
        connection.execute(sa.update(looks).values(asked_at=None))
    assert len(good.claim_due(urgent=True, looks=True, poll=False)) == 1


def test_a_refusal_that_cannot_be_recorded_ends_the_waits_with_the_next_poll(
    simulator: Simulator, hook: SmsVerifyHook, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    (order_id,) = buy(hook)
    waiting = Waiting(hook, [order_id], cancel_on_timeout=False)
    eventually(lambda: status_requests(simulator) > 0, "polling")
    with closing(sqlite3.connect(store_url.removeprefix("sqlite:///"), timeout=30)) as other:
        other.execute(
            "CREATE TRIGGER no_refusal BEFORE UPDATE OF key_refused_at ON smsverify_rate_limits "
            "WHEN new.key_refused_at IS NOT NULL BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        )
        simulator.configure(api_key="rotated")
        eventually(lambda: "the disk is full" in caplog.text, "the failed record", timeout=20)
        assert waiting.ends == [None]
        other.execute("DROP TRIGGER no_refusal")
    assert isinstance(waiting.join()[0], errors.AuthenticationError)


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


@pytest.mark.parametrize(
    ("end", "how"),
    [
        ({"status_code": 404, "json": {"error": "Order not found"}}, errors.NotFoundError),
        ({"json": {"order_id": 7, "status": "expired", "message": "Welcome!"}}, errors.OrderEndedError),
    ],
    ids=["unknown", "ended with another message"],
)
def test_a_read_that_fails_does_not_make_an_earlier_end_a_new_one(
    end: dict[str, Any], how: type[Exception], requests_mock: Mocker, make_hook: MakeHook, store_url: str
) -> None:
    url = "http://127.0.0.1:9/api/v1/order/7/status/"
    hook = make_hook("http://127.0.0.1:9", store_url)
    requests_mock.get(url, **end)
    with pytest.raises(how):
        hook.wait_for_otp(7, PATIENT, pattern="Code ([0-9]+)")
    await_end_of_waits()
    requests_mock.get(url, status_code=503)
    waiting = Waiting(hook, [7], pattern="Code ([0-9]+)")
    eventually(lambda: requests_mock.call_count > 12 or waiting.ends != [None], "polling")
    assert waiting.ends == [None]
    requests_mock.get(url, json={"order_id": 7, "status": "active", "message": "Code 123456"})
    assert waiting.codes() == ["123456"]


@pytest.mark.parametrize("lost", [[waits], [waits, polls]], ids=["waits", "waits and polls"])
def test_waits_that_an_older_state_of_the_store_does_not_know_go_on(
    lost: list[sa.Table], simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_ids = buy(hook, 2)
    waiting = Waiting(hook, order_ids)
    eventually(lambda: simulator.stats().by_endpoint.get("GET orders/", 0) > 3, "polling")
    with store_of(hook).write() as connection:
        for table in lost:
            connection.execute(sa.delete(table))

    def are_there() -> bool:
        with store_of(hook).read() as connection:
            return len(connection.execute(sa.select(waits)).all()) == 2

    eventually(are_there, "new rows", timeout=30)
    assert waiting.ends == [None, None]
    for order_id in order_ids:
        simulator.deliver_sms(order_id, otp="123456")
    assert waiting.codes() == ["123456"] * 2


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
        patched.setattr("smsverify._service.service_clock.datetime", clock_that_is_off(seconds))
        patched.setattr("smsverify._service.service_clock.ServiceClock.note", lambda *_: None)
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
