"""Triggers on a machine whose clock differs from the worker's: both keep to the time of the store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from trigger_runs import event_of, run, start

from smsverify.models import Order
from smsverify.simulator import Simulator
from smsverify_provider.operators.smsverify import SmsVerifyOperator
from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor
from smsverify_provider.triggers.smsverify import SmsVerifyOtpTrigger

pytestmark = [
    pytest.mark.smsverify_simulator(sms_delay="never"),
    pytest.mark.parametrize("ahead", [-3600.0, 3600.0], ids=["behind", "ahead"]),
    pytest.mark.parametrize("kind", ["sensor", "verify"]),
]
GAP = 0.5


@pytest.fixture
def deferred(
    order: Order, run_task: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., SmsVerifyOtpTrigger]:
    """Defers a task on a worker whose clock is so much ahead; gives the trigger as the triggerer makes it."""
    for module in ("resuming", "deferring"):
        monkeypatch.setattr(f"smsverify_provider.{module}.RESUME_GAP", GAP)

    def defer(kind: str, ahead: float, timeout: float) -> SmsVerifyOtpTrigger:
        wait: Any
        if kind == "sensor":
            wait = SmsVerifyOtpSensor(
                task_id="wait", order_id=order.order_id, timeout=timeout, deferrable=True
            )
        else:
            wait = SmsVerifyOperator(
                task_id="wait",
                python_callable=lambda number: number["phone"],
                product="temporary",
                service="WhatsApp",
                timeout=timeout,
            )
        right = time.time
        with monkeypatch.context() as worker:
            worker.setattr(time, "time", lambda: right() + ahead)
            kwargs = run_task(wait).msg.trigger_kwargs
        return SmsVerifyOtpTrigger(**json.loads(json.dumps(kwargs)))

    return defer


def test_a_code_is_taken_up_as_soon_as_the_task_may_be_resumed(
    deferred: Any, sim: Simulator, kind: str, ahead: float
) -> None:
    began = time.monotonic()
    trigger = deferred(kind, ahead, 60.0)

    async def scenario() -> tuple[dict[str, Any], float]:
        waiting = await start(trigger, sim)
        sim.deliver_sms(trigger.order_id)
        event = await waiting
        return event, time.monotonic()

    event, ended = run(scenario())
    assert event["outcome"] == "arrived"
    assert ended - began >= GAP


@pytest.mark.slow
def test_a_wait_lasts_as_long_as_its_task_has_said(
    deferred: Any, sim: Simulator, kind: str, ahead: float
) -> None:
    trigger = deferred(kind, ahead, 1.0)
    began = time.monotonic()
    event = run(event_of(trigger))
    assert (event["outcome"], event["cancelled"]) == ("timeout", True)
    assert time.monotonic() - began >= 0.5
    assert sim.order(trigger.order_id).status == "cancelled"
