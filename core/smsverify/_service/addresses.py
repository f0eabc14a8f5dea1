"""The addresses at which an API key was used with a store."""

from __future__ import annotations

from urllib.parse import urlsplit

import sqlalchemy as sa

from smsverify._store.store import Store
from smsverify._store.tables import addresses
from smsverify.settings import is_loopback
from smsverify.text import log_of, printable

log = log_of(__name__)

_noted: set[tuple[str, str, str]] = set()


def note_address(store: Store, key_id: str, base_url: str) -> None:
    """Records where an API key is used, once per process. Warns where the store knows it from another
    address.

    One key has one limit and one set of purchases, at every address. But a simulator has orders of its own,
    and must not share a store with the service.
    """
    place = one_place(base_url)
    noted = (str(store.url), key_id, place)
    if noted in _noted:
        return
    _noted.add(noted)
    try:
        with store.write() as connection:
            insert = store.insert(addresses).values(key_id=key_id, address=place)
            connection.execute(insert.on_conflict_do_nothing())
            known = sa.select(addresses.c.address).where(addresses.c.key_id == key_id)
            others = sorted(set(connection.execute(known).scalars()) - {place})
    except BaseException:
        _noted.discard(noted)
        raise
    if others:
        log.warning(
            "This API key is used at %s, and the store knows it from %s too. Both share one rate limit and "
            "the same orders, purchases and messages. If one of them is a simulator, give it another store",
            place,
            printable(", ".join(others)),
        )


def one_place(base_url: str) -> str:
    """An address, with one name for this machine, which has several."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if not is_loopback(host):
        return base_url
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://localhost{port}{parts.path}"
