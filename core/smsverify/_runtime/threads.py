"""Waiting for what another thread does, so that an interruption gets through."""

from __future__ import annotations

from concurrent.futures import Future, wait
from typing import TypeVar

LOOK = 0.2  # seconds between two moments at which an interruption is seen

T = TypeVar("T")


def result_of(future: Future[T]) -> T:
    """The result of a future, for a thread that may be interrupted.

    An exception that another thread sets, as frameworks do when a task's time is over, comes between two
    instructions of Python: a thread that blocks for as long as the result takes would not see it before.
    """
    while not future.done():
        wait([future], timeout=LOOK)
    return future.result()
