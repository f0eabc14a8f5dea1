"""The tasks that extend rentals, each with its twin for coroutines. They keep to what `tasks` says."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from prefect_smsverify.arguments import ahook_of, hook_of, id_of
from prefect_smsverify.defining import task
from prefect_smsverify.paying import apay, pay, renewal, renewals
from prefect_smsverify.twins import twin_of

if TYPE_CHECKING:
    from prefect_smsverify.credentials import SmsVerifyCredentials
    from smsverify.models import Order
    from smsverify.options import OrderIds
    from smsverify.reports import RentalsReport


@task("Renew rental")
def renew_rental(
    credentials: SmsVerifyCredentials | str,
    order_id: Order | int | str,
    *,
    max_price: Decimal | float | str | None = None,
    run_budget: Decimal | float | str | None = None,
    key: str | None = None,
) -> Order:
    """Extends a rental by its period at the current price (`POST /api/v1/order/<order_id>/renew/`).

    Safe to run again, as `order_number` is: a retry does not pay again.

    Args:
        credentials: the account, as a block or by its name.
        order_id: a `rental`, `rent-1day` or `rent-30days` order, or its id.
        max_price: most that may be paid, in USD. Nothing is sent when the price is higher or unknown.
        run_budget: most that this flow run and its subflows may spend, in USD, this call included.
        key: names this renewal. Default: derived from the run.

    Returns:
        the order with its new expiry; `expires_estimated` if the service does not show it.

    Raises:
        SmsVerifyError: see `SmsVerifyHook.renew`.
    """
    return pay(
        renewal(
            hook_of(credentials),
            id_of(order_id),
            max_price=max_price,
            run_budget=run_budget,
            key=key,
        )
    )


@task("Renew rental")
@twin_of(renew_rental)
async def arenew_rental(
    credentials: SmsVerifyCredentials | str, order_id: Order | int | str, **what: Any
) -> Order:
    """`renew_rental` for coroutines."""
    return await apay(renewal(await ahook_of(credentials), id_of(order_id), **what))


@task("Renew expiring rentals")
def renew_expiring_rentals(
    credentials: SmsVerifyCredentials | str,
    within: float | timedelta | str,
    *,
    max_price: Decimal | float | str | None = None,
    run_budget: Decimal | float | str | None = None,
    order_ids: OrderIds = (),
    only: OrderIds | None = None,
    exclude: OrderIds = (),
    dry_run: bool = False,
) -> RentalsReport:
    """Renews the rentals that end soon, once for each period (`POST /api/v1/order/<order_id>/renew/`).

    Run it on a schedule, several times in `within`; `renew_rentals_flow` does. What is not due is left alone,
    and overlapping runs, retries and several deployments with the same rentals renew nothing twice. One
    rental that cannot be renewed never stops the others.

    Args:
        credentials: the account, as a block or by its name.
        within: seconds or a `timedelta`; a rental that ends sooner is due.
        max_price: most that one renewal may cost, in USD. A rental whose price is higher or unknown is not
            renewed.
        run_budget: most that this flow run and its subflows may spend, in USD, this call included.
        order_ids: rentals besides those that were bought through the store: one id, or several.
        only: renews none but these, which may have been rented elsewhere.
        exclude: leaves these alone.
        dry_run: reports what would be done, and pays nothing.

    Returns:
        an entry for each rental with what was done or why not, the cost, and the wallet; `raise_if_failed`
        raises if a rental is not kept.

    Raises:
        SmsVerifyError: see `SmsVerifyHook.renew_expiring`.
    """
    return pay(
        renewals(
            hook_of(credentials),
            within,
            max_price=max_price,
            run_budget=run_budget,
            order_ids=order_ids,
            only=only,
            exclude=exclude,
            dry_run=dry_run,
        )
    )


@task("Renew expiring rentals")
@twin_of(renew_expiring_rentals)
async def arenew_expiring_rentals(
    credentials: SmsVerifyCredentials | str, within: float | timedelta | str, **selection: Any
) -> RentalsReport:
    """`renew_expiring_rentals` for coroutines."""
    return await apay(renewals(await ahook_of(credentials), within, **selection))
