"""What needs a person: what a reconciliation would name now, and rentals that the last run has not kept."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final, cast, get_args

from smsverify._overview.view import View
from smsverify._purchases.findings import Findings, Found, HeldKind
from smsverify._runtime.commands import command, may_have_bought, resolve_command
from smsverify.models import TO_KEEP, has_ended
from smsverify.overview import SHOWN, Need, NeedKind, RentalRow, Section
from smsverify.reports import KEPT, UnknownCall
from smsverify.text import printable, usd

URGENCY: Final[dict[NeedKind, int]] = {kind: place for place, kind in enumerate(get_args(NeedKind))} | {
    "renewal_unknown": 0
}
HELD: Final[tuple[HeldKind, ...]] = ("not_given_back", "not_used", "refund_missing", "bought_elsewhere")


def needs_of(
    view: View,
    findings: Findings,
    unknown: Sequence[UnknownCall],
    rentals: Section[RentalRow],
    day: Sequence[Any],
    *,
    is_exclusive: bool,
) -> Section[Need]:
    """What needs a person, the most urgent first.

    Args:
        view: of the account.
        findings: what its records leave to a person.
        unknown: its calls whose outcome is unknown.
        rentals: that go on.
        day: its calls of the last 24 hours, as `last_day_of` counts them.
        is_exclusive: whether only the users of this store buy on the account.
    """
    found: list[Need] = [_unknown(call) for call in unknown if call.overdue]
    found += [_not_kept(rental) for rental in rentals.rows if _is_not_kept(rental)]
    if any(row.too_much for row in day):
        found += map(_held, findings.overcharged(view.connection, view.now))
    kinds = [kind for kind in HELD if is_exclusive or kind != "bought_elsewhere"]
    held, count = findings.held(view.connection, view.now, *kinds, unknown=unknown, most=SHOWN)
    rows = [*found, *map(_held, held)]
    rows = sorted(rows, key=lambda need: URGENCY[need.kind])[:SHOWN]
    return Section[Need](rows=rows, more=len(found) + count - len(rows))


def _unknown(call: UnknownCall) -> Need:
    ids = call.order_ids
    what = "a purchase" if call.kind == "order" else f"a renewal of order {ids[0]}"
    text = f"{what} for {usd(call.price)} was sent at {call.sent_at:%H:%M} UTC, and its outcome is unknown"
    if call.kind == "order" and ids:
        text += f"; {may_have_bought(ids)}"
    return Need(
        kind="purchase_unknown" if call.kind == "order" else "renewal_unknown",
        text=text,
        order_id=ids[0] if call.kind == "renewal" else None,
        key=call.key,
        task=call.task,
        command=resolve_command(call.key, ids),
    )


_VERBS = {"unclaimed": "status", "refused": "status", "unknown": "reconcile"}


def _is_not_kept(rental: RentalRow) -> bool:
    return rental.outcome is not None and rental.outcome not in KEPT and rental.outcome != "expired"


def _not_kept(rental: RentalRow) -> Need:
    reason = rental.reason or (rental.outcome or "").replace("_", " ")
    name = f"order {rental.order_id}{f' ({rental.service})' if rental.service else ''}"
    max_price: Decimal | None = rental.price if rental.outcome == "too_expensive" else None
    verb = _VERBS.get(rental.outcome or "", "renew")
    return Need(
        kind="rental_not_kept",
        text=printable(f"{name} is not kept: {reason}"),
        order_id=rental.order_id,
        task=rental.kept_by,
        command=command("reconcile")
        if verb == "reconcile"
        else command(verb, str(rental.order_id), max_price=max_price),
    )


def _held(found: Found) -> Need:
    """An order that costs money and may be in no use."""
    order, verb = found.order, None
    if found.kind in ("not_given_back", "not_used"):
        verb = None if has_ended(order.status) else "cancel"
    if found.kind == "not_used" and order.status == "completed":
        # What has come for it is still to be had.
        verb = "status" if found.product in TO_KEEP else "wait"
    return Need(
        kind=cast(NeedKind, found.kind),
        text=order.as_text(),
        order_id=order.order_id,
        key=order.key,
        task=found.task,
        command=None if verb is None else command(verb, str(order.order_id)),
    )
