"""Consumers: they read all messages as they come, each message once, for as long as they run.

A consumer has a name, under which the store keeps its cursor. One process at a time has its place: a process
that starts while another still sends heartbeats waits for its turn. So two triggerers, or a service that
is started twice, do not read the same messages. The service is asked for their orders now and then, much more
rarely than for orders whose code is waited for, and hardly at all if callbacks bring the messages.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import time
import uuid
from collections.abc import Iterable

import sqlalchemy as sa

from smsverify._messages.inbox import Inbox
from smsverify._runtime.clock import DAY
from smsverify._store.store import Store
from smsverify._store.tables import consumers, looks, messages, orders, was_seen_lately
from smsverify._waiting.pace import alive_for
from smsverify._waiting.schedule import Schedule
from smsverify.errors import WaitStoppedError
from smsverify.models import RENTALS, Message, gets_no_more
from smsverify.text import log_of

log = log_of(__name__)

BATCH = 1000  # messages that a consumer is given at once, at the most


class Consumers:
    """The consumers of one account.

    Args:
        store: where they meet.
        schedule: asks the service for the orders that they follow.
        account: whose messages they read.
        time_scale: how long the service's minute is in real minutes.
    """

    def __init__(self, store: Store, schedule: Schedule, account: str, *, time_scale: float) -> None:
        self._store = store
        self._schedule = schedule
        self._account = account
        self._alive = alive_for(time_scale)

    @property
    def alive(self) -> float:
        """Seconds after which a holder that sends no heartbeat is taken for dead."""
        return self._alive

    # -------------------------------------------------------------- a consumer's place

    def take(self, name: str, holder: str) -> int | None:
        """Takes a consumer's place; a new consumer begins with what comes from now on.

        Returns:
            the id of the last message that it has read; `None` if another holder is alive.
        """
        newest = sa.select(sa.func.coalesce(sa.func.max(messages.c.id), 0)).where(
            messages.c.account == self._account
        )
        with self._store.write() as connection:
            now = self._store.now(connection)
            insert = self._store.insert(consumers).values(
                account=self._account, name=name, cursor=newest.scalar_subquery(), seen_at=now
            )
            connection.execute(insert.on_conflict_do_nothing())
            is_free = sa.or_(
                consumers.c.holder.is_(None),
                consumers.c.holder == holder,
                sa.not_(was_seen_lately(consumers.c.seen_at, now, self._alive)),
            )
            taken = connection.execute(
                sa.update(consumers).where(self._consumer(name), is_free).values(holder=holder, seen_at=now)
            )
            if not taken.rowcount:
                return None
            return int(
                connection.execute(sa.select(consumers.c.cursor).where(self._consumer(name))).scalar_one()
            )

    def keep(self, name: str, holder: str, order_ids: Iterable[int] | None) -> bool:
        """A heartbeat, with the orders that are followed: `None` for all that may get messages.

        Returns:
            whether the place is still this holder's.
        """
        with self._store.write() as connection:
            now = self._store.now(connection)
            mine = sa.and_(self._consumer(name), consumers.c.holder == holder)
            if not connection.execute(sa.update(consumers).where(mine).values(seen_at=now)).rowcount:
                return False
            wanted = self._receiving(connection) if order_ids is None else order_ids
            self._schedule.follow(connection, set(wanted))
            return True

    def advance(self, name: str, holder: str, message_id: int) -> bool:
        """Notes how far a consumer has read; `False` if its place is another holder's by now."""
        mine = sa.and_(self._consumer(name), consumers.c.holder == holder)
        with self._store.write() as connection:
            moved = connection.execute(
                sa.update(consumers)
                .where(mine)
                .values(
                    cursor=sa.case((consumers.c.cursor < message_id, message_id), else_=consumers.c.cursor)
                )
            )
            return bool(moved.rowcount)

    def leave(self, name: str, holder: str) -> None:
        """Gives a consumer's place up at once."""
        mine = sa.and_(self._consumer(name), consumers.c.holder == holder)
        with self._store.write() as connection:
            if connection.execute(sa.update(consumers).where(mine).values(holder=None)).rowcount:
                self._schedule.unfollow(connection)

    def _receiving(self, connection: sa.Connection) -> list[int]:
        """The rentals that run, as far as is known, and the orders that an unverified callback is about."""
        # Their ends are of the calendar, which may be set. So the store's time has to say the same.
        wall, now = self._store.wall(connection), self._store.now(connection)
        lasts_until = orders.c.first_seen_at + orders.c.expires_at - orders.c.created_at
        may_run = sa.or_(
            orders.c.expires_at.is_(None), orders.c.expires_at > wall - DAY, lasts_until > now - DAY
        )
        rows = connection.execute(
            sa.select(orders.c.order_id, orders.c.status).where(
                orders.c.account == self._account, orders.c.rental_since > 0, may_run
            )
        )
        running = [row.order_id for row in rows if not gets_no_more(row.status, RENTALS[0])]
        called = connection.execute(
            sa.select(looks.c.order_id).where(
                looks.c.account == self._account, looks.c.next_at.is_not(None), looks.c.by_secret
            )
        )
        return running + [row.order_id for row in called]

    def _consumer(self, name: str) -> sa.ColumnElement[bool]:
        return sa.and_(consumers.c.account == self._account, consumers.c.name == name)


Batch = list[tuple[int, Message]]


