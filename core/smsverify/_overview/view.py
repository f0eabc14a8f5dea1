"""What each section of an overview is made with: one connection, and one moment for all of them.

The sections' statements are made once, when their modules are loaded: making one takes longer than most of
them take the database. Their parameters are those of `View.rows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from smsverify._runtime.clock import DAY
from smsverify._store.parameters import values_of
from smsverify._store.rows import named
from smsverify._store.store import Store
from smsverify.overview import SHOWN

MIDNIGHT: sa.BindParameter[float] = sa.bindparam("midnight", type_=sa.Double)
DAY_AGO: sa.BindParameter[float] = sa.bindparam("day_ago", type_=sa.Double)
ALIVE: sa.BindParameter[float] = sa.bindparam("alive", type_=sa.Double)

# How many rows a query has, whatever its limit.
TOTAL = sa.func.count().over().label("total")


@dataclass(frozen=True)
class View:
    """A look at the records of one account.

    Attributes:
        store: where they are.
        connection: reads them.
        account: whose they are.
        now: seconds by the store's clock.
        alive: seconds for which a wait is alive after its last heartbeat.
    """

    store: Store
    connection: sa.Connection
    account: str
    now: float
    alive: float

    @property
    def midnight(self) -> float:
        """The last one (UTC)."""
        return self.now // DAY * DAY

    @property
    def day_ago(self) -> float:
        """24 hours before now."""
        return self.now - DAY

    def utc(self, moment: float) -> datetime:
        """When a moment of the store's clock was, by the calendar."""
        return self.store.utc(moment)

    def utc_or_none(self, moment: float | None) -> datetime | None:
        """The same, where there is one."""
        return None if moment is None else self.utc(moment)

    def rows(self, statement: sa.Select[Any]) -> Sequence[Any]:
        """What a statement finds."""
        values = {
            **values_of(self.store, self.account, self.now, self.alive),
            "midnight": self.midnight,
            "day_ago": self.day_ago,
            "alive": self.alive,
        }
        return named(self.connection.execute(statement, values))


def first(query: sa.Select[Any]) -> sa.Subquery:
    """The first rows of a query, to be joined with others; `more_than` counts the rest by their `total`."""
    return query.add_columns(TOTAL).limit(SHOWN).subquery()


def more_than(rows: Sequence[Any]) -> int:
    """How many rows there are besides."""
    return rows[0].total - len(rows) if rows else 0
