"""The rate limit: the urgent first, all wait after a 429, and nothing is sent without the store."""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import datetime, timedelta, timezone
from functools import partial

import pytest
import sqlalchemy as sa
from rigs import eventually
from rigs.clocks import later
from rigs.rate_limits import HOUR, LONGER, make, refusal, soon

from smsverify import RateLimitedError, StoreError, WaitStoppedError
from smsverify._service import rate_limit as rate_limit_room
from smsverify._service import slots as service_slots
from smsverify._service.places import Place
from smsverify._service.rate_limit import Priority, RateLimit, Traffic
from smsverify._service.slots import Queue, QueueEntry
from smsverify._store.store import open_store
from smsverify._store.tables import queue, rate_limits, slots

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


@pytest.mark.slow
def test_among_equals_who_comes_first_is_served_first(any_store_url: str) -> None:
    assert in_the_order_of_service(make(any_store_url, period=2.0), [Priority.POLL] * 4) == [0, 1, 2, 3]


def test_a_deadline_that_cannot_be_met_is_refused_at_once_and_says_when_to_come_back(
    any_store_url: str,
) -> None:
    rate_limit = make(any_store_url, period=HOUR)
    with rate_limit.acquire(Priority.POLL, deadline=soon()):
        pass
    # At the deadline, it would say less.
    assert HOUR - 120 < refusal(rate_limit, patience=200.0) <= HOUR * LONGER
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
    assert 2 * HOUR - 120 < refusal(rate_limit, patience=HOUR + 120) <= 2 * HOUR * LONGER
    assert refusal(rate_limit, Priority.RELEASE) <= HOUR * LONGER  # does not stand behind a poll
    stop.set()
    first.join(30)
    assert rate_limit.state().waiting == 0


def entries(rate_limit: RateLimit) -> dict[str, float]:
    """Who stands in the queue, and since when."""
    with rate_limit.store.read() as connection:
        rows = connection.execute(sa.select(queue.c.entry, queue.c.arrived_at)).all()
    return {row.entry: row.arrived_at for row in rows}


def test_heartbeats_of_others_put_nobody_back_into_the_queue(
    any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_slots, "HEARTBEAT_EVERY", 0.0)
    rate_limit = make(any_store_url)
    first, second = QueueEntry(Priority.PURCHASE), QueueEntry(Priority.PURCHASE)
    both = Queue(rate_limit.store, "key", time_scale=1.0)
    for entry in (first, second):
        both.stand(entry)
    with rate_limit.store.write() as connection:
        both.leave(connection, first)
    both.stand(second)
    assert list(entries(rate_limit)) == [second.id]


def test_who_was_taken_for_dead_stands_at_the_same_place_again(
    any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_slots, "HEARTBEAT_EVERY", 0.0)
    rate_limit = make(any_store_url)
    entry = QueueEntry(Priority.PURCHASE)
    its_queue = Queue(rate_limit.store, "key", time_scale=1.0)
    its_queue.stand(entry)
    before = entries(rate_limit)
    with rate_limit.store.write() as connection:
        connection.execute(sa.delete(queue))
    its_queue.stand(entry)
    assert entries(rate_limit) == before


def test_one_thread_s_heartbeat_is_for_all_of_the_process(
    any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_slots, "HEARTBEAT_EVERY", 0.0)
    rate_limit = make(any_store_url)
    first, second = QueueEntry(Priority.PURCHASE), QueueEntry(Priority.PURCHASE)
    for entry in (first, second):
        Queue(rate_limit.store, "key", time_scale=1.0).stand(entry)  # each hook has one
    with rate_limit.store.write() as connection:
        connection.execute(sa.update(queue).values(seen_at=0.0))
    Queue(rate_limit.store, "key", time_scale=1.0).stand(second)
    assert rate_limit.state().waiting == 2


def test_heartbeats_use_a_new_password_of_the_store_too() -> None:
    old, new = (open_store(f"postgresql+psycopg://me:{password}@nowhere/db") for password in ("old", "new"))
    heartbeats = {id(Queue(store, "key", time_scale=1.0)._heartbeats) for store in (old, new)}
    assert len(heartbeats) == 2


def test_slots_that_come_back_early_are_seen_however_far_the_turn_was(
    any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit_room, "HEARTBEAT_EVERY", 0.2)
    rate_limit = make(any_store_url, limit=2, period=HOUR)
    for _ in range(2):
        with rate_limit.acquire(Priority.POLL, deadline=soon()):
            pass

    def wait() -> None:
        with rate_limit.acquire(Priority.PURCHASE, deadline=soon(3 * HOUR)):
            pass

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    eventually(lambda: rate_limit.state().waiting == 1, "standing in the queue")
    with rate_limit.store.write() as connection:
        connection.execute(sa.update(slots).values(free_at=0.0))
    waiting.join(30)
    assert not waiting.is_alive()


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
    said = [record.getMessage() for record in caplog.records if "limits the rate" in record.getMessage()]
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
    assert caplog.text.count("limits the rate") == 2
    assert rate_limit.state().refusals == 4


def test_a_request_behind_others_waits_while_it_is_not_known_whether_the_first_one_is_accepted(
    any_store_url: str,
) -> None:
    """If it is, all others may leave at once, well before a deadline that is seconds away."""
    rate_limit = make(any_store_url, limit=60)
    with rate_limit.store.read() as connection:
        now = rate_limit.store.now(connection)
    rate_limit.block(1.0)
    turns = rate_limit.keep([Place(str(number), arrived_at=now) for number in range(20)])
    assert max(turns.values()) <= 1.0
    deadline = soon(2.0)
    with (
        pytest.raises(RateLimitedError, match="one by one") as caught,
        rate_limit.acquire(Priority.PURCHASE, deadline=deadline),
    ):
        pass
    assert time.monotonic() >= deadline
    assert caught.value.retry_after is not None
    assert caught.value.retry_after <= 4


def test_the_pauses_become_longer_whoever_is_refused_until_a_request_is_accepted(
    any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (make(any_store_url, limit=10, period=HOUR) for _ in range(2))
    half_a_second = HOUR / 120
    for doublings in range(4):
        (other if doublings % 2 else one).block(0.0)
        one.block(0.0)  # a request that was under way
        pause = refusal(one, Priority.RELEASE)
        assert pause > half_a_second * 2**doublings / 2 - 10
        assert pause <= half_a_second * 2**doublings
        later(monkeypatch, pause)
    later(monkeypatch, HOUR)
    with one.acquire(Priority.RELEASE, deadline=soon()) as slot:
        other.note_accepted(slot)
    other.block(0.0)
    assert refusal(one, Priority.RELEASE) <= half_a_second


def test_after_a_pause_one_request_tries_whether_the_service_accepts_it(
    any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate_limit = make(any_store_url, limit=10, period=HOUR)
    with rate_limit.acquire(Priority.POLL, deadline=soon()) as late:
        rate_limit.block(300)
    later(monkeypatch, 600)
    with rate_limit.acquire(Priority.POLL, deadline=soon()) as slot:
        assert 60 < refusal(rate_limit, Priority.RELEASE) <= HOUR / 30
        rate_limit.note_accepted(late)  # it was sent before the pause
        assert 60 < refusal(rate_limit, Priority.RELEASE) <= HOUR / 30
        rate_limit.note_accepted(slot)
        with rate_limit.acquire(Priority.RELEASE, deadline=soon()):
            pass


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
