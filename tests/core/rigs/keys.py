"""Rows that a test of a store writes and reads: one for each key."""

from __future__ import annotations

import sqlalchemy as sa

from smsverify._store.store import Store
from smsverify._store.tables import rate_limits


def put(store: Store, key_id: str) -> None:
    with store.write() as connection:
        connection.execute(sa.insert(rate_limits).values(key_id=key_id))


def keys(store: Store) -> list[str]:
    with store.read() as connection:
        return list(
            connection.execute(sa.select(rate_limits.c.key_id).order_by(rate_limits.c.key_id)).scalars()
        )
