"""What was spent and bought: the wallet, the day's spending, rentals, and the orders of the last 24 hours."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from smsverify._messages.inbox import came_at
from smsverify._orders.records import is_awaited
from smsverify._overview.view import DAY, TOTAL, View
from smsverify._purchases.ledger import Ledger
from smsverify._purchases.wallet import Wallet
from smsverify._store.tables import kept, messages, orders, purchases
from smsverify.models import ENDED, RENTALS, has_ended, was_cancelled
from smsverify.overview import (
    SHOWN,
    OrderRow,
    Orders,
    OrderState,
    RentalRow,
    Section,
    Spend,
    Task,
    WalletSeen,
    WorkflowSpend,
)

_ITS_ORDER = sa.and_(orders.c.account == purchases.c.account, orders.c.order_id == purchases.c.order_id)
_IS_BACK = sa.and_(orders.c.refunded_at.is_not(None), orders.c.refund_missing_since.is_(None))


def spend_of(view: View, ledger: Ledger, budget: Decimal | None) -> Spend:
    """What was spent since midnight."""
    parts = sorted(
        ledger.spending.today_by_workflow(view.connection), key=lambda one: one.spent.amount, reverse=True
    )
    midnight = (view.now // DAY + 1) * DAY
    return Spend(
        amount=sum((part.spent.amount for part in parts), Decimal(0)),
        refunded=sum((part.refunded for part in parts), Decimal(0)),
        unpriced=sum(part.spent.unpriced for part in parts),
        budget=budget,
        resets_at=view.utc(midnight),
        workflows=Section[WorkflowSpend](
            rows=[WorkflowSpend(workflow=part.workflow, amount=part.spent.amount) for part in parts[:SHOWN]],
            more=max(len(parts) - SHOWN, 0),
        ),
    )


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
    wall = view.store.wall(view.connection)
    is_over = sa.func.lower(sa.func.trim(orders.c.status)).in_(sorted(ENDED - {"completed"}))
    goes_on = sa.or_(
        orders.c.expires_at.is_(None),
        orders.c.expires_at > wall,
        sa.and_(orders.c.expires_estimated, orders.c.expires_at > wall - DAY),
    )
    its_keeping = sa.and_(kept.c.account == orders.c.account, kept.c.order_id == orders.c.order_id)
    rows, more = view.first(
        sa.select(
            orders,
            kept.c.at,
            kept.c.outcome,
            kept.c.reason,
            kept.c.price.label("kept_price"),
            kept.c.task,
            TOTAL,
        )
        .outerjoin(kept, its_keeping)
        .where(
            orders.c.account == view.account,
            orders.c.product.in_(RENTALS),
            orders.c.key.is_not(None),
            sa.not_(is_over),
            goes_on,
        )
        .order_by(orders.c.expires_at.is_(None), orders.c.expires_at, orders.c.order_id)
    )
    order_ids = [row.order_id for row in rows]
    renewals, last_sms = _renewals(view, order_ids), _came(view, order_ids)
    return Section[RentalRow](
        rows=[_rental(view, row, renewals.get(row.order_id), last_sms.get(row.order_id)) for row in rows],
        more=more,
    )


def _rental(view: View, row: Any, renewal: Any, came: Any) -> RentalRow:
    """A rental; what a run has done for it counts until another call renews it."""
    is_news = row.outcome is not None and (renewal is None or renewal.resolved_at <= row.at)
    if row.outcome == "renewed":
        is_news = True
    prices = [row.kept_price, None if renewal is None else renewal.price, row.price]
    price = next((Decimal(price) for price in prices if price is not None), None)
    task = row.task if is_news else None if renewal is None else renewal.task
    return RentalRow(
        order_id=row.order_id,
        phone=row.phone,
        service=row.service,
        product=row.product,
        duration=row.duration,
        expires_at=None if row.expires_at is None else datetime.fromtimestamp(row.expires_at, timezone.utc),
        expires_estimated=row.expires_estimated,
        renewals=0 if renewal is None else renewal.times,
        price=price,
        last_sms_at=None if came is None else view.utc(came.last),
        outcome=row.outcome if is_news else None,
        reason=row.reason if is_news else None,
        kept_by=Task.read(task),
    )


def _renewals(view: View, order_ids: Collection[int]) -> dict[int, Any]:
    """Of each order that was renewed here: how often, and the last time."""
    if not order_ids:
        return {}
    is_made = sa.and_(
        purchases.c.account == view.account, purchases.c.kind == "renewal", purchases.c.state == "bought"
    )
    # An order has few calls, and its index finds them: as conditions, the rest would mislead to another one.
    last = (
        sa.select(
            sa.func.max(sa.case((is_made, purchases.c.id))).label("id"),
            sa.func.sum(sa.case((is_made, 1), else_=0)).label("times"),
        )
        .where(purchases.c.order_id.in_(order_ids))
        .group_by(purchases.c.order_id)
        .subquery()
    )
    rows = view.connection.execute(
        sa.select(
            purchases.c.order_id, purchases.c.price, purchases.c.task, purchases.c.resolved_at, last.c.times
        ).join(last, last.c.id == purchases.c.id)
    )
    return {row.order_id: row for row in rows}


def _came(view: View, order_ids: Collection[int]) -> dict[int, Any]:
    """Of each order that an SMS has come for: when the first and the last did, by the store's clock."""
    if not order_ids:
        return {}
    rows = view.connection.execute(
        sa.select(
            messages.c.order_id, sa.func.min(came_at).label("first"), sa.func.max(came_at).label("last")
        )
        .where(messages.c.account == view.account, messages.c.order_id.in_(order_ids))
        .group_by(messages.c.order_id)
    )
    return {row.order_id: row for row in rows}


