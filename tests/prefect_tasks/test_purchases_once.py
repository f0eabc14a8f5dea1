"""The same call buys once, whatever is retried; equal calls buy each their own."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timezone
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow, task, unmapped
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.runtime import flow_run
from prefect.states import Scheduled
from prefect.task_runners import ProcessPoolTaskRunner
from prefect.utilities.annotations import quote
from pydantic import BaseModel

from prefect_smsverify import SmsVerifyCredentials, aorder_number, keys, order_number, renew_rental
from prefect_smsverify.plain import plain
from smsverify import InvalidRequestError, NotAvailableError, Order, PurchaseUnknownError
from smsverify.simulator import Fault, Simulator

WHATSAPP: dict[str, Any] = {"product": "temporary", "service": "WhatsApp"}


class Boom(Exception):
    """What goes wrong in a first attempt."""


@pytest.fixture(autouse=True)
def no_sms(silent: Simulator) -> Simulator:
    return silent


def bought(simulator: Simulator) -> list[int]:
    return sorted(order.order_id for order in simulator.orders())


@pytest.mark.slow
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


@pytest.mark.slow
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


class Plan(Enum):
    FREE = 1
    PAID = 2


@dataclass(frozen=True)
class Person:
    name: str


class Customer(BaseModel):
    name: str
    since: date = date(2026, 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("alice", "bob"),
        (UUID(int=1), UUID(int=2)),
        (Person("alice"), Person("bob")),
        (Customer(name="alice"), Customer(name="bob")),
        (date(2026, 1, 1), date(2026, 1, 2)),
        (datetime(2026, 1, 1, tzinfo=timezone.utc), datetime(2026, 1, 1, 1, tzinfo=timezone.utc)),
        (Plan.FREE, Plan.PAID),
        (Path("alice"), Path("bob")),
        (Decimal("1.0"), Decimal("1.1")),
        (b"alice", b"bob"),
        ({"users": [Person("alice")]}, {"users": [Person("bob")]}),
        ({"alice", "carol"}, {"bob", "carol"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_bought_for_somebody_stays_theirs_when_the_others_are_not_done_again(
    first: Any, second: Any, silent: Simulator, account: SmsVerifyCredentials
) -> None:
    attempts: list[list[int]] = []

    @task
    def number_for(user: Any) -> int:
        return order_number(account, **WHATSAPP).order_id

    @flow(retries=1)
    def numbers() -> None:
        # The second attempt skips who comes first, as it does when Prefect has kept that task's result.
        users = [first, second] if flow_run.run_count == 1 else [second]
        attempts.append([number_for(user) for user in users])
        if flow_run.run_count == 1:
            raise Boom

    numbers()
    assert attempts[1] == attempts[0][1:]
    assert len(bought(silent)) == 2


def test_what_changes_between_attempts_makes_no_other_purchase(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    attempts: list[int] = []

    @task
    def another_number(account: Any, order: Order, connection: object, names: Iterator[str]) -> int:
        assert next(names) == "alice"
        return order_number(account, **WHATSAPP).order_id

    @flow(retries=1)
    def numbers() -> None:
        ordered = order_number(account, "temporary", service="Telegram")
        # In the second attempt the account was edited, the order has gone on, and objects are new ones.
        is_first = flow_run.run_count == 1
        edited = account.model_copy(update={} if is_first else {"call_timeout": 1000.0})
        seen = ordered.model_copy(update={} if is_first else {"status": "completed"})
        attempts.append(another_number(edited, quote(seen), unmapped(object()).value, iter(["alice"])))
        if is_first:
            raise Boom

    numbers()
    assert attempts[0] == attempts[1]
    assert len(bought(silent)) == 2


def sign_up(order: Order, user: str = "") -> None:
    """Stands for a function of the user's."""


def log_in(order: Order, user: str = "") -> None:
    """Another one."""


@dataclass
class Form:
    """Stands for an object of the user's."""

    user: str

    def fill(self, order: Order) -> None:
        """Stands for its method."""

    def send(self, order: Order) -> None:
        """Another one."""


@dataclass
class FormThatTriesAgain(Form):
    """Keeps a method of its own."""

    def __post_init__(self) -> None:
        self.on_error = self.fill

    on_error: Any = None


def function_that_calls_itself(user: str) -> Callable[[Order], None]:
    def again(order: Order, user: str = user, then: Any = None) -> None:
        """Has itself among its defaults."""

    again.__defaults__ = (user, again)
    return again


