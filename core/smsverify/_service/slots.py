"""The slots of a key in the store: when each is free again, who holds it, and the queue before them.

`turns` says who is next.
"""

from __future__ import annotations

import uuid
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from smsverify._runtime.clock import boottime
from smsverify._runtime.forking import PerProcess
from smsverify._runtime.heartbeats import Heartbeats
from smsverify._service.places import Place
from smsverify._service.turns import Priority, Sharing, Slot, Snapshot, Waiting
from smsverify._store.store import Store
from smsverify._store.tables import queue, rate_limits, slots, was_seen_lately
from smsverify.errors import StoreError
from smsverify.text import log_of

log = log_of(__name__)

# Seconds at time scale 1: by which the store may count a minute too short (`_store.steady` says why), in
# which a request without a reply may still reach the service, and for which one 429 is obeyed at the most.
MARGIN = 0.1
LATE = 2.0
LONGEST_BLOCK = 300.0
# A waiting request that has sent no heartbeat for this many seconds is dead, and leaves the queue.
ABANDONED_AFTER = 10.0
# Seconds between two heartbeats of a request that waits, and between two looks at the most, however far its
# turn is: if others need no more slots, many turns come at once.
HEARTBEAT_EVERY = 3.0

_HEARTBEATS: Final = PerProcess[Heartbeats[str]]()

# Of the key `key`, whose limit is `most`: a row whose number is not below the limit is left from another one.
OF_KEY = sa.and_(slots.c.key_id == sa.bindparam("key"), slots.c.slot < sa.bindparam("most"))
_LIMIT = sa.select(rate_limits).where(rate_limits.c.key_id == sa.bindparam("key"))
_LIMIT_LOCKED = _LIMIT.with_for_update()
_SLOTS = sa.select(slots.c.slot, slots.c.free_at, slots.c.lease, slots.c.holder, slots.c.priority).where(
    OF_KEY
)


@dataclass
class QueueEntry:
    """A request that waits for a slot, or would if it had to.

    Attributes:
        priority: goes before arrival.
        arrived_at: by the store's time; `None` before the first look.
        id: names the request, in the queue and as the holder of a slot.
        is_queued: whether the store's queue has it.
    """

    priority: Priority
    arrived_at: float | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    is_queued: bool = False


