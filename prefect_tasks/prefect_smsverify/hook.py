"""`SmsVerifyHook` inside of a flow run."""

from __future__ import annotations

from functools import cache
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException

from prefect_smsverify.keys import RunKey, enclosing, run_key
from smsverify.hook import SmsVerifyHook

LOCAL_POOLS = frozenset({"process"})  # the work pools whose flows run on the worker's machine


class PrefectHook(SmsVerifyHook):
    """The core's hook; a purchase without a key gets one from the run."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._run_keys: dict[str, RunKey] = {}

    def _default_key(self, fingerprint: str) -> str | None:
        key = run_key(fingerprint)
        if key is None:
            return None
        self._run_keys[key.text] = key
        return key.text

    def _run_name(self) -> str:
        runs = [context.flow_run for context in enclosing(FlowRunContext) if context.flow_run is not None]
        return f"prefect:{runs[-1].id}" if runs else super()._run_name()

    def _why_unshared(self) -> str | None:
        # A subflow runs where the flow run around it does, but only that one knows its work pool.
        runs = (context.flow_run for context in enclosing(FlowRunContext))
        pools = [run.work_pool_name for run in runs if run is not None and run.work_pool_name]
        # None where it was run by hand, or is served by a process that is its own worker.
        return _why_elsewhere(pools[0]) if pools else None

    def _key_failed(self, key: str) -> None:
        self._run_keys.pop(key).give_back()


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
