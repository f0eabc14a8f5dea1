"""What the tests of the trigger of a wait share."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from trigger_runs import Gate

from smsverify.models import Order
from smsverify.wings import store_time
from smsverify_provider import kills
from smsverify_provider.hooks.smsverify import SmsVerifyHook
from smsverify_provider.triggers.smsverify import SmsVerifyOtpTrigger


@pytest.fixture
def order(hook: Any) -> Order:
    return hook.order("temporary", service="WhatsApp")


@pytest.fixture
def make(hook: Any, order: Order) -> Callable[..., SmsVerifyOtpTrigger]:
    """Makes a trigger as the triggerer does: from what is in the metadata database."""

    def make(timeout: float = 60.0, **changes: Any) -> SmsVerifyOtpTrigger:
        arguments = {
            "order_id": order.order_id,
            "deadline": store_time(hook) + timeout,
            "not_before": 0.0,
            "waiter": "the sensor",
            "cancel_on_timeout": True,
            "cancel_on_kill": True,
            "smsverify_conn_id": "smsverify_default",
        }
        trigger = SmsVerifyOtpTrigger(**json.loads(json.dumps(arguments | changes)))
        trigger.task_instance = SimpleNamespace(  # type: ignore[assignment]
            dag_id="dag", run_id="run", task_id="wait", map_index=-1
        )
        return trigger

    return make


@pytest.fixture
def gate(order: Order, monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate()
    for owner, name in ((SmsVerifyHook, "_load_settings"), (kills, "plan_release")):
        monkeypatch.setattr(owner, name, gate.before(getattr(owner, name)))
    return gate
