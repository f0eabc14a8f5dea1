"""Functions of callers that may be tasks or flows: whether a call runs them."""

from __future__ import annotations

from collections.abc import Iterable, Set
from functools import partial
from typing import Any, TypeVar

from prefect import Flow, State, Task
from prefect.futures import PrefectFuture

from smsverify import checks
from smsverify.errors import InvalidRequestError

T = TypeVar("T")


def check_action(action: Any, *, may_be_async: bool = False) -> None:
    """Refuses what `smsverify.checks.check_action` refuses, and looks into tasks and flows."""
    called = action
    while isinstance(called, partial):
        called = called.func
    owner = getattr(called, "__self__", None)
    if isinstance(owner, (Task, Flow)):
        if called != owner.__call__:
            raise InvalidRequestError(
                f"action is {owner.name}.{called.__name__}, which does not wait until {owner.name} has run. "
                f"Give {owner.name} itself. Nothing was sent",
                field="action",
            )
        called = owner
    checks.check_action(called.fn if isinstance(called, (Task, Flow)) else action, may_be_async=may_be_async)


def check_result(result: T) -> T:
    """What an action has returned. Refuses what `smsverify.checks.check_result` refuses, and what Prefect
    gives for work that is not done: futures, and states that are not completed.
    """
    for part in _parts(result):
        if isinstance(part, PrefectFuture):
            raise _refused("a future, so its task may not have run yet. Return the future's result()")
        if isinstance(part, State) and not part.is_completed():
            raise _refused(f"the state {part.name}, so it has not done its work. Return the state's result()")
    return checks.check_result(result)


def _parts(result: Any) -> Iterable[Any]:
    if isinstance(result, dict):
        return result.values()
    return result if isinstance(result, (list, tuple, Set)) else [result]


def _refused(what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"action returned {what}. The number that it was called with is given back, unless another try uses "
        "it",
        field="action",
    )
