"""What callers give by mistake is refused through the hook before anything is sent, and harms nobody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import sqlalchemy as sa
from rigs.rooms import store_of
from rigs.sign_ups import WHATSAPP, statuses
from rigs.waits import PATIENT, buy

from smsverify import InvalidRequestError, Order, SmsVerifyHook
from smsverify._store.tables import releases
from smsverify.simulator import Simulator
from smsverify.wings import claim, plan_release

STOPPABLE: dict[str, Callable[[SmsVerifyHook, Any], Any]] = {
    "order": lambda hook, stop: hook.order("temporary", **WHATSAPP, stop=stop),
    "rented_number": lambda hook, stop: hook.rented_number("temporary", **WHATSAPP, stop=stop).__enter__(),
    "attempts": lambda hook, stop: hook.attempts("temporary", **WHATSAPP, stop=stop),
    "verify": lambda hook, stop: hook.verify(print, "temporary", **WHATSAPP, stop=stop),
    "renew": lambda hook, stop: hook.renew(1, stop=stop),
    "renew_expiring": lambda hook, stop: hook.renew_expiring(60, stop=stop),
    "wait_for_otp": lambda hook, stop: hook.wait_for_otp(1, PATIENT, stop=stop),
    "await_otp": lambda hook, stop: asyncio.run(hook.await_otp(1, PATIENT, stop=stop)),
    "reconcile": lambda hook, stop: hook.reconcile(stop=stop),
    "prune_store": lambda hook, stop: hook.prune_store(90_000, dry_run=False, stop=stop),
}


@pytest.mark.parametrize("stop", [True, False, lambda: False, threading.Event, asyncio.Event()], ids=range(5))
@pytest.mark.parametrize("method", STOPPABLE)
def test_a_stop_that_is_no_event_is_refused(
    method: str, stop: Any, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    with pytest.raises(InvalidRequestError, match=r"threading\.Event") as caught:
        STOPPABLE[method](hook, stop)
    assert caught.value.field == "stop"
    assert simulator.requests() == []


class Broken(threading.Event):
    """An event that cannot say whether it is set."""

    def is_set(self) -> bool:
        raise RuntimeError("the event is broken")


def test_an_event_that_fails_ends_its_own_wait_alone(simulator: Simulator, hook: SmsVerifyHook) -> None:
    broken, other = buy(hook, 2)

    async def both() -> str | None:
        waiting = asyncio.create_task(hook.await_otp(other, PATIENT))
        with pytest.raises(RuntimeError, match="the event is broken"):
            await asyncio.wait_for(hook.await_otp(broken, PATIENT, stop=Broken()), 30)
        simulator.deliver_sms(other, otp="482913")
        return (await asyncio.wait_for(waiting, 30)).otp

    assert asyncio.run(both()) == "482913"


async def never_awaited(_: Order) -> None:
    """Would type the number into a form."""


def test_an_action_that_would_not_run_buys_nothing(simulator: Simulator, hook: SmsVerifyHook) -> None:
    with pytest.raises(InvalidRequestError, match="coroutine function") as caught:
        hook.verify(never_awaited, "temporary", **WHATSAPP)
    assert caught.value.field == "action"
    assert simulator.requests() == []


def test_an_action_that_returns_a_coroutine_gives_its_number_back(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    def submit(number: Order) -> Coroutine[Any, Any, None]:
        return never_awaited(number)

    with pytest.raises(InvalidRequestError, match="does not await it") as caught:
        hook.verify(submit, "temporary", **WHATSAPP, timeout=0.6)
    assert caught.value.field == "action"
    assert statuses(simulator) == ["cancelled"]


def test_an_action_that_returns_a_generator_gives_its_number_back(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    with pytest.raises(InvalidRequestError, match="generator") as caught:
        hook.verify(lambda number: (number.phone for _ in "12"), "temporary", **WHATSAPP, timeout=0.6)
    assert caught.value.field == "action"
    assert statuses(simulator) == ["cancelled"]


def test_a_reason_that_cannot_be_kept_as_it_is_gives_the_number_back(
    simulator: Simulator, make_hook: Callable[..., SmsVerifyHook], any_store_url: str
) -> None:
    hook = make_hook(simulator, any_store_url)
    one, other, third = buy(hook, 3)
    assert hook.release(one, "half \ud800 a character, and a NUL\0")
    assert plan_release(hook, other, "half \ud800 a character, and a NUL\0", patience=0)
    with store_of(hook).read() as connection:
        reason = connection.execute(sa.select(releases.c.reason)).scalar_one()
    assert reason == "half \\ud800 a character, and a NUL\\x00"
    for no_text in (None, LookupError("gone"), 5):
        with pytest.raises(InvalidRequestError) as caught:
            hook.release(third, no_text)  # type: ignore[arg-type]
        assert caught.value.field == "reason"


@pytest.mark.parametrize("waiter", ["\ud800", "\0", "", "None", ["me"]])
def test_a_waiter_is_a_name(waiter: Any, simulator: Simulator, hook: SmsVerifyHook) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: hook.wait_for_otp(1, PATIENT, waiter=waiter),
        lambda: asyncio.run(hook.await_otp(1, PATIENT, waiter=waiter)),
        lambda: hook.release(1, "over", waiter=waiter),
        lambda: claim(hook, 1, waiter),
        lambda: plan_release(hook, 1, "over", waiter=waiter, patience=1),
    ]
    for call in calls:
        with pytest.raises(InvalidRequestError) as caught:
            call()
        assert caught.value.field == "waiter"
    assert simulator.requests() == []


def test_binary_data_excludes_no_other_rental(simulator: Simulator, hook: SmsVerifyHook) -> None:
    rental = hook.order("rental", service="WhatsApp", duration=3).order_id
    sent = len(simulator.requests())
    for name in ("exclude", "only", "order_ids"):
        with pytest.raises(InvalidRequestError) as caught:
            hook.renew_expiring(10**9, **{name: str(rental).encode()})  # type: ignore[arg-type]
        assert caught.value.field == name
    assert len(simulator.requests()) == sent
