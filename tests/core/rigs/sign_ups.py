"""Sign-ups with several numbers: a form that some of them get a code by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rigs.money import Died
from smsverify import Order, SmsVerifyHook, Verification
from smsverify.simulator import Simulator

WHATSAPP = {"service": "WhatsApp", "max_price": "0.50"}


def delivers_to(simulator: Simulator, *which: int) -> Callable[[Order], str]:
    """A form: the nth numbers that are typed in get a code, the others none."""
    tried: list[int] = []

    def submit(number: Order) -> str:
        tried.append(number.order_id)
        if len(tried) in which:
            simulator.deliver_sms(number.order_id, otp=f"54512{len(tried)}")
        return f"account {len(tried)}"

    submit.tried = tried  # type: ignore[attr-defined]
    return submit


def verify(hook: SmsVerifyHook, action: Callable[[Order], Any], **options: Any) -> Verification:
    return hook.verify(action, "temporary", **{**WHATSAPP, "timeout": 1.0, "key": "sign-up", **options})


def statuses(simulator: Simulator) -> list[str]:
    return [order.status for order in sorted(simulator.orders(), key=lambda order: order.order_id)]


def die(*_: object) -> None:
    raise Died
