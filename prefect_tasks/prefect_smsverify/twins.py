"""Twins of tasks, for coroutines. Each takes the parameters of its task, which are typed out there alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from prefect import Task

P = ParamSpec("P")
R = TypeVar("R")
Twin = Callable[P, Coroutine[Any, Any, R]]


def twin_of(task: Task[P, R]) -> Callable[[Callable[..., Coroutine[Any, Any, R]]], Twin[P, R]]:
    """Gives a coroutine function the signature of a task, which Prefect and editors show.

    Args:
        task: for threads.

    Returns:
        a decorator, below `@task`. The function gets all arguments by name, those included that have their
        defaults.
    """
    signature = inspect.signature(task.fn)

    def signed(twin: Callable[..., Coroutine[Any, Any, R]]) -> Twin[P, R]:
        @wraps(twin)
        async def called(*args: P.args, **kwargs: P.kwargs) -> R:
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            return await twin(**given.arguments)

        called.__signature__ = signature  # type: ignore[attr-defined]
        return called

    return signed
