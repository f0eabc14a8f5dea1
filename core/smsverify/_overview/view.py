"""What each section of an overview is made with: one connection, and one moment for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa

from smsverify._store.store import Store
from smsverify.overview import SHOWN

DAY = 86_400.0


@dataclass(frozen=True)
class View:
    """A look at the records of one account.

    Attributes:
        store: where they are.
        connection: reads them.
        account: whose they are.
        now: seconds by the store's clock.
        alive: seconds for which a wait is alive after its last sign of life.
    """

    store: Store
    connection: sa.Connection
    account: str
    now: float
    alive: float

    def utc(self, moment: float) -> datetime:
        """When a moment of the store's clock was, by the calendar."""
        return datetime.fromtimestamp(self.store.as_wall(moment), timezone.utc)

    def utc_or_none(self, moment: float | None) -> datetime | None:
        """The same, where there is one."""
        return None if moment is None else self.utc(moment)

    def first(self, query: sa.Select[Any]) -> tuple[Sequence[Any], int]:
        """The first rows of a query, which counts all of them as `total`, and how many there are besides."""
        rows = self.connection.execute(query.limit(SHOWN)).all()
        return rows, (rows[0].total if rows else 0) - len(rows)


# How many rows a query has, whatever its limit.
TOTAL = sa.func.count().over().label("total")
