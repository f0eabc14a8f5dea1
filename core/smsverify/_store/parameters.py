"""Parameters and constants of statements that are made once, when their module is loaded, and are about one
account.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from smsverify._store.store import Store

ACCOUNT: sa.BindParameter[str] = sa.bindparam("account", type_=sa.Text)
NOW: sa.BindParameter[float] = sa.bindparam("now", type_=sa.Double)
WALL: sa.BindParameter[float] = sa.bindparam("wall", type_=sa.Double)
ALIVE_SINCE: sa.BindParameter[float] = sa.bindparam("alive_since", type_=sa.Double)


def constants(texts: Iterable[str]) -> list[sa.ColumnElement[str]]:
    """Texts for an `in_`, as a part of its statement: parameters would be put into that anew at each call."""
    return [sa.literal_column(f"'{text}'", sa.Text) for text in sorted(texts)]


def values_of(store: Store, account: str, now: float, alive: float) -> dict[str, Any]:
    """The values of all of these.

    Args:
        store: where the statements are sent to.
        account: whose rows they are about.
        now: seconds by the store's clock.
        alive: seconds for which one heartbeat counts.
    """
    return {"account": account, "now": now, "wall": store.as_wall(now), "alive_since": now - alive}
