"""Callbacks on their way into the store, off the event loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from smsverify._messages.inbox import Inbox
from smsverify._runtime.job_thread import JobThread

BROKEN_PAUSE = 10.0  # seconds for which a store that has failed gets no unverified callbacks


class Writer:
    """Writes into one account's inbox, in a thread of its own.

    It writes one callback at a time, since a store has one writer. Callbacks with a secret go first, and wait
    for one without at the most. Each account has a writer: a store that does not answer delays no other
    account's callbacks.

    Args:
        patience: seconds after which a store that does not answer counts as broken.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._thread = JobThread("smsverify-callback")
        self._busy_since: float | None = None
        self._broken_until = 0.0

    def is_broken(self) -> bool:
        """Whether the store has failed just now, or does not answer."""
        since, now = self._busy_since, time.monotonic()
        return now < self._broken_until or (since is not None and now - since > self._patience)

    def submit(self, job: Callable[[Inbox], Any], inbox: Inbox, is_first: bool) -> Future[Any]:
        future: Future[Any] = Future()
        self._thread.submit(partial(self._write, future, job, inbox), rank=0 if is_first else 1)
        return future

    def _write(self, future: Future[Any], job: Callable[[Inbox], Any], inbox: Inbox) -> None:
        if not future.set_running_or_notify_cancel():
            return
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
