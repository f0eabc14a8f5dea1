"""Names and ids are looked up in lists that everybody who shares the store reads once a minute."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from requests_mock import Mocker
from rigs import API_KEY, eventually
from rigs.rooms import rooms_of, store_of

from smsverify import (
    InvalidRequestError,
    NotAvailableError,
    PriceLimitError,
    PurchaseConflictError,
    SmsVerifyHook,
    StoreError,
)
from smsverify._input import countries
from smsverify._input.names import bare
from smsverify._service.catalogue import LOOK, Catalogue, _looking
from smsverify._store.tables import catalogues
from smsverify.checks import OrderRequest
from smsverify.simulator import Fault, Simulator

URL = "http://127.0.0.1:9/api/v1/"


WHATSAPP = OrderRequest.check(product="temporary", service="WhatsApp")


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
        ({"product": "temporary", "service": 99_999}, "service", "catalogue: 12"),
        ({"product": "rental", "service": "1012", "duration": 3}, "service", "catalogue: 4"),
        ({"product": "rent-1day", "service": 1012}, "service", "catalogue: 4"),
        ({"product": "global", "service": "WhatsApp", "country": 1}, "country", "catalogue: 3"),
        ({"product": "global", "service": "WhatsApp", "country": "Germny"}, "country", "Germany"),
        (
            {"product": "global", "service": "Amazon", "country": "Germany"},
            "service",
            "catalogue: 3",
        ),
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


def sells(mock: Mocker, *rows: dict[str, Any], product: str = "temporary") -> None:
    """The service lists these, and sells whatever is ordered."""
    mock.get(f"{URL}orders/", json=[])
    mock.get(f"{URL}balance/", json={"balance": 50})
    mock.get(f"{URL}services/{product}/", json=list(rows))
    ids = itertools.count(1)
    mock.post(f"{URL}order/{product}/", json=lambda *_: {"order_id": next(ids), "phone": "+1 415 555 0123"})


def ordered(mock: Mocker) -> list[dict[str, Any]]:
    """What was ordered so far."""
    return [request.json() for request in mock.request_history if request.method == "POST"]


GETT = {"service_id": 1688, "name": "Gett", "price": 4}
DIGITS = {"service_id": 77, "name": "1688", "price": 0.2}


def test_a_text_that_is_the_id_of_one_and_the_name_of_another_is_refused(
    offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    sells(requests_mock, GETT, DIGITS)
    with pytest.raises(InvalidRequestError, match=r"(?s)'Gett'.*4\.00.*77.*0\.20") as caught:
        offline.order("temporary", service="1688")
    assert caught.value.field == "service"
    assert ordered(requests_mock) == []
    for service, bought in ((1688, 1688), ("gett", 1688), (77, 77), ("77", 77)):
        offline.order("temporary", service=service)
        assert ordered(requests_mock)[-1] == {"service_id": bought}


def test_a_number_is_never_a_name(offline: SmsVerifyHook, requests_mock: Mocker) -> None:
    sells(requests_mock, DIGITS)
    assert offline.order("temporary", service="1688").service == "1688"
    with pytest.raises(NotAvailableError):
        offline.order("temporary", service=1688)
    sells(requests_mock, {"name": "1688", "price_3days": 1}, product="rental")
    with pytest.raises(NotAvailableError):
        offline.order("rental", service=1688, duration=3)


def test_an_id_in_digits_does_as_well_as_a_number(offline: SmsVerifyHook, requests_mock: Mocker) -> None:
    """As a template renders it."""
    sells(requests_mock, GETT, {"service_id": 5, "name": "5", "price": 1})
    for service, bought in (("1688", 1688), (" 1688 ", 1688), ("5", 5), (5, 5)):
        offline.order("temporary", service=service)
        assert ordered(requests_mock)[-1] == {"service_id": bought}


def test_a_key_under_which_a_name_was_bought_does_not_hand_that_out_for_the_same_digits_as_an_id(
    offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    sells(requests_mock, DIGITS)
    offline.order("temporary", service="1688", key="k")
    with pytest.raises(PurchaseConflictError, match="another"):
        offline.order("temporary", service=1688, key="k")
    offline.order("temporary", service=77, key="n")


def test_a_country_is_distinguished_from_another_one_likewise(
    offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    countries = [{"country_id": 4, "country_name": "United Kingdom"}, {"country_id": 9, "country_name": "4"}]
    requests_mock.get(f"{URL}global/countries/", json={"countries": countries})
    requests_mock.get(f"{URL}global/services/", json={"offers": [{"service_id": 1, "service_name": "X"}]})
    with pytest.raises(InvalidRequestError) as caught:
        offline.list_global_services("4")
    assert caught.value.field == "country"
    offline.list_global_services(4)
    assert requests_mock.request_history[-1].qs == {"country_id": ["4"]}


def test_a_rental_is_renewed_at_the_price_of_what_it_was_bought_as(
    offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    sells(requests_mock, GETT, DIGITS, product="rent-1day")
    offline.order("rent-1day", service=1688)
    requests_mock.get(f"{URL}order/1/status/", json={"order_id": 1, "status": "active"})
    requests_mock.post(f"{URL}order/1/renew/", json={"order_id": 1, "status": "active"})
    with pytest.raises(PriceLimitError, match=r"costs 4\.00 USD"):
        offline.renew(1, max_price="3")
    offline.renew(1, max_price="4")


@pytest.mark.parametrize(
    "name", ["WhatsApp ", " WhatsApp", "Whats\u200bApp", "Whats\u00adApp", "\u00a0WhatsApp\u2003"]
)
def test_a_name_is_found_although_it_holds_what_cannot_be_seen_and_sent_as_it_is_listed(
    name: str, offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    sells(requests_mock, {"name": name, "price_3days": 4}, {"name": "Other"}, product="rental")
    for wanted in ("WhatsApp", "whatsapp", name):
        offline.order("rental", service=wanted, duration=3)
    assert ordered(requests_mock) == [{"service": name, "duration": 3}] * 3


def test_names_that_differ_in_the_case_only_are_distinguished_by_it(
    offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    sells(
        requests_mock,
        {"service_id": 9, "name": "Line", "price": 3},
        {"service_id": 10, "name": "LINE", "price": 4},
    )
    assert offline.order("temporary", service="LINE").price == 4
    assert offline.order("temporary", service="Line").price == 3
    with pytest.raises(InvalidRequestError, match="9, 10") as caught:
        offline.order("temporary", service="line")
    assert caught.value.field == "service"
    assert len(ordered(requests_mock)) == 2


def test_what_is_listed_twice_without_ids_says_so(offline: SmsVerifyHook, requests_mock: Mocker) -> None:
    twins = [{"name": "WhatsApp", "price_3days": 4}, {"name": "WhatsApp", "price_3days": 5}]
    sells(requests_mock, *twins, product="rental")
    with pytest.raises(InvalidRequestError, match=r"4\.00.*5\.00.*Nothing was sent, because no id") as caught:
        offline.order("rental", service="WhatsApp", duration=3)
    assert "None" not in str(caught.value)
    assert ordered(requests_mock) == []


@pytest.mark.slow
def test_what_is_listed_twice_alike_is_one(offline: SmsVerifyHook, requests_mock: Mocker) -> None:
    sells(requests_mock, *[{"name": "WhatsApp", "price_3days": 4}] * 2, product="rental")
    assert offline.order("rental", service="WhatsApp", duration=3, max_price=4).price == 4


@pytest.mark.parametrize(
    ("wanted", "listed"),
    [
        *[(name, "United Kingdom") for name in ("UK", "gb", "GBR", "Great Britain", "united kingdom ")],
        *[("United Kingdom", name) for name in ("UK", "Great Britain", "Britain")],
        ("DE", "Germany"),
        ("Turkey", "Türkiye"),
        ("Ivory Coast", "Cote d'Ivoire"),
        ("Côte d’Ivoire", "Cote d'Ivoire"),
        ("South Korea", "Korea, Republic of"),
        ("Viet Nam", "Vietnam"),
        ("Czech Republic", "Czechia"),
        ("Bosnia and Herzegovina", "Bosnia & Herzegovina"),
    ],
)
def test_a_country_goes_by_its_usual_names(
    wanted: str, listed: str, offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    rows = [{"country_id": 4, "country_name": listed}, {"country_id": 5, "country_name": "Elsewhere"}]
    requests_mock.get(f"{URL}global/countries/", json={"countries": rows})
    assert rooms_of(offline).catalogue.find_country(wanted).country_id == 4


@pytest.mark.parametrize("country", ["USA", "United States", "us"])
def test_the_usa_is_no_country_here_and_it_says_what_to_order(
    country: str, hook: SmsVerifyHook, simulator: Simulator
) -> None:
    with pytest.raises(NotAvailableError, match="such as temporary"):
        hook.order("global", service="WhatsApp", country=country)


def test_each_code_and_name_of_a_country_stands_for_one() -> None:
    taken: dict[str, str] = {}
    for line in countries._lines():
        short, long, names = line.split(" ", 2)
        for name in (short, long, *names.split("; ")):
            assert taken.setdefault(bare(name), short) == short, name
    assert len(set(taken.values())) == 249


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_many_whose_turn_to_read_a_list_comes_late_and_at_once_read_it_once(
    simulate: Callable[..., Simulator], make_hook: Callable[..., SmsVerifyHook], store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, store_url, rate_limit=5, rate_period=2.0)
    for _ in range(5):
        hook.get_balance()  # so the next turns come together, when others wait no longer for the reader
    simulator.add_fault(Fault("slow_after", path="services/temporary/", seconds=0.2))
    rooms = rooms_of(hook)
    catalogues = [
        Catalogue(store_of(hook), rooms.api, hook.settings.account_id, max_age=60.0, longest_read=1.5)
        for _ in range(8)
    ]
    with ThreadPoolExecutor(len(catalogues)) as threads:
        quotes = threads.map(lambda catalogue: catalogue.quote(WHATSAPP).entry.name, catalogues)
        assert list(quotes) == ["WhatsApp"] * 8
    assert reads(simulator, "services/temporary/") == 1


def test_one_who_died_while_reading_a_list_does_not_delay_others_for_long(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    account = hook.settings.account_id
    catalogue = Catalogue(store_of(hook), rooms_of(hook).api, account, max_age=60.0, longest_read=0.3)
    assert catalogue._claim_read("temporary", lambda _: None)
    assert not catalogue._claim_read("temporary", lambda _: None)
    assert catalogue.quote(WHATSAPP).entry.name == "WhatsApp"


def test_a_list_that_is_there_is_used_while_others_wait_for_a_newer_one(hook: SmsVerifyHook) -> None:
    store, account = store_of(hook), hook.settings.account_id
    catalogue = Catalogue(store, rooms_of(hook).api, account, max_age=60.0)
    catalogue.quote(WHATSAPP)
    waiting = _looking.get(f"{store.name_here} {account} temporary", threading.Lock)
    with ThreadPoolExecutor(1) as pool, waiting:
        assert pool.submit(catalogue.quote, WHATSAPP).result(20).entry.name == "WhatsApp"


@pytest.mark.slow
def test_those_who_wait_for_the_reader_of_a_list_leave_it_the_store_and_the_time(
    hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread for each of many purchases waits at once, and all share one store and one processor."""
    longest, threads = 1.0, 8
    catalogue = Catalogue(
        store_of(hook), rooms_of(hook).api, hook.settings.account_id, max_age=60.0, longest_read=longest
    )
    assert catalogue._claim_read("temporary", lambda _: None)
    claims, looks, claim_read, is_being_read = [], [], Catalogue._claim_read, Catalogue._is_being_read

    def claim_and_note(*args: Any) -> float | None:
        claims.append(claim_read(*args))
        return claims[-1]

    def look_and_note(*args: Any) -> bool:
        looks.append(is_being_read(*args))
        return looks[-1]

    monkeypatch.setattr(Catalogue, "_claim_read", claim_and_note)
    monkeypatch.setattr(Catalogue, "_is_being_read", look_and_note)
    with ThreadPoolExecutor(threads) as pool:
        quotes = pool.map(lambda _: catalogue.quote(WHATSAPP).entry.name, range(threads))
        assert list(quotes) == ["WhatsApp"] * threads
    assert len([claim for claim in claims if claim is None]) < threads  # those that came at the same moment
    assert len([is_read for is_read in looks if is_read]) <= longest / LOOK + 4 * threads  # not 20 for each


