"""A task for a verified account, before it runs and when it comes back from its wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smsverify.simulator import Simulator
from smsverify_provider.operators.smsverify import SmsVerifyOperator

WHATSAPP = {"product": "temporary", "service": "WhatsApp", "max_price": "0.50", "timeout": 0.5}


def verifying(function: Callable[..., Any], **arguments: Any) -> SmsVerifyOperator:
    return SmsVerifyOperator(**{"task_id": "sign_up", "python_callable": function, **WHATSAPP, **arguments})


def resume(operator: SmsVerifyOperator, event: dict[str, Any]) -> Any:
    return operator.resume_execution("execute_complete", {"event": event}, {})  # type: ignore[arg-type]


class Form:
    """A form that numbers are typed into; the nth of them get a code."""

    def __init__(self, sim: Simulator, *delivering: int) -> None:
        self.sim, self.delivering, self.typed = sim, delivering, list[int]()

    def submit(self, number: dict[str, Any]) -> str:
        self.typed.append(number["order_id"])
        if len(self.typed) in self.delivering:
            self.sim.deliver_sms(number["order_id"], otp=f"54512{len(self.typed)}")
        return f"account {number['phone']}"
