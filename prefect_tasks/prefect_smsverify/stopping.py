"""When the work of a run has to stop: the run goes down, has ended without success, or is suspended.

Prefect throws away what a task of a suspended run returns, and runs the flow again from its beginning when it
is resumed. So a number that is waited for then is given back, and the resumed run buys another one; nothing
is paid for a run that nobody resumes.

An event loop outlives the flow runs in it. A coroutine that the flow has left behind goes on when the run has
failed, and must not buy any more.

A signal or a cancellation raises in the main thread only. Prefect waits for the threads of submitted and
mapped tasks and does not inform them, so each wait checks a `Stop`.

A task that runs in another process than its flow, such as a task of `ProcessPoolTaskRunner`, sees nothing of
the flow's process. There a thread checks now and then whether that process is gone, and whether the flow run
or one around it is being cancelled, is suspended, was cancelled, has failed or has crashed. A flow run that
has completed may have left the task to a task worker. The thread cannot see a SIGTERM or SIGINT that only the
flow's process receives: that process does not end before the waits of its tasks, or before it is killed.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from itertools import chain
from multiprocessing import parent_process
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext, TaskRunContext

from prefect_smsverify.keys import enclosing
from prefect_smsverify.outer_runs import runs_around
from prefect_smsverify.transactions import on_undo, transactions
from smsverify.text import log_of
from smsverify.wings import ProcessLock

LOOK = 0.2  # seconds between two checks of a `Stop`
FLOW_RUN_LOOK = 3.0  # seconds between two requests for the flow run; Prefect kills a cancelled one after 30
SUSPENSION = "flow_run_suspension_request"  # what Prefect keeps in the context of a flow run

log = log_of(__name__)

Condition = Callable[[], bool]

_stops: ContextVar[tuple[threading.Event, ...]] = ContextVar("smsverify_stops", default=())


class Stop(threading.Event):
    """An event that is set too when one of several conditions holds.

    Args:
        conditions: hold when the run goes down.
        suspensions: hold when it is suspended.
    """

    def __init__(self, *conditions: Condition, suspensions: Iterable[Condition] = ()) -> None:
        super().__init__()
        self._suspensions = tuple(suspensions)
        self._conditions = conditions + self._suspensions

    def is_set(self) -> bool:
        """Whether it is set, or a condition holds."""
        return super().is_set() or any(condition() for condition in self._conditions)

    def is_suspended(self) -> bool:
        """Whether the run is suspended, so that it may be resumed."""
        return any(suspension() for suspension in self._suspensions)

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
    """A `Stop` that is set when the run that this code is a part of goes down.

    Args:
        undone: whether it is set too when a transaction around this code is undone.
    """
    stop = Stop(
        *_block_conditions(),
        *_task_runner_conditions(),
        *_flow_conditions(),
        *_other_process_conditions(),
        suspensions=_suspensions(),
    )
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


def _block_conditions() -> Iterator[Condition]:
    for event in _stops.get():
        yield event.is_set


def _task_runner_conditions() -> Iterator[Condition]:
    # A flow that goes down sets an event for each task that it has submitted. Prefect checks it only before
    # the task starts, and has no public way to it.
    tasks = [context.task_run.id for context in enclosing(TaskRunContext)]
    for flow in enclosing(FlowRunContext):
        events = getattr(flow.task_runner, "_cancel_events", {})
        for task_id in tasks:
            if isinstance(event := events.get(task_id), threading.Event):
                yield event.is_set


def _flow_conditions() -> Iterator[Condition]:
    for flow in enclosing(FlowRunContext):
        if not flow.detached:
            yield partial(_was_left_behind_by, flow)


def _suspensions() -> Iterator[Condition]:
    for flow in enclosing(FlowRunContext):
        # Before Prefect 3.8, a run that is suspended from outside goes on, and nothing is to be done.
        suspension = getattr(flow, SUSPENSION, None)
        if suspension is not None:
            yield suspension.is_requested
        if flow.detached and flow.flow_run is not None:
            yield _look_at(flow.flow_run).was_suspended


def _was_left_behind_by(flow: FlowRunContext) -> bool:
    """Whether a flow run has ended without success, and with it what its flow has called."""
    # A hook of the flow runs when the state is known, in the context, which has a token until it is left.
    has_left = getattr(flow, "_token", None) is None
    return has_left and flow.flow_run is not None and _has_failed(flow.flow_run.state)


def _has_failed(state: State | None) -> bool:
    return state is not None and state.is_final() and not state.is_completed()


# -------------------------------------------------------------- a flow in another process

_looks: weakref.WeakValueDictionary[UUID, _Look] = weakref.WeakValueDictionary()
_lock = ProcessLock()


def _other_process_conditions() -> Iterator[Condition]:
    for flow in enclosing(FlowRunContext):
        if flow.detached and flow.flow_run is not None:
            yield _look_at(flow.flow_run).has_ended


def _look_at(run: FlowRun) -> _Look:
    with _lock:
        look = _looks.get(run.id)
        if look is None:
            look = _looks[run.id] = _Look()
            # With the context of this run, whose settings say where the server is.
            thread = threading.Thread(
                target=copy_context().run,
                args=(_keep_looking, run, weakref.ref(look)),
                name="smsverify-flow-run",
                daemon=True,
            )
            thread.start()
        return look


class _Look:
    """What was seen of a flow run; the thread that looks ends with the last reference."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.state: State | None = None  # that ends it

    def has_ended(self) -> bool:
        return self.ended.is_set()

    def was_suspended(self) -> bool:
        return _is_suspended(self.state)


def _keep_looking(run: FlowRun, wanted: weakref.ref[_Look]) -> None:
    while (look := wanted()) is not None:
        look.state = _ending(run)
        if look.state is not None or _parent_is_gone():
            look.ended.set()
            return
        del look
        threading.Event().wait(FLOW_RUN_LOOK)


def _parent_is_gone() -> bool:
    parent = parent_process()
    return parent is not None and not parent.is_alive()


def _ending(run: FlowRun) -> State | None:
    """The state in which a flow run or one around it goes down, as the server knows it."""
    try:
        with get_client(sync_client=True) as client:
            # One after the other: where those around cannot be read, the run itself may.
            states = (client.read_flow_run(one.id).state for one in chain((run,), runs_around(run)))
            return next((state for state in states if _goes_down(state)), None)
    except Exception as error:  # the next look asks the server again
        log.debug("Flow run %s cannot be read: %s", run.id, error)
        return None


def _goes_down(state: State | None) -> bool:
    return state is not None and (state.is_cancelling() or _is_suspended(state) or _has_failed(state))


def _is_suspended(state: State | None) -> bool:
    return state is not None and state.name == "Suspended" and SUSPENSION in FlowRunContext.model_fields
