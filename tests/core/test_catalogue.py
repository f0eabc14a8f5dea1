"""Names and ids are looked up in lists that everybody who shares the store reads once a minute."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from requests_mock import Mocker
from rigs import API_KEY, eventually

from smsverify import InvalidRequestError, NotAvailableError, PriceLimitError, SmsVerifyHook
from smsverify.simulator import Fault, Simulator

URL = "http://127.0.0.1:9/api/v1/"


@pytest.fixture
def offline(store_url: str) -> SmsVerifyHook:
    """A hook whose service is a mock."""
    return SmsVerifyHook(
        API_KEY, base_url="http://127.0.0.1:9", store_url=store_url, rate_limit=1000, rate_period=60.0
    )


def reads(simulator: Simulator, path: str) -> int:
    return len([request for request in simulator.requests() if request.path == f"/api/v1/{path}"])


@pytest.mark.parametrize(
    ("given", "field", "hint"),
    [
        ({"product": "temporary", "service": "WhatsAp"}, "service", "WhatsApp"),
        ({"product": "temporary", "service": 99_999}, "service", "12 others"),
        ({"product": "rental", "service": "1012", "duration": 3}, "service", "4 others"),
        ({"product": "rent-1day", "service": 1012}, "service", "4 others"),
        ({"product": "global", "service": "WhatsApp", "country": 1}, "country", "3 others"),
        ({"product": "global", "service": "WhatsApp", "country": "Germny"}, "country", "Germany"),
        ({"product": "global", "service": "Amazon", "country": "Germany"}, "service", "3 others"),
        ({"product": "esim", "plan": "USA 5GB"}, "plan", "USA 5GB / 30 days"),
    ],
)
def test_what_is_not_in_the_catalogue_is_not_available_and_the_nearest_is_named(
    given: dict[str, Any], field: str, hint: str, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    with pytest.raises(NotAvailableError, match=field) as caught:
        hook.order(**given)
    assert hint in str(caught.value)
    assert not [request for request in simulator.requests() if request.method == "POST"]


def test_a_service_is_identified_by_product_and_country(simulator: Simulator, hook: SmsVerifyHook) -> None:
    """1012 stands in three catalogues at different prices."""
    simulator.set_offer("best-temp", 1012, price="0.44")
    bought = [
        hook.order("temporary", service=1012),
        hook.order("best-temp", service=1012),
        hook.order("global", service=1012, country=4),
        hook.order("global", service=1012, country=17),
    ]
    assert [order.price for order in bought] == [Decimal(x) for x in ("0.40", "0.44", "0.95", "1.10")]
    assert [simulator.order(order.order_id).paid for order in bought] == [order.price for order in bought]


def test_an_id_goes_before_a_name_and_a_name_for_several_is_refused_with_their_ids(
    offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    rows = [
        {"service_id": 7, "name": "8", "price": 1},
        {"service_id": 8, "name": "Eight", "price": 2},
        {"service_id": 9, "name": "Twin", "price": 3},
        {"service_id": 10, "name": "TWIN", "price": 4},
    ]
    requests_mock.get(f"{URL}services/temporary/", json=rows)
    requests_mock.post(f"{URL}order/temporary/", json={"order_id": 1})
    assert offline.order("temporary", service="8").service == "Eight"
    assert requests_mock.request_history[-1].json() == {"service_id": 8}
    with pytest.raises(InvalidRequestError, match="9, 10") as caught:
        offline.order("temporary", service="twin")
    assert caught.value.field == "service"
    assert offline.order("temporary", service=10).price == 4


def test_a_list_is_read_once_a_minute_by_all_who_share_the_store(
    simulate: Callable[..., Simulator], make_hook: Callable[..., SmsVerifyHook], any_store_url: str
) -> None:
    simulator = simulate()
    hooks = [make_hook(simulator, any_store_url, rate_period=60.0) for _ in range(3)]
    for number, hook in enumerate([*hooks, *hooks]):
        hook.order("temporary", service="WhatsApp", key=f"t{number}")
        hook.order("global", service="WhatsApp", country=(4, 17)[number % 2], key=f"g{number}")
    assert reads(simulator, "services/temporary/") == 1
    assert reads(simulator, "global/countries/") == 1
    assert reads(simulator, "global/services/") == 2


def test_many_who_need_a_list_at_once_read_it_once(
    simulate: Callable[..., Simulator], make_hook: Callable[..., SmsVerifyHook], any_store_url: str
) -> None:
    simulator = simulate(balance="100")
    simulator.add_fault(Fault("slow_after", path="services/temporary/", seconds=0.5))
    hooks = [make_hook(simulator, any_store_url, rate_period=60.0) for _ in range(10)]
    with ThreadPoolExecutor(len(hooks)) as threads:
        orders = threads.map(lambda hook: hook.order("temporary", service="WhatsApp").service, hooks)
        assert list(orders) == ["WhatsApp"] * 10
    assert reads(simulator, "services/temporary/") == 1


def test_one_who_died_while_reading_a_list_holds_nobody_up_for_long(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify.catalogue.LONGEST_READ", 0.3)
    assert hook._catalogue._claim_read("temporary")
    assert hook.order("temporary", service="WhatsApp").service == "WhatsApp"


def test_what_is_listed_for_people_is_fresh(simulator: Simulator, hook: SmsVerifyHook) -> None:
    hook.list_services("temporary")
    simulator.set_offer("temporary", 1012, price="0.77")
    assert hook.list_services("temporary")[0].price == Decimal("0.77")


def test_a_new_price_counts_after_a_minute(simulator: Simulator, hook: SmsVerifyHook) -> None:
    hook.order("temporary", service="WhatsApp", max_price="0.40")
    simulator.set_offer("temporary", 1012, price="0.41")

    eventually(
        lambda: hook._catalogue.services("temporary")[0].price == Decimal("0.41"), "reading the list anew"
    )
    with pytest.raises(PriceLimitError):
        hook.order("temporary", service="WhatsApp", max_price="0.40")


def test_accounts_do_not_share_lists(
    simulate: Callable[..., Simulator], make_hook: Callable[..., SmsVerifyHook], store_url: str
) -> None:
    simulator = simulate()
    for account in ("one", "other"):
        make_hook(simulator, store_url, account=account, rate_period=60.0).order("temporary", service=22)
    assert reads(simulator, "services/temporary/") == 2


def test_a_list_that_can_not_be_read_is_not_kept(simulator: Simulator, hook: SmsVerifyHook) -> None:
    simulator.add_fault(Fault("html", path="services/temporary/", times=4))
    with pytest.raises(Exception, match="services/temporary"):
        hook.order("temporary", service=22)
    assert hook.order("temporary", service=22).service == "Telegram"


def test_what_the_store_keeps_of_a_list_is_what_was_read(
    offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    row = {
        "name": "X",
        "sell_price_3days": "4.10",
        "price_3days": 4.2,
        "sell_price_30days": 12,
        "note": {"a": [1]},
    }
    requests_mock.get(f"{URL}services/rental/", json=[row])
    catalogue = offline._catalogue
    assert catalogue.services("rental")[0].as_dict() == catalogue.services("rental")[0].as_dict()
    (kept,) = catalogue.services("rental")
    assert (kept.price_of(3), kept.highest_price_of(3), kept.price_of(30)) == (
        Decimal("4.10"),
        Decimal("4.2"),
        Decimal(12),
    )
    assert requests_mock.call_count == 1
