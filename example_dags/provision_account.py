"""Provision a test account in one task, which tries numbers until one gets its code.

It holds no worker while it waits. Needs the connection `smsverify_default` and nothing else. `sign_up` and
`confirm` stand for your own application and touch no network; put your form there.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task


@dag(
    description="Provisions a test account with the first number that gets its code",
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
            120, type="number", minimum=0, title="Time-out", description="Seconds for each number."
        ),
    },
    # A retry goes on with the same number while that is alive, otherwise with the next.
    default_args={"retries": 1, "retry_delay": timedelta(seconds=10)},
    tags=["smsverify", "example"],
)
def provision_account() -> None:
    @task.smsverify(
        product="temporary",
        service="{{ params.service }}",
        max_price="0.50",  # of one number: nothing is bought where the price has risen above this
        attempts=3,
        timeout="{{ params.timeout }}",  # seconds for each number; without a code it is refunded
        alternatives=[{"product": "best-temp"}],  # where no number of the first kind is available
    )
    def sign_up(number: dict[str, Any]) -> str:
        """Stands for your own sign-up form, which makes the service send its SMS. Called with each number."""
        return f"test-{number['phone'][-4:]}"

    @task
    def confirm(verified: dict[str, Any]) -> str:
        """Stands for the step that enters the code."""
        if verified["otp"] is None:
            raise ValueError("no code can be read in the SMS; see `message` in the result of sign_up")
        return str(verified["result"])

    confirm(sign_up())  # type: ignore[call-arg]  # the task calls sign_up with the number


provision_account()
