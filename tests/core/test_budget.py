"""The shared budget: never more than the limit, the urgent first, no death and no clock stops the rest."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial

import pytest
import sqlalchemy as sa
from rigs import API_KEY, eventually
from rigs.processes import in_processes
from rigs.wire import delayed

from smsverify import RateLimitedError, StoreError, WaitStoppedError
from smsverify.budget import Budget, Priority
from smsverify.simulator import Simulator
from smsverify.store import Store, budgets, open_store, permits

MINUTE = 60.0


def make(url: str, *, limit: int = 1, period: float = MINUTE, lease: float = 5.0, key: str = "key") -> Budget:
    return Budget(open_store(url), key, limit=limit, period=period, lease=lease)


def soon(seconds: float = 30.0) -> float:
    return time.monotonic() + seconds


def refusal(budget: Budget, priority: Priority = Priority.POLL, patience: float = 0.0) -> float:
    """For how long the budget says that nothing may be sent."""
    with pytest.raises(RateLimitedError) as caught, budget.permit(priority, deadline=soon(patience)):
        pass
    assert caught.value.retry_after is not None
    return caught.value.retry_after


# ------------------------------------------------------------------ the limit


def test_the_service_never_sees_more_than_the_limit_in_any_window(
    simulate: Callable[..., Simulator], any_store_url: str
) -> None:
    """Four processes of four threads on one key, each piece of a request up to a third of a window late."""
    simulator = simulate(rate_limit=10)
    processes, threads, requests = 4, 4, 3
    with delayed(simulator.url, simulator.rate_period / 3) as address:
        settings = {
            "api_key": API_KEY,
            "base_url": address,
            "store_url": any_store_url,
            "rate_limit": 10,
            "rate_period": simulator.rate_period,
            "call_timeout": 100,
        }
        answered = in_processes("use_up", processes, settings=settings, threads=threads, requests=requests)
    stats = simulator.stats()
    assert answered == [threads * requests] * processes
    assert stats.requests == processes * threads * requests
    assert stats.refused == 0
    assert 5 < stats.max_in_window <= 10


def test_a_permit_is_free_again_one_period_after_the_reply(any_store_url: str) -> None:
    budget = make(any_store_url)
    with budget.permit(Priority.POLL, deadline=soon()):
        assert 55 < refusal(budget) <= 60  # under way: a period after its reply, which may come at once
    assert 55 < refusal(budget) <= 60


def test_a_period_begins_with_the_reply_however_long_its_record_has_to_wait(
    any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = make(any_store_url)
    write, wants_to_write, may_write = Store.write, threading.Event(), threading.Event()

    def waiting_for_others(store: Store) -> contextlib.AbstractContextManager[sa.Connection]:
        wants_to_write.set()
        may_write.wait(30)
        return write(store)

    def use() -> None:
        with budget.permit(Priority.POLL, deadline=soon()):
            monkeypatch.setattr(Store, "write", waiting_for_others)

    user = threading.Thread(target=use)
    user.start()
    wants_to_write.wait(30)
    time.sleep(0.5)  # what the others take, and by what the two ways to reckon differ
    with open_store(any_store_url).read() as connection:
        written_at = open_store(any_store_url).now(connection)
    may_write.set()
    user.join()
    with open_store(any_store_url).read() as connection:
        assert connection.execute(sa.select(sa.func.max(permits.c.free_at))).scalar_one() < written_at + 60


def test_a_permit_in_use_is_waited_for_as_long_as_its_reply_may_come(any_store_url: str) -> None:
    """Its lease is long for those who die with it; who is in time for its reply must not be sent away."""
    budget = make(any_store_url, period=0.5, lease=600.0)
    replied = threading.Event()

    def use() -> None:
        with budget.permit(Priority.POLL, deadline=soon()):
            replied.wait(30)

    user = threading.Thread(target=use)
    user.start()
    eventually(lambda: budget.state().available == 0, "the permit in use")
    threading.Timer(0.5, replied.set).start()
    with budget.permit(Priority.POLL, deadline=time.monotonic() + 30):
        assert replied.is_set()
    user.join()


def test_an_unanswered_request_may_reach_the_service_a_little_later(any_store_url: str) -> None:
    budget = make(any_store_url)
    with pytest.raises(LookupError), budget.permit(Priority.POLL, deadline=soon()):
        raise LookupError
    assert 60 < refusal(budget) <= 62


def test_what_was_not_sent_costs_nothing(any_store_url: str) -> None:
    budget = make(any_store_url)
    for _ in range(3):
        with contextlib.suppress(LookupError), budget.permit(Priority.POLL, deadline=soon()) as permit:
            permit.give_back()
            raise LookupError
    assert budget.state().available == 1


def test_each_key_has_a_budget_of_its_own(any_store_url: str) -> None:
    one, other = make(any_store_url), make(any_store_url, key="other")
    with one.permit(Priority.POLL, deadline=soon()), other.permit(Priority.POLL, deadline=soon()):
        pass
    one.block(30)
    assert (one.state().refusals, other.state().refusals) == (1, 0)
    assert other.state().blocked_until is None


def test_the_limit_may_grow_and_shrink(any_store_url: str) -> None:
    for limit in (2, 5, 3):
        assert make(any_store_url, limit=limit).state().available == limit
    small, big = make(any_store_url, limit=1), make(any_store_url, limit=5)
    with small.permit(Priority.POLL, deadline=soon()):
        assert refusal(small) > 0
        assert big.state().available == 4


# ------------------------------------------------------------------ the queue


def in_the_order_of_service(budget: Budget, priorities: list[Priority]) -> list[int]:
    """Lets them come in this order while the only permit is taken; returns who was served when."""
    served: list[int] = []

    def wait(place: int, priority: Priority) -> None:
        with budget.permit(priority, deadline=soon(60)) as permit:
            served.append(place)
            permit.give_back()

    def is_as_long_as(length: int) -> bool:
        return budget.state().waiting == length

    waiting = []
    with budget.permit(Priority.POLL, deadline=soon()) as permit:
        for place, priority in enumerate(priorities):
            waiting.append(threading.Thread(target=wait, args=(place, priority), daemon=True))
            waiting[-1].start()
            eventually(partial(is_as_long_as, place + 1), "standing in the queue")
        permit.give_back()
    for thread in waiting:
        thread.join(60)
    return served


def test_releases_go_before_polls_and_polls_before_purchases(any_store_url: str) -> None:
    budget = make(any_store_url, period=2.0)
    order = [Priority.PURCHASE, Priority.POLL, Priority.PURCHASE, Priority.RELEASE]
    assert in_the_order_of_service(budget, order) == [3, 1, 0, 2]
    assert budget.state().waiting == 0


def test_among_equals_who_comes_first_is_served_first(any_store_url: str) -> None:
    assert in_the_order_of_service(make(any_store_url, period=2.0), [Priority.POLL] * 4) == [0, 1, 2, 3]


def test_a_deadline_that_can_not_be_met_is_refused_at_once_and_says_when_to_come_back(
    any_store_url: str,
) -> None:
    budget = make(any_store_url)
    with budget.permit(Priority.POLL, deadline=soon()):
        pass
    began = time.monotonic()
    assert 50 < refusal(budget, patience=45.0) <= 60
    assert time.monotonic() - began < 30
    assert budget.state().waiting == 0


def test_who_stands_behind_others_is_told_of_their_turns_too(any_store_url: str) -> None:
    budget = make(any_store_url)
    stop = threading.Event()
    with budget.permit(Priority.POLL, deadline=soon()):
        pass

    def wait() -> None:
        with pytest.raises(WaitStoppedError), budget.permit(Priority.POLL, deadline=soon(300), stop=stop):
            pass

    first = threading.Thread(target=wait)
    first.start()
    eventually(lambda: budget.state().waiting == 1, "standing in the queue")
    assert 110 < refusal(budget, patience=80.0) <= 120
    assert refusal(budget, Priority.RELEASE) <= 60  # does not stand behind a poll
    stop.set()
    first.join(30)
    assert budget.state().waiting == 0


def test_a_stop_ends_the_waiting_and_leaves_the_queue(any_store_url: str) -> None:
    budget, stop = make(any_store_url), threading.Event()
    stop.set()
    with budget.permit(Priority.POLL, deadline=soon()):
        pass
    with pytest.raises(WaitStoppedError), budget.permit(Priority.RELEASE, deadline=soon(300), stop=stop):
        pass
    assert budget.state().waiting == 0


# ------------------------------------------------------------------ 429


def test_a_429_that_one_has_seen_holds_everybody_until_it_is_over(any_store_url: str) -> None:
    one, other = make(any_store_url, limit=10), make(any_store_url, limit=10)
    one.block(20)
    assert 15 < refusal(other, Priority.RELEASE) <= 20
    one.block(5)  # a shorter one does not shorten it
    state = other.state()
    assert (state.available, state.refusals) == (0, 2)
    assert state.blocked_until is not None
    left = (state.blocked_until - datetime.now(timezone.utc)).total_seconds()
    assert 14 < left <= 21


def test_a_429_ends(any_store_url: str) -> None:
    budget = make(any_store_url, period=1.0)
    budget.block(0.2)
    with budget.permit(Priority.POLL, deadline=soon()):
        pass
    assert budget.state().blocked_until is None


# ------------------------------------------------------------------ deaths and clocks


def set_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """From now on the store's clock shows so much more than the right time."""
    right = Store.now
    monkeypatch.setattr(Store, "now", lambda self, connection: right(self, connection) + seconds)


