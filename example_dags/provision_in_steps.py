"""Provision a test account in several tasks, for pipelines that need the number before its code has come.

If one task is enough, see `provision_account.py`. Needs the connection `smsverify_default` and nothing
else. The two tasks that stand for your own application, `sign_up` and `confirm`, touch no network; put your
form there.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag, task

from smsverify_provider.operators.smsverify import SmsVerifyCancelOrderOperator, SmsVerifyOrderOperator
from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor


@dag(
    description="Provisions a test account with one number, in a task for each step",
    doc_md=__doc__,
    schedule=None,
    params={
        "service": Param(
            "WhatsApp",
            type=["string", "integer"],
            minLength=1,
            # With examples, the form has a field of one line.
            examples=["WhatsApp", "Telegram", "Google", "1012"],
            title="Service",
            description="Whose SMS it is: name or id.",
        ),
        "timeout": Param(
            300, type="number", minimum=0, title="Time-out", description="Seconds to wait for the code."
        ),
    },
    # A retry is safe everywhere: the order task buys once for all its tries, and the others do no harm twice.
    default_args={"retries": 1, "retry_delay": timedelta(seconds=10)},
    tags=["smsverify", "example"],
)
def provision_in_steps() -> None:
    order = SmsVerifyOrderOperator(
        task_id="order_number",
        product="temporary",
        service="{{ params.service }}",
        max_price="0.50",  # nothing is bought where the price has risen above this
        doc_md="Buys a number, once for all tries of the task.",
    )

    @task
    def sign_up(phone: str) -> str:
        """Stands for your own sign-up form, which makes the service send its SMS."""
        return f"test-{phone[-4:]}"

    wait = SmsVerifyOtpSensor(
        task_id="wait_for_code",
        order_id=order.output["order_id"],
        timeout="{{ params.timeout }}",
        deferrable=True,  # waits in the triggerer: no worker is held
        doc_md="Waits for the SMS. If none comes in time, the number is cancelled for a refund.",
    )

    @task
    def confirm(account: str, otp: str | None) -> str:
        """Stands for the step that enters the code."""
        if otp is None:
            raise ValueError("no code can be read in the SMS; see `message` in the result of wait_for_code")
        return account

    # A teardown runs also when a task before it fails. Where the code was used, there is nothing to cancel.
    cancel = SmsVerifyCancelOrderOperator(
        task_id="cancel_number",
        order_id=order.output["order_id"],
        doc_md="Gives the number back if its code was not used.",
    )

    account = sign_up(order.output["phone"])
    account >> wait
    order.as_setup() >> account
    confirm(account, wait.output["otp"]) >> cancel.as_teardown(setups=order)


provision_in_steps()
