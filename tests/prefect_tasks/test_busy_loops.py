"""Coroutines whose caller fills the threads of their event loop: no number is lost, and none waits long."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest
from prefect import flow
from rigs.loops import full_loop
from rigs.sign_ups import statuses

from prefect_smsverify import (
    SmsVerifyCredentials,
    aget_order_status,
    aorder_number,
    apublish_overview,
    arenew_expiring_rentals,
    arenew_rental,
    arented_number,
    averify_number,
    await_otp,
    await_otps,
)
from prefect_smsverify.paying import PaidCall, apay
from prefect_smsverify.stopping import Stop
from smsverify.simulator import Simulator

pytestmark = pytest.mark.slow

PATIENT = 30.0  # seconds; less than what fills the threads takes


async def soon(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENT
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def test_a_block_that_is_cancelled_gives_its_number_back_at_once(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    async def run() -> None:
        is_open = asyncio.Event()

        @flow
        async def rents() -> None:
            async with arented_number(account, "temporary", service="WhatsApp"):
                is_open.set()
                await asyncio.sleep(600)

        task = asyncio.create_task(rents())
        await soon(lambda: is_open.is_set() or task.done())
        with full_loop():
            task.cancel()
            await soon(lambda: statuses(silent) == ["cancelled"])

    asyncio.run(run())


@pytest.mark.parametrize("times", [1, 2])
def test_a_purchase_that_is_cancelled_is_undone_however_often_it_is_cancelled(times: int) -> None:
    undone, may_answer = threading.Event(), threading.Event()

    async def run() -> None:
        with full_loop():
            paid = PaidCall(partial(may_answer.wait, PATIENT), Stop(), undo=lambda _: undone.set())
            task = asyncio.create_task(apay(paid))
            await asyncio.sleep(0.1)
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(0.1)
            may_answer.set()
            await soon(undone.is_set)
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())


def test_a_number_is_verified(silent: Simulator, account: SmsVerifyCredentials) -> None:
    async def run() -> Any:
        def action(order: Any) -> None:
            silent.deliver_sms(order.order_id, otp="123456")

        with full_loop():
            verifying = averify_number.fn(account, action, "temporary", service="WhatsApp")
            return await asyncio.wait_for(verifying, PATIENT)

    assert asyncio.run(run()).otp == "123456"


def test_a_code_is_read(silent: Simulator, account: SmsVerifyCredentials) -> None:
    order_id = account.get_hook().order("temporary", service="WhatsApp").order_id
    silent.deliver_sms(order_id, otp="123456")

    async def run() -> Any:
        with full_loop():
            return await asyncio.wait_for(aget_order_status.fn(account, order_id), PATIENT)

    assert asyncio.run(run()).otp == "123456"


@pytest.mark.parametrize(
    "call",
    [
        lambda account: aorder_number.fn(account, "temporary", service="WhatsApp"),
        lambda account: await_otp.fn(account, 5, 1),
        lambda account: await_otps.fn(account, [5], 1),
        lambda account: averify_number.fn(account, print, "temporary", service="WhatsApp"),
        lambda account: arenew_rental.fn(account, 5),
        lambda account: arenew_expiring_rentals.fn(account, 5),
        apublish_overview.fn,
    ],
)
def test_the_client_is_loaded_in_another_thread_than_that_of_the_loop(
    call: Callable[[SmsVerifyCredentials], Coroutine[Any, Any, Any]],
    account: SmsVerifyCredentials,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded_in: list[threading.Thread] = []

    def get_hook(_: SmsVerifyCredentials) -> Any:
        loaded_in.append(threading.current_thread())
        raise ArithmeticError

    monkeypatch.setattr(SmsVerifyCredentials, "get_hook", get_hook)
    with pytest.raises(ArithmeticError):
        asyncio.run(call(account))
    assert threading.current_thread() not in loaded_in
