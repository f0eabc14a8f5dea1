"""Messages that have come, whoever learnt of them first: one way in, one way out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa

from smsverify.models import Message
from smsverify.store import Store, messages


class Inbox:
    """The messages of an account.

    Args:
        store: where they are kept.
        account: whose they are.
        retention: seconds after which their text is purged.
    """

    def __init__(self, store: Store, account: str, *, retention: float) -> None:
        self._store = store
        self._account = account
        self._retention = retention

    def put(self, message: Message) -> bool:
        """Stores a message; `False` where it is there already, by its content."""
        with self._store.write() as connection:
            now = self._store.now(connection)
            self._purge(connection, before=now - self._retention)
            insert = self._store.insert(messages).values(
                account=self._account,
                order_id=message.order_id,
                digest=_digest(message),
                otp=message.otp,
                message=message.message,
                sender=message.sender,
                phone=message.phone,
                received_at=now,
            )
            return bool(connection.execute(insert.on_conflict_do_nothing()).rowcount)

    def newest(self, order_ids: Iterable[int]) -> dict[int, Message]:
        """The newest message of each of these orders, where there is one that has not been purged."""
        newest_ids = (
            sa.select(sa.func.max(messages.c.id))
            .where(
                messages.c.account == self._account,
                messages.c.order_id.in_(list(order_ids)),
                sa.or_(messages.c.otp.is_not(None), messages.c.message.is_not(None)),
            )
            .group_by(messages.c.order_id)
        )
        with self._store.read() as connection:
            rows = connection.execute(sa.select(messages).where(messages.c.id.in_(newest_ids))).all()
        return {row.order_id: _message(row) for row in rows}

    def _purge(self, connection: sa.Connection, before: float) -> None:
        # The digest stays, so that a callback that is repeated late is still recognised.
        connection.execute(
            sa.update(messages)
            .where(
                messages.c.account == self._account,
                messages.c.received_at < before,
                sa.or_(messages.c.otp.is_not(None), messages.c.message.is_not(None)),
            )
            .values(otp=None, message=None)
        )


def _digest(message: Message) -> str:
    content = (
        str(message.order_id),
        message.message or "",
        "" if message.message else message.otp or "",
    )
    return hashlib.sha256("\0".join(content).encode()).hexdigest()


def _message(row: Any) -> Message:
    return Message(
        order_id=row.order_id,
        otp=row.otp,
        message=row.message,
        sender=row.sender,
        phone=row.phone,
        received_at=datetime.fromtimestamp(row.received_at, timezone.utc),
    )
