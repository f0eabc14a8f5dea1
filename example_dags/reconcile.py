"""Compare the records with the service every quarter of an hour, and alert a person if that is necessary.

The task finds out what became of purchases whose answer was lost, and gives back numbers that no task has
waited for in an hour. If a person has to look, it fails, and the Dag's alerts (`on_failure_callback`, a
notifier, your monitoring of failed runs) show the task's error as the reason.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import dag

from smsverify_provider.operators.smsverify import SmsVerifyReconcileOperator


@dag(
    description="Compares the records with the service, and fails if a person has to look",
    doc_md=__doc__,
    schedule=timedelta(minutes=15),
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["smsverify", "example"],
)
def reconcile() -> None:
    SmsVerifyReconcileOperator(
        task_id="reconcile",
        cancel_after=3600,
        retries=2,
        retry_delay=timedelta(minutes=1),
        doc_md="Fails if a finding needs a person. The result has all findings, with what resolves each.",
    )


reconcile()
