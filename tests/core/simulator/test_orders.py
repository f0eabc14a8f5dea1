"""The life of an order in the simulator: bought, listed, answered, renewed, cancelled, ended."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import requests

from smsverify.simulator import Simulator, SimulatorError


class Api:
    """Speaks the service's language to a simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.session = requests.Session()
        self.session.trust_env = False

    def __call__(self, method: str, path: str, body: Any = None, key: str | None = None) -> requests.Response:
        return self.session.request(
            method,
            f"{self.simulator.url}/api/v1/{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.simulator.api_key if key is None else key}"},
            allow_redirects=False,
            timeout=30,
        )

    def buy(self, product: str = "temporary", **body: Any) -> int:
        answer = self("POST", f"order/{product}/", body or {"service_id": 1012}).json()
        return int(answer.get("data", answer)["order_id"])

    def status(self, order_id: int) -> dict[str, Any]:
        data: dict[str, Any] = self("GET", f"order/{order_id}/status/").json()["data"]
        return data


@pytest.fixture
def start() -> Iterator[Callable[..., Api]]:
    running: list[Simulator] = []

    def start_one(**settings: Any) -> Api:
        running.append(Simulator(**{"sms_delay": "never", "balance": 500, **settings}).start())
        return Api(running[-1])

    yield start_one
    for simulator in running:
        simulator.stop()


@pytest.fixture
def api(start: Callable[..., Api]) -> Api:
    return start()


def test_the_list_shows_the_50_newest_first_as_the_documentation_writes_them(
    start: Callable[..., Api],
) -> None:
    api = start(rate_limit=None)
    bought = [api.buy() for _ in range(51)]
    bought.append(api.buy("global", service_id=1012, country_id=4))
    rows = api("GET", "orders/").json()
    assert [row["order_id"] for row in rows] == bought[:1:-1]
    documented = {
        "order_id": 458736,
        "service": "WhatsApp (UK)",
        "status": "completed",
        "sell_price": 0.95,
        "price": 0.95,
        "phone": "+44 20 7946 0017",
        "created_at": "2026-05-12T05:33:21Z",
    }
    assert {name: type(value) for name, value in rows[0].items()} == {
        name: type(value) for name, value in documented.items()
    }
    assert (rows[0]["service"], rows[0]["sell_price"], rows[1]["service"]) == (
        "WhatsApp (UK)",
        0.95,
        "WhatsApp",
    )
    age = datetime.now(timezone.utc) - datetime.fromisoformat(rows[0]["created_at"].replace("Z", "+00:00"))
    assert timedelta(0) <= age < timedelta(seconds=60)
    assert len({row["phone"] for row in rows}) == 50


def test_the_status_carries_the_sms_as_documented(api: Api) -> None:
    order_id = api.buy()
    assert api.status(order_id) == {
        "order_id": order_id,
        "status": "pending",
        "otp": None,
        "message": None,
        "phone": "+1 415 555 0123",
    }
    api.simulator.deliver_sms(order_id)
    answer = api("GET", f"order/{order_id}/status/").json()
    order = api.simulator.order(order_id)
    assert answer == {
        "success": True,
        "data": {
            "order_id": order_id,
            "status": "completed",
            "otp": order.otp,
            "message": f"Your WhatsApp code is {order.otp}",
            "phone": "+1 415 555 0123",
        },
    }
    assert re.fullmatch(r"\d{6}", order.otp or "")


@pytest.mark.parametrize(
    ("style", "waiting"),
    [("null", {"otp": None, "message": None}), ("empty", {"otp": "", "message": ""}), ("absent", {})],
)
def test_before_the_sms_otp_and_message_are_null_empty_or_absent(
    start: Callable[..., Api], style: str, waiting: dict[str, Any]
) -> None:
    api = start(otp_while_waiting=style)
    order_id = api.buy()
    answer = api.status(order_id)
    assert {name: answer[name] for name in ("otp", "message") if name in answer} == waiting
    api.simulator.deliver_sms(order_id, text="Your code is on its way")
    answer = api.status(order_id)
    assert answer["message"] == "Your code is on its way"
    assert not answer.get("otp")


