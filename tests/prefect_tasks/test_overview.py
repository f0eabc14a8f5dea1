"""The overview as an artifact: the hook's figures, whatever is in them, and nothing secret."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from rigs.filled import SETTINGS, SIMULATOR, filled

from prefect_smsverify import (
    SmsVerifyCredentials,
    apublish_overview,
    order_number,
    publish_overview,
    reconcile_flow,
    renew_rentals_flow,
)
from prefect_smsverify.artifacts import publishing
from smsverify.simulator import Simulator

BLOCK = "seen"


def published(state: Any, key: str = "smsverify-overview") -> list[Any]:
    """The artifacts of one key that a flow run has published."""
    by_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=by_run)
    return [one for one in found if one.key == key]


@flow(name="Sign | up")
def signs_up() -> int:
    order_id = order_number(BLOCK, "temporary", service="WhatsApp").order_id
    publish_overview(BLOCK)
    return order_id


def test_it_shows_the_hooks_figures_with_the_runs_that_have_bought(saved: str, silent: Simulator) -> None:
    state = signs_up(return_state=True)
    order_id = state.result()
    (artifact,) = published(state)
    assert artifact.type == "markdown"
    assert "nothing needs a person" in artifact.description
    assert str(order_id) in artifact.data
    assert "Sign &#124; up · Order number" in artifact.data
    assert silent.api_key not in artifact.data
    (row,) = SmsVerifyCredentials.load(BLOCK).get_hook().overview().orders.rows
    assert row.task is not None
    assert (row.task.framework, row.task.workflow) == ("prefect", "Sign | up")
    assert row.task.ids["flow_run_id"] == str(state.state_details.flow_run_id)


def test_it_shows_the_figures_that_each_face_shows(
    simulate: Callable[..., Simulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate(**SIMULATOR)
    monkeypatch.setenv("SMSVERIFY_DAILY_BUDGET", SETTINGS["daily_budget"])
    monkeypatch.setenv("SMSVERIFY_EXCLUSIVE_ACCOUNT", "false")
    monkeypatch.setenv("SMSVERIFY_CALLBACK_SECRETS", ",".join(SETTINGS["callback_secrets"]))
    SmsVerifyCredentials().save(BLOCK, overwrite=True)

    @flow
    def looks() -> None:
        publish_overview(BLOCK)

    with filled(SmsVerifyCredentials.load(BLOCK).get_hook(), simulator, monkeypatch) as account:
        (artifact,) = published(looks(return_state=True))
    assert account.missing_in(artifact.data.splitlines()) == []
    for secret in account.secrets:
        assert secret not in artifact.data


def test_the_flows_on_a_schedule_publish_it(saved: str) -> None:
    assert len(published(reconcile_flow(BLOCK, return_state=True))) == 1
    assert len(published(renew_rentals_flow(BLOCK, 3600, return_state=True))) == 1


def test_the_flows_on_a_schedule_publish_all_in_a_task_that_is_a_coroutine(saved: str) -> None:
    @task
    async def nightly() -> list[Any]:
        reconciled = reconcile_flow(BLOCK, return_state=True)
        return [reconciled, renew_rentals_flow(BLOCK, 3600, return_state=True)]

    @flow
    async def every_night() -> list[Any]:
        return await nightly()

    reconciled, renewed = asyncio.run(every_night())
    assert len(published(reconciled, "smsverify-reconciliation")) == 1
    assert len(published(renewed, "smsverify-rentals")) == 1
    assert len(published(reconciled)) == len(published(renewed)) == 1


def test_what_cannot_be_published_outside_of_a_run_is_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    with publishing("The overview"):
        raise httpx.ConnectError("no server")
    assert "The overview could not be published (ConnectError)" in caplog.text


def test_coroutines_have_their_own(saved: str) -> None:
    @flow
    async def looks() -> Any:
        return await apublish_overview(BLOCK)

    assert asyncio.run(looks()).orders.count == 0
