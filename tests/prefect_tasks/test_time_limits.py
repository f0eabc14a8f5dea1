"""A time limit of Prefect's ends a wait and gives its number back, in whatever thread the task runs."""

from __future__ import annotations

from typing import Any

import pytest
from prefect import flow, task, unmapped

from prefect_smsverify import SmsVerifyCredentials, order_number, rented_number, wait_for_otp, wait_for_otps
from smsverify.simulator import Fault, Simulator

LIMIT = 1.5


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


def test_a_purchase_whose_time_is_over_is_given_back(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    account.get_hook().get_balance()  # so that only the purchase is to be sent in its time
    silent.add_fault(Fault("slow_before", path="order/temporary/", seconds=3 * LIMIT))

    @flow
    def whole() -> None:
        limited = order_number.with_options(timeout_seconds=2 * LIMIT)
        future = limited.submit(account, "temporary", service="WhatsApp")
        future.wait()
        assert future.state.name == "TimedOut"

    whole()
    assert [one.status for one in silent.orders()] == ["cancelled"]
