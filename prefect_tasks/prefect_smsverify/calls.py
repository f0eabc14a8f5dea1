"""What the tasks do: paid calls that nothing cuts off, and waits that give their order back."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
from prefect import get_run_logger
from prefect.transactions import get_transaction

from prefect_smsverify.credentials import SmsVerifyCredentials
from prefect_smsverify.stop import Stop, current_stop
from prefect_smsverify.undo import on_undo, transactions
from smsverify.errors import (
    NotFoundError,
    OrderEndedError,
    SmsVerifyError,
    WaitStoppedError,
    WaitTimeoutError,
)
from smsverify.models import Message, Order, check_order_id

if TYPE_CHECKING:
    from smsverify import RentalsReport, SmsVerifyHook

T = TypeVar("T")
Outcome = Message | WaitTimeoutError | OrderEndedError | NotFoundError


def block_of(credentials: SmsVerifyCredentials | str) -> SmsVerifyCredentials:
    """The block, which may be given by its name."""
    if isinstance(credentials, SmsVerifyCredentials):
        return credentials
    # Left to itself, Prefect guesses from the running task whether to answer with a coroutine.
    load = cast(Any, SmsVerifyCredentials.load)
    return cast(SmsVerifyCredentials, load(credentials, _sync=True))


def id_of(order: Order | int | str) -> int:
    """The id of an order, which may be given itself."""
    return order.order_id if isinstance(order, Order) else check_order_id(order)


# -------------------------------------------------------------- paid calls


@dataclass
class Bought:
    """Takes the order that a block buys, at once: a signal may come before the task has returned it."""

    hook: SmsVerifyHook | None = None
    order: Order | None = None


_bought: ContextVar[Bought | None] = ContextVar("smsverify_bought", default=None)


@contextmanager
def buying_for(block: Bought) -> Iterator[None]:
    """Leaves what is bought in it to a block, which gives it back at its end; no rollback does."""
    token = _bought.set(block)
    try:
        yield
    finally:
        _bought.reset(token)


def buy(account: SmsVerifyCredentials, **purchase: Any) -> Order:
    """Buys a number, which is given back when the transaction is undone."""
    if block := _bought.get():
        hook, stop = account.get_hook(), current_stop(undone=False)
        return pay(lambda: _buy_for(block, hook, purchase, stop), stop, _leave_to_block)
    hook, stop = account.get_hook(), current_stop()
    _refuse_if_rolled_back()
    order = pay(partial(hook.order, **purchase, stop=stop), stop, lambda order: _take_back(hook, order))
    _release_on_undo(hook, order)
    return order


async def abuy(account: SmsVerifyCredentials, **purchase: Any) -> Order:
    """`buy` for an event loop."""
    if block := _bought.get():
        hook, stop = account.get_hook(), current_stop(undone=False)
        return await apay(lambda: _buy_for(block, hook, purchase, stop), stop, _leave_to_block)
    hook, stop = account.get_hook(), current_stop()
    _refuse_if_rolled_back()
    order = await apay(
        partial(hook.order, **purchase, stop=stop), stop, lambda order: _take_back(hook, order)
    )
    _release_on_undo(hook, order)
    return order


def _buy_for(block: Bought, hook: SmsVerifyHook, purchase: dict[str, Any], stop: Stop) -> Order:
    order = hook.order(**purchase, stop=stop)
    block.hook, block.order = hook, order
    return order


def _leave_to_block(_: Order) -> None:
    pass


def renew(account: SmsVerifyCredentials, order_id: int, **renewal: Any) -> Order:
    """Renews a rental. There is no way to undo that."""
    hook, stop = account.get_hook(), current_stop()
    return pay(partial(hook.renew, order_id, **renewal, stop=stop), stop)


async def arenew(account: SmsVerifyCredentials, order_id: int, **renewal: Any) -> Order:
    """`renew` for an event loop."""
    hook, stop = account.get_hook(), current_stop()
    return await apay(partial(hook.renew, order_id, **renewal, stop=stop), stop)


def renew_expiring(account: SmsVerifyCredentials, within: Any, **selection: Any) -> RentalsReport:
    """Renews the rentals that end soon. What was sent when the run goes down is brought to its end."""
    hook, stop = account.get_hook(), current_stop()
    return pay(partial(hook.renew_expiring, within, **selection, stop=stop), stop)


async def arenew_expiring(account: SmsVerifyCredentials, within: Any, **selection: Any) -> RentalsReport:
    """`renew_expiring` for an event loop."""
    hook, stop = account.get_hook(), current_stop()
    return await apay(partial(hook.renew_expiring, within, **selection, stop=stop), stop)


def pay(call: Callable[[], T], stop: Stop, undo: Callable[[T], object] | None = None) -> T:
    """Carries a paid call out where no signal can cut it off: nobody would know its outcome then.

    Args:
        call: carried out once, and to its end.
        stop: as the call takes it, so that one that has not been sent yet is not.
        undo: takes back what nobody is going to use.
    """
    _refuse_if_stopped(stop)
    paying = in_thread(call, "pay")
    try:
        paid = paying.result()
        if undo is not None:
            _refuse_if_stopped(stop)
    except BaseException:
        stop.set()
        _undo(paying, undo)
        raise
    return paid


async def apay(call: Callable[[], T], stop: Stop, undo: Callable[[T], object] | None = None) -> T:
    """`pay` for an event loop."""
    _refuse_if_stopped(stop)
    paying = in_thread(call, "pay")
    try:
        paid = await asyncio.wrap_future(paying)
        if undo is not None:
            _refuse_if_stopped(stop)
    except BaseException:
        stop.set()
        with anyio.CancelScope(shield=True):
            await asyncio.to_thread(_undo, paying, undo)
        raise
    return paid


def in_thread(call: Callable[[], T], name: str) -> Future[T]:
    """Starts a call in a thread of its own, in the run that this code is a part of."""
    pool = ThreadPoolExecutor(1, thread_name_prefix=f"smsverify-{name}")
    try:
        return pool.submit(copy_context().run, call)
    finally:
        pool.shutdown(wait=False)


def _refuse_if_stopped(stop: Stop) -> None:
    if stop.is_set():
        raise WaitStoppedError(
            "nothing is bought, or it is given back: the run goes down, or its transaction was rolled back"
        )


def _refuse_if_rolled_back() -> None:
    if any(transaction.is_rolled_back() for transaction in transactions()):
        raise WaitStoppedError(
            "nothing is bought: a task has failed in the same transaction before (each task run is one), so "
            "Prefect has rolled that back and would not give the number back any more. Order before what may "
            "fail, use rented_number, or call from the flow what is retried or whose error is caught"
        )


def _undo(paying: Future[T], undo: Callable[[T], object] | None) -> None:
    wait([paying])
    if undo is not None and not paying.cancelled() and paying.exception() is None:
        undo(paying.result())


def _take_back(hook: SmsVerifyHook, order: Order) -> None:
    hook.release(order.order_id, "the run that ordered it is going down", undo=True)


def _release_on_undo(hook: SmsVerifyHook, order: Order) -> None:
    """Has the order given back when a later step of its transaction fails for good."""

    def release_order() -> None:
        try:
            hook.release(order.order_id, "a later step of its transaction has failed", undo=True)
        except SmsVerifyError as error:  # Prefect would skip the other hooks
            get_run_logger().error("Order %d could not be given back: %s", order.order_id, error)

    transaction = get_transaction()
    if transaction is not None:
        on_undo(transaction, release_order)


# -------------------------------------------------------------- waits


def wait_for_one(
    hook: SmsVerifyHook, order_id: int, timeout: float, *, stop: Stop, **options: Any
) -> Message:
    """Waits as the hook does (`options` are its), and gives the order back where the wait is broken off."""
    waiter = uuid.uuid4().hex
    try:
        message = hook.wait_for_otp(order_id, timeout, stop=stop, waiter=waiter, **options)
    except BaseException as error:
        if _is_broken_off(error):
            _give_back(hook, order_id, waiter)
        raise
    get_run_logger().info("The SMS for order %d has come", order_id)
    return message


async def await_one(
    hook: SmsVerifyHook, order_id: int, timeout: float, *, stop: Stop, **options: Any
) -> Message:
    """`wait_for_one` for an event loop."""
    waiter = uuid.uuid4().hex
    try:
        message = await hook.await_otp(order_id, timeout, stop=stop, waiter=waiter, **options)
    except BaseException as error:
        if _is_broken_off(error):
            with anyio.CancelScope(shield=True):
                await asyncio.wrap_future(in_thread(partial(_give_back, hook, order_id, waiter), "release"))
        raise
    get_run_logger().info("The SMS for order %d has come", order_id)
    return message


def wait_for_several(
    hook: SmsVerifyHook, order_ids: Sequence[int], timeout: float, *, stop: Stop, **options: Any
) -> list[Outcome]:
    """`await_several` in a thread of its own: this one may have an event loop that runs already."""

    async def waits() -> list[Outcome]:
        return await await_several(hook, order_ids, timeout, stop=stop, **options)

    waiting = in_thread(lambda: asyncio.run(waits()), "waits")
    try:
        return waiting.result()
    except BaseException:
        stop.set()
        wait([waiting])
        raise


async def await_several(
    hook: SmsVerifyHook, order_ids: Sequence[int], timeout: float, *, stop: Stop, **options: Any
) -> list[Outcome]:
    """Waits for all at once. What becomes of one order is in its place; what concerns all is raised."""
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


def _is_broken_off(error: BaseException) -> bool:
    """Whether a wait was ended from outside. Its own errors have decided what becomes of the order."""
    return isinstance(error, WaitStoppedError) or not isinstance(error, SmsVerifyError)


def _give_back(hook: SmsVerifyHook, order_id: int, waiter: str) -> None:
    hook.release(order_id, "the wait for its code was broken off", waiter=waiter)
