"""Threads for the work that would block an event loop.

Callers may keep all threads of asyncio busy for a long time. A call that waits for one of them would be late,
and a second cancellation would take it out of the queue before it has begun.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


class LoopThreads:
    """Does what coroutines ask for, and nothing else.

    Args:
        count: so many calls are under way at the most; the others wait.
        name: of the threads.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._renew()
        # A forked child has none of the threads.
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._pool = ThreadPoolExecutor(self._count, thread_name_prefix=self._name)

    async def run(self, call: Callable[[], T]) -> T:
        """The result of a call. When this is cancelled, a call that has not begun is not made."""
        return await asyncio.wrap_future(self._submit(call))

    async def run_to_end(self, call: Callable[[], T]) -> T:
        """The result of a call, which is made to its end also when this is cancelled, however often."""
        return await asyncio.shield(asyncio.wrap_future(self._submit(call)))

    def _submit(self, call: Callable[[], T]) -> Future[T]:
        return self._pool.submit(copy_context().run, call)


wait_threads = LoopThreads(8, "smsverify-loop-wait")  # for what a wait does before and after it
