"""How tolerantly an answer is read."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from smsverify._input.phones import phone_digits
from smsverify._input.times import as_datetime
from smsverify.models import (
    Balance,
    Country,
    EsimPlan,
    Message,
    Order,
    OrderStatus,
    Rental,
    Service,
    as_price,
    has_ended,
    period_of,
    reckon_expiry,
    with_leading_zeros,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-05-14T05:00:00Z", "2026-05-14T05:00:00+00:00"),
        ("2026-05-14T05:00:00", "2026-05-14T05:00:00+00:00"),
        ("2026-05-14 05:00:00", "2026-05-14T05:00:00+00:00"),
        ("2026-05-14T05:00:00.123456Z", "2026-05-14T05:00:00.123456+00:00"),
        ("2026-05-14T07:00:00+02:00", "2026-05-14T05:00:00+00:00"),
        ("2026-05-14T05:00Z", "2026-05-14T05:00:00+00:00"),
        ("2026-05-14", "2026-05-14T00:00:00+00:00"),
        ("2026-05-14 05:00:00 UTC", "2026-05-14T05:00:00+00:00"),
        ("2026-05-14T07:00:00 +02:00", "2026-05-14T05:00:00+00:00"),
        ("2026-05-14 07:00:00 +0200", "2026-05-14T05:00:00+00:00"),
        ("2026-05-14T05:00:00 Z", "2026-05-14T05:00:00+00:00"),
        ("20260514T050000Z", "2026-05-14T05:00:00+00:00"),
        ("20260514T050000.5+0000", "2026-05-14T05:00:00.500000+00:00"),
        ("20260514 050000", "2026-05-14T05:00:00+00:00"),
        ("2026-05-14T24:00:00Z", "2026-05-15T00:00:00+00:00"),
        ("2026-12-31 24:00", "2027-01-01T00:00:00+00:00"),
        ("20260514T240000Z", "2026-05-15T00:00:00+00:00"),
        ("2026-06-30T23:59:60Z", "2026-07-01T00:00:00+00:00"),
    ],
)
def test_datetimes_are_tolerant_and_always_aware(text: str, expected: str) -> None:
    when = as_datetime(text)
    assert when is not None
    assert when.tzinfo is not None
    assert when == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    "value",
    [
        *[None, "", " ", "soon", "2026-13-45", "T05:00", 17, {}, True, "0000-00-00", "2026-05-14T24:00:01Z"],
        *[
            "2026-05-14T24:30",
            "2026-05-14T05:00:61Z",
            "20261345T050000Z",
            "20260514",
            "2026" + " " * 70 + "Z",
        ],
    ],
)
def test_an_unreadable_datetime_is_unknown_and_does_not_spoil_the_answer(value: Any) -> None:
    order = Order.model_validate({"order_id": 1, "created_at": value, "expiry_date": value})
    assert (order.created_at, order.expires_at) == (None, None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("0.4"), "0.4"),
        ("0.40", "0.40"),
        (" $0.40 ", "0.40"),
        ("USD 0.40", "0.40"),
        ("US$0.40", "0.40"),
        ("0.40 USD", "0.40"),
        ("1,250.00", "1250.00"),
        ("$ 1,234,567.5", "1234567.5"),
        ("0,40", None),
        ("1,250", None),
        ("1,25.00", None),
        ("1250,000.00", None),
        ("1.250,00", None),
        (4, "4"),
        (0, "0"),
        (Decimal("0.30000000000000004"), "0.3"),
        (Decimal("1.2999999999999998"), "1.3"),
        (Decimal("100.00000000000001"), "100"),
        ("0.30000000000000004", "0.3"),
        ("1E-7", "0.0000001"),
        (None, None),
        ("", None),
        ("free", None),
        (True, None),
        ("NaN", None),
        ("Infinity", None),
        ({}, None),
        ([1], None),
    ],
)
def test_prices_are_exact_or_unknown(value: Any, expected: str | None) -> None:
    assert as_price(value) == (None if expected is None else Decimal(expected))
    assert isinstance(as_price(value), Decimal) or expected is None
    assert str(as_price(value)) in (str(None), str(Decimal(expected or 0)))


@pytest.mark.parametrize("otp", [None, "", "   ", False, [], {}])
@pytest.mark.parametrize("message", [None, "", False])
def test_null_empty_and_absent_all_mean_that_no_sms_has_come(otp: Any, message: Any) -> None:
    for values in ({"otp": otp, "message": message}, {"otp": otp}, {"message": message}, {}):
        status = OrderStatus.model_validate({"order_id": 1, "status": "completed", **values})
        assert (status.otp, status.message, status.arrived) == (None, None, False)


def test_a_code_has_arrived_when_it_or_the_text_is_there_whatever_the_status() -> None:
    for status in ("pending", "active", "completed", "cancelled", "strange"):
        assert OrderStatus(order_id=1, status=status, otp="1").arrived
        assert OrderStatus(order_id=1, status=status, message="hello").arrived
        assert not OrderStatus(order_id=1, status=status).arrived


@pytest.mark.parametrize(
    ("status", "ended", "cancelled"),
    [
        ("pending", False, False),
        ("active", False, False),
        ("completed", True, False),
        ("cancelled", True, True),
        ("canceled", True, True),
        ("refunded", True, True),
        ("expired", True, False),
        ("failed", True, False),
        ("timeout", True, False),
        (" Cancelled ", True, True),
        ("COMPLETED", True, False),
        ("waiting_for_sms", False, False),
    ],
)
def test_the_vocabulary_of_statuses_is_open(status: str, ended: bool, cancelled: bool) -> None:
    answer = OrderStatus(order_id=1, status=status)
    assert (answer.status, answer.ended, answer.cancelled) == (status.strip().lower(), ended, cancelled)
    assert has_ended(answer.status) is ended
    for model in (Order, Rental):
        assert model(order_id=1, status=status).status == answer.status


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("Timed Out", "timeout"),
        ("timed_out", "timeout"),
        ("TIME-OUT", "timeout"),
        ("CANCELLED_REFUNDED", "cancelled"),
        ("Cancelled by user", "cancelled"),
        ("Canceled (refunded)", "cancelled"),
        ("cancelled_no_refund", "cancelled_no_refund"),
        ("Cancelled, not refunded", "Cancelled, not refunded"),
        ("cancel_requested", "cancel_requested"),
        ("not cancelled", "not cancelled"),
        ("cancelling", "cancelling"),
        ("closed", "closed"),
        ("Completed_", "completed"),
    ],
)
def test_a_status_that_we_know_counts_however_it_is_written(status: str, word: str) -> None:
    assert Order(order_id=1, status=status).status == word
    assert OrderStatus(order_id=1, status=status).ended is (word in ("timeout", "cancelled", "completed"))


@pytest.mark.parametrize(
    ("otp", "message", "expected"),
    [
        (12345, "Your code is 012345", "012345"),
        (7, "code: 0007.", "0007"),
        (123, "Code 000-123", "000123"),
        (0, "Your code is 000000", "000000"),
        (548921, "Your WhatsApp code is 548921", "548921"),
        (12345, "call +1012345 or use 012345", "012345"),
        (12345, None, "12345"),
        (12345, "no digits here", "12345"),
    ],
)
def test_an_integer_code_gets_its_leading_zeros_back_from_the_text(
    otp: int, message: str | None, expected: str
) -> None:
    assert with_leading_zeros(otp, message) == expected


@pytest.mark.parametrize(
    ("phone", "digits", "e164"),
    [
        ("+1 415 555 0123", "14155550123", "+14155550123"),
        ("16095170503", "16095170503", "+16095170503"),
        ("(609) 517-0503", "16095170503", "+16095170503"),
        ("+44 20 7946 0017", "442079460017", "+442079460017"),
        ("0044 20 7946 0017", "442079460017", "+442079460017"),
        ("+45 12 34 56 78", "4512345678", "+4512345678"),
        ("", None, None),
        (None, None, None),
    ],
)
def test_a_phone_is_there_raw_as_digits_and_in_e164(
    phone: str | None, digits: str | None, e164: str | None
) -> None:
    assert Order(order_id=1, phone="n/a").phone is None
    order = Order(order_id=1, phone=phone)
    assert order.phone == (phone or None)
    assert (order.phone_digits, order.phone_e164) == (digits, e164)
    assert phone_digits(phone) == digits


NOW = datetime(2026, 5, 12, 5, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"expiry_date": "2026-05-14T05:00:00Z", "time_left_seconds": 5}, NOW + timedelta(days=2)),
        ({"time_left_seconds": 90}, NOW + timedelta(seconds=90)),
        ({"time_left_seconds": "90"}, NOW + timedelta(seconds=90)),
        ({"time_left_seconds": 90, "days_left": 30}, NOW + timedelta(seconds=90)),
        ({"days_left": 2}, NOW + timedelta(days=2)),
        ({"days_left": "1.5"}, NOW + timedelta(hours=36)),
        ({"time_left_seconds": 0}, NOW),
        ({"time_left_seconds": None, "days_left": ""}, None),
        ({"time_left_seconds": "soon"}, None),
        ({"expiry_date": "never"}, None),
        ({"time_left_seconds": 1e30}, None),
        ({"days_left": 99_999_999_999}, None),
        ({}, None),
    ],
)
def test_an_expiry_is_answered_or_reckoned_from_the_time_left_or_unknown(
    fields: dict[str, Any], expected: datetime | None
) -> None:
    status = OrderStatus.model_validate({"order_id": 1, "status": "active", **fields})
    assert reckon_expiry(status, NOW) == expected


@pytest.mark.parametrize("left", [{"time_left_seconds": 0}, {"days_left": 0}])
def test_a_rental_that_has_not_begun_has_no_end_yet(left: dict[str, Any]) -> None:
    for word, expected in (("pending", None), ("Pending", None), ("active", NOW)):
        status = OrderStatus.model_validate({"order_id": 1, "status": word, **left})
        assert reckon_expiry(status, NOW) == expected


@pytest.mark.parametrize("word", ["Completed", " COMPLETED ", "Pending", "ACTIVE", "Refunded"])
def test_a_known_status_is_the_documented_word_however_it_is_written(word: str) -> None:
    assert Order.model_validate({"order_id": 1, "status": word}).status == word.strip().lower()
    assert OrderStatus.model_validate({"order_id": 1, "status": word}).status == word.strip().lower()
    assert Order.model_validate({"order_id": 1, "status": "Verifying"}).status == "Verifying"


def test_fields_that_are_not_documented_are_kept() -> None:
    order = Order.model_validate({"order_id": "5", "carrier": "X", "nested": {"a": 1}})
    assert order.model_extra == {"carrier": "X", "nested": {"a": 1}}
    assert order.order_id == 5


@pytest.mark.parametrize("other", [None, "Another", 0, "2027-01-01T00:00:00Z"])
@pytest.mark.parametrize(
    ("model", "name", "documented"),
    [
        (Balance, "amount", {"balance": 50}),
        (Country, "name", {"country_id": 4, "country_name": "United Kingdom"}),
        (Order, "expires_at", {"order_id": 1, "expiry_date": "2026-05-14T05:00:00Z"}),
        (OrderStatus, "expires_at", {"order_id": 1, "status": "x", "expiry_date": "2026-05-14T05:00:00Z"}),
    ],
)
def test_a_field_that_is_called_like_one_of_ours_does_not_take_its_place(
    model: type[Any], name: str, documented: dict[str, Any], other: Any
) -> None:
    one = model.model_validate(documented)
    two = model.model_validate({name: other, **documented})
    assert one == two
    assert one.model_dump(mode="json") == two.model_dump(mode="json")
    assert model.model_validate(two.model_dump(mode="json")) == one
    assert two.model_copy(update={name: getattr(one, name)}).as_dict() == one.as_dict()


@pytest.mark.parametrize("values", [{}, {"order_id": None}, {"order_id": "x"}, {"order_id": 0}])
def test_an_order_without_its_id_is_none(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Order.model_validate(values)


def test_strings_stand_for_numbers() -> None:
    balance = Balance.model_validate({"balance": "50.00"})
    assert (balance.amount, balance.currency) == (Decimal("50.00"), "USD")
    plan = EsimPlan.model_validate({"name": "X", "data_gb": "5", "validity_days": "30", "price": "12.00"})
    assert (plan.data_gb, plan.validity_days, plan.price) == (Decimal(5), 30, Decimal("12.00"))


@pytest.mark.parametrize("amount", [None, "", "much", True, {}])
def test_a_balance_without_an_amount_is_none(amount: Any) -> None:
    with pytest.raises(ValidationError):
        Balance.model_validate({"balance": amount, "currency": "USD"})


def test_a_text_that_no_database_takes_is_made_one_that_it_takes() -> None:
    message = Message(order_id=1, message="code 1234 \ud83d\0", otp="1234\0")
    assert message.otp == "1234"
    assert message.message is not None
    assert message.message.startswith("code 1234")
    message.message.encode()


# ------------------------------------------------------------------ what is shown

SECRETS = {"otp": "777123", "message": "Your code is 777123", "activation_code": "SIM-999"}


@pytest.mark.parametrize("model", [Order, Message, OrderStatus])
def test_a_repr_shows_no_code_and_nothing_undocumented(model: type[Order]) -> None:
    answer = model.model_validate({"order_id": 1, "status": "active", **SECRETS, "sms_code": "777123"})
    for shown in (repr(answer), str(answer), f"{answer!r:>10}", repr([answer])):
        assert not any(secret in shown for secret in ("777123", "SIM-999", "Your code"))
    assert "order_id=1" in repr(answer)


def test_an_activation_code_leaves_the_process_neither_in_json_nor_in_a_pickle() -> None:
    order = Order(order_id=7, product="esim", activation_code="SIM-999", qr="LPA:1$SIM-999")
    assert order.activation_code == "SIM-999"
    assert order.model_copy(update={"status": "active"}).activation_code == "SIM-999"
    assert copy.deepcopy(order).activation_code == "SIM-999"
    for written in (order.model_dump_json(), repr(order.model_dump()), repr(pickle.dumps(order))):
        assert "SIM-999" not in written
    again = pickle.loads(pickle.dumps(order))
    assert (again.order_id, again.activation_code) == (7, None)
    number = Order(order_id=7, phone="+1 415 555 0123", more="kept")
    assert pickle.loads(pickle.dumps(number)) == number
    assert number.model_dump()["more"] == "kept"


def test_the_dict_for_other_programs_is_json_without_the_activation_code() -> None:
    order = Order.model_validate(
        {
            "order_id": 1,
            "price": Decimal("0.40"),
            "expiry_date": "2026-05-14T05:00:00Z",
            "activation_code": "SIM-999",
            "carrier": "X",
        }
    )
    values = order.as_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["price"] == "0.40"
    assert values["expires_at"] == "2026-05-14T05:00:00Z"
    assert set(values) == set(Order.model_fields) - {"activation_code"}
    message = Message(order_id=1, otp="777123", message="Your code is 777123").as_dict()
    assert (message["otp"], message["message"]) == ("777123", "Your code is 777123")


def test_a_rental_has_a_price_for_each_duration_and_others_have_one() -> None:
    rental = Service(product="rental", name="X", prices={3: Decimal(4)}, highest_prices={3: Decimal(5)})
    assert (rental.price_of(3), rental.highest_price_of(3)) == (Decimal(4), Decimal(5))
    assert (rental.price_of(30), rental.highest_price_of(30)) == (None, None)
    plain = Service(product="temporary", name="X", price=Decimal(1), highest_price=Decimal(2))
    assert (plain.price_of(None), plain.highest_price_of(None)) == (Decimal(1), Decimal(2))


@pytest.mark.parametrize(("time_scale", "days"), [(1.0, 3), (1 / 60, 1)])
def test_only_a_service_whose_minute_is_short_has_shorter_days_of_a_rental(
    time_scale: float, days: int
) -> None:
    """On others, an end that is near comes from a calendar that was ahead at the purchase."""
    now = datetime(2026, 12, 1, tzinfo=timezone.utc)
    rental = Order(
        order_id=7,
        product="rental",
        duration=3,
        created_at=now + timedelta(days=2),
        expires_at=now + timedelta(days=3),
    )
    assert period_of(rental, 0, time_scale=time_scale) == timedelta(days=days)
