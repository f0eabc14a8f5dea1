"""Rented numbers: how long they last, and keeping them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from smsverify._runtime.interrupts import interrupts
from smsverify.cli import output, verbs
from smsverify.cli.options import flag
from smsverify.cli.verbs import EXIT_FINDINGS, Common
from smsverify.text import amount

if TYPE_CHECKING:
    from smsverify.models import Rental

PANEL = "Rentals"

HEAD = (
    "order_id",
    "time left",
    "expires_at",
    "price",
    "renewals",
    "product",
    "service",
    "phone",
    "status",
)
Elsewhere = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ORDER_ID]...", help="Further rentals, bought elsewhere.", show_default=False),
]


def rentals(
    common: Common,
    order_ids: Elsewhere = None,
    *,
    within: Annotated[
        str,
        typer.Option(help="Rentals that end within this time are yellow on a terminal.", metavar="SECONDS"),
    ] = "86400",
) -> None:
    """List the rented numbers, and when they end."""
    from smsverify.checks import check_seconds

    soon = check_seconds(within, "within")
    found = common.hook().rentals(order_ids or ())
    if common.json:
        output.say(json.dumps([output.fields_of(rental) for rental in found]))
        return
    styles = [_style(rental.time_left_seconds, soon) for rental in found]
    output.table(HEAD, [_row_of(rental) for rental in found], styles)


def _row_of(rental: Rental) -> tuple[str, ...]:
    duration = "" if rental.duration is None else f" {rental.duration} days"
    return (
        str(rental.order_id),
        _time_left(rental),
        "unknown" if rental.expires_at is None else f"{rental.expires_at:%Y-%m-%d %H:%M} UTC",
        "unknown" if rental.price is None else amount(rental.price),
        str(rental.renewals),
        f"{rental.product or '-'}{duration}",
        rental.service or "-",
        rental.phone or "-",
        rental.status + (f" ({rental.note})" if rental.note else ""),
    )


def _time_left(rental: Rental) -> str:
    """As people say it; `~` if it is an estimate."""
    if rental.time_left_seconds is None:
        return "unknown"
    minutes = int(rental.time_left_seconds // 60)
    days, hours = divmod(minutes // 60, 24)
    text = f"{days} d {hours} h" if days else f"{hours} h {minutes % 60} min"
    return f"~{text}" if rental.expires_estimated else text


def _style(left: float | None, soon: float) -> str:
    if left is None or left <= 0:
        return "red"
    return "yellow" if left <= soon else ""


def renew_expiring(
    common: Common,
    order_ids: Elsewhere = None,
    *,
    within: Annotated[
        str, typer.Option(help="Renew the rentals that end within this time.", metavar="SECONDS")
    ] = "86400",
    max_price: Annotated[
        str | None,
        typer.Option(
            help="The most that one renewal may cost, in USD. SMSVERIFY_RUN_BUDGET limits the whole run.",
            metavar="USD",
            show_default=False,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Renew only these orders. May be repeated.", metavar="ORDER_ID", show_default=False
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave these orders alone. May be repeated.", metavar="ORDER_ID", show_default=False
        ),
    ] = None,
    dry_run: Annotated[bool, flag("--dry-run", "Report what would be done; pay nothing.")] = False,
) -> int:
    """Renew the rentals that end soon. Pays for each period once, however often it runs.

    Let cron run it several times in the time that --within names.

    The exit code is 4 if a rental was not kept.
    """
    with interrupts("The same command goes on, and renews nothing twice") as stop:
        report = common.hook().renew_expiring(
            within,
            max_price=max_price,
            order_ids=order_ids or (),
            only=only or None,
            exclude=exclude or (),
            dry_run=dry_run,
            stop=stop,
        )
    output.say(json.dumps(report.as_dict()) if common.json else report.as_text())
    return EXIT_FINDINGS if report.failed else 0


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    for verb in (rentals, renew_expiring):
        verbs.add(app, PANEL, verb)
