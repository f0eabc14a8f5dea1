"""A task for a verified account, before it runs and when it comes back from its wait."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from smsverify.simulator import Simulator
from smsverify_provider.operators.smsverify import SmsVerifyOperator
from smsverify_provider.triggers.smsverify import SmsVerifyOtpTrigger

WHATSAPP = {"product": "temporary", "service": "WhatsApp", "max_price": "0.50", "timeout": 0.5}


def verifying(function: Callable[..., Any], **arguments: Any) -> SmsVerifyOperator:
    return SmsVerifyOperator(**{"task_id": "sign_up", "python_callable": function, **WHATSAPP, **arguments})


class Tries(SimpleNamespace):
    """A task instance as far as it knows its tries."""

    id = "0199"
    dag_id, run_id, task_id, map_index = "dag", "run", "wait", -1
    try_number = 1
    max_tries = 0

    def xcom_push(self, **_item: Any) -> None:
        """Nobody reads it."""


def same_try(trigger: SmsVerifyOtpTrigger) -> Any:
    """The context of the task that comes back from this trigger."""
    return {"ti": Tries(id=trigger.waiter.partition("@")[0])}


def resume(operator: SmsVerifyOperator, trigger: SmsVerifyOtpTrigger, event: dict[str, Any]) -> Any:
    return operator.resume_execution("execute_complete", {"event": event}, same_try(trigger))


class Form:
    """A form that numbers are typed into; the nth of them get a code."""

    def __init__(self, sim: Simulator, *delivering: int) -> None:
        self.sim, self.delivering, self.typed = sim, delivering, list[int]()

    def submit(self, number: dict[str, Any]) -> str:
        self.typed.append(number["order_id"])
        if len(self.typed) in self.delivering:
            self.sim.deliver_sms(number["order_id"], otp=f"54512{len(self.typed)}")
        return f"account {number['phone']}"
