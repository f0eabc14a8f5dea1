"""The rate limit: never more than that, the urgent first, no death and no clock stops the rest."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial

import pytest
import sqlalchemy as sa
from rigs import API_KEY, eventually
from rigs.clocks import DatabaseClock
from rigs.processes import beside, in_processes, results_of
from rigs.wire import delayed

from smsverify import RateLimitedError, StoreError, WaitStoppedError
from smsverify._service.places import Place
from smsverify._service.rate_limit import HeldSlot, Priority, RateLimit, Traffic
from smsverify._store.store import Store, open_store
from smsverify._store.tables import rate_limits, slots
from smsverify.simulator import Simulator

MINUTE, LEASE = 60.0, 5.0
HOUR = 3600.0  # a period of which a busy machine takes no noticeable part


def make(
    url: str, *, limit: int = 1, period: float = MINUTE, lease: float = LEASE, key: str = "key"
) -> RateLimit:
    return RateLimit(open_store(url), key, limit=limit, period=period, lease=lease)


def soon(seconds: float = 30.0) -> float:
    return time.monotonic() + seconds


def refusal(rate_limit: RateLimit, priority: Priority = Priority.POLL, patience: float = 0.0) -> float:
    """For how long the rate limit says that nothing may be sent."""
    with pytest.raises(RateLimitedError) as caught, rate_limit.acquire(priority, deadline=soon(patience)):
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


def settings_of(simulator: Simulator, url: str) -> dict[str, object]:
    return {
        "api_key": API_KEY,
        "base_url": simulator.url,
        "store_url": url,
        "rate_limit": 10,
        "rate_period": simulator.rate_period,
        "call_timeout": 100,
    }


@pytest.mark.parametrize("steps", [[61.0, -61.0], [86_400.0], [-86_400.0]])
@pytest.mark.slow
def test_the_jumping_clock_of_one_process_sends_not_one_request_too_many(
    steps: list[float], simulate: Callable[..., Simulator], any_store_url: str
) -> None:
    simulator = simulate(rate_limit=10)
    settings = settings_of(simulator, any_store_url)
    with beside("use_up", 1, settings=settings, threads=4, requests=4) as others:
        (answered,) = in_processes(
            "use_up_with_a_jumping_clock", 1, settings=settings, threads=4, requests=4, steps=steps
        )
        assert results_of(others) == [16]
    stats = simulator.stats()
    assert (answered, stats.requests, stats.refused) == (16, 32, 0)
    assert stats.max_in_window <= 10


@pytest.mark.parametrize("seconds", [61.0, -61.0, 86_400.0, -86_400.0])
@pytest.mark.slow
def test_the_jumping_clock_of_the_database_sends_not_one_request_too_many_and_parks_none(
    seconds: float, simulate: Callable[..., Simulator], shared_store_url: str, database_clock: DatabaseClock
) -> None:
    simulator = simulate(rate_limit=10)
    settings = settings_of(simulator, shared_store_url)
    with beside("use_up", 3, settings=settings, threads=3, requests=4) as users:
        eventually(lambda: simulator.stats().requests > 10, "sending")
        for step in (seconds, seconds, -seconds):
            database_clock.step(step)
            time.sleep(0.3)
        assert results_of(users) == [12] * 3
    stats = simulator.stats()
    assert (stats.requests, stats.refused) == (36, 0)
    assert stats.max_in_window <= 10


@pytest.mark.parametrize("seconds", [61.0, -61.0, -86_400.0])
def test_a_slot_is_free_when_it_was_to_be_wherever_the_databases_clock_goes(
    seconds: float, shared_store_url: str, database_clock: DatabaseClock
) -> None:
    rate_limit = make(shared_store_url, period=HOUR)
    with rate_limit.acquire(Priority.POLL, deadline=soon()):
        pass
    rate_limit.block(HOUR / 2)
    database_clock.step(seconds)
    assert HOUR - 60 < refusal(rate_limit) <= HOUR
    state = rate_limit.state()
    assert state.blocked_until is not None


def test_a_slot_is_free_again_one_period_after_the_reply(any_store_url: str) -> None:
    rate_limit = make(any_store_url, period=HOUR)
    with rate_limit.acquire(Priority.POLL, deadline=soon()):
        # Under way: a period after its reply, which may come at once.
        assert HOUR - 120 < refusal(rate_limit) <= HOUR
    assert HOUR - 120 < refusal(rate_limit) <= HOUR


def test_a_period_begins_with_the_reply_however_long_its_record_has_to_wait(
    any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate_limit = make(any_store_url)
    write, wants_to_write, may_write = Store.write, threading.Event(), threading.Event()

    def waiting_for_others(store: Store) -> contextlib.AbstractContextManager[sa.Connection]:
        wants_to_write.set()
        may_write.wait(30)
        return write(store)

    def use() -> None:
        with rate_limit.acquire(Priority.POLL, deadline=soon()):
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
        assert connection.execute(sa.select(sa.func.max(slots.c.free_at))).scalar_one() < written_at + 60


def test_a_slot_in_use_is_waited_for_as_long_as_its_reply_may_come(any_store_url: str) -> None:
    """Its lease is long for those who die with it; who is in time for its reply must not be sent away."""
    rate_limit = make(any_store_url, period=0.5, lease=600.0)
    replied = threading.Event()

    def use() -> None:
        with rate_limit.acquire(Priority.POLL, deadline=soon()):
            replied.wait(30)

    user = threading.Thread(target=use)
    user.start()
    eventually(lambda: rate_limit.state().available == 0, "the slot in use")
    threading.Timer(0.5, replied.set).start()
    with rate_limit.acquire(Priority.POLL, deadline=time.monotonic() + 30):
        assert replied.is_set()
    user.join()


def test_an_unanswered_request_may_reach_the_service_a_little_later(any_store_url: str) -> None:
    rate_limit = make(any_store_url)
    began = time.monotonic()
    with pytest.raises(LookupError), rate_limit.acquire(Priority.POLL, deadline=soon()):
        raise LookupError
    left = refusal(rate_limit)
    assert left <= 62
    assert left + (time.monotonic() - began) > 61


def test_what_was_not_sent_costs_nothing(any_store_url: str) -> None:
    rate_limit = make(any_store_url)
    for _ in range(3):
        with contextlib.suppress(LookupError), rate_limit.acquire(Priority.POLL, deadline=soon()) as slot:
            slot.release_unused()
            raise LookupError
    assert rate_limit.state().available == 1


def test_a_slot_says_when_it_is_too_late_for_its_request_to_begin(
    any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate_limit = RateLimit(
        open_store(any_store_url), "key", limit=1, period=MINUTE, lease=90.0, begin_within=20.0
    )
    with rate_limit.acquire(Priority.PURCHASE, deadline=soon()) as slot:
        assert slot.may_begin()
        for seconds, may_begin in ((19.0, True), (20.1, False)):
            later = slot.taken_at + seconds
            monkeypatch.setattr("smsverify._service.slots.boottime", lambda later=later: later)
            assert slot.may_begin() is may_begin


def test_who_asks_again_because_it_was_too_late_keeps_the_place_in_the_queue(any_store_url: str) -> None:
    rate_limit = make(any_store_url, period=2.0)
    with rate_limit.acquire(Priority.PURCHASE, deadline=soon()) as late:
        late.release_unused()
    served: list[str] = []

    def wait(name: str, instead_of: HeldSlot | None) -> None:
        with rate_limit.acquire(Priority.PURCHASE, deadline=soon(60), instead_of=instead_of) as slot:
            served.append(name)
            slot.release_unused()

    waiting = []
    with rate_limit.acquire(Priority.POLL, deadline=soon()) as slot:
        for name, instead_of in (("who came later", None), ("who asks again", late)):
            waiting.append(threading.Thread(target=wait, args=(name, instead_of), daemon=True))
            waiting[-1].start()
            eventually(lambda: rate_limit.state().waiting == len(waiting), "standing in the queue")
        slot.release_unused()
    for thread in waiting:
        thread.join(60)
    assert served == ["who asks again", "who came later"]


def test_each_key_has_a_rate_limit_of_its_own(any_store_url: str) -> None:
    one, other = make(any_store_url), make(any_store_url, key="other")
    with one.acquire(Priority.POLL, deadline=soon()), other.acquire(Priority.POLL, deadline=soon()):
        pass
    one.block(30)
    assert (one.state().refusals, other.state().refusals) == (1, 0)
    assert other.state().blocked_until is None


def test_the_limit_may_grow_and_shrink(any_store_url: str) -> None:
    for limit in (2, 5, 3):
        assert make(any_store_url, limit=limit).state().available == limit
    small, big = make(any_store_url, limit=1), make(any_store_url, limit=5)
    with small.acquire(Priority.POLL, deadline=soon()):
        assert refusal(small) > 0
        assert big.state().available == 4


# ------------------------------------------------------------------ the queue


def in_the_order_of_service(rate_limit: RateLimit, priorities: list[Priority]) -> list[int]:
    """Lets them come in this order while the only slot is taken; returns who was served when."""
    served: list[int] = []

    def wait(place: int, priority: Priority) -> None:
        with rate_limit.acquire(priority, deadline=soon(60)) as slot:
            served.append(place)
            slot.release_unused()

    def is_as_long_as(length: int) -> bool:
        return rate_limit.state().waiting == length

    waiting = []
    with rate_limit.acquire(Priority.POLL, deadline=soon()) as slot:
        for place, priority in enumerate(priorities):
            waiting.append(threading.Thread(target=wait, args=(place, priority), daemon=True))
            waiting[-1].start()
            eventually(partial(is_as_long_as, place + 1), "standing in the queue")
        slot.release_unused()
    for thread in waiting:
        thread.join(60)
    return served


def test_releases_go_before_polls_and_polls_before_purchases(any_store_url: str) -> None:
    rate_limit = make(any_store_url, period=2.0)
    order = [Priority.PURCHASE, Priority.POLL, Priority.PURCHASE, Priority.RELEASE]
    assert in_the_order_of_service(rate_limit, order) == [3, 1, 0, 2]
    assert rate_limit.state().waiting == 0


def test_among_equals_who_comes_first_is_served_first(any_store_url: str) -> None:
    assert in_the_order_of_service(make(any_store_url, period=2.0), [Priority.POLL] * 4) == [0, 1, 2, 3]


def test_a_deadline_that_cannot_be_met_is_refused_at_once_and_says_when_to_come_back(
    any_store_url: str,
) -> None:
    rate_limit = make(any_store_url, period=HOUR)
    with rate_limit.acquire(Priority.POLL, deadline=soon()):
        pass
    # At the deadline, it would say less.
    assert HOUR - 120 < refusal(rate_limit, patience=200.0) <= HOUR
    assert rate_limit.state().waiting == 0


def test_who_stands_behind_others_learns_of_their_turns_too(any_store_url: str) -> None:
    rate_limit = make(any_store_url, period=HOUR)
    stop = threading.Event()
    with rate_limit.acquire(Priority.POLL, deadline=soon()):
        pass

    def wait() -> None:
        with (
            pytest.raises(WaitStoppedError),
            rate_limit.acquire(Priority.POLL, deadline=soon(2 * HOUR), stop=stop),
        ):
            pass

    first = threading.Thread(target=wait)
    first.start()
    eventually(lambda: rate_limit.state().waiting == 1, "standing in the queue")
    assert 2 * HOUR - 120 < refusal(rate_limit, patience=HOUR + 120) <= 2 * HOUR
    assert refusal(rate_limit, Priority.RELEASE) <= HOUR  # does not stand behind a poll
    stop.set()
    first.join(30)
    assert rate_limit.state().waiting == 0


def test_a_stop_ends_the_waiting_and_leaves_the_queue(any_store_url: str) -> None:
    rate_limit, stop = make(any_store_url), threading.Event()
    stop.set()
    with rate_limit.acquire(Priority.POLL, deadline=soon()):
        pass
    with pytest.raises(WaitStoppedError), rate_limit.acquire(Priority.RELEASE, deadline=soon(300), stop=stop):
        pass
    assert rate_limit.state().waiting == 0


# ------------------------------------------------------------------ 429


def test_a_429_that_one_has_seen_holds_everybody_until_it_is_over(any_store_url: str) -> None:
    one, other = make(any_store_url, limit=10), make(any_store_url, limit=10)
    one.block(300)
    assert 180 < refusal(other, Priority.RELEASE) <= 300
    one.block(5)  # a shorter one does not shorten it
    state = other.state()
    assert (state.available, state.refusals) == (0, 2)
    assert state.blocked_until is not None
    left = (state.blocked_until - datetime.now(timezone.utc)).total_seconds()
    assert 180 < left <= 301


def test_an_overview_shows_what_was_sent_who_waits_and_a_429(any_store_url: str) -> None:
    rate_limit, store = make(any_store_url, limit=3, period=HOUR), open_store(any_store_url)

    def traffic() -> Traffic:
        with store.read() as connection:
            return rate_limit.traffic(connection, store.now(connection))

    store.upgrade()
    assert traffic() == Traffic(0, {}, None, 0)
    for _ in range(2):
        with rate_limit.acquire(Priority.POLL, deadline=soon()):
            pass
    assert traffic() == Traffic(2, {}, None, 0)
    with store.read() as connection:
        now = store.now(connection)
    rate_limit.keep([Place(name, arrived_at=now) for name in ("one", "other")])
    rate_limit.block(300)
    seen, state = traffic(), rate_limit.state()
    assert (seen.sent, seen.waiting) == (2, {"purchase": 2})
    assert seen.refusals == state.refusals == 1
    assert seen.blocked_until is not None
    assert state.blocked_until is not None
    assert abs(seen.blocked_until - state.blocked_until) < timedelta(seconds=1)
    # An old copy of the store.
    with store.write() as connection:
        connection.execute(sa.update(slots).values(free_at=now + 10 * HOUR))
        connection.execute(sa.update(rate_limits).values(blocked_until=now + 10 * HOUR))
    seen = traffic()
    assert (seen.sent, seen.blocked_until) == (0, None)


def test_a_429_ends(any_store_url: str) -> None:
    rate_limit = make(any_store_url, period=1.0)
    rate_limit.block(0.2)
    with rate_limit.acquire(Priority.POLL, deadline=soon()):
        pass
    assert rate_limit.state().blocked_until is None


@pytest.mark.parametrize("asked", [99_999_999.0, float("inf"), 301.0])
def test_a_429_holds_everybody_for_five_minutes_at_the_most_and_says_so_once(
    asked: float, any_store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    rate_limit = make(any_store_url, limit=10)
    for _ in range(3):
        rate_limit.block(asked)
    assert 180 < refusal(rate_limit, Priority.RELEASE) <= 300
    state = rate_limit.state()
    assert state.blocked_until is not None
    said = [record.getMessage() for record in caplog.records if "429" in record.getMessage()]
    assert len(said) == 1
    assert f"{state.blocked_until:%Y-%m-%d %H:%M}" in said[0]
    assert "300.0 s" in said[0]
    with pytest.raises(RateLimitedError, match="asked for silence until"):
        rate_limit.acquire(Priority.RELEASE, deadline=soon(0)).__enter__()


def test_a_longer_silence_is_said_and_a_new_one_too(
    any_store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    rate_limit = make(any_store_url, limit=10, period=6.0)
    for seconds in (0.2, 25.0, 0.1, -5.0):
        rate_limit.block(seconds)
    assert caplog.text.count("429") == 2
    assert rate_limit.state().refusals == 4


def test_so_many_refusals_that_the_database_cannot_count_them_hold_all_the_same(any_store_url: str) -> None:
    rate_limit = make(any_store_url)
    rate_limit.state()
    with open_store(any_store_url).write() as connection:
        connection.execute(sa.update(rate_limits).values(refusals=2**31 - 1))
    rate_limit.block(300)
    assert refusal(rate_limit) > 180
    assert rate_limit.state().refusals == 2**31 - 1


def test_a_silence_from_an_old_copy_of_the_store_is_not_kept(any_store_url: str) -> None:
    rate_limit = make(any_store_url)
    rate_limit.block(20)
    with open_store(any_store_url).write() as connection:
        connection.execute(sa.update(rate_limits).values(blocked_until=rate_limits.c.blocked_until + 86_400))
    assert rate_limit.state().blocked_until is None
    rate_limit.block(300)
    assert 180 < refusal(rate_limit) <= 300


# ------------------------------------------------------------------ what is left for releases


@pytest.mark.parametrize(("limit", "left"), [(60, 3), (20, 1), (10, 0)])
def test_a_cancellation_finds_a_slot_while_purchases_have_all_they_get(
    limit: int, left: int, any_store_url: str
) -> None:
    rate_limit = make(any_store_url, limit=limit, period=HOUR)

    def spend(priority: Priority) -> int:
        count = 0
        with contextlib.suppress(RateLimitedError):
            while True:
                with rate_limit.acquire(priority, deadline=soon(0)):
                    count += 1
        return count

    assert spend(Priority.READ) == limit - left
    assert spend(Priority.PURCHASE) == 0
    assert spend(Priority.RELEASE) == left


# ------------------------------------------------------------------ deaths and clocks


def set_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """From now on the store's clock shows so much more than the right time."""
    right = Store.now
    monkeypatch.setattr(Store, "now", lambda self, connection: right(self, connection) + seconds)


