"""A number that nobody is going to use is given back: by a transaction's rollback, at the end of a block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from prefect import flow, task, unmapped
from prefect.transactions import transaction

from prefect_smsverify import (
    SmsVerifyCredentials,
    aorder_number,
    arented_number,
    await_otp,
    order_number,
    rented_number,
    wait_for_otp,
)
from smsverify import Order, SmsVerifyError, WaitStoppedError, WaitTimeoutError
from smsverify.simulator import Control, Simulator


class Boom(Exception):
    """What goes wrong in a later step."""


def order(account: SmsVerifyCredentials) -> Order:
    return order_number(account, "temporary", service="WhatsApp")


@task
def fails(*_: object) -> None:
    raise Boom


def retried_step(failures: int = 1) -> Any:
    """A task that fails so often, and then does not."""
    attempts = iter([True] * failures + [False])

    @task(retries=failures)
    def retried() -> None:
        if next(attempts):
            raise Boom

    return retried


def aretried_step(failures: int = 1) -> Any:
    """The same as a coroutine."""
    attempts = iter([True] * failures + [False])

    @task(retries=failures)
    async def retried() -> None:
        if next(attempts):
            raise Boom

    return retried


def later_task_fails(account: SmsVerifyCredentials) -> None:
    with transaction():
        order(account)
        fails()


def block_fails(account: SmsVerifyCredentials) -> None:
    with transaction():
        order(account)
        raise Boom


def submitted_task_fails(account: SmsVerifyCredentials) -> None:
    with transaction():
        ordered = order_number.submit(account, "temporary", service="WhatsApp")
        fails.submit(ordered).wait()


def wait_times_out(account: SmsVerifyCredentials) -> None:
    with transaction():
        keeps = order(account)
        wait_for_otp(account, keeps, timeout=0.1, cancel_on_timeout=False)


@task
def wrapper(account: SmsVerifyCredentials) -> None:
    order(account)
    fails()


def wrapping_task_fails(account: SmsVerifyCredentials) -> None:
    wrapper(account)


def wrapping_task_fails_twice(account: SmsVerifyCredentials) -> None:
    wrapper.with_options(retries=1)(account)


@flow
def subflow(account: SmsVerifyCredentials) -> None:
    order(account)


def subflow_was_done(account: SmsVerifyCredentials) -> None:
    with transaction():
        subflow(account)
        fails()


def order_with_options(account: SmsVerifyCredentials) -> None:
    with transaction():
        order_number.with_options(name="mine")(account, "temporary", service="WhatsApp")
        fails()


def order_after_the_rollback(account: SmsVerifyCredentials) -> None:
    with transaction():
        fails(return_state=True)
        with pytest.raises(WaitStoppedError):
            order(account)


def retried_step_fails_at_last(account: SmsVerifyCredentials) -> None:
    wrapper_of(account, fails.with_options(retries=2))


@task
def wrapper_of(account: SmsVerifyCredentials, step: Any) -> None:
    order(account)
    step()


def another_step_fails_after_one_was_retried(account: SmsVerifyCredentials) -> None:
    with transaction():
        order(account)
        retried_step()()
        retried_step()()
        fails()


def error_of_a_step_is_caught(account: SmsVerifyCredentials) -> None:
    with transaction():
        order(account)
        with pytest.raises(Boom):
            fails()


def rental_in_a_transaction(account: SmsVerifyCredentials) -> None:
    with transaction():
        order_number(account, "rental", service="WhatsApp", duration=3)
        fails()


def rental_in_a_block(account: SmsVerifyCredentials) -> None:
    with rented_number(account, "rental", service="WhatsApp", duration=3):
        raise Boom


def block_ends_with_an_error(account: SmsVerifyCredentials) -> None:
    with rented_number(account, "temporary", service="WhatsApp"):
        raise Boom


def block_ends_without_a_wait(account: SmsVerifyCredentials) -> None:
    with rented_number(account, "temporary", service="WhatsApp") as number:
        assert number.phone


@task
def renting_task(account: SmsVerifyCredentials) -> None:
    with rented_number(account, "temporary", service="WhatsApp") as number:
        number.wait_for_otp(timeout=0.1, cancel_on_timeout=False)


def renting_task_is_mapped(account: SmsVerifyCredentials) -> None:
    renting_task.map([account, account]).result()


@pytest.mark.parametrize(
    ("body", "orders"),
    [
        (later_task_fails, 1),
        (block_fails, 1),
        (submitted_task_fails, 1),
        (wait_times_out, 1),
        (wrapping_task_fails, 1),
        (wrapping_task_fails_twice, 2),
        (subflow_was_done, 1),
        (order_with_options, 1),
        (order_after_the_rollback, 0),
        (retried_step_fails_at_last, 1),
        (another_step_fails_after_one_was_retried, 1),
        (error_of_a_step_is_caught, 1),
        (block_ends_with_an_error, 1),
        (block_ends_without_a_wait, 1),
        (renting_task_is_mapped, 2),
    ],
)
def test_an_unused_number_is_cancelled_and_refunded_when(
    body: Callable[[SmsVerifyCredentials], None],
    orders: int,
    silent: Simulator,
    account: SmsVerifyCredentials,
) -> None:
    flow(name=body.__name__)(body)(account, return_state=True)
    assert [order.status for order in silent.orders()] == ["cancelled"] * orders
    assert silent.balance() == 50


@pytest.mark.parametrize("body", [rental_in_a_transaction, rental_in_a_block])
@pytest.mark.parametrize("service", ["refund", "refuse"])
def test_a_rental_that_is_not_wanted_is_refunded_or_stays_on_record(
    body: Callable[[SmsVerifyCredentials], None],
    service: str,
    simulate: Callable[..., Simulator],
    account: SmsVerifyCredentials,
    caplog: pytest.LogCaptureFixture,
) -> None:
    simulator = simulate(sms_delay="never", cancel_active=service)
    flow(name=body.__name__)(body)(account, return_state=True)
    (rental,) = simulator.orders()
    report = account.get_hook().reconcile()
    if service == "refund":
        assert rental.status == "cancelled"
        assert report.findings == []
    else:
        assert [held.order_id for held in report.to_cancel] == [rental.order_id]
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert any(f"Order {rental.order_id} could not be cancelled yet" in text for text in warnings)


async def agathered_waits_fail(account: SmsVerifyCredentials) -> None:
    async with arented_number(account, "temporary", service="WhatsApp") as number:
        other = await aorder_number(account, "temporary", service="WhatsApp")
        await asyncio.gather(number.await_otp(timeout=600), await_otp(account, other, 0.1))


async def acancelled(account: SmsVerifyCredentials) -> None:
    ordered = await aorder_number(account, "temporary", service="WhatsApp")
    polled = len(await asyncio.to_thread(control(account).requests))
    waiting = asyncio.ensure_future(await_otp(account, ordered))
    while len(await asyncio.to_thread(control(account).requests)) == polled:
        await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.wait([waiting])


def control(account: SmsVerifyCredentials) -> Control:
    return Control(account.get_hook().settings.base_url)


async def alater_task_fails(account: SmsVerifyCredentials) -> None:
    with transaction():
        await aorder_number(account, "temporary", service="WhatsApp")
        fails()


async def aretried_step_fails_at_last(account: SmsVerifyCredentials) -> None:
    @task
    async def provision() -> None:
        await aorder_number(account, "temporary", service="WhatsApp")
        await aretried_step(3).with_options(retries=2)()

    await provision()


@pytest.mark.parametrize(
    ("body", "orders"),
    [(agathered_waits_fail, 2), (acancelled, 1), (alater_task_fails, 1), (aretried_step_fails_at_last, 1)],
)
def test_an_unused_number_of_a_coroutine_is_cancelled_and_refunded_when(
    body: Callable[[SmsVerifyCredentials], Any],
    orders: int,
    silent: Simulator,
    account: SmsVerifyCredentials,
) -> None:
    asyncio.run(flow(name=body.__name__)(body)(account, return_state=True))
    assert [order.status for order in silent.orders()] == ["cancelled"] * orders


def a_step_is_retried(account: SmsVerifyCredentials) -> None:
    @task
    def provision() -> None:
        ordered = order(account)
        retried_step(2)()
        retried_step()()
        wait_for_otp(account, ordered)

    provision()


def a_step_is_retried_while_another_waits(account: SmsVerifyCredentials) -> None:
    @task
    def provision() -> None:
        waiting = wait_for_otp.submit(account, order(account))
        retried_step()()
        waiting.result()

    provision()


def a_step_is_retried_before_the_wait_for_a_number_from_elsewhere(account: SmsVerifyCredentials) -> None:
    ordered = order(account)

    @task
    def waits() -> None:
        retried_step()()
        wait_for_otp(account, ordered)

    waits()


def the_transaction_is_rolled_back_around_a_block(account: SmsVerifyCredentials) -> None:
    @task
    def provision() -> None:
        with pytest.raises(Boom):
            fails()
        with rented_number(account, "temporary", service="WhatsApp") as number:
            with pytest.raises(Boom):
                fails()
            number.wait_for_otp()

    provision()


async def a_coroutine_retries_a_step(account: SmsVerifyCredentials) -> None:
    @task
    async def provision() -> None:
        ordered = await aorder_number(account, "temporary", service="WhatsApp")
        await aretried_step(2)()
        await await_otp(account, ordered)

    await provision()


async def the_transaction_is_rolled_back_around_a_coroutines_block(account: SmsVerifyCredentials) -> None:
    @task
    async def provision() -> None:
        async with arented_number(account, "temporary", service="WhatsApp") as number:
            with pytest.raises(Boom):
                await aretried_step().with_options(retries=0)()
            await number.await_otp()

    await provision()


@pytest.mark.parametrize(
    "body",
    [
        a_step_is_retried,
        a_step_is_retried_while_another_waits,
        a_step_is_retried_before_the_wait_for_a_number_from_elsewhere,
        the_transaction_is_rolled_back_around_a_block,
        a_coroutine_retries_a_step,
        the_transaction_is_rolled_back_around_a_coroutines_block,
    ],
)
def test_a_number_that_is_still_wanted_is_kept_when(
    body: Callable[[SmsVerifyCredentials], Any],
    simulate: Callable[..., Simulator],
    account: SmsVerifyCredentials,
) -> None:
    simulator = simulate(sms_delay=60)
    ended = flow(name=body.__name__)(body)(account)
    if asyncio.iscoroutine(ended):
        asyncio.run(ended)
    assert [order.status for order in simulator.orders()] == ["completed"]


def test_of_mapped_wrappers_only_those_that_fail_give_back(
    simulate: Callable[..., Simulator], account: SmsVerifyCredentials
) -> None:
    simulator = simulate(services={"telegram": {"sms_delay": "never"}})

    @task
    def provision(service: str) -> str | None:
        ordered = order_number(account, "temporary", service=service)
        return wait_for_otp(account, ordered, timeout=3).otp

    @flow
    def many() -> Any:
        return provision.map(["WhatsApp", "Telegram", "WhatsApp"]).result(raise_on_failure=False)

    codes = many()
    assert isinstance(codes[1], WaitTimeoutError)
    by_service = {(order.service, order.status) for order in simulator.orders()}
    assert by_service == {("WhatsApp", "completed"), ("Telegram", "cancelled")}


def test_a_number_whose_code_was_used_is_not_given_back(
    simulator: Simulator, account: SmsVerifyCredentials
) -> None:
    @flow
    def used() -> None:
        with transaction(), rented_number(account, "temporary", service="WhatsApp") as number:
            number.wait_for_otp()
            raise Boom

    used(return_state=True)
    assert [order.status for order in simulator.orders()] == ["completed"]
    assert "/cancel/" not in " ".join(request.path for request in simulator.requests())


def test_an_order_that_comes_after_the_rollback_of_its_transaction_is_given_back(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    # Two tasks of a transaction run at the same time: one fails while the other is buying.
    is_buying, has_failed = threading.Event(), threading.Event()
    hook_type = type(account.get_hook())

    class SlowHook(hook_type):  # type: ignore[misc, valid-type]
        def order(self, *args: Any, **options: Any) -> Order:
            ordered: Order = super().order(*args, **options)
            is_buying.set()
            assert has_failed.wait(60)
            return ordered

    class SlowCredentials(SmsVerifyCredentials):
        _block_type_slug = "slow-credentials"

        def get_hook(self) -> Any:
            return SlowHook()

    @task
    def fails_meanwhile() -> None:
        assert is_buying.wait(60)
        raise Boom

    @flow
    def both() -> Any:
        with transaction():
            ordered = order_number.submit(SlowCredentials(), "temporary", service="WhatsApp")
            fails_meanwhile.submit().wait()
            has_failed.set()
            ordered.wait()
        return ordered.result(raise_on_failure=False)

    assert isinstance(both(), WaitStoppedError)
    assert [order.status for order in silent.orders()] == ["cancelled"]


def test_the_other_waits_of_a_transaction_end_when_one_fails(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    @flow
    def both() -> Any:
        with transaction():
            orders = order_number.map(unmapped(account), "temporary", service=["WhatsApp"] * 2)
            waits = wait_for_otp.map(unmapped(account), orders, timeout=[0.1, 600])
            return waits.result(raise_on_failure=False)

    timed_out, stopped = both()
    assert isinstance(timed_out, WaitTimeoutError)
    assert isinstance(stopped, SmsVerifyError)
    assert [order.status for order in silent.orders()] == ["cancelled"] * 2
