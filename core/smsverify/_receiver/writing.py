"""Callbacks on their way into the store, off the event loop."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from smsverify._messages.inbox import Inbox

IDLE = 5.0  # seconds without work, after which a thread that writes ends
BROKEN_PAUSE = 10.0  # seconds for which a store that has failed gets no unverified callbacks


class Writer:
    """Writes into one account's inbox, in a thread that there is while there is something to do.

    One at a time, since a store has one writer. What came by a secret goes first and waits for one without at
    the most. Each account has its own: a store that does not answer delays no other account's callbacks.

    Args:
        patience: seconds after which a store that does not answer counts as broken.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._jobs: queue.PriorityQueue[tuple[int, int, Future[Any], Callable[[Inbox], Any], Inbox]]
        self._jobs = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._busy_since: float | None = None
        self._broken_until = 0.0

    def is_broken(self) -> bool:
        """Whether the store has failed just now, or does not answer."""
        since, now = self._busy_since, time.monotonic()
        return now < self._broken_until or (since is not None and now - since > self._patience)

    def submit(self, job: Callable[[Inbox], Any], inbox: Inbox, is_first: bool) -> Future[Any]:
        future: Future[Any] = Future()
        self._jobs.put((0 if is_first else 1, next(self._numbers), future, job, inbox))
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="smsverify-callback", daemon=True)
                self._thread.start()
        return future

    def _run(self) -> None:
        while True:
            try:
                _, _, future, job, inbox = self._jobs.get(timeout=IDLE)
            except queue.Empty:
                with self._lock:
                    if self._jobs.empty():
                        self._thread = None
                        return
                continue
            if not future.set_running_or_notify_cancel():
                continue
            self._busy_since = time.monotonic()
            try:
                result = job(inbox)
            except BaseException as error:
                self._broken_until = time.monotonic() + BROKEN_PAUSE
                future.set_exception(error)
            else:
                self._broken_until = 0.0
                future.set_result(result)
            finally:
                self._busy_since = None
