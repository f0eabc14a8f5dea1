"""Flows that are ready to be served on a schedule."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact

from prefect_smsverify.artifacts import in_this_thread, publishing
from prefect_smsverify.overview import publish_overview
from prefect_smsverify.rentals import renew_expiring_rentals
from prefect_smsverify.tasks import reconcile
from smsverify.reports import KeptRental, Reconciliation, RentalsReport


@flow(name="Reconcile SMS orders", persist_result=False)
def reconcile_flow(
    credentials: str, cancel_after: float | None = None, fail_on_findings: bool = True
) -> dict[str, Any]:
    """Compares the records with the service, leaves the result as an artifact, and fails on findings.

    Serve it every quarter of an hour, and let an automation report its failures. The table artifact
    `smsverify-reconciliation` has a line for each finding; its description names the block and sums up wallet
    and spending. The markdown artifact `smsverify-overview` shows the account as a whole.

    Args:
        credentials: name of a saved `SmsVerifyCredentials` block.
        cancel_after: cancels numbers that were bought here, have no code, and that no task has waited for in
            this many seconds; a rental only if it was never handed over. Default: only reported.
        fail_on_findings: whether the flow fails when a finding needs a person.

    Returns:
        the report as a dict: `balance`, `spent_today`, `resolved`, `cancelled`, `leaks`, `findings`, …

    Raises:
        FindingsError: a finding needs a person. The text says which, and `report` has the report.
    """
    report = reconcile(credentials, cancel_after)
    get_run_logger().info("%s", report.as_text())
    with publishing("The findings"):
        in_this_thread(
            create_table_artifact,
            key="smsverify-reconciliation",
            table=[{"needs attention": finding} for finding in report.findings]
            or [{"needs attention": "nothing"}],
            description=_summary(credentials, report),
        )
    with publishing("The overview"):
        publish_overview(credentials)
    if fail_on_findings:
        report.raise_if_failed()
    return report.as_dict()


@flow(name="Renew rentals", persist_result=False)
def renew_rentals_flow(
    credentials: str,
    within: float,
    *,
    max_price: float | str | None = None,
    run_budget: float | str | None = None,
    order_ids: tuple[int, ...] = (),
    only: tuple[int, ...] | None = None,
    exclude: tuple[int, ...] = (),
    dry_run: bool = False,
    fail_on_findings: bool = True,
) -> dict[str, Any]:
    """Renews the rentals that end soon, leaves a report as an artifact, and fails when one is not kept.

    Serve it several times in `within`, every hour for four hours, and let an automation report its failures.
    The table artifact `smsverify-rentals` has a line for each rental: what was done and why, what it cost,
    and when it ends now. Its description names the block and sums up the cost, the wallet, and what the next
    renewals cost.

    Args:
        credentials: name of a saved `SmsVerifyCredentials` block.
        within: seconds; a rental that ends sooner is due.
        max_price: most that one renewal may cost, in USD. A rental whose price is higher or unknown is not
            renewed.
        run_budget: most that this flow run may spend, in USD.
        order_ids: ids of rentals besides those that were bought through the store.
        only: renews none but these, which may have been rented elsewhere.
        exclude: leaves these alone.
        dry_run: reports what would be done, and pays nothing.
        fail_on_findings: whether the flow fails when a rental is not kept.

    Returns:
        the report as a dict: `rentals`, `cost`, `balance`, `next_cost`, `lasts`, `findings`, …

    Raises:
        FindingsError: some rentals were due and could not be renewed. The text says which, and why;
            `report` has the report.
    """
    report = renew_expiring_rentals(
        credentials,
        within,
        max_price=max_price,
        run_budget=run_budget,
        order_ids=order_ids,
        only=only,
        exclude=exclude,
        dry_run=dry_run,
    )
    get_run_logger().info("%s", report.as_text())
    with publishing("The rentals"):
        in_this_thread(
            create_table_artifact,
            key="smsverify-rentals",
            table=[_row(rental) for rental in report.rentals] or [{"rental": "none"}],
            description=_summary(credentials, report),
        )
    with publishing("The overview"):
        publish_overview(credentials)
    if fail_on_findings:
        report.raise_if_failed()
    return report.as_dict()


def _summary(credentials: str, report: Reconciliation | RentalsReport) -> str:
    # The blocks of several accounts share the artifact's key.
    return f"block {credentials}: " + report.as_text().partition("\n")[0]


def _row(rental: KeptRental) -> dict[str, Any]:
    shown = rental.model_dump(mode="json")
    names = ("order_id", "product", "service", "phone", "outcome", "reason", "price", "cost", "expires_at")
    return {name: "" if shown[name] is None else shown[name] for name in names}
