"""`@task.smsverify`: a function that is called with each number that is tried, as a task."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, task_decorator_factory

from smsverify_provider.operators.verify import SmsVerifyOperator

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


def smsverify_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Makes a task of a function that is called with each number that is tried.

    Args:
        python_callable: the function, given by Python if the decorator has no arguments.
        multiple_outputs: whether each field of the result is an XCom of its own.
        **kwargs: those of `SmsVerifyOperator`.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=_SmsVerifyDecoratedOperator,
        **kwargs,
    )
