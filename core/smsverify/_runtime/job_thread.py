"""Jobs for a thread that exists only while there is something to do."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable

from smsverify._runtime.threads import is_alive, started
from smsverify.text import log_of

log = log_of(__name__)

IDLE = 5.0


class JobThread:
    """Does jobs one after the other in a thread of its own. Safe to use from several threads.

    Args:
        name: of the thread.
        idle: seconds without a job, after which the thread ends; the next job starts another.
    """

    def __init__(self, name: str, *, idle: float = IDLE) -> None:
        self._name = name
        self._idle = idle
        self._jobs: queue.PriorityQueue[tuple[int, int, Callable[[], None]]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, job: Callable[[], None], *, rank: int = 0) -> None:
        """Has a job done. Jobs with a lower `rank` come first, then those that came earlier.

        Raises:
            RuntimeError: no thread can be started, so the job is not taken.
        """
        with self._lock:
            if not is_alive(self._thread):
                self._thread = started(self._run, self._name)
            self._jobs.put((rank, next(self._numbers), job))

    def _run(self) -> None:
        while True:
            try:
                _, _, job = self._jobs.get(timeout=self._idle)
            except queue.Empty:
                with self._lock:
                    if self._jobs.empty():
                        self._thread = None
                        return
                continue
            try:
                job()
            except Exception as error:
                # Its text could quote an SMS.
                log.error("A job of the thread %s has failed: %s", self._name, type(error).__name__)
