"""The tables, and transactions on them. What the rows mean is for the rooms above.

One schema on SQLite (a file in WAL mode, one machine) and on PostgreSQL (several machines). Times are seconds
since 1970 by the database's clock, amounts are text, so that both databases keep them exactly.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.schema import CreateColumn

from smsverify.errors import StoreError
from smsverify.forking import ForkGate

log = logging.getLogger(__name__)

SCHEMA_VERSION = 3
BUSY_TIMEOUT = 30.0
# Any number will do, as long as nobody else in the same database uses it.
_ADVISORY_LOCK = 5_067_836

metadata = sa.MetaData()

schema = sa.Table("smsverify_schema", metadata, sa.Column("version", sa.Integer, primary_key=True))

budgets = sa.Table(
    "smsverify_budgets",
    metadata,
    sa.Column("key_id", sa.Text, primary_key=True),
    sa.Column("blocked_until", sa.Double, nullable=False, default=0),
    sa.Column("refusals", sa.Integer, nullable=False, default=0),
    sa.Column("polled_until", sa.Double, nullable=False, default=0, server_default="0"),
)

permits = sa.Table(
    "smsverify_permits",
    metadata,
    sa.Column("key_id", sa.Text, primary_key=True),
    sa.Column("slot", sa.Integer, primary_key=True),
    sa.Column("free_at", sa.Double, nullable=False),
    sa.Column("holder", sa.Text),
    sa.Column("priority", sa.Integer),
)

queue = sa.Table(
    "smsverify_queue",
    metadata,
    sa.Column("ticket", sa.Text, primary_key=True),
    sa.Column("key_id", sa.Text, nullable=False, index=True),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("arrived_at", sa.Double, nullable=False),
    sa.Column("seen_at", sa.Double, nullable=False),
)

catalogues = sa.Table(
    "smsverify_catalogues",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("fetched_at", sa.Double, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("read_until", sa.Double),
)

purchases = sa.Table(
    "smsverify_purchases",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("namespace", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("price", sa.Text),
    sa.Column("charge", sa.Text),
    sa.Column("run", sa.Text),
    sa.Column("unclaimed", sa.Boolean, nullable=False, default=False, server_default=sa.false()),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempt", sa.Text, nullable=False),
    sa.Column("sent_at", sa.Double, nullable=False),
    sa.Column("settled_at", sa.Double),
    sa.Column("order_id", sa.BigInteger),
    sa.Column("candidates", sa.Text),
    sa.Column("note", sa.Text),
    sa.UniqueConstraint("account", "namespace", "key", "generation"),
    sa.Index("smsverify_purchases_state", "account", "state"),
)

orders = sa.Table(
    "smsverify_orders",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("order_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("product", sa.Text),
    sa.Column("service", sa.Text),
    sa.Column("country", sa.Text),
    sa.Column("duration", sa.Integer),
    sa.Column("phone", sa.Text),
    sa.Column("price", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double),
    sa.Column("first_seen_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double),
    sa.Column(
        "expires_estimated",
        sa.Boolean,
        nullable=False,
        default=False,
        server_default=sa.false(),
    ),
    sa.Column("activation_code", sa.Text),
    sa.Column("key", sa.Text),
    sa.Column("used_at", sa.Double),
    sa.Column("cancelled_from", sa.Text),
    sa.Column("refunded_at", sa.Double),
    sa.Column("waiter", sa.Text),
    sa.Column("waiter_since", sa.Double),
    sa.Column("release_asked_at", sa.Double),
    sa.Column("release_reason", sa.Text),
    sa.Column("release_scope", sa.Text),
    sa.Column("release_planned", sa.Boolean, nullable=False, default=False, server_default=sa.false()),
    sa.Column("release_tries", sa.Integer, nullable=False, default=0, server_default="0"),
    sa.Column("release_next_at", sa.Double),
)

waits = sa.Table(
    "smsverify_waits",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("account", sa.Text, nullable=False, index=True),
    sa.Column("order_id", sa.BigInteger, nullable=False),
    sa.Column("since", sa.Double, nullable=False),
    sa.Column("seen_at", sa.Double, nullable=False),
)

polls = sa.Table(
    "smsverify_polls",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("next_at", sa.Double, nullable=False),
    sa.Column("list_misses", sa.Integer, nullable=False, default=0, server_default="0"),
    sa.Column("refused_at", sa.Double),
    sa.Column("refusal", sa.Text),
    # When the secret URL was last called with an SMS of an order that is known.
    sa.Column("callback_at", sa.Double),
    # Before this, no hint is followed that came without a secret.
    sa.Column("hint_next_at", sa.Double),
)

looks = sa.Table(
    "smsverify_looks",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("order_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("listed_status", sa.Text),
    sa.Column("status", sa.Text),
    sa.Column("status_at", sa.Double),
    sa.Column("empty_ends", sa.Integer, nullable=False, default=0, server_default="0"),
    # A callback that proves nothing by itself: there may be an SMS to read.
    sa.Column("hinted_at", sa.Double),
    sa.Column("hint_by_secret", sa.Boolean, nullable=False, default=False, server_default=sa.false()),
    sa.Column("hint_tries", sa.Integer, nullable=False, default=0, server_default="0"),
    sa.Column("hint_followed_at", sa.Double),
)

messages = sa.Table(
    "smsverify_messages",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("order_id", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("otp", sa.Text),
    sa.Column("message", sa.Text),
    sa.Column("sender", sa.Text),
    sa.Column("phone", sa.Text),
    sa.Column("received_at", sa.Double, nullable=False),
    # The same SMS is one row, whichever way it came: the digest of what the order's status shows of it, and
    # when a callback told it.
    sa.Column("shown_as", sa.Text),
    sa.Column("called_at", sa.Double),
    sa.UniqueConstraint("account", "digest"),
    sa.Index("smsverify_messages_order", "account", "order_id"),
)

callbacks = sa.Table(
    "smsverify_callbacks",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("by_secret", sa.Boolean, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("is_documented", sa.Boolean, nullable=False),
    sa.Column("order_id", sa.BigInteger),
    sa.Column("phone", sa.Text),
    sa.Column("sender", sa.Text),
    sa.Column("otp", sa.Text),
    sa.Column("message", sa.Text),
    sa.Column("body", sa.Text),
    sa.Column("received_at", sa.Double, nullable=False),
    sa.UniqueConstraint("account", "digest"),
    sa.Index("smsverify_callbacks_state", "account", "state", "order_id"),
    sa.Index("smsverify_callbacks_received", "account", "received_at"),
)

# Who reads the messages as they come, how far, and who has a reader's place at the moment.
readers = sa.Table(
    "smsverify_readers",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("holder", sa.Text),
    sa.Column("seen_at", sa.Double, nullable=False),
)

followed = sa.Table(
    "smsverify_followed",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("reader", sa.Text, primary_key=True),
    sa.Column("order_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("seen_at", sa.Double, nullable=False),
    sa.Column("asked_at", sa.Double),
)

# Which run of those that handle messages each message belongs to.
handled = sa.Table(
    "smsverify_handled",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("handler", sa.Text, primary_key=True),
    sa.Column("message_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("since", sa.Double, nullable=False),
)


# For what every look asks for, a few times a second: the newest message, and whether there are hints, of
# which there are few. Stores that were made before may lack these; nothing but the speed depends on them.
LATE_INDEXES = (
    sa.Index("smsverify_messages_newest", messages.c.account, messages.c.id),
    sa.Index(
        "smsverify_looks_hinted",
        looks.c.account,
        sqlite_where=looks.c.hinted_at.is_not(None),
        postgresql_where=looks.c.hinted_at.is_not(None),
    ),
)

# What each version of the schema has that the one before had not.
NEW_COLUMNS: dict[int, tuple[sa.Column[Any], ...]] = {
    2: (
        purchases.c.charge,
        purchases.c.run,
        purchases.c.unclaimed,
        orders.c.cancelled_from,
        orders.c.refunded_at,
        orders.c.release_scope,
        orders.c.release_planned,
        orders.c.release_tries,
        orders.c.release_next_at,
        polls.c.list_misses,
    ),
    3: (
        polls.c.callback_at,
        polls.c.hint_next_at,
        looks.c.hinted_at,
        looks.c.hint_by_secret,
        looks.c.hint_tries,
        looks.c.hint_followed_at,
        messages.c.shown_as,
        messages.c.called_at,
        budgets.c.polled_until,
        permits.c.priority,
        catalogues.c.read_until,
    ),
}
# What is put into them where there are rows already.
_NEW_VALUES: dict[int, tuple[sa.Update, ...]] = {
    2: (
        sa.update(purchases).values(charge=purchases.c.price),
        sa.update(orders)
        .where(orders.c.release_asked_at.is_not(None))
        .values(release_next_at=orders.c.release_asked_at),
    ),
    3: (sa.update(messages).values(shown_as=messages.c.digest),),
}
# SQLite's locks and its WAL need memory that all processes share, and files that are what they seem to be.
_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "gpfs", "beegfs", "ocfs2", "gfs2"}
    | {"glusterfs", "fuse.glusterfs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone"}
)

_fork_gate = ForkGate()

# SQLAlchemy logs the rows that it has read at DEBUG, and codes are among them.
logging.getLogger("sqlalchemy.engine.Engine.smsverify").addFilter(
    lambda record: record.levelno > logging.DEBUG
)


class Store:
    """One database, shared by every thread of this process; use `open_store` to get it.

    Every method raises `StoreError` where the database can not do what is asked.
    """

    def __init__(self, url: str) -> None:
        self.url = sa.engine.make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._engine = self._make_engine()
        self._is_ready = False
        self._opening = threading.Lock()
        self._writing = threading.Lock()

    def __repr__(self) -> str:
        return f"Store({self.url.render_as_string(hide_password=True)!r})"

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that writes; committed at the end, rolled back on an exception."""
        self._make_ready()
        with _fork_gate.passing(), self._translating(), self._turn_to_write(), self._engine.begin() as begun:
            yield begun

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection to read with; it never waits for writers."""
        self._make_ready()
        with _fork_gate.passing(), self._translating(), self._engine.connect() as connection:
            yield connection.execution_options(read_only=True)

    def lock(self, connection: sa.Connection, name: str) -> None:
        """Lets one transaction at a time work on what has this name. SQLite has one writer anyway."""
        if not self.is_sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(name))))

    def now(self, connection: sa.Connection) -> float:
        """Seconds since 1970 by the clock that all users of this store share."""
        if self.is_sqlite:
            return time.time()
        return float(connection.execute(sa.select(self.clock())).scalar_one())

    def clock(self) -> sa.ColumnElement[float]:
        """The same as a column, for a query that asks for more."""
        if self.is_sqlite:
            return sa.bindparam(None, callable_=time.time, type_=sa.Double)  # as of each execution
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)

    def insert(self, table: sa.Table) -> Any:
        """An INSERT of this database's dialect, which knows `on_conflict_do_nothing` and `…_do_update`."""
        if self.is_sqlite:
            from sqlalchemy.dialects.sqlite import insert as sqlite_insert

            return sqlite_insert(table)
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        return postgresql_insert(table)

    def upgrade(self) -> int:
        """Creates or upgrades the tables, also with many at once; returns the schema's version."""
        self._make_ready()
        return SCHEMA_VERSION

    def close(self) -> None:
        """Closes the connections; the store opens new ones when it is used again."""
        self._engine.dispose()

    def forget_connections(self) -> None:
        """Lets go of connections inherited over a fork without closing them: they belong to the parent."""
        self._engine.dispose(close=False)
        self._opening = threading.Lock()
        self._writing = threading.Lock()

    # -------------------------------------------------------------- inside

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

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise self._store_error(error) from error

    def _store_error(self, error: Exception) -> StoreError:
        cause = error.orig if isinstance(error, DBAPIError) else error
        text = str(cause).strip().partition("\n")[0]
        if self.url.password:
            text = text.replace(str(self.url.password), "***")
        where = self.url.render_as_string(hide_password=True)
        return StoreError(f"the store {where} can not be used: {text or type(cause).__name__}")

    def _make_engine(self) -> sa.Engine:
        # Parameters stay out of every error text: a code may be among them.
        options: dict[str, Any] = {
            "hide_parameters": True,
            "logging_name": "smsverify",
            "pool_size": 5,
            "max_overflow": 15,
        }
        if not self.is_sqlite:
            try:
                return sa.create_engine(
                    self.url, pool_pre_ping=True, connect_args={"connect_timeout": 10}, **options
                )
            except ModuleNotFoundError as error:
                raise StoreError(
                    f"a PostgreSQL store needs the driver {error.name}: pip install 'smsverify[postgres]'"
                ) from None
        engine = sa.create_engine(self.url, connect_args={"timeout": BUSY_TIMEOUT}, **options)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _make_ready(self) -> None:
        if self._is_ready:
            return
        with _fork_gate.passing(), self._opening, self._translating():
            if self._is_ready:
                return
            if self.is_sqlite:
                try:
                    _prepare_file(Path(self.url.database or ""))
                except OSError as error:
                    raise self._store_error(error) from error
            with self._engine.begin() as connection:
                self._create_tables(connection)
            self._create_late_indexes()
            self._is_ready = True

    def _lock_schema(self, connection: sa.Connection) -> None:
        if not self.is_sqlite:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})

    def _create_tables(self, connection: sa.Connection) -> None:
        self._lock_schema(connection)
        metadata.create_all(connection)
        version = connection.execute(sa.select(schema.c.version)).scalar()
        if version is None:
            connection.execute(sa.insert(schema).values(version=SCHEMA_VERSION))
            return
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"the store {self.url.render_as_string(hide_password=True)} has schema {version}, "
                f"this version of smsverify knows {SCHEMA_VERSION}: use the newer version everywhere"
            )
        for newer in range(version + 1, SCHEMA_VERSION + 1):
            for column in NEW_COLUMNS[newer]:
                definition = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {column.table.name} ADD COLUMN {definition}")
            for statement in _NEW_VALUES[newer]:
                connection.execute(statement)
            log.info("The store's schema is now version %d", newer)
        connection.execute(sa.update(schema).values(version=SCHEMA_VERSION))

    def _create_late_indexes(self) -> None:
        """Creates those that are missing, each in a transaction of its own: one that locks two tables at once
        could lock out, and be locked out by, those who write to both.
        """
        with self._engine.connect() as connection:
            there = sa.inspect(connection.execution_options(read_only=True))
            missing = [
                index for index in LATE_INDEXES if not there.has_index(str(index.table), str(index.name))
            ]
        for index in missing:
            try:
                with self._engine.begin() as connection:
                    self._lock_schema(connection)
                    index.create(connection, checkfirst=True)
            except SQLAlchemyError as error:
                log.warning(
                    "The index %s, which makes waiting cheaper, can not be created: %s",
                    index.name,
                    self._store_error(error),
                )


