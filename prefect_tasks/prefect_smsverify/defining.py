"""How each task of this wing is defined, whatever Prefect's settings are: nothing is kept, and it runs once.

Prefect writes results as plain files, and these hold codes; and a cached purchase would give one number to
equal calls. The store has the purchases.

The client repeats for minutes what is safe to repeat. With retries of the task, each attempt would roll back
the transaction around it, because Prefect does so whenever a task fails, and `verify_number` would try that
many times its `attempts`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from prefect import Task
from prefect.cache_policies import NO_CACHE

from smsverify.errors import InvalidRequestError

P = ParamSpec("P")
R = TypeVar("R")


class UnkeptTask(Task[P, R]):
    """A task that Prefect keeps nothing of.

    So it does not run in the background: there Prefect writes the arguments, with the API key of a block, and
    the result, which is lost otherwise; and its `TaskWorker` caches each task that has no cache policy.
    """

    if not TYPE_CHECKING:  # so that type checkers see the signature of Prefect's

        @wraps(Task.with_options)
        def with_options(self, **options: Any) -> UnkeptTask[P, R]:
            """A copy. One that is to keep its result refuses when it runs, and not before: a `TaskWorker`
            makes one of each task that a module has, also of a task that the module only calls.
            """
            is_kept = options.pop("persist_result", False) is True
            changed = super().with_options(**options | ({"cache_policy": NO_CACHE} if is_kept else {}))
            changed.__class__ = type(self)  # Prefect makes a plain Task
            if is_kept:
                changed.fn = changed._refusing(changed.fn)
            return changed

    def serve(self, *_: Any, **__: Any) -> NoReturn:
        """Refuses."""
        self._refuse()

    def apply_async(self, *_: Any, **__: Any) -> NoReturn:
        """Refuses; `delay` and `map(deferred=True)` call it too."""
        self._refuse()

    def _refusing(self, function: Callable[P, R]) -> Callable[P, R]:
        """In the place of a function: it has the signature, which Prefect reads before a call."""

        @wraps(function)
        def refuse(*_: P.args, **__: P.kwargs) -> R:
            self._refuse()

        return refuse

    def _refuse(self) -> NoReturn:
        raise InvalidRequestError(
            f"the task {self.name!r} does not run in the background (delay, serve), and its result cannot be "
            "kept: Prefect would write codes and API keys to files, and would give equal calls one result. "
            "Nothing was sent. Write a task of your own that calls it, and let that one run in the "
            "background or keep its result",
            field="persist_result",
        )


def task(name: str) -> Callable[[Callable[P, R]], UnkeptTask[P, R]]:
    """Makes a task of a function, as Prefect's decorator does."""

    def defined(function: Callable[P, R]) -> UnkeptTask[P, R]:
        # `log_prints=None`, which is the decorator's default but not the class's, takes the flow's.
        return UnkeptTask(
            function, name=name, persist_result=False, cache_policy=NO_CACHE, retries=0, log_prints=None
        )

    return defined
