"""Machines that share a store, of which one was paused or copied and did not count that time; and databases
that go on with an older state. The time goes on for all, and no slot comes back too early.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from rigs.clocks import DatabaseClock, Machines, now_of

from smsverify._runtime import clock
from smsverify._service.rate_limit import Priority, RateLimit
from smsverify._store import steady
from smsverify._store.store import Store
from smsverify._store.tables import clocks, shifts
from smsverify.errors import RateLimitedError, StoreError

MINUTE, QUARTER, DAY = 60.0, 900.0, 86_400.0
SOON = 30.0  # seconds that a busy machine takes at the most


@pytest.fixture
def start(shared_store_url: str) -> Iterator[Callable[[], Store]]:
    """A process starts, on the machine that this one is on: a store of its own, that has seen the time."""
    started: list[Store] = []

    def begin() -> Store:
        started.append(Store(shared_store_url))
        now_of(started[-1])
        return started[-1]

    yield begin
    for store in started:
        store.close()


def corrections(store: Store) -> int | None:
    """The number of the newest correction; `None` where there was none."""
    with store.read() as connection:
        return connection.execute(sa.select(shifts.c.version)).scalar()


# ------------------------------------------------------------------ paused machines


def test_a_machine_that_was_paused_sets_no_time_back(machines: Machines, start: Callable[[], Store]) -> None:
    machines.on("paused")
    paused = start()
    machines.on("other")
    other = start()
    began = now_of(other)
    for _ in range(3):
        machines.let_pass(QUARTER, paused="paused")
        machines.on("other")
        now_of(other)
    machines.on("paused")
    assert 0 <= now_of(start()) - began - 3 * QUARTER < SOON  # as a new process of that machine sees it
    assert 0 <= now_of(paused) - began - 3 * QUARTER < SOON
    machines.let_pass(MINUTE)
    assert 0 <= now_of(paused) - began - 3 * QUARTER - MINUTE < SOON
    machines.on("other")
    assert 0 <= now_of(other) - began - 3 * QUARTER - MINUTE < SOON
    assert not corrections(other)


def test_a_machine_that_was_paused_proves_no_pause_of_others(
    machines: Machines, start: Callable[[], Store]
) -> None:
    """It has gone on with a time that it has not counted."""
    stores = {}
    for name in ("paused", "other"):
        machines.on(name)
        stores[name] = start()
    machines.let_pass(QUARTER, paused="paused")
    machines.on("other")
    now_of(stores["other"])
    machines.on("paused")
    now_of(stores["paused"])
    with stores["paused"].read() as connection:
        rows = connection.execute(sa.select(clocks.c.boot, clocks.c.steady - clocks.c.since)).all()
    counted = {str(name): float(seconds) for name, seconds in rows}
    assert counted["other"] > QUARTER
    assert counted["paused"] < SOON


@pytest.mark.parametrize("seconds", [QUARTER, DAY])
def test_a_pause_of_one_machine_frees_no_slot(
    seconds: float, machines: Machines, start: Callable[[], Store]
) -> None:
    """After a day on which nobody has looked, no one can tell that it was a pause: the time goes back."""
    limits = {}
    for name in ("paused", "other", "third"):
        machines.on(name)
        limits[name] = RateLimit(start(), "key", limit=3, period=MINUTE, lease=110.0)
    machines.let_pass(seconds, paused="paused")
    machines.on("third")
    limits["third"].state()
    machines.on("other")
    assert use_up(limits["other"]) == 3
    machines.let_pass(1.0)
    machines.on("paused")
    assert use_up(limits["paused"]) == 0
    machines.let_pass(1.0)
    machines.on("third")
    now_of(start())  # which saw the time as it was before
    assert use_up(limits["third"]) == 0
    machines.let_pass(1.0)
    machines.on("other")
    assert use_up(limits["other"]) == 0


def use_up(rate_limit: RateLimit) -> int:
    """How many requests may leave now."""
    sent = 0
    while True:
        try:
            with rate_limit.acquire(Priority.POLL, deadline=time.monotonic()):
                sent += 1
        except RateLimitedError:
            return sent


def test_a_slot_that_was_taken_before_a_pause_is_not_used_after_it(
    machines: Machines, start: Callable[[], Store]
) -> None:
    limits = {}
    for name in ("paused", "other"):
        machines.on(name)
        limits[name] = RateLimit(start(), "key", limit=1, period=MINUTE, lease=110.0, begin_within=20.0)
    machines.on("paused")
    with limits["paused"].acquire(Priority.PURCHASE, deadline=time.monotonic() + SOON) as slot:
        assert slot.may_begin()
        machines.let_pass(QUARTER, paused="paused")
        machines.on("other")
        assert use_up(limits["other"]) == 1
        machines.on("paused")
        assert not slot.may_begin()
        slot.release_unused()
    assert use_up(limits["paused"]) == 0


def test_a_copy_of_a_machine_that_starts_later_sets_no_time_back(
    machines: Machines, start: Callable[[], Store]
) -> None:
    machines.on("first", name="of one image", uptime=300.0)
    began = now_of(start())
    machines.on("other")
    other = start()
    machines.let_pass(QUARTER)
    now_of(other)
    machines.on("copy", name="of one image", uptime=302.0)
    assert 0 <= now_of(start()) - began - QUARTER < SOON
    assert not corrections(other)


def test_a_new_machine_does_not_prove_that_a_step_was_right(
    machines: Machines, start: Callable[[], Store], database_clock: DatabaseClock
) -> None:
    """It came after the step, and has not counted what the database's clock has made of it."""
    machines.on("old")
    old = start()
    began = now_of(old)
    database_clock.step(DAY)
    machines.on("new")
    new = start()
    now_of(new)
    for machine, store in (("old", old), ("new", new)):
        machines.on(machine)
        assert 0 <= now_of(store) - began < SOON
        assert 0 <= now_of(start()) - began < SOON
    machines.on("the next new one")
    assert 0 <= now_of(start()) - began < SOON
    assert corrections(old) == 1


