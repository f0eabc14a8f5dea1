"""Arguments are checked before a request, and what is wrong is named."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Context, Decimal, Inexact, localcontext
from enum import Enum
from functools import partial
from typing import Any

import pytest

from smsverify import PRODUCTS, InvalidRequestError
from smsverify._orders.records import is_cut_off
from smsverify.checks import (
    LATER,
    OrderRequest,
    check_action,
    check_after,
    check_count,
    check_key,
    check_order_fields,
    check_order_id,
    check_order_ids,
    check_pattern,
    check_price_limit,
    check_reason,
    check_seconds,
    check_sender,
    check_stop,
    check_switch,
    check_waiter,
)
from smsverify.models import as_amount

COMPLETE: dict[str, dict[str, Any]] = {
    "temporary": {"service": "WhatsApp"},
    "best-temp": {"service": 1012},
    "rental": {"service": "WhatsApp", "duration": 3},
    "rent-1day": {"service": "Tinder"},
    "rent-30days": {"service": "Instagram"},
    "global": {"service": "WhatsApp", "country": "Germany"},
    "esim": {"plan": "USA 5GB / 30 days"},
}


@pytest.mark.parametrize("product", PRODUCTS)
def test_each_product_takes_what_it_needs_and_names_what_is_missing(product: str) -> None:
    given = COMPLETE[product]
    assert OrderRequest.check(product=product, **given).product == product
    for field in given:
        with pytest.raises(InvalidRequestError, match=field) as caught:
            OrderRequest.check(product=product, **{**given, field: None})
        assert caught.value.field == field


@pytest.mark.parametrize(
    ("product", "more", "field"),
    [
        ("rental", {"area_code": "212"}, "area_code"),
        ("best-temp", {"area_code": "212"}, "area_code"),
        ("temporary", {"plan": "USA 5GB / 30 days"}, "plan"),
        ("temporary", {"duration": 3}, "duration"),
        ("rent-1day", {"duration": 3}, "duration"),
        ("temporary", {"country": 4}, "country"),
        ("esim", {"service": "WhatsApp"}, "service"),
        ("rental", {"duration": 7}, "duration"),
        ("rental", {"duration": 3.0}, "duration"),
        ("rental", {"duration": True}, "duration"),
        ("temporary", {"area_code": "12"}, "area_code"),
        ("temporary", {"area_code": "112"}, "area_code"),
        ("temporary", {"area_code": "2125"}, "area_code"),
        ("temporary", {"area_code": "２１２"}, "area_code"),
        ("temporary", {"area_code": True}, "area_code"),
        ("temporary", {"max_price": -1}, "max_price"),
        ("temporary", {"max_price": "cheap"}, "max_price"),
        ("temporary", {"max_price": float("nan")}, "max_price"),
        ("temporary", {"max_price": "Infinity"}, "max_price"),
        ("temporary", {"max_price": True}, "max_price"),
        ("temporary", {"service": ""}, "service"),
        ("temporary", {"service": "  "}, "service"),
        ("temporary", {"service": ["WhatsApp"]}, "service"),
        ("temporary", {"service": True}, "service"),
        ("temporary", {"service": 1.5}, "service"),
        ("temporary", {"service": "a\nb"}, "service"),
        ("temporary", {"service": "x" * 201}, "service"),
        ("global", {"country": "\x00"}, "country"),
        ("esim", {"plan": {"name": "USA"}}, "plan"),
    ],
)
def test_what_is_malformed_or_does_not_go_with_the_product_is_refused_by_name(
    product: str, more: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        OrderRequest.check(product=product, **{**COMPLETE[product], **more})
    assert caught.value.field == field
    assert field in str(caught.value)


LEFT_OVER = ["", " ", "None", "none ", "null", "nan", "undefined", "[]", "{}", "{{ params.x }}", "{% if a %}"]


@pytest.mark.parametrize("value", LEFT_OVER)
def test_what_an_empty_template_leaves_names_nothing(value: str) -> None:
    checks: list[tuple[str, Callable[[Any], Any]]] = [
        ("key", check_key),
        ("order_id", check_order_id),
        ("max_price", check_price_limit),
        ("sender", check_sender),
        ("pattern", check_pattern),
        ("service", lambda value: OrderRequest.check(product="temporary", service=value)),
        ("country", lambda value: OrderRequest.check(product="global", service=1, country=value)),
        ("plan", lambda value: OrderRequest.check(product="esim", plan=value)),
        ("area_code", lambda value: OrderRequest.check(product="temporary", service=1, area_code=value)),
        ("duration", lambda value: OrderRequest.check(product="rental", service="x", duration=value)),
    ]
    for field, check in checks:
        with pytest.raises(InvalidRequestError, match=field) as caught:
            check(value)
        assert caught.value.field == field


@pytest.mark.parametrize("key", ["half \ud83d an emoji", "\0", "a\0b"])
def test_a_key_that_no_store_can_keep_is_refused(key: str) -> None:
    """Without what cannot be kept, it would be the key of another purchase."""
    with pytest.raises(InvalidRequestError, match="key") as caught:
        check_key(key)
    assert caught.value.field == "key"


def test_what_only_resembles_nothing_is_a_name() -> None:
    assert check_key("None of your business") == "None of your business"
    assert check_key("nonesuch") == "nonesuch"
    assert check_pattern(r"[0-9]{4}").pattern == r"[0-9]{4}"
    assert OrderRequest.check(product="temporary", service="Nil & Null").service == "Nil & Null"


def test_a_whole_result_is_no_order_id_and_is_not_shown() -> None:
    with pytest.raises(InvalidRequestError, match=r'\["order_id"\]') as caught:
        check_order_id({"order_id": 7, "otp": "482913"})
    assert caught.value.field == "order_id"
    assert "482913" not in str(caught.value)


@pytest.mark.parametrize(
    "amount", ["5,00", "$5", "1_000", "٥", "5 USD", "1e400", "1e-400", "1e99999999999", "9" * 16, 10**400]
)
def test_an_amount_is_a_plain_number(amount: Any) -> None:
    """No database reckons with one of hundreds of digits."""
    with pytest.raises(InvalidRequestError, match="max_price"):
        check_price_limit(amount)


@pytest.mark.parametrize("product", ["", "Temporary", "sms", None, 7, ["temporary"], "temporary "])
def test_the_error_for_an_unknown_product_names_the_known_ones(product: Any) -> None:
    with pytest.raises(InvalidRequestError, match="best-temp") as caught:
        OrderRequest.check(product=product, service=1)
    assert caught.value.field == "product"


def test_what_people_type_is_normalised() -> None:
    request = OrderRequest.check(product="temporary", service=" WhatsApp ", area_code=212, max_price=" 0.40 ")
    assert (request.service, request.area_code, request.max_price) == ("WhatsApp", "212", Decimal("0.40"))
    assert OrderRequest.check(product="rental", service="x", duration="30").duration == 30
    assert check_price_limit(0.1) == Decimal("0.1")  # not 0.1000000000000000055…
    assert check_price_limit(0) == 0
    assert check_price_limit(Decimal.from_float(0.4)) == Decimal("0.4")  # a Decimal that was made of a float
    assert check_price_limit(Decimal("0.5") / 7) == Decimal("0.0714285714")


@pytest.mark.parametrize(
    "context", [Context(prec=4), Context(prec=28, traps=[Inexact])], ids=["short", "strict"]
)
def test_an_amount_is_the_same_whatever_its_caller_has_set_for_decimals(context: Context) -> None:
    with localcontext(context):
        assert check_price_limit("0.50") == Decimal("0.50")
        assert check_price_limit(0.1 + 0.2) == Decimal("0.3")
        assert as_amount(Decimal("12345.67")) == Decimal("12345.67")
        assert as_amount(Decimal("0.30000000000000004")) == Decimal("0.3")
        assert is_cut_off(Decimal("12345"), Decimal("12345.99"))


def test_the_same_request_has_one_fingerprint_whatever_its_case_and_limit() -> None:
    first = OrderRequest.check(product="temporary", service="WhatsApp", max_price=1)
    assert first.fingerprint == OrderRequest.check(product="temporary", service=" whatsapp").fingerprint
    others = [
        OrderRequest.check(product="temporary", service="Telegram"),
        OrderRequest.check(product="best-temp", service="WhatsApp"),
        OrderRequest.check(product="temporary", service="WhatsApp", area_code="212"),
        OrderRequest.check(product="rental", service="WhatsApp", duration=3),
        OrderRequest.check(product="rental", service="WhatsApp", duration=30),
        OrderRequest.check(product="global", service="WhatsApp", country=4),
        OrderRequest.check(product="global", service="WhatsApp", country=9),
    ]
    assert len({request.fingerprint for request in [first, *others]}) == 1 + len(others)


def test_values_that_are_known_later_are_not_missing_and_the_others_are_still_checked() -> None:
    assert check_order_fields(product="rental", service=LATER, duration=LATER) == {"product": "rental"}
    assert check_order_fields(product=LATER, service="x", duration=7 and LATER) == {"service": "x"}
    for given, field in (
        ({"product": "rental", "service": LATER, "duration": 7}, "duration"),
        ({"product": "rental", "service": LATER}, "duration"),
        ({"product": "temporary", "service": LATER, "plan": LATER}, "plan"),
        ({"product": LATER, "area_code": "12"}, "area_code"),
        ({"product": LATER, "max_price": -1}, "max_price"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            check_order_fields(**given)
        assert caught.value.field == field


def test_an_order_id_is_a_positive_whole_number_or_its_digits() -> None:
    assert check_order_id(458731) == check_order_id(" 458731 ") == 458731
    for value in (0, -1, "", "12a", "1.0", 1.0, True, None, "４５", "9" * 19, "1/../2", [1], "+5"):
        with pytest.raises(InvalidRequestError) as caught:
            check_order_id(value)
        assert caught.value.field == "order_id"


def test_a_time_span_is_seconds_from_zero() -> None:
    assert check_seconds("2.5", "timeout") == 2.5
    assert check_seconds(0, "timeout") == 0
    assert check_seconds(timedelta(milliseconds=1), "timeout") == 0.001
    for value in (-1, float("nan"), float("inf"), "soon", None, True, [1], "1_0", "١٠", 10**400):
        with pytest.raises(InvalidRequestError, match="seconds") as caught:
            check_seconds(value, "timeout")
        assert caught.value.field == "timeout"


def test_a_count_is_a_plain_whole_number() -> None:
    assert check_count("3", "attempts") == check_count(3, "attempts") == 3
    for value in (0, -1, "1_0", "٣", 1.0, True, None, 10**9, 10**400):
        with pytest.raises(InvalidRequestError, match="whole number") as caught:
            check_count(value, "attempts")
        assert caught.value.field == "attempts"


RESULT = {"order_id": 5, "otp": "548921", "message": "Your code is 548921"}


@pytest.mark.parametrize("given", [RESULT, str(RESULT), [RESULT], "Your\ncode is 548921"])
@pytest.mark.parametrize(
    "check",
    [
        check_after,
        lambda value: check_seconds(value, "timeout"),
        lambda value: check_count(value, "attempts"),
        check_price_limit,
        check_order_id,
        lambda value: OrderRequest.check(product=value, service="WhatsApp"),
    ],
)
def test_a_result_in_the_place_of_a_part_of_it_is_not_quoted_with_its_code(
    check: Callable[[Any], Any], given: Any
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check(given)
    assert "548921" not in str(caught.value)


class Series:
    """As a column of a table: compared and asked whether it is true, it does not say."""

    def __eq__(self, other: object) -> Any:
        return self

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise ValueError("the truth value is ambiguous")

    def __repr__(self) -> str:
        raise RuntimeError("not to be shown")


EAST, WEST = timezone(timedelta(hours=5)), timezone(timedelta(hours=-5))
ODD = [
    *(Series(), [Series()], object, 10**5000, -(10**5000), 10**400, Decimal("1e400"), float("nan")),
    *(datetime.max.replace(tzinfo=WEST), datetime.min.replace(tzinfo=EAST), "0001-01-01T00:00:00+05:00"),
    *(b"", b"600", bytearray(b"600"), memoryview(b"600"), [b"600"], "\ud800", "\0", "9" * 5000),
]
CHECKS: dict[str, Callable[[Any], Any]] = {
    "product": lambda value: OrderRequest.check(product=value, service=1),
    "best": lambda value: OrderRequest.check_all(value, "best", service=1),
    "alternatives": lambda value: OrderRequest.check_all("temporary", value, service=1),
    "service": lambda value: OrderRequest.check(product="temporary", service=value),
    "country": lambda value: OrderRequest.check(product="global", service=1, country=value),
    "plan": lambda value: OrderRequest.check(product="esim", plan=value),
    "area_code": lambda value: OrderRequest.check(product="temporary", service=1, area_code=value),
    "duration": lambda value: OrderRequest.check(product="rental", service="x", duration=value),
    "key": check_key,
    "waiter": check_waiter,
    "reason": check_reason,
    "max_price": check_price_limit,
    "order_id": check_order_id,
    "exclude": partial(check_order_ids, field="exclude"),
    "attempts": partial(check_count, field="attempts"),
    "timeout": partial(check_seconds, field="timeout"),
    "stop": check_stop,
    "action": check_action,
    "after": check_after,
    "sender": check_sender,
    "pattern": check_pattern,
}


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("name", CHECKS)
def test_whatever_is_given_passes_or_is_refused_in_words(name: str, odd: Any) -> None:
    with contextlib.suppress(InvalidRequestError):
        CHECKS[name](odd)


@pytest.mark.parametrize("binary", [b"12", bytearray(b"12"), memoryview(b"12")])
@pytest.mark.parametrize("name", [name for name in CHECKS if name not in ("best", "alternatives")])
def test_binary_data_is_not_read_as_a_list_of_numbers(name: str, binary: Any) -> None:
    with pytest.raises(InvalidRequestError, match=name):
        CHECKS[name](binary)


class Named(str, Enum):
    """Of the kind that Python writes by its name."""

    PRODUCT = "rental"
    WHATSAPP = "whatsapp"
    CODE = "212"
    PRICE = "0.50"
    TIME = "2026-11-24T14:22:10+00:00"


class Numbered(int, Enum):
    DURATION = 3
    ID = 1012


class Plain(Enum):
    WHATSAPP = "whatsapp"
    ID = 1012


def test_an_enum_s_member_is_what_it_stands_for() -> None:
    request = OrderRequest.check(product=Named.PRODUCT, service=Named.WHATSAPP, duration=Numbered.DURATION)
    assert repr(request) == repr(OrderRequest.check(product="rental", service="whatsapp", duration=3))
    assert OrderRequest.check(product="temporary", service=1, area_code=Named.CODE).area_code == "212"
    assert type(OrderRequest.check(product="temporary", service=Numbered.ID).service) is int
    for check in (check_key, check_sender, check_reason, check_waiter):
        assert check(Named.WHATSAPP) == check(Plain.WHATSAPP) == "whatsapp"
        assert str(check(Named.WHATSAPP)) == "whatsapp"
    assert check_key(Numbered.ID) == check_key(Plain.ID) == "1012"
    assert check_order_ids([Named.CODE, Numbered.ID], "only") == (212, 1012)
    assert check_price_limit(Named.PRICE) == Decimal("0.50")
    assert check_seconds(Named.CODE, "timeout") == 212
    assert check_count(Numbered.DURATION, "attempts") == 3
    assert check_after(Named.TIME) == datetime(2026, 11, 24, 14, 22, 10, tzinfo=timezone.utc)
    assert check_pattern(Named.CODE).pattern == "212"
    with pytest.raises(InvalidRequestError, match="'whatsapp' is malformed"):
        check_order_id(Named.WHATSAPP)


async def waits(_: Any) -> None:
    """Does nothing until it is awaited."""


def gives(_: Any) -> Any:
    yield


async def gives_and_waits(_: Any) -> Any:
    yield


class Waits:
    async def __call__(self, _: Any) -> None:
        """The same."""

    def submit(self, _: Any) -> None:
        """Runs when it is called."""


@pytest.mark.parametrize("action", [waits, Waits(), partial(waits), partial(partial(Waits()), 1)])
def test_a_coroutine_function_is_an_action_only_where_it_is_awaited(action: Any) -> None:
    check_action(action, may_be_async=True)
    with pytest.raises(InvalidRequestError, match="coroutine") as caught:
        check_action(action)
    assert caught.value.field == "action"


def test_what_a_call_does_not_run_is_no_action() -> None:
    for action in (gives, gives_and_waits, partial(gives)):
        with pytest.raises(InvalidRequestError, match="yield"):
            check_action(action, may_be_async=True)
    for action in (print, Waits, Waits().submit, lambda _: None, partial(print, 1)):
        check_action(action)


def test_a_stop_is_an_event_of_threads() -> None:
    event = threading.Event()
    assert check_stop(event) is event
    assert check_stop(None) is None


@pytest.mark.parametrize("value", ["", "False", "True", 0, 1, None, "{{ params.dry_run }}", [], b"1"])
def test_a_switch_is_true_or_false_and_nothing_else(value: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_switch(value, "dry_run")
    assert caught.value.field == "dry_run"
    assert check_switch(True, "dry_run")
    assert not check_switch(False, "dry_run")
