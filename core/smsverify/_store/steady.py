"""The time that all users of a store share, for durations: it goes on evenly, even when a clock is set.

It looks like seconds since 1970, but it is not the calendar: it begins with the calendar, and does not follow
when the calendar is set. How it is kept depends on where the store is.

On one machine it is the machine's own uptime plus an offset, a row of the store that is made once for each
start of the machine: from the calendar, but never before anything that is on record. Some containers have a
name of their own for that start, or none. They go on with the time of another name, where its row is of the
last minute, or where the calendar has gone on since as the uptime has. A row that is older than the start of
the machine, by the calendar, is of an earlier start.

In a database that several machines use it is the database's clock plus a shift, a row of the store. Every
process compares what that clock did between two of its looks with what its own machine's uptime did; where
the two differ by more than clocks do, the database's clock was set, and the first process that sees it
corrects the shift for all. For short-lived processes, each machine has a row with a recent look. A step that
happens while no process runs is not seen.

A machine's uptime (`_runtime.clock.boottime`) is that of its own oscillator. NTP slews the system's other
clocks and that of the database, by up to a twelfth, but not this one. It never counts more time than has
passed, except for the oscillator's error, some 100 microseconds in a second. What two clocks may differ by
hides a step of 0.05 s in a minute, so the slots of the rate limit stay taken for a tenth of a second longer.

An uptime counts less time than has passed where a virtual machine was paused or copied. So a database that
seems to be ahead may be right. The rows say since when each machine has counted evenly: one that has counted
more since a moment than this machine has proves that this one was paused, and nothing is corrected. A
correction that was made stays, right or wrong. To undo it would make all that was put on record meanwhile too
old, and free what is in use.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from smsverify._runtime.clock import DAY, boot_id, boottime
from smsverify._store.tables import accounts, clocks, looks, orders, purchases, queue, shifts, slots, waits
from smsverify.errors import StoreError
from smsverify.text import log_of

log = log_of(__name__)

NOTE_PAUSE = 30.0  # seconds between two notes of what the time is
FORGOTTEN_AFTER = 30 * DAY  # seconds after which a machine that is not seen any more is gone
# By how much two clocks that are not set may differ: seconds, and seconds in each of them.
STEP = 0.02
DRIFT = 5e-4
# A look is what later ones are compared with for so many seconds; for a longer time where the next ones took
# long, since how the clocks stood is less certain then.
BASE_AGE = 60.0
OLDEST_BASE = 600.0
SHORT_LOOK = 0.1
# How far one of a machine's looks may lie after the one before for it to have counted evenly: then a step is
# hidden by what clocks may drift only if it is shorter than a second.
LONGEST_GAP = 1200.0
HIDDEN = 1.0
LOG_PAUSE = 60.0  # seconds between two log lines about corrections of less than LARGE_STEP seconds
LARGE_STEP = 1.0
CORRECTIONS = 5  # that one look waits for at the most, its own or those of others

# Moments that are past when they are put on record; among them is the latest one that any row has.
_RECORDED = (
    clocks.c.steady,
    accounts.c.asked_at,
    purchases.c.sent_at,
    purchases.c.resolved_at,
    orders.c.first_seen_at,
    looks.c.status_at,
    waits.c.seen_at,
    queue.c.seen_at,
)


class Time(Protocol):
    """The time of a store."""

    def find(self, connection: sa.Connection) -> bool:
        """Learns the time of a store that is opened; `False` where it has to begin first."""

    def begin(self, connection: sa.Connection) -> None:
        """Lets it begin or go on, in a transaction that writes, where `find` was `False`."""

    def note(self, connection: sa.Connection) -> None:
        """Records the time now and then, at the end of a transaction that writes."""

    def forget(self) -> None:
        """Lets go of what a fork must not share with its parent."""

    def now(self, connection: sa.Connection) -> float:
        """The time."""

    def column(self) -> sa.ColumnElement[float]:
        """The time as a column."""

    def wall(self, connection: sa.Connection) -> float:
        """The calendar."""

    def as_wall(self, moment: float) -> float:
        """When a moment was, by the calendar as it is set now."""


class MachineTime:
    """The time of a store that one machine uses."""

    def __init__(self) -> None:
        self._boot = boot_id()
        self._offset = 0.0
        self._next_note = 0.0

    def find(self, connection: sa.Connection) -> bool:
        """Finds the offset; `False` where the machine has started since it was made."""
        row = connection.execute(sa.select(clocks).where(clocks.c.boot == self._boot)).one_or_none()
        if row is None or row.boottime > boottime():
            return False
        self._offset = row.steady - row.boottime
        self._next_note = row.boottime + NOTE_PAUSE
        return True

    def begin(self, connection: sa.Connection) -> None:
        """Makes the offset: from the calendar, but nothing that is on record lies ahead."""
        if self.find(connection):
            return
        moments = (sa.select(sa.func.max(column)).scalar_subquery() for column in _RECORDED)
        last = max(moment or 0.0 for moment in connection.execute(sa.select(*moments)).one())
        uptime = boottime()
        now = self._by_another_name(connection, uptime)
        if now is None or now < last:
            now = max(last, time.time())
            # It is not known how long the machine was off: what was sent before may have been sent just now.
            later = sa.update(slots).where(slots.c.free_at > last)
            connection.execute(later.values(free_at=slots.c.free_at + (now - last)))
        is_old = sa.or_(clocks.c.boot == self._boot, clocks.c.steady < now - FORGOTTEN_AFTER)
        connection.execute(sa.delete(clocks).where(is_old))
        self._offset = now - uptime
        self._put_down(connection, uptime)

    def note(self, connection: sa.Connection) -> None:
        """Notes it in the transaction, which has the database to itself."""
        uptime = boottime()
        if uptime >= self._next_note:
            self._put_down(connection, uptime)

    def _put_down(self, connection: sa.Connection, uptime: float) -> None:
        """Another name may have removed the row of a machine that was idle for long."""
        self._next_note = uptime + NOTE_PAUSE
        now = uptime + self._offset
        values = {"boottime": uptime, "steady": now}
        row = sqlite_insert(clocks).values(boot=self._boot, since=now, version=0, **values)
        connection.execute(row.on_conflict_do_update(index_elements=[clocks.c.boot], set_=values))

    def _by_another_name(self, connection: sa.Connection, uptime: float) -> float | None:
        """The time of a process that has another name for this start of the machine; `None` where none has.

        If the machine has started anew after all, this misses the time that it was off: it never counts too
        much.
        """
        rows = connection.execute(sa.select(clocks).where(clocks.c.boot != self._boot)).all()
        times = (row.steady + uptime - row.boottime for row in rows if _is_of_this_start(row, uptime))
        return max(times, default=None)

    def forget(self) -> None:
        """There is nothing of that kind."""

    def now(self, connection: sa.Connection) -> float:
        """The machine's uptime, from the offset on."""
        return boottime() + self._offset

    def column(self) -> sa.ColumnElement[float]:
        """The same, as of each execution."""
        return sa.bindparam(None, callable_=lambda: boottime() + self._offset, type_=sa.Double)

    def wall(self, connection: sa.Connection) -> float:
        """The machine's calendar."""
        return time.time()

    def as_wall(self, moment: float) -> float:
        """Reckoned back from now."""
        return moment - boottime() - self._offset + time.time()


