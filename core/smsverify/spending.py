"""What was spent, and what may still be: budgets for the day and for the run, over all who share a store."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import sqlalchemy as sa

from smsverify.errors import PriceLimitError, SpendingLimitError
from smsverify.store import Store, orders, purchases

DAY = 86_400.0

# A call counts from the moment that it may leave, until it is known to have cost nothing.
_MAY_HAVE_COST = ("sent", "unknown", "bought")


@dataclass(frozen=True)
class Caps:
    """What may be spent in all, in USD; `None` for any amount.

    Attributes:
        day: by the account in a day (UTC).
        run: by the account in one run.
        run_name: names the run.
    """

    day: Decimal | None = None
    run: Decimal | None = None
    run_name: str | None = None


@dataclass(frozen=True)
class Spent:
    """What was spent or may have been, refunds taken off.

    Attributes:
        amount: USD, of the calls whose price is known.
        unpriced: how many calls have no known price.
    """

    amount: Decimal
    unpriced: int


class Spending:
    """What one account has spent. Its methods work inside of a transaction.

    Args:
        store: where the paid calls are.
        account: whose they are.
    """

    def __init__(self, store: Store, account: str) -> None:
        self._store = store
        self._account = account

    def today(self, connection: sa.Connection) -> Spent:
        """What was spent since midnight (UTC)."""
        return self._spent(connection, self._store.now(connection) // DAY * DAY)

    def in_all(self, connection: sa.Connection) -> Spent:
        """What was spent since the store exists."""
        return self._spent(connection, 0.0)

    def refuse_beyond(
        self, connection: sa.Connection, caps: Caps, *, key: str, charge: Decimal | None, call_id: int | None
    ) -> None:
        """Raises where a call would pass a cap; under the account's lock, so that two can not both fit.

        Args:
            connection: of the transaction that holds the lock.
            caps: what may be spent.
            key: of the call, for the error.
            charge: USD that the call may cost at the most; `None` where nobody knows.
            call_id: its row, which does not count against itself; `None` where it has none.

        Raises:
            PriceLimitError: the call's price is unknown.
            SpendingLimitError: a cap would be passed.
        """
        midnight = self._store.now(connection) // DAY * DAY
        for name, limit, since, run in (
            ("daily_budget", caps.day, midnight, None),
            ("run_budget", caps.run, 0.0, caps.run_name),
        ):
            if limit is None:
                continue
            if charge is None:
                raise PriceLimitError(
                    f"the price of {key!r} is unknown, so {name}={limit} can not be kept: nothing was sent"
                )
            spent = self._spent(connection, since, run=run, without=call_id)
            if spent.unpriced:
                raise SpendingLimitError(
                    f"{name}={limit} can not be kept: the price of {spent.unpriced} earlier calls is "
                    "unknown; nothing was sent",
                    budget=name,
                )
            if spent.amount + charge > limit:
                raise SpendingLimitError(
                    f"{name}={limit} USD would be passed: {spent.amount} USD are spent, and this costs "
                    f"{charge}; nothing was sent",
                    budget=name,
                )

    def _spent(
        self, connection: sa.Connection, since: float, *, run: str | None = None, without: int | None = None
    ) -> Spent:
        its_order = sa.and_(
            orders.c.account == purchases.c.account, orders.c.order_id == purchases.c.order_id
        )
        is_refunded = sa.and_(purchases.c.kind == "order", orders.c.refunded_at.is_not(None))
        counted = [
            purchases.c.account == self._account,
            purchases.c.state.in_(_MAY_HAVE_COST),
            purchases.c.sent_at >= since,
            sa.not_(is_refunded),
        ]
        if run is not None:
            counted.append(purchases.c.run == run)
        if without is not None:
            counted.append(purchases.c.id != without)
        rows = connection.execute(
            sa.select(purchases.c.charge, sa.func.count().label("times"))
            .outerjoin(orders, its_order)
            .where(*counted)
            .group_by(purchases.c.charge)
        ).all()
        priced = [Decimal(row.charge) * row.times for row in rows if row.charge is not None]
        return Spent(sum(priced, Decimal(0)), sum(row.times for row in rows if row.charge is None))
