"""`SmsVerifyHook` inside of a flow run."""

from __future__ import annotations

from functools import cache
from typing import Any

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

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
        context = FlowRunContext.get()
        pool = context.flow_run.work_pool_name if context is not None and context.flow_run else None
        if pool is None:  # run by hand, or served by a process that is its own worker
            return None
        kind = _kind_of(pool)
        return None if kind in LOCAL_POOLS else f"the {kind} work pool {pool!r} runs flows elsewhere"

    def _key_failed(self, key: str) -> None:
        self._run_keys.pop(key).give_back()


@cache
def _kind_of(pool: str) -> str:
    with get_client(sync_client=True) as client:
        return client.read_work_pool(pool).type
