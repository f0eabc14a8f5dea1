"""Counts how paid calls end, for monitoring. A call counts when its new state is on record, once for each."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from typing import Any, Final

import sqlalchemy as sa

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
        meter: takes the figures.
    """

    def __init__(self, store: Store, meter: Meter) -> None:
        self._store = store
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
        what = {"product": request.get("product"), "service": request.get("name"), "namespace": namespace}
        self._store.after_commit(connection, partial(self._count, _COUNTERS[kind, state], charge, what))

    def _count(self, counter: Counter, charge: str | None, what: dict[str, str | None]) -> None:
        self._meter.count(counter, 1, **what)
        if counter in (BOUGHT, RENEWED) and charge is not None:
            self._meter.count(SPENT, Decimal(charge), **what)
