"""What happens to a number when Airflow ends the task that holds it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import get_current_context

from smsverify.errors import StoreError
from smsverify.text import log_of
from smsverify.wings import ProcessLock, is_worth_keeping, plan_release
from smsverify_provider.versions import AirflowTaskTimeout, ask

if TYPE_CHECKING:
    from smsverify.hook import SmsVerifyHook

log = log_of(__name__)

# Airflow kills a task five seconds after the signal that asks it to end.
KILL_BUDGET = 4.0
# Seconds in which the next try of a task begins, where that has no delay of its own: it may have to queue.
REQUEUE = 600.0
LONGEST_DELAY = 86_400.0  # seconds; Airflow's delays that grow end there
# The states after which a task does not run again by itself. A run that was deleted has none of them.
OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


def give_back(
    hook: SmsVerifyHook,
    order_id: int,
    *,
    ti: Any,
    waiter: str | None = None,
    tries_left: bool | None = None,
    has_result: bool = False,
    reason: str = "the task that held it was killed",
    read_state: Callable[[Any], str | None] | None = None,
) -> None:
    """Gives back the order of a task that is being ended, unless the task still needs it.

    The release goes on record first, so that it is done whatever happens next. If a further try is to come,
    the release stays on record until that try claims the order. If no try comes, another process cancels it
    later. If the store cannot be used, that is logged: the error that ends the task is another one.

    Args:
        hook: on the order's account.
        order_id: the order.
        ti: the task instance; `None` outside of a task.
        waiter: who gives it up; if another waiter has claimed the order meanwhile, nothing is done.
        tries_left: whether a further try comes if Airflow has not ended the task yet. Default: what
            `is_kept_for_next_try` says.
        has_result: whether the task has its result already. It may be about to succeed, and has succeeded if
            Airflow says so.
        reason: why, for the log.
        read_state: reads the state that Airflow has on record of the task. Default: `state_of`.
    """
    from smsverify.numbers import errors_logged

    is_on_record = False
    with errors_logged(order_id):
        is_on_record = plan_release(hook, order_id, reason, waiter=waiter, patience=retry_within(ti))
    if not is_on_record:
        return
    with _later_errors_logged(order_id):
        state = "removed" if ti is None else _read(read_state or state_of, ti)
        if state == "running" and not has_result:
            is_kept = is_kept_for_next_try(hook, order_id, ti) if tries_left is None else tries_left
        else:
            is_kept = state not in (OVER - {"success"} if has_result else OVER)
        if not is_kept:
            hook.release(order_id, reason, waiter=waiter)
            return
        log.info("Order %d is kept, because its task may still need it", order_id)
        at_final_failure(lambda: hook.release(order_id, reason, waiter=waiter))


@contextmanager
def _later_errors_logged(order_id: int) -> Iterator[None]:
    """The same as `errors_logged` for an order whose release is on record."""
    try:
        yield
    except StoreError as error:
        log.error(
            "The release of order %d stays on record, because the store cannot be used: %s. Another process "
            "on this store gives the number back later, unless the next try of the task goes on with it",
            order_id,
            error,
        )


def has_tries_left(ti: Any) -> bool:
    """Whether another try comes after this one if it fails."""
    return ti is not None and ti.try_number <= ti.max_tries


def is_kept_for_next_try(hook: SmsVerifyHook, order_id: int, ti: Any) -> bool:
    """Whether another try comes after this one if it fails, in time for the order's code."""
    return has_tries_left(ti) and is_worth_keeping(hook, order_id, retry_within(ti))


def _read(read_state: Callable[[Any], str | None], ti: Any) -> str | None:
    """The state of a task; `None`, as for one that was cleared, if it cannot be read."""
    try:
        return read_state(ti)
    except Exception as error:
        # The release is on record, and keeping the number for now is the lesser evil.
        log.warning("The state of task %s cannot be read: %s", ti.task_id, type(error).__name__)
        return None


