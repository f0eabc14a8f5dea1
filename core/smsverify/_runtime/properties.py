"""Properties that are made when they are first asked for, and kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class cached_property(Generic[T]):
    """Like the one of `functools` from Python 3.12 on, which takes no lock.

    Before, all objects of a class share one for each property. While a thread makes a part of one hook,
    nobody else makes that of another one, and a child that is forked then never does.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._name = make.__name__
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> cached_property[T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> cached_property[T] | T:
        if instance is None:
            return self
        # Of two threads that make it, both get the same one.
        made: T = instance.__dict__.setdefault(self._name, self._make(instance))
        return made
