"""What becomes of old messages and callbacks: their texts are purged, and later their rows are pruned.

A message is recognised all the same when it is seen again.
"""

from __future__ import annotations

import sqlalchemy as sa

from smsverify._messages.same_sms import Sms
from smsverify._runtime.clock import DAY
from smsverify._store.tables import READABLE, callbacks, handled, is_order, messages, orders

REPEATED = 2 * DAY  # seconds for which a callback is remembered; the service repeats it for one day


def purge(connection: sa.Connection, account: str, now: float, retention: float) -> None:
    """Removes the texts that are older than `retention` seconds."""
    # The digests stay, so that an SMS that is seen again late is still recognised.
    is_past = sa.and_(messages.c.account == account, messages.c.came_at < now - retention, READABLE)
    connection.execute(sa.update(messages).where(is_past).values(otp=None, message=None))
    is_old = sa.and_(callbacks.c.account == account, callbacks.c.received_at < now - retention)
    connection.execute(sa.update(callbacks).where(is_old).values(otp=None, message=None, body=None))
    is_handled = sa.and_(handled.c.account == account, handled.c.since < now - retention)
    connection.execute(sa.delete(handled).where(is_handled))
    is_over = callbacks.c.received_at < now - max(retention, REPEATED)
    connection.execute(sa.delete(callbacks).where(callbacks.c.account == account, is_over))


def remember_pruned(connection: sa.Connection, account: str, which: sa.ColumnElement[bool]) -> None:
    """Keeps with their orders what these messages are recognised by, before they are removed.

    Orders are written by their ids, as a call that records a list does, so that no two wait for each other.
    """
    seen = sa.select(messages).where(which).order_by(messages.c.order_id, messages.c.id)
    for row in connection.execute(seen).all():
        digests = " ".join(filter(None, (row.shown_as, row.called_as)))
        its_order = is_order(account, row.order_id)
        connection.execute(sa.update(orders).where(its_order).values(pruned_sms=digests))


def was_pruned(connection: sa.Connection, account: str, seen: Sms) -> bool:
    """Whether this is the last of its order's messages that were pruned."""
    query = sa.select(orders.c.pruned_sms).where(is_order(account, seen.order_id))
    digests = (connection.execute(query).scalar() or "").split()
    return not {seen.shown_as, seen.called_as}.isdisjoint(digests)
