"""Messages that have come, whoever learnt of them first: one way in, one way out.

An SMS can be learnt of in two ways, from its order's status and from a callback, and is one message all the
same. A callback is only believed where nobody but the service can have sent it and nothing has to be guessed:
it came by the secret URL, names an order of the account, carries that order's phone number, and its text
holds a code that can be read with certainty. Any other is a hint that there may be something to read in the
order's status, as long as somebody waits for it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa

from smsverify.filters import MessageFilter
from smsverify.models import RENTALS, Message, has_ended, is_same_phone, phone_digits
from smsverify.otp import extract_otp
from smsverify.store import Store, callbacks, handled, looks, messages, orders, polls

log = logging.getLogger(__name__)

DAY = 86_400.0
REPEATED = 2 * DAY  # seconds for which a callback is remembered; the service repeats it for one day
LONGEST_SMS = 4000  # characters; what is longer is no SMS, and nothing is read out of it
UNSIGNED = 1000  # callbacks that came without a secret and are kept, so that a stranger fills no disk
PURGE_PAUSE = 60.0  # seconds between two purges, at the most

# What has become of a callback.
OPEN = "open"  # its order is not known yet
TOLD = "told"  # its message is in the inbox
HINT = "hint"  # the order's status is to be read
KEPT = "kept"  # nothing follows from it


@dataclass(frozen=True)
class Callback:
    """A callback as it came.

    Attributes:
        by_secret: whether it came by the secret URL.
        kind: `sms`, `wallet`, or `unknown`.
        is_documented: whether it has the documented shape.
        order_id, phone, sender, message: as far as they can be read.
        body: of the request, where that says more.
    """

    by_secret: bool
    kind: str
    is_documented: bool = False
    order_id: int | None = None
    phone: str | None = None
    sender: str | None = None
    message: str | None = None
    body: str | None = None


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
        self._next_purge = 0.0

    # -------------------------------------------------------------- the ways in

    def put(self, message: Message) -> bool:
        """Stores what an order's status shows; `False` where the message is there already."""
        with self._store.write() as connection:
            now = self._begin(connection)
            shown_as = _digest(message)
            # The same code is the same SMS where one of the two has no text, and where a callback brought it.
            may_be_this = sa.true() if message.message is None else messages.c.message.is_(None)
            is_this = _has_code(message.otp) & sa.or_(messages.c.shown_as.is_(None), may_be_this)
            known = self._one_of(connection, message, sa.or_(_has_text(message), is_this))
            if known is not None:
                self._complete(connection, known, message, shown_as=shown_as)
                if known.message is None and message.message is not None:
                    # It was shown without its text before, and is to be recognised by it from now on.
                    this = messages.c.id == known.id
                    connection.execute(sa.update(messages).where(this).values(shown_as=shown_as))
                return False
            called = self._called(connection, message)
            self._insert(
                connection,
                message.model_copy(update={"sender": called.sender}) if called else message,
                digest=shown_as,
                shown_as=shown_as,
                called_at=called.received_at if called else None,
                received_at=now,
            )
            # Whatever was hinted at has been read now.
            connection.execute(sa.update(looks).where(self._look(message.order_id)).values(hinted_at=None))
            return True

    def take(self, callback: Callback) -> str | None:
        """Stores a callback, and the message that it tells where it is believed.

        Returns:
            what has become of it: `TOLD`, `HINT`, `OPEN` or `KEPT`; `None` where it is a repeat.

        Raises:
            StoreError: it is not stored.
        """
        otp, digest = _certain_code(callback.message), _digest_of_callback(callback)
        with self._store.write() as connection:
            now = self._begin(connection)
            insert = self._store.insert(callbacks).values(
                account=self._account,
                digest=digest,
                by_secret=callback.by_secret,
                kind=callback.kind,
                is_documented=callback.is_documented,
                order_id=callback.order_id,
                phone=callback.phone,
                sender=callback.sender,
                otp=otp,
                message=callback.message,
                body=callback.body,
                state=KEPT if callback.order_id is None else OPEN,
                received_at=now,
            )
            counting = {"preserve_rowcount": True}  # SQLAlchemy drops the count of an INSERT otherwise
            if not connection.execute(insert.on_conflict_do_nothing(), execution_options=counting).rowcount:
                return None
            if not callback.by_secret:
                self._forget_unsigned(connection)
            if callback.order_id is None:
                return KEPT
            this = sa.and_(callbacks.c.account == self._account, callbacks.c.digest == digest)
            return self._judge(connection, connection.execute(sa.select(callbacks).where(this)).one(), now)

    def knows(self, order_id: int) -> bool:
        """Whether the account is known to have an order."""
        with self._store.read() as connection:
            return (
                connection.execute(sa.select(orders.c.order_id).where(self._order(order_id))).first()
                is not None
            )

    # -------------------------------------------------------------- the ways out

    def newest(self, order_ids: Iterable[int]) -> dict[int, Message]:
        """The newest message of each of these orders, where there is one that has not been purged."""
        wanted = list(order_ids)
        self._match(callbacks.c.order_id.in_(wanted))
        newest_ids = (
            sa.select(sa.func.max(messages.c.id))
            .where(messages.c.account == self._account, messages.c.order_id.in_(wanted), _IS_WHOLE)
            .group_by(messages.c.order_id)
        )
        with self._store.read() as connection:
            rows = connection.execute(sa.select(messages).where(messages.c.id.in_(newest_ids))).all()
        return {row.order_id: _message(row) for row in rows}

    def all_of(self, order_ids: Iterable[int]) -> dict[int, list[Message]]:
        """The messages of each of these orders that have not been purged, the newest first."""
        wanted = list(order_ids)
        self._match(callbacks.c.order_id.in_(wanted))
        query = sa.select(messages).where(
            messages.c.account == self._account, messages.c.order_id.in_(wanted), _IS_WHOLE
        )
        with self._store.read() as connection:
            rows = connection.execute(query.order_by(messages.c.id.desc())).all()
        found: dict[int, list[Message]] = {}
        for row in rows:
            found.setdefault(row.order_id, []).append(_message(row))
        return found

    def find(self, order_id: int, wanted: MessageFilter) -> Message | None:
        """The newest message of an order that somebody waits for, where there is one."""
        return wanted.first(self.all_of([order_id]).get(order_id, []))

    def since(
        self, cursor: int, *, order_ids: Iterable[int] | None = None, limit: int = 100
    ) -> list[tuple[int, Message]]:
        """The messages that came after a certain one, the oldest first.

        Nobody who goes on with the last id that he was given misses a message: ids are given in the order in
        which the messages show.

        Args:
            cursor: the id of the last message that is known; 0 for all, `last_id()` for those yet to come.
            order_ids: only messages of these orders.
            limit: how many at the most.

        Returns:
            each with its id; those that have been purged are left out.
        """
        self._match(sa.true())
        query = sa.select(messages).where(
            messages.c.account == self._account, messages.c.id > cursor, _IS_WHOLE
        )
        if order_ids is not None:
            query = query.where(messages.c.order_id.in_(list(order_ids)))
        with self._store.read() as connection:
            rows = connection.execute(query.order_by(messages.c.id).limit(limit)).all()
        return [(row.id, _message(row)) for row in rows]

    def get(self, message_id: int) -> Message | None:
        """A message by its id; `None` where there is none, or its text has been purged."""
        this = sa.and_(messages.c.account == self._account, messages.c.id == message_id, _IS_WHOLE)
        with self._store.read() as connection:
            row = connection.execute(sa.select(messages).where(this)).one_or_none()
        return None if row is None else _message(row)

    def assign(self, message_ids: Iterable[int], *, handler: str, run: str) -> list[tuple[int, Message]]:
        """Gives messages to a run of a handler, those that none of its other runs has; the oldest first."""
        wanted = sorted(set(message_ids))
        if not wanted:
            return []
        with self._store.write() as connection:
            this = {
                "account": self._account, "handler": handler, "run": run, "since": self._store.now(connection)
            }  # fmt: skip
            each = [this | {"message_id": message_id} for message_id in wanted]
            connection.execute(self._store.insert(handled).on_conflict_do_nothing(), each)
            mine = sa.select(handled.c.message_id).where(
                handled.c.account == self._account, handled.c.handler == handler, handled.c.run == run
            )
            rows = connection.execute(
                sa.select(messages)
                .where(
                    messages.c.account == self._account,
                    messages.c.id.in_(wanted),
                    messages.c.id.in_(mine),
                    _IS_WHOLE,
                )
                .order_by(messages.c.id)
            ).all()
        return [(row.id, _message(row)) for row in rows]

    def has_callbacks(self) -> bool:
        """Whether a callback by the secret URL has ever come for an order of the account."""
        query = sa.select(polls.c.callback_at).where(polls.c.account == self._account)
        with self._store.read() as connection:
            return connection.execute(query).scalar() is not None

    def last_id(self) -> int:
        """The id of the newest message; 0 where there is none."""
        newest = sa.select(sa.func.max(messages.c.id)).where(messages.c.account == self._account)
        with self._store.read() as connection:
            return connection.execute(newest).scalar() or 0

    # -------------------------------------------------------------- callbacks

    def _match(self, which: sa.ColumnElement[bool]) -> None:
        """Judges callbacks that came before their order was known, and whose order is known now."""
        early = (
            sa.select(callbacks)
            .join(
                orders,
                sa.and_(orders.c.account == callbacks.c.account, orders.c.order_id == callbacks.c.order_id),
            )
            .where(callbacks.c.account == self._account, callbacks.c.state == OPEN, which)
            .order_by(callbacks.c.id)
        )
        with self._store.read() as connection:
            if connection.execute(early.limit(1)).first() is None:
                return
        with self._store.write() as connection:
            now = self._begin(connection)
            for row in connection.execute(early).all():
                self._judge(connection, row, now)

    def _judge(self, connection: sa.Connection, row: Any, now: float) -> str:
        """Decides what a callback means, now that it is stored."""
        order = connection.execute(sa.select(orders).where(self._order(row.order_id))).one_or_none()
        if order is None:
            return OPEN
        state = self._state_of(connection, row, order)
        connection.execute(sa.update(callbacks).where(callbacks.c.id == row.id).values(state=state))
        if row.by_secret:
            self._note_arrival(connection, now)
        if state == HINT:
            self._hint(connection, row, now)
        return state

    def _state_of(self, connection: sa.Connection, row: Any, order: Any) -> str:
        is_vouched = row.by_secret and row.is_documented and is_same_phone(row.phone, order.phone)
        told = Message(
            order_id=row.order_id, otp=row.otp, message=row.message, sender=row.sender, phone=order.phone
        )
        is_text_there = self._one_of(connection, told, _has_text(told)) is not None
        if not is_vouched:
            return TOLD if is_text_there else HINT
        known = self._told_already(connection, told)
        if known is not None:
            self._complete(connection, known, told, called_at=row.received_at)
            return TOLD
        if row.otp is None:
            return HINT
        self._insert(
            connection,
            told,
            digest=_digest(told, with_sender=is_text_there),
            shown_as=None,
            called_at=row.received_at,
            received_at=row.received_at,
        )
        if order.product is not None and order.product not in RENTALS and not has_ended(order.status):
            # One SMS is all that such an order is for: there is nothing to wait for or to give back.
            connection.execute(sa.update(orders).where(self._order(row.order_id)).values(status="completed"))
        return TOLD

    def _told_already(self, connection: sa.Connection, told: Message) -> Any:
        """The row of the same SMS. One text from two senders is two; what a status shows may be from any."""
        has_no_other_sender = sa.or_(messages.c.sender.is_(None), messages.c.sender == told.sender)
        return self._one_of(
            connection,
            told,
            sa.or_(
                _has_text(told) & has_no_other_sender,
                messages.c.digest == _digest(told, with_sender=True),
                messages.c.called_at.is_(None) & _has_code(told.otp),
            ),
        )

    def _called(self, connection: sa.Connection, message: Message) -> Any:
        """The callback that a message in a status bears out, which knows the sender."""
        rows = connection.execute(
            sa.select(callbacks)
            .where(
                callbacks.c.account == self._account,
                callbacks.c.state == HINT,
                callbacks.c.order_id == message.order_id,
                callbacks.c.by_secret,
                callbacks.c.message.is_not(None),
            )
            .order_by(callbacks.c.id.desc())
        )
        return next((row for row in rows if _plain(row.message) == _plain(message.message)), None)

    def _hint(self, connection: sa.Connection, row: Any, now: float) -> None:
        """There may be something to read in the order's status."""
        values = {"hinted_at": now, "hint_by_secret": row.by_secret, "hint_tries": 0}
        insert = self._store.insert(looks).values(account=self._account, order_id=row.order_id, **values)
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=[looks.c.account, looks.c.order_id],
                set_=values,
                # Anybody can send those without a secret; they change nothing about one that is open.
                where=None if row.by_secret else looks.c.hinted_at.is_(None),
            )
        )

    def _note_arrival(self, connection: sa.Connection, now: float) -> None:
        insert = self._store.insert(polls).values(account=self._account, next_at=0, callback_at=now)
        connection.execute(
            insert.on_conflict_do_update(index_elements=[polls.c.account], set_={"callback_at": now})
        )

    def _forget_unsigned(self, connection: sa.Connection) -> None:
        unsigned = sa.and_(callbacks.c.account == self._account, sa.not_(callbacks.c.by_secret))
        ids = sa.select(callbacks.c.id).where(unsigned).order_by(callbacks.c.id.desc())
        too_old = ids.offset(UNSIGNED).limit(1).scalar_subquery()
        connection.execute(sa.delete(callbacks).where(unsigned, callbacks.c.id <= too_old))

    # -------------------------------------------------------------- rows

    def _begin(self, connection: sa.Connection) -> float:
        """Lets one at a time put messages in, so that their ids are in the order of the commits."""
        self._store.lock(connection, f"smsverify inbox {self._account}")
        now = self._store.now(connection)
        if time.monotonic() >= self._next_purge:
            self._next_purge = time.monotonic() + min(PURGE_PAUSE, self._retention / 100)
            self._purge(connection, now)
        return now

    def _one_of(self, connection: sa.Connection, message: Message, which: sa.ColumnElement[bool]) -> Any:
        """The newest row of the message's order that is `which`."""
        return connection.execute(
            sa.select(messages)
            .where(messages.c.account == self._account, messages.c.order_id == message.order_id, which)
            .order_by(messages.c.id.desc())
            .limit(1)
        ).one_or_none()

    def _insert(
        self, connection: sa.Connection, message: Message, *, received_at: float, **values: Any
    ) -> None:
        """Adds a message. Those of one order are received one after the other, also where a clock was set
        back or a callback had to wait for its order to be known: so "after this one" is all that came later.
        """
        last = connection.execute(
            sa.select(sa.func.max(messages.c.received_at)).where(
                messages.c.account == self._account, messages.c.order_id == message.order_id
            )
        ).scalar()
        # In whole microseconds, so that a datetime says exactly when.
        microseconds = round(received_at * 1e6)
        if last is not None:
            microseconds = max(microseconds, round(last * 1e6) + 1)
        connection.execute(
            sa.insert(messages).values(
                account=self._account,
                order_id=message.order_id,
                otp=message.otp,
                message=message.message,
                sender=message.sender,
                phone=message.phone,
                received_at=microseconds / 1e6,
                **values,
            )
        )

    def _complete(self, connection: sa.Connection, known: Any, message: Message, **values: Any) -> None:
        """Adds what the second way knows to what the first one has brought."""
        is_purged = known.otp is None and known.message is None
        for name in ("sender",) if is_purged else ("sender", "otp", "message", "phone"):
            values[name] = getattr(message, name)
        news = {
            name: value
            for name, value in values.items()
            if value is not None and getattr(known, name) is None
        }
        if "message" in news and message.otp is not None:
            # A code that came without its text may have lost its leading zeros.
            news["otp"] = message.otp
        if news:
            connection.execute(sa.update(messages).where(messages.c.id == known.id).values(**news))

    def _purge(self, connection: sa.Connection, now: float) -> None:
        # The digest stays, so that a callback that is repeated late is still recognised.
        connection.execute(
            sa.update(messages)
            .where(
                messages.c.account == self._account,
                messages.c.received_at < now - self._retention,
                _IS_WHOLE,
            )
            .values(otp=None, message=None)
        )
        is_old = sa.and_(
            callbacks.c.account == self._account, callbacks.c.received_at < now - self._retention
        )
        connection.execute(sa.update(callbacks).where(is_old).values(otp=None, message=None, body=None))
        is_past = sa.and_(handled.c.account == self._account, handled.c.since < now - self._retention)
        connection.execute(sa.delete(handled).where(is_past))
        is_over = callbacks.c.received_at < now - max(self._retention, REPEATED)
        connection.execute(sa.delete(callbacks).where(callbacks.c.account == self._account, is_over))

    def _order(self, order_id: int) -> sa.ColumnElement[bool]:
        return sa.and_(orders.c.account == self._account, orders.c.order_id == order_id)

    def _look(self, order_id: int) -> sa.ColumnElement[bool]:
        return sa.and_(looks.c.account == self._account, looks.c.order_id == order_id)


