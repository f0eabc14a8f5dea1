"""What the answers to purchases say beside their shape: codes, phones and prices, however odd."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from requests_mock import Mocker
from rigs.offline import PHONE, UNSEEN, address, mock_catalogue
from rigs.rooms import settings_of

from smsverify import (
    NotAvailableError,
    PriceLimitError,
    SmsVerifyHook,
    UnexpectedResponseError,
)


@pytest.mark.parametrize("data", [{}, {"iccid": "8901"}], ids=["empty", "more"])
def test_data_that_names_no_order_stands_beside_its_fields(
    data: dict[str, Any], offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    mock_catalogue(requests_mock)
    order_id = next(UNSEEN)
    row = {"order_id": order_id, "status": "active", "activation_code": "SIM-1", "data": data}
    requests_mock.post(address("order/esim/"), json={"success": True, **row})
    order = offline.order("esim", plan="X")
    assert (order.order_id, order.activation_code) == (order_id, "SIM-1")
    requests_mock.get(address("balance/"), json={"balance": 50, "data": data})
    assert offline.get_balance().amount == 50


def test_an_activation_code_of_several_parts_is_kept(offline: SmsVerifyHook, requests_mock: Mocker) -> None:
    """Only this answer has it."""
    mock_catalogue(requests_mock)
    order_id = next(UNSEEN)
    code = {"lpa": "LPA:1$example.com$X", "qr": ["https://example.com/x.png"], "number": 1.5}
    requests_mock.post(address("order/esim/"), json={"order_id": order_id, "activation_code": code})
    kept = offline.order("esim", plan="X").activation_code
    assert kept is not None
    assert json.loads(kept) == code | {"number": "1.5"}
    assert offline.get_order(order_id).activation_code == kept


@pytest.mark.parametrize("phone", ["N/A", "pending", "-", ""])
def test_a_phone_without_a_digit_is_none_and_hides_no_known_one(
    phone: str, offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    mock_catalogue(requests_mock)
    order_id = next(UNSEEN)
    row = {"order_id": order_id, "status": "pending", "phone": phone}
    requests_mock.post(address("order/temporary/"), json=row)
    status = requests_mock.get(address(f"order/{order_id}/status/"), json=row | {"phone": PHONE})
    assert offline.order("temporary", service="X").phone == PHONE
    assert status.call_count == 1
    requests_mock.get(address(f"order/{order_id}/status/"), json=row)
    assert offline.get_status(order_id).phone is None
    assert offline.get_order(order_id).phone == PHONE


@pytest.mark.parametrize(("answered", "price"), [(0, "0.99"), ("0.9", "0.99"), (0.5, "0.5"), (1.2, "1.2")])
def test_an_answer_that_has_cut_digits_off_its_price_frees_no_budget(
    answered: Any, price: str, offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    hook = SmsVerifyHook(**settings_of(offline) | {"account": f"cut-{answered}"})
    mock_catalogue(requests_mock, price=0.99)
    row = {"order_id": next(UNSEEN), "phone": PHONE, "status": "pending", "sell_price": answered}
    requests_mock.post(address("order/temporary/"), json=row)
    assert hook.order("temporary", service="X").price == Decimal(price)
    assert hook.overview().spend.amount == Decimal(price)


def test_half_an_emoji_in_a_purchase_can_be_written_as_json(
    offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    mock_catalogue(requests_mock)
    row = {"order_id": next(UNSEEN), "phone": PHONE, "note": "\ud83d", "more": [["\ud83d"], {"a": "\ud83d"}]}
    requests_mock.post(address("order/temporary/"), json=row)
    order = offline.order("temporary", service="X")
    assert json.loads(order.model_dump_json())["more"] == [["?"], {"a": "?"}]


# ------------------------------------------------------------------ prices


@pytest.mark.parametrize(
    ("row", "price", "highest"),
    [
        ({"price": 0.4}, "0.4", "0.4"),
        ({"sell_price": 0.4}, "0.4", "0.4"),
        ({"price": 0.5, "sell_price": 0.4}, "0.4", "0.5"),
        ({"price": 0.3, "sell_price": 0.4}, "0.4", "0.4"),
        ({"price": "0.50", "sell_price": None}, "0.50", "0.50"),
        ({"price": "ask", "sell_price": ""}, None, None),
        ({}, None, None),
        ({"price": 0.1}, "0.1", "0.1"),
        ({"price": 1e-7}, "1E-7", "1E-7"),
    ],
)
def test_the_price_that_is_charged_is_preferred_and_the_larger_one_is_known(
    row: dict[str, Any], price: str | None, highest: str | None, offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    def of(text: str | None) -> Decimal | None:
        return None if text is None else Decimal(text)

    requests_mock.get(address("services/temporary/"), json=[{"service_id": 1, "name": "X", **row}])
    (service,) = offline.list_services("temporary")
    assert (service.price, service.highest_price) == (of(price), of(highest))
    by_days = {f"{name}_3days": value for name, value in row.items()}
    requests_mock.get(address("services/rental/"), json=[{"name": "X", **by_days}])
    (rental,) = offline.list_services("rental")
    assert (rental.price_of(3), rental.highest_price_of(3)) == (of(price), of(highest))
    requests_mock.get(address("services/esim/"), json=[{"name": "X", **row}])
    (plan,) = offline.list_esim_plans()
    assert (plan.price, plan.highest_price) == (of(price), of(highest))


@pytest.mark.parametrize("currency", ["USD", "usd", "US$", "$", "", None])
def test_a_price_in_usd_is_known(currency: str | None, offline: SmsVerifyHook, requests_mock: Mocker) -> None:
    row = {"service_id": 1, "name": "X", "price": 0.4, "currency": currency}
    requests_mock.get(address("services/temporary/"), json=[row])
    assert offline.list_services("temporary")[0].price == Decimal("0.4")


@pytest.mark.parametrize("currency", ["GBP", "eur", {"code": "USD"}])
def test_a_price_in_another_currency_is_unknown(
    currency: Any, offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    mock_catalogue(requests_mock, currency=currency)
    fresh = SmsVerifyHook(**settings_of(offline) | {"account": f"in {currency}"})
    for given in ({"product": "temporary", "service": 1}, {"product": "esim", "plan": "X"}):
        with pytest.raises(PriceLimitError, match="unknown"):
            fresh.order(**given, max_price="9")
    requests_mock.get(address("orders/"), json=[{"order_id": 1, "price": 0.4, "currency": currency}])
    assert fresh.list_orders()[0].price is None


def test_a_line_without_the_id_that_an_order_needs_is_not_ordered(
    offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    mock_catalogue(requests_mock, service_id=None)
    fresh = SmsVerifyHook(**settings_of(offline) | {"account": "no ids"})
    for product in ("temporary", "best-temp", "rent-1day", "rent-30days", "global"):
        country = 4 if product == "global" else None
        with pytest.raises(NotAvailableError, match=r"without the service_id .* Nothing was sent"):
            fresh.order(product, service="X", country=country)
    requests_mock.post(address("order/rental/"), json={"order_id": next(UNSEEN), "phone": PHONE})
    assert fresh.order("rental", service="X", duration=3).service == "X"


@pytest.mark.parametrize("price", [0.1 + 0.2, 0.29999999999999993, "0.30000000000000004", 3e-1])
def test_a_price_that_was_reckoned_with_floats_is_bought_at_its_price(
    price: Any, offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    mock_catalogue(requests_mock, price=price)
    requests_mock.post(address("order/temporary/"), json={"order_id": 19201, "phone": PHONE})
    fresh = SmsVerifyHook(**{**settings_of(offline), "account": f"with noise {price!r}"})
    order = fresh.order("temporary", service=1)
    assert str(order.price) in ("0.3", "0.30")


def test_an_offer_of_another_country_is_not_bought(offline: SmsVerifyHook, requests_mock: Mocker) -> None:
    def offer(**row: Any) -> None:
        mock_catalogue(requests_mock, **row)
        fresh = SmsVerifyHook(**{**settings_of(offline), "account": f"abroad {row}"})
        fresh.order("global", service=1, country=4)

    requests_mock.post(address("order/global/"), json={"order_id": 19202, "phone": PHONE})
    with pytest.raises(UnexpectedResponseError):
        offer(country_id=17, country_name="Germany")
    mock_catalogue(requests_mock)
    whole = {"country_id": 17, "offers": [{"service_id": 1, "service_name": "X", "price": 0.4}]}
    requests_mock.get(address("global/services/"), json=whole)
    with pytest.raises(UnexpectedResponseError):
        offline.list_global_services(4)
    assert "POST" not in {request.method for request in requests_mock.request_history}
    for same in (4, "4", 4.0, None):
        offer(country_id=same)
        assert requests_mock.request_history[-1].json()["country_id"] == 4
