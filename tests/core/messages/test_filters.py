"""Which message a wait is for: one later than another, from a sender, with a pattern; and what that costs."""

from __future__ import annotations

import json
import logging
import math
import re
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rigs import eventually
from rigs.rooms import rooms_of
from rigs.waits import PATIENT

from smsverify import errors
from smsverify._input.patterns import Matching
from smsverify._messages.callbacks import VERIFIED, Callback
from smsverify._messages.filters import MessageFilter
from smsverify._messages.inbox import Inbox
from smsverify._orders.records import Records
from smsverify._store.store import Store, open_store
from smsverify.checks import check_pattern
from smsverify.hook import SmsVerifyHook
from smsverify.models import Message, Order
from smsverify.otp import extract_otp
from smsverify.simulator import Simulator

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]
SHORT = 1.0
ORDER = 454303
NOW = datetime(2026, 11, 24, 14, 22, 10, 123456, timezone.utc)


def message(text: str | None = "Your code is 48213", **values: Any) -> Message:
    return Message(**{"order_id": ORDER, "otp": "48213", "message": text, "received_at": NOW, **values})


def chosen(of: Message, **wanted: Any) -> str | None:
    """The code that a filter finds in a message; `no` where it does not pass."""
    found = MessageFilter.check(**wanted).first([of])
    return "no" if found is None else found.otp


# ------------------------------------------------------------------ what passes


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("after", "yesterday"),
        ("after", ""),
        ("after", "2026-11-24T14:22:10"),
        ("after", NOW.replace(tzinfo=None)),
        ("after", 1_800_000_000),
        ("after", Message(order_id=ORDER)),
        ("sender", " "),
        ("sender", True),
        ("sender", ["PayPal"]),
        ("pattern", "(unclosed"),
        ("pattern", ""),
        ("pattern", b"[0-9]+"),
        ("pattern", 7),
    ],
)
def test_what_is_malformed_is_refused_by_its_name(hook: SmsVerifyHook, field: str, value: Any) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        hook.wait_for_otp(ORDER, **{field: value})
    assert caught.value.field == field
    with pytest.raises(errors.InvalidRequestError):
        hook.check_otp(ORDER, **{field: value})


@pytest.mark.parametrize(
    "after",
    [
        NOW,
        message(),
        "2026-11-24T14:22:10.123456+00:00",
        "2026-11-24 14:22:10.123456Z",
        "2026-11-24T15:22:10,1234567+01:00",
        json.loads(json.dumps(message().as_dict()))["received_at"],
    ],
)
def test_only_what_came_later_counts(after: Any) -> None:
    assert chosen(message(), after=after) == "no"
    assert chosen(message(received_at=NOW + timedelta(microseconds=1)), after=after) == "48213"
    assert chosen(message(received_at=None), after=after) == "no"


@pytest.mark.parametrize(
    ("wanted", "sender", "passes"),
    [
        ("PayPal", "PAYPAL", True),
        (" paypal ", "PayPal", True),
        ("8843", "8843", True),
        ("+1 (609) 517-0503", "16095170503", True),
        ("6095170503", "+16095170503", True),
        ("PayPal", "PayPal2", False),
        ("8843", "88430", False),
        ("Route66", "66", False),
        ("PayPal", None, False),
    ],
)
def test_a_sender_is_compared_as_people_write_it(wanted: str, sender: str | None, passes: bool) -> None:
    assert (chosen(message(sender=sender), sender=wanted) == "48213") is passes


@pytest.mark.parametrize(
    ("text", "pattern", "code"),
    [
        ("Foo: 48213, room 4012", r"room (\d+)", "4012"),
        ("Foo: 48213, room 4012", re.compile("ROOM ([0-9]+)", re.IGNORECASE), "4012"),
        ("Foo: 48213", r"\d{5}", "48213"),
        ("Foo: \u2068٤٨٢١٣\u2069", r"[0-9]{5}", "48213"),
        ("Foo: 48213", r"Bar: (\d+)", "no"),
        (None, r"\d{5}", "48213"),
        (None, r"Foo: (\d+)", "no"),
    ],
)
def test_what_the_pattern_finds_is_the_code(text: str | None, pattern: Any, code: str) -> None:
    assert chosen(message(text), pattern=pattern) == code


# ------------------------------------------------------------------ when messages are received


@pytest.fixture
def store(any_store_url: str) -> Store:
    return open_store(any_store_url)


