"""The accounts that an API key has paid as: it should be one, since the key is one wallet."""

from __future__ import annotations

import sqlalchemy as sa

from smsverify._store.store import Store
from smsverify._store.tables import payers
from smsverify.text import log_of, printable

log = log_of(__name__)

_noted: set[tuple[str, str, str]] = set()


def note_account(store: Store, key_id: str, account: str) -> None:
    """Records as which account an API key pays, once per process. Warns where it has paid as another one.

    Under each name, purchases and budgets count anew: what one of them has bought, the other buys again.
    """
    noted = (str(store.url), key_id, account)
    if noted in _noted:
        return
    with store.write() as connection:
        insert = store.insert(payers).values(key_id=key_id, account=account)
        connection.execute(insert.on_conflict_do_nothing())
        known = sa.select(payers.c.account).where(payers.c.key_id == key_id)
        others = sorted(set(connection.execute(known).scalars()) - {account})
    _noted.add(noted)
    if others:
        log.warning(
            "This API key pays as the account %r, and has paid in this store as %s. Each name has its own "
            "purchases, budgets and messages, so the same purchase key may pay once under each name. To keep "
            "the earlier records, set account to the earlier name",
            account,
            printable(", ".join(map(repr, others))),
        )
