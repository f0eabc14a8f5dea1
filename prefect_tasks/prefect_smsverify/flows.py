"""Flows that are ready to be served on a schedule."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact

from prefect_smsverify.tasks import reconcile


class NeedsAttentionError(Exception):
    """A reconciliation has found something that a person has to look at; the text says what."""


@flow(name="Reconcile SMS orders", persist_result=False)
def reconcile_flow(
    credentials: str, cancel_after: float | None = None, fail_on_findings: bool = True
) -> dict[str, Any]:
    """Compares what is on record with the service, leaves the result as an artifact, and fails on findings.

    Serve it every quarter of an hour, and let an automation tell of its failures. The table artifact
    `smsverify-reconciliation` has a line for each finding; its description sums up wallet and spending.

    Args:
        credentials: name of a saved `SmsVerifyCredentials` block.
        cancel_after: cancels numbers that were bought here, have no code, and that nobody has waited for in
            this many seconds; rentals are left alone. Default: they are only reported.
        fail_on_findings: whether the flow fails where something needs a person.

    Returns:
        the report as a dict: `balance`, `spent_today`, `settled`, `cancelled`, `leaks`, `findings`, …

    Raises:
        NeedsAttentionError: something needs a person; the text says what.
    """
    report = reconcile(credentials, cancel_after)
    get_run_logger().info("%s", report.as_text())
    create_table_artifact(
        key="smsverify-reconciliation",
        table=[{"to look at": finding} for finding in report.findings] or [{"to look at": "nothing"}],
        description=report.as_text().partition("\n")[0],
    )
    if report.findings and fail_on_findings:
        raise NeedsAttentionError("; ".join(report.findings))
    return report.as_dict()
