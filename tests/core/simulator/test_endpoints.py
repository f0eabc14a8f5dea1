"""The simulator's endpoints against the samples of the service's documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import pytest
import requests
from requests import Response

from smsverify.simulator import Simulator

SERVICES: dict[str, Any] = {
    "success": True,
    "data": {"services": [{"service_id": 1012, "name": "WhatsApp", "price": 0.40}]},
}
BEST: dict[str, Any] = {
    "success": True,
    "data": {"services": [{"service_id": 1012, "name": "WhatsApp", "price": 0.40, "country": "US"}]},
}
ORDER = {"success": True, "data": {"order_id": 458731, "phone": "+1 415 555 0123", "status": "pending"}}


class Case(NamedTuple):
    """A request and its answer."""

    method: str
    path: str
    body: dict[str, Any] | None
    status: int
    answer: Any

    def __str__(self) -> str:
        return f"{self.status} {self.method} {self.path}"


# The answers are the documentation's samples; their values stand for their types.
DOCUMENTED = [
    Case("GET", "balance/", None, 200, {"balance": 50.00, "currency": "USD"}),
    Case(
        "GET", "wallet/balance/", None, 200, {"success": True, "data": {"balance": 50.00, "currency": "USD"}}
    ),
    Case("GET", "services/temporary/", None, 200, SERVICES),
    Case(
        "GET",
        "services/rental/",
        None,
        200,
        [
            {
                "name": "WhatsApp",
                "sell_price_3days": 4.00,
                "sell_price_30days": 12.00,
                "price_3days": 4.00,
                "price_30days": 12.00,
            }
        ],
    ),
    Case("GET", "services/rent-1day/", None, 200, SERVICES),
    Case("GET", "services/rent-30days/", None, 200, SERVICES),
    Case("GET", "services/best-temp/", None, 200, BEST),
    Case(
        "GET",
        "services/esim/",
        None,
        200,
        [
            {
                "name": "USA 5GB / 30 days",
                "data_gb": 5.0,
                "validity_days": 30,
                "sell_price": 12.00,
                "price": 12.00,
            }
        ],
    ),
    Case(
        "GET",
        "global/countries/",
        None,
        200,
        {"countries": [{"country_id": 4, "country_name": "United Kingdom"}]},
    ),
    Case(
        "GET",
        "global/services/?country_id=4",
        None,
        200,
        {
            "country_id": 4,
            "country_name": "United Kingdom",
            "offers": [
                {
                    "service_id": 1012,
                    "service_name": "WhatsApp",
                    "country_id": 4,
                    "country_name": "United Kingdom",
                    "sell_price": 0.95,
                    "price": 0.95,
                }
            ],
        },
    ),
    Case("POST", "order/temporary/", {"service_id": 1012}, 201, ORDER),
    Case(
        "POST",
        "order/rental/",
        {"service": "WhatsApp", "duration": 3},
        201,
        {
            "success": True,
            "order_id": 458732,
            "phone": "+1 415 555 0124",
            "sell_price": 4.00,
            "price": 4.00,
            "status": "active",
            "expiry_date": "2026-05-14T05:00:00Z",
        },
    ),
    Case("POST", "order/best-temp/", {"service_id": 1012}, 200, ORDER),
    Case("POST", "order/rent-1day/", {"service_id": 4421}, 200, ORDER),
    Case("POST", "order/rent-30days/", {"service_id": 7821}, 200, ORDER),
    Case("POST", "order/global/", {"service_id": 1012, "country_id": 4}, 201, ORDER),
    Case(
        "POST",
        "order/esim/",
        {"plan": "USA 5GB / 30 days"},
        200,
        {
            "success": True,
            "order_id": 458737,
            "activation_code": "SIM-1234567890",
            "sell_price": 12.00,
            "price": 12.00,
            "status": "active",
        },
    ),
]


def call(simulator: Simulator, method: str, path: str, body: Any = None, key: str = "sim-key") -> Response:
    return requests.request(
        method,
        f"{simulator.url}/api/v1/{path}",
        json=body,
        headers={"Authorization": f"Bearer {key}"},
        allow_redirects=False,
        timeout=30,
    )


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(sms_delay="never", balance=500) as running:
        yield running


def shape(value: Any) -> Any:
    """Key sets and types, to compare an answer with a sample. Of a list, the shape of its entries."""
    if isinstance(value, dict):
        return {key: shape(entry) for key, entry in value.items()}
    if isinstance(value, list):
        shapes = [shape(entry) for entry in value]
        assert all(entry == shapes[0] for entry in shapes)
        return [shapes[0]]
    return type(value)


@pytest.mark.parametrize("case", DOCUMENTED, ids=str)
def test_an_endpoint_answers_with_the_documented_status_and_shape(simulator: Simulator, case: Case) -> None:
    answer = call(simulator, case.method, case.path, case.body)
    assert answer.status_code == case.status
    assert shape(answer.json()) == shape(case.answer)
    assert answer.headers["Content-Type"] == "application/json"
    age = datetime.now(timezone.utc) - parsedate_to_datetime(answer.headers["Date"])
    assert abs(age) < timedelta(seconds=60)


def test_the_documentations_own_entries_are_for_sale_at_its_prices(simulator: Simulator) -> None:
    def services(product: str) -> dict[int, tuple[str, float]]:
        entries = call(simulator, "GET", f"services/{product}/").json()["data"]["services"]
        return {entry["service_id"]: (entry["name"], entry["price"]) for entry in entries}

    assert services("temporary").items() >= {(1012, ("WhatsApp", 0.40)), (22, ("Telegram", 0.30))}
    assert services("rent-1day").items() >= {(4421, ("Tinder", 1.20)), (4422, ("Discord", 1.50))}
    assert services("rent-30days")[7821] == ("Instagram", 12.00)
    assert services("best-temp")[1012] == ("WhatsApp", 0.40)
    assert len(services("temporary")) >= 10
    by_name = {entry["name"]: entry for entry in call(simulator, "GET", "services/rental/").json()}
    assert (by_name["WhatsApp"]["sell_price_3days"], by_name["WhatsApp"]["sell_price_30days"]) == (4.0, 12.0)
    plans = {plan["name"]: plan for plan in call(simulator, "GET", "services/esim/").json()}
    assert plans["USA 5GB / 30 days"]["sell_price"] == 12.00
    assert call(simulator, "GET", "global/countries/").json()["countries"] == [
        {"country_id": 4, "country_name": "United Kingdom"},
        {"country_id": 17, "country_name": "Germany"},
        {"country_id": 9, "country_name": "India"},
    ]
    offers = {
        o["service_id"]: o for o in call(simulator, "GET", "global/services/?country_id=4").json()["offers"]
    }
    assert (offers[1012]["service_name"], offers[1012]["sell_price"]) == ("WhatsApp", 0.95)


def test_the_first_answers_are_the_documentations_own(simulator: Simulator) -> None:
    assert call(simulator, "POST", "order/temporary/", {"service_id": "1012"}).json() == {
        "success": True,
        "data": {"order_id": 458731, "phone": "+1 415 555 0123", "status": "pending"},
    }
    answer = call(simulator, "POST", "order/rental/", {"service": "whatsapp", "duration": 3}).json()
    assert (answer["order_id"], answer["phone"], answer["price"]) == (458732, "+1 415 555 0124", 4.0)
    answer = call(simulator, "POST", "order/global/", {"service_id": 1012, "country_id": 4}).json()
    assert answer["data"]["phone"] == "+44 20 7946 0017"
    assert re.fullmatch(
        r"SIM-\d{10}",
        call(simulator, "POST", "order/esim/", {"plan": "usa 5gb / 30 DAYS"}).json()["activation_code"],
    )
    assert re.fullmatch(
        r"\+1 212 555 \d{4}",
        call(simulator, "POST", "order/temporary/", {"service_id": 22, "area_code": "212"}).json()["data"][
            "phone"
        ],
    )


ERRORS = [
    Case("GET", "global/services/", None, 400, {"error": "country_id query parameter is required"}),
    Case("GET", "global/services/?country_id=1", None, 404, {"error": "Country not found"}),
    Case(
        "POST", "order/temporary/", {"service_id": 1}, 404, {"success": False, "error": "Service not found"}
    ),
    Case("POST", "order/temporary/", {}, 400, {"success": False, "error": "service_id is required"}),
    Case(
        "POST",
        "order/temporary/",
        {"service_id": 1012, "area_code": "12"},
        400,
        {"success": False, "error": "area_code must be a 3-digit US area code"},
    ),
    Case(
        "POST", "order/best-temp/", {"service_id": 47}, 404, {"success": False, "error": "Service not found"}
    ),
    Case("POST", "order/rental/", {"service": "Nothing", "duration": 3}, 404, {"error": "Service not found"}),
    Case(
        "POST",
        "order/rental/",
        {"service": "WhatsApp", "duration": 7},
        400,
        {"error": "duration must be 3 or 30"},
    ),
    Case(
        "POST",
        "order/global/",
        {"service_id": 58, "country_id": 4},
        404,
        {"success": False, "error": "Service not available"},
    ),
    Case("POST", "order/esim/", {"plan": "Moon"}, 404, {"error": "Plan not found"}),
    Case("GET", "order/1/status/", None, 404, {"success": False, "error": "Order not found"}),
    Case("POST", "order/1/cancel/", None, 404, {"success": False, "error": "Order not found"}),
    Case("POST", "order/1/renew/", None, 404, {"success": False, "error": "Order not found"}),
    Case("POST", "balance/", {}, 405, {"detail": 'Method "POST" not allowed.'}),
]


@pytest.mark.parametrize("case", ERRORS, ids=str)
def test_a_bad_request_is_refused_and_costs_nothing(simulator: Simulator, case: Case) -> None:
    answer = call(simulator, case.method, case.path, case.body)
    assert (answer.status_code, answer.json()) == (case.status, case.answer)
    assert [movement.kind for movement in simulator.movements()] == ["start"]


@pytest.mark.parametrize("case", DOCUMENTED, ids=str)
def test_a_wrong_key_gets_the_documented_401_of_its_endpoint(simulator: Simulator, case: Case) -> None:
    answer = call(simulator, case.method, case.path, case.body, key="wrong")
    expected: dict[str, Any] = {"error": "Invalid API key"}
    if case.path == "services/temporary/":
        expected = {"success": False, "error": "Invalid or missing API key"}
    assert (answer.status_code, answer.json()) == (401, expected)


def test_without_its_slash_a_path_is_redirected_to_the_one_with_it(simulator: Simulator) -> None:
    answer = call(simulator, "GET", "global/services?country_id=4")
    assert (answer.status_code, answer.headers["Location"]) == (301, "/api/v1/global/services/?country_id=4")
    assert call(simulator, "POST", "order/temporary", {"service_id": 1012}).status_code == 301
    assert call(simulator, "GET", "no/such/path").status_code == 404
    assert simulator.orders() == []


def test_a_body_that_is_no_json_object_is_refused(simulator: Simulator) -> None:
    url, headers = f"{simulator.url}/api/v1/order/temporary/", {"Authorization": "Bearer sim-key"}
    form = requests.post(url, data={"service_id": 1012}, headers=headers, timeout=30)
    assert form.status_code == 415
    for text in ('{"service_id": 10', "[1012]", "\xff"):
        answer = requests.post(
            url, data=text, headers={**headers, "Content-Type": "application/json"}, timeout=30
        )
        assert (answer.status_code, answer.json()["error"]) == (400, "Invalid JSON")


@pytest.mark.parametrize(
    ("product", "body", "error"),
    [
        ("temporary", {"service_id": 1012}, {"success": False, "error": "Insufficient balance"}),
        ("rental", {"service": "WhatsApp", "duration": 30}, {"error": "Insufficient balance"}),
        ("esim", {"plan": "USA 5GB / 30 days"}, {"error": "Insufficient balance"}),
    ],
)
def test_an_empty_wallet_buys_nothing(simulator: Simulator, product: str, body: Any, error: Any) -> None:
    simulator.set_balance("0.39")
    answer = call(simulator, "POST", f"order/{product}/", body)
    assert (answer.status_code, answer.json()) == (402, error)
    assert (simulator.balance(), simulator.orders()) == (Decimal("0.39"), [])
