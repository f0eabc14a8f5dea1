"""Checks the arguments of an operator as early as they are known.

A literal is checked when the Dag is parsed. The arguments of a mapped task are checked in the run, when
Airflow makes that task. Templates and the results of other tasks are checked in `execute`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial, reduce
from operator import getitem
from typing import Any, ClassVar

from airflow.sdk.definitions.context import KNOWN_CONTEXT_KEYS
from jinja2 import Undefined

from smsverify.checks import LATER, check_pattern, check_price_limit, check_sender
from smsverify.errors import InvalidRequestError
from smsverify.text import shown
from smsverify.wings import own_type
from smsverify_provider.results import FewXComs

# Arguments that leave something out. Without one of them a task pays more, renews more or takes any SMS.
NARROWING = frozenset(
    {
        "max_price",
        "max_cost",
        "run_budget",
        "order_ids",
        "only",
        "exclude",
        "after",
        "sender",
        "pattern",
    }
)


def known(value: Any) -> Any:
    """The value, with `LATER` for all that only the run knows: a template, or the result of another task."""
    if hasattr(value, "resolve") or (isinstance(value, str) and ("{{" in value or "{%" in value)):
        return LATER
    if isinstance(value, Mapping):
        return {name: known(one) for name, one in value.items()}
    return [known(one) for one in value] if isinstance(value, (list, tuple, set)) else value


def _known_field(value: Any) -> Any:
    """The same for a whole template field: Airflow calls a function that stands there, with the context."""
    return LATER if callable(value) else known(value)


def is_known(value: Any) -> bool:
    """Whether there is no `LATER` in what `known` has given."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return value is not LATER and all(map(is_known, parts))


