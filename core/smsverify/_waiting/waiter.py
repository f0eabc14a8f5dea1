"""Waiting for codes: all waits on an account share one poll, in this process and in all others.

A process has one `Waiter` for an account, and one thread while there are waits. The thread reads the store a
few times a second, with one query for all of them: a message that any process has put into the inbox ends its
waits. When the account's next poll is due, the process that claims it first (one conditional update) asks the
service for all waits of all processes.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from smsverify._input.patterns import Matching
from smsverify._messages.filters import MessageFilter
from smsverify._messages.inbox import Inbox
from smsverify._orders.handover import Handover
from smsverify._orders.wording import no_such_order
from smsverify._runtime.tasks import Task
from smsverify._runtime.threads import is_alive, started
from smsverify._store.store import Store
from smsverify._store.tables import is_order, looks, messages, orders, polls, waits, was_seen_lately
from smsverify._waiting.ends import ended_with_other_sms, ended_without_code
from smsverify._waiting.pace import alive_for
from smsverify._waiting.poller import Poller
from smsverify._waiting.schedule import NOT_FOUND
from smsverify._waiting.subscriptions import Subscription, Subscriptions
from smsverify.errors import (
    NO_CODE,
    AuthenticationError,
    NotFoundError,
    StoreError,
    WaitStoppedError,
    WaitTimeoutError,
)
from smsverify.models import Message, gets_no_more
from smsverify.text import log_of

log = log_of(__name__)

LOOK = 0.25  # seconds between two looks into the store, of a service whose minute lasts a minute
SHORTEST_LOOK = 0.02
# Of that, from one look to the next at the least, though waits begin and answers come: those that come
# together share a look. Without it, a thousand waits that begin have a look each.
GAP = 0.4
FULL_LOOKS = 20  # looks until one for all waits though no message has come: others may know of an end
LAST_LOOKS = 3  # how often an order has to be seen completed without a code before that is believed


@dataclass
class Wait:
    """A wait for a message of an order; `future` ends with the message or the error."""

    order_id: int
    deadline: float
    stop: threading.Event | None
    waiter: str
    wanted: MessageFilter
    cancels: bool = False
    task: Task | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    since: float = 0.0
    is_new: bool = True
    future: concurrent.futures.Future[Message] = field(default_factory=concurrent.futures.Future)


@dataclass(frozen=True)
class _Snapshot:
    """What one query shows of all that a process may have to do.

    Attributes:
        now: by the store's clock.
        newest: the id of the account's newest message.
        next_poll_at: when its next poll is.
        next_look_at: when an order is next looked at by itself; `None` where none is.
    """

    now: float
    newest: int
    next_poll_at: float
    next_look_at: float | None


@dataclass(frozen=True)
class WaitsSeen:
    """How the waits on an account go on.

    Attributes:
        polls: requests for those who wait, by all processes, since this one waits.
        waiting: orders that any process waits for now.
    """

    polls: int
    waiting: int


class Waiter:
    """All waits of this process on one account, and all consumers of its messages.

    Args:
        store: where the waits of all processes meet.
        handover, inbox: of the account.
        poller: asks the service.
        account: whose waits they are.
        subscriptions: of this process.
        time_scale: how long the service's minute is in real minutes.
    """

    def __init__(
        self,
        store: Store,
        handover: Handover,
        inbox: Inbox,
        poller: Poller,
        account: str,
        *,
        subscriptions: Subscriptions,
        time_scale: float,
    ) -> None:
        self._store = store
        self._handover = handover
        self._inbox = inbox
        self._poller = poller
        self._account = account
        self._subscriptions = subscriptions
        self._look = min(LOOK, max(LOOK * time_scale, SHORTEST_LOOK))
        self._gap = GAP * self._look
        self._alive = alive_for(time_scale)
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._waits: dict[str, Wait] = {}
        self._thread: threading.Thread | None = None
        self._is_store_failing = False
        self._next_heartbeat = 0.0
        self._has_asked = threading.Event()
        self._next_full_look = 0.0
        self._newest = 0
        self._polls = 0
        self._next_poll_at = math.inf
        self._matching = Matching()
        # Made once: making it takes longer than running it.
        self._snapshot_query = _snapshot_query(store, account)

    def add(
        self,
        order_id: int,
        timeout: float,
        *,
        wanted: MessageFilter,
        stop: threading.Event | None = None,
        waiter: str | None = None,
        cancels: bool = False,
        task: Task | None = None,
    ) -> Wait:
        """Starts to wait.

        Args:
            order_id: the order.
            timeout: seconds from now.
            wanted: which of its messages.
            stop: ends the wait when it is set.
            waiter: names who waits, for claims; random by default.
            cancels: whether the order is cancelled when no code comes in time, for people.
            task: waits, for people.

        Raises:
            StoreError: the store cannot be used.
            RuntimeError: no thread can be started.
        """
        deadline = time.monotonic() + timeout
        wait = Wait(order_id, deadline, stop, waiter or uuid.uuid4().hex, wanted, cancels, task)
        self._handover.claim(order_id, wait.waiter)
        self._register(wait)
        try:
            with self._lock:
                self._start()
                self._waits[wait.id] = wait
        except RuntimeError:
            self._unregister([wait])
            raise
        self._wake.set()
        return wait

    def seen(self) -> WaitsSeen:
        """How the waits on this account go on."""
        with self._store.read() as connection:
            goes_on = was_seen_lately(waits.c.seen_at, self._store.now(connection), self._alive)
            awaited = sa.func.count(waits.c.order_id.distinct())
            waiting = connection.execute(
                sa.select(awaited).where(waits.c.account == self._account, goes_on)
            ).scalar_one()
        return WaitsSeen(self._polls, waiting)

    def subscribe(self, consumer: str, order_ids: frozenset[int] | None) -> Subscription:
        """Starts to read messages.

        Args:
            consumer: the name under which the cursor is kept.
            order_ids: the orders; `None` for all.
        """
        with self._lock:
            self._start()
            subscription = self._subscriptions.add(consumer, order_ids)
        self._wake.set()
        return subscription

    def _start(self) -> None:
        if not is_alive(self._thread):
            self._thread = started(self._run, "smsverify-waiter")

    # -------------------------------------------------------------- the thread

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            with self._lock:
                over = [wait for wait in self._waits.values() if wait.future.done()]
                for wait in over:
                    del self._waits[wait.id]
                current = list(self._waits.values())
                is_idle = not current and not self._subscriptions.current()
                if is_idle:
                    self._thread = None
            try:
                self._unregister(over)
                self._subscriptions.sweep()
                if is_idle:
                    return
                self._serve(current)
                self._is_store_failing = False
            except StoreError as error:
                if is_idle:
                    return
                if not self._is_store_failing:
                    self._is_store_failing = True
                    log.warning(
                        "The waits go on, but no code can be delivered while the store fails: %s",
                        error,
                    )
            except Exception as error:
                # After any error: a wait that no thread serves any more must not hang.
                log.exception("An unexpected error ended all waits of this process. No order was cancelled")
                for wait in current:
                    _fail(wait, error)
                self._subscriptions.fail(error)
            self._end_what_is_due(current)
            self._wake.wait(self._look)
            time.sleep(max(0.0, began + self._gap - time.monotonic()))
            self._wake.clear()

    def _serve(self, current: list[Wait]) -> None:
        """Delivers what is there, and asks the service if that is due."""
        if time.monotonic() >= self._next_heartbeat:
            self._next_heartbeat = time.monotonic() + self._alive / 3
            self._send_heartbeat(current)
            self._subscriptions.send_heartbeats()
        if self._poller.refusal is not None:
            # Those who read begin again, with the key that the settings have by then.
            self._subscriptions.refuse(self._poller.refusal)
            self._poller.refusal = None
        self._subscriptions.serve()
        snapshot = self._take_snapshot()
        # The process that makes a poll puts it off; nothing but a poll does.
        self._polls += snapshot.next_poll_at > self._next_poll_at
        self._next_poll_at = snapshot.next_poll_at
        self._deliver(current, snapshot.newest)
        is_waited_for = not all(wait.future.done() for wait in current)
        if is_waited_for or self._subscriptions.current():
            schedule = self._poller.schedule
            looks_due = schedule.is_look_due(snapshot.next_look_at, snapshot.now)
            poll_due = is_waited_for and schedule.is_poll_due(snapshot.next_poll_at, snapshot.now)
            if looks_due or poll_due:
                self._poller.ask(self._asked, looks=looks_due, poll=poll_due)

    def _take_snapshot(self) -> _Snapshot:
        """Whether there is anything to do, which most of the time there is not, with one query."""
        with self._store.read() as connection:
            now, newest, next_poll_at, next_look_at = connection.execute(self._snapshot_query).one()
        return _Snapshot(float(now), int(newest), float(next_poll_at), next_look_at)

    def _end_what_is_due(self, current: Iterable[Wait]) -> None:
        for wait in current:
            if _is_stopped(wait):
                _fail(
                    wait,
                    WaitStoppedError(
                        f"the wait for order {wait.order_id} was stopped. The wait did not cancel the order: "
                        "wait again, or cancel it"
                    ),
                )
            elif time.monotonic() > wait.deadline:
                timeout = WaitTimeoutError(f"{NO_CODE} for order {wait.order_id}", order_id=wait.order_id)
                timeout.__cause__ = self._poller.troubles.of(wait.order_id)
                _fail(wait, timeout)

    def _deliver(self, current: list[Wait], newest: int) -> None:
        """Ends the waits that the store has something for, with one look for all of them.

        Most of the time nothing has come, and a thousand waits cost no more than one.
        """
        is_due = self._has_asked.is_set() or time.monotonic() >= self._next_full_look
        if newest == self._newest and not is_due:
            self._deliver_to([wait for wait in current if wait.is_new])
            return
        self._has_asked.clear()
        self._newest = newest
        self._next_full_look = time.monotonic() + FULL_LOOKS * self._look
        self._deliver_to(current)

    def _asked(self) -> None:
        """The service has answered this process: some waits may end."""
        self._has_asked.set()
        self._wake.set()

    def _deliver_to(self, some: list[Wait]) -> None:
        order_ids = {wait.order_id for wait in some}
        if not order_ids:
            return
        with self._store.read() as connection:
            ends = {
                row.order_id: row
                for row in connection.execute(
                    sa.select(looks, orders.c.product)
                    .outerjoin(orders, is_order(looks.c.account, looks.c.order_id))
                    .where(looks.c.account == self._account, looks.c.order_id.in_(order_ids))
                )
            }
            refusal = self._poller.schedule.key_refusal(connection)
        # After the statuses: of an order that was seen to have ended, the message is there already.
        newest = self._inbox.newest(order_ids)
        particular = {wait.order_id for wait in some if wait.wanted.concerns_content}
        all_of = self._inbox.all_of(particular) if particular else {}
        for wait in some:
            wait.is_new = False
            there = [newest[wait.order_id]] if wait.order_id in newest else []
            if wait.wanted.concerns_content:
                there = all_of.get(wait.order_id, [])
            if unknown := wait.wanted.unknown(there):
                self._look_for_pattern(wait, unknown)
                continue
            message, end = wait.wanted.first(there), ends.get(wait.order_id)
            if end is not None and (end.status_at or 0) < wait.since:
                end = None  # The end of an earlier wait may be out of date.
            if message is not None:
                _end(wait, message)
            elif refusal is not None and refusal.at >= wait.since:
                _fail(wait, AuthenticationError(refusal.text, status_code=401))
            elif end is not None and end.status == NOT_FOUND:
                _fail(wait, NotFoundError(no_such_order(wait.order_id), status_code=404))
            elif end is not None and end.empty_ends >= (LAST_LOOKS if end.status == "completed" else 1):
                _fail(wait, ended_without_code(wait.order_id, end.status))
            elif end is not None and _has_ended_otherwise(end, wait.wanted, there):
                _fail(wait, ended_with_other_sms(wait.order_id, end.status))

    def _look_for_pattern(self, wait: Wait, texts: list[str]) -> None:
        """In another thread, because it may take long; then the wait has its turn again."""
        if wait.wanted.pattern is not None:
            for text in texts:
                self._matching.look(wait.wanted.pattern, text, self._asked)

    # -------------------------------------------------------------- rows of waits

    def _register(self, wait: Wait) -> None:
        with self._store.write() as connection:
            wait.since = self._store.now(connection)
            connection.execute(sa.insert(waits).values(self._row_of(wait, wait.since)))
            self._poller.schedule.expect(connection)

    def _unregister(self, over: list[Wait]) -> None:
        if over:
            with self._store.write() as connection:
                connection.execute(sa.delete(waits).where(self._among(over)))

    def _send_heartbeat(self, current: list[Wait]) -> None:
        if not current:
            return
        with self._store.write() as connection:
            now = self._store.now(connection)
            shown = connection.execute(sa.update(waits).where(self._among(current)).values(seen_at=now))
            self._poller.schedule.ensure(connection)
            if shown.rowcount < len(current):
                # The database goes on with an older state, which does not know these waits.
                rows = [self._row_of(wait, now) for wait in current]
                connection.execute(self._store.insert(waits).on_conflict_do_nothing(), rows)
                self._poller.schedule.expect(connection)

    def _row_of(self, wait: Wait, now: float) -> dict[str, Any]:
        return {
            "id": wait.id,
            "account": self._account,
            "order_id": wait.order_id,
            "since": wait.since,
            "seen_at": now,
            "until": now + max(wait.deadline - time.monotonic(), 0.0),
            "cancels": wait.cancels,
            "task": None if wait.task is None else wait.task.model_dump_json(),
        }

    def _among(self, some: list[Wait]) -> sa.ColumnElement[bool]:
        return waits.c.id.in_([wait.id for wait in some])


def _has_ended_otherwise(end: Any, wanted: MessageFilter, there: list[Message]) -> bool:
    """Whether an order has ended with messages of which none is or will be the one that is waited for."""
    is_over = end.status is not None and gets_no_more(end.status, end.product)
    return is_over and bool(there) and not wanted.may_still_pass(there)


def _snapshot_query(store: Store, account: str) -> sa.Executable:
    """What a `_Snapshot` is made of. It reads indexes alone, so old orders and messages cost it nothing."""
    newest = sa.select(sa.func.max(messages.c.id)).where(messages.c.account == account)
    next_poll_at = sa.select(polls.c.next_at).where(polls.c.account == account)
    next_look_at = sa.select(sa.func.min(looks.c.next_at)).where(
        looks.c.account == account, looks.c.next_at.is_not(None)
    )
    return sa.select(
        store.clock(),
        sa.func.coalesce(newest.scalar_subquery(), 0),
        sa.func.coalesce(next_poll_at.scalar_subquery(), 0.0),
        next_look_at.scalar_subquery(),
    )


def _is_stopped(wait: Wait) -> bool:
    """Whether its caller has ended a wait. An error of the caller's event fails that wait, and no other."""
    try:
        return wait.stop is not None and wait.stop.is_set()
    except Exception as error:
        _fail(wait, error)
        return False


def _end(wait: Wait, message: Message) -> None:
    # Its waiter may have given up at this very moment.
    with contextlib.suppress(concurrent.futures.InvalidStateError):
        wait.future.set_result(message)


def _fail(wait: Wait, error: BaseException) -> None:
    with contextlib.suppress(concurrent.futures.InvalidStateError):
        wait.future.set_exception(error)
