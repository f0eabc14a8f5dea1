"""What was spent and bought: the wallet, the day's spending, rentals, and the orders of the last 24 hours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from smsverify._input.amounts import exactly
from smsverify._orders.records import is_awaited
from smsverify._overview.view import DAY_AGO, MIDNIGHT, View, first, more_than
from smsverify._purchases.calls import OpenCall
from smsverify._purchases.deliveries import figures, newest_bought
from smsverify._purchases.spending import (
    HAS_COME_BACK,
    MAY_BE_TOO_MUCH,
    MAY_HAVE_COST,
    spent_by_workflow,
)
from smsverify._purchases.wallet import Wallet
from smsverify._runtime.clock import DAY
from smsverify._runtime.tasks import Task
from smsverify._store.parameters import ACCOUNT, ALIVE_SINCE, NOW, WALL, constants
from smsverify._store.tables import ARRIVED_AT, is_order, kept, messages, orders, purchases
from smsverify.models import ENDED, has_ended, was_cancelled
from smsverify.overview import (
    DELIVERY_DAYS,
    DELIVERY_NUMBERS,
    SHOWN,
    DeliveryFigures,
    OrderRow,
    Orders,
    OrderState,
    RentalRow,
    Section,
    Spend,
    WalletSeen,
    WorkflowSpend,
)


def _rentals() -> sa.Select[Any]:
    """The first rentals that go on, each with its keeping, its last renewal and its newest SMS."""
    is_over = orders.c.status.in_(constants(ENDED - {"completed"}))
    goes_on = sa.or_(
        orders.c.expires_at.is_(None),
        orders.c.expires_at > WALL,
        sa.and_(orders.c.expires_estimated, orders.c.expires_at > WALL - DAY),
    )
    rental = first(
        sa.select(
            orders.c.order_id,
            orders.c.phone,
            orders.c.service,
            orders.c.product,
            orders.c.duration,
            orders.c.expires_at,
            orders.c.expires_estimated,
            orders.c.price,
        )
        .where(
            orders.c.account == ACCOUNT,
            orders.c.rental_since > 0,
            orders.c.key.is_not(None),
            sa.not_(is_over),
            goes_on,
        )
        .order_by(orders.c.expires_at.is_(None), orders.c.expires_at, orders.c.order_id)
    )
    is_renewal = sa.and_(
        purchases.c.account == ACCOUNT, purchases.c.kind == "renewal", purchases.c.state == "bought"
    )
    # An order has few calls, and its index finds them: as conditions, the rest would mislead to another one.
    its_calls = purchases.c.order_id == rental.c.order_id
    times = sa.select(sa.func.count(sa.case((is_renewal, purchases.c.id)))).where(its_calls)
    last_id = sa.select(sa.func.max(sa.case((is_renewal, purchases.c.id)))).where(its_calls)
    last_sms = sa.select(sa.func.max(messages.c.came_at)).where(
        messages.c.account == ACCOUNT, messages.c.order_id == rental.c.order_id
    )
    last = purchases.alias("last")
    columns: tuple[sa.ColumnElement[Any], ...] = (
        kept.c.at,
        kept.c.outcome,
        kept.c.reason,
        kept.c.price.label("kept_price"),
        kept.c.task,
        times.scalar_subquery().label("renewals"),
        last.c.resolved_at.label("renewed_at"),
        last.c.price.label("renewal_price"),
        last.c.task.label("renewed_by"),
        last_sms.scalar_subquery().label("last_sms_at"),
    )
    return (
        sa.select(rental, *columns)
        .outerjoin(kept, sa.and_(kept.c.account == ACCOUNT, kept.c.order_id == rental.c.order_id))
        .outerjoin(last, last.c.id == last_id.scalar_subquery())
        .order_by(rental.c.expires_at.is_(None), rental.c.expires_at, rental.c.order_id)
    )


_OF_LAST_DAY = (
    purchases.c.account == ACCOUNT,
    purchases.c.sent_at >= DAY_AGO,
    purchases.c.state.in_(constants(MAY_HAVE_COST)),
)


def _last_day() -> sa.Select[Any]:
    """The paid calls of the last 24 hours, counted by what they have cost and what became of them."""
    # What came before a purchase is not its code; an index finds what came since the first of them.
    came = (
        sa.select(messages.c.order_id, sa.func.max(messages.c.came_at).label("newest_at"))
        .where(messages.c.account == ACCOUNT, ARRIVED_AT >= DAY_AGO)
        .group_by(messages.c.order_id)
        .subquery()
    )
    has_sms = came.c.newest_at >= purchases.c.sent_at
    groups: dict[str, sa.ColumnElement[Any]] = {
        "workflow": purchases.c.workflow,
        "kind": purchases.c.kind,
        "state": purchases.c.state,
        "charge": purchases.c.charge,
        "has_come_back": HAS_COME_BACK,
        "is_today": purchases.c.sent_at >= MIDNIGHT,
    }
    counts: dict[str, sa.ColumnElement[int]] = {
        "times": sa.func.count(),
        "codes": sa.func.count(sa.case((has_sms, 1))),
        "too_much": sa.func.count(sa.case((MAY_BE_TOO_MUCH, 1))),
    }
    columns = [column.label(name) for name, column in {**groups, **counts}.items()]
    # Nothing came back before it was bought: an index finds these orders, which are few.
    came_back = sa.and_(is_order(ACCOUNT, purchases.c.order_id), orders.c.refunded_at >= DAY_AGO)
    calls = purchases.outerjoin(orders, came_back).outerjoin(came, came.c.order_id == purchases.c.order_id)
    return sa.select(*columns).select_from(calls).where(*_OF_LAST_DAY).group_by(*groups.values())


_RENTALS = _rentals()
_LAST_DAY = _last_day()
# What was bought last, for the orders of a day and for the figures of delivery.
_NEWEST = newest_bought(
    NOW - DELIVERY_DAYS * DAY,
    DELIVERY_NUMBERS,
    (
        purchases.c.order_id,
        purchases.c.charge,
        purchases.c.sent_at,
        purchases.c.task,
    ),
    (orders.c.phone, orders.c.service, is_awaited(ALIVE_SINCE).label("is_awaited")),
)


def last_day_of(view: View) -> Sequence[Any]:
    """The paid calls of the last 24 hours, counted by what they have cost and what became of them."""
    return view.rows(_LAST_DAY)


def newest_of(view: View) -> Sequence[Any]:
    """The newest numbers that were bought, each with its order."""
    return view.rows(_NEWEST)


@exactly
def spend_of(view: View, day: Sequence[Any], budget: Decimal | None) -> Spend:
    """What was spent since midnight, of the calls of the last day."""
    parts = sorted(
        spent_by_workflow([row for row in day if row.is_today]),
        key=lambda part: part.spent.amount,
        reverse=True,
    )
    return Spend(
        amount=sum((part.spent.amount for part in parts), Decimal(0)),
        refunded=sum((part.refunded for part in parts), Decimal(0)),
        unpriced=sum(part.spent.unpriced for part in parts),
        budget=budget,
        resets_at=view.utc(view.midnight + DAY),
        workflows=Section[WorkflowSpend](
            rows=[WorkflowSpend(workflow=part.workflow, amount=part.spent.amount) for part in parts[:SHOWN]],
            more=max(len(parts) - SHOWN, 0),
        ),
    )


@exactly
def wallet_of(view: View, wallet: Wallet, rentals: Section[RentalRow], at: datetime) -> WalletSeen | None:
    """The wallet as it was last read."""
    last = wallet.last(view.connection)
    if last is None:
        return None
    due = [
        rental.price
        for rental in rentals.rows
        if rental.price is not None
        and rental.expires_at is not None
        and rental.expires_at <= at + timedelta(days=1)
    ]
    return WalletSeen(amount=last.amount, seen_at=view.utc(last.read_at), renewals=sum(due, Decimal(0)))


def rentals_of(view: View) -> Section[RentalRow]:
    """The rentals that go on, the one that ends soonest first."""
    rows = view.rows(_RENTALS)
    return Section[RentalRow](rows=[_rental(view, row) for row in rows], more=more_than(rows))


def _rental(view: View, row: Any) -> RentalRow:
    """A rental; what a run has done for it counts until another call renews it."""
    is_news = row.outcome == "renewed" or (
        row.outcome is not None and (row.renewed_at is None or row.renewed_at <= row.at)
    )
    prices = (row.kept_price, row.renewal_price, row.price)
    return RentalRow(
        order_id=row.order_id,
        phone=row.phone,
        service=row.service,
        product=row.product,
        duration=row.duration,
        expires_at=None if row.expires_at is None else datetime.fromtimestamp(row.expires_at, timezone.utc),
        expires_estimated=row.expires_estimated,
        renewals=row.renewals,
        price=next((Decimal(price) for price in prices if price is not None), None),
        last_sms_at=view.utc_or_none(row.last_sms_at),
        outcome=row.outcome if is_news else None,
        reason=row.reason if is_news else None,
        kept_by=Task.read(row.task if is_news else row.renewed_by),
    )


def orders_of(
    view: View, day: Sequence[Any], newest: Sequence[Any], open_calls: Iterable[OpenCall]
) -> Orders:
    """The purchases of the last 24 hours, the newest first.

    Args:
        view: of the account.
        day: its calls of the last 24 hours.
        newest: the numbers that it has bought last.
        open_calls: those whose outcome is unknown.
    """
    purchased = [row for row in day if row.kind == "order"]
    bought = [row for row in purchased if row.state == "bought"]
    total = sum(row.times for row in purchased)
    rows = [_open(view, call) for call in open_calls if call.kind == "order" and call.sent_at >= view.day_ago]
    rows += [_order(view, row) for row in newest[:SHOWN] if row.sent_at >= view.day_ago]
    rows = sorted(rows, key=lambda row: row.bought_at, reverse=True)[:SHOWN]
    return Orders(
        rows=rows,
        more=total - len(rows),
        bought=sum(row.times for row in bought),
        codes=sum(row.codes for row in bought),
        refunded=sum(row.times for row in bought if row.has_come_back),
        unknown=sum(row.times for row in purchased if row.state != "bought"),
    )


def _open(view: View, call: OpenCall) -> OrderRow:
    return OrderRow(
        order_id=None,
        phone=None,
        service=call.request.get("name"),
        price=None if call.charge is None else Decimal(call.charge),
        state="under_way" if call.under_way else "unknown",
        status=None,
        bought_at=view.utc(call.sent_at),
        seconds_to_code=None,
        task=Task.read(call.task),
    )


def _order(view: View, row: Any) -> OrderRow:
    return OrderRow(
        order_id=row.order_id,
        phone=row.phone,
        service=row.service or json.loads(row.request).get("name"),
        price=None if row.charge is None else Decimal(row.charge),
        state=_state(row),
        status=row.status,
        bought_at=view.utc(row.sent_at),
        seconds_to_code=None if row.seconds is None else round(row.seconds, 3),
        task=Task.read(row.task),
    )


def _state(row: Any) -> OrderState:
    if row.is_refunded:
        return "refunded"
    if row.seconds is not None:
        return "code_arrived"
    if was_cancelled(row.status):
        return "cancelled"
    if has_ended(row.status):
        return "ended"
    return "waiting" if row.is_awaited else "bought"


def delivery_of(newest: Sequence[Any]) -> DeliveryFigures:
    """Which numbers deliver, of those that were bought last."""
    found = figures(newest)
    return DeliveryFigures(
        rows=found[:SHOWN],
        more=max(len(found) - SHOWN, 0),
        days=DELIVERY_DAYS,
        numbers=sum(one.bought for one in found),
    )
