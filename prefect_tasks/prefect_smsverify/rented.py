"""A number for the length of a block: ordered at its beginning, given back at its end unless it was used."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from prefect_smsverify.arguments import account_of, block_of
from prefect_smsverify.stopping import stopping_waits
from prefect_smsverify.tasks import aorder_number, await_otp, order_number, wait_for_otp
from prefect_smsverify.threads import to_its_end
from prefect_smsverify.transactions import Bought, buying_for
from smsverify.numbers import errors_logged

if TYPE_CHECKING:
    from prefect_smsverify.credentials import SmsVerifyCredentials
    from smsverify.models import Message, Order


@dataclass
class RentedNumber:
    """A number inside `rented_number`.

    It belongs to its block. Give its `phone`, `order_id` or `order` to your tasks, not the number itself:
    Prefect can neither send it to another process nor recognise it in a second call.

    Attributes:
        order: the order.
    """

    _account: SmsVerifyCredentials = field(repr=False)
    order: Order
    _bought: Bought = field(repr=False)

    @property
    def is_used(self) -> bool:
        """Whether its code was returned, by whatever call, as the store knows it."""
        return self._bought.is_used()

    @property
    def order_id(self) -> int:
        """The order's id."""
        return self.order.order_id

    @property
    def phone(self) -> str | None:
        """The number as the service writes it."""
        return self.order.phone

    def wait_for_otp(
        self,
        timeout: float = 600,
        cancel_on_timeout: bool = True,
        *,
        after: Message | datetime | str | None = None,
        sender: str | None = None,
        pattern: str | re.Pattern[str] | None = None,
    ) -> Message:
        """The task `wait_for_otp` for this number."""
        return wait_for_otp(
            self._account,
            self.order_id,
            timeout,
            cancel_on_timeout,
            after=after,
            sender=sender,
            pattern=pattern,
        )

    async def await_otp(
        self,
        timeout: float = 600,
        cancel_on_timeout: bool = True,
        *,
        after: Message | datetime | str | None = None,
        sender: str | None = None,
        pattern: str | re.Pattern[str] | None = None,
    ) -> Message:
        """The task `await_otp` for this number."""
        return await await_otp(
            self._account,
            self.order_id,
            timeout,
            cancel_on_timeout,
            after=after,
            sender=sender,
            pattern=pattern,
        )


def _end(bought: Bought) -> None:
    """Hands over an order whose code was used, and gives another back."""
    if bought.hook is None or bought.order is None or bought.held is None:
        return
    is_over = bought.order.product == "esim"  # which cannot be given back
    try:
        if bought.is_used():
            is_over = True
        else:
            bought.hook.release(bought.order.order_id, "its code was not used", undo=True)
    finally:
        (bought.held.hand_over if is_over else bought.held.let_go)()


def _end_after_error(bought: Bought) -> None:
    """`_end` if the error of the block goes on, whatever the store says."""
    if bought.order is not None:
        with errors_logged(bought.order.order_id):
            _end(bought)


@contextmanager
def rented_number(
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
) -> Iterator[RentedNumber]:
    """Orders a number for a `with` block of a flow or task. Takes what `order_number` takes.

    However the block ends (an error, SIGTERM, SIGINT, a cancellation), the waits that were started in it end,
    and the order is cancelled for a refund unless its code has come. Until then it is kept, whatever becomes
    of the transactions around it: steps in the block may be retried, and their errors caught.

    Yields:
        the number: `phone`, `order`, and `wait_for_otp`.
    """
    account = block_of(credentials)
    bought = Bought()
    try:
        with buying_for(bought):
            order = order_number(
                account,
                product,
                service=service,
                country=country,
                area_code=area_code,
                duration=duration,
                plan=plan,
                max_price=max_price,
                run_budget=run_budget,
                key=key,
            )
        with stopping_waits():
            yield RentedNumber(account, order, bought)
    except BaseException:
        _end_after_error(bought)
        raise
    _end(bought)


@asynccontextmanager
async def arented_number(
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
) -> AsyncIterator[RentedNumber]:
    """`rented_number` for coroutines."""
    account = await account_of(credentials)
    bought = Bought()
    try:
        with buying_for(bought):
            order = await aorder_number(
                account,
                product,
                service=service,
                country=country,
                area_code=area_code,
                duration=duration,
                plan=plan,
                max_price=max_price,
                run_budget=run_budget,
                key=key,
            )
        with stopping_waits():
            yield RentedNumber(account, order, bought)
    except BaseException:
        await to_its_end(partial(_end_after_error, bought), "release")
        raise
    await to_its_end(partial(_end, bought), "release")