def local_function(user: str) -> Callable[[Order], None]:
    return lambda order, user=user: sign_up(order, user)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (sign_up, log_in),
        (partial(sign_up, user="ada"), partial(sign_up, user="bob")),
        (partial(sign_up, user="ada"), partial(log_in, user="ada")),
        (Form("ada").fill, Form("bob").fill),
        (Form("ada").fill, Form("ada").send),
        (task(sign_up), task(log_in)),
        (task(sign_up), flow(sign_up)),
        (local_function("ada"), local_function("bob")),
        (FormThatTriesAgain("ada"), FormThatTriesAgain("bob")),
        (FormThatTriesAgain("ada").fill, FormThatTriesAgain("bob").fill),
        (function_that_calls_itself("ada"), function_that_calls_itself("bob")),
        (Form, dict),
        (len, print),
    ],
)
def test_functions_that_are_called_differ_in_their_names_and_in_what_is_bound_to_them(
    one: Any, other: Any
) -> None:
    assert plain(one) != plain(other)
    assert json.loads(json.dumps([plain(one), plain(other)])) == [plain(one), plain(other)]


def test_equal_functions_are_the_same_in_every_attempt() -> None:
    def made(connection: object) -> list[Any]:
        return [
            partial(sign_up, user="ada"),
            Form("ada").fill,
            local_function("ada"),
            lambda order: (order, connection),
            partial(sign_up, connection),
            Connection().send,
        ]

    assert plain(made(object())) == plain(made(object()))
    assert " at 0x" not in json.dumps(plain(made(object())))


class Connection:
    """Has no lasting value."""

    def send(self, order: Order) -> None:
        """Stands for its method."""


def test_a_user_keeps_the_number_when_a_further_attempt_calls_in_another_order(
    account: SmsVerifyCredentials,
) -> None:
    attempts: list[dict[str, int]] = []

    @task
    def number_for(action: Callable[[Order], None]) -> int:
        return order_number(account, **WHATSAPP).order_id

    @flow(retries=1)
    def numbers() -> None:
        users = ["ada", "bob"] if flow_run.run_count == 1 else ["bob", "ada"]
        attempts.append({user: number_for(partial(sign_up, user=user)) for user in users})
        if flow_run.run_count == 1:
            raise Boom

    numbers()
    assert attempts[0] == attempts[1]


@pytest.mark.slow
def test_plain_data_is_the_same_in_every_process() -> None:
    program = (
        "import json, pathlib; from prefect_smsverify.plain import plain; "
        "print(json.dumps(plain([{'b', 'a', 'c'}, {'x': {1, 'y', pathlib.PurePosixPath('z')}}])))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


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


@task
def orders_in_a_subflow(account: SmsVerifyCredentials) -> int:
    @flow
    def subflow() -> int:
        return order_number(account, **WHATSAPP).order_id

    return subflow()


def test_a_renewal_whose_answer_was_lost_is_not_paid_again_by_another_run(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    @flow
    def renews(order_id: int) -> Any:
        return renew_rental(account, order_id)

    rental = flow(lambda: order_number(account, "rental", service="WhatsApp", duration=3), name="buys")()
    silent.add_fault(Fault("lost_answer", path="order/*/renew/"))
    for _ in range(3):
        with pytest.raises(PurchaseUnknownError):
            renews(rental.order_id)
    (simulated,) = silent.orders()
    assert simulated.renewals == 1


@pytest.mark.slow
def test_without_a_key_nothing_is_bought_in_another_process_than_the_flows(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    # Equal calls could not be distinguished there: both would get one number.
    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def orders() -> Any:
        refused = [order_number.submit(account, **WHATSAPP), orders_in_a_subflow.submit(account)]
        outcomes = [future.result(raise_on_failure=False) for future in refused]
        return outcomes, order_number.submit(account, **WHATSAPP, key="mine").result()

    outcomes, order = orders()
    for refused in outcomes:
        assert isinstance(refused, InvalidRequestError)
        assert refused.field == "key"
    assert bought(silent) == [order.order_id]


@pytest.mark.slow
def test_an_equal_call_after_thousands_of_others_is_another_purchase(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SWEEP", "REMEMBERED"):
        monkeypatch.setattr(keys, name, 10, raising=False)
    monkeypatch.setattr(keys, "_attempts", {})

    @task
    def key_of(user: str) -> str:
        key = keys.run_key("a number")
        assert key is not None
        return key.text

    @flow
    def many() -> tuple[str, str]:
        first = key_of("ada")
        for number in range(20):
            key_of(f"user {number}")
        return first, key_of("ada")

    first, second = many()
    assert first != second
    for _ in range(2):
        many()
    gc.collect()
    many()
    places_of_a_run = 2 * 22
    assert len(keys._attempts) <= 2 * places_of_a_run
