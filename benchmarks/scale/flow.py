"""One verified account."""

from __future__ import annotations

from prefect import flow, task
from prefect.cache_policies import INPUTS, RUN_ID

from prefect_smsverify import SmsVerifyCredentials, verify_number
from smsverify import Order


@flow(retries=20, retry_delay_seconds=10)
def account(name: str) -> str:
    """Returns the account's name and the order of its number."""
    return verify(name)


# This result is kept, and has no code: a flow run that begins again after it needs no other number.
@task(persist_result=True, cache_policy=INPUTS + RUN_ID)
def verify(name: str) -> str:
    """Returns the account's name and the order of its number."""

    def sign_up(number: Order) -> str:
        return f"{name}:{number.order_id}"

    verified = verify_number(
        SmsVerifyCredentials.load("scale"),
        sign_up,
        "temporary",
        service="WhatsApp",
        max_price="0.50",
        attempts=4,
        timeout=300,
    )
    return str(verified.result)
