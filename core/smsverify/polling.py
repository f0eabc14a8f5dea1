"""Asking the service for everybody who waits: when, for which orders, and what becomes of the answers."""

from __future__ import annotations

import logging
import threading
from typing import Any

import sqlalchemy as sa

from smsverify.api import ServiceApi
from smsverify.budget import Priority
from smsverify.errors import (
    AuthenticationError,
    NotFoundError,
    RateLimitedError,
    ServiceError,
    SmsVerifyError,
    StoreError,
)
from smsverify.models import KNOWN_STATUSES, has_ended
from smsverify.orders import Orders
from smsverify.store import Store, looks, polls, waits

log = logging.getLogger(__name__)

# In seconds of a service whose minute lasts a minute.
DIRECT_POLL = 1.5  # for each order between two polls while few are waited for
LIST_POLL = 5.0  # between two polls of more
ALIVE = 15.0  # a wait that has not been seen for this long is dead

FEW = 2  # up to so many orders are asked for directly, more by the list
DIRECT_LOOKS = 1  # orders that a poll by the list asks for besides, the longest unseen first
NOT_FOUND = "not found"  # stands for the status of an order that the service does not know


def alive_for(tempo: float) -> float:
    """Seconds after which a wait that gives no sign of life is taken for dead."""
    return max(ALIVE * tempo, 5.0)


class Poller:
    """The polls of one account, taken by whichever process finds one due.

    Args:
        store: where the processes meet.
        api: the service.
        orders: where the answers go.
        account: whose orders they are.
        tempo: how long the service's minute is in real minutes.
    """

    def __init__(self, store: Store, api: ServiceApi, orders: Orders, account: str, *, tempo: float) -> None:
        self._store = store
        self._api = api
        self._orders = orders
        self._account = account
        self._tempo = tempo
        self._thread: threading.Thread | None = None
        self._told_statuses: set[tuple[int, str]] = set()

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
        """One poll for all who wait for these orders. Of what goes wrong, only a refused key ends waits."""
        try:
            for order_id, priority in self._worth_asking(awaited):
                self._ask(order_id, priority)
            self._orders.retry_releases(limit=1)
        except AuthenticationError as error:
            self._note_refusal(error)
        except (RateLimitedError, StoreError) as error:
            log.warning("A poll failed, the next one is due as always: %s", error)
        except Exception:
            log.exception("A poll failed unexpectedly, the next one is due as always")

    def _worth_asking(self, awaited: list[int]) -> list[tuple[int, Priority]]:
        """Which orders to ask for: those that the list shows to have changed, and the longest unseen."""
        if len(awaited) <= FEW:
            return [(order_id, Priority.POLL) for order_id in awaited]
        try:
            listed = {order.order_id: order.status for order in self._orders.read_list()[0]}
        except (AuthenticationError, RateLimitedError, StoreError):
            raise
        except SmsVerifyError as error:
            log.warning("The list of orders can not be read, they are asked for one by one: %s", error)
            return [(order_id, Priority.POLL) for order_id in awaited[: 1 + DIRECT_LOOKS]]
        before = self._note_listed(awaited, listed)
        changed = [
            order_id
            for order_id in awaited
            if order_id in listed
            and (has_ended(listed[order_id]) or listed[order_id] != before.get(order_id, listed[order_id]))
        ]
        unseen = [order_id for order_id in awaited if order_id not in changed][:DIRECT_LOOKS]
        return [(order_id, Priority.RELEASE) for order_id in changed] + [
            (order_id, Priority.POLL) for order_id in unseen
        ]

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

    def _ask(self, order_id: int, priority: Priority) -> None:
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
