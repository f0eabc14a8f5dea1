"""The tables of a store: made, or only looked at."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from smsverify._store.tables import SCHEMA_VERSION, metadata, schema
from smsverify.errors import StoreError
from smsverify.text import log_of

log = log_of(__name__)


@dataclass(frozen=True)
class StoreState:
    """What a store is like.

    Attributes:
        state: `ok`, `missing` (not made yet), `older` or `newer` than this version of smsverify.
        schema: the version of its tables; `None` if it is missing.
        known: the version that this version of smsverify works with.
        place: where it is, without the password.
        mode: the file's permissions, such as `0600`; `None` if it is no file.
        store_id: names this store, also after it was moved.
        rows: how many rows each table has.
    """

    state: str
    schema: int | None
    known: int
    place: str
    mode: str | None
    store_id: str | None
    rows: dict[str, int]

    @property
    def is_ok(self) -> bool:
        """Whether it can be used as it is."""
        return self.state == "ok"

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON has it."""
        return asdict(self)

    def as_text(self) -> str:
        """Its state for people, in one line."""
        what = {
            "ok": f"is ready (schema {self.schema})",
            "missing": "is missing. `smsverify store upgrade`, or its first use, makes it",
        }.get(
            self.state,
            f"has schema {self.schema}, {self.state} than {self.known}, the only one that this "
            "version of smsverify can use. Use the version that made it",
        )
        return f"the store {self.place} {what}"

    def details(self) -> list[str]:
        """Further facts, line by line."""
        lines = []
        if self.mode is not None:
            is_open = " (others can open it; its next use makes it 0600)" if self.mode[-2:] != "00" else ""
            lines.append(f"file mode  {self.mode}{is_open}")
        if self.store_id is not None:
            lines.append(f"store id   {self.store_id}")
        width = max((len(name) for name in self.rows), default=0)
        return lines + [f"{name.ljust(width)}  {count}" for name, count in self.rows.items()]


def version_of(connection: sa.Connection) -> int | None:
    """The version of the tables; `None` if there are none, or they are being made."""
    if not sa.inspect(connection).has_table(schema.name):
        return None
    return connection.execute(sa.select(schema.c.version)).scalar()


def store_id_of(connection: sa.Connection) -> str | None:
    """What names the store, of which the tables are up to date."""
    return connection.execute(sa.select(schema.c.store_id)).scalar()


def refuse_another(version: int | None, place: str) -> None:
    """Raises if another version of smsverify made the tables."""
    if version not in (None, SCHEMA_VERSION):
        raise StoreError(
            f"the store {place} has schema {version}, and this version of smsverify can use only schema "
            f"{SCHEMA_VERSION}. Nothing was changed. Use the version that made it, or another store"
        )


def make(connection: sa.Connection) -> None:
    """Makes the tables. The caller holds the lock that lets one process at a time do so."""
    for table in metadata.sorted_tables:
        # SQLite takes the newest of the indexes that look equally good to it, so those of few rows come last.
        # A table has its indexes in no order: without one, a store would be slow or fast by chance. Which of
        # two for few rows comes first is by trial: tests/core/store/test_growth.py holds it.
        table.indexes = sorted(sorted(table.indexes, key=_name, reverse=True), key=_is_of_few)  # type: ignore[assignment]
    metadata.create_all(connection)
    connection.execute(sa.insert(schema).values(version=SCHEMA_VERSION, store_id=uuid.uuid4().hex))


def look(connection: sa.Connection, place: str, mode: str | None) -> StoreState:
    """What the store is like. Changes nothing."""
    version = version_of(connection)
    if version is None:
        return missing(place, mode)
    is_ok = version == SCHEMA_VERSION
    there = sa.inspect(connection)
    rows = {
        table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        for table in metadata.sorted_tables
        if table is not schema and there.has_table(table.name)
    }
    state = "ok" if is_ok else "older" if version < SCHEMA_VERSION else "newer"
    store_id = store_id_of(connection) if is_ok else None
    return StoreState(state, version, SCHEMA_VERSION, place, mode, store_id, rows)


def missing(place: str, mode: str | None = None) -> StoreState:
    """The state of a store that is not made yet."""
    return StoreState("missing", None, SCHEMA_VERSION, place, mode, None, {})


def _name(index: sa.Index) -> str:
    return index.name or ""


def _is_of_few(index: sa.Index) -> bool:
    return index.dialect_options["sqlite"]["where"] is not None
