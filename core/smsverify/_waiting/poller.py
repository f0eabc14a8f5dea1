"""Asking the service for everybody who waits: when, for which orders, and what becomes of the answers.

One order is asked for by its status. Of several, the list of orders tells which have news, and those alone
are asked for; so a poll costs the same whether two wait or fifty. Orders that the list can not tell of,
because it shows only the 50 newest or no completions at all, are asked for one by one beside it, a few with
each poll: those first that are longest unseen for their age, so that fresh ones come more often than old
ones.

How often that is, `pace` says.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from smsverify._messages.inbox import came_at
from smsverify._orders.orders import Orders
from smsverify._service.rate_limit import Priority, RateLimit
from smsverify._store.store import Store
from smsverify._store.tables import looks, messages, polls, waits
from smsverify._waiting import pace
from smsverify._waiting.hints import Hints, alive_for
from smsverify._waiting.subscriptions import NOT_FOUND, Consumers
from smsverify.errors import (
    AuthenticationError,
    NotFoundError,
    RateLimitedError,
    ServiceError,
    SmsVerifyError,
    StoreError,
)
from smsverify.models import KNOWN_STATUSES, has_ended
from smsverify.text import log_of, masked

log = log_of(__name__)

# So often in a row an order has to have news that the list did not show, before the list counts as blind;
# then the orders are asked for one by one. Now and then the list gets another chance.
BLIND_AFTER = 2
PROVEN = -1  # stands for the number of misses once the list has shown a completion
# Polls by the list between two looks at an order that it shows no news of; the second, where it is proven.
CHECKS = 3
RARE_CHECKS = 10
CHANCES = 20  # polls without a blind list between two chances for it


@dataclass(frozen=True)
class _Awaited:
    """An order that somebody waits for.

    Attributes:
        age: seconds since the first of those who wait began.
        unseen: seconds since its status was asked for, by anybody.
    """

    order_id: int
    age: float
    unseen: float


def by_turn(awaited: list[_Awaited]) -> list[int]:
    """Orders that are asked for one by one: those first that are longest unseen for their age."""
    return [
        one.order_id for one in sorted(awaited, key=lambda one: (-one.unseen / max(one.age, 1e-3), one.age))
    ]


class Poller:
    """The polls of one account, taken by whichever process finds one due.

    Args:
        store: where the processes meet.
        rate_limit: the requests that all share.
        orders: asks the service, and keeps what it says.
        consumers: knows the orders that are followed.
        account: whose orders they are.
    """

    def __init__(
        self, store: Store, rate_limit: RateLimit, orders: Orders, consumers: Consumers, account: str
    ) -> None:
        self._store = store
        self._rate_limit = rate_limit
        self._orders = orders
        self._consumers = consumers
        self._account = account
        self._time_scale = rate_limit.period / 60
        self._hints = Hints(store, account, time_scale=self._time_scale, rate_limit=rate_limit.limit)
        self._polls = 0
        self._unlisted = 0
        self._one_by_one = 1
        self._thread: threading.Thread | None = None
        self._hint_thread: threading.Thread | None = None
        self._told_statuses: set[tuple[int, str]] = set()

    def follow_hints(self, when_asked: Callable[[], None]) -> None:
        """Asks for orders of callbacks and subscriptions, in a thread of its own, if it is time.

        `when_asked` is called after each answer that may end a wait.
        """
        if self._hint_thread is not None and self._hint_thread.is_alive():
            return
        hinted = self._hints.take_due() or self._consumers.take_due()
        if hinted:
            self._hint_thread = threading.Thread(
                target=self._ask_hinted, args=(hinted, when_asked), name="smsverify-poll", daemon=True
            )
            self._hint_thread.start()

    def _ask_hinted(self, hinted: list[tuple[int, Priority]], when_asked: Callable[[], None]) -> None:
        with self._going_on(when_asked):
            for order_id, priority in hinted:
                self._ask(order_id, priority, is_news=None)
                when_asked()

    def is_due(self, next_at: float, now: float) -> bool:
        """Whether a poll that is on record for `next_at` is due."""
        return pace.is_due(next_at, now, self._rate_limit.period)

    def poll(self, when_asked: Callable[[], None]) -> None:
        """Asks the service, in a thread of its own, unless somebody else does: for a poll that is due."""
        if self._thread is not None and self._thread.is_alive():
            return
        awaited = self._claim_poll()
        if awaited:
            self._thread = threading.Thread(
                target=self._poll_for,
                args=(awaited, when_asked),
                name="smsverify-poll",
                daemon=True,
            )
            self._thread.start()

    def expect(self, connection: sa.Connection) -> None:
        """Somebody begins to wait, in the caller's transaction: when his first poll is, and what it needs."""
        now = self._store.now(connection)
        called = self._first_safety_poll(connection)
        first_at = now + (called or pace.FIRST_SAFETY_POLL * self._time_scale)
        new = self._store.insert(polls).values(account=self._account, next_at=0)
        connection.execute(new.on_conflict_do_nothing())
        connection.execute(
            sa.update(polls)
            .where(polls.c.account == self._account, polls.c.next_at > first_at)
            .values(next_at=first_at)
        )
        if called is None:
            self._rate_limit.codes_are_polled_for(connection)

    # -------------------------------------------------------------- when

    def _claim_poll(self) -> list[_Awaited]:
        """The orders that are waited for; none where another process was quicker, or it is not time yet."""
        with self._store.read() as connection:
            awaited = self._awaited(connection)
            first_poll = self._first_safety_poll(connection)
        rate_limit = self._rate_limit
        poll = pace.next_poll(
            rate_limit.limit,
            rate_limit.period,
            ages=[one.age for one in awaited],
            load=rate_limit.load(),
            unlisted=None if self._list_is_blind() else self._unlisted,
            first_poll=first_poll,
        )
        self._one_by_one = poll.one_by_one
        with self._store.write() as connection:
            now = self._store.now(connection)
            is_due = sa.or_(polls.c.next_at <= now, polls.c.next_at > now + pace.farthest(rate_limit.period))
            claimed = connection.execute(
                sa.update(polls)
                .where(polls.c.account == self._account, is_due)
                .values(next_at=now + poll.pause)
            )
            if not claimed.rowcount or not awaited:
                return []
            self._rate_limit.codes_are_polled_for(connection, first_poll is None)
        return awaited if poll.is_made else []

    def _awaited(self, connection: sa.Connection) -> list[_Awaited]:
        now = self._store.now(connection)
        alive = waits.c.seen_at.between(now - alive_for(self._time_scale), now + alive_for(self._time_scale))
        same = sa.and_(looks.c.account == waits.c.account, looks.c.order_id == waits.c.order_id)
        since, seen_at = sa.func.min(waits.c.since), sa.func.max(looks.c.status_at)
        rows = connection.execute(
            sa.select(waits.c.order_id, since.label("since"), seen_at.label("seen_at"))
            .outerjoin(looks, same)
            .where(waits.c.account == self._account, alive)
            .group_by(waits.c.order_id)
        )
        return [
            _Awaited(
                row.order_id,
                age=max(now - row.since, 0.0),
                unseen=max(now - (row.since if row.seen_at is None else row.seen_at), 0.0),
            )
            for row in rows
        ]

    def _first_safety_poll(self, connection: sa.Connection) -> float | None:
        """What `pace` says of the callbacks that have come, and of what they have not brought."""
        last = sa.select(polls.c.callback_at).where(polls.c.account == self._account)
        newest = connection.execute(
            sa.select(messages.c.called_at, came_at.label("came_at"))
            .where(messages.c.account == self._account)
            .order_by(messages.c.id.desc())
            .limit(max(self._rate_limit.limit, pace.PROOF))
        )
        return pace.first_safety_poll(
            self._rate_limit.period,
            now=self._store.now(connection),
            callback_at=connection.execute(last).scalar(),
            newest=[pace.Arrival(row.came_at, row.called_at) for row in newest],
        )

    # -------------------------------------------------------------- for which orders

    def _poll_for(self, awaited: list[_Awaited], when_asked: Callable[[], None]) -> None:
        """One poll for all who wait for these orders."""
        with self._going_on(when_asked):
            for order_id, priority, is_news in self._worth_asking(awaited):
                # Those before it may have waited for their turns so long that a callback has come meanwhile.
                if self._is_awaited(order_id):
                    self._ask(order_id, priority, is_news=is_news)
                    when_asked()
            self._orders.cancelling.retry_releases(limit=1)

    def _is_awaited(self, order_id: int) -> bool:
        with self._store.read() as connection:
            mine = sa.and_(waits.c.account == self._account, waits.c.order_id == order_id)
            return connection.execute(sa.select(waits.c.id).where(mine)).first() is not None

    @contextmanager
    def _going_on(self, when_asked: Callable[[], None]) -> Iterator[None]:
        """Of what goes wrong in a poll, only a refused key ends waits."""
        try:
            yield
        except AuthenticationError as error:
            self._note_refusal(error)
            when_asked()
        except (RateLimitedError, StoreError) as error:
            log.warning("A poll failed, the next one is due as always: %s", error)
        except Exception:
            log.exception("A poll failed unexpectedly, the next one is due as always")

    def _worth_asking(self, awaited: list[_Awaited]) -> list[tuple[int, Priority, bool | None]]:
        """Which orders to ask for: those that the list shows to have changed, and some that it does not show.

        With each, whether the list has shown news of it; `None` where it was not read, or does not show it.
        """
        order_ids = by_turn(awaited)
        self._polls += 1
        if len(order_ids) == 1 or (self._list_is_blind() and self._polls % CHANCES):
            return [(order_id, Priority.POLL, None) for order_id in order_ids[: self._one_by_one]]
        try:
            orders = self._orders.status.read_list(priority=Priority.POLL).rows
        except (AuthenticationError, RateLimitedError, StoreError):
            raise
        except SmsVerifyError as error:
            log.warning("The list of orders can not be read, they are asked for one by one: %s", error)
            return [(order_id, Priority.POLL, None) for order_id in order_ids[: self._one_by_one]]
        listed = {order.order_id: order.status for order in orders}
        before = self._note_listed(order_ids, listed)
        changed = [
            order_id
            for order_id in order_ids
            if order_id in listed
            and (has_ended(listed[order_id]) or listed[order_id] != before.get(order_id, listed[order_id]))
        ]
        unlisted = [order_id for order_id in order_ids if order_id not in listed]
        self._unlisted = len(unlisted)
        unchanged = [order_id for order_id in order_ids if order_id in listed and order_id not in changed]
        checked = unchanged[:1] if not self._polls % self._checks_every() else []
        return [
            *((order_id, Priority.RELEASE, True) for order_id in changed),
            *((order_id, Priority.POLL, None) for order_id in unlisted[: self._one_by_one]),
            *((order_id, Priority.POLL, False) for order_id in checked),
        ]

    def _list_is_blind(self) -> bool:
        return self._misses() >= BLIND_AFTER

    def _checks_every(self) -> int:
        return RARE_CHECKS if self._misses() == PROVEN else CHECKS

    def _misses(self) -> int:
        """How often in a row the list has not shown news; `PROVEN` where it has shown them last."""
        with self._store.read() as connection:
            misses = sa.select(polls.c.list_misses).where(polls.c.account == self._account)
            return int(connection.execute(misses).scalar_one())

    def _judge_list(self, *, has_shown: bool) -> None:
        """Remembers whether the list has shown what an order's status did."""
        if has_shown and self._misses() == PROVEN:
            return
        one_more = sa.case((polls.c.list_misses < 0, 1), else_=polls.c.list_misses + 1)
        with self._store.write() as connection:
            connection.execute(
                sa.update(polls)
                .where(polls.c.account == self._account)
                .values(list_misses=PROVEN if has_shown else one_more)
            )

    def _note_listed(self, awaited: list[int], listed: dict[int, str]) -> dict[int, str]:
        """Keeps what the list says of these orders; returns what it said before."""
        mine = sa.and_(looks.c.account == self._account, looks.c.order_id.in_(awaited))
        with self._store.write() as connection:
            before = {
                row.order_id: row.listed_status
                for row in connection.execute(sa.select(looks.c.order_id, looks.c.listed_status).where(mine))
                if row.listed_status is not None
            }
            for order_id in awaited:
                if order_id in listed and listed[order_id] != before.get(order_id):
                    self._put(connection, order_id, listed_status=listed[order_id])
        return before

    def _ask(self, order_id: int, priority: Priority, *, is_news: bool | None) -> None:
        try:
            status = self._orders.status.read(order_id, priority=priority)
        except NotFoundError:
            self._note(order_id, status=None if self._orders.status.is_fresh(order_id) else NOT_FOUND)
            return
        except (AuthenticationError, RateLimitedError, StoreError):
            raise
        except SmsVerifyError as error:
            # Noted as seen, so that it does not stand in the way of the others.
            log.warning("Order %d can not be looked at, the next poll is due as always: %s", order_id, error)
            self._note(order_id)
            return
        word = status.status.strip().lower()
        if word not in KNOWN_STATUSES and (order_id, word) not in self._told_statuses:
            self._told_statuses.add((order_id, word))
            log.warning(
                "Order %d has the status %r, which is not known; waiting goes on", order_id, masked(word)
            )
        if is_news is not None and word == "completed":
            self._judge_list(has_shown=is_news)
        self._note(order_id, status=word, is_empty_end=status.ended and not status.arrived)

    def _note(self, order_id: int, *, is_empty_end: bool = False, **values: str | None) -> None:
        with self._store.write() as connection:
            now = self._store.now(connection)
            self._put(
                connection,
                order_id,
                **values,
                status_at=now,
                empty_ends=looks.c.empty_ends + 1 if is_empty_end else 0,
            )

    def _put(self, connection: sa.Connection, order_id: int, **values: Any) -> None:
        first = values | ({"empty_ends": 1} if not isinstance(values.get("empty_ends", 0), int) else {})
        insert = self._store.insert(looks).values(account=self._account, order_id=order_id, **first)
        connection.execute(
            insert.on_conflict_do_update(index_elements=[looks.c.account, looks.c.order_id], set_=values)
        )

    def _note_refusal(self, error: ServiceError) -> None:
        log.error("The service refuses the API key, all waits of this account end: %s", error)
        with self._store.write() as connection:
            connection.execute(
                sa.update(polls)
                .where(polls.c.account == self._account)
                .values(refused_at=self._store.now(connection), refusal=str(error))
            )