class Slots:
    """The slots of one key.

    Args:
        store: where they are.
        key_id: of the key.
        limit: how many there are.
        period: seconds of the service's window; a slot stays taken for a little longer after the reply.
        lease: seconds for which a request of this process holds a slot at the most, until its reply.
        sharing: how they are shared.
    """

    def __init__(
        self,
        store: Store,
        key_id: str,
        *,
        limit: int,
        period: float,
        lease: float,
        sharing: Sharing,
    ) -> None:
        self.period = period
        self.lease = lease
        self.pause = period * (1 + MARGIN / 60)  # from a reply until its slot is free
        self.late = LATE * period / 60
        self.longest_block = LONGEST_BLOCK * period / 60
        self._store = store
        self._key_id = key_id
        self._limit = limit
        self._sharing = sharing

    def snapshot(
        self, connection: sa.Connection, now: float | None = None, *, locked: bool = False
    ) -> Snapshot | None:
        """The slots as of now; `None` where they have to be made or repaired first.

        Args:
            connection: of a transaction.
            now: the store's time, where the caller has read it just now.
            locked: whether others who want to lock them wait until the transaction ends.
        """
        this = {"key": self._key_id, "most": self._limit}
        row = connection.execute(_LIMIT_LOCKED if locked else _LIMIT, this).one_or_none()
        read_at = boottime()
        now = self._store.now(connection) if now is None else now
        rows = connection.execute(_SLOTS, this).all()
        if (
            row is None
            or len(rows) < self._limit
            or any(row.free_at - row.lease > self.latest(now) for row in rows)
        ):
            return None
        return Snapshot(
            now=now,
            read_at=read_at,
            period=self.period,
            slots=sorted((self._slot(slot, now) for slot in rows), key=lambda slot: slot.free_at),
            blocked_until=self.obeyed(row.blocked_until, now),
            polled_until=_unless_beyond(row.polled_until, now + self.period),
            refusals=row.refusals,
            pauses=row.pauses,
            sharing=self._sharing,
        )

    def locked(self, connection: sa.Connection) -> Snapshot:
        """The slots as of now, repaired. Other callers wait until this transaction ends."""
        while (snapshot := self.snapshot(connection, locked=True)) is None:
            self._repair(connection)
        return snapshot

    def take(self, connection: sa.Connection, slot: Slot, entry: QueueEntry, now: float) -> None:
        """Gives a slot to a request until its lease is over."""
        connection.execute(
            sa.update(slots)
            .where(slots.c.key_id == self._key_id, slots.c.slot == slot.number)
            .values(
                free_at=now + self.lease + self.pause,
                lease=self.lease,
                holder=entry.id,
                priority=int(entry.priority),
            )
        )

    def free(self, number: int, holder: QueueEntry, *, after: float, is_used: bool = True) -> None:
        """Takes a slot from its holder; others may have it `after` seconds."""
        free_at = boottime() + after
        this = sa.and_(slots.c.key_id == self._key_id, slots.c.slot == number, slots.c.holder == holder.id)
        try:
            with self._store.write() as connection:
                # However long this had to wait for others to write, the period began with the reply. The
                # machine's clock is read before the store's, so that the slot is never free too early.
                after = free_at - boottime()
                values: dict[str, Any] = {"free_at": self._store.now(connection) + after, "holder": None}
                if not is_used:
                    values["priority"] = None
                is_freed = connection.execute(sa.update(slots).where(this).values(**values)).rowcount
                if not is_freed and is_used:
                    # The database goes on with an older state, which knows nothing of this request.
                    values["priority"] = int(holder.priority)
                    self._note_one_more(connection, values)
        except StoreError as error:
            # The reply matters more than the slot, which comes back by itself when its lease is over.
            log.warning("A request's slot stays taken for up to %.0f s: %s", self.lease, error)

    def _note_one_more(self, connection: sa.Connection, values: dict[str, Any]) -> None:
        """Puts a request on record that has no slot: in the first one that is free."""
        mine = sa.and_(slots.c.key_id == self._key_id, slots.c.slot < self._limit)
        first = (
            sa.select(slots.c.slot).where(mine, slots.c.holder.is_(None)).order_by(slots.c.free_at).limit(1)
        )
        this = sa.and_(mine, slots.c.slot == first.scalar_subquery())
        connection.execute(sa.update(slots).where(this).values(**values))

    def elsewhere(self, connection: sa.Connection) -> float | None:
        """The clock of the database; `None` where no other machine uses the slots.

        It goes on while this machine is paused, whatever becomes of the store's time by that. It may be set.
        """
        return None if self._store.is_sqlite else self._store.wall(connection)

    def has_passed_elsewhere(self, seconds: float, since: float) -> bool:
        """Whether the clock of the database has gone on by so much, or cannot be read."""
        try:
            with self._store.read() as connection:
                now = self._store.wall(connection)
        except StoreError as error:
            log.warning("The store does not say how long a request has had its slot: %s", error)
            return True
        return abs(now - since) > seconds

    def latest(self, now: float) -> float:
        """No slot is free later than this and its lease, unless the store is an old copy or the limit was
        another one.
        """
        return now + 2 * self.period

    def obeyed(self, blocked_until: float, now: float) -> float:
        """Until when a 429 is obeyed."""
        return _unless_beyond(blocked_until, now + self.longest_block)

    def _repair(self, connection: sa.Connection) -> None:
        rate_limit = self._store.insert(rate_limits).values(key_id=self._key_id, blocked_until=0, refusals=0)
        connection.execute(rate_limit.on_conflict_do_nothing())
        rows = [{"key_id": self._key_id, "slot": slot, "free_at": 0.0} for slot in range(self._limit)]
        connection.execute(self._store.insert(slots).values(rows).on_conflict_do_nothing())
        # An old copy of the store, or a clock that was set while no process looked, must not block a slot.
        now = self._store.now(connection)
        connection.execute(
            sa.update(slots)
            .where(slots.c.key_id == self._key_id, slots.c.free_at - slots.c.lease > self.latest(now))
            .values(free_at=now + slots.c.lease + self.pause, holder=None)
        )

    def _slot(self, row: Any, now: float) -> Slot:
        priority = None if row.priority is None else Priority(row.priority)
        if row.holder is None:
            return Slot(row.slot, row.free_at, row.free_at - self.pause, priority)
        # A slot in use comes back with its reply and is free one period later: no sooner, and rarely as late
        # as its lease would have it.
        free_at = min(row.free_at, now + self.pause)
        return Slot(row.slot, free_at, row.free_at - row.lease - self.pause, priority)


