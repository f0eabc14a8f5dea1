"""A flow run that is suspended or has failed buys nothing and waits for nothing any more."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.context import FlowRunContext
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow
from prefect.states import Suspended
from rigs.rooms import rooms_of
from rigs.sign_ups import statuses

from prefect_smsverify import (
    SmsVerifyCredentials,
    aorder_number,
    await_otp,
    order_number,
    transactions,
    wait_for_otp,
    wait_for_otps,
)
from smsverify import Order, WaitStoppedError
from smsverify.simulator import Simulator

pytestmark = pytest.mark.slow

SUSPENDABLE = pytest.mark.skipif(
    "flow_run_suspension_request" not in FlowRunContext.model_fields,
    reason="before Prefect 3.8, a run that is suspended from outside goes on",
)


def suspend(context: FlowRunContext) -> None:
    """What Prefect does in the process of a deployed run that is suspended from outside."""
    state: Any = Suspended(timeout_seconds=300, pause_key=uuid.uuid4().hex)
    context.flow_run_suspension_request.mark_requested(state)


@SUSPENDABLE
def test_a_wait_ends_when_its_run_is_suspended_and_the_resumed_run_gets_a_code(
    silent: Simulator, account: SmsVerifyCredentials, client: SyncPrefectClient
) -> None:
    attempts: list[Any] = []
    ends: list[Any] = []

    @flow
    def signs_up() -> str | None:
        order = order_number(account, "temporary", service="WhatsApp")
        context = FlowRunContext.get()
        assert context is not None
        attempts.append(context.flow_run)
        if len(attempts) == 1:
            threading.Timer(0.5, suspend, [context]).start()
        else:
            silent.deliver_sms(order.order_id, otp="123456")
        try:
            return wait_for_otp.fn(account, order, 30).otp
        except WaitStoppedError as error:
            ends.append(error)
            raise

    with pytest.raises(Pause):
        signs_up()
    assert len(ends) == 1
    assert statuses(silent) == ["cancelled"]
    assert silent.balance() == 50
    assert run_flow(signs_up, flow_run=client.read_flow_run(attempts[0].id)) == "123456"
    assert len(silent.orders()) == 2


def waits_for_one(account: SmsVerifyCredentials, order_id: int) -> None:
    wait_for_otp.fn(account, order_id, 30, cancel_on_timeout=False)


def waits_for_several(account: SmsVerifyCredentials, order_id: int) -> None:
    wait_for_otps.fn(account, [order_id], 30, cancel_on_timeout=False)


def waits_in_a_coroutine(account: SmsVerifyCredentials, order_id: int) -> None:
    asyncio.run(await_otp.fn(account, order_id, 30, cancel_on_timeout=False))


def waits_with_the_hook(account: SmsVerifyCredentials, order_id: int) -> None:
    account.get_hook().wait_for_otp(order_id, 30, cancel_on_timeout=False)


@SUSPENDABLE
@pytest.mark.parametrize(
    "wait", [waits_for_one, waits_for_several, waits_in_a_coroutine, waits_with_the_hook]
)
def test_a_wait_keeps_its_number_for_the_resumed_run_where_that_is_wanted(
    wait: Callable[[SmsVerifyCredentials, int], None], silent: Simulator, account: SmsVerifyCredentials
) -> None:
    ends: list[Any] = []

    @flow
    def signs_up() -> None:
        order = order_number(account, "temporary", service="WhatsApp")
        threading.Timer(0.5, suspend, [FlowRunContext.get()]).start()
        try:
            wait(account, order.order_id)
        except WaitStoppedError as error:
            ends.append(error)

    with pytest.raises(Pause):
        signs_up()
    assert len(ends) == 1
    assert statuses(silent) == ["pending"]


@SUSPENDABLE
def test_a_subflow_waits_for_nothing_when_the_run_around_it_is_suspended(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    contexts: list[Any] = []
    ends: list[Any] = []

    @flow
    def inner() -> None:
        order = order_number(account, "temporary", service="WhatsApp")
        threading.Timer(0.5, suspend, contexts).start()
        try:
            account.get_hook().wait_for_otp(order.order_id, 30)
        except WaitStoppedError as error:
            ends.append(error)

    @flow
    def outer() -> None:
        contexts.append(FlowRunContext.get())
        inner()

    with pytest.raises(Pause):
        outer()
    assert len(ends) == 1
    assert statuses(silent) == ["cancelled"]


class StepError(Exception):
    """An error of a flow's own."""


