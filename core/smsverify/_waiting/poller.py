"""Asking the service for all who wait: for which orders, and what becomes of the answers.

One order is asked for by its status. Of several, the list of orders shows which have news, and only those are
asked for; so a poll costs the same for two waits and for fifty. The list shows only the 50 newest orders, and
perhaps no completions, and nothing of a rental's next SMS. Orders that it does not cover are asked for one by
one, a few with each poll. The ones that were not seen for the longest part of their age come first, so fresh
ones come more often than old ones.

Each request is sent once, because the next poll is its repetition. Where that would be far away, because
callbacks bring the codes, it comes as soon as what has failed is not left alone any more. What has no answer
yet is not asked for again, and holds up nothing else (`unanswered`).

`pace` says how often that is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa

from smsverify._orders.orders import Orders
from smsverify._runtime.threads import for_each, is_alive, started
from smsverify._service.rate_limit import Priority
from smsverify._store.store import Store
from smsverify._store.tables import looks, messages, waits
from smsverify._waiting.schedule import BLIND_AFTER, NOT_FOUND, PROVEN, Look, Schedule
from smsverify._waiting.unanswered import LIST, Requests, Troubles
from smsverify.errors import (
    AuthenticationError,
    NotFoundError,
    RateLimitedError,
    SmsVerifyError,
    StoreError,
)
from smsverify.models import KNOWN_STATUSES, RENTALS, gets_no_more
from smsverify.text import log_of, masked

log = log_of(__name__)

# Polls by the list between two looks at an order that it shows no news of; the second, where it is proven.
CHECKS = 3
RARE_CHECKS = 10
# Seconds from the list to the answer of a check, at the most, for it to say anything of the list: an SMS may
# have come meanwhile.
CHECKED_WITHIN = 2.0
READERS = 10  # statuses that one poll reads at a time
CHANCES = 20  # polls without a blind list between two chances for it


@dataclass(frozen=True)
class _Question:
    """A status that a poll asks for.

    Attributes:
        order_id: of the order.
        priority: of the request.
        is_news: whether the list has shown news of the order; `None` where nothing is to be concluded.
        listed: the status that the list shows, where that is news. It is on record only when it has led to an
            answer: another poll must see the news otherwise.
    """

    order_id: int
    priority: Priority
    is_news: bool | None = None
    listed: str | None = None


class Poller:
    """Asks for what the schedule of an account says is due, and keeps what the service answers.

    Urgent looks have a thread of their own: they never wait behind a poll that waits for the rate limit.

    Args:
        store: where the processes meet.
        orders: asks the service.
        schedule: says what is due.
        account: whose orders they are.
        time_scale: how long the service's minute is in real minutes.

    Attributes:
        troubles: why the status of an order cannot be read.
    """

    def __init__(
        self, store: Store, orders: Orders, schedule: Schedule, account: str, *, time_scale: float
    ) -> None:
        self.schedule = schedule
        self._store = store
        self._orders = orders
        self._account = account
        self.refusal: AuthenticationError | None = None  # of this process's key, until it is taken
        self._polls = 0
        self._threads: dict[bool, threading.Thread] = {}
        self._requests = {True: Requests(), False: Requests()}  # of each of these threads
        self._all_requests: list[Requests] = []  # with those of threads that were overtaken
        self._releasing: threading.Thread | None = None
        self._can_start = True
        self._reported: set[tuple[int, str]] = set()
        self.troubles = Troubles(time_scale)

    def ask(self, when_asked: Callable[[], None], *, looks: bool, poll: bool) -> None:
        """Asks for what is due, in threads of their own, unless another process does.

        Args:
            when_asked: called after each answer that may end a wait.
            looks: whether looks at one order may be due.
            poll: whether a poll is due, and wanted.
        """
        for urgent in (True, False):
            if is_alive(self._threads.get(urgent)) and not self._requests[urgent].are_stuck():
                continue
            due = self.schedule.claim_due(urgent=urgent, looks=looks, poll=poll)
            if due:
                self._start(due, when_asked, urgent)

    def _start(self, due: list[Look], when_asked: Callable[[], None], urgent: bool) -> None:
        requests, older = Requests(), list(self._all_requests)
        try:
            self._threads[urgent] = started(
                partial(self._ask_for, due, when_asked, requests), "smsverify-poll"
            )
            self._requests[urgent] = requests
            self._can_start = True
            if any(look.one_by_one is not None for look in due):
                for others in older:
                    others.is_overtaken = True
        except RuntimeError as error:
            if self._can_start:
                log.warning(
                    "No thread can be started for a poll; the waits go on with the next one: %s", error
                )
            self._can_start = False
            self.schedule.make_due()

    # -------------------------------------------------------------- for which orders

    def _ask_for(self, due: list[Look], when_asked: Callable[[], None], requests: Requests) -> None:
        self._all_requests.append(requests)
        try:
            with self._going_on(when_asked):
                self._look_at(due, when_asked, requests)
                for look in due:
                    if look.one_by_one is not None:
                        self._poll(look, look.one_by_one, when_asked, requests)
                self.schedule.note_acceptance()
        finally:
            self._all_requests.remove(requests)

    def _look_at(self, due: list[Look], when_asked: Callable[[], None], requests: Requests) -> None:
        """The looks at one order."""

        def ask(look: Look) -> None:
            order_id, began = look.order_ids[0], time.monotonic()
            self._ask(_Question(order_id, look.priority), requests)
            if (seconds := self.troubles.end_in([order_id], since=began)) is not None:
                self.schedule.repeat_look(order_id, seconds)
            when_asked()

        single = [look for look in due if look.one_by_one is None]
        for_each(single, ask, at_once=READERS, name="smsverify-read")

    def _poll(self, look: Look, one_by_one: int, when_asked: Callable[[], None], requests: Requests) -> None:
        """One poll for all who wait for the orders of a look."""
        began = time.monotonic()
        worth_asking = self._worth_asking(look, one_by_one, requests)
        listed_at = time.monotonic()

        def ask(question: _Question) -> None:
            # The requests before it may have waited so long that a callback has come meanwhile, or that a
            # newer poll asks for the same.
            if not requests.is_overtaken and self._is_awaited(question.order_id):
                self._ask(question, requests, listed_at=listed_at)
                when_asked()

        # They stand in the queue together, so that no purchase goes between.
        for_each(worth_asking, ask, at_once=READERS, name="smsverify-read")
        if not requests.is_overtaken:
            self.schedule.has_polled(time.monotonic() - listed_at)
        if (seconds := self.troubles.end_in([LIST, *look.order_ids], since=began)) is not None:
            self.schedule.repeat_poll(seconds)
        self._retry_a_release(when_asked)

    def _retry_a_release(self, when_asked: Callable[[], None]) -> None:
        """Tries again to cancel an order, in a thread of its own: no poll waits for that."""

        def retry() -> None:
            with self._going_on(when_asked):
                self._orders.cancelling.retry_releases(limit=1)

        if not is_alive(self._releasing):
            with suppress(RuntimeError):  # no thread can be started: a later poll tries it
                self._releasing = started(retry, "smsverify-release")

    def _is_awaited(self, order_id: int) -> bool:
        with self._store.read() as connection:
            mine = sa.and_(waits.c.account == self._account, waits.c.order_id == order_id)
            return connection.execute(sa.select(waits.c.id).where(mine)).first() is not None

    @contextmanager
    def _going_on(self, when_asked: Callable[[], None]) -> Iterator[None]:
        """Lets waits go on after an error of a poll. Only a refused key ends them."""
        try:
            try:
                yield
            except AuthenticationError as error:
                self.refusal = error
                self.schedule.note_refusal(str(error))
                log.error("The service refuses the API key, so all waits with this key end: %s", error)
                when_asked()
        except (RateLimitedError, StoreError) as error:
            log.warning("A poll failed; the waits go on with the next one: %s", error)
        except Exception:
            log.exception("A poll failed unexpectedly; the waits go on with the next one")

    def _worth_asking(self, look: Look, one_by_one: int, requests: Requests) -> list[_Question]:
        """What to ask: for orders that the list shows to have changed, and some that it does not cover."""
        self._polls += 1
        is_blind = self._misses() >= BLIND_AFTER and self._polls % CHANCES
        listed = None if is_blind or not look.is_list_worth else self._listed(requests)
        order_ids = self._without_those_left_alone(look.order_ids)
        if listed is None:
            return [_Question(order_id, Priority.POLL) for order_id in order_ids[:one_by_one]]
        return self._of_list(look, listed, order_ids, one_by_one)

    def _of_list(
        self, look: Look, listed: dict[int, str], order_ids: list[int], one_by_one: int
    ) -> list[_Question]:
        awaited = set(order_ids)
        before = self._note_listed(look.order_ids, listed)

        def has_news(order_id: int) -> bool:
            status = listed[order_id]
            is_over = gets_no_more(status, RENTALS[0] if order_id in look.rentals else None)
            return is_over or status != before.get(order_id, status)

        def news(order_id: int, priority: Priority) -> _Question:
            is_news = None if order_id in look.rentals else True
            return _Question(order_id, priority, is_news=is_news, listed=listed[order_id])

        # The list begins with the newest order. The oldest code has lain the longest.
        changed = [order_id for order_id in reversed(listed) if order_id in awaited and has_news(order_id)]
        # News that could not be read are not sure to be there: they have their turn as the others.
        failed = {order_id for order_id in changed if self.troubles.are_of_news(order_id)}
        others = [order_id for order_id in order_ids if order_id not in set(changed)]
        unlisted = {order_id for order_id in others if order_id not in listed or order_id in look.rentals}
        by_turn = [order_id for order_id in order_ids if order_id in failed or order_id in unlisted]
        unchanged = [order_id for order_id in others if order_id not in unlisted]
        self.schedule.unlisted = len(by_turn)
        checked = unchanged[:1] if not self._polls % self._checks_every() else []
        return [
            *(news(order_id, Priority.RELEASE) for order_id in changed if order_id not in failed),
            *(
                news(order_id, Priority.POLL) if order_id in failed else _Question(order_id, Priority.POLL)
                for order_id in by_turn[:one_by_one]
            ),
            *(_Question(order_id, Priority.POLL, is_news=False) for order_id in checked),
        ]

    def _listed(self, requests: Requests) -> dict[int, str] | None:
        """The status of each order that the list shows, the newest order first; `None` where it cannot be
        read now.
        """
        if not self._without_those_left_alone([LIST]):
            return None
        try:
            with requests.one(LIST) as options:
                orders = self._orders.status.read_list(priority=Priority.POLL, **options).rows
        except (AuthenticationError, RateLimitedError, StoreError):
            raise
        except SmsVerifyError as error:
            if self.troubles.note(LIST, error):
                log.warning("The list of orders cannot be read, so they are asked for one by one: %s", error)
            return None
        self.troubles.end(LIST)
        return {order.order_id: order.status for order in orders}

    def _without_those_left_alone(self, some: Sequence[int]) -> list[int]:
        """Those that have failed just now, and those that have no answer yet, are not asked for again."""
        under_way = {one for requests in list(self._all_requests) for one in requests.under_way()}
        return [one for one in some if one not in under_way and not self.troubles.is_left_alone(one)]

    def _checks_every(self) -> int:
        return RARE_CHECKS if self._misses() == PROVEN else CHECKS

    def _misses(self) -> int:
        """How often in a row the list has not shown news; `PROVEN` where it has shown them last."""
        with self._store.read() as connection:
            return self.schedule.list_misses(connection)

    def _note_listed(self, awaited: Sequence[int], listed: dict[int, str]) -> dict[int, str]:
        """Keeps what the list says of those of these orders that it has not shown before; what it said of all
        the others.
        """
        mine = sa.and_(looks.c.account == self._account, looks.c.order_id.in_(awaited))
        with self._store.write() as connection:
            before = {
                row.order_id: row.listed_status
                for row in connection.execute(sa.select(looks.c.order_id, looks.c.listed_status).where(mine))
                if row.listed_status is not None
            }
            for order_id in awaited:
                if order_id in listed and order_id not in before:
                    self._put(connection, order_id, listed_status=listed[order_id])
        return before

    def _ask(self, question: _Question, requests: Requests, *, listed_at: float = 0.0) -> None:
        order_id = question.order_id
        before = self._newest_message(order_id) if question.is_news is False else None
        try:
            with requests.one(order_id) as options:
                status = self._orders.status.read(order_id, priority=question.priority, **options)
        except NotFoundError:
            self._note(order_id, status=None if self._orders.status.is_fresh(order_id) else NOT_FOUND)
            return
        except (AuthenticationError, RateLimitedError, StoreError):
            raise
        except SmsVerifyError as error:
            if self.troubles.note(order_id, error, is_of_news=question.listed is not None):
                log.warning("The status of order %d cannot be read; the wait goes on: %s", order_id, error)
            # Noted as seen, so that it does not stand in the way of the others, and without a status: the
            # one of an earlier answer may be out of date.
            self._note(order_id, status=None)
            return
        self.troubles.end(order_id)
        word = status.status
        if word not in KNOWN_STATUSES and (order_id, word) not in self._reported:
            self._reported.add((order_id, word))
            log.warning("Order %d has the unknown status %r; the wait goes on", order_id, masked(word))
        if question.is_news and word == "completed":
            self.schedule.note_list(has_shown=True)
        is_check = question.is_news is False and time.monotonic() - listed_at <= CHECKED_WITHIN
        if is_check and (word == "completed" or self._newest_message(order_id) != before):
            self.schedule.note_list(has_shown=False)
        is_empty_end = not status.arrived and self._orders.status.gets_no_more(status)
        listed = {} if question.listed is None else {"listed_status": question.listed}
        self._note(order_id, status=word, is_empty_end=is_empty_end, **listed)

    def _newest_message(self, order_id: int) -> int | None:
        of_order = sa.and_(messages.c.account == self._account, messages.c.order_id == order_id)
        with self._store.read() as connection:
            return connection.execute(sa.select(sa.func.max(messages.c.id)).where(of_order)).scalar()

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
