"""Hints: whose status is read because of them, and how much they may cost."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import sqlalchemy as sa

from smsverify._messages.callbacks import UNVERIFIED, Callback
from smsverify._messages.inbox import Inbox
from smsverify._orders.records import Records
from smsverify._service.rate_limit import Priority
from smsverify._store.store import Store, open_store
from smsverify._store.tables import looks, polls, waits
from smsverify._waiting.hints import AT_ONCE, TRIES, Hints
from smsverify.models import Order

MINUTE = 1.0  # time_scale of a service whose minute lasts a minute: nothing becomes due during a test
MOMENT = 1e-6  # and of one where everything is due at once


@pytest.fixture
def store(any_store_url: str) -> Store:
    return open_store(any_store_url)


@pytest.fixture
def inbox(store: Store) -> Inbox:
    return Inbox(store, "wallet", retention=1000)


def hints(store: Store, time_scale: float = MINUTE, rate_limit: int = 60) -> Hints:
    return Hints(store, "wallet", time_scale=time_scale, rate_limit=rate_limit)


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


def hint(inbox: Inbox, order_id: int, text: str = "Hello", *, by_secret: bool = True) -> None:
    given = {"order_id": order_id, "phone": "16095170503", "message": text}
    assert inbox.take(Callback(by_secret, "sms", True, **given)) == UNVERIFIED  # type: ignore[arg-type]


def row(store: Store) -> Any:
    with store.read() as connection:
        return connection.execute(sa.select(looks)).one()


def test_a_hint_is_followed_at_once_and_goes_before_what_is_polled(store: Store, inbox: Inbox) -> None:
    know(store, 1, 2)
    hint(inbox, 2)
    assert hints(store).take_due() == [(2, Priority.RELEASE)]
    assert hints(store).take_due() == []


def test_what_nobody_waits_for_is_not_followed(store: Store, inbox: Inbox) -> None:
    know(store, 1, awaited=False)
    hint(inbox, 1)
    assert hints(store).take_due() == []
    know(store, 2)
    with store.write() as connection:
        connection.execute(sa.update(waits).values(seen_at=waits.c.seen_at - 1000))
    hint(inbox, 2)
    assert hints(store).take_due() == []  # who waited has died


def test_further_hints_for_an_order_have_it_looked_at_now_and_then(store: Store, inbox: Inbox) -> None:
    know(store, 1)
    hint(inbox, 1)
    assert len(hints(store).take_due()) == 1
    for number in range(5):
        hint(inbox, 1, f"Hello {number}")
        assert hints(store).take_due() == []
    assert hints(store, MOMENT).take_due() == [(1, Priority.RELEASE)]


def test_a_hint_that_leads_nowhere_comes_to_an_end(store: Store, inbox: Inbox) -> None:
    know(store, 1)
    hint(inbox, 1)
    taken = [hints(store, MOMENT).take_due() for _ in range(TRIES + 3)]
    assert [len(each) for each in taken] == [1] * TRIES + [0] * 3
    hint(inbox, 1, "Hello again")
    assert len(hints(store, MOMENT).take_due()) == 1


def test_hints_without_a_secret_take_their_share_and_no_more(store: Store, inbox: Inbox) -> None:
    know(store, *range(1, 31))
    for order_id in range(1, 31):
        hint(inbox, order_id, by_secret=False)
    # A quarter of 60 requests in a minute is one in four seconds, for all orders and processes together.
    assert hints(store).take_due() == [(1, Priority.POLL)]
    assert [hints(store).take_due() for _ in range(5)] == [[]] * 5
    with store.read() as connection:
        left = connection.execute(sa.select(polls.c.hint_next_at)).scalar_one() - store.now(connection)
    assert 3 < left <= 4
    hint(inbox, 30)
    assert hints(store).take_due() == [(30, Priority.RELEASE)]  # one with a secret does not stand in line


def test_many_hints_are_followed_a_few_at_a_time(store: Store, inbox: Inbox) -> None:
    know(store, *range(1, AT_ONCE + 4))
    for order_id in range(1, AT_ONCE + 4):
        hint(inbox, order_id)
    assert [len(hints(store).take_due()) for _ in range(3)] == [AT_ONCE, 3, 0]


def test_a_stranger_changes_nothing_about_a_hint_with_a_secret(store: Store, inbox: Inbox) -> None:
    know(store, 1)
    hint(inbox, 1)
    hints(store).take_due()
    before = row(store)
    hint(inbox, 1, "forged", by_secret=False)
    assert row(store) == before


def test_each_hint_is_followed_by_one_process(store: Store, inbox: Inbox) -> None:
    know(store, *range(1, 6))
    for order_id in range(1, 6):
        hint(inbox, order_id)
    taken: list[tuple[int, Priority]] = []
    threads = [threading.Thread(target=lambda: taken.extend(hints(store).take_due())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(order_id for order_id, _ in taken) == [1, 2, 3, 4, 5]


def test_a_clock_that_was_set_back_parks_no_hint(store: Store, inbox: Inbox) -> None:
    know(store, 1)
    hint(inbox, 1, by_secret=False)
    with store.write() as connection:
        later = store.now(connection) + 10_000
        connection.execute(sa.update(looks).values(hint_followed_at=later))
        connection.execute(sa.update(polls).values(hint_next_at=later))
    assert hints(store).take_due() == [(1, Priority.POLL)]
