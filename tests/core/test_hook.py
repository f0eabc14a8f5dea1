"""The hook's own: cheap to make, safe in threads, and numbers that are rented for a block."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal

import pytest

from smsverify import WaitTimeoutError
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Simulator


def test_making_one_touches_nothing(tmp_path: object) -> None:
    hook = SmsVerifyHook(rate_limit=0, store_url="nonsense")  # checked on first use
    assert repr(hook) == "SmsVerifyHook(...)"


def test_threads_share_one(simulator: Simulator, hook: SmsVerifyHook) -> None:
    bought: list[int] = []
    threads = [
        threading.Thread(target=lambda: bought.append(hook.order("temporary", service=22).order_id))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(bought) == [order.order_id for order in simulator.orders()]
    assert len(bought) == 8


def test_a_rented_number_is_given_back_unless_its_code_was_used(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    with hook.rented_number("temporary", service="WhatsApp", max_price="0.40") as number:
        assert number.phone == simulator.order(number.order_id).phone
    assert simulator.order(number.order_id).status == "cancelled"
    with hook.rented_number("temporary", service="WhatsApp") as number:
        simulator.deliver_sms(number.order_id, otp="123456")
        assert number.wait_for_otp(30).otp == "123456"
    assert simulator.order(number.order_id).status == "completed"
    assert simulator.balance() == Decimal("49.60")


def test_a_rented_number_is_given_back_when_the_block_fails(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    with pytest.raises(LookupError), hook.rented_number("temporary", service="WhatsApp"):
        raise LookupError
    with pytest.raises(WaitTimeoutError), hook.rented_number("temporary", service="WhatsApp") as number:
        asyncio.run(number.await_otp(0.1))
    assert {order.status for order in simulator.orders()} == {"cancelled"}
    assert simulator.balance() == Decimal(50)


def test_the_rate_limit_is_read_without_a_request(simulator: Simulator, hook: SmsVerifyHook) -> None:
    state = hook.rate_limit()
    assert (state.limit, state.available, state.waiting, state.refusals) == (60, 60, 0, 0)
    assert simulator.requests() == []