def state_of(ti: Any) -> str | None:
    """The state that Airflow has on record of a task, `None` for one that was cleared. Blocks."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    return _state_in(RuntimeTaskInstance.get_task_states(**_criteria(ti)), ti)


async def state_on_loop(ti: Any) -> str | None:
    """The same for a triggerer, which asks Airflow on its event loop and in no thread."""
    from airflow.sdk.execution_time.comms import GetTaskStates
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    answer: Any = await ask(SUPERVISOR_COMMS.asend(GetTaskStates(**_criteria(ti))))
    return _state_in(answer.task_states, ti)


def _criteria(ti: Any) -> dict[str, Any]:
    return {
        "dag_id": ti.dag_id,
        "run_ids": [ti.run_id],
        "task_ids": [ti.task_id],
        "map_index": ti.map_index if _is_mapped(ti) else None,
    }


def _state_in(found: Mapping[str, Any], ti: Any) -> str | None:
    name = f"{ti.task_id}_{ti.map_index}" if _is_mapped(ti) else ti.task_id
    state = found.get(ti.run_id, {}).get(name, "removed")
    return None if state is None else str(state)


def _is_mapped(ti: Any) -> bool:
    return ti.map_index is not None and ti.map_index >= 0


def retry_within(ti: Any) -> float:
    """Within how many seconds the next try of a task begins, if one comes."""
    task = getattr(ti, "task", None)
    delay = getattr(task, "retry_delay", None)
    if not isinstance(delay, timedelta):
        return REQUEUE
    seconds, backoff = delay.total_seconds(), getattr(task, "retry_exponential_backoff", 0)
    factor = 2.0 if backoff is True else float(backoff or 1)  # before SDK 1.2, it is a switch
    if factor > 1:
        # Airflow adds up to as much again.
        seconds = min(2 * seconds * min(factor, LONGEST_DELAY) ** min(ti.try_number - 1, 50), LONGEST_DELAY)
        longest = getattr(task, "max_retry_delay", None)
        seconds = min(seconds, longest.total_seconds()) if isinstance(longest, timedelta) else seconds
    return REQUEUE + seconds


def within_kill_budget(*works: Callable[[], Any]) -> None:
    """Does some work at the end of a task that is being killed, while Airflow leaves it time.

    `on_kill` runs in a signal handler. The code that it has interrupted may hold a lock that the work needs,
    and cannot go on before the handler returns. So threads do it, and the wait for them is limited.
    """
    deadline = time.monotonic() + KILL_BUDGET
    threads = [threading.Thread(target=work, name="smsverify-kill", daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


@contextmanager
def at_kill(work: Callable[[], Any]) -> Iterator[None]:
    """Inside a task, does some work when Airflow ends the task while the `with` block lasts.

    Airflow calls the operator's `on_kill` and nothing else, and an operator such as `@task` does nothing
    there. The block may be in any thread, and only the main thread could have a signal handler of its own.
    """
    task = _running_task()
    if task is None:
        yield
        return
    works, this = _works_of(task), object()
    works[this] = work
    try:
        yield
    except AirflowTaskTimeout:
        # Airflow interrupts a task whose `execution_timeout` is over, and calls its `on_kill` only then.
        within_kill_budget(work)
        raise
    except asyncio.CancelledError:
        # The end of an event loop cancels what runs in it. Whether the task ends too, `on_kill` says.
        rest = object()
        works[rest] = work
        at_success(lambda: works.pop(rest))
        raise
    finally:
        del works[this]


def at_end(succeeded: Callable[[], Any], failed: Callable[[], Any]) -> None:
    """Inside a task, calls `succeeded` when the task has succeeded, or `failed` when its try ends otherwise.

    Airflow calls them after the task's end is on record. A process that is killed before that calls neither:
    then the task has not succeeded.
    """
    at_success(succeeded)
    for kind in ("failure", "retry", "skipped"):
        _call_around(kind, failed)


def at_success(work: Callable[[], Any]) -> None:
    """Inside a task, does some work when the task has succeeded."""
    _call_around("success", work)


def at_final_failure(work: Callable[[], Any]) -> None:
    """Inside a task, does some work if its try, which fails, turns out to be the last one.

    Whether another one comes, a retry policy may decide when the task has failed already. The work may take
    long, so after a few seconds it goes on beside the user's callbacks, of which one may raise an alert.
    """
    thread = threading.Thread(target=work, name="smsverify-kill", daemon=True)

    def begin() -> None:
        thread.start()
        thread.join(KILL_BUDGET)

    _call_around("failure", begin, thread.join)


def _call_around(kind: str, first: Callable[[], Any], last: Callable[[], Any] | None = None) -> None:
    """Lets Airflow call something before the user's callbacks for an end of the task, and after them.

    One of those may hang until Airflow ends the process, or exit: then nothing after it is called.
    """
    task, name = _running_task(), f"on_{kind}_callback"
    if task is None:
        return
    with _extending:
        after = [] if last is None else [_ignoring_context(last)]
        setattr(task, name, [_ignoring_context(first), *getattr(task, name), *after])


def _running_task() -> Any:
    """The operator of the task that runs; `None` outside of a task."""
    try:
        return get_current_context()["ti"].task
    except (RuntimeError, AttributeError):
        return None


def _ignoring_context(work: Callable[[], Any]) -> Callable[[Any], None]:
    def callback(_context: Any) -> None:
        work()

    return callback


_extending = ProcessLock()


def _works_of(task: Any) -> dict[object, Callable[[], Any]]:
    """The work for a kill of this task, which is done before its own `on_kill`."""
    with _extending:
        works: dict[object, Callable[[], Any]] | None = getattr(task.on_kill, "works", None)
        if works is None:
            works = {}
            task.on_kill = _extended(task.on_kill, works)
    return works


def _extended(on_kill: Callable[[], None], works: dict[object, Callable[[], Any]]) -> Callable[[], None]:
    def extended() -> None:
        if works:
            within_kill_budget(*works.values())
        on_kill()

    extended.works = works  # type: ignore[attr-defined]
    return extended