class HeldSlot:
    """The right to send one request.

    Args:
        slots: of the key.
        number: of the slot.
        holder: the request.
        taken_at: `boottime()` at which it was taken, or a little before.
        elsewhere: what `Slots.elsewhere` was then.
        begin_within: seconds after that within which the request has to leave.
        pauses: see `Snapshot`, as of then.
    """

    def __init__(
        self,
        slots: Slots,
        number: int,
        holder: QueueEntry,
        *,
        taken_at: float,
        elsewhere: float | None,
        begin_within: float,
        pauses: int,
    ) -> None:
        self.taken_at = taken_at
        self.pauses = pauses
        self._elsewhere = elsewhere
        self._slots = slots
        self._number = number
        self._holder = holder
        self._begin_within = begin_within
        self._is_released = False

    def may_begin(self) -> bool:
        """Whether a request that begins to leave now will be over within the lease.

        Where it will not, another request may have the slot by the time that the service counts this one: it
        must not be sent. Call `release_unused`, and acquire another slot `instead_of` this one.
        """
        # A virtual machine that was paused has not counted that by its own clock.
        if self._elsewhere is not None and self._slots.has_passed_elsewhere(
            self._begin_within, self._elsewhere
        ):
            return False
        return boottime() - self.taken_at <= self._begin_within

    @property
    def arrived_at(self) -> float | None:
        """The store's time at which its holder came."""
        return self._holder.arrived_at

    def release(self, *, is_answered: bool) -> None:
        """Frees the slot one period after the service has counted the request: by now if it has answered,
        otherwise a little later.
        """
        if self._is_released:
            return
        self._is_released = True
        after = self._slots.pause + (0.0 if is_answered else self._slots.late)
        self._slots.free(self._number, self._holder, after=after)

    def release_unused(self) -> None:
        """Frees the slot at once, because nothing was sent."""
        self._is_released = True
        self._slots.free(self._number, self._holder, after=0.0, is_used=False)


