"""The tasks do what the hook does, in flows that are functions and in flows that are coroutines."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from prefect import Task, flow, unmapped

import prefect_smsverify
from prefect_smsverify import (
    SmsVerifyCredentials,
    acancel_order,
    aget_balance,
    aget_order_status,
    aorder_number,
    arenew_rental,
    await_otp,
    await_otps,
    cancel_order,
    get_balance,
    get_order_status,
    order_number,
    renew_rental,
    rented_number,
    wait_for_otp,
    wait_for_otps,
)
from smsverify import (
    AuthenticationError,
    InsufficientBalanceError,
    InvalidRequestError,
    Message,
    NotFoundError,
    Order,
    OrderEndedError,
    WaitTimeoutError,
)
from smsverify._service.transport import ATTEMPTS
from smsverify.simulator import Fault, Simulator


def in_a_flow(call: Callable[[], Any]) -> Any:
    """What a call gives in a flow run."""

    @flow
    def calls() -> Any:
        return call()

    return calls()


TASKS = [name for name in prefect_smsverify.__all__ if isinstance(getattr(prefect_smsverify, name), Task)]
TWINS = {name: f"await_{name[9:]}" if name.startswith("wait_for_") else f"a{name}" for name in TASKS}


@pytest.mark.parametrize("name", [name for name, twin in TWINS.items() if twin in TASKS])
def test_the_twin_of_a_task_shows_the_same_parameters(name: str) -> None:
    task, twin = (getattr(prefect_smsverify, one) for one in (name, TWINS[name]))
    assert twin.isasync
    assert inspect.signature(twin.fn) == inspect.signature(task.fn)


def test_number_code_and_status_in_a_flow(simulator: Simulator, account: SmsVerifyCredentials) -> None:
    @flow
    def main_job() -> Any:
        before = get_balance(account)
        order = order_number(account, "temporary", service="WhatsApp", max_price="0.40", area_code="212")
        return before, order, wait_for_otp(account, order), get_order_status(account, order.order_id)

    before, order, message, status = main_job()
    (simulated,) = simulator.orders()
    assert (order.order_id, order.phone, order.price) == (
        simulated.order_id,
        simulated.phone,
        Decimal("0.40"),
    )
    assert simulated.area_code == "212"
    assert (message.otp, message.message, message.phone) == (
        simulated.otp,
        simulated.message,
        simulated.phone,
    )
    assert status.status == "completed"
    assert simulator.balance() == before.amount - order.price


def test_number_code_and_status_in_a_coroutine(simulator: Simulator, account: SmsVerifyCredentials) -> None:
    @flow
    async def main_job() -> Any:
        before = await aget_balance(account)
        orders = await asyncio.gather(
            *(aorder_number(account, "temporary", service=name) for name in ("WhatsApp", "Telegram"))
        )
        messages = await asyncio.gather(*(await_otp(account, order) for order in orders))
        return before, orders, messages, await aget_order_status(account, orders[0])

    before, orders, messages, status = asyncio.run(main_job())
    codes = {order.order_id: order.otp for order in simulator.orders()}
    assert {message.order_id: message.otp for message in messages} == codes
    assert [message.order_id for message in messages] == [order.order_id for order in orders]
    assert status.status == "completed"
    assert before.amount - simulator.balance() == Decimal("0.70")


@pytest.mark.parametrize("form", ["a function", "a coroutine"])
def test_the_orders_of_a_wait_are_not_read_letter_by_letter(
    form: str, silent: Simulator, account: SmsVerifyCredentials
) -> None:
    """A text would mean the orders 4, 5, 8, …, which a time-out cancels, and bytes the orders 52, 53, …"""

    @flow
    def plain() -> Any:
        order = order_number(account, "temporary", service="WhatsApp")
        silent.deliver_sms(order.order_id, otp="123456")
        with pytest.raises(InvalidRequestError, match="binary data"):
            wait_for_otps(account, str(order.order_id).encode(), 30)
        return wait_for_otps(account, str(order.order_id), 30)

    @flow
    async def coroutine() -> Any:
        order = await aorder_number(account, "temporary", service="WhatsApp")
        silent.deliver_sms(order.order_id, otp="123456")
        with pytest.raises(InvalidRequestError, match="binary data"):
            await await_otps(account, str(order.order_id).encode(), 30)
        return await await_otps(account, str(order.order_id), 30)

    (message,) = plain() if form == "a function" else asyncio.run(coroutine())
    assert (message.order_id, message.otp) == (silent.orders()[0].order_id, "123456")


def test_a_rental_is_cancelled_or_renewed(silent: Simulator, account: SmsVerifyCredentials) -> None:
    @flow
    def plain() -> Any:
        rental = order_number(account, "rental", service="WhatsApp", duration=3)
        unwanted = order_number(account, "best-temp", service="WhatsApp")
        return rental, renew_rental(account, rental, max_price=4), cancel_order(account, unwanted)

    @flow
    async def coroutine(rental: Order) -> Any:
        unwanted = await aorder_number(account, "best-temp", service="WhatsApp")
        return await arenew_rental(account, rental), await acancel_order(account, unwanted)

    rental, renewed, cancelled = plain()
    renewed_again, cancelled_too = asyncio.run(coroutine(renewed))
    three_days = timedelta(days=3) / 60  # where a minute lasts a second; the order's own end shows it
    assert renewed.expires_at - rental.expires_at == pytest.approx(three_days, abs=timedelta(minutes=1))
    assert renewed_again.expires_at - renewed.expires_at == pytest.approx(
        three_days, abs=timedelta(minutes=1)
    )
    assert cancelled.cancelled
    assert cancelled_too.cancelled
    assert silent.balance() == 50 - 3 * 4


def test_what_was_ordered_is_mapped_on_to_the_waits(
    simulator: Simulator, account: SmsVerifyCredentials
) -> None:
    @flow
    def many() -> Any:
        services = ["WhatsApp", "Telegram", "WhatsApp", "Telegram", "WhatsApp"]
        orders = order_number.map(unmapped(account), "temporary", service=services)
        return wait_for_otp.map(unmapped(account), orders).result()

    messages = many()
    codes = {order.order_id: order.otp for order in simulator.orders()}
    assert len(codes) == 5
    assert {message.order_id: message.otp for message in messages} == codes


@pytest.mark.parametrize("wait", [wait_for_otp, await_otp])
def test_a_number_without_sms_is_given_back_at_the_time_out(
    silent: Simulator, account: SmsVerifyCredentials, wait: Callable[..., Any]
) -> None:
    @flow
    def kept_and_given_back() -> None:
        kept = order_number(account, "temporary", service="WhatsApp")
        given_back = order_number(account, "temporary", service="WhatsApp")
        with pytest.raises(WaitTimeoutError) as error:
            wait.submit(account, kept, timeout=0.1, cancel_on_timeout=False).result()
        assert not error.value.cancelled
        with pytest.raises(WaitTimeoutError) as error:
            wait.submit(account, given_back.order_id, timeout=0.1).result()
        assert error.value.cancelled

    kept_and_given_back()
    assert [order.status for order in silent.orders()] == ["pending", "cancelled"]
    assert silent.balance() == Decimal("49.60")


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
@pytest.mark.slow
def test_many_waits_in_one_task_lose_no_code_when_some_fail(
    simulate: Callable[..., Simulator], account: SmsVerifyCredentials, kind: str
) -> None:
    simulator = simulate(services={"telegram": {"sms_delay": "never"}})

    @flow
    def plain() -> Any:
        orders = [
            order_number(account, "temporary", service=name)
            for name in ("WhatsApp", "Telegram", "WhatsApp", "Telegram")
        ]
        cancel_order(account, orders[3])
        return orders, wait_for_otps(account, [*orders, 999_999], timeout=5)

    @flow
    async def coroutine() -> Any:
        orders = [
            await aorder_number(account, "temporary", service=name)
            for name in ("WhatsApp", "Telegram", "WhatsApp", "Telegram")
        ]
        await acancel_order(account, orders[3])
        return orders, await await_otps(account, [*orders, 999_999], timeout=5)

    orders, outcomes = plain() if kind == "plain" else asyncio.run(coroutine())
    assert [type(outcome) for outcome in outcomes] == [
        Message,
        WaitTimeoutError,
        Message,
        OrderEndedError,
        NotFoundError,
    ]
    codes = {order.order_id: order.otp for order in simulator.orders()}
    assert [outcomes[n].otp for n in (0, 2)] == [codes[orders[n].order_id] for n in (0, 2)]
    assert simulator.order(orders[1].order_id).status == "cancelled"


def test_a_refused_key_fails_all_waits(silent: Simulator, account: SmsVerifyCredentials) -> None:
    @flow
    def refused() -> None:
        orders = [order_number(account, "temporary", service="WhatsApp") for _ in range(2)]
        silent.add_fault(Fault("unauthorized", times=None))
        wait_for_otps(account, orders)

    with pytest.raises(AuthenticationError):
        refused()


def test_what_is_safe_to_repeat_is_repeated_by_the_client(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    silent.add_fault(Fault("error_before", path="balance/", times=ATTEMPTS - 1))
    assert in_a_flow(lambda: get_balance(account)).amount == 50
    assert len(silent.requests()) == ATTEMPTS


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("product", lambda account: order_number(account, "permanent", service="WhatsApp")),
        ("duration", lambda account: order_number(account, "rental", service="WhatsApp", duration=7)),
        ("area_code", lambda account: order_number(account, "temporary", service="WhatsApp", area_code="12")),
        ("plan", lambda account: order_number(account, "temporary", service="WhatsApp", plan="USA 5GB")),
        ("max_price", lambda account: order_number(account, "temporary", service="WhatsApp", max_price=-1)),
        ("max_price", lambda account: renew_rental(account, 458731, max_price="cheap")),
        ("order_id", lambda account: wait_for_otp(account, "12x")),
        ("order_id", lambda account: wait_for_otps(account, [458731, 0])),
        ("order_id", lambda account: cancel_order(account, -1)),
        ("order_id", lambda account: renew_rental(account, "")),
        ("api_key", lambda account: order_number(SmsVerifyCredentials(), "temporary", service="WhatsApp")),
    ],
)
def test_bad_input_is_refused_by_name_before_anything_is_sent(
    field: str,
    call: Callable[[SmsVerifyCredentials], Any],
    silent: Simulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account = SmsVerifyCredentials(api_key=silent.api_key)
    monkeypatch.delenv("SMSVERIFY_API_KEY")
    with pytest.raises(InvalidRequestError) as error:
        in_a_flow(lambda: call(account))
    assert error.value.field == field
    assert silent.requests() == []


def test_what_the_service_refuses_keeps_its_text(
    simulate: Callable[..., Simulator], account: SmsVerifyCredentials
) -> None:
    simulator = simulate(balance="0.10")
    with pytest.raises(InsufficientBalanceError, match="Insufficient balance"):
        in_a_flow(lambda: order_number(account, "temporary", service="WhatsApp"))
    assert simulator.orders() == []


def test_a_wait_is_for_a_message_later_than_another_and_with_a_pattern(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    def deliver(order: Order, text: str) -> None:
        silent.deliver_sms(order.order_id, text=text)

    @flow
    def plain() -> Any:
        order = order_number(account, "rental", service="WhatsApp", duration=3)
        deliver(order, "Foo: 11111")
        first = wait_for_otp(account, order)
        deliver(order, "Foo: 22222")
        second = wait_for_otp(account, order, after=first, pattern="Foo: ([0-9]+)")
        (late,) = wait_for_otps(account, [order], timeout=0.5, after=second.received_at)
        return order, second, late

    @flow
    async def coroutine(order: Order, after: str) -> Any:
        deliver(order, "Bar: 33333")
        return await await_otp(account, order, after=after), await await_otps(
            account, [order], pattern="Bar: ([0-9]+)"
        )

    order, second, late = plain()
    assert second.otp == "22222"
    assert isinstance(late, WaitTimeoutError)
    third, (again,) = asyncio.run(coroutine(order, second.as_dict()["received_at"]))
    assert (third.message, again.otp) == ("Bar: 33333", "33333")


def test_a_rented_number_takes_what_a_wait_takes(silent: Simulator, account: SmsVerifyCredentials) -> None:
    @flow
    def main_job() -> Any:
        with rented_number(account, "rental", service="WhatsApp", duration=3) as number:
            silent.deliver_sms(number.order_id, text="Foo: 11111")
            first = number.wait_for_otp(60, pattern="Foo: ([0-9]+)")
            silent.deliver_sms(number.order_id, text="Foo: 22222")
            return first.otp, number.wait_for_otp(60, after=first, pattern="Foo: ([0-9]+)").otp

    assert main_job() == ("11111", "22222")