def _prepare_file(path: Path) -> None:
    """Creates the file readable by its owner alone, since it holds codes."""
    if not path.parent.exists():
        path.parent.mkdir(parents=True, mode=0o700)
    kind = file_system_of(path.parent)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise OSError(f"a SQLite store on a network file system ({kind}) is not safe: use PostgreSQL")
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def file_system_of(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The kind of file system that a path is on; `None` where the system does not tell (it is not Linux)."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
        real = path.resolve()
    except OSError:
        return None
    best, kind = -1, None
    for line in lines:
        # Mount point, then optional fields up to a dash, then the kind. A space in the path is written \\040.
        before, _, after = line.partition(" - ")
        point = Path(before.split()[4].encode().decode("unicode_escape"))
        if (real == point or point in real.parents) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split()[0]
    return kind


def _prepare_sqlite(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # The driver shall not begin transactions, `_begin_sqlite` does.
    _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous=FULL")  # An intent has to survive a power cut.
    connection.execute("PRAGMA foreign_keys=ON")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    # SQLite does not apply its busy timeout to this switch, so the wait for the other processes is ours.
    deadline = time.monotonic() + BUSY_TIMEOUT
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
            continue
        if mode != "wal":
            raise sqlite3.OperationalError(
                "WAL is not possible here (a network file system?): use PostgreSQL"
            )


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that starts as a reader can not become a writer when others write, however long it waits.
    is_reader = connection.get_execution_options().get("read_only")
    connection.exec_driver_sql("BEGIN" if is_reader else "BEGIN IMMEDIATE")


_stores: dict[str, Store] = {}
_stores_lock = threading.Lock()


def open_store(url: str) -> Store:
    """The process's one store at this URL. Nothing is connected before it is used."""
    with _stores_lock:
        if url not in _stores:
            _stores[url] = Store(url)
        return _stores[url]


def _after_fork() -> None:
    global _stores_lock  # noqa: PLW0603 (the one of the parent may be held for ever)
    _stores_lock = threading.Lock()
    for store in _stores.values():
        store.forget_connections()


os.register_at_fork(after_in_child=_after_fork)