class Queue:
    """The requests of one key that wait for a slot, of all processes.

    Args:
        store: where the queue is.
        key_id: of the key.
        time_scale: how long the service's minute is in minutes.
    """

    def __init__(self, store: Store, key_id: str, *, time_scale: float) -> None:
        self._store = store
        self._key_id = key_id
        self.patience = ABANDONED_AFTER * max(time_scale, 1)

    def waiting(
        self, connection: sa.Connection, now: float, entry: QueueEntry | None = None
    ) -> dict[Priority, Waiting]:
        """By class, how many others wait, since when, and how many of them came before this entry."""
        arrived_at = now if entry is None or entry.arrived_at is None else entry.arrived_at
        came_before = sa.func.sum(sa.case((queue.c.arrived_at < arrived_at, 1), else_=0))
        rows = connection.execute(
            sa.select(queue.c.priority, sa.func.count(), came_before, sa.func.min(queue.c.arrived_at))
            .where(
                queue.c.key_id == self._key_id,
                queue.c.entry != ("" if entry is None else entry.id),
                self._is_alive(now),
            )
            .group_by(queue.c.priority)
        )
        return {
            Priority(priority): Waiting(int(count), int(before), first_at)
            for priority, count, before, first_at in rows
        }

    def stand(self, entry: QueueEntry) -> None:
        """Enters the queue, or sends a heartbeat where one is due."""
        if not (entry.is_queued and self._heartbeats.send(entry.id)):
            self._enter(entry)
            self._heartbeats.begin(entry.id)

    def no_longer_stands(self, entry: QueueEntry) -> None:
        """The thread sends no more heartbeats for this entry: it is gone, or another keeps it."""
        self._heartbeats.end(entry.id)

    def keep(self, connection: sa.Connection, places: Sequence[Place], now: float) -> None:
        """Sends heartbeats for places whose holders are away, in the caller's transaction."""
        if not places:
            return
        rows = [
            {"entry": place.id, "arrived_at": place.arrived_at, "key_id": self._key_id, "seen_at": now}
            | {"priority": int(Priority.PURCHASE)}
            for place in places
        ]
        insert = self._store.insert(queue)
        seen = insert.on_conflict_do_update(index_elements=[queue.c.entry], set_={"seen_at": now})
        connection.execute(seen, rows)

    def around(
        self, connection: sa.Connection, now: float, places: Sequence[Place]
    ) -> dict[str, dict[Priority, Waiting]]:
        """For each of these places, the others that wait, as `waiting` has them for one."""
        rows = connection.execute(
            sa.select(queue.c.priority, queue.c.arrived_at)
            .where(queue.c.key_id == self._key_id, self._is_alive(now))
            .order_by(queue.c.arrived_at)
        ).all()
        arrived: dict[Priority, list[float]] = {Priority.PURCHASE: []}
        for row in rows:
            arrived.setdefault(Priority(row.priority), []).append(row.arrived_at)
        return {
            place.id: {
                priority: Waiting(
                    len(others) - (priority is Priority.PURCHASE), bisect_left(others, place.arrived_at)
                )
                for priority, others in arrived.items()
            }
            for place in places
        }

    def leave(self, connection: sa.Connection, entry: QueueEntry) -> None:
        """Takes an entry out of the queue, in the caller's transaction."""
        connection.execute(sa.delete(queue).where(queue.c.entry == entry.id))

    @property
    def _heartbeats(self) -> Heartbeats[str]:
        name = f"{self._store.name_here} {self._key_id}"
        return _HEARTBEATS.get(name, lambda: Heartbeats(HEARTBEAT_EVERY, self._note_alive))

    def _enter(self, entry: QueueEntry) -> None:
        """Puts an entry into the queue, at its place. One that comes drops the entries of the dead."""
        with self._store.write() as connection:
            now = self._store.now(connection)
            if not entry.is_queued:
                entry.is_queued = True
                entry.arrived_at = now if entry.arrived_at is None else entry.arrived_at
                dead = sa.and_(queue.c.key_id == self._key_id, sa.not_(self._is_alive(now)))
                connection.execute(sa.delete(queue).where(dead))
            insert = self._store.insert(queue).values(
                entry=entry.id,
                key_id=self._key_id,
                priority=int(entry.priority),
                arrived_at=entry.arrived_at,
                seen_at=now,
            )
            connection.execute(
                insert.on_conflict_do_update(index_elements=[queue.c.entry], set_={"seen_at": now})
            )

    def _note_alive(self, entries: Collection[str]) -> Collection[str]:
        """Writes heartbeats of entries of this process; returns those that are in the queue."""
        # Another transaction that has locked one of them drops it, or writes its heartbeat.
        mine = sa.select(queue.c.entry).where(queue.c.entry.in_(entries)).with_for_update(skip_locked=True)
        seen = sa.update(queue).where(queue.c.entry.in_(mine)).returning(queue.c.entry)
        with self._store.write() as connection:
            now = self._store.now(connection)
            return connection.execute(seen.values(seen_at=now)).scalars().all()

    def _is_alive(self, now: float) -> sa.ColumnElement[bool]:
        return was_seen_lately(queue.c.seen_at, now, self.patience)


def _unless_beyond(moment: float, latest: float) -> float:
    """A moment that is farther ahead than it can be comes from an old copy of the store, or from a clock that
    was set while no process looked.
    """
    return float(moment) if moment <= latest else 0.0