def inbox_of(store: Store, *, retention: float = 7 * 86_400.0, **order: Any) -> Inbox:
    with store.write() as connection:
        known = {"order_id": ORDER, "phone": "16095170503", "product": "rental", "key": "k", **order}
        Records(store, "wallet").put(connection, Order(**known))
    return Inbox(store, "wallet", retention=retention)


def test_after_a_message_is_all_that_came_later_whatever_the_clock_says(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = inbox_of(store, retention=math.inf)
    received: list[MessageFilter] = []
    moments = [1_700_000_000.1234564, 1_700_000_000.1234566, 1_600_000_000.0, 1_700_000_000.5]
    for number, moment in enumerate(moments):
        for clock in ("now", "wall"):
            monkeypatch.setattr(Store, clock, lambda *_, moment=moment: moment)
        assert inbox.put(Message(order_id=ORDER, otp=f"4821{number}", message=f"Code 4821{number}"))
        newest = inbox.newest([ORDER])[ORDER]
        later = [wanted.first([newest]) for wanted in received]
        assert [found and found.otp for found in later] == [newest.otp] * number
        received.append(MessageFilter.check(after=json.loads(json.dumps(newest.as_dict()))["received_at"]))
        assert inbox.find(ORDER, received[-1]) is None


@given(st.integers(1_500_000_000_000_000, 4_000_000_000_000_000))
def test_a_time_survives_the_store_and_json_to_the_microsecond(microseconds: int) -> None:
    aware = datetime.fromtimestamp(0, timezone.utc) + timedelta(microseconds=microseconds)
    stored = datetime.fromtimestamp(round(aware.timestamp() * 1e6) / 1e6, timezone.utc)
    text = json.loads(json.dumps(message(received_at=stored).as_dict()))["received_at"]
    assert MessageFilter.check(after=text).after == stored == aware


def test_a_code_that_is_shown_before_its_text_is_one_message(store: Store) -> None:
    inbox = inbox_of(store)
    code_only = Message(order_id=ORDER, otp="48213")
    whole = Message(order_id=ORDER, otp="48213", message="Your code is 48213")
    assert [inbox.put(shown) for shown in (code_only, whole, code_only, whole)] == [True] + [False] * 3
    (only,) = inbox.all_of([ORDER])[ORDER]
    assert (only.otp, only.message) == ("48213", "Your code is 48213")
    assert inbox.put(Message(order_id=ORDER, otp="55012", message="Your code is 55012"))


# ------------------------------------------------------------------ waits


def rent(hook: SmsVerifyHook) -> int:
    return hook.order("rental", service="WhatsApp", duration=3).order_id


def call_back(hook: SmsVerifyHook, order_id: int, text: str, sender: str) -> None:
    phone = hook.get_order(order_id).phone
    callback = Callback(
        by_secret=True,
        kind="sms",
        is_documented=True,
        order_id=order_id,
        phone=phone,
        sender=sender,
        message=text,
    )
    assert rooms_of(hook).inbox.take(callback) == VERIFIED


@pytest.mark.parametrize("as_text", [False, True], ids=["message", "text"])
def test_a_rental_gives_its_second_sms_after_the_first(
    as_text: bool, simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    order_id = rent(hook)
    simulator.deliver_sms(order_id, otp="111111")
    first = hook.wait_for_otp(order_id, PATIENT)
    after = first.as_dict()["received_at"] if as_text else first
    assert hook.wait_for_otp(order_id, PATIENT) == first  # nobody asked for a later one
    assert hook.check_otp(order_id, after=after) is None
    with pytest.raises(errors.WaitTimeoutError, match="another SMS came") as caught:
        hook.wait_for_otp(order_id, SHORT, after=after)
    assert not caught.value.cancelled
    simulator.deliver_sms(order_id, otp="222222")
    second = hook.wait_for_otp(order_id, PATIENT, after=after)
    assert (first.otp, second.otp) == ("111111", "222222")
    assert hook.check_otp(order_id, ask=False, after=second) is None
    assert simulator.order(order_id).status == "active"


def test_the_newest_that_fits_is_handed_out(simulator: Simulator, hook: SmsVerifyHook) -> None:
    order_id = rent(hook)
    for text in ("Foo: 11111", "Foo: 22222", "Bar: 33333"):
        simulator.deliver_sms(order_id, text=text)
        hook.get_status(order_id)
    assert hook.wait_for_otp(order_id, PATIENT, pattern="Foo: ([0-9]+)").otp == "22222"
    assert hook.wait_for_otp(order_id, PATIENT).message == "Bar: 33333"


def test_a_sender_that_only_a_callback_names_ends_the_wait(
    simulator: Simulator, hook: SmsVerifyHook, caplog: pytest.LogCaptureFixture
) -> None:
    order_id = rent(hook)
    simulator.deliver_sms(order_id, text="Your code is 111111")
    hook.get_status(order_id)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(errors.WaitTimeoutError, match="only callbacks carry it"),
    ):
        hook.wait_for_otp(order_id, SHORT, sender="PayPal")
    assert "Only callbacks carry the sender" in caplog.text
    call_back(hook, order_id, "Your code is 222222", "Bank")
    call_back(hook, order_id, "Your code is 111111", "PAYPAL")
    assert hook.wait_for_otp(order_id, PATIENT, sender="PayPal").otp == "111111"
    assert hook.wait_for_otp(order_id, PATIENT, sender="bank").otp == "222222"


def test_an_order_that_has_ended_with_another_message_ends_the_wait(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = hook.order("temporary", service="WhatsApp").order_id
    simulator.deliver_sms(order_id, text="Foo: 11111")
    with pytest.raises(errors.OrderEndedError, match="none that this wait asks for") as caught:
        hook.wait_for_otp(order_id, PATIENT, pattern="Bar: ([0-9]+)")
    assert caught.value.status == "completed"
    with pytest.raises(errors.OrderEndedError):
        hook.check_otp(order_id, pattern="Bar: ([0-9]+)")


def test_an_ended_order_is_waited_for_while_a_callback_may_name_the_sender(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = hook.order("temporary", service="WhatsApp").order_id
    simulator.deliver_sms(order_id, text="Your code is 111111")
    with pytest.raises(errors.WaitTimeoutError):
        hook.wait_for_otp(order_id, SHORT, sender="PayPal")
    assert simulator.order(order_id).status == "completed"
    assert hook.check_otp(order_id, sender="PayPal") is None
    call_back(hook, order_id, "Your code is 111111", "PayPal")
    assert hook.wait_for_otp(order_id, PATIENT, sender="PayPal").otp == "111111"


# ------------------------------------------------------------------ patterns that take for ever

# 36 characters; tried in every way, they take half a minute.
SLOW_TEXT = "Hello " + "aaaaa " * 4 + "aaaaa!"
SLOW_PATTERN = r"(?:\w+\s?)+[:;] (\d{6})"
# What no module can see through, and a text for which it takes for ever.
SLOWEST_PATTERN, SLOWEST_TEXT = r"(?:a?){40}(?:a|aa)+[:;] (\d{6})|(.*)+\b(?:(.+)x)+y", "a" * 60 + "!"


@pytest.mark.slow
def test_a_pattern_that_takes_for_ever_stops_no_other_wait(
    simulator: Simulator, hook: SmsVerifyHook, caplog: pytest.LogCaptureFixture
) -> None:
    slow, other = rent(hook), rent(hook)
    stop = threading.Event()
    ends: list[Any] = []

    def wait_slowly() -> None:
        try:
            hook.wait_for_otp(slow, PATIENT, pattern=SLOWEST_PATTERN, stop=stop)
        except errors.WaitStoppedError as error:
            ends.append(error)

    threads = [threading.Thread(target=wait_slowly) for _ in range(20)]
    with caplog.at_level(logging.WARNING):
        for thread in threads:
            thread.start()
        simulator.deliver_sms(slow, text=SLOWEST_TEXT)
        hook.get_status(slow)
        began = time.process_time()
        simulator.deliver_sms(other, text="Foo: 482913")
        assert hook.wait_for_otp(other, PATIENT, pattern="Foo: ([0-9]+)").otp == "482913"
        # Of the slow ones, each may have had its first, short try before.
        assert time.process_time() - began < 10
        eventually(lambda: caplog.text.count("takes too long") == 20, "the warnings")
        time.sleep(0.1)  # some looks later, nothing is tried or said again
        stop.set()
        for thread in threads:
            thread.join(PATIENT)
    assert len(ends) == 20
    assert caplog.text.count("takes too long") == 20
    assert f"a message of order {slow}" in caplog.text
    assert SLOWEST_TEXT not in caplog.text


@pytest.mark.parametrize(
    ("pattern", "text"), [(SLOW_PATTERN, SLOW_TEXT), (SLOWEST_PATTERN, SLOWEST_TEXT)], ids=["slow", "slowest"]
)
def test_a_pattern_that_takes_for_ever_finds_nothing(pattern: str, text: str) -> None:
    wanted = MessageFilter.check(pattern=pattern)
    assert wanted.first([message(text)]) is None
    assert wanted.unknown([message(text), message("Foo")]) == ["Foo"]
    assert extract_otp(text, pattern=pattern) is None


def test_what_takes_long_is_tried_after_all_else() -> None:
    slow, fast = check_pattern(SLOWEST_PATTERN), check_pattern("Foo: ([0-9]+)")
    ends: list[str] = []
    is_over = threading.Event()
    matching = Matching()

    def slow_is_over() -> None:
        ends.append("slow")
        is_over.set()

    matching.look(slow, SLOWEST_TEXT, slow_is_over)
    matching.look(slow, SLOWEST_TEXT, slow_is_over)  # is under way
    matching.look(fast, "Foo: 48213", lambda: ends.append("fast"))
    assert is_over.wait(PATIENT)
    assert ends == ["fast", "slow"]
    assert (fast.find("Foo: 48213"), slow.knows(SLOWEST_TEXT)) == ("48213", True)


@pytest.mark.parametrize(
    "pattern",
    ["a" * 1001, "(" * 20 + "a" + ")+" * 20, "(?:" * 30 + "a" + "{1,100})" * 30],
    ids=["long", "nested", "repeated"],
)
def test_a_pattern_that_could_take_long_to_compile_is_refused(hook: SmsVerifyHook, pattern: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match="pattern") as caught:
        hook.wait_for_otp(ORDER, pattern=pattern)
    assert caught.value.field == "pattern"


@pytest.mark.parametrize("pattern", [r"[(((((((((]([0-9]+)", r"\(\(\(\(\(\(\(\(\(([0-9]+)"])
def test_brackets_that_are_no_groups_do_not_count(pattern: str) -> None:
    assert check_pattern(pattern).find("((((((((((48213") == "48213"


def test_a_compiled_pattern_keeps_its_flags() -> None:
    flags = re.IGNORECASE | re.ASCII | re.VERBOSE | re.DOTALL | re.MULTILINE
    pattern = re.compile(r"^foo: . (\w+)  # the code", flags)
    assert chosen(message("x\nFOO:\nab1\u00e9"), pattern=re.compile(pattern.pattern, flags)) == "ab1"
    assert chosen(message("FOO: ab1"), pattern=re.compile("foo: (ab1)")) == "no"


def test_a_text_of_a_megabyte_is_no_sms(hook: SmsVerifyHook) -> None:
    wanted = MessageFilter.check(pattern="([0-9]{6})")
    assert wanted.first([message("x" * 1_000_000 + "482913")]) is None


# ------------------------------------------------------------------ money


def test_a_time_out_without_any_message_gives_the_order_back(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = hook.order("temporary", service="WhatsApp").order_id
    with pytest.raises(errors.WaitTimeoutError) as caught:
        hook.wait_for_otp(order_id, SHORT, pattern="Foo: ([0-9]+)")
    assert caught.value.cancelled
    assert simulator.balance() == 50


def test_an_order_whose_sms_came_is_not_cancelled_and_its_code_is_not_lost(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = hook.order("rent-1day", service="WhatsApp").order_id
    simulator.deliver_sms(order_id, text="Bar: 33333")
    with pytest.raises(errors.WaitTimeoutError, match="another SMS came") as caught:
        hook.wait_for_otp(order_id, SHORT, pattern="Foo: ([0-9]+)")
    assert not caught.value.cancelled
    hook.reconcile(cancel_after=0)
    assert not simulator.order(order_id).status.startswith("cancel")
    assert hook.wait_for_otp(order_id, PATIENT).message == "Bar: 33333"


def test_a_block_that_got_another_message_leaves_the_order_alone(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    with hook.rented_number("rental", service="WhatsApp", duration=3) as number:
        simulator.deliver_sms(number.order_id, text="Bar: 33333")
        with pytest.raises(errors.WaitTimeoutError):
            number.wait_for_otp(SHORT, pattern="Foo: ([0-9]+)")
    assert simulator.order(number.order_id).status == "active"
