"""The attempts on record: which numbers were tried under a key, and how each attempt has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from smsverify._store.store import Store
from smsverify._store.tables import attempts, purchases
from smsverify.checks import OrderRequest

IsWanted = Callable[[sa.Connection, str], bool]

# What the purchase of an attempt is called in the ledger.
PURCHASE_KEY = (
    attempts.c.key + ":" + sa.cast(attempts.c.series, sa.Text) + "." + sa.cast(attempts.c.number, sa.Text)
)

_HAS_BOUGHT = sa.and_(
    purchases.c.account == attempts.c.account,
    purchases.c.namespace == attempts.c.namespace,
    purchases.c.key == PURCHASE_KEY,
    purchases.c.state == "bought",
)


class AttemptRecords:
    """The attempts under one key. What an attempt has bought, the ledger says, under the attempt's own key.

    Args:
        store: where they are kept.
        account, namespace, key: whose they are.
        is_wanted: whether a purchase's key has bought, or a caller is about to buy with it. Until the
            transaction ends, that stays so.
    """

    def __init__(self, store: Store, account: str, namespace: str, key: str, *, is_wanted: IsWanted) -> None:
        self._store = store
        self._is_wanted = is_wanted
        self._whose = {"account": account, "namespace": namespace, "key": key}
        self._mine = sa.and_(*(attempts.c[name] == value for name, value in self._whose.items()))

    def last_series(self) -> list[Any]:
        """The rows of the newest series, in their order, each with the order that it has bought."""
        newest = sa.select(sa.func.max(attempts.c.series)).where(self._mine).scalar_subquery()
        this = (
            sa.select(attempts, PURCHASE_KEY.label("purchase_key"), purchases.c.order_id)
            .outerjoin(purchases, _HAS_BOUGHT)
            .where(self._mine, attempts.c.series == newest)
        )
        with self._store.read() as connection:
            return list(connection.execute(this.order_by(attempts.c.number)).all())

    def has_bought(self, order_id: int) -> bool:
        """Whether an attempt of any series has bought this order."""
        this = sa.select(purchases.c.order_id).join(attempts, _HAS_BOUGHT)
        with self._store.read() as connection:
            found = connection.execute(this.where(self._mine, purchases.c.order_id == order_id))
            return found.first() is not None

    def begin(self, series: int, number: int, request: OrderRequest) -> None:
        """Puts an attempt on record, unless another process has done so."""
        values = {
            **self._whose,
            "series": series,
            "number": number,
            "fingerprint": request.fingerprint,
            "product": request.product,
            "service": None if request.service is None else str(request.service),
        }
        with self._store.write() as connection:
            connection.execute(self._store.insert(attempts).values(**values).on_conflict_do_nothing())

    def decide(self, row: Any, outcome: str, why: str) -> None:
        """Puts the end of an attempt on record; the first decision counts."""
        with self._store.write() as connection:
            self._decide(connection, row, outcome, why)

    def decide_unbought(self, row: Any, outcome: str, why: str) -> bool:
        """The same of an attempt that has bought nothing: from then on, its purchase may not be sent.

        Returns:
            `False`, and decides nothing, where it has bought, or another call is about to buy for it.
        """
        with self._store.write() as connection:
            if self._is_wanted(connection, row.purchase_key):
                return False
            self._decide(connection, row, outcome, why)
            return True

    def _decide(self, connection: sa.Connection, row: Any, outcome: str, why: str) -> None:
        this = sa.and_(
            self._mine,
            attempts.c.series == row.series,
            attempts.c.number == row.number,
            attempts.c.outcome.is_(None),
        )
        connection.execute(sa.update(attempts).where(this).values(outcome=outcome, why=why))


def base_of(store: Store, account: str, namespace: str, key: str) -> str:
    """The key of a series, where the key of one of its purchases is given, as an error names it."""
    with store.read() as connection:
        row = attempt_of(connection, account, namespace, key)
    return key if row is None else str(row.key)


def attempt_of(connection: sa.Connection, account: str, namespace: str, key: str) -> Any:
    """The attempt that buys with a key; `None` where that is no key of an attempt."""
    base, _, place = key.rpartition(":")
    series, _, number = place.partition(".")
    if not (base and series.isdecimal() and number.isdecimal()):
        return None
    this = sa.select(attempts).where(
        attempts.c.account == account,
        attempts.c.namespace == namespace,
        attempts.c.key == base,
        sa.literal(key) == PURCHASE_KEY,
    )
    return connection.execute(this).one_or_none()
