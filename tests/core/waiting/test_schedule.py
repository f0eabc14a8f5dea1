"""Unverified callbacks: whose status is read because of them, and how much they may cost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from smsverify._messages.callbacks import UNVERIFIED, Callback
from smsverify._messages.inbox import Inbox
from smsverify._orders.listing import OrderList
from smsverify._orders.records import Records
from smsverify._orders.status import StatusReader
from smsverify._service.rate_limit import Priority, RateLimit
from smsverify._store.store import Store, open_store
from smsverify._store.tables import looks, polls, waits
from smsverify._waiting.pace import CALLBACK_LOOKS
from smsverify._waiting.schedule import AT_ONCE, Schedule
from smsverify.models import Order, OrderStatus

MINUTE = 60.0  # the period of a service whose minute lasts a minute: nothing becomes due during a test
MOMENT = 6e-5  # and of one where everything is due at once


@pytest.fixture
def store(any_store_url: str) -> Store:
    return open_store(any_store_url)


@pytest.fixture
def inbox(store: Store) -> Inbox:
    return Inbox(store, "wallet", retention=1000)


def take_due(store: Store, period: float = MINUTE) -> list[tuple[int, Priority]]:
    """What is claimed now, of both threads of a process."""
    rate_limit = RateLimit(store, "key", limit=60, period=period, lease=600.0)
    schedule = Schedule(store, rate_limit, "wallet")
    claimed = [
        look for urgent in (True, False) for look in schedule.claim_due(urgent=urgent, looks=True, poll=False)
    ]
    return [(order_id, look.priority) for look in claimed for order_id in look.order_ids]


def now_of(store: Store) -> float:
    with store.read() as connection:
        return store.now(connection)


def know(store: Store, *order_ids: int, awaited: bool = True) -> None:
    """Makes orders known, with somebody who waits for them."""
    with store.write() as connection:
        now = store.now(connection)
        for order_id in order_ids:
            Records(store, "wallet").put(connection, Order(order_id=order_id, phone="+1 609 517 0503"))
            if awaited:
                row = {"id": str(order_id), "account": "wallet", "since": now, "seen_at": now}
                connection.execute(sa.insert(waits).values(order_id=order_id, **row))
        polling = store.insert(polls).values(account="wallet", next_at=0)
        connection.execute(polling.on_conflict_do_nothing())


def receive(inbox: Inbox, order_id: int, text: str = "Hello", *, by_secret: bool = True) -> None:
    given = {"order_id": order_id, "phone": "16095170503", "message": text}
    assert inbox.take(Callback(by_secret, "sms", True, **given)) == UNVERIFIED  # type: ignore[arg-type]


def row(store: Store) -> Any:
    with store.read() as connection:
        return connection.execute(sa.select(looks)).one()


def test_an_unverified_callback_has_its_order_looked_at_at_once_and_before_what_is_polled(
    store: Store, inbox: Inbox
) -> None:
    know(store, 1, 2)
    receive(inbox, 2)
    assert take_due(store) == [(2, Priority.RELEASE)]
    assert take_due(store) == []


def test_an_order_that_nobody_waits_for_is_not_looked_at(store: Store, inbox: Inbox) -> None:
    know(store, 1, awaited=False)
    receive(inbox, 1)
    assert take_due(store) == []
    know(store, 2)
    with store.write() as connection:
        connection.execute(sa.update(waits).values(seen_at=waits.c.seen_at - 1000))
    receive(inbox, 2)
    assert take_due(store) == []  # who waited has died


def test_further_callbacks_for_an_order_have_it_looked_at_now_and_then(store: Store, inbox: Inbox) -> None:
    know(store, 1)
    receive(inbox, 1)
    assert len(take_due(store)) == 1
    for number in range(5):
        receive(inbox, 1, f"Hello {number}")
        assert take_due(store) == []
    assert take_due(store, MOMENT) == [(1, Priority.RELEASE)]


def test_the_looks_for_a_callback_that_leads_nowhere_come_to_an_end(store: Store, inbox: Inbox) -> None:
    know(store, 1)
    receive(inbox, 1)
    taken = [take_due(store, MOMENT) for _ in range(CALLBACK_LOOKS + 3)]
    assert [len(each) for each in taken] == [1] * CALLBACK_LOOKS + [0] * 3
    receive(inbox, 1, "Hello again")
    assert len(take_due(store, MOMENT)) == 1


def test_callbacks_without_a_secret_take_their_share_and_no_more(store: Store, inbox: Inbox) -> None:
    know(store, *range(1, 31))
    for order_id in range(1, 31):
        receive(inbox, order_id, by_secret=False)
    # A quarter of 60 requests in a minute is one in four seconds, for all orders and processes together.
    earliest = now_of(store)
    assert take_due(store) == [(1, Priority.POLL)]
    latest = now_of(store)
    with store.read() as connection:
        next_at = connection.execute(sa.select(polls.c.unsigned_next_at)).scalar_one()
    assert earliest + 4 <= next_at <= latest + 4
    assert [take_due(store) for _ in range(5)] == [[]] * 5
    receive(inbox, 30)
    assert take_due(store) == [(30, Priority.RELEASE)]  # one with a secret does not stand in line


def test_many_orders_are_looked_at_a_few_at_a_time(store: Store, inbox: Inbox) -> None:
    know(store, *range(1, AT_ONCE + 4))
    for order_id in range(1, AT_ONCE + 4):
        receive(inbox, order_id)
    assert [len(take_due(store)) for _ in range(3)] == [AT_ONCE, 3, 0]


class Service:
    """A service whose answer shows an SMS; meanwhile the callback for the next one comes."""

    def __init__(self, shown: str, meanwhile: Callable[[], None]) -> None:
        self._shown = shown
        self._meanwhile = meanwhile

    def get_status(self, order_id: int, **_: Any) -> OrderStatus:
        self._meanwhile()
        return OrderStatus(order_id=order_id, status="active", message=self._shown)


def read(store: Store, inbox: Inbox, shown: str, meanwhile: Callable[[], None] = lambda: None) -> None:
    records: Any = Records(store, "wallet")
    api: Any = Service(shown, meanwhile)
    StatusReader(api, records, OrderList(records), inbox, time_scale=1.0).read(1)


def test_a_callback_that_comes_while_a_look_is_under_way_has_one_of_its_own(
    store: Store, inbox: Inbox
) -> None:
    know(store, 1)
    receive(inbox, 1, "Welcome")
    assert len(take_due(store)) == 1
    read(store, inbox, "Welcome", meanwhile=lambda: receive(inbox, 1, "Your parcel is here"))
    assert take_due(store, MOMENT) == [(1, Priority.RELEASE)]
    read(store, inbox, "Your parcel is here")
    assert take_due(store, MOMENT) == []


def test_a_stranger_changes_nothing_about_a_callback_with_a_secret(store: Store, inbox: Inbox) -> None:
    know(store, 1)
    receive(inbox, 1)
    take_due(store)
    before = row(store)
    receive(inbox, 1, "forged", by_secret=False)
    assert row(store) == before


def test_each_look_is_taken_by_one_process(store: Store, inbox: Inbox) -> None:
    know(store, *range(1, 6))
    for order_id in range(1, 6):
        receive(inbox, order_id)
    taken: list[tuple[int, Priority]] = []
    threads = [threading.Thread(target=lambda: taken.extend(take_due(store))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(order_id for order_id, _ in taken) == [1, 2, 3, 4, 5]


def test_a_clock_that_was_set_back_parks_no_look(store: Store, inbox: Inbox) -> None:
    know(store, 1)
    receive(inbox, 1, by_secret=False)
    with store.write() as connection:
        later = store.now(connection) + 10_000
        connection.execute(sa.update(looks).values(asked_at=later, next_at=later))
        connection.execute(sa.update(polls).values(unsigned_next_at=later))
    assert take_due(store) == [(1, Priority.POLL)]
