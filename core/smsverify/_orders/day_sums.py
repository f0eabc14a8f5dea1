"""The sums of days that are over: what changes a purchase that counts in one makes it anew."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from smsverify._runtime.clock import DAY
from smsverify._store.tables import days, purchases


def forget(connection: sa.Connection, account: str, which: sa.ColumnElement[bool]) -> None:
    """The sum of a day does not hold any more: what a purchase has cost, or what came back, has changed.

    Args:
        connection: of the transaction that changes it, and that has a number of the account's sequence: until
            it ends, nobody else makes a sum.
        account: whose purchase it is.
        which: picks its row, or its rows.
    """
    sent = sa.select(purchases.c.sent_at).where(purchases.c.account == account, which)
    first = sent.with_only_columns(sa.func.min(purchases.c.sent_at)).scalar_subquery()
    last = sent.with_only_columns(sa.func.max(purchases.c.sent_at)).scalar_subquery()
    connection.execute(
        sa.update(days)
        .where(days.c.account == account, days.c.begins_at > first - DAY, days.c.begins_at <= last)
        .values(spent=None)
    )


def forget_orders(connection: sa.Connection, account: str, order_ids: Iterable[int | None]) -> None:
    """The same for the purchases of some orders, and for the days between them."""
    these = purchases.c.order_id.in_([order_id for order_id in order_ids if order_id is not None])
    forget(connection, account, sa.and_(these, purchases.c.kind == "order", purchases.c.state == "bought"))
