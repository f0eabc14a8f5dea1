"""How far mapped verifications are, as a progress artifact: in flows that are functions and coroutines."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect import flow, task, unmapped
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.exceptions import UnfinishedRun
from prefect.futures import PrefectConcurrentFuture
from prefect.runtime import flow_run
from prefect.states import State

from prefect_smsverify import (
    SmsVerifyCredentials,
    apublish_progress,
    averify_number,
    progress,
    publish_progress,
    verify_number,
)
from smsverify import Order, Verification, VerificationError
from smsverify.simulator import Simulator

SERVICES = ["WhatsApp", "Telegram", "Google", "Discord"]
END = "2 of 4 verified, 1 without a code, 1 failed otherwise; 0.65 USD, without refunds"


class FormDown(Exception):
    """The function fails."""


@pytest.fixture
def simulator(simulate: Callable[..., Simulator]) -> Simulator:
    return simulate(sms_delay="never")


def published(flow_run_id: Any) -> list[Any]:
    """The progress that a flow run has published."""
    by_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=by_run)


def arguments(account: SmsVerifyCredentials, submit: Callable[[Order], Any]) -> tuple[Any, ...]:
    return unmapped(account), unmapped(submit), "temporary"


def form(simulator: Simulator) -> Callable[[Order], None]:
    """A form: WhatsApp and Discord send their SMS, Telegram sends none, and the page of Google is down."""

    def submit(number: Order) -> None:
        if number.service in ("WhatsApp", "Discord"):
            simulator.deliver_sms(number.order_id, otp="545121")
        if number.service == "Google":
            raise FormDown

    return submit


def check(outcomes: list[Any]) -> None:
    """Checks that each outcome is in its place."""
    assert [type(one) for one in outcomes] == [Verification, VerificationError, FormDown, Verification]
    assert [one.otp for one in (outcomes[0], outcomes[3])] == ["545121"] * 2
    assert len(outcomes[1].attempts) == 2


def signed_up(simulator: Simulator, account: SmsVerifyCredentials) -> State[Any]:
    """The end of a flow that publishes the progress of several sign-ups, and returns their outcomes."""

    @flow
    def sign_up() -> list[Any]:
        verified = verify_number.map(
            *arguments(account, form(simulator)), service=SERVICES, attempts=2, timeout=0.3
        )
        return publish_progress(verified)

    return sign_up(return_state=True)


def test_the_function_publishes_in_a_flow_that_is_a_coroutine() -> None:
    @flow
    async def publishes() -> list[Any]:
        ended: Future[Any] = Future()
        ended.set_result(3)
        return publish_progress([PrefectConcurrentFuture(uuid4(), ended)])

    state = asyncio.run(publishes(return_state=True))
    (artifact,) = published(state.state_details.flow_run_id)
    assert artifact.data == 100


def test_it_counts_what_has_ended_and_gives_each_outcome(
    simulator: Simulator, account: SmsVerifyCredentials
) -> None:
    state = signed_up(simulator, account)
    check(state.result())
    (artifact,) = published(state.state_details.flow_run_id)
    assert (artifact.key, artifact.type, artifact.data) == ("smsverify-progress", "progress", 100)
    assert artifact.description == END
    assert simulator.balance() == 50 - Decimal("0.65")


def test_the_same_for_coroutines(simulator: Simulator, account: SmsVerifyCredentials) -> None:
    @flow
    async def sign_up() -> tuple[list[Any], Any]:
        verified = averify_number.map(
            *arguments(account, form(simulator)), service=SERVICES, attempts=2, timeout=0.3
        )
        return await apublish_progress(verified), flow_run.id

    outcomes, flow_run_id = asyncio.run(sign_up())
    check(outcomes)
    (artifact,) = published(flow_run_id)
    assert (artifact.data, artifact.description) == (100, END)


@pytest.mark.parametrize("form_of_flow", ["a function", "a coroutine"])
def test_a_task_that_fails_before_one_of_them_loses_no_code(
    form_of_flow: str, simulator: Simulator, account: SmsVerifyCredentials
) -> None:
    @task
    def choose(service: str) -> str:
        if service == "Google":
            raise FormDown
        return service

    @flow
    def plain() -> list[Any]:
        chosen = choose.map(["Google", "WhatsApp"])
        return publish_progress(verify_number.map(*arguments(account, form(simulator)), service=chosen))

    @flow
    async def coroutine() -> list[Any]:
        chosen = choose.map(["Google", "WhatsApp"])
        verified = averify_number.map(*arguments(account, form(simulator)), service=chosen)
        return await apublish_progress(verified)

    outcomes = plain() if form_of_flow == "a function" else asyncio.run(coroutine())
    assert [type(one) for one in outcomes] == [UnfinishedRun, Verification]


def test_a_task_that_was_cancelled_before_it_ran_loses_no_code(account: SmsVerifyCredentials) -> None:
    cancelled: Future[Any] = Future()
    cancelled.cancel()
    cancelled.set_running_or_notify_cancel()

    @flow
    def sign_up() -> list[Any]:
        return publish_progress([PrefectConcurrentFuture(uuid4(), cancelled)])

    assert [type(one) for one in sign_up()] == [CancelledError]


def test_it_is_seen_while_others_go_on(simulator: Simulator, account: SmsVerifyCredentials) -> None:
    is_seen, late = threading.Event(), []

    def submit(number: Order) -> None:
        if number.service == "Telegram":
            late.append(number.order_id)
            assert is_seen.wait(60)
        simulator.deliver_sms(number.order_id)

    @flow
    def sign_up() -> list[Any]:
        watch = threading.Thread(target=look, args=(flow_run.id,))
        watch.start()
        verified = verify_number.map(*arguments(account, submit), service=["WhatsApp", "Telegram"])
        outcomes = publish_progress(verified)
        is_seen.set()
        watch.join()
        return outcomes

    def look(flow_run_id: str) -> None:
        while not is_seen.is_set():
            if [one.data for one in published(flow_run_id)] == [50]:
                is_seen.set()
            is_seen.wait(0.1)

    assert [type(one) for one in sign_up()] == [Verification] * 2
    assert late


def test_nothing_to_wait_for_is_all_of_it(account: SmsVerifyCredentials) -> None:
    @flow
    def sign_up() -> list[Any]:
        return publish_progress([])

    state = sign_up(return_state=True)
    assert state.result() == []
    assert [one.data for one in published(state.state_details.flow_run_id)] == [100]


def test_a_server_that_refuses_the_progress_stops_no_verification(
    simulator: Simulator, account: SmsVerifyCredentials, caplog: pytest.LogCaptureFixture
) -> None:
    def forget(number: Order) -> None:
        # Somebody deletes the artifact meanwhile: the server answers the next update with 404.
        while not (found := published(flow_run.id)):
            time.sleep(0.1)
        with get_client(sync_client=True) as client:
            client.delete_artifact(found[0].id)
        simulator.deliver_sms(number.order_id)

    @flow
    def sign_up() -> list[Any]:
        verified = [verify_number.submit(account, forget, "temporary", service="WhatsApp")]
        return publish_progress(verified)

    assert [type(one) for one in sign_up()] == [Verification]
    assert "The progress could not be published" in caplog.text


def test_a_server_that_does_not_take_the_artifact_at_first_loses_no_outcome(
    simulator: Simulator,
    account: SmsVerifyCredentials,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    creates = progress.create_progress_artifact
    answers: list[Any] = [httpx.ConnectError("no server"), creates]

    def create(*args: Any, **fields: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer(*args, **fields)

    monkeypatch.setattr(progress, "create_progress_artifact", create)

    state = signed_up(simulator, account)
    check(state.result())
    assert "The progress could not be published (ConnectError)" in caplog.text
    (artifact,) = published(state.state_details.flow_run_id)
    assert artifact.description == END


def test_a_server_that_never_takes_the_artifact_stops_no_coroutine(
    simulator: Simulator,
    account: SmsVerifyCredentials,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def refuse(*args: Any, **fields: Any) -> None:
        raise httpx.ConnectError("no server")

    monkeypatch.setattr(progress, "acreate_progress_artifact", refuse)

    @flow
    async def sign_up() -> list[Any]:
        verified = averify_number.map(
            *arguments(account, form(simulator)), service=SERVICES, attempts=2, timeout=0.3
        )
        return await apublish_progress(verified)

    check(asyncio.run(sign_up()))
    assert "The progress could not be published (ConnectError)" in caplog.text
