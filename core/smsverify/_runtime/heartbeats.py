"""Heartbeats: what a thread that waits writes into the store every few seconds, so that it counts as alive.

The threads of a process write theirs together. If each wrote its own, 200 purchases that wait for their turn
would keep the store busy with some hundred writes a second, and whatever else it has to record would wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

T = TypeVar("T")


class Heartbeats(Generic[T]):
    """The heartbeats of one kind in this process.

    Args:
        every: seconds between two of each thread.
        write: records those of several threads. It returns those that are on record now, and leaves out what
            it has not found.
    """

    def __init__(self, every: float, write: Callable[[Collection[T]], Collection[T]]) -> None:
        self._every = every
        self._write = write
        self._due: dict[T, float] = {}  # by time.monotonic()
        self._lock = threading.Lock()

    def begin(self, one: T) -> None:
        """Other threads send heartbeats for this one from now on. The caller has just put it on record."""
        with self._lock:
            self._due[one] = time.monotonic() + self._every

    def end(self, one: T) -> None:
        """The thread does not wait any more."""
        with self._lock:
            self._due.pop(one, None)

    def send(self, one: T) -> bool:
        """Sends a heartbeat where it is due, together with those of others that are due soon.

        Returns:
            whether it is on record. Otherwise the caller has to find out by itself what has become of it.
        """
        now = time.monotonic()
        with self._lock:
            if now < self._due.get(one, 0.0):
                return True
            soon = {other for other, due in self._due.items() if due <= now + self._every / 2}
            together = soon | {one}
            # No other thread sends them, too, while this one does.
            self._due |= dict.fromkeys(together, now + self._every)
        found: Collection[T] = ()
        try:
            found = self._write(together)
        finally:
            with self._lock:
                for other in together.difference(found) & self._due.keys():
                    self._due[other] = 0.0
        return one in found
