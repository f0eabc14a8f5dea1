"""When a wait has to end: the run that it is a part of is going down.

A signal or a cancellation raises in the main thread only. Prefect waits for the threads of submitted and
mapped tasks and does not tell them, so waits look for themselves.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from prefect.context import FlowRunContext, TaskRunContext

from prefect_smsverify.elsewhere import signs_of_an_end
from prefect_smsverify.keys import enclosing
from prefect_smsverify.undo import on_undo, transactions

LOOK = 0.2  # seconds between two looks

_stops: ContextVar[tuple[threading.Event, ...]] = ContextVar("smsverify_stops", default=())


class Stop(threading.Event):
    """An event that is set too when one of several conditions holds."""

    def __init__(self, *conditions: Callable[[], bool]) -> None:
        super().__init__()
        self._conditions = conditions

    def is_set(self) -> bool:
        """Whether it is set, or a condition holds."""
        return super().is_set() or any(condition() for condition in self._conditions)

    def wait(self, timeout: float | None = None) -> bool:
        """Blocks until `is_set`, for `timeout` seconds at most."""
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            super().wait(min(left, LOOK))
        return True


def current_stop(*, undone: bool = True) -> Stop:
    """Set when the run that this code is a part of goes down.

    Args:
        undone: whether it is set too when what is done here is being undone.
    """
    stop = Stop(*_block_conditions(), *_task_runner_conditions(), *signs_of_an_end())
    for transaction in transactions() if undone else ():
        on_undo(transaction, stop.set)
    return stop


@contextmanager
def stopping_waits() -> Iterator[None]:
    """Ends all waits that are started in a `with` block, in whatever thread, when an exception leaves it."""
    stop = threading.Event()
    token = _stops.set((*_stops.get(), stop))
    try:
        yield
    except BaseException:
        stop.set()
        raise
    finally:
        _stops.reset(token)


def _block_conditions() -> Iterator[Callable[[], bool]]:
    for event in _stops.get():
        yield event.is_set


def _task_runner_conditions() -> Iterator[Callable[[], bool]]:
    # A flow that goes down sets an event for each task that it has submitted. Prefect looks at it only before
    # the task starts, and gives nobody else a public way to it.
    tasks = [context.task_run.id for context in enclosing(TaskRunContext)]
    for flow in enclosing(FlowRunContext):
        events = getattr(flow.task_runner, "_cancel_events", {})
        for task_id in tasks:
            if isinstance(event := events.get(task_id), threading.Event):
                yield event.is_set
