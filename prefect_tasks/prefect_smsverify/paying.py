"""Paid calls: no interruption cuts one off, and an order that the run does not need is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from prefect.transactions import get_transaction

from prefect_smsverify.stopping import Stop, current_stop
from prefect_smsverify.threads import in_thread, to_its_end
from prefect_smsverify.transactions import block_around, on_undo, transactions
from smsverify.errors import WaitStoppedError
from smsverify.numbers import errors_logged
from smsverify.wings import result_of

if TYPE_CHECKING:
    from smsverify import RentalsReport, SmsVerifyHook
    from smsverify.models import Order

T = TypeVar("T")


@dataclass(frozen=True)
class PaidCall(Generic[T]):
    """A paid call that is not made yet.

    Attributes:
        call: `pay` makes it once, and to its end.
        stop: what `call` looks at, so that it sends nothing after the run goes down.
        undo: takes back what the call has bought, when the run goes down meanwhile.
        keep: called with what the call has bought, when the run goes on.
    """

    call: Callable[[], T]
    stop: Stop
    undo: Callable[[T], object] | None = None
    keep: Callable[[T], object] = lambda _: None


def purchase(hook: SmsVerifyHook, **what: Any) -> PaidCall[Order]:
    """The purchase of a number, which is given back when the transaction around it is undone."""
    if block := block_around():
        stop = current_stop(undone=False)

        def buy_for_block() -> Order:
            block.hook, block.order = hook, hook.order(**what, stop=stop)
            return block.order

        # The block gives its order back by itself.
        return PaidCall(buy_for_block, stop, undo=lambda _: None)
    stop = current_stop()
    _refuse_if_rolled_back()
    return PaidCall(
        partial(hook.order, **what, stop=stop),
        stop,
        undo=lambda order: _release(hook, order, "the run that ordered it is going down"),
        keep=lambda order: _release_on_undo(hook, order),
    )


def renewal(hook: SmsVerifyHook, order_id: int, **what: Any) -> PaidCall[Order]:
    """The renewal of a rental. The service has no way to undo it."""
    stop = current_stop()
    return PaidCall(partial(hook.renew, order_id, **what, stop=stop), stop)


def renewals(hook: SmsVerifyHook, within: Any, **selection: Any) -> PaidCall[RentalsReport]:
    """The renewals of the rentals that end soon."""
    stop = current_stop()
    return PaidCall(partial(hook.renew_expiring, within, **selection, stop=stop), stop)


def pay(paid: PaidCall[T]) -> T:
    """Makes a paid call in a thread that no signal reaches: a call that is cut off has no known outcome."""
    _refuse_if_stopped(paid.stop)
    paying = in_thread(paid.call, "pay")
    try:
        result = result_of(paying)
        if paid.undo is not None:
            _refuse_if_stopped(paid.stop)
    except BaseException:
        paid.stop.set()
        # In a thread too: a second interruption may reach this one.
        wait([in_thread(partial(_undo, paying, paid.undo), "undo")])
        raise
    paid.keep(result)
    return result


async def apay(paid: PaidCall[T]) -> T:
    """`pay` for an event loop."""
    _refuse_if_stopped(paid.stop)
    paying = in_thread(paid.call, "pay")
    try:
        result = await asyncio.wrap_future(paying)
        if paid.undo is not None:
            _refuse_if_stopped(paid.stop)
    except BaseException:
        paid.stop.set()
        await to_its_end(partial(_undo, paying, paid.undo), "undo")
        raise
    paid.keep(result)
    return result


def _undo(paying: Future[T], undo: Callable[[T], object] | None) -> None:
    wait([paying])
    if undo is not None and not paying.cancelled() and paying.exception() is None:
        undo(paying.result())


def _refuse_if_stopped(stop: Stop) -> None:
    if stop.is_set():
        raise WaitStoppedError(
            "the run is shutting down, has failed or is suspended, or its transaction was rolled back. "
            "Nothing was bought, or what was just bought is given back. Start or resume the run to buy"
        )


def _refuse_if_rolled_back() -> None:
    if any(transaction.is_rolled_back() for transaction in transactions()):
        raise WaitStoppedError(
            "nothing was sent. An earlier step of this transaction has failed, and Prefect has rolled the "
            "transaction back (each task run is one). So Prefect would not give a new number back. Order "
            "before the steps that may fail, or use rented_number. If you catch or retry the errors of a "
            "step, call that step from the flow"
        )


def _release_on_undo(hook: SmsVerifyHook, order: Order) -> None:
    """Gives the order back when a later step of its transaction fails for good."""

    def release_order() -> None:
        _release(hook, order, "a later step of its transaction has failed")

    transaction = get_transaction()
    if transaction is not None:
        on_undo(transaction, release_order)


def _release(hook: SmsVerifyHook, order: Order, reason: str) -> None:
    """Gives an order back. An error that is raised here would replace that of the run, or keep Prefect from
    undoing the rest.
    """
    with errors_logged(order.order_id):
        hook.release(order.order_id, reason, undo=True)
