"""A pipeline that gives its number back leaves the wallet as it was."""

import pytest

from smsverify import SmsVerifyHook


def run_my_pipeline() -> None:
    """Stands for your Dag or flow."""
    hook = SmsVerifyHook()
    order = hook.order("temporary", service="WhatsApp")
    hook.cancel(order.order_id)


@pytest.mark.smsverify_simulator(sms_delay="never")
def test_my_pipeline(smsverify_simulator, smsverify_env):
    run_my_pipeline()
    assert smsverify_simulator.balance() == 50
