"""Every endpoint of the service's documentation, against the simulator."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from smsverify import (
    Balance,
    Country,
    EsimPlan,
    Service,
    SmsVerifyHook,
)
from smsverify.simulator import Fault, Simulator

PHONE = "+1 415 555 0123"

# ------------------------------------------------------------------ reads, over HTTP

READS: list[tuple[str, Callable[[SmsVerifyHook], Any], str, type[Any]]] = [
    ("balance", lambda hook: hook.get_balance(), "balance/", Balance),
    ("wallet balance", lambda hook: hook.get_wallet_balance(), "wallet/balance/", Balance),
    ("temporary", lambda hook: hook.list_services("temporary")[0], "services/temporary/", Service),
    ("best-temp", lambda hook: hook.list_services("best-temp")[0], "services/best-temp/", Service),
    ("rental", lambda hook: hook.list_services("rental")[0], "services/rental/", Service),
    ("rent-1day", lambda hook: hook.list_services("rent-1day")[0], "services/rent-1day/", Service),
    ("rent-30days", lambda hook: hook.list_services("rent-30days")[0], "services/rent-30days/", Service),
    ("esim", lambda hook: hook.list_esim_plans()[0], "services/esim/", EsimPlan),
    ("countries", lambda hook: hook.list_countries()[0], "global/countries/", Country),
]


@pytest.mark.parametrize(("name", "read", "path", "kind"), READS, ids=[row[0] for row in READS])
def test_a_read_asks_its_endpoint_once_and_answers_a_model(
    name: str,
    read: Callable[[SmsVerifyHook], Any],
    path: str,
    kind: type[Any],
    simulator: Simulator,
    hook: SmsVerifyHook,
) -> None:
    assert type(read(hook)) is kind
    ((method, asked, query, body),) = [
        (request.method, request.path, request.query, request.body) for request in simulator.requests()
    ]
    assert (method, asked, query, body) == ("GET", f"/api/v1/{path}", "", None)


def test_the_wallet_is_read_as_an_exact_amount(simulator: Simulator, hook: SmsVerifyHook) -> None:
    simulator.set_balance("0.10")
    for balance in (hook.get_balance(), hook.get_wallet_balance()):
        assert (balance.amount, balance.currency) == (Decimal("0.10"), "USD")


def test_a_catalogue_is_read_whole(simulator: Simulator, hook: SmsVerifyHook) -> None:
    temporary = hook.list_services("temporary")
    assert (temporary[0].service_id, temporary[0].name, temporary[0].price) == (
        1012,
        "WhatsApp",
        Decimal("0.4"),
    )
    assert {entry.product for entry in temporary} == {"temporary"}
    assert len(temporary) == len(simulator.settings().catalogue.temporary)
    rental = hook.list_services("rental")[0]
    assert (rental.service_id, rental.name, rental.price) == (None, "WhatsApp", None)
    assert rental.prices == {3: Decimal(4), 30: Decimal(12)}
    assert (hook.list_services("best-temp")[0].model_extra or {})["country"] == "US"
    plan = hook.list_esim_plans()[0]
    assert (plan.name, plan.data_gb, plan.validity_days, plan.price) == (
        "USA 5GB / 30 days",
        Decimal(5),
        30,
        Decimal(12),
    )


@pytest.mark.parametrize("country", [4, "4", "United Kingdom", "united kingdom", " United Kingdom "])
def test_a_country_s_services_are_found_by_its_id_or_name(
    country: int | str, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    services = hook.list_global_services(country)
    assert (services[0].service_id, services[0].price) == (1012, Decimal("0.95"))
    assert {(entry.country_id, entry.country_name) for entry in services} == {(4, "United Kingdom")}
    assert [(request.path, request.query) for request in simulator.requests()] == [
        ("/api/v1/global/countries/", ""),
        ("/api/v1/global/services/", "country_id=4"),
    ]


@pytest.mark.slow
def test_the_list_of_orders_is_newest_first_and_ends_after_fifty(
    simulate: Callable[..., Simulator], make_hook: Callable[..., SmsVerifyHook], store_url: str
) -> None:
    simulator = simulate(rate_limit=None, balance="100")
    hook = make_hook(simulator, store_url, rate_limit=1000)
    bought = [hook.order("temporary", service="Telegram").order_id for _ in range(51)]
    listed = hook.list_orders()
    assert [order.order_id for order in listed] == bought[:0:-1]
    order = listed[0]
    assert (order.service, order.status, order.price) == ("Telegram", "pending", Decimal("0.3"))
    assert order.created_at is not None
    assert abs(datetime.now(timezone.utc) - order.created_at) < timedelta(minutes=5)
    assert (order.product, order.expires_at) == (None, None)  # the list does not say


# ------------------------------------------------------------------ purchases, over HTTP

# product, what the user gives, path and body of the POST, price, whether the answer states an expiry
PURCHASES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("temporary", {"service": "whatsapp"}, {"service_id": 1012}, "0.40"),
    ("temporary", {"service": 22, "area_code": 212}, {"service_id": 22, "area_code": "212"}, "0.30"),
    ("best-temp", {"service": "1012"}, {"service_id": 1012}, "0.40"),
    ("rental", {"service": "WHATSAPP", "duration": 3}, {"service": "WhatsApp", "duration": 3}, "4.00"),
    ("rental", {"service": "Telegram", "duration": "30"}, {"service": "Telegram", "duration": 30}, "10.50"),
    ("rent-1day", {"service": "Tinder"}, {"service_id": 4421}, "1.20"),
    ("rent-30days", {"service": 7821}, {"service_id": 7821}, "12.00"),
    ("global", {"service": "WhatsApp", "country": "germany"}, {"service_id": 1012, "country_id": 17}, "1.10"),
    ("global", {"service": 1012, "country": 9}, {"service_id": 1012, "country_id": 9}, "0.60"),
    ("esim", {"plan": "usa 5gb / 30 days"}, {"plan": "USA 5GB / 30 days"}, "12.00"),
]


@pytest.mark.parametrize(("product", "given", "body", "price"), PURCHASES)
def test_each_product_is_bought_at_its_endpoint_with_the_catalogue_s_words(
    product: str,
    given: dict[str, Any],
    body: dict[str, Any],
    price: str,
    simulator: Simulator,
    make_hook: Callable[..., SmsVerifyHook],
    store_url: str,
) -> None:
    hook = make_hook(simulator, store_url, rate_period=60.0)  # so that no list is read twice
    order = hook.order(product, **given, max_price=price)
    (post,) = [request for request in simulator.requests() if request.method == "POST"]
    assert (post.path, post.body) == (f"/api/v1/order/{product}/", body)
    sold = simulator.order(order.order_id)
    assert (sold.product, sold.paid) == (product, Decimal(price))
    assert (order.product, order.service, order.status) == (product, sold.service, sold.status)
    assert (order.price, order.phone, order.duration) == (Decimal(price), sold.phone, sold.duration)
    assert order.activation_code == sold.activation_code
    assert order.country == ({17: "Germany", 9: "India"}.get(sold.country_id or 0))
    assert order.created_at is not None
    if product == "rental":
        assert order.expires_at is not None
        assert abs(order.expires_at - sold.expires_at) < timedelta(seconds=2)
    else:
        assert order.expires_at is None  # never invented
    known = hook.get_order(order.order_id)
    assert (known.as_dict(), known.activation_code) == (order.as_dict(), order.activation_code)
    # The catalogue's lists, what the account had before its first purchase, and the order.
    assert len(simulator.requests()) <= 5


# ------------------------------------------------------------------ status, cancel, renew, over HTTP


@pytest.mark.parametrize("waiting", ["null", "empty", "absent"])
def test_a_status_shows_the_sms_in_every_way_of_writing_none(
    waiting: str, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    simulator.configure(otp_while_waiting=waiting)
    order = hook.order("temporary", service="WhatsApp")
    before = hook.get_status(order.order_id)
    assert (before.status, before.arrived, before.otp, before.message) == ("pending", False, None, None)
    simulator.deliver_sms(order.order_id, otp="548921")
    after = hook.get_status(str(order.order_id))
    assert (after.status, after.arrived, after.otp) == ("completed", True, "548921")
    assert after.message == "Your WhatsApp code is 548921"
    assert (after.phone, after.phone_digits) == (order.phone, order.phone_digits)
    assert after.received_at is not None
    assert simulator.requests()[-1].path == f"/api/v1/order/{order.order_id}/status/"


def test_a_code_that_comes_as_a_number_has_its_zeros(simulator: Simulator, hook: SmsVerifyHook) -> None:
    simulator.configure(otp_as_integer=True)
    order = hook.order("temporary", service="WhatsApp")
    simulator.deliver_sms(order.order_id, otp="004217")
    assert hook.get_status(order.order_id).otp == "004217"


def test_a_code_arrives_although_the_order_stays_active(simulator: Simulator, hook: SmsVerifyHook) -> None:
    rental = hook.order("rental", service="WhatsApp", duration=3)
    assert rental.status == "active"
    assert not hook.get_status(rental.order_id).arrived
    simulator.deliver_sms(rental.order_id, otp="548921")
    status = hook.get_status(rental.order_id)
    assert (status.status, status.arrived, status.otp) == ("active", True, "548921")


@pytest.mark.parametrize(
    "fields", [("time_left_seconds",), ("days_left",), ("time_left_seconds", "days_left")]
)
@pytest.mark.parametrize("product", ["rent-1day", "rent-30days"])
def test_the_expiry_of_a_rental_by_the_day_follows_from_the_time_left(
    product: str, fields: tuple[str, ...], simulator: Simulator, hook: SmsVerifyHook
) -> None:
    simulator.configure(time_left_fields=fields, speed=1.0)
    order = hook.order(product, service={"rent-1day": "Tinder", "rent-30days": "Instagram"}[product])
    status = hook.get_status(order.order_id)
    days = {"rent-1day": 1, "rent-30days": 30}[product]
    assert status.expires_at is not None
    expected = datetime.now(timezone.utc) + timedelta(days=days)
    assert abs(status.expires_at - expected) < timedelta(minutes=5)
    assert hook.get_order(order.order_id).expires_at == status.expires_at
    known = (status.time_left_seconds is not None, status.days_left is not None)
    assert known == ("time_left_seconds" in fields, "days_left" in fields)


@pytest.mark.parametrize("skew", [-7200.0, 7200.0])
def test_a_date_that_a_status_shows_is_by_the_clock_that_its_answer_shows(
    skew: float, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    simulator.configure(clock_skew=skew)
    order_id = hook.order("rental", service="WhatsApp", duration=3).order_id
    end = datetime.now(timezone.utc) + timedelta(hours=1)
    shown = (end + timedelta(seconds=skew)).isoformat()
    body = json.dumps({"order_id": order_id, "status": "active", "expiry_date": shown})
    simulator.add_fault(Fault("error_before", path="order/*/status/", status=200, body=body))
    left = hook.get_status(order_id).time_left_seconds
    assert left == pytest.approx(3600, abs=60)


def test_an_order_is_cancelled_at_its_endpoint_without_a_body(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order = hook.order("temporary", service="WhatsApp")
    assert hook.cancel(order.order_id).status == "cancelled"
    request = simulator.requests()[-1]
    assert (request.method, request.path) == ("POST", f"/api/v1/order/{order.order_id}/cancel/")
    assert request.body is None
    assert simulator.balance() == Decimal(50)


def test_a_rental_is_renewed_at_its_endpoint_without_a_body(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order = hook.order("rent-1day", service="Tinder")
    renewed = hook.renew(order.order_id, max_price="1.20")
    posts = [request for request in simulator.requests() if request.method == "POST"]
    assert (posts[-1].path, posts[-1].body) == (f"/api/v1/order/{order.order_id}/renew/", None)
    assert (renewed.order_id, renewed.status) == (order.order_id, "active")
    assert simulator.order(order.order_id).renewals == 1