def test_the_permits_of_a_killed_process_come_back(
    any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = make(any_store_url, limit=3, lease=600.0)
    assert in_processes("die_with_a_permit", 1, url=any_store_url, limit=3, period=60, lease=600) == [None]
    assert budget.state().available == 0
    set_clock(monkeypatch, 599)
    assert budget.state().available == 0
    set_clock(monkeypatch, 661)
    assert budget.state().available == 3


def test_who_was_killed_in_the_queue_is_forgotten(
    any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = make(any_store_url)
    with budget.permit(Priority.POLL, deadline=soon()):
        in_processes("die_in_the_queue", 1, url=any_store_url, limit=1, period=60, lease=5)
        assert budget.state().waiting == 1
    set_clock(monkeypatch, 61)
    with budget.permit(Priority.PURCHASE, deadline=soon()):
        assert budget.state().waiting == 0


@pytest.mark.parametrize("hours", [-48, -1])
def test_a_clock_that_is_set_back_parks_nothing(
    hours: int, any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = make(any_store_url, limit=2)
    with budget.permit(Priority.POLL, deadline=soon()):
        with budget.permit(Priority.POLL, deadline=soon()):
            pass
        budget.block(30)
        set_clock(monkeypatch, hours * 3600)
        state = budget.state()
        longest = 2 * (MINUTE + budget.lease) if state.blocked_until is None else 3600 + 60
        assert refusal(budget) <= longest
    if hours == -48:
        assert state.blocked_until is None


# ------------------------------------------------------------------ the store fails


def test_without_the_store_nothing_is_sent(store_url: str) -> None:
    budget = make(store_url)
    budget.state()
    with open_store(store_url).write() as connection:
        connection.exec_driver_sql("ALTER TABLE smsverify_permits RENAME TO gone")
    sent = False
    with pytest.raises(StoreError), budget.permit(Priority.RELEASE, deadline=soon()):
        sent = True
    assert not sent


def test_an_answer_is_not_lost_because_its_permit_can_not_be_settled(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    budget = make(store_url)
    with budget.permit(Priority.POLL, deadline=soon()):
        with open_store(store_url).write() as connection:
            connection.exec_driver_sql("ALTER TABLE smsverify_permits RENAME TO gone")
        answer = "a number"
    assert answer == "a number"
    assert "permit stays taken" in caplog.text


def test_a_new_key_is_set_up_once_however_many_come(any_store_url: str) -> None:
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.append(make(any_store_url, limit=50).state().available))
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [50] * 10
    with open_store(any_store_url).read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(budgets)).scalar_one() == 1
