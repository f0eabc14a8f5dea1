"""A thread of its own for work that must begin at once, or that no interruption of the caller may cut off.

Callers fill the threads of an event loop, for long. What waits there would be late, and a second cancellation
would take it out of the queue before it has begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

import anyio

T = TypeVar("T")


def in_thread(call: Callable[[], T], name: str) -> Future[T]:
    """Starts a call in a thread of its own, in the run that this code is a part of."""
    pool = ThreadPoolExecutor(1, thread_name_prefix=f"smsverify-{name}")
    try:
        return pool.submit(copy_context().run, call)
    finally:
        pool.shutdown(wait=False)


async def result_in_thread(call: Callable[[], T], name: str) -> T:
    """The result of a call that `in_thread` starts, for a coroutine."""
    return await asyncio.wrap_future(in_thread(call, name))


async def to_its_end(call: Callable[[], T], name: str) -> T:
    """`result_in_thread` for a call that goes on to its end, however often the coroutine is cancelled."""
    going = in_thread(call, name)
    with anyio.CancelScope(shield=True):
        # Prefect's scopes are kept out. A cancellation by asyncio ends this, and not the call.
        result = await asyncio.shield(asyncio.wrap_future(going))
    return result
