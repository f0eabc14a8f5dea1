"""Forks: none in the middle of a transaction, and no lock that the child would wait for.

SQLite keeps in memory which of its connections hold a lock. A child that is forked while another thread of
its parent writes inherits that memory, but not the thread that would let go of the lock: its own writes would
wait for ever.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

_T = TypeVar("_T")


class ProcessLock:
    """A lock of a module. In a forked child it is free: the thread that had it in the parent is not there."""

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _renew(self) -> None:
        self._lock = threading.Lock()


class PerProcess(Generic[_T]):
    """What all hooks of a process share under a name. A fork, which inherits no threads, makes its own."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, str], _T] = {}
        self._lock = ProcessLock()

    def get(self, name: str, make: Callable[[], _T]) -> _T:
        """The one of this process; made by the first call."""
        with self._lock:
            this = (os.getpid(), name)
            if this not in self._made:
                self._made[this] = make()
            return self._made[this]


class ForkGate:
    """Transactions pass freely; a fork waits for those inside and keeps others out meanwhile."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._changed = threading.Condition()
        self._inside = 0
        self._is_forking = False
        os.register_at_fork(before=self._close, after_in_parent=self._open, after_in_child=self._reset)

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Around every transaction."""
        depth = getattr(self._own, "depth", 0)
        with self._changed:
            # A thread that is inside already must not wait for a fork that waits for it.
            self._changed.wait_for(lambda: not self._is_forking or depth > 0)
            self._inside += 1
        self._own.depth = depth + 1
        try:
            yield
        finally:
            self._own.depth = depth
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def _close(self) -> None:
        self._changed.acquire()
        self._is_forking = True
        # A thread cannot wait for its own transaction.
        self._changed.wait_for(lambda: self._inside <= getattr(self._own, "depth", 0))

    def _open(self) -> None:
        self._is_forking = False
        self._changed.notify_all()
        self._changed.release()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._inside = getattr(self._own, "depth", 0)
        self._is_forking = False
