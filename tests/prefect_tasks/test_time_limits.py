"""A time limit of Prefect's ends a wait and gives its number back, in whatever thread the task runs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import anyio
import pytest
from prefect import flow, task, unmapped

from prefect_smsverify import (
    SmsVerifyCredentials,
    aorder_number,
    await_otp,
    order_number,
    rented_number,
    wait_for_otp,
    wait_for_otps,
)
from smsverify._orders import holding
from smsverify.simulator import Fault, Simulator

LIMIT = 4.0  # seconds, in which a number is bought on a busy machine


def order(account: SmsVerifyCredentials) -> int:
    return order_number(account, "temporary", service="WhatsApp").order_id


def waits(account: SmsVerifyCredentials) -> None:
    wait_for_otp(account, order(account), timeout=600)


def waits_with_the_hook(account: SmsVerifyCredentials) -> None:
    account.get_hook().wait_for_otp(order(account), timeout=600)


def waits_for_several(account: SmsVerifyCredentials) -> None:
    wait_for_otps(account, [order(account)], timeout=600)


def rents(account: SmsVerifyCredentials) -> None:
    with rented_number(account, "temporary", service="WhatsApp") as number:
        number.wait_for_otp(timeout=600)


@pytest.mark.slow
@pytest.mark.parametrize("work", [waits, waits_with_the_hook, waits_for_several, rents])
@pytest.mark.parametrize("way", ["submit", "map"])
def test_a_submitted_task_that_waits_ends_in_time_and_gives_its_number_back(
    silent: Simulator, account: SmsVerifyCredentials, work: Any, way: str
) -> None:
    limited = task(timeout_seconds=LIMIT)(work)

    @flow
    def whole() -> None:
        future = limited.submit(account) if way == "submit" else limited.map([1], unmapped(account))[0]
        future.wait()
        assert future.state.name == "TimedOut"

    if way == "map":
        limited = task(timeout_seconds=LIMIT)(lambda _, account: work(account))
    whole()
    assert [one.status for one in silent.orders()] == ["cancelled"]


def test_the_limit_of_a_submitted_wait_itself(silent: Simulator, account: SmsVerifyCredentials) -> None:
    @flow
    def whole() -> None:
        ordered = order_number(account, "temporary", service="WhatsApp")
        future = wait_for_otp.with_options(timeout_seconds=LIMIT).submit(account, ordered, timeout=600)
        future.wait()
        assert future.state.name == "TimedOut"

    whole()
    assert [one.status for one in silent.orders()] == ["cancelled"]


@pytest.mark.slow
def test_a_purchase_whose_time_is_over_is_given_back(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    account.get_hook().get_balance()  # so that only the purchase is to be sent in its time
    silent.add_fault(Fault("slow_before", path="order/temporary/", seconds=2 * LIMIT))

    @flow
    def whole() -> None:
        limited = order_number.with_options(timeout_seconds=LIMIT)
        future = limited.submit(account, "temporary", service="WhatsApp")
        future.wait()
        assert future.state.name == "TimedOut"

    whole()
    assert [one.status for one in silent.orders()] == ["cancelled"]


# -------------------------------------------------------------- coroutines


async def aorder(account: SmsVerifyCredentials) -> int:
    return (await aorder_number(account, "temporary", service="WhatsApp")).order_id


async def fills_a_form(account: SmsVerifyCredentials) -> None:
    await aorder(account)
    await asyncio.sleep(600)


async def limited_task(account: SmsVerifyCredentials) -> None:
    await task(timeout_seconds=LIMIT)(fills_a_form)(account)


async def task_in_a_scope(account: SmsVerifyCredentials) -> None:
    with anyio.fail_after(LIMIT):
        await task(fills_a_form)(account)


async def task_in_a_limited_flow(account: SmsVerifyCredentials) -> None:
    await flow(timeout_seconds=LIMIT)(task_that_fills_a_form)(account)


async def task_that_fills_a_form(account: SmsVerifyCredentials) -> None:
    await task(fills_a_form)(account)


async def step_with_retries_in_a_limited_task(account: SmsVerifyCredentials) -> None:
    async def body(account: SmsVerifyCredentials) -> None:
        await aorder(account)
        await task(retries=3)(asyncio.sleep)(600)

    await task(timeout_seconds=LIMIT)(body)(account)


async def wait_of_another_coroutine(account: SmsVerifyCredentials) -> None:
    waits: list[asyncio.Future[Any]] = []

    async def body(account: SmsVerifyCredentials) -> None:
        waits.append(asyncio.ensure_future(await_otp(account, await aorder(account), timeout=600)))
        await asyncio.sleep(600)

    try:
        await task(timeout_seconds=LIMIT)(body)(account)
    finally:
        await asyncio.gather(*waits, return_exceptions=True)


async def limited_step_that_fails_at_last(account: SmsVerifyCredentials) -> None:
    async def body(account: SmsVerifyCredentials) -> None:
        await aorder(account)
        await task(timeout_seconds=0.1, retries=2)(asyncio.sleep)(600)

    await task(body)(account)


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        limited_task,
        task_in_a_scope,
        task_in_a_limited_flow,
        step_with_retries_in_a_limited_task,
        wait_of_another_coroutine,
        limited_step_that_fails_at_last,
    ],
)
def test_the_limit_of_a_coroutine_gives_the_number_back_that_was_bought_in_it(
    body: Any, silent: Simulator, account: SmsVerifyCredentials
) -> None:
    account.get_hook().get_balance()
    with pytest.raises(TimeoutError):
        asyncio.run(flow(body)(account))
    assert [one.status for one in silent.orders()] == ["cancelled"]
    assert not held(silent)


def held(service: Simulator) -> list[int]:
    """The orders that this process still sends heartbeats for."""
    bought = {one.order_id for one in service.orders()}
    return [one.order_id for one in holding._hands._held.values() if one.order_id in bought]


def test_a_step_that_is_tried_again_after_its_limit_keeps_the_number(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    seconds = iter([600, 0])

    @task(timeout_seconds=1, retries=1)
    async def step() -> None:
        await asyncio.sleep(next(seconds))

    @task
    async def order_and_step() -> None:
        await aorder_number(account, "rent-1day", service="Tinder")
        await step()

    @flow
    async def sign_up() -> None:
        await order_and_step()

    asyncio.run(sign_up())
    assert not held(silent)
    assert [kept.outcome for kept in account.get_hook().renew_expiring(10**6).rentals] == ["renewed"]


def test_a_task_that_returns_when_its_limit_passes_hands_its_number_over(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    account.get_hook().get_balance()

    @task(timeout_seconds=LIMIT)
    async def buy() -> int:
        order = await aorder_number(account, "rent-1day", service="Tinder")
        time.sleep(LIMIT)  # blocks the event loop, so that Prefect sees the limit after its commit
        return order.order_id

    @flow
    async def sign_up() -> int:
        return await buy()

    assert asyncio.run(sign_up()) == silent.orders()[0].order_id
    assert not held(silent)
    assert [kept.outcome for kept in account.get_hook().renew_expiring(10**6).rentals] == ["renewed"]
