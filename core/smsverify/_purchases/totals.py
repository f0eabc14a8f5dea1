"""What was spent since the store was made, in sums of whole days: so that it costs the same after years."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import sqlalchemy as sa

from smsverify._input.amounts import exactly
from smsverify._purchases.spending import Spending, Spent
from smsverify._runtime.clock import DAY
from smsverify._store import sequence
from smsverify._store.store import Store
from smsverify._store.tables import days, purchases

SETTLED = 3600.0  # seconds after its end until a day is summed up: no transaction of it is open any more


@dataclass(frozen=True)
class Total:
    """What was spent in all, and what came back.

    Attributes:
        spent: as in `Spent`.
        today: of that, since midnight (UTC).
        refunded: USD that came back of what was bought here.
    """

    spent: Spent
    today: Spent
    refunded: Decimal


class Totals:
    """The sums of one account.

    Args:
        store: where they are kept.
        account: whose they are.
        spending: what it has spent in a period.
    """

    def __init__(self, store: Store, account: str, spending: Spending) -> None:
        self._store = store
        self._account = account
        self._spending = spending

    @exactly
    def read(self) -> Total:
        """What was spent and what came back since the store was made. Sums up the days that need it."""
        mine = days.c.account == self._account
        with self._store.write() as connection:
            # Who changes a purchase takes a number too, so none is changed meanwhile.
            sequence.advance(self._store, connection, self._account)
            open_from = (self._store.now(connection) - SETTLED) // DAY * DAY
            stale = sa.select(days.c.begins_at).where(mine, days.c.spent.is_(None))
            for begins_at in [*connection.execute(stale).scalars(), *self._new(connection, open_from)]:
                self._sum_up(connection, begins_at)
            sums = connection.execute(sa.select(days).where(mine, days.c.begins_at < open_from)).all()
            spent, refunded = self._spending.between(connection, open_from, None)
            is_today = open_from == self._store.now(connection) // DAY * DAY
            today = spent if is_today else self._spending.today(connection)
        return Total(
            Spent(
                sum((Decimal(day.spent) for day in sums), spent.amount),
                sum((day.unpriced for day in sums), spent.unpriced),
            ),
            today,
            sum((Decimal(day.refunded) for day in sums), refunded),
        )

    def _new(self, connection: sa.Connection, open_from: float) -> list[float]:
        """The days that are over and have no sum yet."""
        newest = sa.select(sa.func.max(days.c.begins_at)).where(days.c.account == self._account)
        first = connection.execute(newest).scalar()
        if first is not None:
            begins_at = float(first) + DAY
        else:
            earliest = sa.select(sa.func.min(purchases.c.sent_at)).where(purchases.c.account == self._account)
            begins_at = float(connection.execute(earliest).scalar() or open_from) // DAY * DAY
        return [begins_at + DAY * number for number in range(round((open_from - begins_at) / DAY))]

    def _sum_up(self, connection: sa.Connection, begins_at: float) -> None:
        spent, refunded = self._spending.between(connection, begins_at, begins_at + DAY)
        values = {"spent": str(spent.amount), "unpriced": spent.unpriced, "refunded": str(refunded)}
        connection.execute(
            self._store.insert(days)
            .values(account=self._account, begins_at=begins_at, **values)
            .on_conflict_do_update(index_elements=list(days.primary_key), set_=values)
        )
