"""Arguments are checked before a request, and what is wrong is named."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from smsverify import PRODUCTS, InvalidRequestError
from smsverify.checks import (
    LATER,
    OrderRequest,
    check_after,
    check_count,
    check_key,
    check_order_fields,
    check_order_id,
    check_pattern,
    check_price_limit,
    check_seconds,
    check_sender,
)

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


def test_a_key_that_no_store_can_keep_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="key") as caught:
        check_key("half \ud83d an emoji")
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


@pytest.mark.parametrize("amount", ["5,00", "$5", "1_000", "٥", "5 USD"])
def test_an_amount_is_a_plain_number(amount: str) -> None:
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
    for value in (-1, float("nan"), float("inf"), "soon", None, True, [1]):
        with pytest.raises(InvalidRequestError, match="seconds") as caught:
            check_seconds(value, "timeout")
        assert caught.value.field == "timeout"


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
