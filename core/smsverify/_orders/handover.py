"""Who has an order: no one yet, the caller that it was handed over to, or the call that waits for its code.

From the transaction that records its purchase, an order is *unclaimed* until a caller has it. Every order has
at most one *waiter*, the newest, and at most one *holder*: the newest call that works with it for its key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from smsverify._orders import holding
from smsverify._orders.holding import Held
from smsverify._orders.records import Records, is_awaited, is_claimed_by
from smsverify._orders.releases import Releases
from smsverify._runtime.clock import DAY, boottime
from smsverify._store.tables import orders
from smsverify.errors import StoreError
from smsverify.text import log_of

log = log_of(__name__)

SHORT_TERM = ("temporary", "best-temp", "global")
LONGEST_KEPT = 1200.0  # seconds for which a short-term number is kept for a further try: few live longer


class Handover:
    """Who has the orders of one account.

    Args:
        records: of the orders.
        releases: the wishes to cancel them. One ends when its order is needed again.
        time_scale: how long the service's minute is in real minutes.
    """

    def __init__(self, records: Records, releases: Releases, *, time_scale: float = 1.0) -> None:
        self._store = records.store
        self._name = f"{records.store.url!r} {records.account}"  # one of this process's accounts
        self._records = records
        self._releases = releases
        self._forgotten = holding.FORGOTTEN * time_scale
        self._pause = self._forgotten / 4

    def claim(self, order_id: int, waiter: str) -> None:
        """Records who waits for an order now. A release that an earlier waiter asked for is withdrawn."""
        with self._store.write() as connection:
            since = self._store.now(connection)
            # The same waiter's own release stays: it may have been killed before its claim got here.
            again = sa.update(orders).where(self._records.is_order(order_id), orders.c.waiter == waiter)
            if connection.execute(again.values(waiter_since=since)).rowcount:
                return
            self._records.ensure(connection, order_id)
            self._records.update(connection, order_id, waiter=waiter, waiter_since=since)
            self._releases.withdraw(connection, order_id)

    def withdraw_release(self, order_id: int) -> None:
        """Takes the wish to cancel an order off the record, if the order is unclaimed."""
        with self._store.write() as connection:
            if self._records.lock(connection, order_id, orders.c.unclaimed_since.is_not(None)) is not None:
                self._releases.withdraw(connection, order_id, scopes=("pending",))

    def is_taken_from(self, order_id: int, waiter: str) -> bool:
        """Whether an order has another waiter by now than this one, see `is_claimed_by`."""
        is_taken = sa.and_(orders.c.waiter.is_not(None), sa.not_(is_claimed_by(waiter)))
        with self._store.read() as connection:
            return bool(self._records.value(connection, order_id, is_taken))

    def is_worth_keeping(self, order_id: int, seconds: float) -> bool:
        """Whether a further try that begins within some seconds may still get the code of an order."""
        known = self._records.get(order_id)
        return known is None or known.product not in SHORT_TERM or seconds <= LONGEST_KEPT

    def touch(self, order_id: int) -> None:
        """Records that a caller looks at a known order, so it is not forgotten."""
        with self._store.write() as connection:
            self._records.update(connection, order_id, waiter_since=self._store.now(connection))

    def take(self, order_id: int) -> None:
        """Records that a caller has an order from now on, if it was unclaimed."""
        if self.unclaimed_for(order_id) is None:
            return
        with self._store.write() as connection:
            since = self._store.now(connection)
            self._records.update(connection, order_id, unclaimed_since=None, waiter_since=since)

    def hand_over(self, order_id: int, holder: str) -> None:
        """Records that a caller has an order, and that the process which has bought it holds it no more. The
        caller keeps it where that cannot be recorded, too.
        """
        try:
            self._end_holding(order_id, holder, unclaimed_since=None)
        except StoreError as error:
            log.warning("Order %d was handed over, but that cannot be recorded: %s", order_id, error)

    def let_go(self, order_id: int, holder: str) -> None:
        """Records that a process holds an order no more, and that no caller has it."""
        # A number that is bought to be kept may be handed out again for as long as one of a killed process.
        is_short_term = sa.and_(orders.c.product.in_(SHORT_TERM), orders.c.unclaimed_since.is_not(None))
        since = sa.case((is_short_term, 0.0), else_=orders.c.unclaimed_since)
        try:
            self._end_holding(order_id, holder, unclaimed_since=since)
        except StoreError as error:
            log.warning(
                "Order %d is held no more, but that cannot be recorded, so it counts as held for up to %.0f "
                "min: %s",
                order_id,
                self._forgotten / 60,
                error,
            )

    def _end_holding(self, order_id: int, holder: str, **values: Any) -> None:
        """Ends the holding of an order, unless it is another call's: that one's heartbeats stay on record."""
        is_own = sa.or_(orders.c.holder.is_(None), orders.c.holder == holder)
        this = sa.update(orders).where(self._records.is_order(order_id), is_own)
        with self._store.write() as connection:
            now = self._store.now(connection)
            connection.execute(this.values(held_at=None, waiter_since=now, **values))

    def hold(
        self,
        order_id: int,
        *,
        holder: str,
        claims: bool = False,
        at_end: Callable[[], object] = lambda: None,
    ) -> Held:
        """Lets this process hold an order, with heartbeats, until it is handed over or let go. No call that
        has held it before gives it back from now on.

        Args:
            order_id: the order.
            holder: names the call that works with it. If its key had the order before, that is on record
                since `hand_out_again`, also where nothing can be recorded now.
            claims: the call waits for its code too, so no earlier wait gives it back either.
            at_end: called when it is handed over or let go, but not when this process dies before.
        """
        ends = (self.hand_over, self.let_go)
        held = Held(self._name, order_id, self._pause, self.keep_alive, *ends, holder, at_end)
        try:
            now = boottime()
            self._record_heartbeat(order_id, {"holder": holder} | ({"waiter": holder} if claims else {}))
            held.beaten_at = now
        except StoreError as error:
            log.warning("Order %d is held, but that cannot be recorded yet: %s", order_id, error)
        holding.hold(held)
        return held

    def refer_to(self, order_id: int) -> None:
        """A caller names an order, and so has it, unless this process still holds it for its buyer."""
        held = holding.held(self._name, order_id)
        if held is None:
            self.take(order_id)
        elif held.is_due:
            held.beat()

    def keep_alive(self, order_id: int) -> None:
        """Records that the process which holds an order is alive."""
        self._record_heartbeat(order_id, {})

    def _record_heartbeat(self, order_id: int, values: dict[str, Any]) -> None:
        with self._store.write() as connection:
            now = self._store.now(connection)
            # Where another caller has named it, it stays that caller's.
            unclaimed = sa.case((orders.c.unclaimed_since.is_not(None), now))
            values = {**values, "held_at": now, "waiter_since": now, "unclaimed_since": unclaimed}
            self._records.update(connection, order_id, **values)

    def hand_out_again(self, order_id: int, holder: str) -> None:
        """Records that the key of an order gets it once more, for a newer call: no call that has held it
        before gives it back. A release is withdrawn, unless its scope is `any`: then a user has named the
        order.
        """
        with self._store.write() as connection:
            now = self._store.now(connection)
            self._records.update(connection, order_id, holder=holder, waiter_since=now, unclaimed_since=now)
            self._releases.withdraw(connection, order_id, scopes=("pending", "unused"))
        older = holding.held(self._name, order_id)
        if older is not None and older.holder != holder:
            older.drop()

    def note_use(self, order_id: int) -> None:
        """Records that an order's code was returned. The first time, a release is withdrawn."""
        this = sa.and_(self._records.is_order(order_id), orders.c.used_at.is_(None))
        with self._store.write() as connection:
            values = {"used_at": self._store.now(connection)}
            if connection.execute(sa.update(orders).where(this).values(**values)).rowcount:
                self._releases.withdraw(connection, order_id)

    def was_used(self, order_id: int) -> bool:
        """Whether an order's code was returned to a caller."""
        with self._store.read() as connection:
            return self._records.value(connection, order_id, orders.c.used_at) is not None

    def unclaimed_for(self, order_id: int) -> float | None:
        """For how many seconds an order that was bought is unclaimed; `None` where a caller has it."""
        with self._store.read() as connection:
            since = self._records.value(connection, order_id, orders.c.unclaimed_since)
            return None if since is None else self._store.now(connection) - since

    def is_in_hand(self, order_id: int) -> bool:
        """Whether a call that holds an order, or waits for it, has sent a heartbeat lately."""
        with self._store.read() as connection:
            alive_since = self._store.now(connection) - self._forgotten
            is_used = sa.or_(is_held(alive_since), is_awaited(alive_since))
            return bool(self._records.value(connection, order_id, is_used))

    def holder_of(self, order_id: int) -> str | None:
        """The newest call that works with an order; `None` where none has said so."""
        with self._store.read() as connection:
            return self._records.value(connection, order_id, orders.c.holder)

    def is_taken_over(self, order_id: int, holder: str) -> bool:
        """Whether a newer call than `holder` has got an order by its key."""
        return self.holder_of(order_id) not in (None, holder)

    def holder_here(self, order_id: int) -> str | None:
        """The call of this process that holds an order; `None` where none does."""
        held = holding.held(self._name, order_id)
        return None if held is None else held.holder

    def end_here(self, order_id: int) -> None:
        """What the end of the task means that still holds an order in this process, if one does."""
        held = holding.held(self._name, order_id)
        if held is not None:
            held.at_end()

    def was_used_long_ago(self, order_id: int) -> bool:
        """Whether an order's code was returned before any call that may still go on with it began."""
        with self._store.read() as connection:
            used_at = self._records.value(connection, order_id, orders.c.used_at)
            is_old = used_at is not None and used_at < self._store.now(connection) - DAY
        return is_old and not self.is_in_hand(order_id)

    def note_reconciled(self, order_id: int) -> None:
        """Records that a reconciliation deals with an order now, so that others come first next time."""
        with self._store.write() as connection:
            self._records.update(connection, order_id, reconciled_at=self._store.now(connection))


