"""`@task.smsverify`: a function that is called with each number that is tried, as a task."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

from airflow.sdk import XComArg
from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, _TaskDecorator

from smsverify_provider.operators.verify import SmsVerifyOperator
from smsverify_provider.results import TaskResult

NUMBER: dict[str, Any] = {}  # stands for the number, which no call in a Dag file gives


class _SmsVerifyDecoratedOperator(DecoratedOperator, SmsVerifyOperator):
    """The operator that a call of the decorated function makes."""

    custom_operator_name: str = "@task.smsverify"
    template_fields: Sequence[str] = SmsVerifyOperator.template_fields

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        # Airflow checks that a call fits the function. The number comes first, and only at the run.
        super().__init__(
            python_callable=python_callable,
            op_args=(NUMBER, *(op_args or ())),
            op_kwargs=op_kwargs,
            kwargs_to_upstream={
                "python_callable": python_callable,
                "op_args": (NUMBER, *(op_args or ())),
                "op_kwargs": op_kwargs,
            },
            **kwargs,
        )

    def _given_args(self) -> Collection[Any]:
        return tuple(self.op_args)[1:]


class _SmsVerifyTask(_TaskDecorator[..., Any, _SmsVerifyDecoratedOperator]):
    """The decorated function. A call of it in a Dag file gives what `output` is for the operator's class."""

    def __call__(self, *args: Any, **kwargs: Any) -> XComArg:
        result: Any = super().__call__(*args, **kwargs)
        output: XComArg = result.operator.output
        return output

    def _expand(self, *args: Any, **kwargs: Any) -> XComArg:
        """What `expand` and `expand_kwargs` give."""
        result: Any = super()._expand(*args, **kwargs)
        return TaskResult(operator=result.operator)


def smsverify_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Makes a task of a function that is called with each number that is tried.

    Args:
        python_callable: the function, given by Python if the decorator has no arguments.
        multiple_outputs: whether each field of the result is an XCom of its own.
        **kwargs: those of `SmsVerifyOperator`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        return _SmsVerifyTask(
            function=function,
            operator_class=_SmsVerifyDecoratedOperator,
            # Airflow would infer it from what the function returns, which is not what the task returns.
            multiple_outputs=bool(multiple_outputs),
            kwargs=dict(kwargs),
            decorator_name="task.smsverify",
        )

    if python_callable is None:
        return cast("TaskDecorator", decorate)
    if not callable(python_callable):
        raise TypeError(
            "No positional arguments allowed while using @task.smsverify, use named arguments instead"
        )
    return cast("TaskDecorator", decorate(python_callable))
