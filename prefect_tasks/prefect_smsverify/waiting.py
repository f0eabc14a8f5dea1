"""Waits for codes. A wait that is ended from outside gives its order back."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from concurrent.futures import wait
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from prefect import get_run_logger

from prefect_smsverify.stopping import Stop
from prefect_smsverify.threads import in_thread
from smsverify.errors import (
    NotFoundError,
    OrderEndedError,
    SmsVerifyError,
    WaitStoppedError,
    WaitTimeoutError,
)
from smsverify.models import Message
from smsverify.wings import result_of

if TYPE_CHECKING:
    from smsverify import SmsVerifyHook

Outcome = Message | WaitTimeoutError | OrderEndedError | NotFoundError


def wait_for_one(
    hook: SmsVerifyHook, order_id: int, timeout: float, *, stop: Stop, **options: Any
) -> Message:
    """Waits as the core's hook does, whose `options` it takes."""
    waiter = uuid.uuid4().hex
    try:
        return _core().wait_for_otp(hook, order_id, timeout, stop=stop, waiter=waiter, **options)
    except BaseException as error:
        give_back_if_broken_off(hook, order_id, waiter, error)
        raise


async def await_one(
    hook: SmsVerifyHook, order_id: int, timeout: float, *, stop: Stop, **options: Any
) -> Message:
    """`wait_for_one` for an event loop."""
    waiter = uuid.uuid4().hex
    try:
        return await _core().await_otp(hook, order_id, timeout, stop=stop, waiter=waiter, **options)
    except BaseException as error:
        await agive_back_if_broken_off(hook, order_id, waiter, error)
        raise


def wait_for_several(
    hook: SmsVerifyHook, order_ids: Sequence[int], timeout: float, *, stop: Stop, **options: Any
) -> list[Outcome]:
    """`await_several` in a thread of its own, because this one may have a running event loop."""

    async def waits() -> list[Outcome]:
        return await await_several(hook, order_ids, timeout, stop=stop, **options)

    waiting = in_thread(lambda: asyncio.run(waits()), "waits")
    try:
        return result_of(waiting)
    except BaseException:
        stop.set()
        wait([waiting])
        raise


async def await_several(
    hook: SmsVerifyHook, order_ids: Sequence[int], timeout: float, *, stop: Stop, **options: Any
) -> list[Outcome]:
    """Waits for all at once. An error of one order is its outcome; an error that concerns all is raised."""
    outcomes = await asyncio.gather(
        *(await_one(hook, order_id, timeout, stop=stop, **options) for order_id in order_ids),
        return_exceptions=True,
    )
    results: list[Outcome] = []
    for outcome in outcomes:
        if not isinstance(outcome, Outcome):
            raise outcome
        if isinstance(outcome, Exception):
            get_run_logger().warning("%s", outcome)
        results.append(outcome)
    return results


def give_back_if_broken_off(
    hook: SmsVerifyHook, order_id: int | str, waiter: str, error: BaseException
) -> None:
    """Gives an order back whose wait ended with an error from outside."""
    if _is_broken_off(error):
        # In a thread: a second interruption may reach this one.
        wait([in_thread(partial(_give_back, hook, order_id, waiter), "release")])


async def agive_back_if_broken_off(
    hook: SmsVerifyHook, order_id: int | str, waiter: str, error: BaseException
) -> None:
    """`give_back_if_broken_off` for an event loop."""
    if _is_broken_off(error):
        with anyio.CancelScope(shield=True):
            await asyncio.wrap_future(in_thread(partial(_give_back, hook, order_id, waiter), "release"))


def _is_broken_off(error: BaseException) -> bool:
    """Whether a wait was ended from outside. The wait's own errors have decided about the order already."""
    return isinstance(error, WaitStoppedError) or not isinstance(error, SmsVerifyError)


def _give_back(hook: SmsVerifyHook, order_id: int | str, waiter: str) -> None:
    hook.release(order_id, "the wait for its code was broken off", waiter=waiter)


def _core() -> type[SmsVerifyHook]:
    """The core's hook, which does not give back by itself. Importing it takes long, so it is loaded late."""
    from smsverify.hook import SmsVerifyHook

    return SmsVerifyHook
