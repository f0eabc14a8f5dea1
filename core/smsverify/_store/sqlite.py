"""SQLite: one file on one machine, and what every connection and transaction relies on."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from smsverify._store import files
from smsverify.errors import StoreError
from smsverify.text import printable

SCRUB_TIMEOUT = 500  # milliseconds
_OLDEST = (3, 35, 0)  # the first with RETURNING


class SqliteFile:
    """The file of a store, and connections to it.

    Each transaction notices when the file was deleted or replaced: data that is written to a deleted file is
    lost, and a new file knows of no purchase.

    Args:
        path: the file, with no symbolic link in it.
        timeout: seconds to wait for others who write.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self.path = path
        # The names under which this process uses it: a symbolic link can be changed.
        self.spellings = {path}
        self._timeout = timeout
        self._known: files.FileId | None = None
        self._store_id: str | None = None

    def make_engine(self, **options: Any) -> sa.Engine:
        """An engine whose connections never create the file."""
        engine = sa.create_engine(f"sqlite:///{self.path}", creator=self._connect, **options)
        event.listen(engine, "connect", self._prepare)
        event.listen(engine, "begin", self._begin)
        return engine

    def make_looking_engine(self) -> sa.Engine:
        """An engine that changes nothing, not even the files that SQLite keeps beside its own."""
        # Without a WAL no process has the file open, and everything is in it.
        how = "mode=ro" if files.beside(self.path)[0].exists() else "immutable=1"
        return sa.create_engine(
            "sqlite://", creator=lambda: self._open(how), poolclass=NullPool, hide_parameters=True
        )

    def prepare(self) -> None:
        """Makes the file where it is missing; raises `StoreError` where it cannot be trusted."""
        if sqlite3.sqlite_version_info < _OLDEST:
            raise StoreError(
                f"this Python has SQLite {sqlite3.sqlite_version}, and the store needs 3.35. Use a newer "
                "Python or PostgreSQL (store_url)"
            )
        files.prepare(self.path)

    def recognise(self, connection: sa.Connection, store_id: str) -> None:
        """From now on, it has to be this file with this store in it."""
        if self._known is None:
            self._known, self._store_id = files.identify(self.path), store_id

    def scrub(self, engine: sa.Engine) -> None:
        """Takes what was overwritten out of the WAL, unless it is being read just now."""
        pooled = engine.raw_connection()
        try:
            cursor = pooled.cursor()
            cursor.execute(f"PRAGMA busy_timeout={SCRUB_TIMEOUT}")
            try:
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                cursor.execute(f"PRAGMA busy_timeout={self._timeout * 1000:.0f}")
        finally:
            pooled.close()

    # -------------------------------------------------------------- inside

    def _open(self, how: str) -> sqlite3.Connection:
        # A pool hands a connection to one thread at a time.
        return sqlite3.connect(
            f"file:{quote(str(self.path))}?{how}", uri=True, timeout=self._timeout, check_same_thread=False
        )

    def _connect(self) -> sqlite3.Connection:
        self._refuse_another()
        return self._open("mode=rw")

    def _prepare(self, connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # The driver must not begin transactions, `_begin` does.
        self._switch_to_wal(connection)
        connection.execute("PRAGMA locking_mode=NORMAL")
        connection.execute("PRAGMA synchronous=FULL")  # A planned call has to survive a power cut,
        connection.execute("PRAGMA fullfsync=ON")  # on macOS too.
        connection.execute("PRAGMA cache_size=-16000")  # KiB: what a call reads of a million orders.
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA secure_delete=ON")  # A text that is purged is overwritten.
        connection.execute("PRAGMA trusted_schema=OFF")
        if self._store_id is not None:
            try:
                found = connection.execute("SELECT store_id FROM smsverify_schema").fetchone()
            except sqlite3.OperationalError:
                found = None
            if found is None or found[0] != self._store_id:
                raise self._another("another store is in it")
        else:
            connection.execute("SELECT count(*) FROM sqlite_master")  # which opens the WAL
        record.info["beside"] = self._beside()

    def _begin(self, connection: sa.Connection) -> None:
        # A transaction that starts as a reader cannot become a writer when others write, however long it
        # waits.
        is_reader = connection.get_execution_options().get("read_only")
        connection.exec_driver_sql("BEGIN" if is_reader else "BEGIN IMMEDIATE")
        self._refuse_another()
        if connection.info.get("beside") != self._beside():
            raise self._another("its -wal or -shm file is another one now")

    def _beside(self) -> tuple[files.FileId | None, ...]:
        """What SQLite keeps beside the file; the same as long as one connection is open."""
        return tuple(files.identify(path) for path in files.beside(self.path))

    def _switch_to_wal(self, connection: sqlite3.Connection) -> None:
        # SQLite does not apply its busy timeout to this switch, so the wait for the other processes is ours.
        deadline = time.monotonic() + self._timeout
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

    def _refuse_another(self) -> None:
        if self._known is None:
            return
        for path in self.spellings:
            found = files.identify(path)
            if found is None:
                raise self._another("it is gone")
            if found != self._known:
                raise self._another(f"{printable(str(path))} is another file now")
        if files.size_of(self.path) == 0:
            raise self._another("it is empty")

    def _another(self, how: str) -> StoreError:
        return StoreError(
            f"the store's file {printable(str(self.path))} was deleted or replaced while this process used "
            f"it: {how}. Its records of purchases are missing, so this process buys nothing more. Put the "
            "file back with the files beside it (-wal, -shm). If you cannot, run `smsverify reconcile` with "
            "the new one. Then restart this process"
        )
