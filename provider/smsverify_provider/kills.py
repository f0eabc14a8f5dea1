"""What becomes of a number when Airflow ends the task that holds it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import get_current_context

if TYPE_CHECKING:
    from smsverify_provider.hooks.smsverify import SmsVerifyHook

log = logging.getLogger(__name__)

# Airflow kills a task five seconds after it has told it to end.
KILL_BUDGET = 4.0
# Seconds in which the next try of a task begins, where that has no delay of its own: it may have to queue.
REQUEUE = 600.0
# The states after which a task does not run again by itself. A run that was deleted has none of them.
OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


def give_back(
    hook: SmsVerifyHook,
    order_id: int,
    *,
    ti: Any,
    waiter: str | None = None,
    tries_left: bool,
    reason: str = "the task that held it was killed",
) -> None:
    """Gives back the order of a task that is being ended, unless that will run again and need it.

    It goes on record first, so that nobody forgets it whatever happens next. If a further try is to come, it
    stays there until that claims the order. Should none come, somebody else cancels it later.

    Args:
        hook: on the order's account.
        order_id: the order.
        ti: the task instance; `None` where there is none, which never runs again.
        waiter: who gives it up; where another has claimed it meanwhile, nothing is done.
        tries_left: whether a further try comes if Airflow has not ended the task yet.
        reason: why, for people.
    """
    if not hook.plan_release(order_id, reason, waiter=waiter, patience=REQUEUE + _retry_delay(ti)):
        return
    if ti is not None and _runs_again(ti, tries_left):
        log.info("Order %d is kept: the task that held it is to run again", order_id)
        return
    hook.release(order_id, reason, waiter=waiter)


def has_tries_left(ti: Any) -> bool:
    """Whether another try comes after this one if it fails."""
    return ti is not None and ti.try_number <= ti.max_tries


def _runs_again(ti: Any, tries_left: bool) -> bool:
    try:
        state = state_of(ti)
    except Exception as error:
        # Whatever it is: the release is on record, and keeping the number for now is the lesser evil.
        log.warning("The state of task %s can not be read: %s", ti.task_id, type(error).__name__)
        return True
    return tries_left if state == "running" else state not in OVER


def state_of(ti: Any) -> str | None:
    """The state that Airflow has on record of a task, `None` for one that was cleared. Blocks."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    is_mapped = ti.map_index is not None and ti.map_index >= 0
    found = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id,
        run_ids=[ti.run_id],
        task_ids=[ti.task_id],
        map_index=ti.map_index if is_mapped else None,
    )
    name = f"{ti.task_id}_{ti.map_index}" if is_mapped else ti.task_id
    state = found.get(ti.run_id, {}).get(name, "removed")
    return None if state is None else str(state)


def _retry_delay(ti: Any) -> float:
    delay = getattr(getattr(ti, "task", None), "retry_delay", None)
    return delay.total_seconds() if isinstance(delay, timedelta) else 0.0


def within_kill_budget(*works: Callable[[], Any]) -> None:
    """Does things at the end of a task that is being killed, as long as Airflow gives it time.

    `on_kill` runs in a signal handler. The code that it has interrupted may hold a lock that the work needs,
    and can not go on before the handler returns: hence threads, and a limited wait for them.
    """
    deadline = time.monotonic() + KILL_BUDGET
    threads = [threading.Thread(target=work, name="smsverify-kill", daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


@contextmanager
def at_kill(work: Callable[[], Any]) -> Iterator[None]:
    """Inside a task, does something when Airflow ends that while the `with` block lasts.

    Airflow tells nobody but the operator, by its `on_kill`, and one like `@task` has nothing to do there. In
    whatever thread the block is: only the main one could have its own signal handler.
    """
    try:
        task: Any = get_current_context()["ti"].task
    except (RuntimeError, AttributeError):
        yield
        return
    works, this = _works_of(task), object()
    works[this] = work
    try:
        yield
    finally:
        del works[this]


_extending = threading.Lock()


def _works_of(task: Any) -> dict[object, Callable[[], Any]]:
    """What is to be done when this task is killed, before what its own `on_kill` does."""
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
