"""Tasks of the user's own that a task worker runs, and that call ours."""

from __future__ import annotations

import asyncio
import threading
from typing import Any
from uuid import UUID

import pytest
from prefect import Task, flow, task
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW, temporary_settings
from prefect.task_worker import TaskWorker

from prefect_smsverify import SmsVerifyCredentials, get_order_status, order_number, wait_for_otp
from smsverify import SmsVerifyError, SmsVerifyHook, WaitStoppedError
from smsverify.simulator import Simulator

pytestmark = pytest.mark.slow


def run_by_a_worker(served: Task[..., Any], run_id: UUID) -> None:
    async def running() -> None:
        async with get_client() as client:
            run = await client.read_task_run(run_id)
        await TaskWorker(served).execute_task_run(run)

    with temporary_settings({PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore"}):
        asyncio.run(running())


def test_the_service_is_asked_in_each_call(silent: Simulator, account: SmsVerifyCredentials) -> None:
    seen = []

    @task
    def looks_twice() -> None:
        order = order_number(account, "temporary", service="WhatsApp")
        seen.append(get_order_status(account, order).status)
        SmsVerifyHook().cancel(order.order_id)
        seen.append(get_order_status(account, order).status)

    run_by_a_worker(looks_twice, looks_twice.delay().task_run_id)
    assert seen == ["pending", "cancelled"]


# Prefect writes a flow with all that it refers to.
RUN_IDS: list[UUID] = []
OUTCOMES: list[Any] = []


@task
def waits(order_id: int) -> None:
    try:
        OUTCOMES.append(wait_for_otp(SmsVerifyCredentials(), order_id, timeout=60).otp)
    except SmsVerifyError as error:
        OUTCOMES.append(type(error))


@flow
def leaves_a_wait(order_id: int, error: str | None) -> None:
    RUN_IDS.append(waits.delay(order_id).task_run_id)
    if error is not None:
        raise RuntimeError(error)


def test_a_wait_goes_on_after_the_flow_that_has_left_it_to_the_worker(silent: Simulator) -> None:
    order = SmsVerifyHook().order("temporary", service="WhatsApp")
    leaves_a_wait(order.order_id, None)
    coming = threading.Timer(5, silent.deliver_sms, [order.order_id], {"otp": "123456"})
    coming.start()
    run_by_a_worker(waits, RUN_IDS[-1])
    coming.join()
    assert OUTCOMES[-1] == "123456"


def test_a_wait_ends_with_the_flow_that_has_left_it_to_the_worker_and_failed(silent: Simulator) -> None:
    order = SmsVerifyHook().order("temporary", service="WhatsApp")
    leaves_a_wait(order.order_id, "the code is not needed any more", return_state=True)
    run_by_a_worker(waits, RUN_IDS[-1])
    assert OUTCOMES[-1] is WaitStoppedError
    assert silent.orders()[0].status == "cancelled"
