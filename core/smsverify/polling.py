"""Asking the service for everybody who waits: when, for which orders, and what becomes of the answers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from smsverify.budget import Priority
from smsverify.errors import (
    AuthenticationError,
    NotFoundError,
    RateLimitedError,
    ServiceError,
    SmsVerifyError,
    StoreError,
)
from smsverify.following import NOT_FOUND, Following
from smsverify.hints import Hints, alive_for
from smsverify.models import KNOWN_STATUSES, has_ended
from smsverify.orders import Orders
from smsverify.store import Store, looks, polls, waits

log = logging.getLogger(__name__)

# In seconds of a service whose minute lasts a minute.
DIRECT_POLL = 1.5  # for each order between two polls while few are waited for
LIST_POLL = 5.0  # between two polls of more

FEW = 2  # up to so many orders are asked for directly, more by the list
DIRECT_LOOKS = 1  # orders that a poll by the list asks for besides, the longest unseen first
# So often in a row an order has to have news that the list did not show, before the list counts as blind;
# then the orders are asked for one by one, with this share of what the budget allows in the meantime. Now and
# then the list gets another chance.
BLIND_AFTER = 2
BLIND_SHARE = 0.8
CHANCES = 20  # polls between two chances


class Poller:
    """The polls of one account, taken by whichever process finds one due.

    Args:
        store: where the processes meet.
        orders: asks the service, and keeps what it says.
        following: knows the orders that are followed.
        account: whose orders they are.
        tempo: how long the service's minute is in real minutes.
        rate_limit: requests that the service allows in its minute.
    """

    def __init__(
        self,
        store: Store,
        orders: Orders,
        following: Following,
        account: str,
        *,
        tempo: float,
        rate_limit: int,
    ) -> None:
        self._store = store
        self._orders = orders
        self._following = following
        self._account = account
        self._tempo = tempo
        self._blind_looks = max(1, int(rate_limit * LIST_POLL / 60 * BLIND_SHARE))
        self._hints = Hints(store, account, tempo=tempo, rate_limit=rate_limit)
        self._polls = 0
        self._thread: threading.Thread | None = None
        self._hint_thread: threading.Thread | None = None
        self._told_statuses: set[tuple[int, str]] = set()

    def follow_hints(self) -> None:
        """Asks for orders that callbacks hint at or readers follow, in a thread of its own, if it is time."""
        if self._hint_thread is not None and self._hint_thread.is_alive():
            return
        hinted = self._hints.take_due() or self._following.take_due()
        if hinted:
            self._hint_thread = threading.Thread(
                target=self._ask_hinted, args=(hinted,), name="smsverify-poll", daemon=True
            )
            self._hint_thread.start()

    def _ask_hinted(self, hinted: list[tuple[int, Priority]]) -> None:
        with self._going_on():
            for order_id, priority in hinted:
                self._ask(order_id, priority, is_news=None)

    def poll_if_due(self) -> None:
        """Asks the service, in a thread of its own, if it is time and nobody else does."""
        if self._thread is not None and self._thread.is_alive():
            return
        with self._store.read() as connection:
            next_at = connection.execute(
                sa.select(polls.c.next_at).where(polls.c.account == self._account)
            ).scalar_one()
            if next_at > self._store.now(connection) and next_at < self._store.now(connection) + 60:
                return
        awaited = self._claim_poll()
        if awaited:
            self._thread = threading.Thread(
                target=self._poll_for,
                args=(awaited,),
                name="smsverify-poll",
                daemon=True,
            )
            self._thread.start()

    def _claim_poll(self) -> list[int]:
        """The orders to ask for, the longest unseen first; none where another process was quicker."""
        with self._store.write() as connection:
            now = self._store.now(connection)
            asked_at = sa.func.min(sa.func.coalesce(looks.c.status_at, 0))
            alive = waits.c.seen_at.between(now - alive_for(self._tempo), now + alive_for(self._tempo))
            same = sa.and_(looks.c.account == waits.c.account, looks.c.order_id == waits.c.order_id)
            rows = connection.execute(
                sa.select(waits.c.order_id)
                .outerjoin(looks, same)
                .where(waits.c.account == self._account, alive)
                .group_by(waits.c.order_id)
                .order_by(asked_at, waits.c.order_id)
            )
            awaited = [row.order_id for row in rows]
            pause = self._tempo * (DIRECT_POLL * len(awaited) if len(awaited) <= FEW else LIST_POLL)
            claimed = connection.execute(
                sa.update(polls)
                .where(
                    polls.c.account == self._account,
                    sa.or_(polls.c.next_at <= now, polls.c.next_at > now + 60),
                )
                .values(next_at=now + pause)
            )
            return awaited if claimed.rowcount else []

    def _poll_for(self, awaited: list[int]) -> None:
        """One poll for all who wait for these orders."""
        with self._going_on():
            for order_id, priority, is_news in self._worth_asking(awaited):
                self._ask(order_id, priority, is_news=is_news)
            self._orders.retry_releases(limit=1)

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Of what goes wrong in a poll, only a refused key ends waits."""
        try:
            yield
        except AuthenticationError as error:
            self._note_refusal(error)
        except (RateLimitedError, StoreError) as error:
            log.warning("A poll failed, the next one is due as always: %s", error)
        except Exception:
            log.exception("A poll failed unexpectedly, the next one is due as always")

    def _worth_asking(self, awaited: list[int]) -> list[tuple[int, Priority, bool | None]]:
        """Which orders to ask for: those that the list shows to have changed, and the longest unseen.

        With each, whether the list has shown news of it; `None` where it was not read.
        """
        if len(awaited) <= FEW:
            return [(order_id, Priority.POLL, None) for order_id in awaited]
        self._polls += 1
        if self._list_is_blind() and self._polls % CHANCES:
            return [(order_id, Priority.POLL, None) for order_id in awaited[: self._blind_looks]]
        try:
            listed = {order.order_id: order.status for order in self._orders.read_list()[0]}
        except (AuthenticationError, RateLimitedError, StoreError):
            raise
        except SmsVerifyError as error:
            log.warning("The list of orders can not be read, they are asked for one by one: %s", error)
            return [(order_id, Priority.POLL, None) for order_id in awaited[: 1 + DIRECT_LOOKS]]
        before = self._note_listed(awaited, listed)
        changed = [
            order_id
            for order_id in awaited
            if order_id in listed
            and (has_ended(listed[order_id]) or listed[order_id] != before.get(order_id, listed[order_id]))
        ]
        unseen = [order_id for order_id in awaited if order_id not in changed][:DIRECT_LOOKS]
        return [(order_id, Priority.RELEASE, True) for order_id in changed] + [
            (order_id, Priority.POLL, False if order_id in listed else None) for order_id in unseen
        ]

    def _list_is_blind(self) -> bool:
        with self._store.read() as connection:
            misses = connection.execute(
                sa.select(polls.c.list_misses).where(polls.c.account == self._account)
            ).scalar_one()
        return bool(misses >= BLIND_AFTER)

    def _judge_list(self, *, has_shown: bool) -> None:
        """Remembers whether the list has shown what an order's status did."""
        misses = 0 if has_shown else polls.c.list_misses + 1
        with self._store.write() as connection:
            connection.execute(
                sa.update(polls).where(polls.c.account == self._account).values(list_misses=misses)
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
            status = self._orders.look(order_id, priority=priority)
        except NotFoundError:
            self._note(order_id, status=None if self._orders.is_fresh(order_id) else NOT_FOUND)
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
            log.warning("Order %d has the status %r, which is not known; waiting goes on", order_id, word)
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
