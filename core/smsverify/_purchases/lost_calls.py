"""A paid call whose record was lost after it had left: an older state of the store was put back meanwhile.

A replica that takes over may lack what was written last, and so does a backup. The process that has sent the
call knows all that was on record until it has the outcome, so it puts that back. Otherwise the key would buy
a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from smsverify._purchases.calls import Intent
from smsverify._purchases.spending import MAY_HAVE_COST
from smsverify._store.store import Store
from smsverify._store.tables import balances, orders, purchases
from smsverify.text import log_of

log = log_of(__name__)


class LostCalls:
    """The paid calls of one account that this process has sent. Works inside a transaction.

    Args:
        store: where they are on record.
        account: whose they are.
    """

    def __init__(self, store: Store, account: str) -> None:
        self._store = store
        self._account = account

    def find(self, connection: sa.Connection, intent: Intent) -> Any:
        """The row of a call that has left; put back where it is gone, or where it is planned again."""
        row = self._row(connection, intent)
        if row is not None and row.state != "planned":
            return row
        values = {**intent.row, "sent_number": self._number(connection, intent)}
        planned = row or self._make_room(connection, values)
        if planned is None:
            connection.execute(sa.insert(purchases).values(**values))
        else:
            connection.execute(sa.update(purchases).where(purchases.c.id == planned.id).values(**values))
        log.error(
            "An older state of the store %s was put back while %s was sent: its record was lost and is there "
            "again. Run `smsverify reconcile` for what else was lost",
            self._store.place,
            intent.key,
        )
        return self._row(connection, intent)

    # -------------------------------------------------------------- inside

    def _row(self, connection: sa.Connection, intent: Intent) -> Any:
        # One that was put back has another id, and its old id may be another call's.
        for which in (purchases.c.id == intent.id, self._is_of_key(intent.row)):
            this = sa.select(purchases).where(which, purchases.c.attempt == intent.attempt)
            if (row := connection.execute(this).one_or_none()) is not None:
                return row
        return None

    def _is_of_key(self, row: Mapping[str, Any]) -> sa.ColumnElement[bool]:
        return sa.and_(*(purchases.c[name] == row[name] for name in ("account", "namespace", "key")))

    def _make_room(self, connection: sa.Connection, values: dict[str, Any]) -> Any:
        """Fits a call into what its key has on record by now: its `generation` may become another.

        Returns:
            the row of another caller that has sent nothing yet. It becomes this call's, and that caller finds
            it before it sends.
        """
        newest = sa.select(purchases).where(self._is_of_key(values)).order_by(purchases.c.generation.desc())
        last = connection.execute(newest.limit(1)).one_or_none()
        if last is None or last.generation < values["generation"]:
            return None
        values["generation"] = last.generation
        if last.state == "planned":
            return last
        if last.state in MAY_HAVE_COST:
            # The key stands for that one, which was sent after this one.
            this = sa.update(purchases).where(purchases.c.id == last.id)
            connection.execute(this.values(generation=last.generation + 1))
        else:
            values["generation"] += 1
        return None

    def _number(self, connection: sa.Connection, intent: Intent) -> int:
        """The number of a call in the account's sequence, after all that was known when it was sent. Its own
        one may have been given again since, to what is known now.
        """
        sent_at = intent.row["sent_at"]
        known = (
            (orders, orders.c.seen_number, orders.c.first_seen_at),
            (balances, balances.c.number, balances.c.read_at),
            (purchases, purchases.c.resolved_number, purchases.c.resolved_at),
        )
        numbers = (
            sa.select(sa.func.max(number)).where(table.c.account == self._account, at < sent_at)
            for table, number, at in known
        )
        return 1 + max(connection.execute(number).scalar() or 0 for number in numbers)
