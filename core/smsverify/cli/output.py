"""What people and programs see: results, tables, errors, log lines; text from outside is made harmless."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from smsverify.text import printable

WIDTH = 10_000  # columns: a table is never cut; a terminal that is too narrow wraps it

_PLAIN = {"markup": False, "highlight": False, "emoji": False}


class UnwritableError(Exception):
    """The output cannot be written."""


def to_people() -> Console:
    """Standard error: progress, errors and log lines. No colours with NO_COLOR, nor outside of a terminal."""
    return _stderr if _stderr.file is sys.stderr else _new_stderr()


def _new_stderr() -> Console:
    global _stderr  # noqa: PLW0603 (one console, so that log lines and a progress bar do not mix)
    _stderr = Console(file=sys.stderr, soft_wrap=True, **_PLAIN)  # type: ignore[arg-type]
    return _stderr


_stderr = Console(file=sys.stderr, soft_wrap=True, **_PLAIN)  # type: ignore[arg-type]


class _LogHandler(logging.Handler):
    """Log lines on standard error, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one line."""
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        to_people().print(Text(self.format(record), style=style))


@contextlib.contextmanager
def logs_shown(level: int) -> Iterator[None]:
    """Shows log lines from this level on. Logging is as before afterwards: the process may go on."""
    root = logging.getLogger()
    handler, before = _LogHandler(), root.level
    root.addHandler(handler)
    root.setLevel(level)
    try:
        yield
    finally:
        root.setLevel(before)
        root.removeHandler(handler)


def complain(error: object, code: int) -> int:
    """Prints what is wrong; returns the exit code."""
    to_people().print(Text.assemble(("smsverify: ", "bold red"), str(error)))
    return code


def say(text: str) -> None:
    """Writes a result. The caller has escaped text from outside.

    Raises:
        UnwritableError: the output cannot be written.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        raise UnwritableError from error


def show(value: Any, text: str, *, as_json: bool) -> None:
    """One result: what `as_dict` gives as JSON, or a text for people."""
    say(json.dumps(fields_of(value)) if as_json else printable(text))


def show_all(values: Sequence[Any], *, as_json: bool) -> None:
    """Several results, as JSON or as a table of the fields that any of them has."""
    rows = [fields_of(value) for value in values]
    if as_json:
        say(json.dumps(rows))
        return
    names = [name for name in (rows[0] if rows else ()) if any(_says(row[name]) for row in rows)]
    table(names, [[_cell(row[name]) for name in names] for row in rows])


def table(head: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = ()) -> None:
    """Lines of cells in columns.

    Args:
        head: the columns' names.
        rows: the cells.
        styles: a style of Rich for each row; none by default.
    """
    console = Console(width=WIDTH, **_PLAIN)  # type: ignore[arg-type]
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in head:
        grid.add_column(Text(printable(name)), no_wrap=True)
    for at, row in enumerate(rows):
        grid.add_row(*(Text(printable(cell)) for cell in row), style=styles[at] if styles else None)
    with console.capture() as captured:
        console.print(grid)
    for line in captured.get().splitlines():
        say(line.rstrip())


def fields_of(value: Any) -> dict[str, Any]:
    """The fields that are shown of a result."""
    shown: dict[str, Any] = value.as_dict()
    return {name: field for name, field in shown.items() if not name.startswith("highest_")}


def _says(value: Any) -> bool:
    return value not in (None, {}) and value is not False


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{days} days {price}" for days, price in value.items())
    return "-" if value is None else str(value)
