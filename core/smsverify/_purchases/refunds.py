"""Refunds that are on record and that the wallet does not show: that money cannot be spent.

Each reading of the wallet is compared with the reading before. If it holds less than the records explain, by
exactly the sum of some refunds since then, these refunds have not arrived. Their orders count as spent until
the wallet shows the money. They are named when the time that the wallet has to show it is over.

The list does not say whether a failed order was refunded. The first reading after its end may show it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

import sqlalchemy as sa

from smsverify._input.amounts import exactly
from smsverify._orders import day_sums
from smsverify._purchases.wallet import MOST_SUMS, ROUNDING, Movement, Reading, compare, movements, paid
from smsverify._store.store import Store
from smsverify._store.tables import orders, purchases
from smsverify.text import log_of

log = log_of(__name__)


class Refunds:
    """The refunds of one account.

    Args:
        store: where they are on record.
        account: whose they are.
        grace: seconds in which the wallet has to show a refund that the list shows.
        is_exclusive: whether all purchases on this account go through the store. Otherwise nothing is
            compared.
    """

    def __init__(self, store: Store, account: str, *, grace: float, is_exclusive: bool) -> None:
        self._store = store
        self._account = account
        self.grace = grace
        self._is_exclusive = is_exclusive

    @exactly
    def compare(self, connection: sa.Connection, first: Reading, then: Reading) -> None:
        """Notes which refunds a reading of the wallet lacks, and which it shows at last."""
        if not self._is_exclusive:
            return
        moved = [*movements(connection, self._account, first, then), *self._open(connection)]
        comparison = compare(first.amount, then.amount, moved)
        if comparison.fits:
            self._note_rolled_back(connection, first, then, moved)
            return
        came = [one for one in moved if one.what == "refund" and one.is_certain]
        missing = self._missing(connection)
        for expected in comparison.expected:
            if lost := _that_sum_to(expected - then.amount, came):
                self._mark(connection, lost, then.read_at)
                return
            if late := _that_sum_to(then.amount - expected, missing):
                self._mark(connection, late, None)
                return
        if comparison.is_short and (cut := _that_cover(comparison.expected[0] - then.amount, came)):
            self._mark(connection, cut, then.read_at)

    def settle(self, connection: sa.Connection, order_id: int) -> bool:
        """Records a person's word that a missing refund has come. Returns whether it was missing.

        Args:
            connection: of a transaction that decides on the account's paid calls, see `Ledger.lock`.
            order_id: the order that it is for.
        """
        missing = [one for one in self._missing(connection) if one.order_id == order_id]
        self._mark(connection, missing, None)
        return bool(missing)

    # -------------------------------------------------------------- inside

    def _open(self, connection: sa.Connection) -> list[Movement]:
        """What calls of unknown outcome may have taken: that is no missing refund."""
        rows = connection.execute(
            sa.select(purchases).where(
                purchases.c.account == self._account, purchases.c.state.in_(("sent", "unknown"))
            )
        )
        return [Movement("open", None, paid(row), is_certain=False) for row in rows]

    def _note_rolled_back(
        self, connection: sa.Connection, first: Reading, then: Reading, moved: Sequence[Movement]
    ) -> None:
        """Records which failed orders were refunded, where nothing else explains what the wallet holds."""
        failed = self._failed(connection, [one.order_id for one in moved if one.what == "refund"])
        back = [
            one for one in moved if one.what == "refund" and one.order_id in failed and one.amount is not None
        ]
        others = compare(first.amount, then.amount, [one for one in moved if one not in back])
        if others.fits:
            return
        for expected in others.expected:
            if came := _that_sum_to(then.amount - expected, back):
                ids = [one.order_id for one in came]
                these = sa.and_(orders.c.account == self._account, orders.c.order_id.in_(ids))
                connection.execute(sa.update(orders).where(these).values(refunded_at=then.read_at))
                day_sums.forget_orders(connection, self._account, ids)
                return

    def _failed(self, connection: sa.Connection, order_ids: Sequence[int | None]) -> set[int]:
        """Those of some orders that were bought here and have failed, and whose refund is not on record."""
        failed = sa.select(orders.c.order_id).where(
            orders.c.account == self._account,
            orders.c.order_id.in_(order_ids),
            orders.c.key.is_not(None),
            orders.c.status == "failed",
            orders.c.refunded_at.is_(None),
        )
        return set(connection.execute(failed).scalars())

    def _missing(self, connection: sa.Connection) -> list[Movement]:
        its_purchase = sa.and_(
            purchases.c.account == orders.c.account,
            purchases.c.order_id == orders.c.order_id,
            purchases.c.kind == "order",
            purchases.c.state == "bought",
        )
        rows = connection.execute(
            sa.select(orders.c.order_id, purchases.c.charge)
            .join(purchases, its_purchase)
            .where(self._is_missing(), purchases.c.charge.is_not(None))
            .order_by(orders.c.order_id)
        )
        return [Movement("refund", row.order_id, Decimal(row.charge), is_certain=True) for row in rows]

    def _is_missing(self) -> sa.ColumnElement[bool]:
        return sa.and_(orders.c.account == self._account, orders.c.refund_missing_since > 0)

    def _mark(self, connection: sa.Connection, refunds: Iterable[Movement], since: float | None) -> None:
        ids = [refund.order_id for refund in refunds]
        these = sa.and_(orders.c.account == self._account, orders.c.order_id.in_(ids))
        connection.execute(sa.update(orders).where(these).values(refund_missing_since=since))
        day_sums.forget_orders(connection, self._account, ids)
        for order_id in ids if since is not None else ():
            log.warning(
                "Order %d is listed as cancelled, but the wallet lacks its refund: it counts as spent",
                order_id,
            )


def _that_sum_to(amount: Decimal, refunds: Sequence[Movement]) -> list[Movement] | None:
    """Some refunds that come to an amount, the earliest of them; `None` where none do."""
    if amount <= ROUNDING:
        return None
    ways: dict[Decimal, list[Movement]] = {Decimal(0): []}
    for refund in refunds:
        for total, way in list(ways.items()):
            ways.setdefault(total + (refund.amount or 0), [*way, refund])
        if len(ways) > MOST_SUMS:
            return None
    fitting = [way for total, way in ways.items() if abs(total - amount) <= ROUNDING]
    return fitting[0] if fitting else None


def _that_cover(amount: Decimal, refunds: Sequence[Movement]) -> list[Movement]:
    """The fewest refunds, the earliest first, that came to an amount or more; none where all are less."""
    total, found = Decimal(0), []
    for refund in refunds:
        if total >= amount - ROUNDING:
            break
        total += refund.amount or 0
        found.append(refund)
    return found if total >= amount - ROUNDING else []