def _is_of_this_start(row: Any, uptime: float) -> bool:
    """Whether a row is of the last minute, or the calendar has gone on since then as the uptime has.

    An earlier start has rows of the same uptimes. By the calendar they are older than this start.
    """
    passed, age = uptime - row.boottime, time.time() - row.steady
    if passed < 0:
        return False
    is_recent = passed <= 2 * NOTE_PAUSE and age < uptime
    return bool(is_recent or abs(age - passed) <= HIDDEN + DRIFT * passed)


@dataclass(frozen=True)
class _Look:
    """What a process saw when it looked at the database's clock.

    Attributes:
        before, after: the machine's uptime before and after the look.
        database: what the database's clock said in between.
        version, shift: what that is corrected by, and how often it has been.
    """

    before: float
    after: float
    database: float
    version: int
    shift: float

    @property
    def steady(self) -> float:
        """The store's time."""
        return self.database + self.shift

    @property
    def is_short(self) -> bool:
        """Whether it shows well how the two clocks stood."""
        return self.after - self.before <= SHORT_LOOK

    def is_even_with(self, base: _Look) -> bool:
        """Whether the store's time has gone on since an earlier look as the machine's has."""
        passed = self.steady - base.steady
        most = self.after - base.before
        return not self.is_behind(base) and passed <= most + STEP + DRIFT * abs(most)

    def is_behind(self, base: _Look) -> bool:
        """Whether the store's time has fallen behind the machine's since an earlier look."""
        least, most = self.before - base.after, self.after - base.before
        return self.steady - base.steady < least - STEP - DRIFT * abs(most)

    def corrected_by(self, base: _Look) -> _Look:
        """The same look at a time that has gone on since an earlier one, no faster than it may have."""
        steady = base.steady + self.before - base.after
        version = max(self.version, base.version) + 1
        return replace(self, version=version, shift=steady - self.database)


