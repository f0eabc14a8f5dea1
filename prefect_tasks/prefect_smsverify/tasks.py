"""The tasks, each for flows that are functions, and with an `a` in front for those that are coroutines.

They take the parameters of `smsverify.SmsVerifyHook`'s methods, return its models and raise its errors. The
account comes first, as a block or by its name; an order may be given as `Order` or by its id, so that `.map`
can hand on what it ordered.

None keeps its result, not even where Prefect is told to keep all: it writes results as plain files, and these
hold codes; and a cached purchase would hand out one number to equal calls. What was bought is on record in
the store.

None has retries: the client repeats for minutes what is safe to repeat. Each further attempt of a task would
also roll back the transaction around it, as Prefect does whenever a task fails.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from prefect_smsverify import calls
from prefect_smsverify.calls import block_of, id_of
from prefect_smsverify.stop import current_stop

if TYPE_CHECKING:
    from prefect_smsverify.calls import Outcome
    from prefect_smsverify.credentials import SmsVerifyCredentials
    from smsverify.hook import OrderIds
    from smsverify.models import Balance, Message, Order, OrderStatus
    from smsverify.reconciling import Reconciliation
    from smsverify.rentals import RentalsReport


# -------------------------------------------------------------- buying


@task(name="Order number", persist_result=False, cache_policy=NO_CACHE)
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
    daily_budget: Decimal | float | str | None = None,
    run_budget: Decimal | float | str | None = None,
    key: str | None = None,
) -> Order:
    """Buys a phone number or an eSIM (`POST /api/v1/order/<product>/`).

    Safe to run again: the purchase is on record before it is sent, under a key that a retry of the task, a
    retry of the flow and another run of the same flow run share; equal calls in one attempt have different
    keys. A call is told from others by what is bought, by the arguments of the tasks and subflows around it,
    and by its place among equal ones: where an argument is another one in each attempt, such as a random name
    or the time, each attempt is another purchase. Give `key=` there.

    When a later step of a transaction around it fails (each task is one for the tasks that it calls), the
    order is cancelled for a refund: also where the error of that step is caught, since Prefect rolls back
    then too; not for a failed attempt of a step that has `retries=` left. Nothing is ordered in a transaction
    that was rolled back before. `rented_number` depends on none of this.

    Args:
        credentials: the account, as a block or by its name.
        product: `temporary`, `best-temp`, `rental`, `rent-1day`, `rent-30days`, `global` or `esim`.
        service: id or name from the product's list; not for `esim`.
        country: id or name, for `global`.
        area_code: three digits of the USA, for `temporary`.
        duration: 3 or 30 days, for `rental`.
        plan: the plan's name, for `esim`.
        max_price: most that may be paid, in USD. Nothing is sent where the price is higher or unknown.
        daily_budget: most that the account may spend in a day (UTC), in USD, this call included.
        run_budget: most that this flow run and its subflows may spend, in USD, this call included.
        key: names this purchase. Default: derived from the run. Needed where a task runs in another process
            than its flow, and for a purchase that has to be the same one in other runs.

    Returns:
        the order: `order_id`, `phone`, `price`, `status`, `expires_at`, …

    Raises:
        InvalidRequestError: a parameter is wrong; `field` names it. Nothing was sent.
        WaitStoppedError: the run is going down, or its transaction was rolled back. Nothing was bought, or it
            is given back.
        SmsVerifyError: see `SmsVerifyHook.order`.
    """
    return calls.buy(
        block_of(credentials),
        product=product,
        service=service,
        country=country,
        area_code=area_code,
        duration=duration,
        plan=plan,
        max_price=max_price,
        daily_budget=daily_budget,
        run_budget=run_budget,
        key=key,
    )


@task(name="Order number", persist_result=False, cache_policy=NO_CACHE)
async def aorder_number(
    credentials: SmsVerifyCredentials | str,
    product: str,
    *,
    service: int | str | None = None,
    country: int | str | None = None,
    area_code: str | int | None = None,
    duration: int | None = None,
    plan: str | None = None,
    max_price: Decimal | float | str | None = None,
    daily_budget: Decimal | float | str | None = None,
    run_budget: Decimal | float | str | None = None,
    key: str | None = None,
) -> Order:
    """`order_number` for coroutines."""
    return await calls.abuy(
        await asyncio.to_thread(block_of, credentials),
        product=product,
        service=service,
        country=country,
        area_code=area_code,
        duration=duration,
        plan=plan,
        max_price=max_price,
        daily_budget=daily_budget,
        run_budget=run_budget,
        key=key,
    )


@task(name="Renew rental", persist_result=False, cache_policy=NO_CACHE)
def renew_rental(
    credentials: SmsVerifyCredentials | str,
    order_id: Order | int | str,
    *,
    max_price: Decimal | float | str | None = None,
    daily_budget: Decimal | float | str | None = None,
    run_budget: Decimal | float | str | None = None,
    key: str | None = None,
) -> Order:
    """Extends a rental by its period at the current price (`POST /api/v1/order/<order_id>/renew/`).

    Safe to run again, as `order_number` is: a retry does not pay again.

    Args:
        credentials: the account, as a block or by its name.
        order_id: a `rental`, `rent-1day` or `rent-30days` order, or its id.
        max_price: most that may be paid, in USD. Nothing is sent where the price is higher or unknown.
        daily_budget: most that the account may spend in a day (UTC), in USD, this call included.
        run_budget: most that this flow run and its subflows may spend, in USD, this call included.
        key: names this renewal. Default: derived from the run.

    Returns:
        the order with its new expiry; `expires_estimated` where the service does not tell it.

    Raises:
        SmsVerifyError: see `SmsVerifyHook.renew`.
    """
    return calls.renew(
        block_of(credentials),
        id_of(order_id),
        max_price=max_price,
        daily_budget=daily_budget,
        run_budget=run_budget,
        key=key,
    )


@task(name="Renew rental", persist_result=False, cache_policy=NO_CACHE)
async def arenew_rental(
    credentials: SmsVerifyCredentials | str,
    order_id: Order | int | str,
    *,
    max_price: Decimal | float | str | None = None,
    daily_budget: Decimal | float | str | None = None,
    run_budget: Decimal | float | str | None = None,
    key: str | None = None,
) -> Order:
    """`renew_rental` for coroutines."""
    account = await asyncio.to_thread(block_of, credentials)
    return await calls.arenew(
        account,
        id_of(order_id),
        max_price=max_price,
        daily_budget=daily_budget,
        run_budget=run_budget,
        key=key,
    )


@task(name="Renew expiring rentals", persist_result=False, cache_policy=NO_CACHE)
def renew_expiring_rentals(
    credentials: SmsVerifyCredentials | str,
    within: float | timedelta | str,
    *,
    max_price: Decimal | float | str | None = None,
    daily_budget: Decimal | float | str | None = None,
    run_budget: Decimal | float | str | None = None,
    order_ids: OrderIds = (),
    only: OrderIds | None = None,
    exclude: OrderIds = (),
    dry_run: bool = False,
) -> RentalsReport:
    """Renews the rentals that end soon, once for each period (`POST /api/v1/order/<order_id>/renew/`).

    Run it on a schedule, several times in `within`; `renew_rentals_flow` does. What is not due is left alone,
    and overlapping runs, retries and several deployments with the same rentals renew nothing twice. One
    rental that can not be renewed never stops the others.

    Args:
        credentials: the account, as a block or by its name.
        within: seconds or a `timedelta`; a rental that ends sooner is due.
        max_price: most that one renewal may cost, in USD. A rental whose price is higher or unknown is not
            renewed.
        daily_budget: most that the account may spend in a day (UTC), in USD, this call included.
        run_budget: most that this flow run and its subflows may spend, in USD, this call included.
        order_ids: rentals besides those that were bought through the store: one id, or several.
        only: renews none but these, which may have been rented elsewhere.
        exclude: leaves these alone.
        dry_run: tells what would be done, and pays nothing.

    Returns:
        an entry for each rental with what was done or why not, the cost, and the wallet; `raise_if_failed`
        raises where a rental is not kept.

    Raises:
        SmsVerifyError: see `SmsVerifyHook.renew_expiring`.
    """
    return calls.renew_expiring(
        block_of(credentials),
        within,
        max_price=max_price,
        daily_budget=daily_budget,
        run_budget=run_budget,
        order_ids=order_ids,
        only=only,
        exclude=exclude,
        dry_run=dry_run,
    )


@task(name="Renew expiring rentals", persist_result=False, cache_policy=NO_CACHE)
async def arenew_expiring_rentals(
    credentials: SmsVerifyCredentials | str,
    within: float | timedelta | str,
    *,
    max_price: Decimal | float | str | None = None,
    daily_budget: Decimal | float | str | None = None,
    run_budget: Decimal | float | str | None = None,
    order_ids: OrderIds = (),
    only: OrderIds | None = None,
    exclude: OrderIds = (),
    dry_run: bool = False,
) -> RentalsReport:
    """`renew_expiring_rentals` for coroutines."""
    return await calls.arenew_expiring(
        await asyncio.to_thread(block_of, credentials),
        within,
        max_price=max_price,
        daily_budget=daily_budget,
        run_budget=run_budget,
        order_ids=order_ids,
        only=only,
        exclude=exclude,
        dry_run=dry_run,
    )


# -------------------------------------------------------------- waiting


@task(name="Wait for OTP", persist_result=False, cache_policy=NO_CACHE)
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
    """Waits for the SMS of an order. All who wait on the account share one poll.

    The wait ends, and the order is cancelled for a refund, when the run goes down: on SIGTERM, SIGINT and
    cancellation, also where the task was submitted or mapped; and when another step of its transaction has
    failed. In another process than the flow's (`ProcessPoolTaskRunner`) it ends when the flow run is
    cancelled and when the flow's process is gone; a signal to that process alone does not end it.

    Args:
        credentials: the account, as a block or by its name.
        order_id: the order, or its id.
        timeout: seconds.
        cancel_on_timeout: whether an order that is still pending then is cancelled for a refund. One for
            which any SMS has come is not, also where that was not the one waited for.
        after: waits for an SMS that comes later than this one (a `Message`), or than a time: an aware
            datetime, or that in ISO 8601. Without it, a rental that has had an SMS before gives that one
            again.
        sender: waits for an SMS from this name or number. Only callbacks tell the sender: a message that is
            known from the order's status alone never passes.
        pattern: waits for an SMS whose text this regular expression finds something in: its first group, else
            the whole match, is the code.

    Returns:
        the message: `otp`, `message`, `phone`, `received_at`. `otp` is `None` where the text holds no code
        that can be read with certainty.

    Raises:
        WaitTimeoutError: nothing came in time; `cancelled` says whether the order was cancelled.
        OrderEndedError: the order was cancelled, expired or completed without a message.
        WaitStoppedError: the run is going down.
        SmsVerifyError: see `SmsVerifyHook.wait_for_otp`.
    """
    hook, stop = block_of(credentials).get_hook(), current_stop()
    return calls.wait_for_one(
        hook,
        id_of(order_id),
        timeout,
        cancel_on_timeout=cancel_on_timeout,
        after=after,
        sender=sender,
        pattern=pattern,
        stop=stop,
    )


@task(name="Wait for OTP", persist_result=False, cache_policy=NO_CACHE)
async def await_otp(
    credentials: SmsVerifyCredentials | str,
    order_id: Order | int | str,
    timeout: float = 600,
    cancel_on_timeout: bool = True,
    *,
    after: Message | datetime | str | None = None,
    sender: str | None = None,
    pattern: str | re.Pattern[str] | None = None,
) -> Message:
    """`wait_for_otp` for coroutines. A wait holds no thread, and the event loop is never blocked."""
    hook, stop = (await asyncio.to_thread(block_of, credentials)).get_hook(), current_stop()
    return await calls.await_one(
        hook,
        id_of(order_id),
        timeout,
        cancel_on_timeout=cancel_on_timeout,
        after=after,
        sender=sender,
        pattern=pattern,
        stop=stop,
    )


@task(name="Wait for OTPs", persist_result=False, cache_policy=NO_CACHE)
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
        cancel_on_timeout: whether the orders that are still pending then are cancelled for a refund.
        after, sender, pattern: which SMS, for all of the orders, as for `wait_for_otp`.

    Returns:
        what has become of each order, in their order: its message, or the error that `wait_for_otp` would
        have raised for it (`WaitTimeoutError`, `OrderEndedError`, `NotFoundError`), so that no code is lost
        when another fails.

    Raises:
        WaitStoppedError: the run is going down.
        SmsVerifyError: what concerns all of them, such as a refused key.
    """
    hook, stop, ids = block_of(credentials).get_hook(), current_stop(), [id_of(order) for order in order_ids]
    return calls.wait_for_several(
        hook,
        ids,
        timeout,
        cancel_on_timeout=cancel_on_timeout,
        after=after,
        sender=sender,
        pattern=pattern,
        stop=stop,
    )


