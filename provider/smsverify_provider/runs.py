"""The task that runs: whose purchases they are, and when they are handed over."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable
from contextvars import ContextVar
from itertools import count
from typing import Any, ClassVar

from airflow.sdk import get_current_context
from airflow.sdk.definitions._internal.contextmanager import DagContext

from smsverify.errors import InvalidRequestError
from smsverify.wings import Handover, ProcessLock, RunContext, Task
from smsverify_provider.kills import at_end, at_final_failure, has_tries_left, retry_within
from smsverify_provider.metrics import AirflowMetrics
from smsverify_provider.versions import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    conf,
)

TASK_LENGTH = 300  # of the 500 characters that a key may have with its namespace

# The executors whose tasks all run on the scheduler's machine.
LOCAL_EXECUTORS = frozenset({"LocalExecutor", "SequentialExecutor", "DebugExecutor"})

# The errors after which Airflow tries a task no more.
FOR_GOOD = (AirflowFailException, AirflowSensorTimeout, AirflowSkipException)

# The keys that each try of a task has used: equal calls get different ones, and a retry gets the same again.
_used_keys: set[tuple[str, str]] = set()
_used_keys_lock = ProcessLock()


class AirflowRun(RunContext):
    """The task instance that runs, if any."""

    framework: ClassVar[str] = "airflow"

    def check_place(self) -> None:
        """Refuses a paid call while a Dag is defined, besides what is refused everywhere."""
        if DagContext.get_current() is not None and running_ti() is None:
            raise InvalidRequestError(
                "nothing was sent: the call is made while a Dag is defined. Airflow defines it again and "
                "again, and would buy each time. Make this call in a task"
            )
        super().check_place()

    def default_key(self, fingerprint: str) -> str | None:
        """Derives the key from the task; equal calls in one try are numbered."""
        this_try = _running_try()
        if this_try is None:
            return super().default_key(fingerprint)
        name, task = this_try
        with _used_keys_lock:
            keys = (f"airflow:{task}:{fingerprint[:32]}:{nth}" for nth in count(1))
            key = next(key for key in keys if (name, key) not in _used_keys)
            _used_keys.add((name, key))
        return key

    def key_failed(self, key: str) -> None:
        """The next equal call of this try gets the key again."""
        this_try = _running_try()
        if this_try is not None:
            with _used_keys_lock:
                _used_keys.discard((this_try[0], key))

    def next_try_within(self) -> float | None:
        """The delay until the next try of the task, with the time that it may be queued.

        None comes after an error that ends the task for good, if such a one is being handled.
        """
        ti = running_ti()
        is_last = isinstance(sys.exc_info()[1], FOR_GOOD) or not has_tries_left(ti)
        return None if is_last else retry_within(ti)

    def at_final_failure(self, work: Callable[[], Any]) -> None:
        """In the task's failure callback, which Airflow calls after its last try."""
        at_final_failure(work)

    def name(self) -> str:
        """The Dag run."""
        ti = running_ti()
        return super().name() if ti is None else f"airflow:{ti.dag_id}:{ti.run_id}"

    def task(self) -> Task | None:
        """The task instance that runs, or for which a trigger waits."""
        ti = running_ti() or _waiting_ti.get()
        if ti is None:
            return None
        index = -1 if ti.map_index is None else ti.map_index
        return Task(
            framework="airflow",
            workflow=ti.dag_id,
            name=ti.task_id if index < 0 else f"{ti.task_id}[{index}]",
            ids={"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": index},
        )

    def metrics(self) -> AirflowMetrics:
        """Airflow's own."""
        return AirflowMetrics()

    def why_unshared(self) -> str | None:
        """The executors that run tasks on other machines."""
        # A pod that an executor has started gets the name of a local executor: it runs alone.
        if os.environ.get("AIRFLOW_IS_K8S_EXECUTOR_POD"):
            return "each task runs in a pod of its own"
        # One or several, by name or path, with alias or team: "LocalExecutor,team=alias:my.OtherExecutor".
        configured = re.split(r"[^\w]+", conf.get("core", "executor", fallback="LocalExecutor"))
        distant = sorted({name for name in configured if name.endswith("Executor")} - LOCAL_EXECUTORS)
        return f"{' and '.join(distant)} runs tasks on other machines" if distant else None

    def hand_over(
        self,
        order_id: int,
        handover: Handover,
        holder: str,
        then: Callable[[], object] = lambda: None,
        *,
        then_if_failed: bool = True,
    ) -> None:
        """Hands an order over when its task has succeeded; a task that is killed never does."""
        if running_ti() is None:
            super().hand_over(order_id, handover, holder, then)
        else:
            held = handover.hold(order_id, holder=holder, at_end=then)
            at_end(held.hand_over, held.let_go if then_if_failed else held.drop)


# In the triggerer, the task instance that the coroutine waits for.
_waiting_ti: ContextVar[Any] = ContextVar("smsverify_waiting_ti", default=None)
wait_for_ti = _waiting_ti.set


def running_ti() -> Any:
    """The task instance that runs; `None` outside of a task."""
    try:
        return get_current_context()["ti"]
    except RuntimeError:
        return None


def _running_try() -> tuple[str, str] | None:
    """Names the try that runs, and what all tries of its task have in common; `None` outside of a task."""
    ti = running_ti()
    if ti is None:
        return None
    task = f"{ti.dag_id}:{ti.run_id}:{ti.task_id}"
    if len(task) > TASK_LENGTH:
        task = hashlib.sha256(task.encode()).hexdigest()
    return f"{ti.id} {ti.try_number}", f"{task}:{ti.map_index}"