def test_an_integer_otp_loses_its_leading_zeros(start: Callable[..., Api]) -> None:
    api = start(otp_as_integer=True)
    order_id = api.buy()
    api.simulator.deliver_sms(order_id, otp="004521")
    answer = api.status(order_id)
    assert (answer["otp"], answer["message"]) == (4521, "Your WhatsApp code is 004521")


def test_codes_with_leading_zeros_occur_and_a_seed_repeats_a_run(start: Callable[..., Api]) -> None:
    def codes(seed: int) -> list[str | None]:
        api = start(seed=seed, rate_limit=None)
        for _ in range(60):
            api.simulator.deliver_sms(api.buy(service_id=22))
        return [order.otp for order in api.simulator.orders()]

    first = codes(1)
    assert any(code and code.startswith("0") for code in first)
    assert codes(1) == first != codes(2)


@pytest.mark.parametrize(
    ("product", "body", "seconds"),
    [
        ("rent-1day", {"service_id": 4421}, 86_400),
        ("rent-30days", {"service_id": 7821}, 30 * 86_400),
    ],
)
def test_day_rentals_say_in_real_time_how_long_they_last(
    start: Callable[..., Api], product: str, body: Any, seconds: int
) -> None:
    api = start(speed=10)
    order_id = api.buy(product, **body)
    answer = api.status(order_id)
    assert answer["status"] == "pending"
    assert seconds / 10 - 60 < answer["time_left_seconds"] <= seconds / 10
    assert answer["days_left"] == -(-seconds // 10 // 86_400)
    api.simulator.configure(time_left_fields=["days_left"])
    assert "time_left_seconds" not in api.status(order_id)


def test_a_rental_answers_its_expiry_and_its_status_does_not(start: Callable[..., Api]) -> None:
    api = start(speed=2)
    answer = api("POST", "order/rental/", {"service": "WhatsApp", "duration": 30}).json()
    expiry = datetime.fromisoformat(answer["expiry_date"].replace("Z", "+00:00"))
    assert abs(expiry - datetime.now(timezone.utc) - timedelta(days=15)) < timedelta(seconds=60)
    assert set(api.status(answer["order_id"])) == {"order_id", "status", "otp", "message", "phone"}


def test_renewing_extends_from_the_old_expiry_at_the_current_price(api: Api) -> None:
    order_id = api.buy("rental", service="WhatsApp", duration=3)
    before = api.simulator.order(order_id)
    api.simulator.set_offer("rental", "whatsapp", price_3days="5.25")
    answer = api("POST", f"order/{order_id}/renew/")
    assert (answer.status_code, answer.json()) == (
        200,
        {"success": True, "data": {"order_id": order_id, "status": "active", "phone": before.phone}},
    )
    after = api.simulator.order(order_id)
    assert after.expires_at - before.expires_at == timedelta(days=3)
    assert (after.paid, after.renewals, api.simulator.balance()) == (Decimal("9.25"), 1, Decimal("490.75"))
    api.simulator.set_balance("5.24")
    answer = api("POST", f"order/{order_id}/renew/")
    assert (answer.status_code, answer.json()) == (402, {"success": False, "error": "Insufficient balance"})
    assert api("POST", f"order/{api.buy(service_id=22)}/renew/").status_code == 400


def test_renewing_a_pending_day_rental_makes_it_active(api: Api) -> None:
    order_id = api.buy("rent-1day", service_id=4421)
    api("POST", f"order/{order_id}/renew/")
    answer = api.status(order_id)
    assert answer["status"] == "active"
    assert 2 * 86_400 - 60 < answer["time_left_seconds"] <= 2 * 86_400


@pytest.mark.parametrize(("renews", "status"), [(False, 400), (True, 200)])
def test_renewing_a_completed_rental_follows_the_setting(
    start: Callable[..., Api], renews: bool, status: int
) -> None:
    api = start(products={"rent-1day": {"sms_status": "completed"}}, renew_completed=renews)
    order_id = api.buy("rent-1day", service_id=4421)
    api.simulator.deliver_sms(order_id)
    assert api("POST", f"order/{order_id}/renew/").status_code == status
    assert (api.status(order_id)["status"], api.simulator.order(order_id).renewals) == ("completed", renews)


def test_a_pending_order_is_cancelled_and_refunded_once(api: Api) -> None:
    order_id = api.buy()
    answer = api("POST", f"order/{order_id}/cancel/")
    assert (answer.status_code, answer.json()) == (
        200,
        {"success": True, "data": {"order_id": order_id, "status": "cancelled"}},
    )
    assert api.simulator.balance() == Decimal(500)
    refused = (400, {"success": False, "error": "Order cannot be cancelled"})
    answer = api("POST", f"order/{order_id}/cancel/")
    assert (answer.status_code, answer.json()) == refused
    completed = api.buy()
    api.simulator.deliver_sms(completed)
    answer = api("POST", f"order/{completed}/cancel/")
    assert (answer.status_code, answer.json()) == refused
    assert api.simulator.balance() == Decimal("499.60")


@pytest.mark.parametrize(
    ("policy", "sms", "status", "balance"),
    [
        ("refuse", False, 400, "496.00"),
        ("refund", False, 200, "500.00"),
        ("refund", True, 400, "496.00"),
        ("no-refund", True, 200, "496.00"),
    ],
)
def test_cancelling_an_active_rental_follows_the_setting(
    start: Callable[..., Api], policy: str, sms: bool, status: int, balance: str
) -> None:
    api = start(cancel_active=policy)
    order_id = api.buy("rental", service="WhatsApp", duration=3)
    if sms:
        api.simulator.deliver_sms(order_id)
    assert api("POST", f"order/{order_id}/cancel/").status_code == status
    assert api.simulator.balance() == Decimal(balance)
    esim = api.buy("esim", plan="USA 1GB / 7 days")
    assert api("POST", f"order/{esim}/cancel/").status_code == 400


@pytest.mark.parametrize(
    ("product", "body", "status", "refunded"),
    [
        ("temporary", {"service_id": 1012}, "cancelled", "0.40"),
        ("global", {"service_id": 1012, "country_id": 4}, "cancelled", "0.95"),
        ("rent-1day", {"service_id": 4421}, "expired", "0"),
        ("rental", {"service": "WhatsApp", "duration": 3}, "expired", "0"),
    ],
)
def test_at_the_end_of_its_validity_an_order_ends(
    api: Api, product: str, body: Any, status: str, refunded: str
) -> None:
    order_id = api.buy(product, **body)
    api.simulator.set_time_left(order_id, 0)
    order = api.simulator.order(order_id)
    assert (order.status, order.refunded) == (status, Decimal(refunded))
    assert api.status(order_id)["status"] == status
    with pytest.raises(SimulatorError, match="receives no SMS"):
        api.simulator.deliver_sms(order_id)


def test_the_end_of_validity_is_a_setting(start: Callable[..., Api]) -> None:
    api = start(products={"temporary": {"validity": 0.05, "end_status": "timeout", "end_refund": False}})
    order_id = api.buy()
    wait_for(lambda: api.simulator.order(order_id).status == "timeout")
    assert api.simulator.balance() == Decimal("499.60")


def test_at_the_end_nothing_comes_back_for_a_number_that_was_used(start: Callable[..., Api]) -> None:
    api = start(products={"temporary": {"sms_status": "active"}})
    order_id = api.buy()
    api.simulator.deliver_sms(order_id)
    api.simulator.set_time_left(order_id, 0)
    order = api.simulator.order(order_id)
    assert (order.status, order.refunded) == ("cancelled", Decimal(0))


def test_stock_runs_out(api: Api) -> None:
    api.simulator.set_offer("temporary", 22, stock=1)
    api.buy(service_id=22)
    answer = api("POST", "order/temporary/", {"service_id": 22})
    assert (answer.status_code, answer.json()) == (400, {"success": False, "error": "Service not available"})
    for service in (1012, 31, 85):
        api.simulator.set_offer("global", service, country_id=9, stock=0)
    assert 9 not in [country["country_id"] for country in api("GET", "global/countries/").json()["countries"]]


def test_sms_come_after_the_delay_of_their_service_else_product_else_the_general_one(
    start: Callable[..., Api],
) -> None:
    api = start(
        speed=100,
        sms_delay="never",
        products={"best-temp": {"sms_delay": [1, 5]}, "global": {"sms_delay": 3}},
        services={
            "1012": {"sms_delay": "never"},
            "Telegram": {"sms_delay": 0, "text": "T {otp}", "digits": 4},
        },
    )
    never = [
        api.buy(service_id=1012),
        api.buy(service_id=31),
        api.buy("global", service_id=1012, country_id=4),
    ]
    soon = [
        api.buy(service_id=22),
        api.buy("best-temp", service_id=58),
        api.buy("global", service_id=31, country_id=9),
    ]
    wait_for(lambda: all(api.simulator.order(order_id).sms_count for order_id in soon))
    assert re.fullmatch(r"T \d{4}", api.simulator.order(soon[0]).message or "")
    late = api.simulator.order(soon[2])
    assert late.sms_at is not None
    assert timedelta(seconds=0.03) <= late.sms_at - late.created_at
    assert [api.simulator.order(order_id).status for order_id in never] == ["pending"] * 3


def test_the_list_may_hide_a_completion_until_the_status_was_asked_for(start: Callable[..., Api]) -> None:
    api = start(list_shows_completion=False)
    order_id = api.buy()
    api.simulator.deliver_sms(order_id)
    assert api("GET", "orders/").json()[0]["status"] == "pending"
    assert api.status(order_id)["status"] == "completed"
    assert api("GET", "orders/").json()[0]["status"] == "completed"


def test_a_rental_keeps_receiving_sms(api: Api) -> None:
    order_id = api.buy("rental", service="WhatsApp", duration=3)
    for code in ("111111", "222222"):
        api.simulator.deliver_sms(order_id, otp=code)
        assert (api.status(order_id)["status"], api.status(order_id)["otp"]) == ("active", code)


def test_the_services_clock_may_be_ahead_of_ours(start: Callable[..., Api]) -> None:
    api = start(clock_skew=3600)
    api.buy()
    answer = api("GET", "orders/")
    created = datetime.fromisoformat(answer.json()[0]["created_at"].replace("Z", "+00:00"))
    for moment in (created, parsedate_to_datetime(answer.headers["Date"])):
        assert timedelta(minutes=59) < moment - datetime.now(timezone.utc) < timedelta(minutes=61)


def test_an_outage_refuses_connections_and_loses_nothing(api: Api) -> None:
    order_id = api.buy()
    url = api.simulator.url
    api.simulator.stop()
    with pytest.raises(requests.ConnectionError):
        api("GET", "balance/")
    api.simulator.start()
    assert api.simulator.url == url
    assert api.status(order_id)["status"] == "pending"


def wait_for(condition: Callable[[], bool], timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("defect", "field", "value"),
    [
        ("no_phone", "phone", None),
        ("no_service", "service", None),
        ("no_price", "sell_price", None),
        ("no_created_at", "created_at", None),
        ("other_name", "service", "WH-8"),
        ("rounded", "price", 0),
        ("unreadable", "order_id", None),
    ],
)
def test_the_list_of_orders_is_less_exact_than_documented(
    start: Callable[..., Api], defect: str, field: str, value: object
) -> None:
    api = start(list_defects=[defect])
    api.buy()
    assert api("GET", "orders/").json()[0][field] == value


def test_the_list_of_orders_is_an_hour_early(start: Callable[..., Api]) -> None:
    api = start(list_defects=["other_time"])
    api.buy()
    (row,) = api("GET", "orders/").json()
    early = datetime.now(timezone.utc) - datetime.fromisoformat(row["created_at"].replace("Z", "+00:00"))
    assert timedelta(minutes=59) < early < timedelta(minutes=62)


def test_the_list_shows_the_newest_orders_only(start: Callable[..., Api]) -> None:
    api = start(list_length=2)
    first, *newest = (api.buy() for _ in range(3))
    assert [row["order_id"] for row in api("GET", "orders/").json()] == newest[::-1]
    assert api.status(first)["status"] == "pending"