async def left_behind(does: Callable[[asyncio.Event], Coroutine[Any, Any, Any]]) -> Any:
    """Runs a coroutine next to a step that fails, in a subflow whose error its caller catches; its outcome
    when it comes to its end after the subflow. It gets an event that is set when the subflow has failed.
    """
    running: list[asyncio.Task[Any]] = []
    has_failed = asyncio.Event()

    @flow
    async def subflow() -> None:
        running.append(asyncio.create_task(does(has_failed)))
        await asyncio.sleep(0.3)
        raise StepError

    @flow
    async def outer() -> Any:
        with pytest.raises(StepError):
            await subflow()
        has_failed.set()
        (outcome,) = await asyncio.gather(*running, return_exceptions=True)
        return [outcome]

    return (await outer())[0]


def test_a_purchase_that_its_failed_flow_run_has_left_behind_is_given_back(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    async def orders_late(has_failed: asyncio.Event) -> Any:
        await has_failed.wait()
        return await aorder_number(account, "temporary", service="WhatsApp")

    outcome = asyncio.run(left_behind(orders_late))
    assert isinstance(outcome, WaitStoppedError)
    assert silent.balance() == 50


def test_a_wait_that_its_failed_flow_run_has_left_behind_ends(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    order = order_number.fn(account, "temporary", service="WhatsApp")
    outcome = asyncio.run(left_behind(lambda _: await_otp(account, order, 60)))
    assert isinstance(outcome, WaitStoppedError)
    assert statuses(silent) == ["cancelled"]


def test_a_hook_of_a_failed_flow_may_buy_and_wait(silent: Simulator, account: SmsVerifyCredentials) -> None:
    codes: list[Any] = []

    def tells_by_sms(*_: Any) -> None:
        hook = account.get_hook()
        order = hook.order("temporary", service="WhatsApp")
        silent.deliver_sms(order.order_id, otp="123456")
        codes.append(hook.wait_for_otp(order.order_id, 30).otp)

    @flow(on_failure=[tells_by_sms])
    def fails() -> None:
        raise StepError

    with pytest.raises(StepError):
        fails()
    assert codes == ["123456"]


def test_what_a_hook_of_a_completed_flow_buys_is_handed_over(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    hook, bought = account.get_hook(), list[Order]()

    def rents_a_number(*_: Any) -> None:
        bought.append(account.get_hook().order("rental", service="WhatsApp", duration=3))

    @flow(on_completion=[rents_a_number])
    def completes() -> None:
        pass

    completes()
    assert rooms_of(hook).orders.handover.unclaimed_for(bought[0].order_id) is None
    assert transactions._held_by == {}


def test_an_order_that_comes_after_its_failed_flow_run_is_let_go(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    """As an order that nobody has, `reconcile` reports it then."""
    hook = account.get_hook()

    async def orders_with_the_hook(has_failed: asyncio.Event) -> Any:
        stop = threading.Event()
        await has_failed.wait()
        return await asyncio.to_thread(hook.order, "temporary", service="WhatsApp", stop=stop)

    order = asyncio.run(left_behind(orders_with_the_hook))
    handover = rooms_of(hook).orders.handover
    assert handover.holder_here(order.order_id) is None
    assert handover.unclaimed_for(order.order_id) is not None
    assert transactions._held_by == {}
