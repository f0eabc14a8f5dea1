"""When the service is asked for which order. The process that claims a due look first makes it.

All orders that are waited for share one look, the poll: it reads the list where there are several. An order
has a look of its own where an unverified callback asks for it, or where a subscription follows it. Every
stranger who knows the documented address can send such callbacks, so they cost little: only orders that are
waited for or followed are asked for, each of them rarely, and callbacks without a secret take no more than a
share of the rate limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from smsverify._service.rate_limit import KeyRefusal, Priority, RateLimit
from smsverify._store.store import Store
from smsverify._store.tables import is_order, looks, messages, orders, polls, waits, was_seen_lately
from smsverify._waiting import pace
from smsverify.models import RENTALS, gets_no_more, may_get_several
from smsverify.text import log_of

log = log_of(__name__)

# Stands for the status of an order that the service does not know. No status begins with a space: the spaces
# around the service's words are cut off. Where an older version has left "not found", that counts as any
# unknown word of the service: it ends nothing, and the next look at the order puts on record what is true.
NOT_FOUND = " not found"
AT_ONCE = 10  # urgent looks that are claimed in one go
# So often in a row an order has to have news that the list did not show, before the list counts as blind;
# then the orders are asked for one by one.
BLIND_AFTER = 2
PROVEN = -1  # stands for the number of misses once the list has shown a completion


@dataclass(frozen=True)
class Look:
    """What is to be asked for now.

    Attributes:
        order_ids: one order, or all that are waited for, the longest unseen for their age first.
        priority: of the request.
        one_by_one: of a poll, how many orders may be asked for by their status; `None` for one order's look.
        rentals: of a poll, the orders that may get several SMS; the list shows the first one at the most.
        is_list_worth: of a poll, whether the list may show news of two orders or more.
    """

    order_ids: Sequence[int]
    priority: Priority
    one_by_one: int | None = None
    rentals: frozenset[int] = frozenset()
    is_list_worth: bool = True


@dataclass(frozen=True)
class Awaited:
    """An order that is waited for.

    Attributes:
        age: seconds since its first wait began.
        unseen: seconds since its status was last asked for, by any process.
        is_rental: whether it may get several SMS.
        is_pending: whether it has no SMS yet, as far as is known.
    """

    order_id: int
    age: float
    unseen: float
    is_rental: bool = False
    is_pending: bool = True


def by_turn(awaited: list[Awaited]) -> list[int]:
    """Orders that are asked for one by one: those first that are longest unseen for their age."""
    return [
        one.order_id for one in sorted(awaited, key=lambda one: (-one.unseen / max(one.age, 1e-3), one.age))
    ]


class Schedule:
    """The looks of one account, for all processes.

    Args:
        store: where the processes meet.
        rate_limit: the requests that all share.
        account: whose orders they are.
    """

    def __init__(self, store: Store, rate_limit: RateLimit, account: str) -> None:
        self.unlisted = 0  # orders of which the last poll's list has said nothing
        self._store = store
        self._rate_limit = rate_limit
        self._account = account
        self._time_scale = rate_limit.period / 60
        self._alive = pace.alive_for(self._time_scale)
        self._reported: set[int] = set()
        self._refused_pause = pace.REFUSED_PAUSE * self._time_scale
        self._is_refused = False

    # -------------------------------------------------------------- who begins

    def expect(self, connection: sa.Connection) -> None:
        """Notes a new wait in the caller's transaction: when its first poll is, and what that needs."""
        called = self._first_safety_poll(connection)
        first_at = self._store.now(connection) + (called or pace.FIRST_SAFETY_POLL * self._time_scale)
        self.ensure(connection)
        is_later = polls.c.next_at > first_at
        connection.execute(
            sa.update(polls).where(polls.c.account == self._account, is_later).values(next_at=first_at)
        )
        if called is None:
            self._rate_limit.codes_are_polled_for(connection)

    def follow(self, connection: sa.Connection, order_ids: Iterable[int]) -> None:
        """A subscription follows these orders, and shows that it is alive, in the caller's transaction."""
        now = self._store.now(connection)
        self.ensure(connection)
        for order_id in order_ids:
            insert = self._store.insert(looks).values(account=self._account, order_id=order_id)
            values = {"followed_at": now, "next_at": sa.func.coalesce(looks.c.next_at, now)}
            connection.execute(
                insert.values(followed_at=now, next_at=now).on_conflict_do_update(
                    index_elements=[looks.c.account, looks.c.order_id], set_=values
                )
            )
        self._unfollow(connection, sa.not_(was_seen_lately(looks.c.followed_at, now, self._alive)))

    def unfollow(self, connection: sa.Connection) -> None:
        """A subscription has ended, in the caller's transaction. Others follow anew with a heartbeat."""
        self._unfollow(connection, looks.c.followed_at.is_not(None))

    def _unfollow(self, connection: sa.Connection, which: sa.ColumnElement[bool]) -> None:
        connection.execute(
            sa.update(looks)
            .where(looks.c.account == self._account, looks.c.next_at.is_not(None), which)
            .values(followed_at=None, next_at=sa.case((looks.c.by_secret.is_not(None), looks.c.next_at)))
        )

    def ensure(self, connection: sa.Connection) -> None:
        """Makes the account's row, if it is not there, in the caller's transaction."""
        new = self._store.insert(polls).values(account=self._account, next_at=0)
        connection.execute(new.on_conflict_do_nothing())

    # -------------------------------------------------------------- the key

    def key_refusal(self, connection: sa.Connection) -> KeyRefusal | None:
        """The refusal of this process's key; `None` where the service accepts it, as far as is known."""
        refusal = self._rate_limit.key_refusal(connection)
        self._is_refused = refusal is not None
        return refusal

    def note_refusal(self, text: str) -> None:
        """The service refuses this process's key. A process with another key makes the next poll at once."""
        with self._store.write() as connection:
            self._make_due(connection)
            self._rate_limit.note_key(connection, KeyRefusal(self._store.now(connection), text))
        self._is_refused = True

    def note_acceptance(self) -> None:
        """The service has accepted this process's key."""
        if self._is_refused:
            with self._store.write() as connection:
                self._rate_limit.note_key(connection, None)
            self._is_refused = False

    # -------------------------------------------------------------- what is due

    def is_poll_due(self, next_at: float, now: float) -> bool:
        """Whether a poll that is on record for `next_at` is due."""
        return pace.is_due(next_at, now, pace.farthest_poll(self._time_scale))

    def is_look_due(self, next_at: float | None, now: float) -> bool:
        """Whether a look at one order that is on record for `next_at` may be due."""
        return next_at is not None and pace.is_due(next_at, now, pace.farthest_look(self._time_scale))

    def claim_due(self, *, urgent: bool, looks: bool, poll: bool) -> list[Look]:
        """Claims what is to be asked for now, if no other process is quicker.

        Args:
            urgent: what the service itself has called for; otherwise the next one of all the others.
            looks: whether looks at one order may be due.
            poll: whether a poll may be due, and is wanted.
        """
        claimed: list[Look] = []
        for row in self._due_looks() if looks else ():
            if bool(row.by_secret) is urgent and self._claim(row):
                claimed.append(Look([row.order_id], Priority.RELEASE if urgent else Priority.POLL))
            if claimed and len(claimed) >= (AT_ONCE if urgent else 1):
                break
        if not claimed and not urgent and poll:
            return self._claim_poll()
        return claimed

    # -------------------------------------------------------------- looks at one order

    def _due_looks(self) -> list[Any]:
        """The looks at one order that are due and wanted, the longest due first."""
        with self._store.read() as connection:
            now = self._store.now(connection)
            awaited = sa.select(waits.c.id).where(
                waits.c.account == looks.c.account,
                waits.c.order_id == looks.c.order_id,
                was_seen_lately(waits.c.seen_at, now, self._alive),
            )
            is_followed = sa.func.coalesce(was_seen_lately(looks.c.followed_at, now, self._alive), sa.false())
            is_wanted = sa.or_(is_followed, sa.and_(looks.c.by_secret.is_not(None), awaited.exists()))
            rows = connection.execute(
                sa.select(looks, is_followed.label("is_followed"), orders.c.product)
                .outerjoin(orders, is_order(looks.c.account, looks.c.order_id))
                .where(looks.c.account == self._account, looks.c.next_at.is_not(None), is_wanted)
                .order_by(looks.c.next_at, looks.c.order_id)
            ).all()
            poll = connection.execute(sa.select(polls).where(polls.c.account == self._account)).one_or_none()
            refusal = self.key_refusal(connection)
        if poll is None:
            return []
        if refusal is not None and not self.is_look_due(refusal.at + self._refused_pause, now):
            return []  # they are left to processes whose key is accepted
        return [row for row in rows if self._is_due(row, poll, now)]

    def _is_due(self, row: Any, poll: Any, now: float) -> bool:
        times = [row.next_at]
        if row.by_secret is False:
            times.append(poll.unsigned_next_at or 0.0)
        if row.by_secret is None:
            if self._is_over(row):
                return False
            times.append(poll.subscription_next_at or 0.0)
            if row.status is not None:  # the last look or poll has seen it
                times.append((row.status_at or 0.0) + self._subscription_pause(poll, now))
        elif not row.tries and row.asked_at is not None:
            times.append(row.asked_at + pace.CALLBACK_PAUSE * self._time_scale)
        return all(self.is_look_due(at, now) for at in times)

    def repeat_look(self, order_id: int, seconds: float) -> None:
        """Has a subscription's look that has failed repeated, no later than after so many seconds.

        Those that a callback asks for are repeated in any case.
        """
        with self._store.write() as connection:
            next_at = self._store.now(connection) + seconds
            of_order = sa.and_(looks.c.account == self._account, looks.c.order_id == order_id)
            is_later = sa.and_(looks.c.by_secret.is_(None), looks.c.next_at > next_at)
            connection.execute(sa.update(looks).where(of_order, is_later).values(next_at=next_at))

    def _is_over(self, row: Any) -> bool:
        """Whether an order gets no message any more; a rental does after its first one."""
        if row.status == NOT_FOUND:
            if row.order_id not in self._reported:
                self._reported.add(row.order_id)
                log.warning("Order %d is followed, but the service does not know it", row.order_id)
            return True
        # An order that was not bought here may be a rental.
        return row.status is not None and gets_no_more(row.status, row.product or RENTALS[0])

    def _claim(self, row: Any) -> bool:
        """Takes a look, if no other process was quicker, and puts on record when the next one is."""
        with self._store.write() as connection:
            now = self._store.now(connection)
            poll = connection.execute(sa.select(polls).where(polls.c.account == self._account)).one_or_none()
            if poll is None:  # the database goes on with an older state
                return False
            values: dict[str, Any] = {"asked_at": now, "tries": row.tries + 1, "next_at": None}
            if row.is_followed:
                values["next_at"] = now + self._subscription_pause(poll, now)
            if row.by_secret is None:
                gate, pause = polls.c.subscription_next_at, pace.subscription_gap(self._rate_limit.limit)
            else:
                gate, pause = polls.c.unsigned_next_at, pace.unsigned_gap(self._rate_limit.limit)
                if values["tries"] < pace.CALLBACK_LOOKS:
                    values["next_at"] = now + pace.callback_retry(row.tries) * self._time_scale
                else:
                    values["by_secret"] = None
            if not row.by_secret and not self._pass(connection, gate, now, pause * self._time_scale):
                return False
            as_read = sa.and_(looks.c.order_id == row.order_id, looks.c.next_at == row.next_at)
            claimed = sa.update(looks).where(looks.c.account == self._account, as_read).values(**values)
            return bool(connection.execute(claimed).rowcount)

    def _pass(
        self, connection: sa.Connection, gate: sa.Column[float | None], now: float, pause: float
    ) -> bool:
        """Lets one look of its kind through in so many seconds."""
        is_free = sa.or_(
            sa.func.coalesce(gate, 0.0) <= now, gate > now + pace.farthest_look(self._time_scale)
        )
        taken = sa.update(polls).where(polls.c.account == self._account, is_free)
        return bool(connection.execute(taken.values({gate: now + pause})).rowcount)

    def _subscription_pause(self, poll: Any, now: float) -> float:
        is_called = now - (poll.callback_at or 0.0) < pace.CALLED
        return (pace.CALLED_SUBSCRIPTION if is_called else pace.SUBSCRIPTION) * self._time_scale

    # -------------------------------------------------------------- the poll

    def has_polled(self, seconds_ago: float) -> None:
        """Puts on record when the next poll is due, after one whose list was read so long ago.

        Its requests have changed what others leave, and may have waited long for their turn.
        """
        plan, look, first_poll = self._plan()
        if not look.order_ids:
            return
        if first_poll is not None:
            self._poll_in_doubt()
            return
        pause = max(plan.pause - seconds_ago, 0.0) if plan.is_made else plan.pause
        with self._store.write() as connection:
            this = polls.c.account == self._account
            next_at = self._store.now(connection) + pause
            connection.execute(sa.update(polls).where(this).values(next_at=next_at))

    def _poll_in_doubt(self) -> None:
        """Has the next poll made when the callback for a code that a poll has found is late."""
        with self._store.read() as connection:
            callback_at, newest = self._callbacks(connection)
        doubts_at = pace.doubts_at(self._rate_limit.period, callback_at=callback_at, newest=newest)
        if doubts_at is not None:
            with self._store.write() as connection:
                is_later = sa.and_(polls.c.account == self._account, polls.c.next_at > doubts_at)
                connection.execute(sa.update(polls).where(is_later).values(next_at=doubts_at))

    def repeat_poll(self, seconds: float) -> None:
        """Has a poll of which something has failed repeated, no later than after so many seconds.

        Where callbacks bring no codes, the next poll comes soon in any case.
        """
        with self._store.write() as connection:
            if self._first_safety_poll(connection) is not None:
                next_at = self._store.now(connection) + seconds
                is_later = sa.and_(polls.c.account == self._account, polls.c.next_at > next_at)
                connection.execute(sa.update(polls).where(is_later).values(next_at=next_at))

    def make_due(self) -> None:
        """Has the next poll made at once: the one that was claimed could not be made."""
        with self._store.write() as connection:
            self._make_due(connection)

    def _make_due(self, connection: sa.Connection) -> None:
        now = self._store.now(connection)
        connection.execute(sa.update(polls).where(polls.c.account == self._account).values(next_at=now))

    def _claim_poll(self) -> list[Look]:
        """The poll for all who wait; none where another process was quicker, or it is not time yet."""
        plan, look, first_poll = self._plan()
        with self._store.write() as connection:
            now = self._store.now(connection)
            farthest = now + pace.farthest_poll(self._time_scale)
            is_due = sa.or_(polls.c.next_at <= now, polls.c.next_at > farthest)
            claim = sa.update(polls).where(polls.c.account == self._account, is_due)
            claimed = connection.execute(claim.values(next_at=now + plan.pause))
            if not claimed.rowcount or not look.order_ids:
                return []
            self._rate_limit.codes_are_polled_for(connection, first_poll is None)
        return [replace(look, one_by_one=plan.one_by_one)] if plan.is_made else []

    def _plan(self) -> tuple[pace.Poll, Look, float | None]:
        """What `pace` says of a poll now, for which orders it is, and what `pace` says of the callbacks."""
        with self._store.read() as connection:
            awaited = self._awaited(connection)
            first_poll = self._first_safety_poll(connection)
            misses = self.list_misses(connection)
        rentals = frozenset(one.order_id for one in awaited if one.is_rental)
        listed = sum(one.is_pending or not one.is_rental for one in awaited)
        look = Look(by_turn(awaited), Priority.POLL, rentals=rentals, is_list_worth=listed > 1)
        plan = pace.next_poll(
            self._rate_limit.limit,
            self._rate_limit.period,
            ages=[one.age for one in awaited],
            load=self._rate_limit.load(),
            unlisted=self.unlisted if misses < BLIND_AFTER and look.is_list_worth else None,
            first_poll=first_poll,
            sharing=self._rate_limit.sharing,
        )
        return plan, look, first_poll

    def list_misses(self, connection: sa.Connection) -> int:
        """How often in a row the list has not shown news; `PROVEN` where it has shown them last."""
        query = sa.select(polls.c.list_misses).where(polls.c.account == self._account)
        return connection.execute(query).scalar() or 0

    def note_list(self, *, has_shown: bool) -> None:
        """Puts on record whether the list has shown what an order's status did."""
        with self._store.read() as connection:
            if has_shown and self.list_misses(connection) == PROVEN:
                return
        one_more = sa.case((polls.c.list_misses < 0, 1), else_=polls.c.list_misses + 1)
        with self._store.write() as connection:
            this = sa.update(polls).where(polls.c.account == self._account)
            connection.execute(this.values(list_misses=PROVEN if has_shown else one_more))

    def _awaited(self, connection: sa.Connection) -> list[Awaited]:
        now = self._store.now(connection)
        same = sa.and_(looks.c.account == waits.c.account, looks.c.order_id == waits.c.order_id)
        rows = connection.execute(
            sa.select(waits.c.order_id, waits.c.since, looks.c.status_at, orders.c.product, orders.c.status)
            .outerjoin(looks, same)
            .outerjoin(orders, is_order(waits.c.account, waits.c.order_id))
            .where(waits.c.account == self._account, was_seen_lately(waits.c.seen_at, now, self._alive))
        ).all()
        first: dict[int, Any] = {}
        for row in sorted(rows, key=lambda row: (row.since, row.order_id)):
            first.setdefault(row.order_id, row)
        return [
            Awaited(
                row.order_id,
                age=max(now - row.since, 0.0),
                unseen=max(now - (row.since if row.status_at is None else row.status_at), 0.0),
                is_rental=may_get_several(row.product),
                is_pending=row.status in (None, "pending"),
            )
            for row in first.values()
        ]

    def _first_safety_poll(self, connection: sa.Connection) -> float | None:
        """What `pace` says of the callbacks that have come, and of what they have not brought."""
        callback_at, newest = self._callbacks(connection)
        return pace.first_safety_poll(
            self._rate_limit.period,
            now=self._store.now(connection),
            callback_at=callback_at,
            newest=newest,
            is_configured=not self._rate_limit.sharing.expects_polls,
        )

    def _callbacks(self, connection: sa.Connection) -> tuple[float | None, list[pace.Arrival]]:
        """When the last callback came, and the newest messages."""
        last = sa.select(polls.c.callback_at).where(polls.c.account == self._account)
        newest = connection.execute(
            sa.select(messages.c.called_at, messages.c.came_at)
            .where(messages.c.account == self._account)
            .order_by(messages.c.id.desc())
            .limit(max(self._rate_limit.limit, pace.PROOF))
        )
        arrivals = [pace.Arrival(row.came_at, row.called_at) for row in newest]
        return connection.execute(last).scalar(), arrivals
