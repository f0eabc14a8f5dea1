"""An older state in the place of a store's present one, as a backup or a late replica brings it."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from rigs.purchases import make_again
from rigs.rooms import store_of
from smsverify._store.tables import metadata, schema
from smsverify.hook import SmsVerifyHook


def remember(url: str) -> Callable[[], None]:
    """What puts the store back to how it is now, while it is in use."""
    tables = [table for table in metadata.sorted_tables if table is not schema]
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        kept = {table: connection.execute(sa.select(table)).mappings().all() for table in tables}

    def put_back() -> None:
        with engine.begin() as connection:
            for table, rows in kept.items():
                connection.execute(sa.delete(table))
                if rows:
                    connection.execute(sa.insert(table), [dict(row) for row in rows])

    return put_back


def as_another_process(hook: SmsVerifyHook) -> SmsVerifyHook:
    """The same hook in a process that began after an older state was put back, and knows nothing of that."""
    store_of(hook)._numbers.clear()
    return make_again(hook)
