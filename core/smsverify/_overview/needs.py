"""What needs a person: what a reconciliation would name now, and rentals that the last run has not kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

import sqlalchemy as sa

from smsverify._overview.view import View
from smsverify._purchases.findings import Findings
from smsverify._runtime.interrupts import command
from smsverify._store.tables import purchases
from smsverify.overview import SHOWN, Need, NeedKind, RentalRow, Section, Task
from smsverify.reports import KEPT, HeldOrder, UnknownCall, usd
from smsverify.text import printable


def needs_of(
    view: View,
    findings: Findings,
    unknown: Sequence[UnknownCall],
    rentals: Section[RentalRow],
    *,
    is_exclusive: bool,
) -> Section[Need]:
    """What needs a person, the most urgent first.

    Args:
        view: of the account.
        findings: what its records leave to a person.
        unknown: its calls whose outcome is unknown.
        rentals: that go on.
        is_exclusive: whether only the users of this store buy on the account.
    """
    found: list[Need] = [_unknown(call) for call in unknown if call.overdue]
    found += [_not_kept(rental) for rental in rentals.rows if _is_not_kept(rental)]
    unneeded = findings.unneeded(view.now)
    each: tuple[tuple[NeedKind, list[HeldOrder]], ...] = (
        ("not_given_back", findings.releases(planned=False)),
        ("not_used", findings.leaks(*unneeded)),
        ("refund_missing", findings.missing_refunds()),
        ("overcharged", findings.overcharged(view.connection)),
        ("bought_elsewhere", findings.foreign(unknown) if is_exclusive else []),
    )
    for kind, held in each:
        found += _held(kind, held)
    rows = found[:SHOWN]
    return Section[Need](rows=list(_with_tasks(view, rows)), more=len(found) - len(rows))


def _unknown(call: UnknownCall) -> Need:
    ids = call.order_ids
    given = str(ids[0]) if len(ids) == 1 else "ORDER_ID"
    what = "a purchase" if call.kind == "order" else f"a renewal of order {ids[0]}"
    price = "an unknown price" if call.price is None else usd(call.price)
    text = f"{what} for {price} was sent at {call.sent_at:%H:%M} UTC, and its outcome is unknown"
    if call.kind == "order" and ids:
        text += f"; it may be order {' or '.join(map(str, ids))}"
    return Need(
        kind="purchase_unknown" if call.kind == "order" else "renewal_unknown",
        text=text,
        order_id=ids[0] if call.kind == "renewal" else None,
        key=call.key,
        task=call.task,
        command=command("resolve", call.key, order=given),
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


def _held(kind: NeedKind, held: Sequence[HeldOrder]) -> Iterator[Need]:
    for order in held:
        is_open = kind in ("not_given_back", "not_used")
        yield Need(
            kind=kind,
            text=order.as_text(),
            order_id=order.order_id,
            key=order.key,
            command=command("cancel", str(order.order_id)) if is_open else None,
        )


def _with_tasks(view: View, needs: Sequence[Need]) -> Iterator[Need]:
    """The needs with the tasks that have bought their orders."""
    order_ids = {need.order_id for need in needs if need.task is None and need.order_id is not None}
    tasks: dict[int, Task | None] = {}
    if order_ids:
        calls = sa.select(purchases.c.account, purchases.c.kind, purchases.c.order_id, purchases.c.task)
        rows = view.connection.execute(calls.where(purchases.c.order_id.in_(order_ids)))
        tasks = {
            row.order_id: Task.read(row.task)
            for row in rows
            if row.account == view.account and row.kind == "order"
        }
    for need in needs:
        task = need.task or tasks.get(need.order_id or 0)
        yield need if task is None else need.model_copy(update={"task": task})
