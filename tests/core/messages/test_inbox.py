"""The inbox: one message for one SMS, from a status or a callback, and readers that miss none."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from smsverify._messages.callbacks import KEPT, OPEN, UNVERIFIED, VERIFIED, Callback
from smsverify._messages.filters import MessageFilter
from smsverify._messages.inbox import UNSIGNED, Inbox
from smsverify._orders.handover import Handover
from smsverify._orders.records import Records
from smsverify._orders.releases import Releases
from smsverify._store.store import Store, open_store
from smsverify._store.tables import callbacks, looks, messages, polls
from smsverify.models import Message, Order

ORDER = 454303
PHONE = "+1 609 517 0503"
TEXT = "Your PayPal code is 545123"
DAY = 86_400.0


@pytest.fixture
def store(any_store_url: str) -> Store:
    return open_store(any_store_url)


@pytest.fixture
def inbox(store: Store) -> Inbox:
    return Inbox(store, "wallet", retention=7 * DAY)


@pytest.fixture
def know(store: Store) -> Callable[..., None]:
    """Makes orders known, as their purchase does."""

    def know(order_id: int = ORDER, **values: Any) -> None:
        given = {"order_id": order_id, "phone": PHONE, "product": "temporary", "key": "k", **values}
        with store.write() as connection:
            Records(store, "wallet").put(connection, Order(**given))

    return know


def called(text: str = TEXT, **values: Any) -> Callback:
    """A callback as the documentation shows it, by the secret URL."""
    given = {"by_secret": True, "kind": "sms", "is_documented": True, "order_id": ORDER}
    return Callback(**{**given, "phone": "16095170503", "sender": "8843", "message": text, **values})


def shown(text: str | None = TEXT, otp: str | None = "545123", order_id: int = ORDER) -> Message:
    """What a status shows."""
    return Message(order_id=order_id, otp=otp, message=text, phone=PHONE)


def rows(store: Store, table: sa.Table = messages) -> list[Any]:
    with store.read() as connection:
        return list(connection.execute(sa.select(table).order_by(*table.primary_key)).all())


def to_be_looked_at(store: Store) -> list[int]:
    return [row.order_id for row in rows(store, looks) if row.next_at is not None]


# ------------------------------------------------------------------ which callback is believed


def test_a_callback_that_leaves_no_doubt_is_a_message(
    store: Store, inbox: Inbox, know: Callable[..., None]
) -> None:
    know()
    assert inbox.take(called()) == VERIFIED
    message = inbox.newest([ORDER])[ORDER]
    assert (message.otp, message.message, message.sender, message.phone) == ("545123", TEXT, "8843", PHONE)
    assert message.received_at is not None
    assert to_be_looked_at(store) == []
    assert [row.callback_at is not None for row in rows(store, polls)] == [True]
    known = Records(store, "wallet").get(ORDER)
    assert known is not None
    assert known.ended  # nothing else is to come, so nothing is asked for or given back


@pytest.mark.parametrize(
    "phone", ["16095170503", "6095170503", "+1 609 517 0503", "(609) 517-0503", "0016095170503"]
)
def test_the_phone_may_be_written_in_any_way(inbox: Inbox, know: Callable[..., None], phone: str) -> None:
    know()
    assert inbox.take(called(phone=phone)) == VERIFIED


@pytest.mark.parametrize("written", ["4512345678", "+4512345678", "+45 12 34 56 78"])
def test_ten_digits_may_also_be_a_whole_number_of_another_country(
    inbox: Inbox, know: Callable[..., None], written: str
) -> None:
    know(phone="+45 12 34 56 78", product="global")
    assert inbox.take(called(phone=written)) == VERIFIED


@pytest.mark.parametrize(
    "doubt",
    [
        {"by_secret": False},
        {"phone": "16095170504"},
        {"phone": None},
        {"message": "Welcome to our service!"},
        {"message": "Your codes are 545123 and 987654"},
        {"message": None},
        {"is_documented": False},
        {"message": TEXT + " " * 5000},
    ],
    ids=lambda doubt: next(iter(doubt)),
)
def test_a_doubt_leaves_it_unverified(
    store: Store, inbox: Inbox, know: Callable[..., None], doubt: dict[str, Any]
) -> None:
    know()
    assert inbox.take(called(**doubt)) == UNVERIFIED
    assert inbox.newest([ORDER]) == {}
    assert to_be_looked_at(store) == [ORDER]
    assert len(rows(store, callbacks)) == 1


def test_an_order_whose_number_is_not_known_leaves_it_unverified(store: Store, inbox: Inbox) -> None:
    records = Records(store, "wallet")
    Handover(records, Releases(records)).claim(ORDER, "somebody who waits for an order from elsewhere")
    assert inbox.take(called()) == UNVERIFIED
    assert to_be_looked_at(store) == [ORDER]


def test_a_callback_of_an_unknown_order_is_kept_and_delivered_when_the_order_is_known(
    store: Store, inbox: Inbox, know: Callable[..., None]
) -> None:
    assert inbox.take(called()) == OPEN
    assert inbox.take(called(order_id=7, by_secret=False)) == OPEN
    assert (inbox.newest([ORDER]), inbox.since(0)) == ({}, [])
    assert to_be_looked_at(store) == []
    know()
    know(7)
    assert inbox.newest([ORDER])[ORDER].otp == "545123"
    assert inbox.take(called()) is None
    assert [message.order_id for _, message in inbox.since(0)] == [ORDER]
    assert to_be_looked_at(store) == [7]


def test_a_reader_of_all_messages_finds_what_came_early(inbox: Inbox, know: Callable[..., None]) -> None:
    inbox.take(called())
    know()
    assert [message.otp for _, message in inbox.since(0)] == ["545123"]


def test_what_names_no_order_is_kept(store: Store, inbox: Inbox) -> None:
    assert inbox.take(Callback(by_secret=True, kind="wallet", body='{"amount": 5}')) == KEPT
    assert inbox.take(Callback(by_secret=True, kind="wallet", body='{"amount": 5}')) is None
    assert inbox.take(Callback(by_secret=True, kind="unknown", body="[]")) == KEPT
    assert [row.body for row in rows(store, callbacks)] == ['{"amount": 5}', "[]"]


def test_a_rental_stays_what_it_is(store: Store, inbox: Inbox, know: Callable[..., None]) -> None:
    know(product="rental", status="active")
    assert inbox.take(called()) == VERIFIED
    known = Records(store, "wallet").get(ORDER)
    assert known is not None
    assert known.status == "active"


def test_an_account_has_its_own_messages(store: Store, inbox: Inbox, know: Callable[..., None]) -> None:
    know()
    inbox.take(called())
    other = Inbox(store, "another wallet", retention=DAY)
    assert (other.newest([ORDER]), other.since(0)) == ({}, [])
    assert other.take(called()) == OPEN
    assert (inbox.knows(ORDER), other.knows(ORDER)) == (True, False)


# ------------------------------------------------------------------ one SMS is one message


def test_a_repeat_is_recognised_by_its_content(store: Store, inbox: Inbox, know: Callable[..., None]) -> None:
    know(product="rental", status="active")
    assert inbox.take(called()) == VERIFIED
    for phone in ("16095170503", "+1 (609) 517-0503"):
        assert inbox.take(called(phone=phone)) is None
    assert inbox.take(called("Your PayPal code is 777888")) == VERIFIED
    assert inbox.take(called(sender="PayPal")) == VERIFIED  # the same text of another sender is another SMS
    assert [row.sender for row in rows(store)] == ["8843", "8843", "PayPal"]


def test_many_at_once_with_the_same_content_make_one_message(
    store: Store, inbox: Inbox, know: Callable[..., None]
) -> None:
    know()
    ends: list[str | None] = []
    threads = [threading.Thread(target=lambda: ends.append(inbox.take(called()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, ends)) == ["None"] * 7 + [VERIFIED]
    assert len(rows(store)) == 1


def test_both_ways_at_once_make_one_message(store: Store, inbox: Inbox, know: Callable[..., None]) -> None:
    know(product="rental", status="active")
    ways: list[Callable[[], object]] = [
        lambda: inbox.take(called()),
        lambda: inbox.put(shown("Code: 545123")),
    ]
    threads = [threading.Thread(target=way) for way in ways * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (row,) = rows(store)
    assert (row.otp, row.sender, row.called_at is not None) == ("545123", "8843", True)
    assert None not in (row.shown_as, row.called_as)


def test_the_order_of_arrival_does_not_change_what_is_there(
    store: Store, inbox: Inbox, know: Callable[..., None]
) -> None:
    second = "Your PayPal code is 777888"
    orders = range(1, 25)
    for order_id, arrivals in zip(orders, itertools.permutations(range(4)), strict=True):
        know(order_id, product="rental", status="active")
        ways: list[Callable[[int], object]] = [
            lambda number: inbox.take(called(order_id=number)),
            lambda number: inbox.take(called(second, order_id=number)),
            lambda number: inbox.put(shown(order_id=number)),
            lambda number: inbox.put(shown(second, "777888", order_id=number)),
        ]
        for way in arrivals:
            ways[way](order_id)
    found = inbox.all_of(orders)
    assert [sorted(str(message.message) for message in found[order_id]) for order_id in orders] == [
        [TEXT, second]
    ] * len(orders)
    assert {row.sender for row in rows(store)} == {"8843"}


def test_what_a_status_has_shown_gets_its_sender_from_the_callback(
    store: Store, inbox: Inbox, know: Callable[..., None]
) -> None:
    know()
    assert inbox.put(shown())
    assert inbox.take(called(f"  {TEXT}\n")) == VERIFIED
    (row,) = rows(store)
    assert (row.sender, row.otp, row.called_at is not None) == ("8843", "545123", True)
    assert not inbox.put(shown())
    assert len(rows(store)) == 1


def test_an_sms_of_a_callback_is_not_new_in_a_status(
    store: Store, inbox: Inbox, know: Callable[..., None]
) -> None:
    know()
    inbox.take(called())
    assert not inbox.put(shown())
    assert not inbox.put(shown())
    assert [row.sender for row in rows(store)] == ["8843"]


@pytest.mark.parametrize("text", [None, "Code: 545123 (PayPal)"], ids=["code only", "written differently"])
@pytest.mark.parametrize("first", ["status", "callback"])
def test_the_same_code_by_both_ways_is_the_same_sms(
    store: Store, inbox: Inbox, know: Callable[..., None], text: str | None, first: str
) -> None:
    know(product="rental", status="active")
    if first == "status":
        inbox.put(shown(text))
    inbox.take(called())
    for _ in range(3):
        assert not inbox.put(shown(text))
    (row,) = rows(store)
    assert (row.otp, row.sender) == ("545123", "8843")
    assert row.message == (text if first == "status" and text else TEXT)
    # Another SMS with the same code is another one again.
    assert inbox.put(shown("Reminder: 545123 is your code"))


def test_a_code_that_lost_its_zeros_is_the_same_code(
    store: Store, inbox: Inbox, know: Callable[..., None]
) -> None:
    know()
    inbox.take(called("Your PayPal code is 004512"))
    assert not inbox.put(shown(None, "4512"))
    assert [row.otp for row in rows(store)] == ["004512"]


@pytest.mark.parametrize("first", ["status", "callback"])
def test_a_code_in_groups_is_the_same_code(
    store: Store, inbox: Inbox, know: Callable[..., None], first: str
) -> None:
    know(product="rental", status="active")
    if first == "status":
        inbox.put(shown(None, "545-123"))
    inbox.take(called())
    assert not inbox.put(shown(None, "545-123"))
    assert [row.otp for row in rows(store)] == ["545123"]


def test_a_callback_brings_the_zeros_that_a_status_has_lost(
    store: Store, inbox: Inbox, know: Callable[..., None]
) -> None:
    know(product="rental", status="active")
    inbox.put(shown(None, "4512"))
    inbox.take(called("Your PayPal code is 004512"))
    assert not inbox.put(shown(None, "4512"))
    assert [row.otp for row in rows(store)] == ["004512"]


def test_a_text_without_a_certain_code_gets_its_sender_too(
    store: Store, inbox: Inbox, know: Callable[..., None]
) -> None:
    know()
    assert inbox.take(called("Welcome!")) == UNVERIFIED
    assert inbox.put(shown("Welcome!", None))
    assert [(row.sender, row.otp) for row in rows(store)] == [("8843", None)]
    assert to_be_looked_at(store) == []  # it has been read


def test_a_forged_text_does_no_harm(store: Store, inbox: Inbox, know: Callable[..., None]) -> None:
    know()
    forged = called("Your PayPal code is 666666", by_secret=False)
    assert inbox.take(forged) == UNVERIFIED
    # Also word for word, and before the real one.
    assert inbox.take(called(by_secret=False)) == UNVERIFIED
    assert inbox.newest([ORDER]) == {}
    assert inbox.take(called()) == VERIFIED
    assert inbox.put(shown()) is False
    assert [(row.otp, row.sender) for row in rows(store)] == [("545123", "8843")]
    assert inbox.take(called(by_secret=False, sender="late")) == VERIFIED  # nothing that is not known
    assert [row.sender for row in rows(store)] == ["8843"]


def test_strangers_fill_no_disk_and_drive_nothing_out(
    store: Store, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert UNSIGNED >= 1000
    monkeypatch.setattr("smsverify._messages.inbox.UNSIGNED", 3)
    inbox.take(called(order_id=1))
    for order_id in range(2, 12):
        inbox.take(called(order_id=order_id, by_secret=False))
    assert [row.order_id for row in rows(store, callbacks)] == [1, 9, 10, 11]
    assert rows(store, looks) == []


# ------------------------------------------------------------------ readers


def test_a_reader_goes_on_where_he_was(inbox: Inbox, know: Callable[..., None]) -> None:
    know(product="rental", status="active")
    for number in range(5):
        inbox.take(called(f"Your PayPal code is 10000{number}"))
    inbox.put(shown("Your code is 200000", "200000", order_id=9))
    first = inbox.since(0, limit=4)
    assert [message.otp for _, message in first] == [f"10000{number}" for number in range(4)]
    rest = inbox.since(first[-1][0])
    assert [message.otp for _, message in rest] == ["100004", "200000"]
    assert inbox.since(rest[-1][0]) == []


def test_a_reader_misses_nothing_that_many_writers_put_in(store: Store, inbox: Inbox) -> None:
    """Ids are in the order in which the messages show: none appears behind a reader's back."""

    def write(writer: int) -> None:
        for number in range(15):
            inbox.put(shown(f"code {writer}-{number}", None, order_id=writer))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(1, 7)]
    for thread in threads:
        thread.start()
    seen: list[int] = []
    while len(seen) < 6 * 15:
        alive = any(thread.is_alive() for thread in threads)
        found = inbox.since(seen[-1] if seen else 0)
        seen += [number for number, _ in found]
        assert alive or found, "a message was missed"
    for thread in threads:
        thread.join()
    assert seen == sorted({row.id for row in rows(store)})


