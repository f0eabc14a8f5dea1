"""A log says once what has become of an order, and never what an SMS says."""

from __future__ import annotations

import logging
import re
from datetime import datetime, timedelta, timezone

import pytest

from smsverify._orders.wording import arrival, end_of_wait, named
from smsverify.errors import WaitTimeoutError
from smsverify.hook import SmsVerifyHook
from smsverify.models import Message, Order
from smsverify.simulator import Simulator


def test_each_change_of_an_order_is_one_line(
    simulator: Simulator, hook: SmsVerifyHook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "smsverify")
    order = hook.order("temporary", service="WhatsApp", key="mine")
    hook.order("temporary", service="WhatsApp", key="mine")
    simulator.deliver_sms(order.order_id, otp="482913")
    hook.wait_for_otp(order.order_id, 20)
    hook.cancel(order.order_id)
    name = f"order {order.order_id} (WhatsApp, {order.phone})"
    ours = [record for record in caplog.records if record.name != "smsverify.simulator"]
    lines = [record.getMessage() for record in ours if record.levelno >= logging.INFO]
    expected = [
        rf"Bought {re.escape(name)} for 0\.40 USD",
        rf"Nothing is paid again: the key mine has bought {re.escape(name)}",
        rf"Waiting for {re.escape(name)} until \d\d:\d\d:\d\d UTC",
        rf"The code for order {order.order_id} has arrived \d+ s after the order",
        rf"Order {order.order_id} is completed already: there is nothing to cancel",
    ]
    assert len(lines) == len(expected), lines
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(expected, lines, strict=True)), lines
    assert "482913" not in caplog.text


def test_the_end_of_a_wait_says_what_became_of_the_money(
    hook: SmsVerifyHook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "smsverify")
    order = hook.order("temporary", service="WhatsApp")
    name = f"order {order.order_id} (WhatsApp, {order.phone})"
    with pytest.raises(WaitTimeoutError) as kept:
        hook.wait_for_otp(order.order_id, 0, cancel_on_timeout=False)
    assert (
        str(kept.value) == f"no code came in time for {name}: it is not cancelled. Wait again, or cancel it"
    )
    with pytest.raises(WaitTimeoutError) as cancelled:
        hook.wait_for_otp(order.order_id, 0)
    end = "it is cancelled for a refund of 0.40 USD. Order another number"
    assert str(cancelled.value) == f"no code came in time for {name}: {end}"
    assert f"Cancelled {name} for a refund of 0.40 USD: no code came in time" in caplog.messages


def test_what_is_not_known_is_left_out() -> None:
    assert named(5, None) == named(5, Order(order_id=5)) == "order 5"
    assert named(5, Order(order_id=5, service="WhatsApp")) == "order 5 (WhatsApp)"
    assert arrival(None, Message(order_id=5)) == "has arrived"
    bought = datetime(2026, 11, 24, tzinfo=timezone.utc)
    order = Order(order_id=5, created_at=bought)
    late = Message(order_id=5, received_at=bought + timedelta(days=3))
    assert arrival(order, late) == "has arrived"
    assert len(end_of_wait(60)) == len("14:05:10 UTC")
    assert len(end_of_wait(10**6)) == len("2026-11-24 14:05:10 UTC")
    assert end_of_wait(10**15) == "the end of time"
