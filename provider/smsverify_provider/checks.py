"""Arguments that stand in the Dag file are checked when that is parsed, for mapped tasks too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.definitions.mappedoperator import OperatorPartial

from smsverify.errors import InvalidRequestError
from smsverify.models import LATER

if TYPE_CHECKING:
    from airflow.sdk.definitions.mappedoperator import MappedOperator


def known(value: Any) -> Any:
    """The value, or `LATER` where only the run knows it: a template, or the result of another task."""
    is_template = isinstance(value, str) and ("{{" in value or "{%" in value)
    return LATER if is_template or hasattr(value, "resolve") else value


def check_known(value: Any, check: Callable[[Any], Any]) -> None:
    """Checks an optional value where it is given and known."""
    if value is not None and value is not LATER:
        check(value)


class CheckedOperator(BaseOperator):
    """An operator whose arguments are checked as far as they are known, `LATER` standing for the others.

    A class names them in `checked` and checks them in `check`; its `__init__` calls `check` too. What is
    given to `partial`, `expand` and `expand_kwargs`, and what a Dag's `default_args` bring, is then checked
    when the Dag is parsed.
    """

    checked: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def check(cls, given: Mapping[str, Any]) -> None:
        """Checks arguments by name; what is missing has its default.

        Raises:
            InvalidRequestError: one is wrong, or a necessary one is missing; `field` names it.
        """
        raise NotImplementedError

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Checks what a mapped task has been given already; `expand` brings the rest."""
        made = super().partial(**kwargs)
        made._expand_called = True  # it warns of a task that was never mapped; the other does so in its place
        return _CheckedPartial(operator_class=cls, kwargs=made.kwargs, params=made.params).check_part()


class _CheckedPartial(OperatorPartial):
    """What `partial` answers; checks what is mapped over as far as that is known."""

    operator_class: type[CheckedOperator]

    def check_part(self) -> _CheckedPartial:
        """Checks a part: what is missing may still come."""
        given = self._given()
        while True:
            try:
                self.operator_class.check(given)
            except InvalidRequestError as error:
                if error.field is None or error.field in given:
                    self._expand_called = True
                    raise
                given[error.field] = LATER
            else:
                return self

    def expand(self, **mapped_kwargs: Any) -> MappedOperator:
        mapped = super().expand(**mapped_kwargs)
        given = self._given() | dict.fromkeys(self._checked(mapped_kwargs), LATER)
        self.operator_class.check(given)
        for name, values in self._checked(mapped_kwargs).items():
            # A dict is mapped over in pairs of a key and a value, whose use only the operator knows.
            for value in values if isinstance(values, Sequence) else ():
                self.operator_class.check(given | {name: known(value)})
        return mapped

    def expand_kwargs(self, kwargs: Any, *, strict: bool = True) -> MappedOperator:
        mapped = super().expand_kwargs(kwargs, strict=strict)
        for one in kwargs if isinstance(kwargs, Sequence) else ():
            if isinstance(one, Mapping):
                own = {name: known(value) for name, value in self._checked(one).items()}
                self.operator_class.check(self._given() | own)
        return mapped

    def _given(self) -> dict[str, Any]:
        """What is fixed for all of the mapped tasks. Airflow adds most of the defaults only at the run."""
        given: dict[str, Any] = {}
        for holder in (self.kwargs.get("dag"), self.kwargs.get("task_group")):
            given |= getattr(holder, "default_args", None) or {}
        return {name: known(value) for name, value in self._checked(given | self.kwargs).items()}

    def _checked(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {name: arguments[name] for name in self.operator_class.checked if name in arguments}
