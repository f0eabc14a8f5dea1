"""Where a thread cannot be started, because the machine has too many, the next one who needs it starts it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from rigs import eventually
from rigs.rooms import rooms_of, store_of
from rigs.waits import PATIENT, Waiting, buy

from smsverify._input.patterns import Matching, Pattern
from smsverify._messages.filters import MessageFilter
from smsverify._orders import holding
from smsverify._runtime.job_thread import JobThread
from smsverify._runtime.threads import for_each
from smsverify._service.places import Keeper, Place
from smsverify._store.tables import waits
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Simulator

FailToStart = Callable[..., None]


@pytest.fixture
def fail_to_start(monkeypatch: pytest.MonkeyPatch) -> FailToStart:
    """Lets the next threads of a name fail to start."""
    start, failing = threading.Thread.start, dict[str, int]()

    def start_or_fail(thread: threading.Thread) -> None:
        if failing.get(thread.name, 0) > 0:
            failing[thread.name] -= 1
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_fail)

    def fail(name: str, times: int = 1) -> None:
        failing[name] = times

    return fail


def test_a_job_that_no_thread_can_do_is_not_taken_and_the_next_one_is_done(
    fail_to_start: FailToStart,
) -> None:
    jobs, done = JobThread("jobs"), threading.Event()
    refused: list[str] = []
    fail_to_start("jobs")
    with pytest.raises(RuntimeError, match="can't start"):
        jobs.submit(lambda: refused.append("done all the same"))
    jobs.submit(done.set)
    assert done.wait(PATIENT)
    assert refused == []


def test_the_threads_that_there_are_do_what_others_cannot(fail_to_start: FailToStart) -> None:
    done: list[int] = []
    fail_to_start("work", times=3)
    for_each(range(20), done.append, at_once=5, name="work")
    assert sorted(done) == list(range(20))


def test_a_place_that_cannot_be_kept_stands_in_no_others_way(fail_to_start: FailToStart) -> None:
    looked_for: list[str] = []

    def look(places: list[Place]) -> dict[str, float]:
        looked_for.extend(place.id for place in places)
        return {place.id: 0.0 for place in places}

    keeper = Keeper(look)
    fail_to_start("smsverify-places")
    with pytest.raises(RuntimeError, match="can't start"):
        keeper.keep(Place("first", 1.0), lead=0.0)
    assert keeper.keep(Place("second", 1.0), lead=0.0).result(timeout=PATIENT) is None
    assert looked_for == ["second"]


def test_an_order_that_was_bought_is_handed_out_without_a_heartbeat_too(
    fail_to_start: FailToStart, caplog: pytest.LogCaptureFixture
) -> None:
    given: list[int] = []
    held = [
        holding.Held("an account", number, 0.02, given.append, *[lambda *_: None] * 2) for number in (1, 2)
    ]
    fail_to_start("smsverify-holding")
    for one in held:
        holding.hold(one)
    eventually(lambda: {*given} == {1, 2}, "heartbeats for both", timeout=20)
    for one in held:
        one.let_go()
    assert "order 1: can't start new thread" in caplog.text


def test_a_pattern_that_no_thread_can_look_for_is_looked_for_later(
    fail_to_start: FailToStart, caplog: pytest.LogCaptureFixture
) -> None:
    matching, pattern, found = Matching(), Pattern("Foo: ([0-9]+)"), threading.Event()
    fail_to_start("smsverify-match")
    matching.look(pattern, "Foo: 48213", found.set)
    assert "can't start new thread" in caplog.text
    matching.look(pattern, "Foo: 48213", found.set)
    assert found.wait(PATIENT)
    assert pattern.find("Foo: 48213") == "48213"


def test_waits_go_on_while_no_thread_can_be_started_for_a_poll(
    simulator: Simulator, hook: SmsVerifyHook, fail_to_start: FailToStart, caplog: pytest.LogCaptureFixture
) -> None:
    order_ids = buy(hook, 3)
    for order_id in order_ids:
        simulator.deliver_sms(order_id, otp="123456")
    fail_to_start("smsverify-poll", times=5)
    assert Waiting(hook, order_ids).codes() == ["123456"] * 3
    assert caplog.text.count("can't start new thread") == 1


def test_a_wait_that_cannot_begin_leaves_nothing_behind(
    simulator: Simulator, hook: SmsVerifyHook, fail_to_start: FailToStart
) -> None:
    (order_id,) = buy(hook)
    waiter = rooms_of(hook).waiter
    fail_to_start("smsverify-waiter", times=2)
    with pytest.raises(RuntimeError, match="can't start"):
        waiter.add(order_id, PATIENT, wanted=MessageFilter())
    with pytest.raises(RuntimeError, match="can't start"):
        waiter.subscribe("a consumer", None)
    with store_of(hook).read() as connection:
        assert connection.execute(sa.select(waits)).all() == []
    assert waiter._subscriptions.current() == []
    simulator.deliver_sms(order_id, otp="123456")
    assert hook.wait_for_otp(order_id, PATIENT).otp == "123456"