def is_unclaimed(before: sa.ColumnElement[float]) -> sa.ColumnElement[bool]:
    """Picks the orders that were bought here, unclaimed before a time, and are not refunded."""
    return sa.and_(
        orders.c.key.is_not(None), orders.c.unclaimed_since <= before, orders.c.refunded_at.is_(None)
    )


def is_held(alive_since: float | sa.ColumnElement[float]) -> sa.ColumnElement[bool]:
    """Picks the orders that a process holds, with a heartbeat after a time of the store's clock."""
    heartbeats = (orders.c.unclaimed_since, orders.c.held_at)
    return sa.or_(*(sa.func.coalesce(heartbeat, 0.0) > alive_since for heartbeat in heartbeats))


def is_unused(
    before: sa.ColumnElement[float],
    alive_since: sa.ColumnElement[float],
    held_since: sa.ColumnElement[float],
) -> sa.ColumnElement[bool]:
    """Picks the orders that were bought here, are neither refunded nor used, and that no call waits for.

    Args:
        before: by the store's clock; only orders that were bought and last waited for earlier.
        alive_since: a wait that was seen later is alive.
        held_since: the same for the process that holds an order: its heartbeats are rarer.
    """
    return sa.and_(
        orders.c.key.is_not(None),
        orders.c.used_at.is_(None),
        orders.c.refunded_at.is_(None),
        orders.c.first_seen_at <= before,
        sa.func.coalesce(orders.c.waiter_since, 0.0) <= before,
        sa.not_(is_held(held_since)),
        sa.not_(is_awaited(alive_since)),
    )
