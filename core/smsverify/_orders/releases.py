"""Releases: orders that are to be cancelled. A row exists only as long as the wish does.

It is on record before anything is sent, so that others carry it out when the process dies. It goes when the
order is cancelled or over, when its code has come, or when a call needs the order again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from smsverify._orders.records import Records, is_awaited, is_claimed_by
from smsverify._store import sequence
from smsverify._store.sequence import Asked
from smsverify._store.tables import orders, releases

SCOPES = ("pending", "unused", "any")  # each allows more than the one before


@dataclass(frozen=True)
class Release:
    """An order that is to be cancelled.

    Attributes:
        order_id: the order.
        reason: why, for people.
        scope: what the order may be to be cancelled: `pending` (without an SMS; a rental, and what may be
            one, not while it is active), `unused` (without an SMS), or `any`.
        is_planned: its time has not come, and a call may need the order until then.
    """

    order_id: int
    reason: str
    scope: str = "pending"
    is_planned: bool = False


class Releases:
    """The wishes to cancel orders of one account.

    Args:
        records: of the orders.
    """

    def __init__(self, records: Records) -> None:
        self._store = records.store
        self._account = records.account
        self._records = records

    def request(
        self,
        order_id: int,
        reason: str,
        *,
        waiter: str | None = None,
        holder: str | None = None,
        scope: str = "pending",
        patience: float = 0.0,
        is_planned: bool = False,
        unless_since: tuple[float, float] | None = None,
    ) -> bool:
        """Records that an order is to be cancelled; returns `False` where it is still needed.

        It is where another waiter or holder has it, or where its code was returned and `scope` is not `any`.

        Args:
            order_id: the order.
            reason: why, for people.
            waiter: who gives it up, see `is_claimed_by`; `None` for a decision that is made for all waiters.
            holder: the call that gives it up, if a later one with its key may work with it by now.
            scope: see `Release`; a wider one that is on record stays.
            patience: seconds until others try, in case the caller does not.
            is_planned: no one tries before these seconds are over.
            unless_since: also leaves alone an order that was claimed after the first of these times, or whose
                wait sent a heartbeat after the second one; by the store's clock.
        """
        is_free: list[sa.ColumnElement[bool]] = []
        if scope != "any":
            is_free.append(orders.c.used_at.is_(None))
        if waiter is not None:
            is_free.append(sa.or_(orders.c.waiter.is_(None), is_claimed_by(waiter)))
        if holder is not None:
            is_free.append(sa.or_(orders.c.holder.is_(None), orders.c.holder == holder))
        if unless_since is not None:
            claimed, alive = unless_since
            is_free += [sa.func.coalesce(orders.c.waiter_since, 0.0) <= claimed, sa.not_(is_awaited(alive))]
        with self._store.write() as connection:
            self._records.ensure(connection, order_id)
            if self._records.lock(connection, order_id, *is_free) is None:
                return False
            now = self._store.now(connection)
            known = connection.execute(sa.select(releases.c.scope).where(self._is_of(order_id))).scalar()
            values: dict[str, Any] = {
                "reason": reason,
                "scope": max(scope, known or scope, key=SCOPES.index),
                "planned": is_planned,
                "next_at": now + patience,
            }
            # When it was asked for first stays: from then on, it may have been cancelled. Only the service's
            # word that it was not changes that.
            first = {"account": self._account, "order_id": order_id, "asked_at": now}
            first |= {"tries": 0, "tried_at": now}
            connection.execute(
                self._store.insert(releases)
                .values(**first, **values)
                .on_conflict_do_update(index_elements=list(releases.primary_key), set_=values)
            )
        return True

    def of(self, order_id: int) -> Release | None:
        """The wish to cancel an order; `None` where there is none."""
        with self._store.read() as connection:
            return self.of_in(connection, order_id)

    def of_in(self, connection: sa.Connection, order_id: int) -> Release | None:
        """The same inside of a transaction."""
        row = connection.execute(sa.select(releases).where(self._is_of(order_id))).one_or_none()
        return None if row is None else _release(row)

    def all(self) -> list[Release]:
        """All that are on record, the oldest first."""
        mine = sa.select(releases).where(releases.c.account == self._account)
        with self._store.read() as connection:
            rows = connection.execute(mine.order_by(releases.c.asked_at, releases.c.order_id)).all()
        return [_release(row) for row in rows]

    def take_due(
        self, pause: float, longest: float, *, limit: int, even_early: bool = False
    ) -> list[Release]:
        """Takes releases that are due for another try; two callers never take the same one.

        Args:
            pause: seconds until the next try, doubled with each.
            longest: seconds that this pause never exceeds.
            limit: how many at the most; those first whose time came first.
            even_early: takes also those whose time has not come, but no planned ones: those first whose last
                try was longest ago.
        """
        mine = releases.c.account == self._account
        with self._store.read() as connection:
            now = self._store.now(connection)
            # What lies farther ahead than any pause was noted before the time went back, and not by a caller
            # that was a little quicker.
            is_beyond = sa.and_(sa.not_(releases.c.planned), releases.c.next_at > now + 2 * longest)
            is_due = sa.or_(releases.c.next_at <= now, is_beyond)
            if even_early:
                is_due = sa.or_(is_due, sa.not_(releases.c.planned))
            places = (releases.c.tried_at, releases.c.next_at) if even_early else (releases.c.next_at,)
            rows = connection.execute(
                sa.select(releases).where(mine, is_due).order_by(*places, releases.c.order_id).limit(limit)
            ).all()
        taken = []
        for row in rows:
            wait = min(pause * 2.0 ** min(row.tries, 60), longest)
            values = {"next_at": now + wait, "tried_at": now, "tries": row.tries + 1, "planned": False}
            is_untaken = sa.and_(self._is_of(row.order_id), releases.c.next_at == row.next_at)
            with self._store.write() as connection:
                if connection.execute(sa.update(releases).where(is_untaken).values(**values)).rowcount:
                    taken.append(_release(row))
        return taken

    def moment(self) -> Asked:
        """What to note before the service is asked whether an order goes on."""
        with self._store.read() as connection:
            return sequence.asked(self._store, connection, self._account)

    def note_alive(self, order_id: int, asked: Asked) -> None:
        """Records that an order was not cancelled yet: what it cost comes back after that, if it does.

        Args:
            order_id: the order.
            asked: from before the service was asked.
        """
        with self._store.write() as connection:
            alive = sa.update(releases).where(self._is_of(order_id))
            connection.execute(alive.values(asked_at=asked.at, asked_number=asked.number))

    def note_unanswered(self, order_id: int, asked: Asked | None) -> None:
        """Records that a cancellation which was not answered may have been carried out; see `asked`."""
        with self._store.write() as connection:
            unmarked = sa.update(releases).where(self._is_of(order_id), releases.c.asked_number.is_(None))
            connection.execute(unmarked.values(asked_number=None if asked is None else asked.number))

    def last_alive(self, order_id: int) -> Asked | None:
        """From when on an order was cancelled, if it is; `None` where it may have been before."""
        with self._store.read() as connection:
            row = connection.execute(sa.select(releases).where(self._is_of(order_id))).one_or_none()
        return None if row is None or row.asked_number is None else Asked(row.asked_number, row.asked_at)

    def asked(self, order_id: int) -> Asked | None:
        """What to note before the service is asked to cancel an order; `None` where no one wants that.

        Its time is the one from which on the order may have been cancelled.
        """
        with self._store.read() as connection:
            at = connection.execute(sa.select(releases.c.asked_at).where(self._is_of(order_id))).scalar()
            return None if at is None else Asked(sequence.last(connection, self._account), at)

    def close(self, order_id: int, *, cancelled: Asked | None = None) -> None:
        """Records that there is nothing left to cancel.

        Args:
            order_id: the order.
            cancelled: from before the service has cancelled the order, because it was asked to, or because
                the order went on then.
        """
        with self._store.write() as connection:
            self._records.lock(connection, order_id)
            self.withdraw(connection, order_id)
            if cancelled is not None:
                # The money has come back after that, however long the answer took, unless the order was over
                # before. A list that was read meanwhile may have shown the end first.
                ended = orders.c.ended_number
                is_end = sa.or_(ended.is_(None), ended > cancelled.number)
                since = sa.case((is_end, cancelled.at), else_=orders.c.cancelled_at)
                self._records.update(connection, order_id, cancelled_at=since)

    def withdraw(self, connection: sa.Connection, order_id: int, *, scopes: tuple[str, ...] = SCOPES) -> None:
        """Takes the wish off the record.

        Args:
            connection: of a transaction that has locked the order's row. A transaction that changes both rows
                locks that one first, so that no two wait for each other.
            order_id: the order.
            scopes: leaves a wish with another scope on record.
        """
        this = sa.and_(self._is_of(order_id), releases.c.scope.in_(scopes))
        connection.execute(sa.delete(releases).where(this))

    def _is_of(self, order_id: int) -> sa.ColumnElement[bool]:
        return sa.and_(releases.c.account == self._account, releases.c.order_id == order_id)


def _release(row: Any) -> Release:
    return Release(row.order_id, row.reason, row.scope, row.planned)
