"""The same call buys once, whatever is retried; equal calls buy each their own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prefect import flow, task, unmapped
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.runtime import flow_run
from prefect.states import Scheduled
from prefect.task_runners import ProcessPoolTaskRunner

from prefect_smsverify import SmsVerifyCredentials, aorder_number, order_number, renew_rental
from smsverify import InvalidRequestError, NotAvailableError, PurchaseUnknownError
from smsverify.simulator import Fault, Simulator

WHATSAPP: dict[str, Any] = {"product": "temporary", "service": "WhatsApp"}


class Boom(Exception):
    """What goes wrong in a first attempt."""


@pytest.fixture(autouse=True)
def no_sms(silent: Simulator) -> Simulator:
    return silent


def bought(simulator: Simulator) -> list[int]:
    return sorted(order.order_id for order in simulator.orders())


def test_a_flow_retry_is_handed_what_the_attempt_before_has_bought(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    attempts: list[list[int]] = []

    @flow
    def inner() -> list[int]:
        return [order_number(account, **WHATSAPP).order_id for _ in range(2)]

    @task
    def uses_the_hook() -> list[int]:
        return [account.get_hook().order(**WHATSAPP).order_id for _ in range(2)]

    @flow(retries=1)
    def outer() -> None:
        one_by_one = [order_number(account, **WHATSAPP).order_id for _ in range(3)]
        services = ["Telegram"] * 3
        mapped = [
            order.order_id
            for order in order_number.map(unmapped(account), "temporary", service=services).result()
        ]
        attempts.append([*one_by_one, *inner(), *inner(), *uses_the_hook(), *sorted(mapped)])
        if flow_run.run_count == 1:
            raise Boom

    outer()
    first, second = attempts
    assert first == second
    assert sorted(first) == bought(silent)
    assert len(set(first)) == 12


def test_a_coroutines_retry_is_handed_what_the_attempt_before_has_bought(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    attempts: list[set[int]] = []

    @flow(retries=1)
    async def orders() -> None:
        together = await asyncio.gather(*(aorder_number(account, **WHATSAPP) for _ in range(3)))
        attempts.append({order.order_id for order in together})
        if flow_run.run_count == 1:
            raise Boom

    asyncio.run(orders())
    assert attempts[0] == attempts[1] == set(bought(silent))
    assert len(attempts[0]) == 3


def test_a_task_retry_and_a_subflow_retry_are_handed_what_was_bought_before(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    in_task: list[list[int]] = []
    in_subflow: list[list[int]] = []

    def buy_two() -> list[int]:
        return [account.get_hook().order(**WHATSAPP).order_id for _ in range(2)]

    @task(retries=1)
    def work() -> None:
        in_task.append(buy_two())
        if len(in_task) == 1:
            raise Boom

    @flow(retries=1)
    def subflow() -> None:
        in_subflow.append([*buy_two(), order_number(account, **WHATSAPP).order_id])
        if len(in_subflow) == 1:
            raise Boom

    @flow
    def outer() -> None:
        work()
        subflow()
        work()

    outer()
    assert in_task[0] == in_task[1]
    assert in_subflow[0] == in_subflow[1]
    assert bought(silent) == sorted(in_task[0] + in_subflow[0] + in_task[2])


def test_a_run_that_starts_again_in_another_process_is_handed_what_it_has_bought(
    silent: Simulator, account: SmsVerifyCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[list[int]] = []

    @flow
    def orders() -> str:
        attempts.append([order_number(account, **WHATSAPP).order_id for _ in range(3)])
        return str(flow_run.id)

    run_id = orders()
    # The memory of a process that was killed is gone, and somebody has the run start again.
    monkeypatch.setattr("prefect_smsverify.keys._attempts", {})
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run_id, Scheduled(), force=True)
        run_flow(orders, flow_run=client.read_flow_run(run_id))
    orders()
    assert attempts[0] == attempts[1]
    assert not set(attempts[0]) & set(attempts[2]), "another run is another purchase"
    assert len(bought(silent)) == 6


def test_what_is_bought_for_somebody_stays_theirs_when_the_others_are_not_done_again(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    attempts: list[dict[str, int]] = []

    @task
    def number_for(user: str) -> int:
        return order_number(account, **WHATSAPP).order_id

    @flow(retries=1)
    def numbers() -> None:
        # The second attempt skips who comes first, as it does when Prefect has kept that task's result.
        users = ["alice", "bob"] if flow_run.run_count == 1 else ["bob"]
        attempts.append({user: number_for(user) for user in users})
        if flow_run.run_count == 1:
            raise Boom

    numbers()
    assert attempts[1]["bob"] == attempts[0]["bob"]
    assert len(bought(silent)) == 2


def test_calling_again_after_a_failure_is_the_same_purchase(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    # The answer is lost and the order is not in the list yet, so nobody can know.
    silent.add_fault(Fault("lost_answer", path="order/temporary/"))
    silent.add_fault(Fault("list_lag", path="order/temporary/", seconds=100_000))

    @flow
    def stubborn() -> int:
        for _ in range(4):
            with pytest.raises(PurchaseUnknownError):
                order_number(account, **WHATSAPP)
        with pytest.raises(NotAvailableError):
            order_number(account, "temporary", service="no such service")
        return order_number(account, "temporary", service="Telegram").order_id

    stubborn()
    assert [order.service for order in silent.orders()].count("WhatsApp") == 1


def test_a_key_that_is_given_is_the_same_purchase_in_all_runs(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    @flow
    def orders() -> int:
        return order_number(account, **WHATSAPP, key="the one").order_id

    assert orders() == orders()
    assert len(bought(silent)) == 1


def test_a_renewal_is_paid_once_by_all_attempts(silent: Simulator, account: SmsVerifyCredentials) -> None:
    @flow(retries=1)
    def renews() -> None:
        rental = order_number(account, "rental", service="WhatsApp", duration=3)
        renew_rental(account, rental)
        if flow_run.run_count == 1:
            raise Boom

    renews()
    (rental,) = silent.orders()
    assert rental.renewals == 1


def test_without_a_key_nothing_is_bought_in_another_process_than_the_flows(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    # Equal calls could not be told apart there: both would be handed one number.
    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def orders() -> Any:
        refused = order_number.submit(account, **WHATSAPP)
        refused.wait()
        return refused.state, order_number.submit(account, **WHATSAPP, key="mine").result()

    refused, order = orders()
    with pytest.raises(InvalidRequestError, match="key") as error:
        refused.result()
    assert error.value.field == "key"
    assert bought(silent) == [order.order_id]