def orders_of(view: View, unknown: Collection[tuple[str, str]]) -> Orders:
    """The purchases of the last 24 hours, the newest first.

    Args:
        view: of the account.
        unknown: namespace and key of each call whose answer does not come any more.
    """
    has_sms = (
        sa.select(messages.c.id)
        .where(messages.c.account == purchases.c.account, messages.c.order_id == purchases.c.order_id)
        .exists()
    )
    mine = (
        purchases.c.account == view.account,
        purchases.c.kind == "order",
        purchases.c.state.in_(("sent", "unknown", "bought")),
        purchases.c.sent_at >= view.now - DAY,
    )
    is_bought = purchases.c.state == "bought"
    counts = [
        sa.func.coalesce(sa.func.sum(sa.case((which, 1), else_=0)), 0)
        for which in (is_bought, sa.and_(is_bought, has_sms), sa.and_(is_bought, _IS_BACK))
    ]
    total, bought, codes, refunded = view.connection.execute(
        sa.select(sa.func.count(), *counts).select_from(purchases).outerjoin(orders, _ITS_ORDER).where(*mine)
    ).one()
    rows = view.connection.execute(
        sa.select(
            purchases.c.order_id,
            purchases.c.namespace,
            purchases.c.key,
            purchases.c.state,
            purchases.c.charge,
            purchases.c.request,
            purchases.c.sent_at,
            purchases.c.task,
            orders.c.phone,
            orders.c.service,
            orders.c.status,
            orders.c.first_seen_at,
            _IS_BACK.label("is_back"),
            is_awaited(view.now - view.alive).label("is_awaited"),
        )
        .outerjoin(orders, _ITS_ORDER)
        .where(*mine)
        .order_by(purchases.c.sent_at.desc())
        .limit(SHOWN)
    ).all()
    came = _came(view, [row.order_id for row in rows if row.order_id is not None])
    return Orders(
        rows=[_order(view, row, came.get(row.order_id), unknown) for row in rows],
        more=total - len(rows),
        bought=bought,
        codes=codes,
        refunded=refunded,
        unknown=total - bought,
    )


def _order(view: View, row: Any, came: Any, unknown: Collection[tuple[str, str]]) -> OrderRow:
    return OrderRow(
        order_id=row.order_id,
        phone=row.phone,
        service=row.service or json.loads(row.request).get("name"),
        price=None if row.charge is None else Decimal(row.charge),
        state=_state(row, came, unknown),
        status=row.status,
        bought_at=view.utc(row.sent_at),
        seconds_to_code=None if came is None else max(came.first - row.first_seen_at, 0.0),
        task=Task.read(row.task),
    )


def _state(row: Any, came: Any, unknown: Collection[tuple[str, str]]) -> OrderState:
    if row.state != "bought":
        return "unknown" if (row.namespace, row.key) in unknown else "under_way"
    if row.is_back:
        return "refunded"
    if came is not None:
        return "code_arrived"
    if was_cancelled(row.status or ""):
        return "cancelled"
    if has_ended(row.status or ""):
        return "ended"
    return "waiting" if row.is_awaited else "bought"
