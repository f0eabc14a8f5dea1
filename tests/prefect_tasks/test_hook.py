"""The hook of a block inside of a run: what lasts ends with the run."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import Context, copy_context
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from prefect.transactions import transaction

from prefect_smsverify import SmsVerifyCredentials
from prefect_smsverify.stopping import stopping_waits
from smsverify import Order, SmsVerifyHook, WaitStoppedError
from smsverify._orders import holding
from smsverify.simulator import Simulator

WHATSAPP = {"product": "temporary", "service": "WhatsApp"}
CALLS: dict[str, Callable[[SmsVerifyHook, int], Any]] = {
    "order": lambda hook, _: hook.order(**WHATSAPP),
    "rented_number": lambda hook, _: hook.rented_number(**WHATSAPP).__enter__(),
    "attempts": lambda hook, _: next(hook.attempts(**WHATSAPP)),
    "verify": lambda hook, _: hook.verify(print, **WHATSAPP, timeout=5),
    "renew": lambda hook, order_id: hook.renew(order_id),
    "wait_for_otp": lambda hook, order_id: hook.wait_for_otp(order_id, timeout=5),
    "await_otp": lambda hook, order_id: asyncio.run(hook.await_otp(order_id, timeout=5)),
}

STOPPED_WAITS: dict[str, Callable[..., Any]] = {
    "wait_for_otp": lambda hook, order_id, **options: hook.wait_for_otp(order_id, timeout=5, **options),
    "await_otp": lambda hook, order_id, **options: asyncio.run(
        hook.await_otp(order_id, timeout=5, **options)
    ),
}


class Down(BaseException):
    """The end of a run."""


class Boom(Exception):
    """What goes wrong in a step."""


def in_a_run_that_is_down(call: Callable[..., Any], *args: Any) -> Any:
    context: Context | None = None
    try:
        with stopping_waits():
            context = copy_context()
            raise Down
    except Down:
        assert context is not None
        return context.run(call, *args)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_ends_with_its_run(name: str, silent: Simulator, account: SmsVerifyCredentials) -> None:
    hook = account.get_hook()
    order = hook.order("rent-1day", service="Tinder")
    with pytest.raises(WaitStoppedError):
        in_a_run_that_is_down(CALLS[name], hook, order.order_id)
    assert [one.order_id for one in silent.orders()] == [order.order_id]
    assert silent.balance() in {50 - order.price, 50}  # a wait gives its number back


@pytest.mark.parametrize("has_code", [False, True])
@pytest.mark.parametrize("name", ["wait_for_otp", "await_otp"])
def test_a_wait_that_is_stopped_says_what_became_of_its_order(
    name: str, has_code: bool, silent: Simulator, account: SmsVerifyCredentials
) -> None:
    hook = account.get_hook()
    order = hook.order(**WHATSAPP)
    if has_code:
        silent.deliver_sms(order.order_id, otp="123456")
        hook.wait_for_otp(order.order_id, timeout=5)
    after = {"after": datetime.now(timezone.utc) + timedelta(days=1)} if has_code else {}
    call = functools.partial(STOPPED_WAITS[name], hook, order.order_id, **after)
    fate = "not cancelled now: its code has come" if has_code else "cancelled$"
    with pytest.raises(WaitStoppedError, match=rf"{order.order_id} was stopped\. The order is {fate}"):
        in_a_run_that_is_down(call)
    assert silent.order(order.order_id).status == ("completed" if has_code else "cancelled")


def test_the_renewal_of_many_rentals_ends_with_its_run(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    hook = account.get_hook()
    hook.order("rent-1day", service="Tinder")
    (rental,) = in_a_run_that_is_down(hook.renew_expiring, 86_400).rentals
    assert rental.outcome == "stopped"


def test_a_reconciliation_ends_with_its_run(silent: Simulator, account: SmsVerifyCredentials) -> None:
    hook = account.get_hook()
    hook.order(**WHATSAPP)
    with pytest.raises(WaitStoppedError):
        in_a_run_that_is_down(lambda: hook.reconcile(cancel_after=0))
    assert silent.orders()[0].status == "pending"


def test_a_stop_of_the_callers_own_holds_alone(silent: Simulator, account: SmsVerifyCredentials) -> None:
    hook = account.get_hook()
    order = in_a_run_that_is_down(lambda: hook.order(**WHATSAPP, stop=threading.Event()))
    assert order.order_id == silent.orders()[0].order_id


def fails_in_a_step() -> None:
    """What Prefect does when a task fails whose error is caught: it rolls the transaction around it back."""
    with contextlib.suppress(Boom), transaction():
        raise Boom


def tried_by_verify(hook: SmsVerifyHook, use: Callable[[Order], None]) -> str | None:
    return hook.verify(use, **WHATSAPP, timeout=0.5).otp


def tried_in_a_loop(hook: SmsVerifyHook, use: Callable[[Order], None]) -> str | None:
    otp = None
    for attempt in hook.attempts(**WHATSAPP, timeout=0.5):
        with attempt as number:
            use(number.order)
            otp = number.wait_for_otp().otp
    return otp


@pytest.mark.parametrize("tried", [tried_by_verify, tried_in_a_loop])
def test_a_step_whose_error_is_caught_ends_no_attempts(
    tried: Callable[..., str | None], silent: Simulator, account: SmsVerifyCredentials
) -> None:
    used = []

    def use(order: Order) -> None:
        fails_in_a_step()
        used.append(order.order_id)
        if len(used) == 2:
            silent.deliver_sms(order.order_id, otp="123456")

    with transaction():
        assert tried(account.get_hook(), use) == "123456"
    assert len(used) == 2
    assert not held(silent)


def test_a_step_whose_error_is_caught_ends_no_wait(silent: Simulator, account: SmsVerifyCredentials) -> None:
    with (
        transaction(),
        account.get_hook().rented_number(**WHATSAPP) as number,
        ThreadPoolExecutor() as pool,
    ):
        waiting = pool.submit(copy_context().run, number.wait_for_otp, 30)
        assert wait([waiting], timeout=1).not_done
        fails_in_a_step()
        assert wait([waiting], timeout=1).not_done
        silent.deliver_sms(number.order_id, otp="123456")
        assert waiting.result().otp == "123456"
    assert not held(silent)


def test_what_is_bought_inside_a_transaction_that_is_rolled_back_is_handed_over(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    with transaction():
        fails_in_a_step()
        with transaction():  # as each task run has one
            account.get_hook().order(**WHATSAPP)
    assert silent.orders()
    assert not held(silent)


def held(service: Simulator) -> list[int]:
    """The orders of this account that the process still sends heartbeats for."""
    bought = {one.order_id for one in service.orders()}
    return [one.order_id for one in holding._hands._held.values() if one.order_id in bought]


def test_a_call_leaves_nothing_in_the_transaction_around_it(
    silent: Simulator, account: SmsVerifyCredentials
) -> None:
    with transaction() as around:
        account.get_hook().reconcile()
        assert around.children == []


def test_each_method_shows_the_signature_of_the_core(account: SmsVerifyCredentials) -> None:
    for name, method in inspect.getmembers(SmsVerifyHook, inspect.isfunction):
        if name != "__init__":
            assert inspect.signature(getattr(type(account.get_hook()), name)) == inspect.signature(method)
