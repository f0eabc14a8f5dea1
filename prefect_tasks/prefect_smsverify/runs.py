"""The run that this code is a part of: whose purchases they are, and when they are handed over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any, ClassVar

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import PrefectException
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

from prefect_smsverify.keys import RunKey, enclosing, run_key
from prefect_smsverify.outer_runs import flow_runs, runs_around
from prefect_smsverify.transactions import hand_over_at_the_end, is_in_a_run
from smsverify.wings import Handover, RunContext, Task

LOCAL_POOLS = frozenset({"process"})  # the work pools whose flows run on the worker's machine
LOCAL_RUNNERS = (ThreadPoolTaskRunner, ProcessPoolTaskRunner)
RESTART = 600.0  # seconds in which the next attempt of a run begins, beside its delay


class PrefectRun(RunContext):
    """The task run and the flow runs around this code, if any."""

    framework: ClassVar[str] = "prefect"

    def __init__(self) -> None:
        self._keys: dict[str, RunKey] = {}

    def default_key(self, fingerprint: str) -> str | None:
        """Derives the key from the runs around the call."""
        key = run_key(fingerprint)
        if key is None:
            return super().default_key(fingerprint)
        self._keys[key.text] = key
        return key.text

    def key_failed(self, key: str) -> None:
        """The next equal call of the run gets the key again."""
        self._keys.pop(key).give_back()

    def next_try_within(self) -> float | None:
        """The delay until the next attempt of a task or flow around this code, with the time to start it."""
        delays: list[float] = []
        for task in enclosing(TaskRunContext):
            if task.task_run.run_count <= (task.task.retries or 0):
                delays.append(_longest(task.task.retry_delay_seconds))
        for flow in enclosing(FlowRunContext):
            if flow.flow and flow.flow_run and flow.flow_run.run_count <= (flow.flow.retries or 0):
                delays.append(_longest(flow.flow.retry_delay_seconds))
            if flow.detached and flow.flow_run:
                delays.extend(_delays_around(flow.flow_run))
        return RESTART + max(delays) if delays else None

    def name(self) -> str:
        """The root flow run; without one, the outermost task run.

        Raises:
            SettingsUnavailableError: Prefect's server does not say which one it is.
        """
        if runs := flow_runs():
            return f"prefect:{runs[-1].id}"
        tasks = list(enclosing(TaskRunContext))
        return f"prefect:{tasks[-1].task_run.id}" if tasks else super().name()

    def task(self) -> Task | None:
        """The task run, in its flow run if there is one, otherwise in the outermost task run."""
        flow, tasks = FlowRunContext.get(), list(enclosing(TaskRunContext))
        ids: dict[str, str | int] = {}
        if flow is not None and flow.flow_run is not None:
            workflow = flow.flow.name if flow.flow else flow.flow_run.name
            ids["flow_run_id"] = str(flow.flow_run.id)
        elif tasks:
            workflow = tasks[-1].task.name
        else:
            return None
        if tasks:
            ids["task_run_id"] = str(tasks[0].task_run.id)
        name = tasks[0].task_run.name if tasks else ""
        return Task(framework="prefect", workflow=workflow, name=name, ids=ids)

    def why_unshared(self) -> str | None:
        """The task runner or the work pool that runs this on other machines."""
        for context in enclosing(FlowRunContext):
            if context.detached and not isinstance(context.task_runner, LOCAL_RUNNERS):
                return f"the {type(context.task_runner).__name__} may run tasks elsewhere"
        # A subflow runs where the flow run around it does, but only that one knows its work pool.
        pools = [run.work_pool_name for run in flow_runs() if run.work_pool_name]
        # None where it was run by hand, or is served by a process that is its own worker.
        return _why_elsewhere(pools[0]) if pools else None

    def hand_over(
        self,
        order_id: int,
        handover: Handover,
        holder: str,
        then: Callable[[], object] = lambda: None,
        *,
        then_if_failed: bool = True,
    ) -> None:
        """Hands an order over when what it was bought in has come to a good end."""
        if is_in_a_run():
            hand_over_at_the_end(order_id, handover, holder, then)
        else:
            super().hand_over(order_id, handover, holder, then)


def _longest(delay: Any) -> float:
    several = delay if isinstance(delay, (list, tuple)) else [delay or 0]
    return max((float(one) for one in several), default=0.0)


def _delays_around(run: FlowRun) -> Iterator[float]:
    """The delays until the next attempts of the flow runs around one whose process this is not."""
    # Without the server, no attempt is expected, so that what failed is given back at once.
    with suppress(PrefectException, httpx.HTTPError), get_client(sync_client=True) as client:
        for around in runs_around(run):
            policy, count = around.empirical_policy, client.read_flow_run(around.id).run_count
            if count <= (policy.retries or 0):
                yield float(policy.retry_delay or 0)


def _why_elsewhere(pool: str) -> str | None:
    try:
        kind = _kind_of(pool)
    except (PrefectException, httpx.HTTPError) as error:
        return f"it is not known where the work pool {pool!r} runs flows ({type(error).__name__})"
    return None if kind in LOCAL_POOLS else f"the {kind} work pool {pool!r} runs flows elsewhere"


@cache
def _kind_of(pool: str) -> str:
    with get_client(sync_client=True) as client:
        return client.read_work_pool(pool).type
