"""Functions of callers: whether a call runs them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any


def why_not_run(action: Any, *, may_be_async: bool) -> str | None:
    """Why a call of a function would not run it, and what to do; `None` where it would.

    Args:
        action: what is called.
        may_be_async: whether the caller awaits what it returns.
    """
    if _is_any(action, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
        return "has a `yield`, so a call does not run its code. Write it without `yield`. Nothing was sent"
    if not may_be_async and _is_any(action, inspect.iscoroutinefunction):
        return (
            "is a coroutine function, and this call does not await it. Write it with `def`, not `async def`. "
            "Nothing was sent"
        )
    return None


def why_not_done(result: Any) -> str | None:
    """Why a function has not run, judged by what it returned, and what to do; `None` where it has.

    A coroutine is closed.
    """
    if inspect.iscoroutine(result):
        result.close()
    if inspect.isawaitable(result):
        return "and this call does not await it, so its code did not run. Write it with `def`"
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        return "whose code nothing runs. Return a value, such as a list"
    return None


def _is_any(action: Any, *kinds: Callable[[Any], bool]) -> bool:
    """Whether a function, or what an object or a `partial` calls, is of one of these kinds."""
    while isinstance(action, partial):
        action = action.func
    called = [action] if isinstance(action, type) else [action, action.__call__]
    return any(kind(one) for kind in kinds for one in called)