def test_a_step_after_a_correction_is_seen_by_a_machine_that_has_not_looked_since(
    machines: Machines, start: Callable[[], Store], database_clock: DatabaseClock
) -> None:
    machines.on("one")
    began = now_of(start())
    machines.on("other")
    other = start()
    database_clock.step(DAY)
    now_of(other)
    database_clock.step(DAY)
    machines.on("one")
    assert 0 <= now_of(start()) - began < SOON
    assert corrections(other) == 2


def test_a_step_that_a_day_without_a_look_may_hide_proves_no_pause(
    machines: Machines, start: Callable[[], Store], database_clock: DatabaseClock
) -> None:
    """Two clocks may differ by that after a day: the machine that has not looked takes it for that."""
    machines.on("other")
    other = start()
    machines.on("one")
    one = start()
    machines.let_pass(DAY)
    before, began = clock.boottime(), now_of(one)
    database_clock.step(SOON)
    machines.on("other")
    now_of(other)
    machines.on("one")
    assert now_of(one) - began < clock.boottime() - before + SOON / 2


def test_what_others_count_while_a_machine_decides_proves_no_pause(
    machines: Machines,
    start: Callable[[], Store],
    database_clock: DatabaseClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machines.on("other")
    other = start()
    machines.on("one")
    one = start()
    machines.let_pass(500.0)
    now_of(one)
    database_clock.step(0.2)  # too short for one that has not looked for so long
    decide = steady.SharedTime._was_paused

    def decide_late(*args: Any) -> bool:
        machines.let_pass(20.0)
        machines.on("other")
        now_of(other)
        machines.on("one")
        return decide(*args)

    monkeypatch.setattr(steady.SharedTime, "_was_paused", decide_late)
    now_of(one)
    assert corrections(one) == 1


def test_what_is_seen_over_a_slow_connection_lies_never_ahead(
    machines: Machines,
    start: Callable[[], Store],
    database_clock: DatabaseClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(steady, "SHORT_LOOK", 0.0)
    machines.on("far away")
    began = now_of(start())
    database_clock.step(-DAY)
    machines.on("new")
    assert -SOON < now_of(start()) - began < SOON


# ------------------------------------------------------------------ an older state of the database


@pytest.mark.parametrize("is_right_again", [True, False])
def test_a_database_that_goes_on_without_the_last_correction_is_corrected_again(
    is_right_again: bool, machines: Machines, start: Callable[[], Store], database_clock: DatabaseClock
) -> None:
    for name in ("one", "other"):
        machines.on(name)
        now_of(start())
    machines.on("one")
    one = start()
    before, began = clock.boottime(), now_of(one)
    database_clock.step(DAY)
    now_of(one)
    older = shifted_back(one, by=1)
    if is_right_again:
        database_clock.step(-DAY)
    for _ in range(2):
        assert -0.5 < now_of(one) - began - (clock.boottime() - before) < 0.5
        machines.on("other")
        assert -SOON < now_of(start()) - began < SOON
        machines.on("one")
    if not is_right_again:
        assert (corrections(one) or 0) > older + 1  # of a number that nobody has seen before


def shifted_back(store: Store, *, by: int) -> int:
    """Makes the database one that lacks the newest corrections; returns the number of the last one left."""
    with store.write() as connection:
        version = connection.execute(sa.select(shifts.c.version)).scalar_one()
        connection.execute(sa.update(shifts).values(version=version - by, seconds=0.0))
        connection.execute(sa.update(clocks).values(version=version - by))
    return int(version - by)


def test_a_time_that_cannot_be_told_is_an_error_of_the_store(
    machines: Machines,
    start: Callable[[], Store],
    database_clock: DatabaseClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machines.on("one")
    store = start()
    monkeypatch.setattr(steady, "CORRECTIONS", 1)
    database_clock.step(DAY)
    with pytest.raises(StoreError, match="set again and again"):
        now_of(store)
    now_of(store)  # the correction itself is made
