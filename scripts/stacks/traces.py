"""Where texts that must stay secret have left a trace."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Trace:
    """A text that was found.

    Attributes:
        name: what the text is.
        place: the table and column, or the file.
        about: the row's other columns as far as they show whose it is.
    """

    name: str
    place: str
    about: str = ""


def copy_database(database: Path, copy: Path) -> Path:
    """Copies a SQLite database as it is now, while others use it; returns the copy."""
    with closing(sqlite3.connect(database, timeout=60)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def in_database(database: Path, secrets: Mapping[str, str]) -> list[Trace]:
    """The columns of a SQLite database that hold any of some texts, given by name."""
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        tables = [
            row["name"] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        return [
            Trace(name, f"{table}.{column}", _whose(row))
            for table in tables
            for row in connection.execute(f'SELECT * FROM "{table}"')
            for column in row.keys()  # noqa: SIM118 - a row iterates over its values
            for name in _held(row[column], secrets)
        ]


def in_files(folder: Path, secrets: Mapping[str, str], without: Iterable[str] = ()) -> list[Trace]:
    """The files below a folder that hold any of some texts, given by name; files named in `without` may."""
    return [
        Trace(name, str(path.relative_to(folder)))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in without
        for name in _held(path.read_bytes(), secrets)
    ]


def _held(value: object, secrets: Mapping[str, str]) -> Iterator[str]:
    content = value if isinstance(value, bytes) else str(value).encode()
    return (name for name, text in secrets.items() if text.encode() in content)


def _whose(row: sqlite3.Row) -> str:
    names = [name for name in ("dag_id", "task_id", "key", "name") if name in row.keys()]  # noqa: SIM118
    return " ".join(str(row[name]) for name in names)