def _places_of_later(value: Any, place: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Where in an argument something stands that only the run knows: its name, then keys and positions."""
    if (known(value) if place[1:] else _known_field(value)) is LATER:
        yield place
    elif isinstance(value, (Mapping, list, tuple)):
        for key, one in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _places_of_later(one, (*place, key))


def _in_own_types(value: Any) -> Any:
    """The argument with the values of enums in the place of their members, which Jinja writes by name.

    A set becomes a list: its order differs between processes, and Airflow would see a new version of the Dag.
    """
    if type(value) is dict:
        return {name: _in_own_types(one) for name, one in value.items()}
    if type(value) in (set, frozenset):
        return sorted(map(_in_own_types, value), key=repr)
    return type(value)(map(_in_own_types, value)) if type(value) in (list, tuple) else own_type(value)


def is_nothing(value: Any) -> bool:
    """Whether there is no value.

    A template renders the missing result of another task as the word None, or gives an `Undefined`.
    """
    return value is None or isinstance(value, Undefined) or (isinstance(value, str) and value in ("", "None"))


def order_id_in(value: Any) -> Any:
    """What names an order: the value itself, or the `order_id` of a task's whole result."""
    return value["order_id"] if isinstance(value, Mapping) and "order_id" in value else value


def check_known(value: Any, check: Callable[[Any], Any]) -> None:
    """Checks an optional value if it is given and known."""
    if value is not None and value is not LATER:
        check(value)


def check_amounts(given: Mapping[str, Any], names: Iterable[str]) -> None:
    """Checks amounts of USD as far as they are known."""
    for name in names:
        check_known(given.get(name), partial(check_price_limit, field=name))


def refuse_read_once(value: Any, field: str) -> None:
    """Refuses what can be read only once, such as a generator: a check or a call leaves nothing of it."""
    if isinstance(value, Iterator):
        raise InvalidRequestError(
            f"{field} is a {type(value).__name__}, which can be read only once: give a list", field=field
        )


def check_text_pattern(pattern: Any) -> None:
    """Checks a pattern that has to be a text: the metadata database cannot keep the flags of a compiled one.

    Raises:
        InvalidRequestError: it is none, or malformed.
    """
    if not isinstance(pattern, str):
        raise InvalidRequestError(
            f"pattern {shown(pattern)} is malformed: it must be a text here. Write flags into it, such as "
            "(?i)",
            field="pattern",
        )
    check_pattern(pattern)
    _refuse_half(pattern, "pattern")


def check_text_sender(sender: Any) -> None:
    """Checks the name or number of a sender, which a trigger is given.

    Raises:
        InvalidRequestError: it is none, or malformed.
    """
    _refuse_half(check_sender(sender), "sender")


def _refuse_half(text: str, field: str) -> None:
    """Refuses half a character. Airflow could not send it to the trigger, and the task would just end."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(
            f"{field} {shown(text)} is malformed: it has half a character, which Airflow cannot keep",
            field=field,
        ) from None


def check_call(function: Callable[..., Any], args: Collection[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuses a function that cannot be called with these arguments and Airflow's context variables.

    A function that a decorator has wrapped passes: the decorator may add arguments of its own.

    Args:
        function: the function.
        args: the number, and what else comes without a name.
        kwargs: what comes by its name, besides the context variables that the function names.

    Raises:
        InvalidRequestError: it cannot be called so; `field` is "python_callable".
    """
    if hasattr(function, "__wrapped__"):
        return
    try:
        signature = inspect.signature(function)
        by_name = {name: None for name in signature.parameters if name in (KNOWN_CONTEXT_KEYS | {*kwargs})}
        signature.bind(*args, **by_name)
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(
            f"python_callable cannot be called: {error}. Its first parameter is for the number, and has the "
            "name of none of Airflow's context variables. What follows comes from op_args and op_kwargs",
            field="python_callable",
        ) from None


class CheckedOperator(FewXComs):
    """An operator whose `__init__` checks the arguments that it names in `checked`."""

    checked: ClassVar[tuple[str, ...]] = ()
    _later: tuple[tuple[Any, ...], ...] = ()

    def _check_arguments(self) -> None:
        """Checks what is known of the arguments; the last thing that `__init__` does.

        Raises:
            InvalidRequestError: an argument is wrong, or a necessary one is missing; `field` names it.
        """
        for name in self.template_fields:
            refuse_read_once(getattr(self, name, None), name)  # a subclass may set its own later
        for name in self.checked:
            setattr(self, name, _in_own_types(getattr(self, name)))
        given = {name: _known_field(getattr(self, name)) for name in self.checked}
        self._later = tuple(
            place for name in self.checked for place in _places_of_later(getattr(self, name), (name,))
        )
        self._check(given)

    def _check(self, given: Mapping[str, Any]) -> None:
        """Checks arguments by name; `LATER` stands for those that are not known yet."""
        raise NotImplementedError

    def _arguments(self) -> dict[str, Any]:
        """The arguments by name, rendered.

        Raises:
            InvalidRequestError: a template, or the task whose result it is, gave no value; `field` names it.
        """
        for place in (*self._later, *self._mapped_to_none()):
            self._refuse_no_value(*place)
        return {name: getattr(self, name) for name in self.checked}

    def _refuse_no_value(self, name: str, *keys: Any) -> None:
        """Refuses what would mean no limit, or nothing to leave out."""
        value = reduce(getitem, keys, getattr(self, name))
        is_empty = name in NARROWING and isinstance(value, str) and not value.strip()
        if value is not None and not isinstance(value, Undefined) and not is_empty:
            return
        what = name + "".join(f"[{key!r}]" for key in keys)
        raise InvalidRequestError(
            f"{what} came out as {'an empty text' if is_empty else 'None'}: its template, or the task whose "
            f"result it is, gave no value. Nothing was sent. Leave {what} out if you want none",
            field=name,
        )

    def _mapped_to_none(self) -> Iterator[tuple[str]]:
        """The narrowing arguments that `expand` has given no value; `partial` may leave them out."""
        if not getattr(self, "_BaseOperator__from_mapped", False):
            return
        given: Mapping[str, Any] = getattr(self, "_BaseOperator__init_kwargs", {})
        mapping = self.dag.task_dict.get(self.task_id)
        fixed: Mapping[str, Any] = getattr(mapping, "partial_kwargs", {})
        for name in self.checked:
            if name in NARROWING and name in given and name not in fixed and getattr(self, name) is None:
                yield (name,)
