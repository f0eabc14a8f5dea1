"""The account's requests per minute, shared by every process and host that uses the same store.

The budget of a key is `rate_limit` permits. A permit is taken just before a request leaves and given back
when the reply is there, free again one period later: the service has counted the request no later than its
reply, so no window of the service's ever holds more requests than there are permits, whatever the network did
in between. A holder that dies costs its permit for one lease.

Who waits stands in a queue in the store, by priority and then by arrival, and a permit goes to whoever is
first when it becomes free. Nothing is booked ahead: a cancellation never waits behind purchases that came
earlier. So that nobody starves, each class goes first while it holds less than a twelfth of the permits.

Each number whose code is polled for costs a second request, to read the code. Whoever spends all permits on
numbers has none left for the codes until the numbers' permits come back, a whole period later. So while codes
are polled for, purchases hold 45 of 100 permits at the most: as many are left for their codes, and the rest
for the polls. They also leave a fifteenth free, so that a code that has come need not wait. Before the first
poll that holds for a moment too, since nobody knows yet whether the codes will be polled for. Who only buys,
or gets the codes by callbacks, is not held back.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa

from smsverify.errors import RateLimitedError, StoreError, WaitStoppedError
from smsverify.store import Store, budgets, permits, queue

log = logging.getLogger(__name__)

# Shortest and longest time between two looks at the queue, in seconds of a service whose minute lasts a
# minute.
SHORTEST_LOOK = 0.01
LONGEST_LOOK = 2.0
WHILE_WAITING = 1.0  # seconds between two calls of what a caller wants to do while it waits
# Seconds that a request without a reply may still need to reach the service.
LATE = 2.0
# Seconds that no pause of the service's exceeds; what lies beyond is a clock that was set back.
LONGEST_BLOCK = 3600.0
# One who waits and has not looked for this long is dead and out of the queue.
ABANDONED_AFTER = 10.0
# Seconds between two signs of life of one who waits, however far his turn is.
SIGN_OF_LIFE = 3.0

# Of the permits, what purchases may hold at the most while codes are polled for, and what they leave free.
PURCHASE_SHARE = 0.45
FREE_SHARE = 1 / 15
LEAST_SHARE = 1 / 12  # that each class gets, whatever the others want
# Seconds after the first purchase for which codes are expected to be polled for, of a service whose minute
# lasts a minute.
FIRST_POLL = 10.0
# A wait for a permit that is longer than this is worth a line in the log; likewise.
TIGHT = 5.0


class Priority(enum.IntEnum):
    """Who goes first when requests wait for the budget."""

    RELEASE = 0
    """What gives money back, and reads of codes known to be there."""
    POLL = 1
    """The poll that is due, for all who wait for codes."""
    READ = 2
    """Other reads."""
    PURCHASE = 3
    """What spends money."""


@dataclass(frozen=True)
class BudgetState:
    """What is left of the account's requests per minute.

    Attributes:
        limit: requests allowed in `period` seconds.
        period: seconds.
        available: requests that could be sent right now.
        waiting: requests that wait for their turn, of all processes.
        blocked_until: UTC; the service asked for silence until then (429), else `None`.
        refusals: how often the service answered 429 so far.
    """

    limit: int
    period: float
    available: int
    waiting: int
    blocked_until: datetime | None
    refusals: int


@dataclass(frozen=True)
class Load:
    """What the requests of the last period were for.

    Attributes:
        releases: what gave money back, and reads of codes known to be there.
        reads: other reads, polls not counted.
        purchases: what spent money.
        purchases_waiting: what waits to spend money.
    """

    releases: int
    reads: int
    purchases: int
    purchases_waiting: int


class Permit:
    """The right to send one request; `settle` it when the reply is there."""

    def __init__(self, budget: Budget, slot: int, holder: str) -> None:
        self._budget = budget
        self._slot = slot
        self._holder = holder

    def settle(self, *, is_answered: bool) -> None:
        """The service has counted the request by now if it has answered, else a little later."""
        self._free(self._budget.period + (0.0 if is_answered else self._budget.late))

    def give_back(self) -> None:
        """Nothing was sent: free again at once."""
        self._free(0.0)

    def _free(self, after: float) -> None:
        store, free_at = self._budget.store, time.monotonic() + after
        try:
            self._free_in(store, free_at)
        except StoreError as error:
            # The reply matters more than the permit, which comes back by itself when its lease is over.
            log.warning(
                "A request's permit stays taken for up to %.0f s: %s",
                self._budget.lease,
                error,
            )

    def _free_in(self, store: Store, free_at: float) -> None:
        with store.write() as connection:
            # However long this had to wait for others to write, the period began with the reply.
            after = free_at - time.monotonic()
            connection.execute(
                sa.update(permits)
                .where(
                    permits.c.key_id == self._budget.key_id,
                    permits.c.slot == self._slot,
                    permits.c.holder == self._holder,
                )
                .values(free_at=store.now(connection) + after, holder=None)
            )


class Budget:
    """The shared budget of one API key.

    Args:
        store: where everybody who uses the key meets.
        key_id: names the key without giving it away.
        limit: requests in `period`.
        period: seconds.
        lease: seconds that a request may be under way at the most.
    """

    def __init__(self, store: Store, key_id: str, *, limit: int, period: float, lease: float) -> None:
        self.store = store
        self.key_id = key_id
        self.limit = limit
        self.period = period
        self.lease = lease
        self._tempo = period / 60
        self._is_tight = False
        self.late = LATE * self._tempo

    @contextmanager
    def permit(
        self,
        priority: Priority,
        *,
        deadline: float,
        stop: threading.Event | None = None,
        while_waiting: Callable[[], None] | None = None,
    ) -> Iterator[Permit]:
        """Waits for the turn, hands out a permit, and settles it at the end.

        Args:
            priority: goes before arrival.
            deadline: `time.monotonic()` by which the request must have its turn.
            stop: ends the waiting when it is set.
            while_waiting: called at each look at the queue; what it raises ends the waiting.

        Raises:
            RateLimitedError: the turn can not come before the deadline; nothing was sent.
            WaitStoppedError: `stop` was set.
            StoreError: the store can not be used; nothing was sent.
        """
        permit = self._wait_for_turn(priority, deadline, stop, while_waiting)
        try:
            yield permit
        except BaseException:
            permit.settle(is_answered=False)
            raise
        permit.settle(is_answered=True)

    def codes_are_polled_for(self, connection: sa.Connection, polled: bool = True) -> None:
        """Whether codes are read by polls from now on, and purchases have to leave permits for them.

        Part of the caller's transaction. It is forgotten after one period in which nobody says so again.
        """
        now = self.store.now(connection)
        connection.execute(
            sa.update(budgets)
            .where(budgets.c.key_id == self.key_id)
            .values(polled_until=now + self.period if polled else now)
        )

    def load(self) -> Load:
        """What the last period's requests were for, and how many purchases wait."""
        with self.store.read() as connection:
            ring = self._ring(connection)
            if ring is None:
                return Load(0, 0, 0, 0)
            waiting = self._waiting(connection, ring.now)
        return Load(
            releases=ring.held(Priority.RELEASE),
            reads=ring.held(Priority.READ),
            purchases=ring.held(Priority.PURCHASE),
            purchases_waiting=waiting.get(Priority.PURCHASE, (0, 0))[0],
        )

    def block(self, seconds: float) -> None:
        """Nobody sends for this long: the service said so to one of us."""
        with self.store.write() as connection:
            until = self._locked_ring(connection).now + seconds
            row = budgets.c.key_id == self.key_id
            connection.execute(sa.update(budgets).where(row).values(refusals=budgets.c.refusals + 1))
            connection.execute(
                sa.update(budgets).where(row, budgets.c.blocked_until < until).values(blocked_until=until)
            )
        log.warning(
            "The service answered 429: nobody who shares this key sends for %.1f s",
            seconds,
        )

    def state(self) -> BudgetState:
        """What is left, as of now."""
        with self.store.write() as connection:
            ring = self._locked_ring(connection)
            waiting = self._waiting(connection, ring.now)
        is_blocked = ring.blocked_until > ring.now
        return BudgetState(
            limit=self.limit,
            period=self.period,
            available=0 if is_blocked else len(ring.slots) - len(ring.taken),
            waiting=sum(count for count, _ in waiting.values()),
            blocked_until=datetime.fromtimestamp(ring.blocked_until, timezone.utc) if is_blocked else None,
            refusals=ring.refusals,
        )

    # -------------------------------------------------------------- the turn

    def _wait_for_turn(
        self,
        priority: Priority,
        deadline: float,
        stop: threading.Event | None,
        while_waiting: Callable[[], None] | None,
    ) -> Permit:
        ticket = _Ticket(priority)
        stop = stop or threading.Event()
        try:
            while True:
                seconds = self._turn_in(ticket)
                if seconds <= 0:
                    taken = self._take(ticket)
                    if isinstance(taken, Permit):
                        return taken
                    seconds = taken
                if time.monotonic() + seconds > deadline:
                    raise RateLimitedError(
                        f"no request may be sent for another {seconds:.1f} s: the {self.limit} requests per "
                        f"{self.period:g} s are used up",
                        retry_after=seconds,
                    )
                self._queue_up(ticket)
                self._tell_if_tight(seconds)
                # The turn may come sooner, if others give up; the farther it is, the less that matters.
                look_at = time.monotonic() + min(seconds, max(seconds / 4, LONGEST_LOOK * self._tempo))
                self._sleep_until(look_at, stop, while_waiting)
        except BaseException:
            # Whoever can not leave the queue is dropped from it as abandoned.
            with contextlib.suppress(StoreError):
                self._leave(ticket)
            raise

    def _sleep_until(
        self, look_at: float, stop: threading.Event, while_waiting: Callable[[], None] | None
    ) -> None:
        look_at = min(look_at, time.monotonic() + SIGN_OF_LIFE)
        while True:
            if while_waiting is not None:
                while_waiting()
            left = max(look_at - time.monotonic(), SHORTEST_LOOK)
            if stop.wait(min(left, WHILE_WAITING)):
                raise WaitStoppedError("stopped while waiting for the request budget; nothing was sent")
            if time.monotonic() >= look_at:
                return

    def _tell_if_tight(self, seconds: float) -> None:
        if seconds > TIGHT * self._tempo and not self._is_tight:
            self._is_tight = True
            log.info(
                "The %d requests per %g s are used up, requests wait for their turn: this one about %.0f s",
                self.limit,
                self.period,
                seconds,
            )

    def _turn_in(self, ticket: _Ticket) -> float:
        """Seconds until it may be this ticket's turn, never more than it will be. Holds nobody up."""
        with self.store.read() as connection:
            ring = self._ring(connection)
            if ring is None:
                return 0.0
            return self._turn(connection, ticket, ring)[0] - ring.now

    def _take(self, ticket: _Ticket) -> Permit | float:
        """A permit, or the seconds until it may be this ticket's turn."""
        with self.store.write() as connection:
            ring = self._locked_ring(connection)
            turn_at, slot = self._turn(connection, ticket, ring)
            if turn_at > ring.now:
                return turn_at - ring.now
            connection.execute(
                sa.update(permits)
                .where(permits.c.key_id == self.key_id, permits.c.slot == slot.number)
                .values(
                    free_at=ring.now + self.lease + self.period,
                    holder=ticket.id,
                    priority=int(ticket.priority),
                )
            )
            if ticket.queued_at is not None:
                connection.execute(sa.delete(queue).where(queue.c.ticket == ticket.id))
            elif len(ring.taken) < self.limit / 2:
                self._is_tight = False
            return Permit(self, slot.number, ticket.id)

    def _turn(self, connection: sa.Connection, ticket: _Ticket, ring: _Ring) -> tuple[float, _Slot]:
        """When it is a ticket's turn at the earliest, and which permit it takes then."""
        waiting = self._waiting(connection, ring.now, ticket)
        ahead = self._ahead(ticket.priority, waiting, ring)
        slot = ring.slots[ahead % self.limit]
        turn_at = max(slot.free_at, ring.blocked_until) + (ahead // self.limit) * self.period
        if ticket.priority is Priority.PURCHASE:
            place = waiting.get(Priority.PURCHASE, (0, 0))[1]
            turn_at = max(turn_at, self._purchase_at(place, ahead, ring))
        return turn_at, slot

    def _ahead(self, mine: Priority, waiting: _Waiting, ring: _Ring) -> int:
        """How many of those who wait go before a ticket of this class."""
        least = int(self.limit * LEAST_SHARE)
        place = waiting.get(mine, (0, 0))[1]

        def urgent(other: Priority) -> int:
            """So many tickets of a class go before all others."""
            return max(0, least - ring.held(other))

        ahead = place
        for other, (count, _) in waiting.items():
            if other < mine:
                ahead += min(count, urgent(other)) if place < urgent(mine) else count
            elif other > mine and place >= urgent(mine):
                ahead += min(count, urgent(other))
        return ahead

    def _purchase_at(self, place: int, ahead: int, ring: _Ring) -> float:
        """When a purchase leaves enough for others, with so many purchases and requests in all before it."""
        held = [slot for slot in ring.taken if slot.priority is Priority.PURCHASE]
        if len(held) + place < int(self.limit * LEAST_SHARE):
            return ring.now
        share = max(1, int(self.limit * PURCHASE_SHARE))
        behind = place - (share - len(held))
        if behind < 0:
            has_share_at = ring.now
        elif behind < len(held):
            has_share_at = held[behind].free_at
        else:
            has_share_at = ring.now + self.period * (1 + (behind - len(held)) // share)
        last_taken = min(ahead + int(self.limit * FREE_SHARE), self.limit - 1)
        leaves_some_free_at = ring.slots[last_taken].free_at
        first = min((slot.used_at for slot in held), default=ring.now)
        free_for_all_at = max(ring.polled_until, first + FIRST_POLL * self._tempo)
        return min(max(has_share_at, leaves_some_free_at), free_for_all_at)

    # -------------------------------------------------------------- rows

    def _ring(self, connection: sa.Connection, *, locked: bool = False) -> _Ring | None:
        """The key's permits as of now; `None` where they have to be made or put right first."""
        query = sa.select(budgets).where(budgets.c.key_id == self.key_id)
        row = connection.execute(query.with_for_update() if locked else query).one_or_none()
        now = self.store.now(connection)
        rows = connection.execute(
            sa.select(permits.c.slot, permits.c.free_at, permits.c.holder, permits.c.priority).where(
                permits.c.key_id == self.key_id, permits.c.slot < self.limit
            )
        ).all()
        if row is None or len(rows) < self.limit or any(row.free_at > self._latest(now) for row in rows):
            return None
        return _Ring(
            now=now,
            slots=sorted((self._slot(permit, now) for permit in rows), key=lambda slot: slot.free_at),
            blocked_until=_unless_beyond(row.blocked_until, now + LONGEST_BLOCK),
            polled_until=_unless_beyond(row.polled_until, now + self.period),
            refusals=row.refusals,
        )

    def _locked_ring(self, connection: sa.Connection) -> _Ring:
        """The same, put right. Who else asks for it waits until the transaction ends."""
        while (ring := self._ring(connection, locked=True)) is None:
            self._put_right(connection)
        return ring

    def _latest(self, now: float) -> float:
        """No permit is free later than this, unless a clock was set back."""
        return now + self.lease + 2 * self.period

    def _put_right(self, connection: sa.Connection) -> None:
        budget = self.store.insert(budgets).values(key_id=self.key_id, blocked_until=0, refusals=0)
        connection.execute(budget.on_conflict_do_nothing())
        rows = [{"key_id": self.key_id, "slot": slot, "free_at": 0.0} for slot in range(self.limit)]
        connection.execute(self.store.insert(permits).values(rows).on_conflict_do_nothing())
        # A clock that was set back must not park a permit.
        now = self.store.now(connection)
        connection.execute(
            sa.update(permits)
            .where(permits.c.key_id == self.key_id, permits.c.free_at > self._latest(now))
            .values(free_at=now + self.lease + self.period, holder=None)
        )

    def _slot(self, row: Any, now: float) -> _Slot:
        priority = None if row.priority is None else Priority(row.priority)
        if row.holder is None:
            return _Slot(row.slot, row.free_at, row.free_at - self.period, priority)
        # In use, it comes back with its reply and is free one period later: no sooner, and rarely as late as
        # its lease would have it.
        return _Slot(
            row.slot, min(row.free_at, now + self.period), row.free_at - self.lease - self.period, priority
        )

    def _waiting(self, connection: sa.Connection, now: float, ticket: _Ticket | None = None) -> _Waiting:
        """By class, how many others wait, and how many of them came before this ticket."""
        patience = ABANDONED_AFTER * max(self._tempo, 1)
        came_at = now if ticket is None or ticket.queued_at is None else ticket.queued_at
        came_before = sa.func.sum(sa.case((queue.c.arrived_at < came_at, 1), else_=0))
        rows = connection.execute(
            sa.select(queue.c.priority, sa.func.count(), came_before)
            .where(
                queue.c.key_id == self.key_id,
                queue.c.ticket != ("" if ticket is None else ticket.id),
                queue.c.seen_at.between(now - patience, now + patience),
            )
            .group_by(queue.c.priority)
        )
        return {Priority(priority): (int(count), int(before)) for priority, count, before in rows}

    def _queue_up(self, ticket: _Ticket) -> None:
        """Takes a place in the queue, or gives a sign of life from there."""
        if ticket.queued_at is not None and time.monotonic() < ticket.next_sign:
            return
        ticket.next_sign = time.monotonic() + SIGN_OF_LIFE / 2
        with self.store.write() as connection:
            now = self.store.now(connection)
            if ticket.queued_at is None:
                ticket.queued_at = now
                self._drop_abandoned(connection, now)
            insert = self.store.insert(queue).values(
                ticket=ticket.id,
                key_id=self.key_id,
                priority=int(ticket.priority),
                arrived_at=ticket.queued_at,
                seen_at=now,
            )
            connection.execute(
                insert.on_conflict_do_update(index_elements=[queue.c.ticket], set_={"seen_at": now})
            )

    def _leave(self, ticket: _Ticket) -> None:
        with self.store.write() as connection:
            connection.execute(sa.delete(queue).where(queue.c.ticket == ticket.id))

    def _drop_abandoned(self, connection: sa.Connection, now: float) -> None:
        patience = ABANDONED_AFTER * max(self._tempo, 1)
        connection.execute(
            sa.delete(queue).where(
                queue.c.key_id == self.key_id,
                sa.not_(queue.c.seen_at.between(now - patience, now + patience)),
            )
        )


@dataclass
class _Ticket:
    """A place in the queue, or the wish for one."""

    priority: Priority
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    queued_at: float | None = None
    next_sign: float = 0.0


_Waiting = dict[Priority, tuple[int, int]]


@dataclass(frozen=True)
class _Slot:
    """A permit: when it is free again, when it was last used, and for what."""

    number: int
    free_at: float
    used_at: float
    priority: Priority | None


@dataclass(frozen=True)
class _Ring:
    """The permits of a key at a time, the first to be free first."""

    now: float
    slots: list[_Slot]
    blocked_until: float
    polled_until: float
    refusals: int

    @property
    def taken(self) -> list[_Slot]:
        return [slot for slot in self.slots if slot.free_at > self.now]

    def held(self, priority: Priority) -> int:
        """How many requests of a class the last period has seen."""
        return sum(slot.priority is priority for slot in self.taken)


def _unless_beyond(moment: float, latest: float) -> float:
    """A time that lies farther ahead than it can was noted by a clock that has been set back since."""
    return float(moment) if moment <= latest else 0.0
