"""No key, code, message or activation code in logs, reprs or errors, whatever goes wrong."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from rigs import API_KEY, await_end_of_waits

from smsverify import SmsVerifyError
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Fault, Simulator

OTP = "739 1846".replace(" ", "")
WORD = "FOXTROT"


def secrets_of(simulator: Simulator) -> list[str]:
    codes = [order.activation_code for order in simulator.orders() if order.activation_code]
    return [API_KEY, OTP, WORD, *codes]


def go_through_everything(hook: SmsVerifyHook, simulator: Simulator) -> list[str]:
    """Does what a user does, and returns every text that an error has shown."""
    shown: list[str] = [repr(hook), str(hook)]
    ids: list[int] = []

    def attempt(call: Callable[..., Any], *given: Any, **options: Any) -> Any:
        try:
            result = call(*given, **options)
        except SmsVerifyError as error:
            shown.extend(
                [str(error), repr(error), repr(vars(error)), "".join(traceback.format_exception(error))]
            )
            return None
        shown.append(repr(result))
        return result

    for product, given in (
        ("temporary", {"service": "WhatsApp"}),
        ("esim", {"plan": "USA 1GB / 7 days"}),
        ("rent-1day", {"service": "Tinder"}),
    ):
        order = attempt(hook.order, product, **given, key=product)
        ids += [order.order_id] if order is not None else []
    for sold in simulator.orders():
        if sold.phone and sold.status in ("pending", "active"):
            simulator.deliver_sms(sold.order_id, otp=OTP, text=f"Say {WORD}, your code is {OTP}")
    for order_id in ids:
        attempt(hook.get_status, order_id)
        attempt(hook.check_otp, order_id)
        attempt(hook.wait_for_otp, order_id, 0.05)
        attempt(hook.rentals, order_id)
        attempt(hook.renew_expiring, 1e6, order_ids=order_id)
        attempt(hook.cancel, order_id)
        attempt(hook.renew, order_id)
        attempt(hook.get_order, order_id)
    for call in (hook.get_balance, hook.list_orders, hook.list_esim_plans, hook.list_countries, hook.budget):
        attempt(call)
    await_end_of_waits()
    return shown


@pytest.mark.parametrize("kind", [None, "html", "cut_json", "error_after", "success_false", "lost_answer"])
def test_nothing_secret_is_shown_whatever_goes_wrong(
    kind: str | None,
    simulate: Callable[..., Simulator],
    make_hook: Callable[..., SmsVerifyHook],
    store_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "sqlalchemy")
    caplog.set_level(logging.INFO, "smsverify.simulator")
    simulator = simulate(rate_limit=None, balance="100")
    hook = make_hook(simulator, store_url, rate_limit=1000, call_timeout=1.0)
    if kind is not None:
        body = f'{{"success": true, "otp": "{OTP}", "message": {{"sms": "{WORD}"}}, "note": "{API_KEY}"' * 2
        for path in ("order/**", "orders/", "balance/"):
            simulator.add_fault(Fault(kind, path=path, times=None, probability=0.5, body=body))
    shown = "\n".join([*go_through_everything(hook, simulator), caplog.text])
    assert len(shown) > 500
    assert [secret for secret in secrets_of(simulator) if secret in shown] == []
