"""Tasks that run in other processes than their subflows, where Prefect names only the innermost flow run."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context
from typing import Any, TypeVar

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, hydrated_context, serialize_context
from prefect.exceptions import ObjectNotFound, Pause
from prefect.flow_engine import run_flow
from prefect.states import Cancelling, Suspended
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner
from rigs import eventually

from prefect_smsverify import SmsVerifyCredentials, order_number, runs, stopping
from prefect_smsverify.runs import PrefectRun
from prefect_smsverify.stopping import current_stop
from smsverify import Order, SpendingLimitError, StoreError
from smsverify.errors import SettingsUnavailableError
from smsverify.simulator import Simulator

pytestmark = pytest.mark.slow

T = TypeVar("T")


def elsewhere(call: Callable[[], T]) -> Future[T]:
    """Calls a function as a process of a task runner does: with nothing but what Prefect sends there."""
    sent = serialize_context()

    def called() -> T:
        with hydrated_context(sent):
            return call()

    with ThreadPoolExecutor(1) as process:
        return process.submit(Context().run, called)


def bought_elsewhere(account: SmsVerifyCredentials, key: str) -> Future[Order]:
    def buy() -> Order:
        return order_number(account, "temporary", service="WhatsApp", run_budget="1.00", key=key)

    return elsewhere(buy)


def test_the_budget_of_a_run_holds_for_what_its_subflows_buy_elsewhere(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    outcomes: list[Any] = []

    @flow
    def innermost(number: int) -> None:
        outcomes.append(bought_elsewhere(account, str(number)).exception())

    @flow
    def middle(number: int) -> None:
        innermost(number)

    @flow
    def outer() -> None:
        order_number(account, "temporary", service="WhatsApp", run_budget="1.00")
        for number in range(2):
            middle(number)

    outer()
    assert outcomes[0] is None
    assert isinstance(outcomes[1], SpendingLimitError)
    assert len(silent.orders()) == 2


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (httpx.ConnectError("refused"), "does not say which flow runs .* try again"),
        (ObjectNotFound(ArithmeticError("404")), "was deleted.* start the outermost flow anew"),
    ],
)
def test_nothing_is_bought_elsewhere_when_the_server_does_not_say_for_which_run(
    silent: Simulator,
    account: SmsVerifyCredentials,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    says: str,
) -> None:
    errors: list[Any] = []

    def fails(*_: Any) -> Any:
        raise error

    @flow
    def inner() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(SyncPrefectClient, "read_task_run", fails)
            errors.append(bought_elsewhere(account, "mine").exception())
        bought_elsewhere(account, "mine").result()

    @flow
    def outer() -> None:
        inner()

    outer()
    assert isinstance(errors[0], SettingsUnavailableError)
    assert re.search(says, str(errors[0]))
    assert len(silent.orders()) == 1


def test_the_work_pool_of_the_run_around_counts_elsewhere(
    silent: Simulator, account: SmsVerifyCredentials, client: SyncPrefectClient
) -> None:
    errors: list[Any] = []

    @flow
    def inner(account: SmsVerifyCredentials) -> None:
        errors.append(bought_elsewhere(account, "mine").exception())

    @flow
    def outer_in_containers(account: SmsVerifyCredentials) -> None:
        inner(account)

    client.create_work_pool(WorkPoolCreate(name="distant", type="docker", base_job_template={}))
    flow_id = client.create_flow(outer_in_containers)
    deployment = client.create_deployment(flow_id, "in distant", work_pool_name="distant")
    run = client.create_flow_run_from_deployment(deployment)
    run_flow(outer_in_containers, client.read_flow_run(run.id), parameters={"account": account})
    assert isinstance(errors[0], StoreError)
    assert "docker work pool 'distant'" in str(errors[0])
    assert silent.requests() == []


class ClusterTaskRunner(ThreadPoolTaskRunner):
    """Stands for a task runner of another package."""


def test_with_a_store_in_a_file_nothing_is_bought_where_a_task_runner_may_run_tasks_elsewhere(
    silent: Simulator, account: SmsVerifyCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = account.model_copy(update={"allow_unshared_store": True})
    outcomes: list[Any] = []
    monkeypatch.setattr(runs, "LOCAL_RUNNERS", (ProcessPoolTaskRunner,))

    @flow(task_runner=ClusterTaskRunner())
    def on_a_cluster() -> None:
        order_number(account, "temporary", service="WhatsApp", key="here")
        outcomes.append(bought_elsewhere(account, "there").exception())
        bought_elsewhere(allowed, "there").result()

    on_a_cluster()
    assert isinstance(outcomes[0], StoreError)
    assert "the ClusterTaskRunner may run tasks elsewhere" in str(outcomes[0])
    assert len(silent.orders()) == 2


def test_a_retry_of_the_run_around_counts_elsewhere() -> None:
    delays: list[float | None] = []

    @flow
    def inner() -> None:
        delays.append(elsewhere(PrefectRun().next_try_within).result())

    @flow(retries=1, retry_delay_seconds=1)
    def outer() -> None:
        inner()
        if len(delays) == 1:
            raise RuntimeError

    outer()
    assert delays == [601.0, None]


def test_what_runs_elsewhere_stops_with_the_run_around(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "FLOW_RUN_LOOK", 0.1)
    stops: list[Any] = []

    @flow
    def inner() -> None:
        stop = elsewhere(current_stop).result()
        assert not stop.is_set()
        context = FlowRunContext.get()
        assert context is not None
        outer_context: Any = context._token.old_value  # type: ignore[union-attr]
        client.set_flow_run_state(outer_context.flow_run.id, Cancelling(), force=True)
        eventually(stop.is_set, "the stop")
        stops.append(stop)

    @flow
    def outer() -> None:
        inner()

    outer(return_state=True)
    assert len(stops) == 1


def test_what_runs_elsewhere_stops_with_its_own_run_though_that_around_cannot_be_read(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "FLOW_RUN_LOOK", 0.1)
    stops: list[Any] = []

    def fails(*_: Any) -> Any:
        raise ObjectNotFound(ArithmeticError("404"))

    @flow
    def inner() -> None:
        stop = elsewhere(current_stop).result()
        assert not stop.is_set()
        context: Any = FlowRunContext.get()
        client.set_flow_run_state(context.flow_run.id, Cancelling(), force=True)
        eventually(stop.is_set, "the stop")
        stops.append(stop)

    @flow
    def outer() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(SyncPrefectClient, "read_task_run", fails)
            inner(return_state=True)

    outer()
    assert len(stops) == 1


@pytest.mark.skipif(
    stopping.SUSPENSION not in FlowRunContext.model_fields,
    reason="before Prefect 3.8, a run that is suspended from outside goes on",
)
@pytest.mark.parametrize("state", [Suspended(), Cancelling()])
def test_what_runs_elsewhere_knows_whether_its_run_is_suspended(
    state: State, client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "FLOW_RUN_LOOK", 0.1)
    suspended: list[bool] = []

    @flow
    def whole() -> None:
        stop = elsewhere(current_stop).result()
        context: Any = FlowRunContext.get()
        client.set_flow_run_state(context.flow_run.id, state, force=True)
        eventually(stop.is_set, "the stop")
        suspended.append(stop.is_suspended())

    with suppress(Pause):
        whole(return_state=True)
    assert suspended == [state.name == "Suspended"]
