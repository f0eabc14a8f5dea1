"""Provision one test account for each service, all at the same time.

Each instance of the mapped group tries numbers of its own: a retry of one neither buys again nor touches the
others. All of them share one poll and the account's requests per minute, and hold no worker while they wait.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task, task_group


@dag(
    description="Provisions a test account for each service, all at the same time",
    doc_md=__doc__,
    schedule=None,
    params={
        "services": Param(
            ["WhatsApp", "Telegram", "Google"],
            type="array",
            items={"anyOf": [{"type": "string", "minLength": 1}, {"type": "integer"}]},
            title="Services",
            description="Names or ids, one a line. An account is provisioned for each.",
        ),
        "timeout": Param(
            120, type="number", minimum=0, title="Time-out", description="Seconds for each number."
        ),
    },
    default_args={"retries": 1, "retry_delay": timedelta(seconds=10)},
    tags=["smsverify", "example"],
)
def provision_many() -> None:
    @task
    def services(**context: Any) -> list[str | int]:
        """The services, from the run's configuration."""
        return list(context["params"]["services"])

    @task_group
    def provision(service: str | int) -> Any:
        @task.smsverify(
            product="temporary",
            service=service,
            max_price="0.50",  # of one number
            attempts=3,
            timeout="{{ params.timeout }}",  # seconds for each number; without a code it is refunded
        )
        def sign_up(number: dict[str, Any]) -> str:
            """Stands for your own sign-up form. Called with each number that is tried."""
            return f"test-{number['phone'][-4:]}"

        @task
        def confirm(verified: dict[str, Any]) -> str:
            """Stands for the step that enters the code."""
            if verified["otp"] is None:
                raise ValueError("no code can be read in the SMS; see `message` in the result of sign_up")
            return str(verified["result"])

        return confirm(sign_up())  # type: ignore[call-arg]  # the task calls sign_up with the number

    # An account for which no number gets its code fails, and the others go on.
    @task(trigger_rule="all_done")
    def report(accounts: list[str]) -> list[str]:
        """The accounts that are ready."""
        return list(accounts)

    report(provision.expand(service=services()))


provision_many()
