"""What a run has bought is handed over when what it was bought in has come to a good end, else named."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
from prefect import flow, task
from prefect.transactions import transaction

from prefect_smsverify import SmsVerifyCredentials, aorder_number, order_number, rented_number
from smsverify._store.store import Store
from smsverify.simulator import Simulator

DAY = {"product": "rent-1day", "service": "Tinder"}


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


def later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = Store.now
    monkeypatch.setattr(Store, "now", lambda self, connection: now(self, connection) + 3600)


def findings(account: SmsVerifyCredentials) -> list[str]:
    """Of a reconciliation and of a renewal of all rentals."""
    hook = account.get_hook()
    return hook.reconcile().findings + [kept.outcome for kept in hook.renew_expiring(10**6).rentals]


@pytest.mark.parametrize(
    "steps", [in_a_task, in_the_flow, in_a_transaction, by_the_task, by_the_coroutine, submitted]
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


def test_a_block_hands_its_rental_over_only_where_its_code_was_used(
    simulator: Simulator, account: SmsVerifyCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    @flow
    def uses() -> None:
        with rented_number(account, **DAY) as number:
            number.wait_for_otp()

    uses()
    later(monkeypatch)
    assert findings(account) == ["renewed"]


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
