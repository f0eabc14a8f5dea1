"""Arguments of a call as plain data that is the same in every attempt and in every process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any
from uuid import UUID

from prefect import Flow, Task
from prefect.blocks.core import Block
from pydantic import BaseModel

from smsverify.models import Message, Order, OrderStatus

_WRITTEN = (UUID, date, time, timedelta, Decimal, PurePath, bytes, bytearray, complex, range)


def plain(value: Any, inside: frozenset[int] = frozenset()) -> Any:
    """A value as JSON has it. Of what has no lasting value (a connection, an iterator), the type's name.

    Nothing is consumed, and nothing of a secret is in it. A function counts by its name and by the values
    that are bound to it.

    Args:
        value: the value.
        inside: the ids of the objects that it is a part of.
    """
    inner = partial(plain, inside=inside | {id(value)})
    name = type(value).__qualname__
    result: Any = name
    if isinstance(value, Enum):
        result = [name, value.name]
    elif value is None or isinstance(value, (bool, int, float, str)):
        result = value
    elif isinstance(value, _WRITTEN):
        result = [name, str(value)]
    elif isinstance(value, (Order, OrderStatus, Message)):
        result = [name, value.order_id]  # the rest changes with time
    elif isinstance(value, Mapping):
        result = sorted(([inner(key), inner(item)] for key, item in value.items()), key=repr)
    elif isinstance(value, (list, tuple)):
        result = [inner(item) for item in value]
    elif isinstance(value, Set):
        result = sorted((inner(item) for item in value), key=repr)
    elif isinstance(value, BaseModel) and not _is_account(value):
        result = [name, *([field, inner(getattr(value, field, None))] for field in type(value).model_fields)]
    elif is_dataclass(value) and not isinstance(value, type):
        result = [name, *([field.name, inner(getattr(value, field.name, None))] for field in fields(value))]
    elif callable(value):
        result = _plain_callable(value, name, inside, inner)
    return result


def _plain_callable(value: Any, name: str, inside: frozenset[int], inner: Callable[[Any], Any]) -> Any:
    result: Any = name
    if isinstance(value, (Task, Flow)):
        result = [name, value.name, inner(value.fn)]
    elif isinstance(value, partial):
        result = [name, inner(value.func), inner(value.args), inner(value.keywords)]
    elif isinstance(value, MethodType):
        result = [name, value.__qualname__]
        if id(value.__self__) not in inside:  # an object may keep a method of its own
            result.append(inner(value.__self__))
    elif isinstance(value, FunctionType):
        # Not its module: that of a flow's file depends on how it was loaded. And no variable around it: that
        # may be another one's already when the call is made.
        result = [name, value.__qualname__]
        if id(value) not in inside:  # a function may be among its own defaults
            result += [inner(value.__defaults__), inner(value.__kwdefaults__)]
    elif isinstance(value, (BuiltinFunctionType, type)):
        result = [name, value.__qualname__]
    return result


def _is_account(value: object) -> bool:
    """Whether a value names where is bought, not what; it may be edited before the run goes on."""
    return isinstance(value, Block) and type(value).get_block_type_slug() == "smsverify-credentials"
