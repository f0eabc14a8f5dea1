"""Counts how paid calls end, for monitoring. A call counts when its new state is on record, once for each."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from typing import Any, Final

import sqlalchemy as sa

from smsverify._orders.records import Records
from smsverify._store.store import Store
from smsverify.metrics import (
    BOUGHT,
    MAYBE_RENEWED,
    NOT_RENEWED,
    REJECTED,
    RENEWED,
    SPENT,
    UNKNOWN,
    Counter,
    Meter,
)

_COUNTERS: Final[Mapping[tuple[str, str], Counter]] = {
    ("order", "bought"): BOUGHT,
    ("order", "rejected"): REJECTED,
    ("order", "unknown"): UNKNOWN,
    ("renewal", "bought"): RENEWED,
    ("renewal", "rejected"): NOT_RENEWED,
    ("renewal", "unknown"): MAYBE_RENEWED,
}


class Ends:
    """The ends of the paid calls of one account.

    Args:
        store: where the calls are.
        records: of the account's orders.
        meter: takes the figures.
    """

    def __init__(self, store: Store, records: Records, meter: Meter) -> None:
        self._store = store
        self._records = records
        self._meter = meter

    def note(
        self,
        connection: sa.Connection,
        state: str,
        *,
        kind: str,
        namespace: str,
        request: Mapping[str, Any],
        charge: str | None,
    ) -> None:
        """Counts a call that this transaction gives its state.

        Args:
            connection: of the transaction.
            state: `bought`, `rejected` or `unknown`.
            kind, namespace: of the call; `order` or `renewal`.
            request: what was sent.
            charge: USD that it has cost.
        """
        if not self._meter.is_on:
            return
        if kind == "order":
            product, service = request["product"], request["name"]
        else:
            order = self._records.row(connection, request["order_id"])
            product, service = order.product, order.service
        tags = {"product": product, "service": service, "namespace": namespace}
        self._store.after_commit(connection, partial(self._count, _COUNTERS[kind, state], charge, tags))

    def _count(self, counter: Counter, charge: str | None, tags: dict[str, str | None]) -> None:
        self._meter.count(counter, 1, **tags)
        if counter in (BOUGHT, RENEWED) and charge is not None:
            self._meter.count(SPENT, Decimal(charge), **tags)
