"""The slots of a key: the service never sees more requests than that, and no death and no clock parks one."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from rigs import API_KEY, eventually
from rigs.clocks import DatabaseClock, later
from rigs.older_state import remember
from rigs.processes import beside, in_processes, results_of
from rigs.rate_limits import HOUR, LEASE, LONGER, MINUTE, make, refusal, soon
from rigs.wire import delayed

from smsverify._runtime.clock import boottime
from smsverify._service.rate_limit import HeldSlot, Priority, RateLimit
from smsverify._store.store import Store, open_store
from smsverify._store.tables import slots
from smsverify.simulator import Simulator

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
    assert HOUR - 60 < refusal(rate_limit) <= HOUR * LONGER
    state = rate_limit.state()
    assert state.blocked_until is not None


def test_a_slot_is_free_again_one_period_after_the_reply(any_store_url: str) -> None:
    rate_limit = make(any_store_url, period=HOUR)
    with rate_limit.acquire(Priority.POLL, deadline=soon()):
        # Under way: a period after its reply, which may come at once.
        assert HOUR - 120 < refusal(rate_limit) <= HOUR * LONGER
    assert HOUR - 120 < refusal(rate_limit) <= HOUR * LONGER


def test_a_slot_stays_taken_a_little_longer_than_a_period(any_store_url: str) -> None:
    """Two clocks that are even may still differ by a twentieth of a second in a minute."""
    rate_limit = make(any_store_url, period=HOUR)
    began = boottime()
    with rate_limit.acquire(Priority.POLL, deadline=soon()):
        pass
    assert refusal(rate_limit) + boottime() - began >= HOUR * (1 + 0.05 / 60)


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
    """Its lease is long for processes that die with it. One that still gets its reply is not sent away."""
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
    assert left <= 62 * LONGER
    assert left + (time.monotonic() - began) > 61


def test_a_slot_of_a_process_with_longer_time_outs_is_not_taken_for_an_old_one(any_store_url: str) -> None:
    patient, hasty = make(any_store_url, lease=600.0), make(any_store_url)
    with patient.acquire(Priority.POLL, deadline=soon()):
        assert hasty.load().free_in[0] <= MINUTE * LONGER
        assert hasty.state().available == 0
    assert refusal(hasty) <= MINUTE * LONGER  # not a lease longer, as where the holder has died


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


def test_a_request_under_way_is_counted_though_the_database_goes_on_with_an_older_state(
    any_store_url: str,
) -> None:
    rate_limit = make(any_store_url, limit=2)
    rate_limit.state()
    put_back = remember(any_store_url)
    with rate_limit.acquire(Priority.POLL, deadline=soon()):
        put_back()
        with rate_limit.acquire(Priority.POLL, deadline=soon()):
            pass
    assert rate_limit.state().available == 0


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


# ------------------------------------------------------------------ deaths and clocks


@pytest.mark.slow
def test_the_slots_of_a_killed_process_come_back(any_store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rate_limit = make(any_store_url, limit=3, lease=600.0)
    assert in_processes("die_with_a_slot", 1, url=any_store_url, limit=3, period=60, lease=600) == [None]
    assert rate_limit.state().available == 0
    later(monkeypatch, 599)
    assert rate_limit.state().available == 0
    later(monkeypatch, 661)
    assert rate_limit.state().available == 3


@pytest.mark.slow
def test_who_was_killed_in_the_queue_is_forgotten(
    any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate_limit = make(any_store_url)
    with rate_limit.acquire(Priority.POLL, deadline=soon()):
        in_processes("die_in_the_queue", 1, url=any_store_url, limit=1, period=60, lease=5)
        assert rate_limit.state().waiting == 1
    later(monkeypatch, 61)
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
        later(monkeypatch, hours * 3600)
        state = rate_limit.state()
        longest = 2 * (MINUTE + LEASE) if state.blocked_until is None else 3600 + 60
        assert refusal(rate_limit) <= longest
    if hours == -48:
        assert state.blocked_until is None
