"""What may be spent, by a run with all that it starts and by the account, and where nothing may be bought."""

from __future__ import annotations

from typing import Any

import pytest
from prefect import flow, task, unmapped
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW, temporary_settings

from prefect_smsverify import SmsVerifyCredentials, order_number, renew_rental
from smsverify import Order, SpendingLimitError, StoreError
from smsverify.simulator import Simulator

pytestmark = pytest.mark.slow


def ends(outcomes: list[Any]) -> tuple[int, int]:
    """How many were bought, and how many were refused for a budget."""
    bought = [outcome for outcome in outcomes if isinstance(outcome, Order)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, SpendingLimitError)]
    assert len(bought) + len(refused) == len(outcomes)
    return len(bought), len(refused)


@flow
def many_numbers(account: SmsVerifyCredentials, count: int, **budgets: Any) -> list[Any]:
    ordered = order_number.map(unmapped(account), "temporary", service=["WhatsApp"] * count, **budgets)
    return ordered.result(raise_on_failure=False)


@task
def one_number(account: SmsVerifyCredentials, **budgets: Any) -> Any:
    return order_number(account, "temporary", service="WhatsApp", **budgets)


def test_the_budget_of_a_run_holds_for_mapped_tasks(silent: Simulator, account: SmsVerifyCredentials) -> None:
    assert ends(many_numbers(account, 5, run_budget="1.00")) == (2, 3)
    assert len(silent.orders()) == 2


def test_the_budget_of_a_run_holds_for_its_subflows_and_not_for_other_runs(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    @flow
    def outer() -> list[Any]:
        first = one_number(account, run_budget="1.20")
        rest = many_numbers(account, 4, run_budget="1.20")
        nested = one_number.submit(account, run_budget="1.20").result(raise_on_failure=False)
        return [first, *rest, nested]

    assert ends(outer()) == (3, 3)
    assert ends(outer()) == (3, 3)
    assert len(silent.orders()) == 6


def test_the_budget_of_a_run_holds_for_a_task_without_a_flow(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    @task
    def several(count: int) -> list[Any]:
        return [one_number(account, run_budget="1.00", return_state=True).result(False) for _ in range(count)]

    with temporary_settings({PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore"}):
        assert ends(several(3)) == (2, 1)
        assert ends(several(1)) == (1, 0)
    bought_by = [row.task for row in account.get_hook().overview().orders.rows]
    assert {(task.workflow, *task.ids) for task in bought_by if task} == {("several", "task_run_id")}


def test_the_blocks_budgets_hold_besides(silent: Simulator, account: SmsVerifyCredentials) -> None:
    frugal = account.model_copy(update={"daily_budget": 1.5, "run_budget": 0.9})
    assert ends(many_numbers(frugal, 3, run_budget="100")) == (2, 1)
    assert ends(many_numbers(frugal, 3)) == (1, 2)
    generous = account.model_copy(update={"daily_budget": 1.6})
    assert ends(many_numbers(generous, 1, run_budget="100")) == (1, 0)
    assert len(silent.orders()) == 4


def test_a_retry_of_the_run_does_not_count_twice(silent: Simulator, account: SmsVerifyCredentials) -> None:
    attempts: list[tuple[int, int]] = []

    @flow(retries=1)
    def again() -> None:
        attempts.append(ends(many_numbers(account, 2, run_budget="0.80")))
        if len(attempts) == 1:
            raise RuntimeError

    again()
    assert attempts == [(2, 0), (2, 0)]
    assert len(silent.orders()) == 2


def test_a_renewal_counts_for_the_budget_of_its_run(silent: Simulator, account: SmsVerifyCredentials) -> None:
    @flow
    def renews() -> None:
        rental = order_number(account, "rental", service="WhatsApp", duration=3, run_budget="7.99")
        with pytest.raises(SpendingLimitError):
            renew_rental(account, rental, run_budget="7.99")

    renews()
    assert [order.renewals for order in silent.orders()] == [0]


# -------------------------------------------------------------- where the store is


@flow
def buys(account: SmsVerifyCredentials) -> int:
    return order_number(account, "temporary", service="WhatsApp").order_id


@flow
def buys_in_a_subflow(account: SmsVerifyCredentials) -> int:
    return buys(account)


def run_in_pool(pool: str, deployed: Any, account: SmsVerifyCredentials) -> Any:
    """Runs a flow as a worker of the pool does; what it returns."""
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(deployed), f"in {pool}", work_pool_name=pool)
        run = client.create_flow_run_from_deployment(deployment)
        return run_flow(deployed, flow_run=client.read_flow_run(run.id), parameters={"account": account})


@pytest.mark.parametrize("deployed", [buys, buys_in_a_subflow])
def test_with_a_store_in_a_file_nothing_is_bought_where_flows_run_elsewhere(
    deployed: Any, silent: Simulator, account: SmsVerifyCredentials, client: SyncPrefectClient
) -> None:
    pool = f"containers-{deployed.name}"
    client.create_work_pool(WorkPoolCreate(name=pool, type="docker", base_job_template={}))
    with pytest.raises(StoreError, match=f"docker work pool '{pool}'.*PostgreSQL.*allow_unshared_store"):
        run_in_pool(pool, deployed, account)
    assert silent.requests() == []

    allowed = account.model_copy(update={"allow_unshared_store": True})
    assert run_in_pool(pool, deployed, allowed) == silent.orders()[0].order_id


def test_with_a_store_in_a_file_numbers_are_bought_where_flows_run_on_the_workers_machine(
    silent: Simulator, account: SmsVerifyCredentials, client: SyncPrefectClient
) -> None:
    client.create_work_pool(WorkPoolCreate(name="processes", type="process", base_job_template={}))
    assert run_in_pool("processes", buys, account) == silent.orders()[0].order_id


def test_with_a_store_in_a_file_nothing_is_bought_where_the_work_pool_is_not_known(
    silent: Simulator,
    account: SmsVerifyCredentials,
    client: SyncPrefectClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Any) -> Any:
        raise ObjectNotFound(Exception())

    client.create_work_pool(WorkPoolCreate(name="gone", type="process", base_job_template={}))
    monkeypatch.setattr(SyncPrefectClient, "read_work_pool", fails)
    with pytest.raises(StoreError, match="not known where the work pool 'gone' runs flows"):
        run_in_pool("gone", buys, account)
    assert silent.requests() == []
