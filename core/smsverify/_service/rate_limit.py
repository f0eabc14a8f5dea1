"""The account's requests per minute, shared by every process and host that uses the same store.

The rate limit of a key is `limit` slots. A request acquires a slot just before it leaves, and releases it
when the reply is there. The slot is free again one period later, and a little more, since two clocks are
never quite the same. The service has counted the request no later than its reply, so none of its windows ever
holds more requests than there are slots, however slow the network was. When a holder dies, its slot stays
taken for one lease.

Nothing is booked ahead: a request that has to wait stands in a queue in the store, and `turns` says whose
turn it is. A cancellation never waits behind purchases that came earlier.

After a 429, all who share the key wait for as long as the service asks, but for no longer than five of its
minutes: a service that wants a longer pause answers 429 again. Then one request tries whether the service
accepts it. If not, the next pause is twice as long where the service asks for none. A request that is refused
keeps its place in the queue.
"""

from __future__ import annotations

import contextlib
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from smsverify._service import places
from smsverify._service.places import Place, TurnIsFar
from smsverify._service.slots import HEARTBEAT_EVERY, OF_KEY, HeldSlot, Queue, QueueEntry, Slots
from smsverify._service.turns import Priority, Sharing, Snapshot, Waiting
from smsverify._store.parameters import NOW
from smsverify._store.store import Store
from smsverify._store.tables import queue, rate_limits, slots, was_seen_lately
from smsverify.errors import RateLimitedError, StoreError, WaitStoppedError
from smsverify.metrics import QUEUE_AGE, QUEUE_LENGTH, REFUSALS, Meter
from smsverify.text import log_of

__all__ = ["HeldSlot", "Load", "Priority", "RateLimit", "RateLimitState", "Traffic"]

log = log_of(__name__)

# Seconds at time scale 1: the shortest and the longest time between two looks at the queue, and a wait for a
# slot that is worth a line in the log.
SHORTEST_LOOK = 0.01
LONGEST_LOOK = 2.0
LONG_WAIT = 5.0
# Seconds at time scale 1, doubled with every failure.
BACKOFF_BASE = 0.5
BACKOFF_MAX = 30.0
MOST_DOUBLINGS = 10  # a number of failures has no end, a float has
WHILE_WAITING = 1.0  # seconds between two calls of what a caller wants to do while it waits
MOST_REFUSALS = 2**31 - 1  # that the database can count


def _traffic() -> sa.Select[Any]:
    """The requests of a key: a row for each class that waits, and at least one."""
    key = sa.bindparam("key", type_=sa.Text)
    patience = sa.bindparam("patience", type_=sa.Double)
    sent = sa.select(sa.func.count()).where(
        OF_KEY,
        slots.c.free_at > NOW,
        slots.c.free_at - slots.c.lease <= sa.bindparam("latest", type_=sa.Double),
    )
    waiting = (
        sa.select(queue.c.priority, sa.func.count().label("waiting"))
        .where(queue.c.key_id == key, was_seen_lately(queue.c.seen_at, NOW, patience))
        .group_by(queue.c.priority)
        .subquery()
    )
    return (
        sa.select(
            rate_limits.c.blocked_until,
            rate_limits.c.refusals,
            sent.scalar_subquery().label("sent"),
            waiting,
        )
        .outerjoin_from(rate_limits, waiting, sa.true())
        .where(rate_limits.c.key_id == key)
        .order_by(waiting.c.priority)
    )


_TRAFFIC = _traffic()


def backoff(failures: int, time_scale: float) -> float:
    """Seconds of a pause that the service has not asked for, after so many failures before the last one."""
    longest: float = min(BACKOFF_BASE * 2.0 ** min(failures, MOST_DOUBLINGS), BACKOFF_MAX)
    return time_scale * longest * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)


@dataclass(frozen=True)
class RateLimitState:
    """What is left of the account's requests per minute.

    Attributes:
        limit: requests allowed in `period` seconds.
        period: seconds.
        available: requests that could be sent now.
        waiting: requests that wait for their turn, of all processes.
        blocked_until: UTC; no request is sent before, because the service limits the rate. Otherwise `None`.
        refusals: how often the service has refused a request for its rate so far.
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
        releases: requests that give money back, and reads of codes that are known to be there.
        reads: other reads, without polls.
        purchases: requests that spend money.
        purchases_waiting: requests that wait to spend money.
        free_in: seconds until each slot is free, the first one first.
    """

    releases: int
    reads: int
    purchases: int
    purchases_waiting: int
    free_in: Sequence[float] = ()


@dataclass(frozen=True)
class Traffic:
    """The requests of the last period.

    Attributes:
        sent: how many.
        waiting: by the name of a priority, how many wait for their turn.
        blocked_until, refusals: as in `RateLimitState`.
    """

    sent: int
    waiting: dict[str, int]
    blocked_until: datetime | None
    refusals: int


