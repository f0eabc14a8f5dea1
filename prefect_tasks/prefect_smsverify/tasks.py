"""The tasks. Each has a twin for coroutines, with an `a` in front of its name (`await_…` for `wait_for_…`).

They take the parameters of `smsverify.SmsVerifyHook`'s methods, return its models and raise its errors. The
account comes first, as a block or by its name. An order may be an `Order` or its id, so that `.map` can hand
on what it ordered.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect_smsverify import waiting
from prefect_smsverify.arguments import ahook_of, hook_of, id_of, ids_of
from prefect_smsverify.defining import task
from prefect_smsverify.paying import apay, pay, purchase
from prefect_smsverify.stopping import current_stop
from prefect_smsverify.threads import result_in_thread, to_its_end
from prefect_smsverify.twins import twin_of

if TYPE_CHECKING:
    from prefect_smsverify.credentials import SmsVerifyCredentials
    from prefect_smsverify.waiting import Outcome
    from smsverify.models import Balance, Message, Order, OrderStatus
    from smsverify.reports import Reconciliation


# -------------------------------------------------------------- buying


@task("Order number")
def order_number(
    credentials: SmsVerifyCredentials | str,
    product: str,
    *,
    service: int | str | None = None,
    country: int | str | None = None,
    area_code: str | int | None = None,
    duration: int | None = None,
    plan: str | None = None,
    max_price: Decimal | float | str | None = None,
    run_budget: Decimal | float | str | None = None,
    key: str | None = None,
) -> Order:
    """Buys a phone number or an eSIM (`POST /api/v1/order/<product>/`).

    Safe to run again: the purchase is on record before it is sent, under a key that a retry of the task, a
    retry of the flow and another run of the same flow run share; equal calls in one attempt have different
    keys. A call differs from others by what it buys, by the arguments of the tasks and subflows around it,
    and by its place among equal ones. If an argument changes in each attempt, such as a random name or the
    time, each attempt is another purchase: give `key=` there.

    When a later step of a transaction around it fails (each task is one for the tasks that it calls), the
    order is cancelled for a refund. That is so also when the flow catches the error of that step, because
    Prefect rolls back then too; not for a failed attempt of a step that has `retries=` left. Nothing is
    ordered in a transaction that was rolled back before. `rented_number` depends on none of this.

    Args:
        credentials: the account, as a block or by its name.
        product: `temporary`, `best-temp`, `rental`, `rent-1day`, `rent-30days`, `global` or `esim`.
        service: id or name from the product's list; not for `esim`.
        country: id or name, for `global`.
        area_code: three digits of the USA, for `temporary`.
        duration: 3 or 30 days, for `rental`.
        plan: the plan's name, for `esim`.
        max_price: most that may be paid, in USD. Nothing is sent when the price is higher or unknown.
        run_budget: most that this flow run and its subflows may spend, in USD, this call included.
        key: names this purchase. Default: derived from the run. Needed if a task runs in another process
            than its flow, and for a purchase that must be the same one in other runs.

    Returns:
        the order: `order_id`, `phone`, `price`, `status`, `expires_at`, …

    Raises:
        InvalidRequestError: a parameter is wrong; `field` names it. Nothing was bought: the request was not
            sent, or the service refused it (`status_code`).
        WaitStoppedError: the run is going down, is suspended, or has failed and left this call behind, or its
            transaction was rolled back. Nothing was bought, or it is given back.
        SmsVerifyError: see `SmsVerifyHook.order`.
    """
    return pay(
        purchase(
            hook_of(credentials),
            product=product,
            service=service,
            country=country,
            area_code=area_code,
            duration=duration,
            plan=plan,
            max_price=max_price,
            run_budget=run_budget,
            key=key,
        )
    )


@task("Order number")
@twin_of(order_number)
async def aorder_number(credentials: SmsVerifyCredentials | str, **what: Any) -> Order:
    """`order_number` for coroutines."""
    return await apay(purchase(await ahook_of(credentials), **what))


# -------------------------------------------------------------- waiting


@task("Wait for OTP")
def wait_for_otp(
    credentials: SmsVerifyCredentials | str,
    order_id: Order | int | str,
    timeout: float = 600,
    cancel_on_timeout: bool = True,
    *,
    after: Message | datetime | str | None = None,
    sender: str | None = None,
    pattern: str | re.Pattern[str] | None = None,
) -> Message:
    """Waits for the SMS of an order. All waits on the account share one poll.

    The wait ends, and the order is cancelled for a refund, when the run goes down: on SIGTERM, SIGINT and
    cancellation, and when it is suspended from outside (since Prefect 3.8), even if the task was submitted or
    mapped; and when another step of its transaction has failed. In another process than the flow's
    (`ProcessPoolTaskRunner`) it ends when the flow run is cancelled, is suspended or fails, and when the
    flow's process is gone; a signal to that process alone does not end it.

    If the wait fails otherwise, such as with a refused key, the order is given back like at the time-out,
    but kept for the next attempt of the task or flow, if there is one.

    Args:
        credentials: the account, as a block or by its name.
        order_id: the order, or its id.
        timeout: seconds.
        cancel_on_timeout: whether an order that has not ended then is cancelled for a refund. An order
            with any SMS is not, even if that was not the one waited for.
        after: waits for an SMS that comes later than this one (a `Message`), or than a time: an aware
            datetime, or that in ISO 8601. Without it, a rental that has had an SMS before gives that one
            again.
        sender: waits for an SMS from this name or number. Only callbacks carry the sender: a message that is
            known from the order's status alone never passes.
        pattern: waits for an SMS whose text this regular expression matches somewhere: its first group,
            otherwise the whole match, is the code.

    Returns:
        the message: `otp`, `message`, `phone`, `received_at`. `otp` is `None` if the text holds no code
        that can be read with certainty.

    Raises:
        WaitTimeoutError: nothing came in time; `cancelled` says whether the order was cancelled.
        OrderEndedError: the order was cancelled, expired or completed without a message.
        WaitStoppedError: the run is going down, is suspended, or has failed and left this call behind.
        SmsVerifyError: see `SmsVerifyHook.wait_for_otp`.
    """
    hook, stop = hook_of(credentials), current_stop()
    return waiting.wait_for_one(
        hook,
        id_of(order_id),
        timeout,
        cancel_on_timeout=cancel_on_timeout,
        after=after,
        sender=sender,
        pattern=pattern,
        stop=stop,
    )


@task("Wait for OTP")
@twin_of(wait_for_otp)
async def await_otp(
    credentials: SmsVerifyCredentials | str, order_id: Order | int | str, timeout: float, **options: Any
) -> Message:
    """`wait_for_otp` for coroutines. A wait holds no thread, and the event loop is never blocked."""
    hook, stop = await ahook_of(credentials), current_stop()
    return await waiting.await_one(hook, id_of(order_id), timeout, stop=stop, **options)


@task("Wait for OTPs")
def wait_for_otps(
    credentials: SmsVerifyCredentials | str,
    order_ids: Sequence[Order | int | str],
    timeout: float = 600,
    cancel_on_timeout: bool = True,
    *,
    after: Message | datetime | str | None = None,
    sender: str | None = None,
    pattern: str | re.Pattern[str] | None = None,
) -> list[Outcome]:
    """Waits for the SMS of many orders at once: one task, and one thread for all.

    Args:
        credentials: the account, as a block or by its name.
        order_ids: the orders, or their ids.
        timeout: seconds.
        cancel_on_timeout: whether the orders that have not ended then are cancelled for a refund.
        after, sender, pattern: which SMS, for all of the orders, as for `wait_for_otp`.

    Returns:
        what has become of each order, in their order: its message, or the error that `wait_for_otp` would
        have raised for it (`WaitTimeoutError`, `OrderEndedError`, `NotFoundError`; if the code of another
        has come, any error), so that no code is lost when another fails.

    Raises:
        WaitStoppedError: as for `wait_for_otp`.
        SmsVerifyError: what concerns all of them, such as a refused key, if no code has come.
    """
    hook, stop, ids = hook_of(credentials), current_stop(), ids_of(order_ids)
    return waiting.wait_for_several(
        hook,
        ids,
        timeout,
        cancel_on_timeout=cancel_on_timeout,
        after=after,
        sender=sender,
        pattern=pattern,
        stop=stop,
    )


@task("Wait for OTPs")
@twin_of(wait_for_otps)
async def await_otps(
    credentials: SmsVerifyCredentials | str,
    order_ids: Sequence[Order | int | str],
    timeout: float,
    **options: Any,
) -> list[Outcome]:
    """`wait_for_otps` for coroutines."""
    hook, stop = await ahook_of(credentials), current_stop()
    return await waiting.await_several(hook, ids_of(order_ids), timeout, stop=stop, **options)


# -------------------------------------------------------------- looking, giving back


@task("Cancel order")
def cancel_order(credentials: SmsVerifyCredentials | str, order_id: Order | int | str) -> OrderStatus:
    """Cancels an order for a refund (`POST /api/v1/order/<order_id>/cancel/`). Harmless if it has ended.

    Args:
        credentials: the account, as a block or by its name.
        order_id: the order, or its id.

    Returns:
        the status: cancelled, or completed with the code, which has come before.

    Raises:
        NotFoundError: there is no such order.
        NotCancellableError: the service refuses now. The wish to cancel stays on record and is tried again.
    """
    return hook_of(credentials).cancel(id_of(order_id))


@task("Cancel order")
async def acancel_order(credentials: SmsVerifyCredentials | str, order_id: Order | int | str) -> OrderStatus:
    """`cancel_order` for coroutines."""
    return await to_its_end(partial(cancel_order.fn, credentials, order_id), "cancel")


@task("Get order status")
def get_order_status(credentials: SmsVerifyCredentials | str, order_id: Order | int | str) -> OrderStatus:
    """The status of an order now, with the SMS if one has come (`GET /api/v1/order/<order_id>/status/`).

    Args:
        credentials: the account, as a block or by its name.
        order_id: the order, or its id.

    Returns:
        the status; `otp` and `message` are `None` while no SMS has come.

    Raises:
        NotFoundError: there is no such order.
    """
    return hook_of(credentials).get_status(id_of(order_id))


@task("Get order status")
async def aget_order_status(
    credentials: SmsVerifyCredentials | str, order_id: Order | int | str
) -> OrderStatus:
    """`get_order_status` for coroutines."""
    return await result_in_thread(partial(get_order_status.fn, credentials, order_id), "status")


@task("Get SMS")
def get_message(credentials: SmsVerifyCredentials | str, message_id: int | str) -> Message:
    """A message by the id that its event `smsverify.message.received` has.

    Args:
        credentials: the account, as a block or by its name.
        message_id: the message.

    Returns:
        the message: `otp`, `message`, `sender`, `phone`, `received_at`.

    Raises:
        NotFoundError: there is none, or its text has been purged.
    """
    return hook_of(credentials).get_message(message_id)


@task("Get SMS")
async def aget_message(credentials: SmsVerifyCredentials | str, message_id: int | str) -> Message:
    """`get_message` for coroutines."""
    return await result_in_thread(partial(get_message.fn, credentials, message_id), "message")


@task("Reconcile")
def reconcile(credentials: SmsVerifyCredentials | str, cancel_after: float | None = None) -> Reconciliation:
    """Compares the records with the service, and corrects what it can (`GET /api/v1/orders/`).

    It finds out what became of purchases whose answer was lost, and tries again to cancel orders whose
    cancellation failed. It costs a handful of requests, however much was bought. `reconcile_flow` does it on
    a schedule and fails when a finding needs a person.

    Args:
        credentials: the account, as a block or by its name.
        cancel_after: cancels numbers that were bought here, have no code, and that no task has waited for in
            this many seconds; a rental only if it was never handed over. Default: only reported.

    Returns:
        what was found and done; `findings` is empty if nothing needs a person, otherwise `raise_if_failed`
        raises.

    Raises:
        ServiceError: the list of orders cannot be read.
    """
    return hook_of(credentials).reconcile(cancel_after=cancel_after, stop=current_stop())


@task("Reconcile")
async def areconcile(
    credentials: SmsVerifyCredentials | str, cancel_after: float | None = None
) -> Reconciliation:
    """`reconcile` for coroutines."""
    return await result_in_thread(partial(reconcile.fn, credentials, cancel_after), "reconcile")


@task("Get balance")
def get_balance(credentials: SmsVerifyCredentials | str) -> Balance:
    """The wallet's balance in USD (`GET /api/v1/balance/`).

    Args:
        credentials: the account, as a block or by its name.

    Returns:
        the balance: `amount` and `currency`.
    """
    return hook_of(credentials).get_balance()


@task("Get balance")
async def aget_balance(credentials: SmsVerifyCredentials | str) -> Balance:
    """`get_balance` for coroutines."""
    return await result_in_thread(partial(get_balance.fn, credentials), "balance")