class Subscription:
    """Reads all messages of some orders, or of all. `SmsVerifyHook.subscribe` makes one."""

    def __init__(self, consumers: Consumers, consumer: str, order_ids: frozenset[int] | None) -> None:
        self.consumer = consumer
        self.order_ids = order_ids
        self.id = uuid.uuid4().hex
        self.read_to: int | None = None  # while it is not its turn
        self.next_try = 0.0  # to take the place
        self.asked: concurrent.futures.Future[Batch] | None = None
        self.is_over = False
        self.refusal: BaseException | None = None
        self._consumers = consumers

    def next(self) -> concurrent.futures.Future[Batch]:
        """A future of the next messages, each with its id, the oldest first. It ends when there are any.

        It ends with a `WaitStoppedError` if another process has taken the consumer's place meanwhile, and
        with an `AuthenticationError` if the service refuses the key.
        """
        asked: concurrent.futures.Future[Batch] = concurrent.futures.Future()
        self.asked = asked
        if self.is_over:
            self.fail(self.refusal or self._displaced())
        return asked

    def advance(self, message_id: int) -> None:
        """Puts on record that the caller has dealt with all messages up to this one: none comes again.

        Raises:
            WaitStoppedError: another process has taken the consumer's place meanwhile.
            StoreError: this is not on record, so the messages may come again.
        """
        if not self._consumers.advance(self.consumer, self.id, message_id):
            raise self._displaced()

    def close(self) -> None:
        """Ends the reading, and soon gives the consumer's place up. Does not block."""
        self.is_over = True

    def serve(self) -> None:
        """Takes the consumer's place if that is free; otherwise this is tried again after a while."""
        if self.read_to is not None or time.monotonic() < self.next_try:
            return
        self.read_to = self._consumers.take(self.consumer, self.id)
        if self.read_to is not None:
            self.keep()
        elif not self.next_try:
            log.info("Another process reads the messages for %r; this consumer waits", self.consumer)
        self.next_try = time.monotonic() + self._consumers.alive / 10

    def keep(self) -> None:
        """Shows that it is alive, and learns whether its place was taken."""
        if self.read_to is not None and not self._consumers.keep(self.consumer, self.id, self.order_ids):
            log.warning("Another process reads the messages for %r now", self.consumer)
            self.fail(self._displaced())

    def take(self, batch: Batch) -> None:
        """Delivers those of these messages that are new to it."""
        read_to = self.read_to or 0
        mine = [
            (message_id, message)
            for message_id, message in batch
            if message_id > read_to and (self.order_ids is None or message.order_id in self.order_ids)
        ]
        if mine and self.asked is not None:
            try:
                self.asked.set_result(mine)
            except concurrent.futures.InvalidStateError:
                return  # its caller has given up at this very moment; the next question gets them
        self.read_to = max(read_to, batch[-1][0])

    def fail(self, error: BaseException) -> None:
        """Ends it with an error."""
        self.is_over = True
        if self.asked is not None:
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                self.asked.set_exception(error)

    def _displaced(self) -> WaitStoppedError:
        return WaitStoppedError(
            f"another process reads the messages for {self.consumer!r} now. What was not advanced over goes "
            "to that process. Use another consumer name to read them here too"
        )


class Subscriptions:
    """The subscriptions of this process on one account.

    Args:
        consumers: where the consumers of all processes meet.
        inbox: of the account.
    """

    def __init__(self, consumers: Consumers, inbox: Inbox) -> None:
        self._consumers = consumers
        self._inbox = inbox
        self._lock = threading.Lock()
        self._all: list[Subscription] = []

    def add(self, consumer: str, order_ids: frozenset[int] | None) -> Subscription:
        """A new consumer, which has no place yet."""
        subscription = Subscription(self._consumers, consumer, order_ids)
        with self._lock:
            self._all.append(subscription)
        return subscription

    def current(self) -> list[Subscription]:
        """Those who read or want to."""
        return [subscription for subscription in self._all if not subscription.is_over]

    def sweep(self) -> None:
        """Gives up the places of those who have ended."""
        with self._lock:
            over = [subscription for subscription in self._all if subscription.is_over]
            self._all = [subscription for subscription in self._all if not subscription.is_over]
        for subscription in over:
            self._consumers.leave(subscription.consumer, subscription.id)

    def send_heartbeats(self) -> None:
        """A heartbeat from each."""
        for subscription in self.current():
            subscription.keep()

    def serve(self) -> None:
        """Gives those who ask what is new, with one look for all of them."""
        current = self.current()
        for subscription in current:
            subscription.serve()
        asking = [
            subscription
            for subscription in current
            if subscription.asked is not None and not subscription.asked.done()
        ]
        read_to = [subscription.read_to for subscription in asking if subscription.read_to is not None]
        batch = self._inbox.since(min(read_to), limit=BATCH) if read_to else []
        for subscription in asking:
            if batch and subscription.read_to is not None:
                subscription.take(batch)
            if not batch and subscription.refusal is not None:
                subscription.fail(subscription.refusal)

    def refuse(self, error: BaseException) -> None:
        """Ends all because the service refuses the key, each once it asks and nothing is there for it.

        Until then it keeps its place, and deals with what it was given.
        """
        for subscription in self.current():
            subscription.refusal = error

    def fail(self, error: BaseException) -> None:
        """Ends all with an error."""
        for subscription in self.current():
            subscription.fail(error)
