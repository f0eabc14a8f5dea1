"""Clocks that a test sets: a process's own, a database's, and a store's."""

from __future__ import annotations

import datetime
import sys
import time
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa

from smsverify._runtime import clock
from smsverify._service import slots
from smsverify._store import steady
from smsverify._store.store import Store, open_store
from smsverify._store.tables import clocks

if TYPE_CHECKING:  # which the processes of `rigs.workers` need not load
    import pytest

# The server calls its own functions by number, and this one by the name that it had.
_MAKE = """
SET allow_system_table_mods = on;
CREATE TABLE public.clock_step (seconds DOUBLE PRECISION NOT NULL);
INSERT INTO public.clock_step VALUES (0);
ALTER FUNCTION pg_catalog.clock_timestamp() RENAME TO true_clock_timestamp;
CREATE FUNCTION pg_catalog.clock_timestamp() RETURNS TIMESTAMPTZ LANGUAGE SQL VOLATILE AS $$
    SELECT true_clock_timestamp() + (SELECT seconds FROM public.clock_step) * INTERVAL '1 second'
$$;
"""


class DatabaseClock:
    """The clock of a database of `rigs.postgres`, as all who use it read it: a function that can be set."""

    def __init__(self, url: str) -> None:
        address = sa.engine.make_url(url).set(drivername="postgresql")
        self._connection = psycopg.connect(address.render_as_string(hide_password=False), autocommit=True)
        self._connection.execute(_MAKE)

    def step(self, seconds: float) -> None:
        """Sets the clock by so much."""
        self._connection.execute("UPDATE public.clock_step SET seconds = seconds + %s", (seconds,))

    def close(self) -> None:
        """Lets go of the database."""
        self._connection.close()


class Machines:
    """Machines that share a database. What this process does, it does on one of them.

    Args:
        monkeypatch: puts the clock of that machine in the place of the right one.
        database: the clock of the database.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, database: DatabaseClock) -> None:
        self._database = database
        self._names: dict[str, str] = {}
        self._uptimes: dict[str, float] = {}
        self._here = ""
        monkeypatch.setattr(steady, "boot_id", lambda: self._names[self._here])
        for module in (steady, slots):
            monkeypatch.setattr(module, "boottime", lambda: clock.boottime() + self._uptimes[self._here])

    def on(self, machine: str, *, name: str | None = None, uptime: float = 0.0) -> None:
        """Goes to a machine; a new one has a name and an uptime, by which it differs from the first ones."""
        self._here = machine
        self._names.setdefault(machine, name or machine)
        self._uptimes.setdefault(machine, uptime)

    def let_pass(self, seconds: float, *, paused: str = "") -> None:
        """So much time passes, which all machines count but the one that is paused."""
        self._database.step(seconds)
        for machine in self._uptimes:
            self._uptimes[machine] += 0.0 if machine == paused else seconds


def now_of(store: Store) -> float:
    """A store's time, as a transaction that may correct it reads it."""
    with store.write() as connection:
        return store.now(connection)


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Lets so many seconds pass for the store."""
    right = Store.now
    monkeypatch.setattr(Store, "now", lambda self, connection: right(self, connection) + seconds)


def ahead_of_the_calendar(url: str, seconds: float) -> None:
    """Lets a store in a file be ahead of the calendar, as after a start of its machine with a wrong one."""
    store = open_store(url)
    with store.write() as connection:
        connection.execute(sa.update(clocks).values(steady=clocks.c.steady + seconds))
    with store.read() as connection:
        assert store._time.find(connection)


_right = time.time
_steps: list[float] = []


class _Datetime(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return cls.fromtimestamp(time.time(), tz)


def step_own_clock(seconds: float) -> None:
    """Sets this process's clock by so much, for all that has been imported, until the process ends."""
    _steps.append(seconds)
    time.time = lambda: _right() + sum(_steps)
    for name, module in list(sys.modules.items()):
        if name.startswith("smsverify") and getattr(module, "datetime", None) is datetime.datetime:
            module.datetime = _Datetime  # type: ignore[attr-defined]
