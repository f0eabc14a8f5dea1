"""Limits for what strangers can cause: requests without a secret, and lines of the log."""

from __future__ import annotations

import time
from typing import Any

from smsverify.text import log_of

# The log of the public module: people set levels by that name.
log = log_of("smsverify.callback")

COMPLAIN_PAUSE = 60.0  # seconds between two lines of one kind, so that a stranger fills no log


class Complaints:
    """Lines that strangers or many callbacks can cause: one of a kind in a while."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}

    def say(self, level: int, text: str, *arguments: Any, what: str | None = None) -> None:
        kind = what or text % arguments
        if time.monotonic() >= self._next.get(kind, 0.0):
            if len(self._next) > 100:
                self._next.clear()
            self._next[kind] = time.monotonic() + COMPLAIN_PAUSE
            log.log(level, text, *arguments)


class Allowance:
    """So many in a row, and so many in a second after that."""

    def __init__(self, in_a_row: int, per_second: float) -> None:
        self._most, self._per_second = float(in_a_row), per_second
        self._left, self._as_of = self._most, time.monotonic()

    def take(self) -> bool:
        """Takes one, if one is left."""
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._as_of) * self._per_second)
        self._as_of = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
