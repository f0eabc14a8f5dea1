"""Functions of callers that may be tasks or flows: whether a call runs them."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

from prefect import Flow, Task
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
    """What an action has returned. Refuses what `smsverify.checks.check_result` refuses, and futures."""
    several = result if isinstance(result, list) else [result]
    if any(isinstance(one, PrefectFuture) for one in several):
        raise InvalidRequestError(
            "action returned a future, so its task may not have run yet. Return the future's result(). The "
            "number that it was called with is given back, unless another try uses it",
            field="action",
        )
    return checks.check_result(result)
