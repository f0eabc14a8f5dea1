"""No key, code, message or activation code in logs, reprs or errors, whatever goes wrong."""

from __future__ import annotations

import json
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
    for call in (
        hook.get_balance,
        hook.list_orders,
        hook.list_esim_plans,
        hook.list_countries,
        hook.rate_limit,
    ):
        attempt(call)
    await_end_of_waits()
    return shown


@pytest.mark.parametrize("kind", [None, "html", "cut_json", "error_after", "success_false", "lost_answer"])
@pytest.mark.slow
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


HOSTILE = f"no\n2026-01-01 INFO bought\x1b[31m\u202e\x9b your code is {OTP}, G-{OTP} or 739 184"


@pytest.mark.slow
@pytest.mark.parametrize("status", [200, 400, 403])
@pytest.mark.parametrize(
    "body",
    [
        {"success": False, "error": HOSTILE, "message": HOSTILE},
        {"success": False, "detail": {HOSTILE: [HOSTILE]}, HOSTILE: HOSTILE},
        [{HOSTILE: HOSTILE, "status": HOSTILE, "qr": WORD, "data": {"lpa": WORD}}],
        HOSTILE,
    ],
)
def test_what_a_hostile_service_writes_forges_no_line_and_shows_no_code(
    body: Any,
    status: int,
    simulate: Callable[..., Simulator],
    make_hook: Callable[..., SmsVerifyHook],
    store_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "smsverify")
    simulator = simulate(rate_limit=None, balance="100")
    hook = make_hook(simulator, store_url, rate_limit=1000, call_timeout=0.3, rate_period=0.01)
    text = body if isinstance(body, str) else json.dumps(body)
    simulator.add_fault(Fault("error_before", status=status, body=text, times=None, retry_after=0))
    shown: list[str] = []
    for call in (
        hook.get_balance,
        hook.list_orders,
        hook.list_countries,
        lambda: hook.get_status(7),
        lambda: hook.order("temporary", service="WhatsApp", key="k"),
    ):
        with pytest.raises(SmsVerifyError) as caught:
            call()
        shown += [str(caught.value), repr(caught.value), repr(vars(caught.value))]
    shown += [record.getMessage() for record in caplog.records if record.name.startswith("smsverify")]
    for line in shown:
        assert line.isprintable()
        assert not [secret for secret in (OTP, WORD, "739 184", API_KEY) if secret in line]
