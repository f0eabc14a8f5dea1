"""What a terminal shows during a long command. Nothing is shown without a terminal, nor in the background."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from smsverify.cli.output import to_people

PER_SECOND = 2.0
READ_EVERY = 1.0  # seconds between two readings of what is shown


class _Line:
    """A line that is rebuilt each time it is drawn."""

    def __init__(
        self,
        what: str,
        seconds: float | None,
        facts: Callable[[], str],
        share: Callable[[], float] | None,
    ) -> None:
        self._what = what
        self._seconds = seconds
        self._facts = facts
        self._share = share
        self._began = time.monotonic()
        self._read_at = -READ_EVERY
        self._shown = ""

    def __rich__(self) -> Table:
        now = time.monotonic()
        if now - self._read_at >= READ_EVERY:
            self._read_at, self._shown = now, self._facts()
        line = Table.grid(padding=(0, 2, 0, 0))
        cells = [Text(self._what, style="bold")]
        passed = now - self._began
        if self._share is not None:
            bar = ProgressBar(total=1.0, completed=min(self._share(), 1.0), width=30)
            return _row(line, *cells, bar, Text(self._shown, style="dim"))
        if self._seconds is None:
            return _row(line, *cells, Text(f"{_clock(passed)} up"), Text(self._shown, style="dim"))
        bar = ProgressBar(total=max(self._seconds, 1e-9), completed=min(passed, self._seconds), width=30)
        left = Text(f"{_clock(max(self._seconds - passed, 0.0))} left")
        return _row(line, *cells, bar, left, Text(self._shown, style="dim"))


def _row(line: Table, *cells: Text | ProgressBar) -> Table:
    line.add_row(*cells)
    return line


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}"


@contextmanager
def progress(
    what: str,
    seconds: float | None,
    facts: Callable[[], str],
    share: Callable[[], float] | None = None,
) -> Iterator[None]:
    """Shows how a command goes on, on a terminal whose user waits for it.

    Args:
        what: what goes on.
        seconds: how long it may take; `None` if only the user ends it.
        facts: gives its state at the moment; called once a second, in a thread.
        share: how much of it is done, from 0 to 1, if that is known better than by the time.
    """
    console = to_people()
    if not console.is_terminal or _is_in_background():
        yield
        return
    with Live(
        _Line(what, seconds, facts, share),
        console=console,
        refresh_per_second=PER_SECOND,
        transient=True,
        redirect_stdout=False,
    ):
        yield


def _is_in_background() -> bool:
    """Whether a shell runs this as a background job (`&`): then the user types on this terminal."""
    with contextlib.suppress(OSError, AttributeError):  # no terminal of its own, or no such thing here
        return os.tcgetpgrp(2) != os.getpgrp()
    return False
