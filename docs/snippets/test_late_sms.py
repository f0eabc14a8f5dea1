"""A pipeline whose SMS never comes is refunded."""

import pytest

from smsverify import SmsVerifyHook, WaitTimeoutError


@pytest.mark.smsverify_simulator(sms_delay="never")
def test_no_code_costs_nothing(smsverify_simulator, smsverify_env):
    hook = SmsVerifyHook()
    order = hook.order("temporary", service="WhatsApp")
    with pytest.raises(WaitTimeoutError):
        hook.wait_for_otp(order.order_id, timeout=0.5)
    assert smsverify_simulator.balance() == 50