def test_the_slots_of_a_killed_process_come_back(any_store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rate_limit = make(any_store_url, limit=3, lease=600.0)
    assert in_processes("die_with_a_slot", 1, url=any_store_url, limit=3, period=60, lease=600) == [None]
    assert rate_limit.state().available == 0
    set_clock(monkeypatch, 599)
    assert rate_limit.state().available == 0
    set_clock(monkeypatch, 661)
    assert rate_limit.state().available == 3


def test_who_was_killed_in_the_queue_is_forgotten(
    any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate_limit = make(any_store_url)
    with rate_limit.acquire(Priority.POLL, deadline=soon()):
        in_processes("die_in_the_queue", 1, url=any_store_url, limit=1, period=60, lease=5)
        assert rate_limit.state().waiting == 1
    set_clock(monkeypatch, 61)
    with rate_limit.acquire(Priority.PURCHASE, deadline=soon()):
        assert rate_limit.state().waiting == 0


@pytest.mark.parametrize("hours", [-48, -1])
def test_a_clock_that_is_set_back_parks_nothing(
    hours: int, any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate_limit = make(any_store_url, limit=2)
    with rate_limit.acquire(Priority.POLL, deadline=soon()):
        with rate_limit.acquire(Priority.POLL, deadline=soon()):
            pass
        rate_limit.block(30)
        set_clock(monkeypatch, hours * 3600)
        state = rate_limit.state()
        longest = 2 * (MINUTE + LEASE) if state.blocked_until is None else 3600 + 60
        assert refusal(rate_limit) <= longest
    if hours == -48:
        assert state.blocked_until is None


# ------------------------------------------------------------------ the store fails


def test_without_the_store_nothing_is_sent(store_url: str) -> None:
    rate_limit = make(store_url)
    rate_limit.state()
    with open_store(store_url).write() as connection:
        connection.exec_driver_sql("ALTER TABLE smsverify_slots RENAME TO gone")
    sent = False
    with pytest.raises(StoreError), rate_limit.acquire(Priority.RELEASE, deadline=soon()):
        sent = True
    assert not sent


def test_an_answer_is_not_lost_because_its_slot_cannot_be_released(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    rate_limit = make(store_url)
    with rate_limit.acquire(Priority.POLL, deadline=soon()):
        with open_store(store_url).write() as connection:
            connection.exec_driver_sql("ALTER TABLE smsverify_slots RENAME TO gone")
        answer = "a number"
    assert answer == "a number"
    assert "slot stays taken" in caplog.text


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
        assert connection.execute(sa.select(sa.func.count()).select_from(rate_limits)).scalar_one() == 1
