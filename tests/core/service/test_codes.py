"""What the fields `otp` and `message` of a status say, whatever the service puts into them."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from smsverify import errors
from smsverify._service.bodies import Contradiction
from smsverify._service.codes import read_fields
from smsverify.hook import SmsVerifyHook
from smsverify.otp import extract_otp

URL = "http://127.0.0.1:9"
TEXT = "Your PayPal OTP is 545123"


@pytest.mark.parametrize(
    ("otp", "code"),
    [
        ("548921", "548921"),
        (" 548921\n", "548921"),
        (548921, "548921"),
        (548921.0, "548921"),
        (Decimal("548921.0"), "548921"),
        ("548921.0", "548921"),
        ("012345.00", "012345"),
        ("0000", "0000"),
        ("000", "000"),
        ("\uff15\uff14\uff18\uff19\uff12\uff11", "548921"),
        ("\u2068548921\u2069", "548921"),
        ("[548921]", "548921"),
        ("#548921.", "548921"),
        ("G-548921", "G-548921"),
        ("123-456", "123-456"),
        ("123 456", "123 456"),
        ("A7K2Q9", "A7K2Q9"),
        ("QWXZP", "QWXZP"),  # which can be no word
        (["548921"], "548921"),
        ([548921], "548921"),
        ("STATUS_OK:548921", "548921"),
        ("status_ok: 548921", "548921"),
    ],
)
def test_a_code_is_handed_out_as_it_stands(otp: Any, code: str) -> None:
    assert read_fields(otp, None) == (code, None)
    assert read_fields(otp, "Welcome") == (code, "Welcome")


@pytest.mark.parametrize(
    "nothing",
    [
        *(
            None,
            "",
            " ",
            "None",
            "null",
            "NULL",
            "nil",
            "NaN",
            "N/A",
            "n.a.",
            "-",
            "--",
            "\u2014",
            "\u2026",
            "...",
            "?",
        ),
        *(
            "waiting",
            "Waiting...",
            "pending",
            "PENDING",
            "false",
            "undefined",
            "not received",
            "Not available",
        ),
        *(
            "Waiting for SMS",
            "waiting for the code",
            "no sms yet",
            "No OTP received yet",
            "SMS not received yet",
        ),
        *("Please wait for the SMS", "Still waiting for message\u2026", "0", "00", "\0"),
        *("STATUS_WAIT_CODE", "STATUS_WAIT_RETRY:548920", "STATUS_CANCEL", [], ["waiting"], [None]),
        *("We are waiting for your SMS", "We're waiting for the SMS", "Waiting for SMS to arrive"),
        *("Waiting for SMS from provider", "Awaiting code from provider", "Still waiting", "WAIT_CODE"),
        *("SMS has not been received", "The SMS has not arrived yet", "The SMS hasn't arrived yet"),
        *("There is no SMS yet", "You have no messages", "0 SMS received", "Nothing yet", "waiting_for_sms"),
        *("Ready to receive SMS", "Listening for SMS", "No message received yet. Please try again later."),
    ],
)
@pytest.mark.parametrize("status", ["pending", "active", "completed"])
def test_what_stands_for_nothing_is_nothing(nothing: Any, status: str) -> None:
    assert read_fields(nothing, nothing, status=status) == (None, None)
    assert read_fields(nothing, "Your code is 548921", status=status) == (None, "Your code is 548921")
    assert read_fields("548921", nothing, status=status) == ("548921", None)


ENDED_ODDLY = ("canceled_by_provider", "Cancelled by user", "refund_pending", "error", "failure", "timed out")


@pytest.mark.parametrize(
    "words",
    [
        "Order cancelled and refunded",
        "Your order is ready",
        "Your order has not been received yet",
        "We are waiting for you!",
        "Welcome to our service!",
    ],
)
def test_a_text_without_a_code_is_no_sms_where_the_status_says_that_none_is_there(words: str) -> None:
    for status in ("pending", "Pending", "cancelled", "refunded", "expired", "timeout", *ENDED_ODDLY):
        assert read_fields(None, words, status=status) == (None, None)
    for status in ("completed", "Completed", "active", "arrived", None):
        assert read_fields(None, words, status=status) == (None, words)


@pytest.mark.parametrize(
    "words",
    [
        *("Order status retrieved", "Order status was retrieved successfully.", "OK", "success", "In use"),
        *("Number +1 415 555 0123 is ready", "OTP pending", "In queue", "Searching...", "Hold on"),
        *("Time left: 1199 seconds", "1 day 3 hours left", "3 days left", "Remaining: 20 minutes"),
        *(
            "Rental active until 2026-12-14T05:00:00Z",
            "Valid until 2026-12-14 20:30",
            "Expires in 600 seconds",
        ),
    ],
)
def test_a_sentence_that_only_the_service_says_is_no_sms_before_the_order_is_completed(words: str) -> None:
    for status in ("pending", "active", "arrived", None):
        own: dict[str, Any] = {"status": status, "phone": "+1 415 555 0123", "order_id": 458731}
        assert read_fields(None, words, **own) == (None, None)
        assert read_fields("548921", words, **own) == ("548921", words)
    assert read_fields(None, words, status="completed") == (None, words)


@pytest.mark.parametrize("text", ["Your code is 548921", "1234 or 5678", "Call 4821"])
def test_a_text_that_may_hold_a_code_is_an_sms_in_any_status(text: str) -> None:
    for status in ("pending", "cancelled"):
        assert read_fields(None, text, status=status) == (None, text)


@pytest.mark.parametrize(
    "words",
    [
        "Waiting for SMS on +14155550123",
        "Awaiting OTP for WhatsApp on +1 (415) 555-0123",
        "Your number is 4155550123",
        "Order 458731 is pending",
        "Order #458731: in queue",
        "No SMS yet. Expires in 600 seconds",
        "No SMS yet. Ticket 4711",
        "Number expires in 1140 s",
        "Expires at 2026-12-01T15:40:12.123Z",
        "Order created on 01.12.2026 15:40",
        "Price 0.400 USD charged",
        "Charged: $0.400",
        "Cancelled by provider, error 404",
        "Upstream answered HTTP 502 (attempt 120)",
    ],
)
def test_a_number_of_the_service_s_own_words_makes_no_sms(words: str) -> None:
    for status in ("pending", "cancelled", "failed"):
        own = {"status": status, "phone": "+1 415 555 0123", "order_id": 458731}
        assert read_fields(None, words, **own) == (None, None)
        assert read_fields(words, None, **own) == (None, None)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("No SMS yet? Your code is 548921", "548921"),
        ("Code 548921 for +14155550123 expires in 600 seconds", "548921"),
        ("Order 458731: 5489 or 5490", None),
        ("4589 or 458 731 4", None),
        ("Call 0155501234", None),
        ("Pay $5000", None),
        ("Your next try 4417", None),
    ],
)
def test_a_number_beside_the_service_s_own_may_be_a_code(text: str, code: str | None) -> None:
    own: dict[str, Any] = {"status": "pending", "phone": "+1 415 555 0123", "order_id": 458731}
    assert read_fields(None, text, **own) == (None, text)
    assert read_fields(text, None, **own) == (code, text)


@pytest.mark.parametrize("status", ["active", "completed", None])
def test_who_waits_on_the_order_s_own_number_has_no_sms(status: str | None) -> None:
    for words in ("Waiting for OTP on 4155550123", "Waiting for SMS for order #458731..."):
        own: dict[str, Any] = {"status": status, "phone": "+1 415 555 0123", "order_id": 458731}
        assert read_fields(None, words, **own) == (None, None)
        assert read_fields(words, None, **own) == (None, None)


@pytest.mark.parametrize(
    "otp",
    [
        *(
            True,
            False,
            0,
            0.0,
            -5,
            -548921.0,
            5.5,
            7,
            "12",
            1e30,
            float("nan"),
            float("inf"),
            Decimal("1E+999999"),
        ),
        *(
            [],
            [["548921"]],
            ["548921", "548922"],
            {"expires_in": 548921},
            "completed",
            "error",
            "hello",
            "x" * 5000,
            "9" * 5000,
            10**400,
        ),
    ],
)
def test_what_can_be_no_code_is_none(otp: Any) -> None:
    assert read_fields(otp, None) == (None, None)


def test_a_number_that_has_lost_its_zeros_gets_them_back() -> None:
    assert read_fields(0, "Your code is 000000") == ("000000", "Your code is 000000")
    assert read_fields(12345.0, "Your code is 012345")[0] == "012345"
    assert read_fields(12345, "9" * 5000)[0] == "12345"  # more digits than Python likes to convert
    # Where several numbers of the text are alike, it is the one that is called the code.
    assert read_fields(4821, "Ref 004821. Your code is 4821")[0] == "4821"
    assert read_fields(4821.0, "Call 0 4821. Your code is 4821")[0] == "4821"
    assert read_fields(821, "Order 0821: your code is 000821")[0] == "000821"


@pytest.mark.parametrize(
    ("sentence", "code"),
    [
        ("Your code is 548921", "548921"),
        ("548921 is your Foo code", "548921"),
        ("Code: 548921", "548921"),
        ("Ваш код: 548921", "548921"),
        ("Code: №548921", "548921"),
        ("Dial 112 now", None),
    ],
)
def test_a_sentence_is_the_text_and_its_code_is_read(sentence: str, code: str | None) -> None:
    assert read_fields(sentence, None) == (code, sentence)
    assert read_fields(sentence, "Another text") == (code, "Another text")


def test_a_text_may_stand_alone_in_a_list() -> None:
    text = "Your code is 012345"
    assert read_fields([12345], [text], status="completed") == ("012345", text)
    assert read_fields(None, [text], status="completed") == (None, text)
    assert read_fields(f"STATUS_OK:{text}", None, status="completed") == ("012345", text)


def test_of_several_texts_the_last_one_is_read() -> None:
    texts = ["Your code is 548921", "Your code is 548922"]
    assert read_fields(None, texts, status="completed") == (None, texts[1])
    assert read_fields("548922", texts, status="pending") == ("548922", texts[1])
    assert read_fields(None, [*texts, None], status="completed") == (None, None)


def test_words_are_an_sms_only_where_the_status_vouches_for_it() -> None:
    for words in ("hello", "Welcome to Foo", "\u043e\u0436\u0438\u0434\u0430\u043d\u0438\u0435"):
        assert read_fields(words, None, status="pending") == (None, None)
        assert read_fields(words, None, status="Completed ") == (None, words)
    assert read_fields("FOXTROT", "Say FOXTROT")[0] == "FOXTROT"
    assert read_fields("FOXTROT", "Say nothing") == (None, "Say nothing")


def test_the_orders_own_number_and_a_date_are_no_codes() -> None:
    assert read_fields("14155550123", None, phone="+1 415 555 0123") == (None, None)
    assert read_fields("2026-05-12", "x")[0] is None


@pytest.mark.parametrize("otp", ["null", "Waiting for SMS", "-", 0])
def test_a_wait_goes_on_where_nothing_has_come(
    requests_mock: Any, make_hook: Any, store_url: str, otp: Any
) -> None:
    hook: SmsVerifyHook = make_hook(URL, store_url)
    status = f"{URL}/api/v1/order/7/status/"
    requests_mock.get(status, json={"order_id": 7, "status": "active", "otp": otp, "message": otp or None})
    requests_mock.get(f"{URL}/api/v1/orders/", json=[])
    with pytest.raises(errors.WaitTimeoutError):
        hook.wait_for_otp(7, 0.5, cancel_on_timeout=False)
    requests_mock.get(status, text='{"order_id": 7, "status": "active", "otp": 548921.0}')
    assert hook.wait_for_otp(7, 30).otp == "548921"
    assert json.loads(json.dumps(hook.get_status(7).as_dict()))["otp"] == "548921"


@pytest.mark.parametrize("status", ["pending", "completed"])
@pytest.mark.parametrize(
    ("otp", "message", "code", "text"),
    [
        (None, {"order_id": 7, "number": "14155550123", "sender": "8843", "sms": TEXT}, "545123", TEXT),
        (None, [{"text": "Your code is 111222"}, {"text": TEXT}], "545123", TEXT),
        ({"code": "545123"}, TEXT, "545123", TEXT),
        ([{"otp": 545123}], None, "545123", None),
        (None, {"message": TEXT, "code": "545123"}, "545123", TEXT),
        (None, {"sms": "Waiting for SMS"}, None, None),
        (None, {"sms": None, "sender": "8843"}, None, None),
        ({"expires_in": 300}, {}, None, None),
        (Contradiction(code="545123"), Contradiction(sms=TEXT), None, None),
    ],
)
def test_a_text_and_a_code_may_stand_in_an_object(
    otp: Any, message: Any, code: str | None, text: str | None, status: str
) -> None:
    found = read_fields(otp, message, status=status, phone="+1 415 555 0123", order_id=7)
    assert found[1] == text
    assert (found[0] or (text and extract_otp(text))) == code


@pytest.mark.parametrize("status", ["pending", "active", "completed"])
@pytest.mark.parametrize(
    ("otp", "message", "code"),
    [
        (None, {"code": 200, "text": "No SMS yet"}, None),
        (None, {"code": 200, "message": "OK"}, None),
        (None, {"code": 200}, None),
        ({"code": 404, "message": "No OTP yet"}, None, None),
        ({"code": 200, "status": "waiting"}, None, None),
        ({"code": 200}, "No SMS yet", None),
        (None, {"code": "200", "text": "Your code is 482913"}, "482913"),
        (None, {"code": "4829", "text": "Your code is 482913"}, "482913"),
        ([{"code": "1012", "text": "Your code is 482913"}], None, "482913"),
        (None, {"code": 45123, "text": "Your code is 045123"}, "045123"),
        (None, {"code": "482913", "text": "Your code is 482-913, call 4417"}, "482913"),
        ({"otp": "200", "code": 404}, None, "200"),
    ],
)
def test_a_number_of_an_object_that_its_text_does_not_have_is_no_code(
    otp: Any, message: Any, code: str | None, status: str
) -> None:
    given, text = read_fields(otp, message, status=status, phone="+1 415 555 0123", order_id=7)
    assert (given or (text and extract_otp(text))) == code