@task(name="Wait for OTPs", persist_result=False, cache_policy=NO_CACHE)
async def await_otps(
    credentials: SmsVerifyCredentials | str,
    order_ids: Sequence[Order | int | str],
    timeout: float = 600,
    cancel_on_timeout: bool = True,
    *,
    after: Message | datetime | str | None = None,
    sender: str | None = None,
    pattern: str | re.Pattern[str] | None = None,
) -> list[Outcome]:
    """`wait_for_otps` for coroutines."""
    hook, stop = (await asyncio.to_thread(block_of, credentials)).get_hook(), current_stop()
    ids = [id_of(order) for order in order_ids]
    return await calls.await_several(
        hook,
        ids,
        timeout,
        cancel_on_timeout=cancel_on_timeout,
        after=after,
        sender=sender,
        pattern=pattern,
        stop=stop,
    )


# -------------------------------------------------------------- looking, giving back


@task(name="Cancel order", persist_result=False, cache_policy=NO_CACHE)
def cancel_order(credentials: SmsVerifyCredentials | str, order_id: Order | int | str) -> OrderStatus:
    """Cancels an order for a refund (`POST /api/v1/order/<order_id>/cancel/`). Harmless where it has ended.

    Args:
        credentials: the account, as a block or by its name.
        order_id: the order, or its id.

    Returns:
        the status: cancelled, or completed with the code, which has come before.

    Raises:
        NotFoundError: there is no such order.
        NotCancellableError: the service refuses now. It stays on record as to be cancelled.
    """
    return block_of(credentials).get_hook().cancel(id_of(order_id))


