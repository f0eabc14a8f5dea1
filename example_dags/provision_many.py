"""Provision one test account for each service, all at the same time.

Each instance of the mapped group is a purchase of its own: a retry of one neither buys again nor touches the
others. All sensors share one poll, and all tasks share the account's requests per minute.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import XComArg, dag, task, task_group

from smsverify_provider.operators.smsverify import SmsVerifyCancelOrderOperator, SmsVerifyOrderOperator
from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor


@dag(
    schedule=None,
    params={"services": ["WhatsApp", "Telegram", "Google"], "timeout": 300},
    default_args={"retries": 1, "retry_delay": timedelta(seconds=10)},
    tags=["smsverify", "example"],
)
def provision_many() -> None:
    @task
    def services(**context: Any) -> list[str]:
        """The services, from the run's configuration."""
        return list(context["params"]["services"])

    @task_group
    def provision(service: str) -> XComArg:
        order = SmsVerifyOrderOperator(
            task_id="order_number", product="temporary", service=service, max_price="0.50"
        )

        @task
        def sign_up(phone: str) -> str:
            """Stands for your own sign-up form."""
            return f"test-{phone[-4:]}"

        wait = SmsVerifyOtpSensor(
            task_id="wait_for_code",
            order_id=order.output["order_id"],
            timeout="{{ params.timeout }}",
            soft_fail=True,  # an account whose code does not come is left out; the others go on
            deferrable=True,
        )

        @task
        def confirm(account: str, otp: str | None) -> str:
            """Stands for the step that enters the code."""
            if otp is None:
                raise ValueError("no code can be read in the SMS; see the sensor's XCom `message`")
            return account

        cancel = SmsVerifyCancelOrderOperator(task_id="cancel_number", order_id=order.output["order_id"])

        account = sign_up(order.output["phone"])
        account >> wait
        order.as_setup() >> account
        confirmed = confirm(account, wait.output["otp"])
        confirmed >> cancel.as_teardown(setups=order)
        return confirmed

    @task(trigger_rule="none_failed")
    def report(accounts: list[str]) -> list[str]:
        """The accounts that are ready."""
        return [account for account in accounts if account is not None]

    report(provision.expand(service=services()))


provision_many()
