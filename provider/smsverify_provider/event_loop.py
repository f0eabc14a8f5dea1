"""What would block the triggerer's event loop: reading a connection, and asking the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from smsverify_provider.hooks.smsverify import SmsVerifyHook

_Result = TypeVar("_Result")

_lookups: dict[tuple[asyncio.AbstractEventLoop, str], asyncio.Task[SmsVerifyHook]] = {}


async def hook_on(conn_id: str) -> SmsVerifyHook:
    """The hook on a connection. Triggers that begin together read it once, and share the hook."""
    this = (asyncio.get_running_loop(), conn_id)
    if this not in _lookups:
        _lookups[this] = asyncio.create_task(_look_up(conn_id))
        _lookups[this].add_done_callback(lambda _: _lookups.pop(this))
    # Shielded: the others need it although one of them ends.
    return await asyncio.shield(_lookups[this])


async def _look_up(conn_id: str) -> SmsVerifyHook:
    # Loading the client blocks.
    hooks = await asyncio.to_thread(import_module, "smsverify_provider.hooks.smsverify")
    hook: SmsVerifyHook = await hooks.SmsVerifyHook.on_event_loop(conn_id)
    return hook


# The loop's own threads are few, and Airflow needs them also while a store does not answer.
_threads = ThreadPoolExecutor(10, thread_name_prefix="smsverify-trigger")


async def in_own_thread(work: Callable[..., _Result], *arguments: Any) -> _Result:
    """As `asyncio.to_thread`, for what asks the store."""
    call = partial(copy_context().run, work, *arguments)
    return await asyncio.get_running_loop().run_in_executor(_threads, call)