@task(name="Cancel order", persist_result=False, cache_policy=NO_CACHE)
async def acancel_order(credentials: SmsVerifyCredentials | str, order_id: Order | int | str) -> OrderStatus:
    """`cancel_order` for coroutines."""
    return await asyncio.to_thread(cancel_order.fn, credentials, order_id)


@task(name="Get order status", persist_result=False, cache_policy=NO_CACHE)
def get_order_status(credentials: SmsVerifyCredentials | str, order_id: Order | int | str) -> OrderStatus:
    """The status of an order now, with the SMS if one has come (`GET /api/v1/order/<order_id>/status/`).

    Args:
        credentials: the account, as a block or by its name.
        order_id: the order, or its id.

    Raises:
        NotFoundError: there is no such order.
    """
    return block_of(credentials).get_hook().get_status(id_of(order_id))


@task(name="Get order status", persist_result=False, cache_policy=NO_CACHE)
async def aget_order_status(
    credentials: SmsVerifyCredentials | str, order_id: Order | int | str
) -> OrderStatus:
    """`get_order_status` for coroutines."""
    return await asyncio.to_thread(get_order_status.fn, credentials, order_id)


@task(name="Get SMS", persist_result=False, cache_policy=NO_CACHE)
def get_message(credentials: SmsVerifyCredentials | str, message_id: int | str) -> Message:
    """A message by the id under which an event `smsverify.message.received` has told of it.

    Args:
        credentials: the account, as a block or by its name.
        message_id: the message.

    Raises:
        NotFoundError: there is none, or its text has been purged.
    """
    return block_of(credentials).get_hook().get_message(message_id)


