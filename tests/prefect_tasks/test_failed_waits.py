"""A wait that fails without a decision about its order loses no code, and leaves no number behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from prefect import flow, task
from rigs.rooms import going_back

from prefect_smsverify import (
    SmsVerifyCredentials,
    await_otp,
    await_otps,
    order_number,
    wait_for_otp,
    wait_for_otps,
)
from smsverify import AuthenticationError, Message, Order, StoreError, WaitTimeoutError
from smsverify.simulator import Fault, Simulator

pytestmark = pytest.mark.slow

StoreRefuses = Callable[..., AbstractContextManager[None]]

REFUSED_KEY = Fault("unauthorized", path="order/*/status/", times=None)
NO_WAIT = "INSERT ON smsverify_waits"


def order(account: SmsVerifyCredentials) -> Order:
    return order_number(account, "temporary", service="WhatsApp")


def run(body: Callable[[], Any]) -> Any:
    """What a body gives in a flow run."""
    return flow(name="fails")(body)()


def reconciled(account: SmsVerifyCredentials) -> list[int]:
    """The orders that a reconciliation gives back."""
    return account.get_hook().reconcile().cancelled


def by_the_task(account: SmsVerifyCredentials, ordered: Order, **options: Any) -> Any:
    return wait_for_otp(account, ordered, **options)


def by_the_coroutine(account: SmsVerifyCredentials, ordered: Order, **options: Any) -> Any:
    return asyncio.run(await_otp(account, ordered, **options))


def by_the_client(account: SmsVerifyCredentials, ordered: Order, **options: Any) -> Any:
    return account.get_hook().wait_for_otp(ordered.order_id, **options)


WAITS = pytest.mark.parametrize("wait", [by_the_task, by_the_coroutine, by_the_client])


@pytest.mark.parametrize("kind", ["a function", "a coroutine"])
@pytest.mark.parametrize("fails", ["the key", "the store"])
def test_the_codes_that_have_come_are_not_lost_when_another_wait_fails(
    fails: str, kind: str, silent: Simulator, account: SmsVerifyCredentials, store_refuses: StoreRefuses
) -> None:
    def main_job() -> Any:
        orders = [order(account), order(account)]
        silent.deliver_sms(orders[0].order_id, otp="123456")
        wait_for_otp(account, orders[0])
        if fails == "the key":
            silent.add_fault(REFUSED_KEY)
        refusal = store_refuses(NO_WAIT, f"NEW.order_id = {orders[1].order_id}")
        with refusal if fails == "the store" else nullcontext():
            if kind == "a function":
                return orders[1].order_id, wait_for_otps(account, orders, timeout=60)
            return orders[1].order_id, asyncio.run(await_otps(account, orders, timeout=60))

    other, (message, error) = run(main_job)
    assert isinstance(message, Message)
    assert message.otp == "123456"
    if fails == "the key":
        assert isinstance(error, AuthenticationError)
        silent.clear_faults()
        assert reconciled(account) == [other]
    else:
        assert isinstance(error, StoreError)
        assert silent.order(other).status == "cancelled"


@WAITS
def test_the_number_of_a_wait_that_a_refused_key_has_ended_is_given_back_when_the_key_is_right(
    wait: Any, silent: Simulator, account: SmsVerifyCredentials
) -> None:
    def main_job() -> int:
        ordered = order(account)
        silent.add_fault(REFUSED_KEY)
        with pytest.raises(AuthenticationError):
            wait(account, ordered)
        return ordered.order_id

    order_id = run(main_job)
    assert [request.status for request in silent.requests()].count(401) == 1  # it was not tried in vain
    silent.clear_faults()
    assert reconciled(account) == [order_id]


@WAITS
def test_the_number_of_a_wait_that_the_store_has_ended_is_given_back(
    wait: Any, silent: Simulator, account: SmsVerifyCredentials, store_refuses: StoreRefuses
) -> None:
    def main_job() -> None:
        ordered = order(account)
        with store_refuses(NO_WAIT), pytest.raises(StoreError):
            wait(account, ordered)

    run(main_job)
    assert [one.status for one in silent.orders()] == ["cancelled"]


@WAITS
def test_a_number_that_its_caller_keeps_after_a_wait_is_kept_when_the_wait_fails(
    wait: Any, silent: Simulator, account: SmsVerifyCredentials, store_refuses: StoreRefuses
) -> None:
    def main_job() -> None:
        ordered = order(account)
        with store_refuses(NO_WAIT), pytest.raises(StoreError):
            wait(account, ordered, cancel_on_timeout=False)

    run(main_job)
    assert [one.status for one in silent.orders()] == ["pending"]
    assert going_back(account.get_hook()) == []


@WAITS
def test_a_further_attempt_of_a_task_goes_on_with_the_number(
    wait: Any, silent: Simulator, account: SmsVerifyCredentials, store_refuses: StoreRefuses
) -> None:
    going: list[list[int]] = []

    @task(retries=1)
    def sign_up(ordered: Order) -> Any:
        going.append(going_back(account.get_hook()))
        if len(going) == 1:
            with store_refuses(NO_WAIT):
                return wait(account, ordered)
        silent.deliver_sms(ordered.order_id, otp="123456")
        return wait(account, ordered)

    message = run(lambda: sign_up(order(account)))
    assert message.otp == "123456"
    assert going == [[], [message.order_id]]
    assert going_back(account.get_hook()) == []


@WAITS
def test_no_number_is_kept_for_an_attempt_that_comes_too_late_for_its_code(
    wait: Any, silent: Simulator, account: SmsVerifyCredentials, store_refuses: StoreRefuses
) -> None:
    @task(retries=1, retry_delay_seconds=7200)
    def sign_up(ordered: Order) -> None:
        with store_refuses(NO_WAIT), pytest.raises(StoreError):
            wait(account, ordered)

    run(lambda: sign_up(order(account)))
    assert [one.status for one in silent.orders()] == ["cancelled"]


def test_a_cancelled_wait_stays_cancelled_where_its_number_cannot_be_given_back(
    silent: Simulator,
    account: SmsVerifyCredentials,
    store_refuses: StoreRefuses,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main_job() -> bool:
        ordered = await asyncio.to_thread(task(order), account)
        before = len(silent.requests())
        waiting = asyncio.ensure_future(await_otp(account, ordered))
        while len(await asyncio.to_thread(silent.requests)) == before:
            await asyncio.sleep(0.05)
        with store_refuses("INSERT ON smsverify_releases"):
            waiting.cancel()
            await asyncio.wait([waiting])
        return waiting.cancelled()

    assert asyncio.run(run(main_job))
    assert f"Order {silent.orders()[0].order_id} is not given back" in caplog.text


@pytest.mark.parametrize("kind", ["a function", "a coroutine"])
def test_waits_that_are_called_as_functions_outside_of_a_run_lose_no_code_either(
    kind: str, silent: Simulator, account: SmsVerifyCredentials, caplog: pytest.LogCaptureFixture
) -> None:
    hook = account.get_hook()
    orders = [hook.order("temporary", service="WhatsApp") for _ in range(2)]
    silent.deliver_sms(orders[0].order_id, otp="123456")
    if kind == "a function":
        message, error = wait_for_otps.fn(account, orders, timeout=2)
    else:
        message, error = asyncio.run(await_otps.fn(account, orders, timeout=2))
    assert isinstance(message, Message)
    assert isinstance(error, WaitTimeoutError)
    assert str(error) in caplog.text
