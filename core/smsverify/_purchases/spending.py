"""What was spent, and what may still be spent: budgets for the day and the run, for all who share a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from smsverify._input.amounts import exactly
from smsverify._orders.records import IS_REFUNDED
from smsverify._runtime.clock import DAY
from smsverify._runtime.tasks import Task
from smsverify._store.store import Store
from smsverify._store.tables import is_order, orders, purchases
from smsverify.errors import PriceLimitError, SpendingLimitError
from smsverify.text import amount

FLOAT_TOLERANCE = 1e-9  # USD by which floats may be off

# A call counts from the moment that it may leave, until it is known to have cost nothing.
MAY_HAVE_COST = ("sent", "unknown", "bought")

_paid, _listed, _limit = (
    sa.cast(column, sa.Double) for column in (purchases.c.charge, purchases.c.price, purchases.c.max_price)
)
# Amounts are text, which only Python compares exactly: this leaves it the few that may be too much. Most are
# alike, which is seen without reading them as numbers.
MAY_BE_TOO_MUCH = sa.and_(
    purchases.c.state == "bought",
    purchases.c.charge.is_not(None),
    sa.or_(
        sa.and_(purchases.c.charge != purchases.c.price, _paid > _listed + FLOAT_TOLERANCE),
        sa.and_(purchases.c.charge != purchases.c.max_price, _paid > _limit + FLOAT_TOLERANCE),
    ),
)

_ITS_ORDER = is_order(purchases.c.account, purchases.c.order_id)
# Of a paid call; where it has no order this is false, and not unknown.
HAS_COME_BACK = sa.and_(purchases.c.kind == "order", IS_REFUNDED)


@dataclass(frozen=True)
class Caps:
    """What may be spent, in USD; `None` for any amount.

    Attributes:
        day: by the account in a day (UTC), a setting.
        run: by the account in one run.
        run_name: names the run.
        task: makes the call, for people.
        price: for this one call.
    """

    day: Decimal | None = None
    run: Decimal | None = None
    run_name: str | None = None
    task: Task | None = None
    price: Decimal | None = None

    @property
    def is_set(self) -> bool:
        """Whether there is one, so that the price matters."""
        return any(cap is not None for cap in (self.day, self.run, self.price))

    def as_row(self) -> dict[str, str | None]:
        """What is kept of it with a call."""
        amounts = {"max_price": self.price, "daily_budget": self.day, "run_budget": self.run}
        row = {name: None if amount is None else str(amount) for name, amount in amounts.items()}
        made_by: dict[str, str | None] = {"workflow": None, "task": None}
        if self.task is not None:
            made_by = {
                "workflow": self.task.workflow,
                "task": self.task.model_dump_json(),
            }
        return {**row, **made_by, "run": self.run_name}


@dataclass(frozen=True)
class Spent:
    """What was spent, or may have been, less refunds.

    Attributes:
        amount: USD, of the calls whose price is known.
        unpriced: how many calls have no known price.
    """

    amount: Decimal
    unpriced: int


@dataclass(frozen=True)
class SpentBy:
    """What one Dag or flow has spent.

    Attributes:
        workflow: its name; `None` for programs of their own.
        spent: what was spent.
        refunded: USD that came back.
    """

    workflow: str | None
    spent: Spent
    refunded: Decimal


@dataclass(frozen=True)
class Overcharge:
    """An order that cost more than was allowed.

    Attributes:
        order_id: the order.
        allowed: what was allowed, by which setting.
        task: has bought it; `None` for a program of its own.
    """

    order_id: int
    allowed: str
    task: Task | None


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

    def overcharged(self, connection: sa.Connection, since: float) -> list[Overcharge]:
        """The orders that cost more than was allowed, the earliest first.

        An order cost too much where its charge is above its `max_price`, or above both the price in the list
        and what a budget has room for.

        Args:
            connection: of a transaction.
            since: purchases that were sent before are left out; by the store's clock.
        """
        rows = connection.execute(
            sa.select(
                purchases.c.order_id,
                purchases.c.charge,
                purchases.c.price,
                purchases.c.max_price,
                purchases.c.daily_budget,
                purchases.c.run_budget,
                purchases.c.run,
                purchases.c.task,
            )
            .where(
                purchases.c.account == self._account,
                purchases.c.sent_at >= since,
                MAY_BE_TOO_MUCH,
            )
            .order_by(purchases.c.id)
        ).all()
        spent_today = self.today(connection).amount if rows else Decimal(0)
        found = []
        for row in rows:
            charge = Decimal(row.charge)
            if row.max_price is not None and charge > Decimal(row.max_price):
                allowed = f"max_price={row.max_price}"
            elif row.price is None or charge <= Decimal(row.price):
                continue
            elif row.daily_budget is not None and spent_today > Decimal(row.daily_budget):
                allowed = f"daily_budget={row.daily_budget} has room for"
            elif (
                row.run_budget is not None
                and row.run
                and self._spent(connection, None, run=row.run).amount > Decimal(row.run_budget)
            ):
                allowed = f"run_budget={row.run_budget} has room for"
            else:
                continue
            found.append(Overcharge(row.order_id, allowed, Task.read(row.task)))
        return found

    @exactly
    def between(self, connection: sa.Connection, since: float, until: float | None) -> tuple[Spent, Decimal]:
        """What was spent in a period by the store's clock, and the USD that came back of what it bought."""
        period = [purchases.c.sent_at >= since]
        if until is not None:
            period.append(purchases.c.sent_at < until)
        rows = connection.execute(
            sa.select(
                purchases.c.charge,
                orders.c.price,
                HAS_COME_BACK.label("has_come_back"),
                sa.func.count().label("times"),
            )
            .outerjoin(orders, _ITS_ORDER)
            .where(purchases.c.account == self._account, purchases.c.state.in_(MAY_HAVE_COST), *period)
            .group_by(purchases.c.charge, orders.c.price, HAS_COME_BACK)
        ).all()
        back = [Decimal(row.price) * row.times for row in rows if row.has_come_back and row.price is not None]
        return _sum_of([row for row in rows if not row.has_come_back]), sum(back, Decimal(0))

    @exactly
    def refuse_beyond(
        self, connection: sa.Connection, caps: Caps, *, key: str, charge: Decimal | None, call_id: int | None
    ) -> None:
        """Raises where a call would pass a cap; under the account's lock, so that two cannot both fit.

        Args:
            connection: of the transaction that holds the lock.
            caps: what may be spent.
            key: of the call, for the error.
            charge: USD that the call may cost at the most; `None` where that is unknown.
            call_id: its row, which does not count against itself; `None` where it has none.

        Raises:
            PriceLimitError: the call's price is unknown.
            SpendingLimitError: a cap would be exceeded.
        """
        midnight = self._store.now(connection) // DAY * DAY
        for name, limit, since, run in (
            ("daily_budget", caps.day, midnight, None),
            ("run_budget", caps.run, None, caps.run_name),
        ):
            if limit is None:
                continue
            if charge is None:
                raise PriceLimitError(
                    f"the price of {key!r} is unknown, so {name}={amount(limit)} cannot be checked. "
                    "Nothing was sent"
                )
            spent = self._spent(connection, since, run=run, without=call_id)
            if spent.unpriced:
                raise SpendingLimitError(
                    f"the price of {spent.unpriced} earlier calls is unknown, so {name}={amount(limit)} "
                    "cannot be checked. Nothing was sent",
                    budget=name,
                )
            if spent.amount + charge > limit:
                raise SpendingLimitError(
                    f"{name}={amount(limit)} USD would be exceeded: {amount(spent.amount)} USD are spent, "
                    f"and this costs {amount(charge)}. Nothing was sent",
                    budget=name,
                )

    def _spent(
        self,
        connection: sa.Connection,
        since: float | None,
        *,
        run: str | None = None,
        without: int | None = None,
    ) -> Spent:
        counted = [
            purchases.c.account == self._account,
            purchases.c.state.in_(MAY_HAVE_COST),
            sa.not_(HAS_COME_BACK),
        ]
        if since is not None:
            counted.append(purchases.c.sent_at >= since)
        if run is not None:
            counted.append(purchases.c.run == run)
        if without is not None:
            counted.append(purchases.c.id != without)
        rows = connection.execute(
            sa.select(purchases.c.charge, sa.func.count().label("times"))
            .outerjoin(orders, _ITS_ORDER)
            .where(*counted)
            .group_by(purchases.c.charge)
        ).all()
        return _sum_of(rows)


def spent_by_workflow(rows: Sequence[Any]) -> Iterator[SpentBy]:
    """What Dags and flows have spent.

    Args:
        rows: so many calls (`times`) of a `workflow` at a `charge` each, and whether that has come back.
    """
    for workflow in dict.fromkeys(row.workflow for row in rows):
        mine = [row for row in rows if row.workflow == workflow]
        kept = [row for row in mine if not row.has_come_back]
        yield SpentBy(workflow, _sum_of(kept), _sum_of([row for row in mine if row.has_come_back]).amount)


@exactly
def _sum_of(rows: Sequence[Any]) -> Spent:
    """What so many calls at these charges come to."""
    priced = [Decimal(row.charge) * row.times for row in rows if row.charge is not None]
    return Spent(sum(priced, Decimal(0)), sum(row.times for row in rows if row.charge is None))
