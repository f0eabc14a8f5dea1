"""Whose turn it is, reckoned on slots without a store: what is left for releases, and what that costs."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsverify._service.turns import Priority, Slot, Snapshot, Waiting

MINUTE = 60.0


@dataclass
class Slots:
    """The slots of a key, where each request is answered at once, or `latency` seconds later."""

    limit: int
    latency: float = 0.0
    free_at: list[float] = field(default_factory=list)
    users: list[Priority | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.free_at = [0.0] * self.limit
        self.users = [None] * self.limit

    def take(self, priority: Priority, now: float, waiting: dict[Priority, Waiting] | None = None) -> bool:
        """Whether it is a request's turn; if so, it takes the slot."""
        slots = [
            Slot(number, free_at, free_at - MINUTE, self.users[number])
            for number, free_at in enumerate(self.free_at)
        ]
        snapshot = Snapshot(now, now, MINUTE, sorted(slots, key=lambda slot: slot.free_at), 0.0, 0.0, 0)
        turn_at, slot = snapshot.turn(priority, waiting or {})
        if turn_at > now:
            return False
        self.free_at[slot.number] = now + self.latency + MINUTE
        self.users[slot.number] = priority
        return True

    def spend(self, priority: Priority, now: float) -> int:
        """Takes all that this class may have; returns how many that were."""
        count = 0
        while self.take(priority, now):
            count += 1
        return count


def test_after_a_refusal_requests_leave_one_by_one_in_their_order() -> None:
    waiting = {Priority.READ: Waiting(3, before=1)}
    for used_at, first in ((80.0, 88.0), (90.0, 92.0)):  # before the pause, and after it
        slots = [Slot(number, 0.0, used_at, None) for number in range(10)]
        snapshot = Snapshot(85.0, 85.0, MINUTE, slots, 88.0, 0.0, 1, pauses=1)
        assert snapshot.turn(Priority.RELEASE, {})[0] == first
        assert snapshot.turn(Priority.READ, waiting)[0] == first + 2.0
        assert snapshot.turn(Priority.PURCHASE, waiting)[0] == first + 6.0


def test_the_earliest_turn_after_a_refusal_is_when_the_next_request_may_be_accepted() -> None:
    waiting = {Priority.READ: Waiting(40, before=40)}
    for used_at, first in ((80.0, 88.0), (90.0, 92.0)):
        slots = [Slot(number, 0.0, used_at, None) for number in range(60)]
        snapshot = Snapshot(85.0, 85.0, MINUTE, slots, 88.0, 0.0, 1, pauses=1)
        assert snapshot.earliest(Priority.READ, waiting) == first
        assert snapshot.earliest(Priority.READ, {}) == snapshot.turn(Priority.READ, {})[0] == first


@pytest.mark.parametrize(
    ("limit", "left"), [(1, 0), (2, 0), (10, 0), (19, 0), (20, 1), (39, 1), (60, 3), (100, 5)]
)
@pytest.mark.parametrize("priority", [Priority.POLL, Priority.READ, Priority.PURCHASE])
def test_a_burst_leaves_one_slot_of_twenty_for_releases(limit: int, left: int, priority: Priority) -> None:
    slots = Slots(limit)
    # The first purchases leave something for their codes, until no one has polled for them.
    assert slots.spend(priority, 0.0) + slots.spend(priority, 11.0) == limit - left
    assert slots.spend(Priority.RELEASE, 30.0) == left


@pytest.mark.parametrize("limit", [20, 60, 100])
@pytest.mark.parametrize("seed", range(2))
def test_a_release_waits_for_four_seconds_at_the_most_while_others_take_all_they_get(
    limit: int, seed: int
) -> None:
    """As many in a minute as slots are held for them, and at any time, also all at once."""
    chance = random.Random(seed)
    slots, releases = Slots(limit, latency=chance.choice([0.0, 0.3])), limit // 20
    coming = sorted(
        minute * MINUTE + offset
        for minute in range(6)
        for offset in (chance.choices([chance.uniform(0, 59) for _ in range(3)], k=releases))
    )
    waits: list[float] = []
    for tick in range(int(6 * MINUTE / 0.1)):
        now = tick * 0.1
        while coming and coming[0] <= now and slots.take(Priority.RELEASE, now):
            waits.append(now - coming.pop(0))
        waiting = {Priority.RELEASE: Waiting(count=1)} if coming and coming[0] <= now else {}
        while slots.take(Priority.PURCHASE, now, waiting):
            pass
    assert not coming
    assert max(waits) <= 4.0 + 0.2


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 2, 10, 20, 39, 60])
def test_what_is_left_for_releases_costs_less_than_a_twentieth_of_the_limit(limit: int) -> None:
    slots, sent, minutes = Slots(limit), 0, 20
    for tick in range(int(minutes * MINUTE / 0.05)):
        sent += slots.spend(Priority.READ, tick * 0.05)
    assert sent >= 0.95 * limit * minutes


def test_others_are_not_starved_by_releases() -> None:
    slots = Slots(60)
    waiting = {priority: Waiting(count=60) for priority in Priority}
    others = {priority: waiting | {priority: Waiting(count=59)} for priority in Priority}
    sent = dict.fromkeys(Priority, 0)
    for tick in range(int(5 * MINUTE / 0.1)):
        for priority in Priority:
            while slots.take(priority, tick * 0.1, others[priority]):
                sent[priority] += 1
    assert all(count >= 4 * 5 for count in sent.values()), sent
    assert sent[Priority.RELEASE] >= 5 * 15


@given(st.data())
def test_a_turn_never_comes_while_the_service_wants_silence_or_the_slot_is_in_use(
    data: st.DataObject,
) -> None:
    now, limit = 1000.0, data.draw(st.integers(1, 70))
    moments = st.floats(0.0, 60.0)
    slots = [
        Slot(number, now + left, now + left - MINUTE, data.draw(st.sampled_from([None, *Priority])))
        for number, left in enumerate(sorted(data.draw(st.lists(moments, min_size=limit, max_size=limit))))
    ]
    blocked_until, polled_until = now + data.draw(moments), now + data.draw(moments)
    snapshot = Snapshot(now, now, MINUTE, slots, blocked_until, polled_until, 0)
    waiting = {
        priority: Waiting(count, data.draw(st.integers(0, count)))
        for priority, count in data.draw(
            st.dictionaries(st.sampled_from(Priority), st.integers(0, 99))
        ).items()
    }
    for priority in Priority:
        turn_at, slot = snapshot.turn(priority, waiting)
        assert turn_at >= max(blocked_until, slot.free_at)
