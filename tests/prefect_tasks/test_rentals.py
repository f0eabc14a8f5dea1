"""Keeping rentals by task and flow: what is renewed, and what each run leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.exceptions import ObjectAlreadyExists

from prefect_smsverify import (
    SmsVerifyCredentials,
    arenew_expiring_rentals,
    flows,
    renew_expiring_rentals,
    renew_rentals_flow,
)
from smsverify import FindingsError, RentalsReport
from smsverify.simulator import Fault, Simulator

BLOCK = "rentals"
DAY = 86_400
EXAMPLES = Path(__file__).parents[2] / "prefect_tasks" / "examples"


@pytest.fixture
def service(simulate: Callable[..., Simulator]) -> Simulator:
    """A service whose days are days, on which a block of that name has rented."""
    service = simulate(speed=1, rate_limit=None, sms_delay="never", balance="100", products={})
    SmsVerifyCredentials().save(BLOCK, overwrite=True)
    return service


@pytest.fixture
def rentals(service: Simulator) -> dict[str, int]:
    hook = SmsVerifyCredentials().get_hook()
    return {
        "day": hook.order("rent-1day", service="Tinder").order_id,
        "three": hook.order("rental", service="WhatsApp", duration=3).order_id,
        "month": hook.order("rent-30days", service="Instagram").order_id,
    }


def run(**parameters: Any) -> tuple[Any, Any]:
    """Runs the flow; what it has returned or raised, and its table artifact."""
    state = renew_rentals_flow(BLOCK, return_state=True, **parameters)
    by_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        tables = [one for one in client.read_artifacts(artifact_filter=by_run) if one.type == "table"]
    (artifact,) = tables
    assert artifact.key == "smsverify-rentals"
    return state.result(raise_on_failure=False), artifact


def test_a_run_renews_what_is_due_and_leaves_a_table(service: Simulator, rentals: dict[str, int]) -> None:
    report, artifact = run(within=4 * DAY, max_price="4")
    assert [order.renewals for order in service.orders()] == [1, 1, 0]
    rows = {row["order_id"]: row for row in json.loads(artifact.data)}
    assert {order_id: row["outcome"] for order_id, row in rows.items()} == {
        rentals["day"]: "renewed",
        rentals["three"]: "renewed",
        rentals["month"]: "not_due",
    }
    assert Decimal(rows[rentals["three"]]["cost"]) == 4
    assert all(row["expires_at"] for row in rows.values())
    assert artifact.description.startswith(f"block {BLOCK}: ")
    assert "2 renewed, 1 not_due; that cost 5.20 USD" in artifact.description
    assert Decimal(report["balance"]) == service.balance()
    assert report["findings"] == []
    # Another run, also one that is retried, finds nothing to do.
    run(within=4 * DAY)
    assert [order.renewals for order in service.orders()] == [1, 1, 0]


def test_a_run_fails_where_a_rental_is_not_kept_after_the_others_were_renewed(
    service: Simulator, rentals: dict[str, int]
) -> None:
    path = f"order/{rentals['day']}/renew/"
    body = '{"error": "Insufficient balance"}'
    service.add_fault(Fault("out_of_stock", path, status=402, body=body, times=2))
    failure, artifact = run(within=4 * DAY)
    assert isinstance(failure, FindingsError)
    assert f"rental {rentals['day']}" in str(failure)
    assert "insufficient_balance" in artifact.data
    assert [order.renewals for order in service.orders()] == [0, 1, 0]
    report, _ = run(within=4 * DAY, fail_on_findings=False)
    assert len(report["findings"]) == 1
    report, _ = run(within=4 * DAY)
    assert [order.renewals for order in service.orders()] == [1, 1, 0]


def test_a_server_that_takes_no_artifact_hides_no_renewal(
    service: Simulator, rentals: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**fields: Any) -> None:
        raise httpx.ConnectError("no server")

    monkeypatch.setattr(flows, "create_table_artifact", refuse)
    assert Decimal(renew_rentals_flow(BLOCK, within=2 * DAY)["cost"]) > 0


def test_a_run_that_pays_nothing_and_one_with_a_selection(
    service: Simulator, rentals: dict[str, int]
) -> None:
    report, _ = run(within=4 * DAY, dry_run=True, exclude=[rentals["three"]])
    outcomes = {kept["order_id"]: kept["outcome"] for kept in report["rentals"]}
    assert outcomes == {
        rentals["day"]: "would_renew",
        rentals["three"]: "excluded",
        rentals["month"]: "not_due",
    }
    assert {order.renewals for order in service.orders()} == {0}


def test_without_rentals_the_table_says_so(service: Simulator) -> None:
    report, artifact = run(within=4 * DAY)
    assert (report["rentals"], json.loads(artifact.data)) == ([], [{"rental": "none"}])


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_the_task_reports_and_a_flow_that_runs_twice_renews_once(
    kind: str, service: Simulator, rentals: dict[str, int]
) -> None:
    account = SmsVerifyCredentials()

    @flow
    def plain() -> RentalsReport:
        return renew_expiring_rentals(account, 4 * DAY, only=[rentals["day"]])

    @flow
    async def coroutine() -> RentalsReport:
        return await arenew_expiring_rentals(account, 4 * DAY, only=[rentals["day"]])

    def report() -> RentalsReport:
        return plain() if kind == "plain" else asyncio.run(coroutine())

    assert (report().cost, report().cost) == (Decimal("1.2"), Decimal(0))
    assert [order.renewals for order in service.orders()] == [1, 0, 0]


def test_a_budget_is_that_of_the_run(service: Simulator, rentals: dict[str, int]) -> None:
    report, _ = run(within=4 * DAY, run_budget="4", fail_on_findings=False)
    outcomes = {kept["order_id"]: kept["outcome"] for kept in report["rentals"]}
    assert (outcomes[rentals["day"]], outcomes[rentals["three"]]) == ("renewed", "budget_reached")


@pytest.mark.slow
def test_the_deployment_of_the_example_is_taken_and_its_flow_is_found(
    service: Simulator, rentals: dict[str, int], prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    with get_client(sync_client=True) as client:
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name="rentals", type="process"))
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--name", "renew-rentals"]
        done = subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        found = client.read_deployment_by_name("Renew rentals/renew-rentals")
        assert found.work_pool_name == "rentals"
        assert [schedule.schedule.cron for schedule in found.schedules] == ["0 * * * *"]
        assert found.parameters["within"] == 4 * 3600
        run = client.create_flow_run_from_deployment(
            found.id, parameters={**found.parameters, "credentials": BLOCK, "within": 2 * DAY}
        )
        command = [sys.executable, "-m", "prefect", "flow-run", "execute", str(run.id)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert client.read_flow_run(run.id).state.is_completed(), done.stdout + done.stderr
    assert [order.renewals for order in service.orders()] == [1, 0, 0]
