"""Buying: the catalogue, orders and renewals."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import typer

from smsverify._runtime.interrupts import interrupts
from smsverify.cli import output, verbs
from smsverify.cli.options import Key, MaxPrice, OrderId, Product, flag
from smsverify.cli.verbs import Common, goes_on, going_on, paid
from smsverify.text import printable, usd

PANEL = "Numbers"


def services(
    common: Common,
    product: Product,
    country: Annotated[
        str | None,
        typer.Option(
            help="Id, name or ISO code, for global; without it, the countries are listed.", show_default=False
        ),
    ] = None,
) -> None:
    """List what can be ordered, with prices."""
    hook = common.hook()
    rows: Sequence[Any]
    if product == "global":
        rows = hook.list_global_services(country) if country else hook.list_countries()
    elif product == "esim":
        rows = hook.list_esim_plans()
    else:
        rows = hook.list_services(product)
    output.show_all(rows, as_json=common.json)


def order(
    common: Common,
    product: Product,
    *,
    service: Annotated[str | None, typer.Option(help="Id or name.", show_default=False)] = None,
    country: Annotated[
        str | None, typer.Option(help="Id, name or ISO code, for global.", show_default=False)
    ] = None,
    area_code: Annotated[
        str | None, typer.Option(help="Three digits, for temporary.", show_default=False)
    ] = None,
    duration: Annotated[
        str | None, typer.Option(help="3 or 30, for rental.", metavar="DAYS", show_default=False)
    ] = None,
    plan: Annotated[str | None, typer.Option(help="The plan's name, for esim.", show_default=False)] = None,
    max_price: MaxPrice = None,
    key: Key = None,
    reveal: Annotated[bool, flag("--reveal", "Print an eSIM's activation code.")] = False,
) -> None:
    """Order a number or an eSIM. With the same --key, it is bought once."""
    from smsverify._runtime import surroundings

    wanted: dict[str, Any] = {
        "service": service,
        "country": country,
        "area_code": area_code,
        "duration": duration,
        "plan": plan,
        "max_price": max_price,
    }
    if key is None:
        surroundings.refuse_without_key()
        # A key that can be printed if the answer does not come.
        key = f"random:{uuid.uuid4().hex}"
    again = partial(common.again, "order", product, **wanted)
    with going_on(again), interrupts(goes_on(again(key=key))) as stop:
        bought = common.hook().order(product, **wanted, key=key, stop=stop)
    price = usd(bought.price, "-")
    with paid(f"order {bought.order_id} is bought: {again(key=key)} prints it"):
        text = f"order {bought.order_id}  {bought.phone or '-'}  {bought.status}  {price}"
        output.show(bought, text, as_json=common.json)
        if reveal and bought.activation_code is not None:
            output.say(printable(bought.activation_code))


def renew(common: Common, order_id: OrderId, max_price: MaxPrice = None, key: Key = None) -> None:
    """Extend a rental by one period. With the same --key, it is paid once."""
    again = partial(common.again, "renew", order_id, max_price=max_price)
    if key is None:
        # Without one, the same command may ask for the next period by then.
        after = (
            f"If the request had left, {common.again('reconcile')} finds out whether the rental is renewed"
        )
    else:
        after = goes_on(again(key=key))
    with going_on(again), interrupts(after) as stop:
        renewed = common.hook().renew(order_id, max_price=max_price, key=key, stop=stop)
    with paid(f"order {renewed.order_id} is renewed"):
        text = f"order {renewed.order_id}  until {renewed.expires_at or 'unknown'}"
        output.show(renewed, text, as_json=common.json)


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    for verb in (services, order, renew):
        verbs.add(app, PANEL, verb)
