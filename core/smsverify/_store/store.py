"""Transactions on the tables.

They are in SQLite (a file in WAL mode, one machine) or in PostgreSQL (several machines).
"""

from __future__ import annotations

import itertools
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

from smsverify._input import storeurl
from smsverify._runtime.clock import boottime
from smsverify._runtime.forking import ForkGate, ProcessLock
from smsverify._store import files, schema
from smsverify._store.postgres import PostgresServer, hint_of
from smsverify._store.schema import StoreState
from smsverify._store.sqlite import SqliteFile
from smsverify._store.steady import MachineTime, SharedTime, Time
from smsverify._store.tables import SCHEMA_VERSION, locks
from smsverify.errors import StoreError
from smsverify.text import log_of

log = log_of(__name__)

BUSY_TIMEOUT = 30.0
# An error in a statement of ours does not pass.
_OURS = {"ProgrammingError", "IntegrityError", "DataError", "NotSupportedError"}
# Between two tries to record what must not be lost.
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)

T = TypeVar("T")

_fork_gate = ForkGate()

# SQLAlchemy logs the rows that it has read at DEBUG, and codes are among them.
logging.getLogger("sqlalchemy.engine.Engine.smsverify").addFilter(
    lambda record: record.levelno > logging.DEBUG
)


class Store:
    """One database, shared by every thread of this process; use `open_store` to get it.

    Every method raises `StoreError` where the database cannot do what is asked.
    """

    def __init__(self, url: str) -> None:
        self._given_url = url
        self.url = sa.engine.make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._database: SqliteFile | PostgresServer
        self._time: Time
        options: dict[str, Any] = {"pool_size": 5, "max_overflow": 15}
        if self.is_sqlite:
            self._database = SqliteFile(storeurl.path_of(self.url), BUSY_TIMEOUT)
            self._time = MachineTime()
        else:
            self._database = PostgresServer(self.url, BUSY_TIMEOUT)
            shared = self._time = SharedTime(self._begin_aside)
            options["watch"] = shared.watch
        self._engine = self._make_engine(**options)
        # The numbers of the locks that this process has held, as of its last commits.
        self._numbers: dict[str, int] = {}
        self._is_ready = False
        self._opening = threading.Lock()
        self._writing = threading.Lock()

    def __repr__(self) -> str:
        return f"Store({self.place!r})"

    @property
    def place(self) -> str:
        """Where the store is, for people: without a secret."""
        return storeurl.shown(self._given_url)

    @property
    def name_here(self) -> str:
        """Names the store in this process, with its secrets: never for people."""
        return self._given_url

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that writes; committed at the end, rolled back on an exception."""
        self._make_ready()
        with _fork_gate.passing(), self._translating(), self._turn_to_write():
            with self._engine.begin() as connection:
                yield connection
                self._time.note(connection)
            options = connection.get_execution_options()
            for name, number in options.get("numbers", {}).items():
                # Another thread may have been quicker, and further.
                self._numbers[name] = max(number, self._numbers.get(name, 0))
            if options.get("scrub"):
                self._scrub()
        for act in options.get("after_commit", ()):
            act()

    @contextmanager
    def read(self, *, is_snapshot: bool = False) -> Iterator[sa.Connection]:
        """A connection to read with; it never waits for writers.

        Args:
            is_snapshot: all its statements see what was on record when the first one began. In SQLite they
                always do.
        """
        self._make_ready()
        with _fork_gate.passing(), self._translating(), self._engine.connect() as connection:
            yield connection.execution_options(read_only=True, is_snapshot=is_snapshot)

    def lock(self, connection: sa.Connection, name: str, *, even_older: bool = False) -> None:
        """Lets one transaction at a time work under this name.

        Args:
            connection: of the transaction.
            name: what it works on.
            even_older: whether it works on an older state, too: it records what only this process knows.

        Raises:
            StoreError: an older state of the store was put back while this process used it.
        """
        number = connection.execute(
            self.insert(locks)
            .values(name=name, number=1)
            .on_conflict_do_update(index_elements=[locks.c.name], set_={"number": locks.c.number + 1})
            .returning(locks.c.number)
        ).scalar_one()
        is_older = number <= self._numbers.get(name, 0)
        if is_older and even_older:
            # As if it had not been held: what looks at the number still finds the older state.
            this = sa.update(locks).where(locks.c.name == name)
            connection.execute(this.values(number=locks.c.number - 1))
            return
        if is_older:
            raise StoreError(
                f"an older state of the store {self.place} was put back while this process used it. "
                "Purchases since then are not on record, so this process buys nothing more. Run `smsverify "
                "reconcile`, then restart this process"
            )
        numbers = connection.get_execution_options().get("numbers", {})
        connection.execution_options(numbers=numbers | {name: number})

    def now(self, connection: sa.Connection) -> float:
        """The time that all users of this store share, for how long something takes; see `_store.steady`.

        It looks like seconds since 1970, but is not the calendar.
        """
        return self._time.now(connection)

    def read_now(self) -> float:
        """The same, in a transaction of its own."""
        with self.read() as connection:
            return self.now(connection)

    def clock(self) -> sa.ColumnElement[float]:
        """`now` as a column, for a query that asks for more."""
        return self._time.column()

    def wall(self, connection: sa.Connection) -> float:
        """Seconds since 1970 by the calendar, which may be set: for what people read and the service dates,
        never for how long something takes.
        """
        return self._time.wall(connection)

    def as_wall(self, moment: float) -> float:
        """When a moment of `now` was by the calendar, for what people read."""
        self._make_ready()
        return self._time.as_wall(moment)

    def utc(self, moment: float) -> datetime:
        """The same as a date and time."""
        return datetime.fromtimestamp(self.as_wall(moment), timezone.utc)

    def insert(self, table: sa.Table) -> Any:
        """An INSERT of this database's dialect, which knows `on_conflict_do_nothing` and `…_do_update`."""
        if self.is_sqlite:
            from sqlalchemy.dialects.sqlite import insert as sqlite_insert

            return sqlite_insert(table)
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        return postgresql_insert(table)

    def surely(self, record: Callable[[], T], *, patience: float) -> T:
        """Records what only this process knows, in several tries if necessary.

        Args:
            record: one transaction, that may be done twice: its end may have been lost on the way back.
            patience: seconds for which a database that is away or full is waited for.

        Raises:
            StoreError: it is away for longer, or waiting does not help.
        """
        until = boottime() + patience
        for attempt in itertools.count():
            try:
                return record()
            except StoreError as error:
                pause = _PAUSES[min(attempt, len(_PAUSES) - 1)]
                if not _may_pass(error.__cause__) or boottime() + pause > until:
                    raise
                if attempt == 0:
                    log.warning("The store cannot record a call; trying for %.0f s: %s", patience, error)
                time.sleep(pause)
        raise AssertionError("unreachable")

    def scrub_after(self, connection: sa.Connection) -> None:
        """What this transaction overwrites is in no file of SQLite's any more once it is committed.

        PostgreSQL keeps it until its (auto)vacuum, in WAL archives and backups for as long as they are kept.
        """
        connection.execution_options(scrub=True)

    def after_commit(self, connection: sa.Connection, act: Callable[[], None]) -> None:
        """Does something as soon as this transaction is committed; where that fails, it is not done.

        Args:
            connection: of the transaction.
            act: must not raise.
        """
        acts = connection.get_execution_options().get("after_commit", ())
        connection.execution_options(after_commit=(*acts, act))

    def upgrade(self) -> int:
        """Makes the tables where they are missing, also in many processes at once; returns their version."""
        self._make_ready()
        return SCHEMA_VERSION

    def look(self) -> StoreState:
        """What the store is like. Nothing is made or changed."""
        if isinstance(self._database, SqliteFile):
            path = self._database.path
            if files.identify(path) is None:
                return schema.missing(self.place)
            mode, engine = files.mode_of(path), self._database.make_looking_engine()
        else:
            mode, engine = None, self._engine
        with _fork_gate.passing(), self._translating(), engine.connect() as connection:
            connection.execution_options(read_only=True)
            if isinstance(self._database, PostgresServer) and not self._database.find(connection):
                return schema.missing(self.place)
            return schema.look(connection, self.place, mode)

    def know_as(self, path: Path) -> None:
        """Another name of the store's file: that has to lead to it as long as it is used."""
        if isinstance(self._database, SqliteFile):
            self._database.spellings.add(path)

    def close(self) -> None:
        """Closes the connections; the store opens new ones when it is used again."""
        self._engine.dispose()

    def forget_connections(self) -> None:
        """Lets go of connections inherited over a fork without closing them: they belong to the parent."""
        self._engine.dispose(close=False)
        self._time.forget()
        self._opening = threading.Lock()
        self._writing = threading.Lock()

    # -------------------------------------------------------------- inside

    def _make_engine(self, **options: Any) -> sa.Engine:
        # Parameters stay out of every error text: a code may be among them.
        return self._database.make_engine(hide_parameters=True, logging_name="smsverify", **options)

    @contextmanager
    def _begin_aside(self) -> Iterator[sa.Connection]:
        """A transaction on a connection of its own, which looks at no clock when it begins."""
        with self._make_engine(poolclass=sa.NullPool).begin() as connection:
            yield connection

    @contextmanager
    def _turn_to_write(self) -> Iterator[None]:
        """One thread of this process at a time: many who wait for SQLite's lock wait long and unfairly."""
        if not self.is_sqlite:
            yield
            return
        if not self._writing.acquire(timeout=BUSY_TIMEOUT):
            raise sqlite3.OperationalError("database is locked")
        try:
            yield
        finally:
            self._writing.release()

    def _scrub(self) -> None:
        if not isinstance(self._database, SqliteFile):
            return
        try:
            self._database.scrub(self._engine)
        except (exc.SQLAlchemyError, sqlite3.Error) as error:
            # The transaction is committed; the next one of this kind does it.
            log.warning("Purged texts stay in the store's WAL for now: %s", self._store_error(error))

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except (exc.SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error) as error:
            raise self._store_error(error) from error

    def _store_error(self, error: Exception) -> StoreError:
        cause = error.orig if isinstance(error, exc.DBAPIError) else error
        text = storeurl.without_secrets(str(cause).strip().partition("\n")[0], self._given_url)
        return StoreError(
            f"the store {self.place} cannot be used: {text or type(cause).__name__}{hint_of(cause)}"
        )

    def name(self) -> str:
        """Names the store itself, wherever it is: the same name means the same records."""
        with self.read() as connection:
            return str(schema.store_id_of(connection))

    def _make_ready(self) -> None:
        if self._is_ready:
            return
        with _fork_gate.passing(), self._opening, self._translating():
            if self._is_ready:
                return
            if isinstance(self._database, SqliteFile):
                self._database.prepare()
            with self._engine.connect() as connection:
                connection.execution_options(read_only=True)
                is_ready = self._find(connection) is not None and self._time.find(connection)
            if not is_ready:
                with self._engine.begin() as connection:
                    self._lock_for_making(connection)
                    if self._find(connection) is None:
                        schema.make(connection)
                    self._time.begin(connection)
                with self._engine.connect() as connection:
                    self._find(connection.execution_options(read_only=True))
            self._is_ready = True

    def _find(self, connection: sa.Connection) -> str | None:
        """Finds the store and remembers which it is; `None` where it is not made yet."""
        if isinstance(self._database, PostgresServer) and not self._database.find(connection):
            return None
        version = schema.version_of(connection)
        schema.refuse_another(version, self.place)
        store_id = schema.store_id_of(connection) if version == SCHEMA_VERSION else None
        if store_id is not None:
            self._database.recognise(connection, store_id)
        return store_id

    def _lock_for_making(self, connection: sa.Connection) -> None:
        if isinstance(self._database, PostgresServer):
            self._database.lock_for_upgrade(connection)


def _may_pass(error: BaseException | None) -> bool:
    """Whether what has failed may work a little later, because of the database's state and not of ours."""
    cause = error.orig if isinstance(error, exc.DBAPIError) else error
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    if "DatabaseError" in kinds or "InterfaceError" in kinds:  # of any driver
        return not kinds & _OURS and not str(cause).startswith("no such ")
    return isinstance(error, exc.TimeoutError)


_stores: dict[str, Store] = {}
_stores_lock = ProcessLock()


def open_store(url: str) -> Store:
    """The process's one store at this URL. Nothing is connected before it is used.

    A file is one store under each of its names: two stores for one file would lose SQLite's locks.
    """
    parsed = sa.engine.make_url(url)
    is_file = parsed.get_backend_name() == "sqlite"
    name = str(storeurl.path_of(parsed)) if is_file else url
    with _stores_lock:
        if name not in _stores:
            _stores[name] = Store(url)
        store = _stores[name]
        if is_file:
            store.know_as(Path(str(parsed.database)))
        return store


def _after_fork() -> None:
    for store in _stores.values():
        store.forget_connections()


os.register_at_fork(after_in_child=_after_fork)
