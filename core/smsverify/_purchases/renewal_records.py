"""The renewals on record: how often an order was renewed, and whether its user knows of the last renewal."""

from __future__ import annotations

import sqlalchemy as sa

from smsverify._orders.records import Records
from smsverify._purchases.calls import renewal_of
from smsverify._store.store import Store
from smsverify._store.tables import RENEWAL, purchases
from smsverify.models import Order


class RenewalRecords:
    """The renewals of one account that were carried out.

    A renewal is *unclaimed* from the moment that it is on record as made until the caller that asked for it
    has its answer. Until then, the next caller gets it instead of paying a second time.

    Args:
        store: where they are.
        records: the account's orders.
        account: whose they are.
    """

    def __init__(self, store: Store, records: Records, account: str) -> None:
        self._store = store
        self._records = records
        self._account = account

    def count(self, order_id: int) -> int:
        """How often an order was renewed here."""
        with self._store.read() as connection:
            return self.count_of(connection, renewal_of(order_id))

    def count_of(self, connection: sa.Connection, fingerprint: str) -> int:
        """The same, in a transaction, by what a renewal's key stands for."""
        count = sa.select(sa.func.count()).where(self._made(fingerprint))
        return connection.execute(count).scalar_one()

    def note_one_more(self, connection: sa.Connection, order_id: int) -> None:
        """Notes that a rental was renewed once more, where its status does not show its end."""
        self._records.extend(connection, order_id, self.count_of(connection, renewal_of(order_id)))

    def take_unclaimed(self, order_id: int) -> Order | None:
        """An order whose last renewal is unclaimed, which it is not any more after this; otherwise `None`."""
        with self._store.read() as connection:
            rows = connection.execute(sa.select(purchases).where(self._made(renewal_of(order_id)))).all()
        row = max(rows, key=lambda row: (row.resolved_number or 0, row.id), default=None)
        if row is None or not row.unclaimed or not self.claim(row.id):
            return None
        return self._records.get(order_id)

    def claim_all(self, order_id: int) -> None:
        """Notes that the caller which has renewed an order knows of it."""
        self._claim(self._made(renewal_of(order_id)))

    def claim(self, call_id: int) -> bool:
        """Notes that a caller has got a renewal. Returns whether it was unclaimed until now."""
        return self._claim(purchases.c.id == call_id)

    def _claim(self, which: sa.ColumnElement[bool]) -> bool:
        unclaimed = sa.update(purchases).where(which, purchases.c.unclaimed)
        with self._store.write() as connection:
            return bool(connection.execute(unclaimed.values(unclaimed=False)).rowcount)

    def _made(self, fingerprint: str) -> sa.ColumnElement[bool]:
        return sa.and_(
            purchases.c.account == self._account,
            purchases.c.kind == RENEWAL,
            purchases.c.fingerprint == fingerprint,
            purchases.c.state == "bought",
        )