def test_what_is_listed_for_people_is_fresh(simulator: Simulator, hook: SmsVerifyHook) -> None:
    hook.list_services("temporary")
    simulator.set_offer("temporary", 1012, price="0.77")
    assert hook.list_services("temporary")[0].price == Decimal("0.77")


def test_a_new_price_counts_after_a_minute(simulator: Simulator, hook: SmsVerifyHook) -> None:
    hook.order("temporary", service="WhatsApp", max_price="0.40")
    simulator.set_offer("temporary", 1012, price="0.41")

    eventually(
        lambda: rooms_of(hook).catalogue.quote(WHATSAPP).entry.price == Decimal("0.41"),
        "reading the list anew",
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


def test_a_list_that_cannot_be_read_is_not_kept(simulator: Simulator, hook: SmsVerifyHook) -> None:
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
    catalogue = rooms_of(offline).catalogue
    request = OrderRequest.check(product="rental", service="X", duration=3)
    read, kept = (catalogue.quote(request).entry for _ in range(2))
    assert read.as_dict() == kept.as_dict()
    assert (kept.price_of(3), kept.highest_price_of(3), kept.price_of(30)) == (
        Decimal("4.10"),
        Decimal("4.2"),
        Decimal(12),
    )
    assert requests_mock.call_count == 1


@pytest.mark.parametrize("name", [None, "gb_england", "India"])
def test_a_country_keeps_its_name_beside_another_field_called_name(
    name: str | None, offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    countries = [
        {"country_id": 4, "country_name": "United Kingdom", "name": name},
        {"country_id": 9, "country_name": "India", "name": "United Kingdom"},
    ]
    requests_mock.get(f"{URL}global/countries/", json={"countries": countries})
    found = [rooms_of(offline).catalogue.find_country(country) for country in ("United Kingdom", "India")]
    assert [(country.country_id, country.name) for country in found] == [
        (4, "United Kingdom"),
        (9, "India"),
    ]


@pytest.mark.parametrize("body", ['[{"country_id": 4, "name": null}]', "[7]", "{"])
def test_a_kept_list_that_cannot_be_read_is_an_error_of_the_store(
    body: str, offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    rows = [{"country_id": 4, "country_name": "United Kingdom"}]
    requests_mock.get(f"{URL}global/countries/", json={"countries": rows})
    catalogue = rooms_of(offline).catalogue
    catalogue.find_country(4)
    with store_of(offline).write() as connection:
        connection.execute(sa.update(catalogues).values(body=body))
    with pytest.raises(StoreError, match="nothing was sent"):
        catalogue.find_country(4)
