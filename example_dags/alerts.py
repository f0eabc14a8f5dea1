"""Alert a person if a finding needs one, and if the wallet is nearly empty.

Each of the two tasks fails then, and Airflow calls its notifier with the reason. `LogNotifier` writes the
alert to the task's log, so that the example runs as it stands. Put a notifier that reaches you in its place,
such as those of Airflow's providers for mail, Slack and PagerDuty: they take the same templates.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.sdk import BaseNotifier, Param, dag

from smsverify_provider.operators.smsverify import SmsVerifyReconcileOperator
from smsverify_provider.sensors.smsverify import SmsVerifyBalanceSensor


class LogNotifier(BaseNotifier):
    """Writes an alert to the task's log."""

    template_fields = ("message",)

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message

    def notify(self, context: Any) -> None:
        self.log.error("ALERT %s", self.message)


@dag(
    description="Alerts a person of findings and of a wallet that is nearly empty",
    doc_md=__doc__,
    schedule=timedelta(minutes=15),
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    params={
        "minimum": Param(
            5, type="number", minimum=0, title="Minimum", description="USD that the wallet should hold."
        )
    },
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    tags=["smsverify", "example"],
)
def alerts() -> None:
    SmsVerifyReconcileOperator(
        task_id="reconcile",
        cancel_after=3600,
        on_failure_callback=LogNotifier("{{ ti.task_id }}: {{ exception }}"),
        doc_md="Fails if a finding needs a person. The result has all findings, with what resolves each.",
    )
    SmsVerifyBalanceSensor(
        task_id="wallet",
        minimum="{{ params.minimum }}",
        timeout=0,  # looks once
        on_failure_callback=LogNotifier("{{ ti.task_id }}: {{ exception }}"),
        doc_md="Fails if the wallet holds less than the minimum.",
    )


alerts()