# ------------------------------------------------------------------ what is purged


def test_texts_are_purged_and_repeats_are_still_recognised(
    store: Store, inbox: Inbox, know: Callable[..., None]
) -> None:
    know()
    inbox.take(called())
    inbox.take(Callback(by_secret=True, kind="wallet", body='{"amount": 5}'))
    with store.write() as connection:
        connection.execute(sa.update(messages).values(came_at=messages.c.came_at - 8 * DAY))
        connection.execute(sa.update(callbacks).values(received_at=callbacks.c.received_at - 1.5 * DAY))
    short = Inbox(store, "wallet", retention=DAY)
    assert short.take(called()) is None
    assert [(row.otp, row.message) for row in rows(store)] == [(None, None)]
    assert [(row.otp, row.message, row.body) for row in rows(store, callbacks)] == [(None, None, None)] * 2
    assert (short.newest([ORDER]), short.since(0)) == ({}, [])
    assert not short.put(shown())
    with store.write() as connection:
        connection.execute(sa.update(callbacks).values(received_at=callbacks.c.received_at - 8 * DAY))
    # It is forgotten, and known all the same.
    assert Inbox(store, "wallet", retention=DAY).take(called()) == VERIFIED
    assert [(row.otp, row.message) for row in rows(store)] == [(None, None)]


