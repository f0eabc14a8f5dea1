"""What a task leaves: a dict, the few of its fields that are XComs of their own, or a short error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow.sdk import BaseOperator
from airflow.sdk.definitions.xcom_arg import PlainXComArg

from smsverify.errors import FindingsError, InvalidRequestError
from smsverify_provider.versions import XComNotFound

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from smsverify.reports import Reconciliation, RentalsReport

_End = TypeVar("_End", bound=Exception)


def without_frames(end: _End) -> _End:
    """An expected end, without the frames below it: Airflow logs a traceback with every failure."""
    return end.with_traceback(None)


def encoded(result: Any, field: str) -> str:
    """What a function has returned, as a text that `decoded` takes.

    What a deferred task leaves goes through its trigger, and Airflow decodes what stands there: an object
    whose class it must not import ends the triggerer. A text stays what it is.

    Args:
        result: what was returned.
        field: names the function.

    Raises:
        InvalidRequestError: Airflow cannot keep it as an XCom, or cannot read that again.
    """
    from msgspec import msgpack

    from smsverify_provider.versions import serialize

    try:
        serialized = serialize(_in_named_zones(result))
        msgpack.encode(serialized)  # as Airflow's processes send it to each other
        text = json.dumps(serialized)
        decoded(text)
    except Exception as error:
        raise InvalidRequestError(
            f"{field} has returned a {type(result).__name__} that cannot be an XCom: "
            f"{_why_no_xcom(error)}. Return a dict of texts and numbers",
            field=field,
        ) from None
    return text


def decoded(text: str) -> Any:
    """The result in a text of `encoded`, as one who reads it as an XCom gets it."""
    from smsverify_provider.versions import deserialize

    return deserialize(json.loads(text))


def _in_named_zones(value: Any) -> Any:
    """The result with its times in UTC whose zone has no name: Airflow keeps the zone by its name alone."""
    if isinstance(value, datetime):
        zone = value.tzinfo
        has_name = any(getattr(zone, name, None) for name in ("key", "name", "zone"))
        return value if zone is None or has_name else value.astimezone(timezone.utc)
    if type(value) is dict:
        return {key: _in_named_zones(one) for key, one in value.items()}
    return type(value)(map(_in_named_zones, value)) if type(value) in (list, tuple, set) else value


def _why_no_xcom(error: Exception) -> str:
    """Without what the text of an error may quote of the result."""
    if isinstance(error, (TypeError, ImportError, OverflowError)):
        return str(error).partition(". ")[0]
    if isinstance(error, UnicodeError):
        return "a text in it has half a character"
    return type(error).__name__


class FewXComs(BaseOperator):
    """An operator whose result is one XCom, and each field that it names in `outputs` another one.

    With `multiple_outputs=True`, Airflow makes one of each field.
    """

    outputs: ClassVar[tuple[str, ...]] = ()

    @property
    def output(self) -> XComArg:
        """Stands for the result in the Dag file."""
        return TaskResult(operator=self)

    def _returned(self, context: Context, result: dict[str, Any]) -> dict[str, Any]:
        """The result, whose `outputs` are pushed."""
        if self.do_xcom_push and not self.multiple_outputs:
            for name in self.outputs:
                context["ti"].xcom_push(key=name, value=result[name])
        return result


def report_of(operator: Any, report: RentalsReport | Reconciliation, context: Context) -> dict[str, Any]:
    """The report of an operator as an XCom, also when its findings fail the task.

    Raises:
        FindingsError: there are some, and `fail_on_findings` is set.
    """
    operator.log.info("%s", report.as_text())
    result: dict[str, Any] = operator._returned(context, report.as_dict())
    try:
        if operator.fail_on_findings:
            report.raise_if_failed()
    except FindingsError:
        # Airflow keeps what a task returns only when the task succeeds.
        if operator.do_xcom_push:
            context["ti"].xcom_push(key="return_value", value=result)
        raise
    return result


class TaskResult(PlainXComArg):
    """The result of a task in the Dag file. A field of a task that has left none is `None`."""

    def __getitem__(self, item: str) -> XComArg:
        """A field that is an XCom of its own.

        Raises:
            InvalidRequestError: it is none; `field` is its name.
        """
        task: Any = self.operator
        is_mapped = not isinstance(task, BaseOperator)
        outputs = (task.operator_class if is_mapped else task).outputs
        if item not in outputs and not task.multiple_outputs:
            whole = f"ti.xcom_pull('{task.task_id}'){'[0]' if is_mapped else ''}"
            raise InvalidRequestError(
                f"{item} of task {task.task_id!r} has no XCom of its own; these fields have one: "
                f"{', '.join(outputs)}. Give the task multiple_outputs=True, or read the whole result: "
                f"{{{{ {whole}['{item}'] }}}}",
                field=str(item),
            )
        return TaskResult(operator=self.operator, key=item)

    def resolve(self, context: Mapping[str, Any]) -> Any:
        """The value in a run."""
        try:
            return super().resolve(context)
        except XComNotFound:
            return None
