"""One task for a verified account: it tries numbers until one has its code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect_smsverify.actions import check_action, check_result
from prefect_smsverify.arguments import ahook_of, hook_of
from prefect_smsverify.defining import task
from prefect_smsverify.paying import PaidCall, apay, pay
from prefect_smsverify.stopping import current_stop
from prefect_smsverify.threads import result_in_thread, to_its_end
from prefect_smsverify.twins import twin_of
from prefect_smsverify.waiting import await_one, wait_for_one
from smsverify.checks import check_pattern, check_seconds, check_sender
from smsverify.numbers import Attempt, RentedNumber, errors_logged
from smsverify.wings import attempts_of

if TYPE_CHECKING:
    from prefect_smsverify.credentials import SmsVerifyCredentials
    from smsverify import Order, Verification
    from smsverify.wings import Series


@task("Verify number")
def verify_number(
    credentials: SmsVerifyCredentials | str,
    action: Callable[[Order], Any],
    product: str,
    *,
    service: int | str | None = None,
    country: int | str | None = None,
    area_code: str | int | None = None,
    duration: int | None = None,
    max_price: Decimal | float | str | None = None,
    attempts: int = 3,
    timeout: float = 120,
    alternatives: Sequence[Mapping[str, Any]] | str = (),
    max_cost: Decimal | float | str | None = None,
    sender: str | None = None,
    pattern: str | re.Pattern[str] | None = None,
    run_budget: Decimal | float | str | None = None,
    key: str | None = None,
) -> Verification:
    """Tries numbers until one receives a code.

    It buys a number, calls the function with it (such as to type it into a form), and waits for the code.
    If none comes in `timeout`, the number is cancelled for a refund, and the next one is tried. Safe to
    run again, as `order_number` is: a further attempt of the run goes on with the same number while that
    lives, otherwise with the next.

    Args:
        credentials: the account, as a block or by its name.
        action: called with each number that is tried, an `Order`. An error of its own fails the task, and
            gives the number back unless the run is to be tried again.
        product: `temporary`, `best-temp`, `rental`, `rent-1day`, `rent-30days` or `global`.
        service, country, area_code, duration, max_price: as for `order_number`.
        attempts: how many numbers may be tried.
        timeout: seconds to wait for the code of each, from the end of `action` on.
        alternatives: what is bought instead if a number is not available or too expensive: dicts of
            `product`, `service`, …, tried in their order; or `"best"`, as for `SmsVerifyHook.verify`.
        max_cost: most that all attempts may cost together, in USD, without refunds.
        sender, pattern: which SMS is wanted, as for `wait_for_otp`.
        run_budget: most that this flow run and its subflows may spend, in USD.
        key: names the purchases. Default: derived from the run.

    Returns:
        the number and its code: `order_id`, `phone`, `otp`, `message`, `attempts`, `cost`, and `result`, what
        `action` has returned.

    Raises:
        VerificationError: no number has its code; it lists the attempts.
        InvalidRequestError: an argument is wrong, so nothing was bought; or `action` returned a coroutine,
            which does not run: its number is given back.
        SmsVerifyError: what else `SmsVerifyHook.verify` raises.
    """
    check_action(action)
    _check(sender, pattern)
    hook, stop = hook_of(credentials), current_stop()
    purchase = _given(
        service=service,
        country=country,
        area_code=area_code,
        duration=duration,
        max_price=max_price,
        alternatives=alternatives,
        max_cost=max_cost,
        run_budget=run_budget,
        key=key,
    )
    seconds = check_seconds(timeout, "timeout")
    with attempts_of(hook, product, attempts, stop=stop, **purchase) as series:
        while True:
            order = pay(PaidCall(series.next_number, stop, partial(_give_up, series)))
            with Attempt(RentedNumber(hook, order), series) as number:
                result = check_result(action(order))
                series.refuse_if_taken_over(order.order_id)
                message = wait_for_one(
                    hook, number.order_id, seconds, stop=stop, sender=sender, pattern=pattern
                )
                return series.verification(order, message, result)


@task("Verify number")
@twin_of(verify_number)
async def averify_number(
    credentials: SmsVerifyCredentials | str,
    action: Callable[[Order], Any | Awaitable[Any]],
    product: str,
    *,
    attempts: int,
    timeout: float,
    sender: str | None,
    pattern: str | re.Pattern[str] | None,
    **given: Any,
) -> Verification:
    """`verify_number` for coroutines. `action` is a coroutine function, or one that is called in a thread."""
    check_action(action, may_be_async=True)
    _check(sender, pattern)
    hook, stop = await ahook_of(credentials), current_stop()
    purchase = _given(**given)
    seconds = check_seconds(timeout, "timeout")
    with ExitStack() as stack:

        def begin() -> Series:
            return stack.enter_context(attempts_of(hook, product, attempts, stop=stop, **purchase))

        series = await result_in_thread(begin, "series")
        while True:
            order = await apay(PaidCall(series.next_number, stop, partial(_give_up, series)))
            attempt = Attempt(RentedNumber(hook, order), series)
            try:
                result = await result_in_thread(partial(action, order), "action")
                if inspect.isawaitable(result):
                    result = await result
                check_result(result)
                await result_in_thread(partial(series.refuse_if_taken_over, order.order_id), "holder")
                message = await await_one(
                    hook, order.order_id, seconds, stop=stop, sender=sender, pattern=pattern
                )
            except BaseException as error:
                if not await to_its_end(partial(attempt.end, error), "attempt"):
                    raise
            else:
                await to_its_end(partial(attempt.end, None), "attempt")
                return await result_in_thread(
                    partial(series.verification, order, message, result), "verification"
                )


def _check(sender: str | None, pattern: str | re.Pattern[str] | None) -> None:
    """Refuses what the wait would refuse after the purchase."""
    if sender is not None:
        check_sender(sender)
    if pattern is not None:
        check_pattern(pattern)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _give_up(series: Series, order: Order) -> None:
    with errors_logged(order.order_id):
        series.give_up(order, "the run that tried it is going down")