@dataclass(frozen=True)
class KeyRefusal:
    """The service refuses an API key.

    Attributes:
        at: when it has, by the store's clock.
        text: what it says.
    """

    at: float
    text: str


class RateLimit:
    """The rate limit of one API key.

    Args:
        store: where all who use the key meet.
        key_id: names the key without showing it.
        limit: requests in `period`.
        period: seconds.
        lease: seconds that a request may take at the most, from its slot to its reply.
        begin_within: seconds from its slot within which a request must begin to leave; the lease by default.
        sharing: how purchases, polls and codes share the requests.
        meter: counts refusals, and measures the queue.
    """

    def __init__(
        self,
        store: Store,
        key_id: str,
        *,
        limit: int,
        period: float,
        lease: float,
        begin_within: float | None = None,
        sharing: Sharing | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._meter = meter or Meter()
        self.store = store
        self.limit = limit
        self.period = period
        self.sharing = sharing or Sharing()
        self._begin_within = lease if begin_within is None else begin_within
        self._time_scale = period / 60
        self._slots = Slots(store, key_id, limit=limit, period=period, lease=lease, sharing=self.sharing)
        self._queue = Queue(store, key_id, time_scale=self._time_scale)
        self._key_id = key_id
        self._row = rate_limits.c.key_id == key_id
        self._is_tight = False

    @contextmanager
    def acquire(
        self,
        priority: Priority,
        *,
        deadline: float,
        stop: threading.Event | None = None,
        while_waiting: Callable[[], None] | None = None,
        instead_of: HeldSlot | None = None,
    ) -> Iterator[HeldSlot]:
        """Waits for the request's turn, gives it a slot, and releases the slot at the end.

        Args:
            priority: goes before arrival.
            deadline: `time.monotonic()` by which the request must have its turn.
            stop: ends the waiting when it is set.
            while_waiting: called about once a second; what it raises ends the waiting.
            instead_of: a slot that was released unused, because its request came too late for it. The request
                waits at the place in the queue that it had.

        Raises:
            RateLimitedError: the turn cannot come before the deadline; nothing was sent.
            WaitStoppedError: `stop` was set.
            StoreError: the store cannot be used; nothing was sent.
            TurnIsFar: the caller leaves the queue (`places.leaving_queue`), and keeps its place.
        """
        entry = QueueEntry(priority, arrived_at=None if instead_of is None else instead_of.arrived_at)
        away = places.leaving() if priority is Priority.PURCHASE else None
        if away is not None and away.place is not None:
            entry = QueueEntry(priority, away.place.arrived_at, away.place.id, is_queued=True)
        beyond = math.inf if away is None else away.beyond
        slot = self._wait_for_turn(entry, deadline, stop or threading.Event(), while_waiting, beyond)
        if away is not None:
            away.had_turn()
        try:
            yield slot
        except BaseException:
            slot.release(is_answered=False)
            raise
        slot.release(is_answered=True)

    def keep(self, kept: Sequence[Place]) -> dict[str, float]:
        """Sends heartbeats for places of purchases whose holders are away.

        Returns:
            in how many seconds each of them has its turn at the earliest, by its id.
        """
        with self.store.write() as connection:
            self._queue.keep(connection, kept, self.store.now(connection))
            snapshot = self._slots.snapshot(connection)
            if snapshot is None:
                return {place.id: 0.0 for place in kept}
            others = self._queue.around(connection, snapshot.now, kept)
        turns = {place.id: snapshot.earliest(Priority.PURCHASE, others[place.id]) for place in kept}
        return {name: turn_at - snapshot.now for name, turn_at in turns.items()}

    def codes_are_polled_for(self, connection: sa.Connection, polled: bool = True) -> None:
        """Whether codes are read by polls from now on, so that purchases have to leave slots for them.

        Part of the caller's transaction. It counts for one period.
        """
        now = self.store.now(connection)
        until = now + self.period if polled else now
        connection.execute(sa.update(rate_limits).where(self._row).values(polled_until=until))

    def load(self) -> Load:
        """What the requests of the last period were for, and how many purchases wait."""
        with self.store.read() as connection:
            snapshot = self._slots.snapshot(connection)
            if snapshot is None:
                return Load(0, 0, 0, 0)
            waiting = self._queue.waiting(connection, snapshot.now)
        return Load(
            releases=snapshot.held(Priority.RELEASE),
            reads=snapshot.held(Priority.READ),
            purchases=snapshot.held(Priority.PURCHASE),
            purchases_waiting=waiting.get(Priority.PURCHASE, Waiting()).count,
            free_in=[max(slot.free_at - snapshot.now, 0.0) for slot in snapshot.slots],
        )

    def block(self, seconds: float) -> None:
        """Makes all who share the key wait, because the service has refused a request for its rate.

        Args:
            seconds: that the service asks for; 0 where it does not say. Then the pauses become longer, until
                it has accepted a request.
        """
        with self.store.write() as connection:
            snapshot = self._slots.locked(connection)
            # A request that was under way when the pause began makes no further one.
            pauses = snapshot.pauses + (not snapshot.is_blocked)
            seconds = max(seconds, backoff(pauses - 1, self._time_scale))
            seconds = min(seconds, self._slots.longest_block)
            until = snapshot.now + seconds
            one_more = sa.update(rate_limits).where(self._row, rate_limits.c.refusals < MOST_REFUSALS)
            connection.execute(one_more.values(refusals=rate_limits.c.refusals + 1))
            values = {"blocked_until": max(until, snapshot.blocked_until), "pauses": pauses}
            connection.execute(sa.update(rate_limits).where(self._row).values(values))
        self._meter.count(REFUSALS)
        if until - snapshot.blocked_until > seconds / 2:  # not for each request that was under way
            log.warning(
                "The service limits the rate: all who share this API key send nothing before %s (for %.1f s)",
                f"{self.store.utc(until):%Y-%m-%d %H:%M:%S} UTC",
                seconds,
            )

    def note_accepted(self, slot: HeldSlot) -> None:
        """The service has accepted the request of this slot: the next pause is as short as the first one."""
        if slot.pauses:
            # A request that was refused since then has made another pause.
            is_last = sa.and_(self._row, rate_limits.c.pauses == slot.pauses)
            with self.store.write() as connection:
                connection.execute(sa.update(rate_limits).where(is_last).values(pauses=0))

    def note_key(self, connection: sa.Connection, refusal: KeyRefusal | None) -> None:
        """Records that the service refuses the key, or accepts it again. Part of the caller's transaction."""
        at, text = (None, None) if refusal is None else (refusal.at, refusal.text)
        values = {"key_refused_at": at, "key_refusal": text}
        connection.execute(sa.update(rate_limits).where(self._row).values(values))

    def key_refusal(self, connection: sa.Connection) -> KeyRefusal | None:
        """The refusal of the key; `None` if the service accepts it, as far as is known."""
        query = sa.select(rate_limits.c.key_refused_at, rate_limits.c.key_refusal).where(
            self._row, rate_limits.c.key_refused_at.is_not(None)
        )
        row = connection.execute(query).one_or_none()
        return None if row is None else KeyRefusal(row.key_refused_at, row.key_refusal)

    def state(self) -> RateLimitState:
        """What is left, as of now."""
        with self.store.write() as connection:
            snapshot = self._slots.locked(connection)
            waiting = self._queue.waiting(connection, snapshot.now)
        return RateLimitState(
            limit=self.limit,
            period=self.period,
            available=0 if snapshot.is_blocked else snapshot.limit - len(snapshot.taken),
            waiting=sum(one.count for one in waiting.values()),
            blocked_until=self.store.utc(snapshot.blocked_until) if snapshot.is_blocked else None,
            refusals=snapshot.refusals,
        )

    def traffic(self, connection: sa.Connection, now: float) -> Traffic:
        """The requests of the last period until `now`, of all processes. Writes nothing."""
        values = {
            "key": self._key_id,
            "now": now,
            "most": self.limit,
            "latest": self._slots.latest(now),
            "patience": self._queue.patience,
        }
        rows = connection.execute(_TRAFFIC, values).all()
        if not rows:
            return Traffic(0, {}, None, 0)
        one = rows[0]
        blocked_until = self._slots.obeyed(one.blocked_until, now)
        return Traffic(
            sent=one.sent,
            waiting={
                Priority(row.priority).name.lower(): row.waiting for row in rows if row.priority is not None
            },
            blocked_until=self.store.utc(blocked_until) if now < blocked_until else None,
            refusals=one.refusals,
        )

    # -------------------------------------------------------------- the turn

    def _wait_for_turn(
        self,
        entry: QueueEntry,
        deadline: float,
        stop: threading.Event,
        while_waiting: Callable[[], None] | None,
        beyond: float,
    ) -> HeldSlot:
        def stay() -> None:
            self._queue.stand(entry)
            if while_waiting is not None:
                while_waiting()

        try:
            while True:
                turn = self._look(entry)
                if turn.seconds <= 0:
                    taken = self._take(entry)
                    if isinstance(taken, HeldSlot):
                        return taken
                    turn = taken
                if turn.earliest > beyond:
                    self._queue.stand(entry)
                    raise TurnIsFar(Place(entry.id, entry.arrived_at or 0.0), turn.earliest)
                left = deadline - time.monotonic()
                if turn.earliest > left:
                    seconds = min(turn.seconds, turn.earliest + LONGEST_LOOK * self._time_scale)
                    raise RateLimitedError(
                        f"nothing was sent, because no request may leave for another {seconds:.1f} s: "
                        f"{turn.reason}",
                        retry_after=seconds,
                    )
                self._log_if_tight(turn)
                # The turn may come sooner if others give up. The farther away it is, the less that matters.
                longest = max(turn.earliest / 4, LONGEST_LOOK * self._time_scale)
                self._sleep(min(turn.seconds, longest, HEARTBEAT_EVERY, left), stop, stay)
        except TurnIsFar:
            raise  # its place is kept
        except BaseException:
            if entry.is_queued:
                # An entry that cannot be taken out of the queue is dropped as abandoned later.
                with contextlib.suppress(StoreError), self.store.write() as connection:
                    self._queue.leave(connection, entry)
            raise
        finally:
            self._queue.no_longer_stands(entry)

    def _sleep(self, seconds: float, stop: threading.Event, stay: Callable[[], None]) -> None:
        look_at = time.monotonic() + seconds
        while True:
            stay()
            left = max(look_at - time.monotonic(), SHORTEST_LOOK)
            if stop.wait(min(left, WHILE_WAITING)):
                raise WaitStoppedError(
                    "stopped while waiting for the rate limit. Nothing was sent: call it again"
                )
            if time.monotonic() >= look_at:
                return

    def _log_if_tight(self, turn: _Turn) -> None:
        if turn.earliest > LONG_WAIT * self._time_scale and not self._is_tight:
            self._is_tight = True
            log.info("Requests wait for their turn, this one about %.0f s: %s", turn.earliest, turn.reason)

    def _look(self, entry: QueueEntry) -> _Turn:
        """The earliest time at which it may be this entry's turn. Keeps no other caller waiting."""
        with self.store.read() as connection:
            snapshot = self._slots.snapshot(connection)
            if snapshot is None:
                return _Turn(0.0, 0.0, "")
            waiting = self._queue.waiting(connection, snapshot.now, entry)
        turn = self._turn(snapshot, entry.priority, waiting)
        if turn.seconds > 0 and not entry.is_queued:
            self._measure_queue(waiting, snapshot.now, joining=1)
        return turn

    def _take(self, entry: QueueEntry) -> HeldSlot | _Turn:
        """A slot, or when it may be this entry's turn."""
        with self.store.write() as connection:
            snapshot = self._slots.locked(connection)
            waiting = self._queue.waiting(connection, snapshot.now, entry)
            turn_at, slot = snapshot.turn(entry.priority, waiting)
            if turn_at > snapshot.now:
                return self._turn(snapshot, entry.priority, waiting)
            elsewhere = self._slots.elsewhere(connection)
            self._slots.take(connection, slot, entry, snapshot.now)
            if entry.is_queued:
                self._queue.leave(connection, entry)
            elif len(snapshot.taken) < self.limit / 2:
                self._is_tight = False
            if entry.arrived_at is None:
                entry.arrived_at = snapshot.now
        self._measure_queue(waiting, snapshot.now)
        return HeldSlot(
            self._slots,
            slot.number,
            entry,
            taken_at=snapshot.read_at,
            elsewhere=elsewhere,
            begin_within=self._begin_within,
            pauses=snapshot.pauses,
        )

    def _measure_queue(self, waiting: Mapping[Priority, Waiting], now: float, *, joining: int = 0) -> None:
        """Reports the queue, each time that a request enters it or has its turn."""
        self._meter.gauge(QUEUE_LENGTH, sum(one.count for one in waiting.values()) + joining)
        first_at = min((one.first_at for one in waiting.values()), default=now)
        self._meter.gauge(QUEUE_AGE, max(now - first_at, 0.0))

    def _turn(self, snapshot: Snapshot, mine: Priority, waiting: Mapping[Priority, Waiting]) -> _Turn:
        turn_at, earliest = snapshot.turn(mine, waiting)[0], snapshot.earliest(mine, waiting)
        reason = f"the {self.limit} requests per {self.period:g} s are used up"
        if snapshot.is_blocked:
            reason = (
                f"the service asked for silence until {self.store.utc(snapshot.blocked_until):%H:%M:%S} UTC"
            )
        elif turn_at > earliest:
            reason = "after a refusal, requests leave one by one until the service accepts one"
        return _Turn(turn_at - snapshot.now, max(earliest - snapshot.now, 0.0), reason)


@dataclass(frozen=True)
class _Turn:
    """In how many seconds it is a request's turn as things are, at the earliest, and why not sooner."""

    seconds: float
    earliest: float
    reason: str
