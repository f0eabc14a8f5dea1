"""What the endpoints answer, in every other shape that can still be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from requests_mock import Mocker
from rigs.offline import PHONE, UNSEEN, address, mock_catalogue
from rigs.rooms import settings_of

from smsverify import (
    NotAvailableError,
    PriceLimitError,
    PurchaseUnknownError,
    SmsVerifyHook,
    UnexpectedResponseError,
)

pytestmark = pytest.mark.slow

LIST_SHAPES: dict[str, Callable[[list[Any]], Any]] = {
    "array": lambda rows: rows,
    "success and data": lambda rows: {"success": True, "data": rows},
    "data and services": lambda rows: {"success": True, "data": {"services": rows}},
    "countries": lambda rows: {"countries": rows},
    "offers": lambda rows: {"country_id": 4, "country_name": "United Kingdom", "offers": rows},
    "data and orders": lambda rows: {"data": {"orders": rows, "count": len(rows)}},
    "flat with success": lambda rows: {"success": True, "plans": rows},
    "pages": lambda rows: {"count": len(rows), "next": None, "previous": None, "results": rows},
    "data as a text": lambda rows: {"success": True, "data": json.dumps({"services": rows})},
}
OBJECT_SHAPES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "flat": lambda row: row,
    "flat with success": lambda row: {"success": True, **row},
    "success and data": lambda row: {"success": True, "data": row},
    "data alone": lambda row: {"data": row},
    "array": lambda row: [row],
    "data with an array": lambda row: {"success": True, "data": [row]},
    "data as a text": lambda row: {"success": True, "data": json.dumps(row)},
    "data as a text with an array": lambda row: {"success": True, "data": json.dumps([row])},
    "with more": lambda row: {
        "success": True,
        "request_id": "r-1",
        "data": {**row, "extra": [1, {"a": None}]},
    },
}

LISTS: list[tuple[str, Callable[[SmsVerifyHook], Any], dict[str, Any]]] = [
    (
        "services/temporary/",
        lambda hook: hook.list_services("temporary"),
        {"service_id": 1, "name": "X", "price": 0.4},
    ),
    (
        "services/best-temp/",
        lambda hook: hook.list_services("best-temp"),
        {"service_id": 1, "name": "X", "price": 0.4},
    ),
    ("services/rental/", lambda hook: hook.list_services("rental"), {"name": "X", "sell_price_3days": 4.0}),
    (
        "services/rent-1day/",
        lambda hook: hook.list_services("rent-1day"),
        {"service_id": 1, "name": "X", "price": 1},
    ),
    ("services/rent-30days/", lambda hook: hook.list_services("rent-30days"), {"service_id": 1, "name": "X"}),
    ("services/esim/", lambda hook: hook.list_esim_plans(), {"name": "X", "price": 12.0}),
    ("global/countries/", lambda hook: hook.list_countries(), {"country_id": 4, "country_name": "X"}),
    ("orders/", lambda hook: hook.list_orders(), {"order_id": 1, "service": "X", "status": "pending"}),
]


@pytest.mark.parametrize("shape", LIST_SHAPES)
@pytest.mark.parametrize(("path", "read", "row"), LISTS, ids=[row[0] for row in LISTS])
def test_a_list_is_read_in_every_shape(
    path: str,
    read: Callable[[SmsVerifyHook], Any],
    row: dict[str, Any],
    shape: str,
    offline: SmsVerifyHook,
    requests_mock: Mocker,
) -> None:
    other = {**row, "extra": {"a": 1}} | ({"order_id": 2} if path == "orders/" else {})
    requests_mock.get(address(path), json=LIST_SHAPES[shape]([row, other]))
    plain, extended = read(offline)
    assert extended.model_extra["extra"] == {"a": 1}
    assert "X" in (plain.service if path == "orders/" else plain.name)
    requests_mock.get(address(path), json=LIST_SHAPES[shape]([]))
    assert read(offline) == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"success": True},
        {"success": True, "data": None},
        {"data": "none"},
        {"services": "none"},
        ["X"],
        [None],
        [{}],
        [{"name": None, "order_id": None, "country_name": None}],
        "list",
        7,
        None,
    ],
)
@pytest.mark.parametrize(("path", "read", "row"), LISTS, ids=[row[0] for row in LISTS])
def test_what_is_no_list_of_such_things_is_an_unexpected_response(
    path: str,
    read: Callable[[SmsVerifyHook], Any],
    row: dict[str, Any],
    body: Any,
    offline: SmsVerifyHook,
    requests_mock: Mocker,
) -> None:
    requests_mock.get(address(path), json=body)
    with pytest.raises(UnexpectedResponseError, match=path) as caught:
        read(offline)
    assert caught.value.status_code == 200


DEEP = '{"a":' * 50 + "1" + "}" * 50
ODD_ROWS = [
    "null",
    '"text"',
    "[]",
    "7",
    "{}",
    '{"order_id": null, "name": null, "country_name": null, "service": "482913"}',
    '{"order_id": "x", "name": {}, "country_name": []}',
    '{"order_id": true, "name": true, "country_name": false}',
    '{"order_id": 0, "name": "", "country_name": " "}',
    '{"order_id": -1}',
    '{"order_id": 9223372036854775808}',
    '{"order_id": 1.5}',
    '{"order_id": 1e9999999999, "service_id": 1e9999999999, "country_id": 1e9999999999, "name": {}}',
    f'{{"order_id": {"9" * 5000}}}',
    f'{{"name": "{"N" * 10_000}"}}',
    f'{{"order_id": 4, "service_id": 4, "country_id": 4, "name": "X", "country_name": "X", "x": {DEEP}}}',
    '{"order_id": 4, "order_id": 5, "name": "X", "name": "Y", "country_name": "X", "country_name": "Y"}',
]


@pytest.mark.parametrize("odd", ODD_ROWS)
@pytest.mark.parametrize(("path", "read", "row"), LISTS, ids=[row[0] for row in LISTS])
def test_a_row_that_cannot_be_read_is_left_out_and_logged_once(
    path: str,
    read: Callable[[SmsVerifyHook], Any],
    row: dict[str, Any],
    odd: str,
    offline: SmsVerifyHook,
    requests_mock: Mocker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hook = SmsVerifyHook(
        **settings_of(offline)
    )  # that one serves all tests of this file, and has logged some
    requests_mock.get(address(path), text=f"[{json.dumps(row)}, {odd}, {odd}]")
    for _ in range(2):
        (only,) = read(hook)
        assert "X" in (only.service if path == "orders/" else only.name)
    (logged,) = [text for text in caplog.messages if "cannot be read" in text]
    assert path in logged
    assert "2 rows" in logged
    assert "482913" not in logged


@pytest.mark.parametrize(
    ("price", "read"),
    [
        ("1e9999999999", None),
        ("1e99999999999999999999", None),
        ("1e-9999999999", None),
        ("NaN", None),
        ("Infinity", None),
        ("-0.40", None),
        ("true", None),
        ("[0.40]", None),
        ('"0.40 USD"', Decimal("0.40")),
        ('"$0.40"', Decimal("0.40")),
        ('"0.40 EUR"', None),
        ('"1_0"', None),
        ('"٤"', None),
        ("0", Decimal(0)),
        ("4E-1", Decimal("0.4")),
    ],
)
def test_a_price_is_zero_or_more_or_unknown(
    price: str, read: Decimal | None, offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    requests_mock.get(
        address("services/temporary/"), text=f'[{{"service_id": 1, "name": "X", "price": {price}}}]'
    )
    requests_mock.get(address("orders/"), text=f'[{{"order_id": 1, "service": "X", "sell_price": {price}}}]')
    assert offline.list_services("temporary")[0].price == read
    assert offline.list_orders()[0].price == read
    if read is None:
        with pytest.raises(PriceLimitError):
            offline.order("temporary", service="X", max_price=1)


def test_names_and_ids_may_be_numbers(offline: SmsVerifyHook, requests_mock: Mocker) -> None:
    requests_mock.get(
        address("services/temporary/"), text='[{"service_id": 7.0, "name": 1688, "price": 0.4}]'
    )
    requests_mock.get(address("orders/"), text='[{"order_id": 9223372036854775807, "service": 1688}]')
    (service,) = offline.list_services("temporary")
    assert (service.service_id, service.name) == (7, "1688")
    assert (offline.list_orders()[0].order_id, offline.list_orders()[0].service) == (2**63 - 1, "1688")


def test_what_cannot_be_read_of_a_catalogue_is_no_proof_that_it_is_not_sold(
    offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    rows = [{"service_id": 1, "name": "X", "price": 0.4}, {"service_id": 2, "name": None, "price": 0.4}]
    requests_mock.get(address("services/temporary/"), json=rows)
    for _ in range(2):
        with pytest.raises(NotAvailableError, match="Entries that were not read: at least 1"):
            offline.order("temporary", service="Y")


def test_of_two_lines_for_one_thing_the_dearer_counts(offline: SmsVerifyHook, requests_mock: Mocker) -> None:
    rows = [{"service_id": 1, "name": "X", "price": price} for price in (0.4, 0.9, 0.5)]
    requests_mock.get(address("services/temporary/"), json=rows)
    with pytest.raises(PriceLimitError):
        offline.order("temporary", service="X", max_price="0.6")


@pytest.mark.parametrize("given", [" Verifying ", "ON HOLD", 3, "x" * 5000, None, True, [], "\u001b[2J"])
def test_a_status_may_be_anything_and_takes_no_code_with_it(
    given: Any, offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    requests_mock.get(address("order/7/status/"), json={"order_id": 7, "status": given, "otp": "4217"})
    status = offline.get_status(7)
    assert (status.otp, len(status.status) <= 1000) == ("4217", True)
    assert status.status == (
        str(given).strip()[:1000] if isinstance(given, (str, int)) and given is not True else "unknown"
    )
    requests_mock.get(address("order/7/status/"), json={"order_id": None, "otp": "4217"})
    assert offline.get_status(7).otp == "4217"


@pytest.mark.parametrize(("path", "read", "row"), LISTS, ids=[row[0] for row in LISTS])
def test_half_an_emoji_in_a_field_that_is_not_documented_spoils_no_list(
    path: str,
    read: Callable[[SmsVerifyHook], Any],
    row: dict[str, Any],
    offline: SmsVerifyHook,
    requests_mock: Mocker,
) -> None:
    odd = row | {"text": "Your code is 1234 \ud83d", "more": [{"\ud83d": "\ud83d"}]}
    requests_mock.get(address(path), json=[odd, odd, row | {"other": 1}])
    assert len(read(offline)) == (1 if path == "orders/" else 2)


@pytest.mark.parametrize(
    "envelope", [{"success": True}, {"status": "success"}, {"status": "ok", "code": 200}], ids=str
)
def test_the_words_of_an_envelope_are_no_sms(
    envelope: dict[str, Any], offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    body = envelope | {"message": "Order 4711 retrieved", "data": {"otp": None, "phone": PHONE}}
    requests_mock.get(address("order/7/status/"), json=body)
    with pytest.raises(UnexpectedResponseError):
        offline.get_status(7)


@pytest.mark.parametrize("shape", OBJECT_SHAPES)
def test_an_object_is_read_in_every_shape(shape: str, offline: SmsVerifyHook, requests_mock: Mocker) -> None:
    form = OBJECT_SHAPES[shape]
    for path, read in (("balance/", offline.get_balance), ("wallet/balance/", offline.get_wallet_balance)):
        requests_mock.get(address(path), json=form({"balance": "50.00"}))
        assert read().amount == Decimal("50.00")
    requests_mock.get(
        address("order/7/status/"), json=form({"order_id": "7", "status": "odd", "phone": PHONE})
    )
    status = offline.get_status(7)
    assert (status.order_id, status.status, status.phone) == (7, "odd", PHONE)
    requests_mock.post(address("order/7/cancel/"), json=form({"order_id": 7, "status": "cancelled"}))
    assert offline.cancel(7).cancelled


@pytest.mark.parametrize("status_code", [200, 201, 202])
@pytest.mark.parametrize("shape", OBJECT_SHAPES)
def test_a_purchase_is_read_in_every_shape(
    shape: str, status_code: int, offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    form = OBJECT_SHAPES[shape]
    mock_catalogue(requests_mock)
    for product, given in OFFLINE_PURCHASES.items():
        order_id = next(UNSEEN)
        row = {"order_id": f"{order_id}", "phone": PHONE, "status": "pending", "price": "0.99"}
        requests_mock.post(address(f"order/{product}/"), json=form(row), status_code=status_code)
        order = offline.order(product, **given)
        assert (order.order_id, order.phone, order.price) == (order_id, PHONE, Decimal("0.99"))
        assert offline.get_order(order.order_id).order_id == order.order_id


def test_a_list_with_thousands_of_lines_is_read_at_once(
    offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    rows = [{"service_id": n % 5000, "name": f"X{n % 5000}", "price": 0.4} for n in range(10_000)]
    requests_mock.get(address("services/temporary/"), json=rows)
    assert len(offline.list_services("temporary")) == 5000


OFFLINE_PURCHASES: dict[str, dict[str, Any]] = {
    "temporary": {"service": "X"},
    "best-temp": {"service": "X"},
    "rental": {"service": "X", "duration": 3},
    "rent-1day": {"service": "X"},
    "rent-30days": {"service": "X"},
    "global": {"service": "X", "country": 4},
    "esim": {"plan": "X"},
}


@pytest.mark.parametrize(
    "more",
    [
        {"phone": None},
        {"phone": 14155550123},
        {"status": None},
        {"status": 7},
        {"created_at": "yesterday"},
        {"expiry_date": {}},
        {"price": "unknown", "sell_price": None},
        {"product": "something else", "service": 1012, "country": 4},
        {"key": 17, "duration": "three", "expires_estimated": "who knows"},
        {"data": None},
        {"activation_code": ""},
    ],
    ids=lambda more: next(iter(more)),
)
def test_an_order_that_is_known_by_its_id_is_bought_whatever_else_is_odd(
    more: dict[str, Any], offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    mock_catalogue(requests_mock)
    order_id = next(UNSEEN)
    row = {"order_id": order_id, "phone": PHONE, "status": "pending"}
    requests_mock.post(address("order/temporary/"), json={**row, **more})
    requests_mock.get(address(f"order/{order_id}/status/"), json=row)
    order = offline.order("temporary", service="X")
    assert (order.order_id, order.product, order.service) == (order_id, "temporary", "X")
    assert order.price == Decimal("0.4")  # the catalogue's


@pytest.mark.parametrize(
    "body",
    [{}, {"order_id": None}, {"order_id": "abc"}, {"success": True, "data": []}, [], "ok", None, {"id": 7}],
)
def test_a_purchase_without_an_order_id_may_have_been_one(
    body: Any, offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    mock_catalogue(requests_mock)
    requests_mock.get(address("orders/"), json=[])
    hook = SmsVerifyHook(**{**settings_of(offline), "account": f"account {json.dumps(body)}"})
    for product, given in OFFLINE_PURCHASES.items():
        requests_mock.post(address(f"order/{product}/"), json=body, status_code=201)
        for _ in range(2):
            with pytest.raises(PurchaseUnknownError):
                hook.order(product, **given, key=product)
    posts = [request for request in requests_mock.request_history if request.method == "POST"]
    assert len(posts) == len(OFFLINE_PURCHASES)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"order_id": 8, "status": "pending"},
        {"order_id": 7},
        {"success": True, "data": [{"order_id": 8, "status": "pending"}]},
        {"success": True, "data": [{"order_id": 7, "status": "pending"}] * 2},
        {"success": True, "order": {"order_id": 8, "status": "pending"}},
        {"success": True, "data": "order 7 is pending"},
        [],
    ],
)
def test_a_status_that_is_of_another_order_or_of_none_is_an_unexpected_response(
    body: Any, offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    requests_mock.get(address("order/7/status/"), json=body)
    with pytest.raises(UnexpectedResponseError):
        offline.get_status(7)


def test_a_status_is_read_with_everything_odd_that_can_be(
    offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    requests_mock.get(
        address("order/7/status/"),
        text='{"order_id": "7", "status": "Verifying", "otp": 4217, "message": "Code: 004 217",'
        ' "phone": 14155550123, "time_left_seconds": "90.5", "days_left": {}, "expiry_date": 0, "x": 1e400}',
    )
    status = offline.get_status(7)
    assert (status.status, status.ended, status.otp) == ("Verifying", False, "004217")
    assert (status.phone, status.time_left_seconds, status.days_left) == ("14155550123", 90.5, None)
    assert status.expires_at is not None


def test_a_phone_that_is_a_number_with_a_fraction_has_no_further_digit(
    offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    requests_mock.get(address("order/7/status/"), json={"order_id": 7, "phone": 14155550123.0, "status": "x"})
    assert offline.get_status(7).phone_digits == "14155550123"


def test_a_field_with_a_name_that_is_no_text_spoils_no_answer(
    offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    status = {"order_id": 7, "status": "completed", "otp": "548921", "\ud800": "\ud800", "a\0": "\0"}
    requests_mock.get(address("order/7/status/"), json=status)
    assert offline.get_status(7).otp == "548921"


def test_ids_may_be_text(offline: SmsVerifyHook, requests_mock: Mocker) -> None:
    mock_catalogue(requests_mock, service_id="wa-7")
    requests_mock.post(address("order/best-temp/"), json={"order_id": 19200, "phone": PHONE})
    offline_fresh = SmsVerifyHook(**{**settings_of(offline), "account": "text ids"})
    assert offline_fresh.order("best-temp", service="wa-7").order_id == 19200
    assert requests_mock.request_history[-1].json() == {"service_id": "wa-7"}
