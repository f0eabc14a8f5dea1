"""The account: its wallet, its rate limit, and resolving what is in doubt."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from smsverify._runtime.interrupts import interrupts
from smsverify.cli import output, verbs
from smsverify.cli.options import flag
from smsverify.cli.verbs import EXIT_FINDINGS, Common
from smsverify.overview_tables import DELIVERY, delivered
from smsverify.text import amount, printable

PANEL = "Account"


def balance(common: Common) -> None:
    """Show the wallet's balance."""
    found = common.hook().get_balance()
    output.show(found, f"{amount(found.amount)} {found.currency}", as_json=common.json)


def rate_limit(common: Common) -> None:
    """Show what is left of the requests per minute. Sends no request."""
    state = common.hook().rate_limit()
    if common.json:
        output.say(json.dumps(asdict(state), default=str))
        return
    blocked = f", blocked until {state.blocked_until:%H:%M:%S} UTC" if state.blocked_until else ""
    output.say(
        f"{state.available} of {state.limit} requests per {state.period:g} s free, "
        f"{state.waiting} waiting, {state.refusals} times refused so far{blocked}"
    )


def delivery(
    common: Common,
    days: Annotated[int, typer.Option(help="How far to look back.", metavar="DAYS")] = 30,
) -> None:
    """Show which numbers deliver. Sends no request."""
    found = common.hook().delivery(days)
    if common.json:
        output.say(json.dumps([one.as_dict() for one in found]))
    else:
        output.table(DELIVERY, [delivered(one) for one in found])


def reconcile(
    common: Common,
    cancel_after: Annotated[
        float | None,
        typer.Option(
            help="Cancel the numbers that no call has waited for in this time. Default: only report them.",
            metavar="SECONDS",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Compare the records with the service. Settles open calls and cancellations if it can.

    The exit code is 4 if a person should look at something.
    """
    with interrupts("Run `smsverify reconcile` again to go on") as stop:
        report = common.hook().reconcile(cancel_after=cancel_after, stop=stop)
    output.say(json.dumps(report.as_dict()) if common.json else report.as_text())
    return EXIT_FINDINGS if report.findings else 0


def resolve(
    common: Common,
    key: Annotated[
        str | None,
        typer.Argument(help="The call's key, as reconcile names it.", metavar="KEY", show_default=False),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(
            help="The id of the order that the call bought or renewed.",
            metavar="ORDER_ID",
            show_default=False,
        ),
    ] = None,
    not_made: Annotated[bool, flag("--not-made", "The call was not carried out.")] = False,
    refunded: Annotated[
        str | None,
        typer.Option(
            help="Without a key: the refund of this order has come.", metavar="ORDER_ID", show_default=False
        ),
    ] = None,
) -> None:
    """Record what became of an unknown paid call, or of a missing refund."""
    if refunded is not None and key is None and order is None and not not_made:
        common.hook().resolve_refund(refunded)
        found = {"order_id": refunded, "refunded": True}
        output.say(json.dumps(found) if common.json else f"order {printable(refunded)} is refunded")
        return
    if key is None or refunded is not None or (order is None) == (not not_made):
        raise typer.BadParameter("give a key with either --order or --not-made, or --refunded alone")
    common.hook().resolve(key, order_id=order)
    outcome = "was not carried out" if order is None else f"is order {order}"
    text = json.dumps({"key": key, "order_id": order}) if common.json else f"{printable(key)} {outcome}"
    output.say(text)


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    for verb in (balance, rate_limit, delivery, reconcile, resolve):
        verbs.add(app, PANEL, verb)
