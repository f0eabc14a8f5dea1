"""The flow runs around this code, up to the root, even if this code runs in another process.

There, Prefect knows only the innermost one. Its server knows the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound, PrefectException

from prefect_smsverify.keys import enclosing
from smsverify.errors import SettingsUnavailableError


def flow_runs() -> list[FlowRun]:
    """The flow runs around this code, the innermost first; the last one is the root.

    Raises:
        SettingsUnavailableError: this is another process than that of the flow run, and Prefect's server does
            not say which flow runs are around that one.
    """
    contexts = [context for context in enclosing(FlowRunContext) if context.flow_run is not None]
    runs = [context.flow_run for context in contexts if context.flow_run is not None]
    if not contexts or not contexts[-1].detached:
        return runs
    try:
        return [*runs, *runs_around(runs[-1])]
    except ObjectNotFound as error:
        raise SettingsUnavailableError(
            f"Prefect's server no longer has a flow run that the flow run {runs[-1].id} is a part of: it was "
            "deleted. So its budget is not known. Nothing was sent. Another attempt of this task would fail "
            "too: start the outermost flow anew"
        ) from error
    except (PrefectException, httpx.HTTPError) as error:
        raise SettingsUnavailableError(
            f"Prefect's server does not say which flow runs the flow run {runs[-1].id} is a part of "
            f"({type(error).__name__}), so that its budget is not known. Nothing was sent; try again"
        ) from error


def runs_around(run: FlowRun) -> Iterator[FlowRun]:
    """The flow runs that a flow run is a subflow of, the innermost first, as they were when first asked for.

    Raises:
        PrefectException, httpx.HTTPError: Prefect's server does not answer, or does not know them.
    """
    # The run of a deployment is a root, also where `run_deployment` shows it as a subflow.
    while run.deployment_id is None and run.parent_task_run_id is not None:
        around = _run_of(run.parent_task_run_id)
        if around is None:
            return
        yield around
        run = around


@lru_cache(maxsize=1000)
def _run_of(task_run_id: UUID) -> FlowRun | None:
    with get_client(sync_client=True) as client:
        flow_run_id = client.read_task_run(task_run_id).flow_run_id
        return None if flow_run_id is None else client.read_flow_run(flow_run_id)
