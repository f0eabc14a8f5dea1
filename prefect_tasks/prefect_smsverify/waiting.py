"""Waits for codes. A wait that ends without a decision about its order gives that back."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from concurrent.futures import wait
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect_smsverify.runs import PrefectRun
from prefect_smsverify.stopping import Stop
from prefect_smsverify.threads import in_thread, to_its_end
from smsverify.checks import check_order_id
from smsverify.errors import (
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    OrderEndedError,
    SmsVerifyError,
    WaitStoppedError,
    WaitTimeoutError,
)
from smsverify.models import Message
from smsverify.numbers import errors_logged
from smsverify.text import log_of
from smsverify.wings import is_worth_keeping, plan_release, result_of

if TYPE_CHECKING:
    from smsverify import SmsVerifyHook

log = log_of(__name__)

Outcome = Message | Exception


NOT_CANCELLED = (
    "not cancelled now: its code has come, another call waits for it, or it could not be cancelled, which is "
    "tried again"
)
# The errors of one order: it was released at the time-out, has ended, or does not exist.
OF_ONE_ORDER = (WaitTimeoutError, OrderEndedError, NotFoundError)


def wait_for_one(
    hook: SmsVerifyHook,
    order_id: int,
    timeout: float,
    *,
    cancel_on_timeout: bool = True,
    stop: Stop,
    **options: Any,
) -> Message:
    """Waits as the core's hook does, whose `options` it takes."""
    waiter = uuid.uuid4().hex
    options |= {"cancel_on_timeout": cancel_on_timeout, "stop": stop, "waiter": waiter}
    try:
        return _core().wait_for_otp(hook, order_id, timeout, **options)
    except BaseException as error:
        if cancel_on_timeout or (is_broken_off(error) and not stop.is_suspended()):
            give_back_unless_decided(hook, order_id, waiter, error)
        raise


async def await_one(
    hook: SmsVerifyHook,
    order_id: int,
    timeout: float,
    *,
    cancel_on_timeout: bool = True,
    stop: Stop,
    **options: Any,
) -> Message:
    """`wait_for_one` for an event loop."""
    waiter = uuid.uuid4().hex
    options |= {"cancel_on_timeout": cancel_on_timeout, "stop": stop, "waiter": waiter}
    try:
        return await _core().await_otp(hook, order_id, timeout, **options)
    except BaseException as error:
        if cancel_on_timeout or (is_broken_off(error) and not stop.is_suspended()):
            await agive_back_unless_decided(hook, order_id, waiter, error)
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
    """Waits for all at once. An error of one order is its outcome. So is any other error if a code has
    come, which must not be lost. The end of the run is raised.
    """
    outcomes = await asyncio.gather(
        *(await_one(hook, order_id, timeout, stop=stop, **options) for order_id in order_ids),
        return_exceptions=True,
    )
    has_come = any(isinstance(outcome, Message) for outcome in outcomes)
    own: tuple[type[Exception], ...] = (Exception,) if has_come else OF_ONE_ORDER
    results: list[Outcome] = []
    for outcome in outcomes:
        if isinstance(outcome, own) and not isinstance(outcome, WaitStoppedError):
            log.warning("%s", outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return results


def is_broken_off(error: BaseException) -> bool:
    """Whether a wait was ended from outside: its order is not needed any more."""
    return isinstance(error, WaitStoppedError) or not isinstance(error, SmsVerifyError)


def give_back_unless_decided(
    hook: SmsVerifyHook, order_id: int | str, waiter: str, error: BaseException
) -> None:
    """Gives an order back whose wait ended with an error that has not decided about it.

    Raises:
        WaitStoppedError: the wait was stopped. In the place of `error`, it says what became of the order.
    """
    if not _has_decided(error):
        # In a thread: a second interruption may reach this one.
        giving = in_thread(partial(_give_back, hook, order_id, waiter, error), "release")
        wait([giving])
        if isinstance(error, WaitStoppedError):
            raise WaitStoppedError(giving.result()) from None


async def agive_back_unless_decided(
    hook: SmsVerifyHook, order_id: int | str, waiter: str, error: BaseException
) -> None:
    """`give_back_unless_decided` for an event loop."""
    if not _has_decided(error):
        fate = await to_its_end(partial(_give_back, hook, order_id, waiter, error), "release")
        if isinstance(error, WaitStoppedError):
            raise WaitStoppedError(fate) from None


def _has_decided(error: BaseException) -> bool:
    """Whether nothing is left to do for the order of a wait. One whose input is wrong has not begun."""
    return isinstance(error, (*OF_ONE_ORDER, InvalidRequestError))


def _give_back(hook: SmsVerifyHook, given: int | str, waiter: str, error: BaseException) -> str:
    """Returns what an error says to people if the wait was stopped."""
    order_id = check_order_id(given)
    fate = "not cancelled, because the store cannot be used: cancel it"
    with errors_logged(order_id):
        if is_broken_off(error):
            is_cancelled = hook.release(order_id, "the wait for its code was broken off", waiter=waiter)
            fate = "cancelled" if is_cancelled else NOT_CANCELLED
        else:
            _give_back_unless_tried_again(hook, order_id, waiter, error)
    return f"the wait for order {order_id} was stopped. The order is {fate}"


def _give_back_unless_tried_again(
    hook: SmsVerifyHook, order_id: int, waiter: str, error: BaseException
) -> None:
    reason = f"the wait for its code has failed ({type(error).__name__})"
    patience = PrefectRun().next_try_within()
    if patience is not None and not is_worth_keeping(hook, order_id, patience):
        patience = None
    if patience is None and isinstance(error, AuthenticationError):
        patience = 0.0  # on record, due at once: no order can be cancelled while the key is refused
    if patience is None:
        hook.release(order_id, reason, waiter=waiter)
    elif plan_release(hook, order_id, reason, waiter=waiter, patience=patience):
        log.info("Order %d is to be given back in %.0f s, unless it is waited for again", order_id, patience)


def _core() -> type[SmsVerifyHook]:
    """The core's hook, which does not give back by itself. Importing it takes long, so it is loaded late."""
    from smsverify.hook import SmsVerifyHook

    return SmsVerifyHook
