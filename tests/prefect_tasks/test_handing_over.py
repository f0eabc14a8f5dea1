"""What a run has bought is handed over when what it was bought in has come to a good end, else named."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow, task
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed
from prefect.transactions import transaction

from prefect_smsverify import (
    SmsVerifyCredentials,
    aorder_number,
    arented_number,
    averify_number,
    order_number,
    rented_number,
    transactions,
    wait_for_otp,
    wait_for_otps,
)
from prefect_smsverify.rented import RentedNumber
from smsverify import StoreError
from smsverify._orders import holding
from smsverify._store.store import Store
from smsverify.simulator import Fault, Simulator

pytestmark = pytest.mark.slow

DAY = {"product": "rent-1day", "service": "Tinder"}
RELEASE = "INSERT ON smsverify_releases"


class Boom(Exception):
    """What goes wrong in a later step."""


@task
def buy_by_the_client(account: SmsVerifyCredentials, goes_wrong: bool) -> None:
    account.get_hook().order(**DAY)
    if goes_wrong:
        raise Boom


def in_a_task(account: SmsVerifyCredentials, goes_wrong: bool) -> None:
    buy_by_the_client(account, goes_wrong)


def in_the_flow(account: SmsVerifyCredentials, goes_wrong: bool) -> None:
    account.get_hook().order(**DAY)
    if goes_wrong:
        raise Boom


def in_a_transaction(account: SmsVerifyCredentials, goes_wrong: bool) -> None:
    with transaction():
        account.get_hook().order(**DAY)
        if goes_wrong:
            raise Boom


def by_the_task(account: SmsVerifyCredentials, goes_wrong: bool) -> None:
    order_number(account, **DAY)


async def by_the_coroutine(account: SmsVerifyCredentials, goes_wrong: bool) -> None:
    await aorder_number(account, **DAY)


def submitted(account: SmsVerifyCredentials, goes_wrong: bool) -> None:
    order_number.submit(account, **DAY).result()


def before_a_step_that_is_tried_again(account: SmsVerifyCredentials, goes_wrong: bool) -> None:
    errors = iter([Boom()])

    @task(retries=1)
    def step() -> None:
        for error in errors:
            raise error

    @task
    def both() -> None:
        order_number(account, **DAY)
        step()

    both()


def later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = Store.now
    monkeypatch.setattr(Store, "now", lambda self, connection: now(self, connection) + 3600)


def findings(account: SmsVerifyCredentials) -> list[str]:
    """Of a reconciliation and of a renewal of all rentals."""
    hook = account.get_hook()
    return hook.reconcile().findings + [kept.outcome for kept in hook.renew_expiring(10**6).rentals]


@pytest.mark.parametrize(
    "steps",
    [
        in_a_task,
        in_the_flow,
        in_a_transaction,
        by_the_task,
        by_the_coroutine,
        submitted,
        before_a_step_that_is_tried_again,
    ],
)
def test_a_rental_is_handed_over_with_what_it_was_bought_in(
    steps: Callable[..., Any],
    silent: Simulator,
    account: SmsVerifyCredentials,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run: Any = flow(steps)(account, False)
    if run is not None:
        asyncio.run(run)
    later(monkeypatch)
    assert findings(account) == ["renewed"]


@pytest.mark.parametrize("steps", [in_a_task, in_the_flow, in_a_transaction])
def test_a_rental_that_was_bought_in_what_has_failed_is_named_and_not_renewed(
    steps: Callable[..., Any],
    silent: Simulator,
    account: SmsVerifyCredentials,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(Boom):
        flow(steps)(account, True)
    later(monkeypatch)
    finding, outcome = findings(account)
    assert str(silent.orders()[0].order_id) in finding
    assert outcome == "unclaimed"


def test_a_flow_with_other_options_lets_its_orders_go_too(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    """It shares some of its hooks with the flow that it was made of, which has run before."""
    first = flow(in_the_flow)
    first(account, False)
    with pytest.raises(Boom):
        first.with_options(on_failure=[lambda *_: None])(account, True)
    assert transactions._held_by == {}


@pytest.mark.parametrize("hook", [transactions.hand_over_orders, transactions.let_orders_go])
def test_the_hooks_of_a_flow_take_what_prefects_runner_gives(hook: Any) -> None:
    hook(flow=flow(in_the_flow), flow_run=FlowRun(flow_id=uuid4()), state=Completed())


def by_the_number(account: SmsVerifyCredentials, number: RentedNumber) -> None:
    number.wait_for_otp()


def by_a_task(account: SmsVerifyCredentials, number: RentedNumber) -> None:
    wait_for_otp(account, number.order_id)


def by_a_submitted_task(account: SmsVerifyCredentials, number: RentedNumber) -> None:
    wait_for_otps.submit(account, [number.order_id]).result()


def by_the_client(account: SmsVerifyCredentials, number: RentedNumber) -> None:
    account.get_hook().wait_for_otp(number.order_id)


READS = pytest.mark.parametrize("read", [by_the_number, by_a_task, by_a_submitted_task, by_the_client])


@READS
@pytest.mark.parametrize("kind", ["a function", "a coroutine"])
def test_a_block_hands_its_rental_over_where_its_code_was_used_by_whatever_call(
    kind: str,
    read: Any,
    simulator: Simulator,
    account: SmsVerifyCredentials,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @flow
    def uses() -> bool:
        with rented_number(account, **DAY) as number:
            assert not number.is_used
            read(account, number)
            return number.is_used

    @flow
    async def auses() -> bool:
        async with arented_number(account, **DAY) as number:
            await asyncio.to_thread(task(read), account, number)
            return number.is_used

    assert uses() if kind == "a function" else asyncio.run(auses())
    later(monkeypatch)
    assert findings(account) == ["renewed"]


@pytest.mark.parametrize("kind", ["a function", "a coroutine"])
@pytest.mark.parametrize("error", [Boom, None])
def test_a_block_whose_number_cannot_be_given_back_lets_it_go_and_keeps_its_own_error(
    error: type[Exception] | None,
    kind: str,
    silent: Simulator,
    account: SmsVerifyCredentials,
    store_refuses: Callable[..., AbstractContextManager[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def goes_wrong(to_the_end: ExitStack) -> None:
        to_the_end.enter_context(store_refuses(RELEASE))
        if error is not None:
            raise error

    @flow
    def fails() -> None:
        with ExitStack() as to_the_end, rented_number(account, **DAY):
            goes_wrong(to_the_end)

    @flow
    async def afails() -> None:
        with ExitStack() as to_the_end:
            async with arented_number(account, **DAY):
                goes_wrong(to_the_end)

    with pytest.raises(error or StoreError):
        fails() if kind == "a function" else asyncio.run(afails())
    (order,) = silent.orders()
    assert not any(held.order_id == order.order_id for held in holding._hands._held.values())
    if error is not None:
        assert f"Order {order.order_id} is not given back" in caplog.text


@pytest.mark.parametrize("buy", ["a number", "an attempt"])
def test_a_cancelled_purchase_stays_cancelled_where_its_number_cannot_be_given_back(
    buy: str,
    silent: Simulator,
    account: SmsVerifyCredentials,
    store_refuses: Callable[..., AbstractContextManager[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    @flow
    async def cancelled() -> bool:
        silent.add_fault(Fault("slow_after", path="order/rent-1day/", seconds=1))
        if buy == "a number":
            buying = asyncio.ensure_future(aorder_number(account, **DAY))
        else:
            buying = asyncio.ensure_future(averify_number(account, print, **DAY))
        while not await asyncio.to_thread(silent.orders):
            await asyncio.sleep(0.05)
        with store_refuses(RELEASE):
            buying.cancel()
            await asyncio.wait([buying])
        return buying.cancelled()

    assert asyncio.run(cancelled())
    assert f"Order {silent.orders()[0].order_id} is not given back" in caplog.text


KILLED = """
    import os, signal
    from prefect import flow, task
    from prefect_smsverify import SmsVerifyCredentials, order_number, rented_number

    account = SmsVerifyCredentials()

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    @task
    def client():
        account.get_hook().order("rent-1day", service="Tinder")
        die()

    @task
    def nested():
        order_number(account, "rent-1day", service="Tinder")
        die()

    @task
    def block():
        with rented_number(account, "rent-1day", service="Tinder"):
            die()

    @flow
    def run(step):
        {"client": client, "nested": nested, "block": block}[step]()

    run(os.environ["STEP"])
"""


@pytest.mark.parametrize("step", ["client", "nested", "block"])
def test_a_rental_whose_process_was_killed_is_given_back_where_that_is_wanted(
    step: str,
    prefect_server: str,
    silent: Simulator,
    account: SmsVerifyCredentials,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment = {**os.environ, "PREFECT_API_URL": prefect_server, "STEP": step}
    died = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED)], env=environment, check=False, capture_output=True
    )
    assert died.returncode < 0, died.stderr[-2000:]
    (order,) = silent.orders()
    later(monkeypatch)
    finding, outcome = findings(account)
    assert str(order.order_id) in finding
    assert outcome == "unclaimed"
    assert account.get_hook().reconcile(cancel_after=0).cancelled == [order.order_id]
    assert silent.balance() == 50
