"""The inbox: one message for one SMS, whichever way it came, and readers that miss none."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from smsverify.inbox import HINT, KEPT, OPEN, TOLD, UNSIGNED, Callback, Inbox
from smsverify.models import Message, Order
from smsverify.orderbook import OrderBook
from smsverify.store import Store, callbacks, looks, messages, open_store, polls

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
            OrderBook(store, "wallet").put(connection, Order(**given))

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


def hinted(store: Store) -> list[int]:
    return [row.order_id for row in rows(store, looks) if row.hinted_at is not None]


# ------------------------------------------------------------------ which callback is believed


def test_a_callback_that_leaves_no_doubt_is_a_message(
    store: Store, inbox: Inbox, know: Callable[..., None]
) -> None:
    know()
    assert inbox.take(called()) == TOLD
    message = inbox.newest([ORDER])[ORDER]
    assert (message.otp, message.message, message.sender, message.phone) == ("545123", TEXT, "8843", PHONE)
    assert message.received_at is not None
    assert hinted(store) == []
    assert [row.callback_at is not None for row in rows(store, polls)] == [True]
    known = OrderBook(store, "wallet").get(ORDER)
    assert known is not None
    assert known.ended  # nothing else is to come, so nothing is asked for or given back


@pytest.mark.parametrize(
    "phone", ["16095170503", "6095170503", "+1 609 517 0503", "(609) 517-0503", "0016095170503"]
)
def test_the_phone_may_be_written_in_any_way(inbox: Inbox, know: Callable[..., None], phone: str) -> None:
    know()
    assert inbox.take(called(phone=phone)) == TOLD


@pytest.mark.parametrize("written", ["4512345678", "+4512345678", "+45 12 34 56 78"])
def test_ten_digits_may_also_be_a_whole_number_of_another_country(
    inbox: Inbox, know: Callable[..., None], written: str
) -> None:
    know(phone="+45 12 34 56 78", product="global")
    assert inbox.take(called(phone=written)) == TOLD


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
def test_a_doubt_makes_it_a_hint(
    store: Store, inbox: Inbox, know: Callable[..., None], doubt: dict[str, Any]
) -> None:
    know()
    assert inbox.take(called(**doubt)) == HINT
    assert inbox.newest([ORDER]) == {}
    assert hinted(store) == [ORDER]
    assert len(rows(store, callbacks)) == 1


def test_an_order_whose_number_is_not_known_gives_a_hint(store: Store, inbox: Inbox) -> None:
    OrderBook(store, "wallet").claim(ORDER, "somebody who waits for an order from elsewhere")
    assert inbox.take(called()) == HINT
    assert hinted(store) == [ORDER]


def test_a_callback_of_an_unknown_order_is_kept_and_told_when_the_order_is_known(
    store: Store, inbox: Inbox, know: Callable[..., None]
) -> None:
    assert inbox.take(called()) == OPEN
    assert inbox.take(called(order_id=7, by_secret=False)) == OPEN
    assert (inbox.newest([ORDER]), inbox.since(0)) == ({}, [])
    assert hinted(store) == []
    know()
    know(7)
    assert inbox.newest([ORDER])[ORDER].otp == "545123"
    assert inbox.take(called()) is None
    assert [message.order_id for _, message in inbox.since(0)] == [ORDER]
    assert hinted(store) == [7]


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
    assert inbox.take(called()) == TOLD
    known = OrderBook(store, "wallet").get(ORDER)
    assert known is not None
    assert known.status == "active"


def test_an_account_has_its_own_messages(store: Store, inbox: Inbox, know: Callable[..., None]) -> None:
    know()
    inbox.take(called())
    other = Inbox(store, "another wallet", retention=DAY)
    assert (other.newest([ORDER]), other.since(0), other.last_id()) == ({}, [], 0)
    assert other.take(called()) == OPEN
    assert (inbox.knows(ORDER), other.knows(ORDER)) == (True, False)


# ------------------------------------------------------------------ one SMS is one message


def test_a_repeat_is_recognised_by_its_content(store: Store, inbox: Inbox, know: Callable[..., None]) -> None:
    know(product="rental", status="active")
    assert inbox.take(called()) == TOLD
    for phone in ("16095170503", "+1 (609) 517-0503"):
        assert inbox.take(called(phone=phone)) is None
    assert inbox.take(called("Your PayPal code is 777888")) == TOLD
    assert inbox.take(called(sender="PayPal")) == TOLD  # the same text of another sender is another SMS
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
    assert sorted(map(str, ends)) == ["None"] * 7 + [TOLD]
    assert len(rows(store)) == 1


def test_what_a_status_has_shown_gets_its_sender_from_the_callback(
    store: Store, inbox: Inbox, know: Callable[..., None]
) -> None:
    know()
    assert inbox.put(shown())
    assert inbox.take(called(f"  {TEXT}\n")) == TOLD
    (row,) = rows(store)
    assert (row.sender, row.otp, row.called_at is not None) == ("8843", "545123", True)
    assert not inbox.put(shown())
    assert len(rows(store)) == 1


def test_what_a_callback_has_told_is_not_new_in_a_status(
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


def test_what_schema_2_has_kept_is_not_new_after_the_upgrade(store: Store, inbox: Inbox) -> None:
    text = "Your PayPal code is:\n\n545123"
    inbox.put(shown(text))
    before = hashlib.sha256("\0".join([str(ORDER), text, ""]).encode()).hexdigest()
    with store.write() as connection:
        connection.execute(sa.update(messages).values(digest=before, shown_as=before))
    for _ in range(2):
        assert not inbox.put(shown(text))
    assert len(rows(store)) == 1


def test_a_text_without_a_certain_code_gets_its_sender_too(
    store: Store, inbox: Inbox, know: Callable[..., None]
) -> None:
    know()
    assert inbox.take(called("Welcome!")) == HINT
    assert inbox.put(shown("Welcome!", None))
    assert [(row.sender, row.otp) for row in rows(store)] == [("8843", None)]
    assert hinted(store) == []  # it has been read


def test_a_forged_text_does_no_harm(store: Store, inbox: Inbox, know: Callable[..., None]) -> None:
    know()
    forged = called("Your PayPal code is 666666", by_secret=False)
    assert inbox.take(forged) == HINT
    # Also word for word, and before the real one.
    assert inbox.take(called(by_secret=False)) == HINT
    assert inbox.newest([ORDER]) == {}
    assert inbox.take(called()) == TOLD
    assert inbox.put(shown()) is False
    assert [(row.otp, row.sender) for row in rows(store)] == [("545123", "8843")]
    assert inbox.take(called(by_secret=False, sender="late")) == TOLD  # nothing that is not known
    assert [row.sender for row in rows(store)] == ["8843"]


def test_strangers_fill_no_disk_and_drive_nothing_out(
    store: Store, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert UNSIGNED >= 1000
    monkeypatch.setattr("smsverify.inbox.UNSIGNED", 3)
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
    assert inbox.last_id() == rest[-1][0]
    assert inbox.since(inbox.last_id()) == []
    assert [message.otp for _, message in inbox.since(0, order_ids=[9])] == ["200000"]


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
        connection.execute(sa.update(messages).values(received_at=messages.c.received_at - 8 * DAY))
        connection.execute(sa.update(callbacks).values(received_at=callbacks.c.received_at - 1.5 * DAY))
    short = Inbox(store, "wallet", retention=DAY)
    assert short.take(called()) is None
    assert [(row.otp, row.message) for row in rows(store)] == [(None, None)]
    assert [(row.otp, row.message, row.body) for row in rows(store, callbacks)] == [(None, None, None)] * 2
    assert (short.newest([ORDER]), short.since(0)) == ({}, [])
    assert not short.put(shown())
    with store.write() as connection:
        connection.execute(sa.update(callbacks).values(received_at=callbacks.c.received_at - 8 * DAY))
    assert Inbox(store, "wallet", retention=DAY).take(called()) == TOLD  # forgotten, and known all the same
    assert [(row.otp, row.message) for row in rows(store)] == [(None, None)]
