"""Which paid call an order belongs to, over all accounts that share the store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from smsverify._orders.records import Records, Seen
from smsverify._store.store import Store
from smsverify._store.tables import purchases

COARSE = 3.0  # seconds by which a time that the service states may be off


class Owners:
    """The owners of one service's orders, as one account sees them. Its methods work inside a transaction.

    Args:
        store: where the paid calls are.
        records: the account's orders.
        account: whose view this is.
    """

    def __init__(self, store: Store, records: Records, account: str) -> None:
        self._store = store
        self._records = records
        self._account = account

    def lock(self, connection: sa.Connection, *, even_older: bool = False) -> None:
        """Lets one transaction at a time decide whose an order is, over all accounts; see `Store.lock`.

        Where the account's own lock is needed too, that one comes first.
        """
        self._store.lock(connection, f"smsverify owners {self._records.address}", even_older=even_older)

    def unowned(self, connection: sa.Connection, since: int) -> list[Seen]:
        """The orders that were not known before a number of the sequence, and that have no owner.

        Two accounts in one store may be two names of one wallet: an order that one of them has bought is free
        for no other.
        """
        seen = self._records.unowned(connection, since)
        elsewhere = self._owned_elsewhere(connection, [one.order.order_id for one in seen])
        return [one for one in seen if one.order.order_id not in elsewhere]

    def key_of(self, connection: sa.Connection, order_id: int) -> str | None:
        """The key that an order belongs to; `None` where it belongs to none."""
        buyer = self.other_buyer(connection, order_id)
        elsewhere = self._owned_elsewhere(connection, [order_id])
        return buyer or next(iter(elsewhere.values()), None)

    def other_buyer(self, connection: sa.Connection, order_id: int, *, call_id: int = 0) -> str | None:
        """The key of the account's call, other than `call_id`, that has bought an order; `None` for none."""
        others = sa.and_(purchases.c.account == self._account, purchases.c.id != call_id)
        return next((buyer.key for buyer in self._buyers(connection, [order_id], others)), None)

    def why_impossible(self, connection: sa.Connection, call: Any, order_id: int) -> str | None:
        """Why an order cannot be what a call of the account has bought; `None` where it can."""
        buyer = self.other_buyer(connection, order_id, call_id=call.id)
        if buyer is not None:
            return f"belongs to {buyer!r}"
        number = self._records.number_of(connection, order_id)
        was_there = number is not None and number < (call.sent_number or 0)
        return "was there before it was sent" if was_there else None

    def service_of(self, order_id: int) -> str | None:
        """What an order was bought as: the service's id in its catalogue, its name where it goes by name."""
        with self._store.read() as connection:
            request = connection.execute(
                sa.select(purchases.c.request)
                .where(
                    purchases.c.account == self._account,
                    purchases.c.kind == "order",
                    purchases.c.state == "bought",
                    purchases.c.order_id == order_id,
                )
                .limit(1)
            ).scalar()
        return None if request is None else str(json.loads(request)["service"])

    def _owned_elsewhere(self, connection: sa.Connection, order_ids: Sequence[int]) -> dict[int, str]:
        """The keys of other accounts that some of these orders belong to."""
        others = sa.and_(purchases.c.account != self._account, purchases.c.address == self._records.address)
        return {
            buyer.order_id: buyer.key
            for buyer in self._buyers(connection, order_ids, others)
            if self._may_have_made(buyer, self._records.made_at(connection, buyer.order_id))
        }

    def _may_have_made(self, call: Any, made_at: float | None) -> bool:
        """Whether an order may be that of a call with the same id: a service may begin anew with its ids."""
        return made_at is None or call.sent_at - COARSE <= made_at <= call.sent_at + call.lease + COARSE

    def _buyers(
        self, connection: sa.Connection, order_ids: Sequence[int], whose: sa.ColumnElement[bool]
    ) -> Sequence[Any]:
        """The calls that have bought some of these orders."""
        is_bought = sa.and_(purchases.c.kind == "order", purchases.c.state == "bought")
        these = purchases.c.order_id.in_(order_ids)
        return connection.execute(sa.select(purchases).where(whose, is_bought, these)).all()
