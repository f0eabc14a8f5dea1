"""What people watch while a program runs: lines with the time, a spinner, and a table at the end."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Sequence
from itertools import zip_longest
from types import TracebackType
from typing import TextIO

FRAMES = "|/-\\"
FRAME = 0.15  # seconds that a frame of the spinner is shown
SILENCE = 15.0  # seconds after which a line says what is waited for, where there is no spinner
ERASE = "\r\x1b[K"


def width(output: TextIO | None = None) -> int:
    """Columns of the terminal; 120 where the output goes to a file or a pipe."""
    output = output or sys.stdout
    return shutil.get_terminal_size().columns if output.isatty() else 120


class Progress:
    """Prints a line for each change. Between two changes it shows a spinner on a terminal; without one, it
    prints a line after a long silence.

    Args:
        output: standard output by default.
    """

    def __init__(self, output: TextIO | None = None) -> None:
        self._output = output or sys.stdout
        self._moves = self._output.isatty()
        self._start = time.monotonic()
        self._waiting = ""
        self._waiting_since = self._last_line = self._start
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._spin, name="spinner", daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._write(ERASE if self._moves else "")

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def heading(self, text: str) -> None:
        """Prints a heading."""
        self._line(f"\n{text}")

    def say(self, who: str, text: str) -> None:
        """Prints a line with the time and with what it is about."""
        self._line(f"{self.elapsed:6.1f} s  {who:<9}  {text}")

    def wait(self, what: str) -> None:
        """Says what is waited for from now on."""
        with self._lock:
            self._waiting = what
            self._waiting_since = time.monotonic()

    def _line(self, text: str) -> None:
        with self._lock:
            self._last_line = time.monotonic()
            self._write(f"{ERASE if self._moves else ''}{text}\n")

    def _write(self, text: str) -> None:
        self._output.write(text)
        self._output.flush()

    def _spin(self) -> None:
        turn = 0
        while not self._over.wait(FRAME):
            turn += 1
            if self._moves:
                self._show_frame(FRAMES[turn % len(FRAMES)])
            elif self._waiting and time.monotonic() - self._last_line > SILENCE:
                self.say("...", f"waiting for {self._waiting}")

    def _show_frame(self, frame: str) -> None:
        with self._lock:
            if self._waiting:
                seconds = time.monotonic() - self._waiting_since
                text = f"{self.elapsed:6.1f} s  {frame:<9}  waiting for {self._waiting} ({seconds:.0f} s)"
                self._write(f"{ERASE}{text[: width(self._output) - 1]}")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], available: int) -> str:
    """A table of texts in at most `available` columns; where it cannot be that narrow, blocks of lines."""
    for gap, is_narrow in ((2, False), (2, True), (1, True)):
        lines = [columns, *rows] if not is_narrow else _narrow([columns, *rows])
        widths = [
            max(len(part) for cell in column for part in cell.split("\n"))
            for column in zip(*lines, strict=True)
        ]
        if sum(widths) + gap * (len(widths) - 1) <= available:
            ruled = [lines[0], ["-" * wide for wide in widths], *lines[1:]]
            return "\n".join(_laid_out(line, widths, " " * gap) for line in ruled)
    label = max(map(len, columns))
    return "\n\n".join(
        "\n".join(f"{column:<{label}}  {cell}" for column, cell in zip(columns, row, strict=True))
        for row in rows
    )


def _narrow(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """Headings in a line for each word, and cells in a line for each part of an enumeration."""
    headings, *rows = lines
    return [
        [heading.replace(" ", "\n") for heading in headings],
        *([cell.replace(", ", ",\n") for cell in row] for row in rows),
    ]


def _laid_out(cells: Sequence[str], widths: Sequence[int], gap: str) -> str:
    parts = zip_longest(*(cell.split("\n") for cell in cells), fillvalue="")
    return "\n".join(gap.join(map(str.ljust, line, widths)).rstrip() for line in parts)
