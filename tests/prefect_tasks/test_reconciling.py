"""Reconciliation as a task and a flow: what was lost is found, and the flow fails on what needs a person."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

from prefect_smsverify import (
    SmsVerifyCredentials,
    areconcile,
    flows,
    order_number,
    overview,
    reconcile,
    reconcile_flow,
    wait_for_otp,
)
from smsverify import PurchaseUnknownError
from smsverify.errors import FindingsError
from smsverify.reports import Reconciliation
from smsverify.simulator import Fault, Simulator

BLOCK = "reconciled"


@flow
def buys() -> int:
    return order_number(BLOCK, "temporary", service="WhatsApp").order_id


def lose_a_purchase(simulator: Simulator) -> None:
    """Has a flow buy a number that it never hears of."""
    simulator.add_fault(Fault("lost_answer", path="order/temporary/"))
    simulator.add_fault(Fault("error_before", path="orders/", times=None))
    with pytest.raises(PurchaseUnknownError):
        buys()
    simulator.clear_faults()


def buy_elsewhere(simulator: Simulator) -> int:
    """A number that somebody else buys on the account; its order id."""
    request = urllib.request.Request(
        f"{simulator.url}/api/v1/order/temporary/",
        data=json.dumps({"service_id": 1012}).encode(),
        headers={"Authorization": f"Bearer {simulator.api_key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201
    return simulator.orders()[-1].order_id


def run(**parameters: Any) -> tuple[Any, Any]:
    """Runs the flow; what it has returned or raised, and its table artifact."""
    state = reconcile_flow(BLOCK, return_state=True, **parameters)
    by_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        tables = [one for one in client.read_artifacts(artifact_filter=by_run) if one.type == "table"]
    (artifact,) = tables
    assert artifact.key == "smsverify-reconciliation"
    return state.result(raise_on_failure=False), artifact


def lines(artifact: Any) -> list[str]:
    return [row["needs attention"] for row in json.loads(artifact.data)]


def test_where_all_is_accounted_for_the_flow_says_so(simulator: Simulator) -> None:
    SmsVerifyCredentials().save(BLOCK, overwrite=True)

    @flow
    def main_job() -> None:
        wait_for_otp(BLOCK, order_number(BLOCK, "temporary", service="WhatsApp"))

    main_job()
    report, artifact = run()
    assert report["findings"] == []
    assert Decimal(report["spent_today"]) == Decimal("0.40")
    assert Decimal(report["balance"]) == Decimal("49.60")
    assert lines(artifact) == ["nothing"]
    assert artifact.description.startswith(f"block {BLOCK}: ")
    assert "spent today 0.40 USD" in artifact.description


def test_a_purchase_whose_answer_was_lost_is_found_and_given_back(silent: Simulator, saved: str) -> None:
    lose_a_purchase(silent)
    (lost,) = silent.orders()
    assert lost.status == "pending"
    report, _ = run(cancel_after=0)
    assert [(call["outcome"], call["order_id"]) for call in report["resolved"]] == [("bought", lost.order_id)]
    assert report["cancelled"] == [lost.order_id]
    assert report["findings"] == []
    assert silent.balance() == 50


def test_a_run_whose_purchase_was_lost_is_handed_it_after_the_reconciliation(
    silent: Simulator, saved: str, account: SmsVerifyCredentials
) -> None:
    @flow(retries=1)
    def buys_in_the_end() -> int:
        try:
            return order_number(account, "temporary", service="WhatsApp").order_id
        except PurchaseUnknownError:
            silent.clear_faults()
            assert reconcile(account).resolved
            raise

    silent.add_fault(Fault("lost_answer", path="order/temporary/"))
    silent.add_fault(Fault("error_before", path="orders/", times=None))
    bought = buys_in_the_end()
    assert [order.order_id for order in silent.orders()] == [bought]


def test_the_flow_fails_where_a_person_is_needed_and_its_artifact_says_why(
    silent: Simulator, saved: str
) -> None:
    order_id = buy_elsewhere(silent)
    failure, artifact = run()
    assert isinstance(failure, FindingsError)
    assert [order.order_id for order in failure.report.foreign] == [order_id]
    assert f"order {order_id}" in str(failure)
    (line,) = lines(artifact)
    assert f"order {order_id}" in line
    assert "not bought through this store" in line


def test_the_flow_does_not_fail_where_that_is_not_wanted(silent: Simulator, saved: str) -> None:
    order_id = buy_elsewhere(silent)
    report, artifact = run(fail_on_findings=False)
    assert [held["order_id"] for held in report["foreign"]] == [order_id]
    assert len(lines(artifact)) == 1


def test_a_server_that_takes_no_artifact_hides_no_finding(
    silent: Simulator, saved: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(**fields: Any) -> None:
        raise httpx.ConnectError("no server")

    monkeypatch.setattr(flows, "create_table_artifact", refuse)
    monkeypatch.setattr(overview, "create_markdown_artifact", refuse)
    order_id = buy_elsewhere(silent)
    with pytest.raises(FindingsError, match=f"order {order_id}"):
        reconcile_flow(BLOCK)
    for what in ("The findings", "The overview"):
        assert f"{what} could not be published (ConnectError)" in caplog.text


def test_a_service_that_does_not_answer_fails_the_flow(silent: Simulator, saved: str) -> None:
    silent.add_fault(Fault("unauthorized", path="orders/", times=None))
    assert reconcile_flow(BLOCK, return_state=True).is_failed()


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
@pytest.mark.slow
def test_the_task_reports_a_number_that_nobody_waits_for_or_gives_it_back(
    kind: str, simulate: Callable[..., Simulator]
) -> None:
    simulator = simulate(sms_delay="never")
    account = SmsVerifyCredentials()

    @flow
    def plain(cancel_after: float | None) -> Reconciliation:
        return reconcile(account, cancel_after)

    @flow
    async def coroutine(cancel_after: float | None) -> Reconciliation:
        return await areconcile(account, cancel_after)

    def report(cancel_after: float | None) -> Reconciliation:
        return plain(cancel_after) if kind == "plain" else asyncio.run(coroutine(cancel_after))

    order = flow(lambda: order_number(account, "temporary", service="WhatsApp"), name="buys")()
    assert report(None).cancelled == []
    assert report(0).cancelled == [order.order_id]
    assert simulator.order(order.order_id).status == "cancelled"
    assert report(0).findings == []