_IS_WHOLE = sa.or_(messages.c.otp.is_not(None), messages.c.message.is_not(None))


def _has_text(message: Message) -> sa.ColumnElement[bool]:
    digest = _digest(message)
    # Schema 2 took every space and line break for a part of the text.
    before = _hash([str(message.order_id), message.message, "" if message.message else message.otp])
    return sa.or_(messages.c.digest.in_([digest, before]), messages.c.shown_as == digest)


def _has_code(otp: str | None) -> sa.ColumnElement[bool]:
    """Whether a row has this code, also in groups; as a number, it may have lost its leading zeros."""
    if otp is None:
        return sa.false()
    in_one = sa.func.replace(sa.func.replace(messages.c.otp, "-", ""), " ", "")
    return sa.func.ltrim(in_one, "0") == otp.replace("-", "").replace(" ", "").lstrip("0")


def _certain_code(text: str | None) -> str | None:
    return None if text is None or len(text) > LONGEST_SMS else extract_otp(text)


def _plain(text: str | None) -> str:
    return " ".join((text or "").split())


def _hash(parts: Sequence[str | None]) -> str:
    return hashlib.sha256("\0".join(part or "" for part in parts).encode()).hexdigest()


def _digest(message: Message, *, with_sender: bool = False) -> str:
    """What makes two messages the same: the order and the text, else the code."""
    text = _plain(message.message)
    content = [str(message.order_id), text, "" if text else message.otp]
    return _hash([*content, message.sender] if with_sender else content)


def _digest_of_callback(callback: Callback) -> str:
    # A stranger's copy must not pass for what the service sends later.
    way = ["secret" if callback.by_secret else "unsigned", callback.kind, str(callback.is_documented)]
    if callback.body is not None:
        return _hash([*way, callback.body])
    phone = phone_digits(callback.phone)
    return _hash([*way, str(callback.order_id), phone, callback.sender, callback.message])


def _message(row: Any) -> Message:
    return Message(
        order_id=row.order_id,
        otp=row.otp,
        message=row.message,
        sender=row.sender,
        phone=row.phone,
        received_at=datetime.fromtimestamp(row.received_at, timezone.utc),
    )