@task(name="Get SMS", persist_result=False, cache_policy=NO_CACHE)
async def aget_message(credentials: SmsVerifyCredentials | str, message_id: int | str) -> Message:
    """`get_message` for coroutines."""
    return await asyncio.to_thread(get_message.fn, credentials, message_id)


@task(name="Reconcile", persist_result=False, cache_policy=NO_CACHE)
def reconcile(credentials: SmsVerifyCredentials | str, cancel_after: float | None = None) -> Reconciliation:
    """Compares what is on record with the service, and sets right what can be (`GET /api/v1/orders/`).

    Finds out what became of purchases whose answer was lost, and tries again to cancel what could not be.
    Costs a handful of requests, however much was bought. `reconcile_flow` does it on a schedule and fails
    where something needs a person.

    Args:
        credentials: the account, as a block or by its name.
        cancel_after: cancels numbers that were bought here, have no code, and that nobody has waited for in
            this many seconds; rentals are left alone. Default: they are only reported.

    Returns:
        what was found and done; `findings` is empty where nothing needs a person.

    Raises:
        ServiceError: the list of orders can not be read.
    """
    return block_of(credentials).get_hook().reconcile(cancel_after=cancel_after, stop=current_stop())


@task(name="Reconcile", persist_result=False, cache_policy=NO_CACHE)
async def areconcile(
    credentials: SmsVerifyCredentials | str, cancel_after: float | None = None
) -> Reconciliation:
    """`reconcile` for coroutines."""
    return await asyncio.to_thread(reconcile.fn, credentials, cancel_after)


@task(name="Get balance", persist_result=False, cache_policy=NO_CACHE)
def get_balance(credentials: SmsVerifyCredentials | str) -> Balance:
    """The wallet's balance in USD (`GET /api/v1/balance/`).

    Args:
        credentials: the account, as a block or by its name.
    """
    return block_of(credentials).get_hook().get_balance()


@task(name="Get balance", persist_result=False, cache_policy=NO_CACHE)
async def aget_balance(credentials: SmsVerifyCredentials | str) -> Balance:
    """`get_balance` for coroutines."""
    return await asyncio.to_thread(get_balance.fn, credentials)