class SharedTime:
    """The time of a store that several machines use.

    Args:
        begin: begins a transaction on a connection of its own.
    """

    def __init__(self, begin: Callable[[], AbstractContextManager[sa.Connection]]) -> None:
        self._begin = begin
        self._boot = boot_id()
        self._base: _Look | None = None
        self._newest: _Look | None = None
        self._since = 0.0  # the time since which this machine's looks have gone on evenly
        self._next_notes: dict[str, float] = {}  # by the name of the row
        self._not_logged = 0.0  # seconds of corrections
        self._next_log = 0.0
        self._clock = sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)
        self._shift = sa.func.coalesce(sa.select(shifts.c.seconds).scalar_subquery(), 0.0)
        version = sa.func.coalesce(sa.select(shifts.c.version).scalar_subquery(), 0)
        self._looking = sa.select(self._clock, version, self._shift)
        self.forget()

    def forget(self) -> None:
        """The locks may be held by a thread of the parent's."""
        self._lock = threading.Lock()
        self._correcting = threading.Lock()

    def find(self, connection: sa.Connection) -> bool:
        """Takes up the machine's last look, so that a step between two short processes is seen.

        Nothing that any machine has seen since the last correction may lie ahead. But the time is never moved
        ahead because of a look of another process: machines that were copied while they ran go by one name,
        and have other uptimes.
        """
        mine = sa.and_(clocks.c.boot == self._boot, clocks.c.boot != "")  # A machine may have no name.
        row = connection.execute(sa.select(clocks).where(mine)).one_or_none()
        newest = sa.select(clocks.c.version, sa.func.max(clocks.c.steady)).group_by(clocks.c.version)
        seen = connection.execute(newest).all()
        look = self._look(connection)
        last = next((steady for version, steady in seen if version == look.version), None)
        # A correction since then has let the time go on, so this machine's look can still be compared.
        if row is not None and row.version <= look.version and row.boottime <= look.after:
            self._base = replace(
                look,
                before=row.boottime - SHORT_LOOK / 2,
                after=row.boottime + SHORT_LOOK / 2,
                database=row.steady - look.shift,
            )
            self._since = row.since
            self._next_notes = {self._boot: row.boottime + NOTE_PAUSE}
            if look.is_behind(self._base):
                self._base = None
        if self._base is None and last is not None and look.steady < last:
            self._base, self._since = replace(look, database=last - look.shift), last
        self._goes_on(look)  # What does not is corrected before the next transaction.
        return True

    def begin(self, connection: sa.Connection) -> None:
        """It goes on with the database's clock."""
        self.find(connection)
        self.note(connection)

    def note(self, connection: sa.Connection) -> None:
        """Notes it as the transaction's last statement, so that others wait for it as shortly as can be."""
        with self._lock:
            look, since = self._newest, self._since
            if look is None:
                return
            name = self._name_of(look)
            if look.before < self._next_notes.get(name, 0.0):
                return
            self._next_notes[name] = look.before + NOTE_PAUSE
        self._put_down(connection, look, since)
        connection.execute(sa.delete(clocks).where(clocks.c.steady < look.steady - FORGOTTEN_AFTER))

    def _name_of(self, look: _Look) -> str:
        """The name of the row that a look is noted in: no process takes up one that has no name."""
        return self._boot if look.is_short else ""

    def _put_down(self, connection: sa.Connection, look: _Look, since: float) -> None:
        values = {
            "boottime": (look.before + look.after) / 2,
            "steady": look.steady,
            "since": since,
            "version": look.version,
        }
        note = insert(clocks).values(boot=self._name_of(look), **values)
        connection.execute(note.on_conflict_do_update(index_elements=[clocks.c.boot], set_=values))

    def now(self, connection: sa.Connection) -> float:
        """The database's clock, corrected."""
        return self._checked(self._look(connection)).steady

    def watch(self) -> Callable[[float, int, float], None]:
        """Begins a look, and returns what takes its outcome. Called where no transaction is open."""
        before = boottime()

        def see(database: float, version: int, shift: float) -> None:
            self._checked(_Look(before, boottime(), float(database), version, float(shift)))

        return see

    def column(self) -> sa.ColumnElement[float]:
        """The same, except for a step that no process has seen yet."""
        return self._clock + self._shift

    def wall(self, connection: sa.Connection) -> float:
        """The database's calendar."""
        return self._look(connection).database

    def as_wall(self, moment: float) -> float:
        """Reckoned from the last look."""
        return moment - (0.0 if self._newest is None else self._newest.shift)

    def _look(self, connection: sa.Connection) -> _Look:
        before = boottime()
        database, version, shift = connection.execute(self._looking).one()
        return _Look(before, boottime(), float(database), int(version), float(shift))

    def _checked(self, look: _Look) -> _Look:
        """A look that goes with the earlier ones; where this one does not, the shift is corrected for all."""
        for _ in range(CORRECTIONS):
            if self._goes_on(look):
                return look
            look = self._correct()
        raise StoreError(
            "the clock of the store's database is set again and again, or several servers answer at its "
            "address. So the store cannot measure how long anything takes. Let one server answer, keep its "
            "clock even (NTP), and try again"
        )

    def _goes_on(self, look: _Look) -> bool:
        with self._lock:
            base = self._base
            if base is None or look.version > base.version:
                # Another process has corrected it, which knew the time before.
                self._begin_with(look)
            elif look.version < base.version or not look.is_even_with(base):
                return False
            elif (age := look.before - base.after) > (BASE_AGE if look.is_short else OLDEST_BASE):
                self._base = look
                if age > LONGEST_GAP:
                    self._since = look.steady
            self._newest = look
            return True

    def _begin_with(self, look: _Look) -> None:
        """Later looks are compared with this one. The caller has the lock."""
        if self._base is None or not look.is_even_with(self._base):
            self._since = look.steady
        self._base = look
        self._next_notes.clear()

    def _correct(self) -> _Look:
        """Looks again while no other process corrects the shift, and corrects it if it still has to be."""
        with self._correcting, self._begin() as connection:
            first = insert(shifts).values(id=1, version=0, seconds=0.0)
            connection.execute(first.on_conflict_do_nothing())
            connection.execute(sa.select(shifts).with_for_update())
            look = self._look(connection)
            with self._lock:
                base, since = self._base, self._since
            if base is None or look.version > base.version:
                return look
            if look.version < base.version:
                is_right = look.is_even_with(base)  # another server has gone on with an older state
            elif look.is_even_with(base):
                return look
            else:
                is_right = self._was_paused(connection, look, base)
            if is_right:
                with self._lock:
                    self._begin_with(look)
                return look
            corrected = look.corrected_by(base)
            values = {"version": corrected.version, "seconds": corrected.shift}
            connection.execute(sa.update(shifts).values(**values))
            self._put_down(connection, corrected, since)
        self._log_correction(look.shift - corrected.shift)
        return corrected

    def _log_correction(self, seconds: float) -> None:
        """Logs a step at once, and small corrections once a minute: a clock that is slewed needs many."""
        with self._lock:
            self._not_logged += seconds
            if abs(seconds) < LARGE_STEP and boottime() < self._next_log:
                return
            seconds, self._not_logged = self._not_logged, 0.0
            self._next_log = boottime() + LOG_PAUSE
        log.warning(
            "The database's clock was set or slewed by %+.3f s. smsverify corrects its time: no wait or "
            "pause changes",
            seconds,
        )

    def _was_paused(self, connection: sa.Connection, look: _Look, base: _Look) -> bool:
        """Whether another machine has counted more time since an earlier look than this one."""
        if look.is_behind(base):
            return False
        rows = connection.execute(sa.select(clocks).where(clocks.c.version == base.version)).all()
        counted = max((row.steady - max(row.since, base.steady) for row in rows), default=0.0)
        surely = counted * (1 - 2 * DRIFT) - HIDDEN  # each of the two may differ from the database
        if surely <= boottime() - base.before:  # now: they may have noted it after this look
            return False
        log.warning(
            "This machine was paused: it missed %.0f s that another machine counted",
            look.steady - base.steady - (look.before - base.after),
        )
        return True
