"""The simulator's clock, and a thread that does things at their time."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone

logger = logging.getLogger("smsverify.simulator")

_ORIGIN = time.time() - time.monotonic()


def now() -> float:
    """Seconds since the epoch by a clock that never jumps: a stepped system clock moves no deadline."""
    return _ORIGIN + time.monotonic()


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as an aware datetime."""
    return datetime.fromtimestamp(seconds, timezone.utc)


class Agenda:
    """Runs actions at their time, one after another, on a thread of its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._changed = threading.Condition()
        self._stopped = True
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        with self._changed:
            self._stopped = False
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread. What is still to come waits for the next start."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def clear(self) -> None:
        """Drop what is still to come."""
        with self._changed:
            self._due.clear()

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Have `action` run at `when`, or at once if that has passed."""
        with self._changed:
            heapq.heappush(self._due, (when, next(self._count), action))
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and (not self._due or self._due[0][0] > now()):
                    self._changed.wait(self._due[0][0] - now() if self._due else None)
                if self._stopped:
                    return
                action = heapq.heappop(self._due)[2]
            try:
                action()
            except Exception:
                logger.exception("an action of the simulator's agenda failed")
