"""Messages that have come, from a status or a callback: one way in, one way out.

An SMS is seen in its order's status, in a callback, or in both, and is one message all the same (`same_sms`).
A callback is believed only where it must be from the service and nothing has to be guessed: it came by the
secret URL, names an order of the account, carries that order's phone number, and its text holds a code that
can be read with certainty. Any other is unverified: there may be something to read in the order's status.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any

import sqlalchemy as sa

from smsverify._input.phones import is_same_phone
from smsverify._messages import purging
from smsverify._messages.callbacks import KEPT, OPEN, UNVERIFIED, VERIFIED, Callback
from smsverify._messages.filters import MessageFilter
from smsverify._messages.same_sms import Sms, find_same, has_code, has_same_content
from smsverify._runtime.clock import HOUR, boottime
from smsverify._store import sequence
from smsverify._store.store import Store
from smsverify._store.tables import (
    READABLE,
    callbacks,
    handled,
    is_order,
    looks,
    messages,
    orders,
    polls,
    purchases,
    refusals,
)
from smsverify.metrics import CALLBACKS, CODES, MESSAGES, TIME_TO_CODE, Meter
from smsverify.models import RENTALS, Message, has_ended
from smsverify.otp import extract_otp

CLAIMED_WITHIN = 1.0  # seconds by which the moments of a claim and its question may be the wrong way round
REFUSED_HOURS = 24  # for which it is remembered how many callbacks were refused
UNSIGNED = 1000  # callbacks that came without a secret and are kept, so that a stranger fills no disk
PURGE_PAUSE = 60.0  # seconds between two purges, at the most


class Inbox:
    """The messages of an account.

    Args:
        store: where they are kept.
        account: whose they are.
        retention: seconds after which their text is purged.
        meter: counts messages and callbacks.
    """

    def __init__(self, store: Store, account: str, *, retention: float, meter: Meter | None = None) -> None:
        self._meter = meter or Meter()
        self._store = store
        self._account = account
        self._retention = retention
        self._next_purge = 0.0

    @property
    def name(self) -> tuple[str, str]:
        """What distinguishes it from other inboxes: its store and its account."""
        return self._store.url.render_as_string(hide_password=True), self._account

    # -------------------------------------------------------------- the ways in

    def put(self, message: Message, *, asked_at: float | None = None) -> bool:
        """Stores what an order's status shows; `False` where the message is there already.

        Args:
            message: as the status shows it.
            asked_at: `boottime()` when the service was asked, now by default. A callback that came later may
                be about another SMS.
        """
        with self._store.write() as connection:
            now = self._begin(connection)
            seen = Sms.shown(message)
            known = self._known(connection, seen)
            if known is not None:
                self._update(connection, known, seen)
                return False
            if purging.was_pruned(connection, self._account, seen):
                return False
            called = self._called(connection, seen)
            if called is None:
                self._insert(connection, seen, came_at=now)
            else:
                seen = seen.completed(Sms.called(called))
                self._insert(connection, seen, came_at=now, called_at=called.received_at)
            ago = 0.0 if asked_at is None else boottime() - asked_at
            self._end_look(connection, message.order_id, now - ago)
            return True

    def take(self, callback: Callback) -> str | None:
        """Stores a callback, and its message where it is believed.

        Returns:
            what has become of it: `VERIFIED`, `UNVERIFIED`, `OPEN` or `KEPT`; `None` where it is a repeat.

        Raises:
            StoreError: it is not stored.
        """
        # What a stranger sends is never believed, so no code is read out of it.
        otp = extract_otp(callback.message) if callback.by_secret and callback.message is not None else None
        digest = callback.digest
        with self._store.write() as connection:
            now = self._begin(connection)
            insert = self._store.insert(callbacks).values(
                account=self._account,
                digest=digest,
                by_secret=callback.by_secret,
                secret=callback.secret,
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
                number=sequence.advance(self._store, connection, self._account),
            )
            counting = {"preserve_rowcount": True}  # SQLAlchemy drops the count of an INSERT otherwise
            if not connection.execute(insert.on_conflict_do_nothing(), execution_options=counting).rowcount:
                return None
            if not callback.by_secret:
                self._forget_unsigned(connection)
            state = KEPT
            if callback.order_id is not None:
                this = sa.and_(callbacks.c.account == self._account, callbacks.c.digest == digest)
                row = connection.execute(sa.select(callbacks).where(this)).one()
                state = self._judge(connection, row, now)
        self._meter.count(CALLBACKS[state])
        return state

    def note_refused(self, times: int, why: str) -> None:
        """Records that so many callbacks were refused, the last one for this reason."""
        with self._store.write() as connection:
            now = self._store.now(connection)
            hour = int(now // HOUR)
            last = {"last_at": now, "why": why}
            insert = self._store.insert(refusals).values(
                account=self._account, hour=hour, times=times, **last
            )
            connection.execute(
                insert.on_conflict_do_update(
                    index_elements=list(refusals.primary_key),
                    set_={"times": refusals.c.times + times, **last},
                )
            )
            connection.execute(
                sa.delete(refusals).where(
                    refusals.c.account == self._account, refusals.c.hour < hour - REFUSED_HOURS
                )
            )

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
            .where(messages.c.account == self._account, messages.c.order_id.in_(wanted), self._is_readable())
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
            messages.c.account == self._account, messages.c.order_id.in_(wanted), self._is_readable()
        )
        with self._store.read() as connection:
            rows = connection.execute(query.order_by(messages.c.id.desc())).all()
        found: dict[int, list[Message]] = {}
        for row in rows:
            found.setdefault(row.order_id, []).append(_message(row))
        return found

    def find(self, order_id: int, wanted: MessageFilter) -> Message | None:
        """The newest message of an order that passes a filter, where there is one."""
        return wanted.first(self.all_of([order_id]).get(order_id, []))

    def since(self, cursor: int, *, limit: int = 100) -> list[tuple[int, Message]]:
        """The messages that came after a certain one, the oldest first.

        A reader that goes on with the last id that it was given misses no message: ids are given in the order
        in which the messages show.

        Args:
            cursor: the id of the last message that is known; 0 for all.
            limit: how many at the most.

        Returns:
            each with its id; those that have been purged are left out.
        """
        self._match(sa.true())
        query = sa.select(messages).where(
            messages.c.account == self._account, messages.c.id > cursor, self._is_readable()
        )
        with self._store.read() as connection:
            rows = connection.execute(query.order_by(messages.c.id).limit(limit)).all()
        return [(row.id, _message(row)) for row in rows]

    def get(self, message_id: int) -> Message | None:
        """A message by its id; `None` where there is none, or its text has been purged."""
        this = sa.and_(messages.c.account == self._account, messages.c.id == message_id, self._is_readable())
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
                    self._is_readable(),
                )
                .order_by(messages.c.id)
            ).all()
        return [(row.id, _message(row)) for row in rows]

    def remember_pruned(self, connection: sa.Connection, which: sa.ColumnElement[bool]) -> None:
        """Keeps what these messages are recognised by, in the transaction that removes them. Until it ends,
        no message is put in.
        """
        self._lock(connection)
        purging.remember_pruned(connection, self._account, which)

    def has_callbacks(self) -> bool:
        """Whether a callback by the secret URL has ever come for an order of the account."""
        query = sa.select(polls.c.callback_at).where(polls.c.account == self._account)
        with self._store.read() as connection:
            return connection.execute(query).scalar() is not None

    # -------------------------------------------------------------- callbacks

    def _match(self, which: sa.ColumnElement[bool]) -> None:
        """Judges callbacks that came before their order was known, and whose order is known now."""
        early = (
            sa.select(callbacks)
            .join(orders, is_order(callbacks.c.account, callbacks.c.order_id))
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
        state = KEPT if self._is_from_before(connection, row) else self._state_of(connection, row, order)
        connection.execute(sa.update(callbacks).where(callbacks.c.id == row.id).values(state=state))
        if row.by_secret:
            self._note_arrival(connection, now, row.secret)
        if state == UNVERIFIED:
            self._ask_for_look(connection, row, now)
        return state

    def _is_from_before(self, connection: sa.Connection, row: Any) -> bool:
        """Whether a callback came before its order was bought: it is about another one with the same id."""
        sent = connection.execute(
            sa.select(sa.func.max(purchases.c.sent_number)).where(
                purchases.c.account == self._account,
                purchases.c.kind == "order",
                purchases.c.state == "bought",
                purchases.c.order_id == row.order_id,
            )
        ).scalar()
        return sent is not None and row.number is not None and row.number < sent

    def _state_of(self, connection: sa.Connection, row: Any, order: Any) -> str:
        seen = Sms.called(row)
        if not (row.by_secret and row.is_documented and is_same_phone(row.phone, order.phone)):
            # It may at most repeat a text that is known, whatever it says of the sender.
            known = self._known(connection, replace(seen, sender=None))
            return VERIFIED if known is not None and has_same_content(known, seen) else UNVERIFIED
        known = self._known(connection, seen)
        if known is not None:
            self._update(connection, known, seen, at=row.received_at)
            return VERIFIED
        if purging.was_pruned(connection, self._account, seen):
            return VERIFIED
        if row.otp is None:
            return UNVERIFIED
        at = row.received_at
        self._insert(connection, replace(seen, phone=order.phone), came_at=at, called_at=at)
        if order.product is not None and order.product not in RENTALS and not has_ended(order.status):
            # One SMS is all that such an order is for: there is nothing to wait for or to give back.
            connection.execute(sa.update(orders).where(self._order(row.order_id)).values(status="completed"))
        return VERIFIED

    def _called(self, connection: sa.Connection, shown: Sms) -> Any:
        """The unverified callback with the text that a status shows, which knows the sender."""
        rows = connection.execute(
            sa.select(callbacks)
            .where(
                callbacks.c.account == self._account,
                callbacks.c.state == UNVERIFIED,
                callbacks.c.order_id == shown.order_id,
                callbacks.c.by_secret,
                callbacks.c.message.is_not(None),
            )
            .order_by(callbacks.c.id.desc())
        )
        return next((row for row in rows if has_same_content(Sms.called(row), shown)), None)

    def _ask_for_look(self, connection: sa.Connection, row: Any, now: float) -> None:
        """Notes that there may be something to read in the order's status."""
        values = {"next_at": now, "by_secret": row.by_secret, "tries": 0}
        insert = self._store.insert(looks).values(account=self._account, order_id=row.order_id, **values)
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=[looks.c.account, looks.c.order_id],
                set_=values,
                # Strangers can send those without a secret; they change nothing about one that is open.
                where=None if row.by_secret else looks.c.by_secret.is_(None),
            )
        )

    def _end_look(self, connection: sa.Connection, order_id: int, asked_at: float) -> None:
        """What an unverified callback has asked to look for has been read, if it came before the question."""
        is_followed = looks.c.followed_at.is_not(None)
        # As long as no look was made for it, a callback's look is due when it came. Otherwise the look was
        # claimed just before the question, perhaps by another clock.
        since = sa.case((looks.c.tries > 0, looks.c.asked_at - CLAIMED_WITHIN), else_=looks.c.next_at)
        is_later = sa.and_(looks.c.by_secret.is_not(None), since > asked_at)
        connection.execute(
            sa.update(looks)
            .where(self._look(order_id), sa.not_(sa.func.coalesce(is_later, sa.false())))
            .values(by_secret=None, next_at=sa.case((is_followed, looks.c.next_at)))
        )

    def _note_arrival(self, connection: sa.Connection, now: float, secret: str | None) -> None:
        values = {"callback_at": now, "callback_secret": secret}
        insert = self._store.insert(polls).values(account=self._account, next_at=0, **values)
        connection.execute(insert.on_conflict_do_update(index_elements=[polls.c.account], set_=values))

    def _forget_unsigned(self, connection: sa.Connection) -> None:
        unsigned = sa.and_(callbacks.c.account == self._account, sa.not_(callbacks.c.by_secret))
        ids = sa.select(callbacks.c.id).where(unsigned).order_by(callbacks.c.id.desc())
        too_old = ids.offset(UNSIGNED).limit(1).scalar_subquery()
        connection.execute(sa.delete(callbacks).where(unsigned, callbacks.c.id <= too_old))

    # -------------------------------------------------------------- rows

    def _lock(self, connection: sa.Connection) -> None:
        """Lets one at a time put messages in, so that their ids are in the order of the commits."""
        self._store.lock(connection, f"smsverify inbox {self._account}")

    def _begin(self, connection: sa.Connection) -> float:
        """Begins to put messages in; the store's time. Now and then, old texts are purged."""
        self._lock(connection)
        now = self._store.now(connection)
        if time.monotonic() >= self._next_purge:
            self._next_purge = time.monotonic() + min(PURGE_PAUSE, self._retention / 100)
            purging.purge(connection, self._account, now, self._retention)
            self._store.scrub_after(connection)
        return now

    def _known(self, connection: sa.Connection, seen: Sms) -> Sms | None:
        """The message that was seen again, of all of its order: the newest where several could be it."""
        # It has the same text, or the same code and can be read: a rental may have very many others.
        digests = [digest for digest in (seen.shown_as, seen.called_as) if digest is not None]
        of_order = (messages.c.account == self._account, messages.c.order_id == seen.order_id)
        may_be = sa.union(
            sa.select(messages.c.id).where(*of_order, messages.c.shown_as.in_(digests)),
            sa.select(messages.c.id).where(*of_order, messages.c.called_as.in_(digests)),
            sa.select(messages.c.id).where(
                *of_order, READABLE, sa.false() if seen.otp is None else has_code(seen.otp)
            ),
        )
        query = sa.select(messages).where(messages.c.id.in_(may_be)).order_by(messages.c.id.desc())
        with connection.execute(query) as rows:
            return find_same(map(Sms.known, rows), seen)

    def _insert(
        self, connection: sa.Connection, sms: Sms, *, came_at: float, called_at: float | None = None
    ) -> None:
        """Adds a message. Those of one order are received one after the other, also where a clock was set
        back or a callback had to wait for its order to be known: so "after this one" is all that came later.
        """
        last = connection.execute(
            sa.select(sa.func.max(messages.c.received_at)).where(
                messages.c.account == self._account, messages.c.order_id == sms.order_id
            )
        ).scalar()
        # By the calendar, and in whole microseconds, so that a datetime says exactly when.
        microseconds = round(self._store.as_wall(came_at) * 1e6)
        if last is not None:
            microseconds = max(microseconds, round(last * 1e6) + 1)
        connection.execute(
            sa.insert(messages).values(
                account=self._account,
                received_at=microseconds / 1e6,
                came_at=came_at,
                called_at=called_at,
                **_values(sms),
            )
        )
        if self._meter.is_on:
            order = connection.execute(sa.select(orders).where(self._order(sms.order_id))).one_or_none()
            seconds = None
            if order is not None and order.key is not None and last is None:
                seconds = max(came_at - order.first_seen_at, 0.0)
            count = partial(self._count, order, has_code=sms.otp is not None, seconds=seconds)
            self._store.after_commit(connection, count)

    def _count(self, order: Any, *, has_code: bool, seconds: float | None) -> None:
        """Counts a message that is new; `seconds` since the purchase, where it is the order's first."""
        what = {"product": order.product, "service": order.service} if order is not None else {}
        self._meter.count(MESSAGES, **what)
        if has_code:
            self._meter.count(CODES, **what)
        if has_code and seconds is not None:
            self._meter.timing(TIME_TO_CODE, seconds, **what)

    def _update(self, connection: sa.Connection, known: Sms, seen: Sms, *, at: float | None = None) -> None:
        """Adds what another sighting knows; `at` is when a callback brought it."""
        values = _values(known.completed(seen))
        if values == _values(known):
            return
        if known.called_as is None and seen.called_as is not None:
            values["called_at"] = at
        connection.execute(sa.update(messages).where(messages.c.id == known.id).values(**values))

    def _is_readable(self) -> sa.ColumnElement[bool]:
        """What has not been purged, nor would be now: it may be long until the next write purges."""
        # Not the column itself: its index would be taken, and an order's or the newest messages are fewer.
        came_at = sa.func.coalesce(messages.c.came_at, 0.0)
        return sa.and_(READABLE, came_at >= self._store.clock() - self._retention)

    def _order(self, order_id: int) -> sa.ColumnElement[bool]:
        return is_order(self._account, order_id)

    def _look(self, order_id: int) -> sa.ColumnElement[bool]:
        return sa.and_(looks.c.account == self._account, looks.c.order_id == order_id)


def _values(sms: Sms) -> dict[str, Any]:
    return {name: value for name, value in asdict(sms).items() if name != "id"}


def _message(row: Any) -> Message:
    return Message(
        order_id=row.order_id,
        otp=row.otp,
        message=row.message,
        sender=row.sender,
        phone=row.phone,
        received_at=datetime.fromtimestamp(row.received_at, timezone.utc),
    )