# ------------------------------------------------------------------ a calendar that is set


@pytest.mark.parametrize("seconds", [8 * DAY, 61.0, -61.0, -8 * DAY])
def test_a_calendar_that_is_set_purges_nothing_and_keeps_the_order_of_messages(
    seconds: float, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox, right = Inbox(open_store(store_url), "wallet", retention=7 * DAY), time.time
    inbox.put(Message(order_id=ORDER, otp="111111"))
    monkeypatch.setattr(time, "time", lambda: right() + seconds)
    again = Inbox(open_store(store_url), "wallet", retention=7 * DAY)
    again.put(Message(order_id=ORDER, otp="222222"))
    monkeypatch.undo()
    again.put(Message(order_id=ORDER, otp="333333"))
    received = [message for _, message in again.since(0)]
    assert [message.otp for message in received] == ["111111", "222222", "333333"]
    times = [message.received_at for message in received if message.received_at is not None]
    assert times == sorted(set(times))
    for message, later in itertools.pairwise(received):
        after = MessageFilter.check(after=message.received_at)
        assert again.find(ORDER, after) == received[-1]
        assert after.first([message]) is None
        assert after.first([later]) == later


def test_a_message_is_shown_with_the_time_of_the_calendar(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = time.time
    inbox = Inbox(open_store(store_url), "wallet", retention=7 * DAY)
    inbox.since(0)  # the store's time has begun
    monkeypatch.setattr(time, "time", lambda: right() + DAY)
    inbox.put(Message(order_id=ORDER, otp="111111"))
    received_at = inbox.newest([ORDER])[ORDER].received_at
    assert received_at is not None
    assert abs(received_at.timestamp() - right() - DAY) < 60


def test_what_is_to_be_purged_is_not_read_though_nobody_has_written_since(store: Store, inbox: Inbox) -> None:
    inbox.put(shown())
    short = Inbox(store, "wallet", retention=0.2)
    (row,) = rows(store)
    time.sleep(0.3)
    assert short.newest([ORDER]) == {}
    assert short.all_of([ORDER]) == {}
    assert short.find(ORDER, MessageFilter()) is None
    assert short.since(0) == []
    assert short.get(row.id) is None
    assert short.assign([row.id], handler="h", run="r") == []
    assert inbox.get(row.id) is not None
    assert rows(store)[0].message == TEXT
