"""A thread of its own for work that an interruption of the caller must not cut off."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


def in_thread(call: Callable[[], T], name: str) -> Future[T]:
    """Starts a call in a thread of its own, in the run that this code is a part of."""
    pool = ThreadPoolExecutor(1, thread_name_prefix=f"smsverify-{name}")
    try:
        return pool.submit(copy_context().run, call)
    finally:
        pool.shutdown(wait=False)
