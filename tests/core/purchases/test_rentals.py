"""Rentals: how long each one lasts, and which are renewed, once for each period."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from requests_mock import Mocker
from rigs import in_a_day
from rigs.money import Clock
from rigs.rentals import DAY, HOUR, of, outcomes, posts, renewals, rent

from smsverify import errors
from smsverify._service.endpoints import ServiceApi
from smsverify.hook import SmsVerifyHook
from smsverify.models import OrderStatus
from smsverify.reports import RentalsReport
from smsverify.simulator import Fault, Simulator
from smsverify.wings import RunContext

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]


@pytest.fixture
def hook(service: Simulator, make_hook: MakeHook, store_url: str) -> SmsVerifyHook:
    return make_hook(service, store_url, rate_period=1.0)


# ------------------------------------------------------------------ looking


def test_rentals_are_listed_with_price_and_end_the_soonest_first(
    service: Simulator, hook: SmsVerifyHook
) -> None:
    month, thirty, day, three = rent(hook, "month", "thirty", "day", "three")
    hook.order("temporary", service="WhatsApp")
    hook.order("esim", plan="USA 1GB / 7 days")
    (cancelled,) = rent(hook, "day")
    hook.cancel(cancelled)
    before = service.stats().by_endpoint
    rentals = hook.rentals()
    new = Counter(service.stats().by_endpoint) - Counter(before)
    # The two whose status shows the time left; a catalogue that is known from the purchase is not read again.
    assert new.pop("GET order/{id}/status/") == 2
    assert max(new.values(), default=0) <= 1
    assert sum(new.values()) <= 3
    assert [rental.order_id for rental in rentals][:2] == [day, three]
    assert {rental.order_id for rental in rentals[2:]} == {month, thirty}
    for rental in rentals:
        order = service.order(rental.order_id)
        assert rental.expires_at is not None
        assert rental.time_left_seconds is not None
        assert abs((rental.expires_at - order.expires_at).total_seconds()) < 60
        assert rental.price == order.price
        assert (rental.product, rental.service, rental.phone) == (order.product, order.service, order.phone)
        assert (rental.duration, rental.expires_estimated, rental.renewals) == (order.duration, False, 0)
    assert json.loads(json.dumps(rentals[0].as_dict()))["order_id"] == day


def test_the_price_is_the_current_one_and_the_catalogue_is_read_once(
    service: Simulator, hook: SmsVerifyHook, clock: Clock
) -> None:
    rent(hook, "day", "day", "day")
    service.set_offer("rent-1day", 4421, price="1.90")
    clock.pass_by(2)
    before = service.stats().by_endpoint["GET services/rent-1day/"]
    assert {rental.price for rental in hook.rentals()} == {Decimal("1.90")}
    assert service.stats().by_endpoint["GET services/rent-1day/"] == before + 1


def test_a_service_that_was_bought_by_its_id_has_its_price_where_two_have_its_name(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    catalogue = {
        "rent-1day": [
            {"service_id": 1, "name": "Tinder", "price": "1.10"},
            {"service_id": 2, "name": "Tinder", "price": "2.20"},
        ]
    }
    service = simulate(speed=1.0, rate_limit=None, catalogue=catalogue)
    hook = make_hook(service, store_url, rate_period=1.0)
    hook.order("rent-1day", service=2)
    assert [rental.price for rental in hook.rentals()] == [Decimal("2.20")]
    assert [kept.cost for kept in hook.renew_expiring(2 * DAY, max_price="2.20").rentals] == [Decimal("2.20")]


def test_rentals_that_were_rented_elsewhere_are_named(
    service: Simulator, hook: SmsVerifyHook, make_hook: MakeHook, store_url: str
) -> None:
    elsewhere = make_hook(service, store_url.replace("store.db", "other.db"), rate_period=1.0)
    day, three = rent(elsewhere, "day", "three")
    assert hook.rentals() == []
    known = {rental.order_id: rental for rental in hook.rentals(f"{day}, {three}")}
    assert known[day].expires_at is not None
    assert (known[three].expires_at, known[three].time_left_seconds) == (None, None)
    assert {rental.price for rental in known.values()} == {None}
    assert "does not say" in str(known[three].note)
    assert [rental.order_id for rental in hook.rentals(day)] == [day]
    report = hook.renew_expiring(2 * DAY, max_price="10", only=[day, three])
    assert outcomes(report) == {day: "price_unknown", three: "expiry_unknown"}
    report = hook.renew_expiring(2 * DAY, order_ids=day)
    assert (report.unpriced, of(report, day).cost) == (1, None)
    assert renewals(service) == {day: 1, three: 0}


def test_what_is_no_rental_and_what_is_no_id_is_refused(service: Simulator, hook: SmsVerifyHook) -> None:
    number = hook.order("temporary", service="WhatsApp").order_id
    before = service.stats().requests
    bad: list[tuple[str, Callable[[], Any]]] = [
        ("order_id", lambda: hook.rentals([number])),
        ("order_ids", lambda: hook.rentals("7, seven")),
        ("within", lambda: hook.renew_expiring("soon")),
        ("within", lambda: hook.renew_expiring(-1)),
        ("max_price", lambda: hook.renew_expiring(60, max_price="much")),
        ("run_budget", lambda: hook.renew_expiring(60, run_budget=-1)),
        ("only", lambda: hook.renew_expiring(60, only=[0])),
        ("exclude", lambda: hook.renew_expiring(60, exclude=1.5)),  # type: ignore[arg-type]
    ]
    for field, call in bad:
        with pytest.raises(errors.InvalidRequestError) as caught:
            call()
        assert caught.value.field == field
    assert service.stats().requests == before


# ------------------------------------------------------------------ renewing


def test_what_is_due_is_renewed_once_and_the_rest_is_left_alone(
    service: Simulator, hook: SmsVerifyHook
) -> None:
    day, month, three, thirty = rent(hook, "day", "month", "three", "thirty")
    report = hook.renew_expiring(timedelta(days=4), max_price=5)
    assert outcomes(report) == {day: "renewed", three: "renewed", month: "not_due", thirty: "not_due"}
    assert (report.failed, report.findings, report.unpriced) == ([], [], 0)
    assert report.cost == Decimal("5.20")
    assert report.balance == service.balance()
    assert report.next_cost == Decimal("27.70")
    assert report.lasts
    for order_id in (day, three):
        kept, truth = of(report, order_id), service.order(order_id)
        assert kept.expires_at is not None
        assert kept.expires_before is not None
        assert abs((kept.expires_at - truth.expires_at).total_seconds()) < 60
        assert kept.expires_at - kept.expires_before > timedelta(hours=23)
        assert kept.expires_estimated == (order_id == three)
        assert kept.cost == kept.price == truth.price
    report.raise_if_failed()
    again = hook.renew_expiring(1.5 * DAY)
    assert set(outcomes(again).values()) == {"not_due"}
    assert renewals(service) == {day: 1, month: 0, three: 1, thirty: 0}
    shown = json.loads(json.dumps(report.as_dict()))
    assert (Decimal(shown["cost"]), shown["rentals"][0]["outcome"]) == (Decimal("5.20"), "renewed")
    assert (shown["lasts"], shown["findings"]) == (True, [])
    assert "2 renewed, 2 not_due; that cost 5.20 USD" in report.as_text()


@pytest.mark.slow
def test_only_and_exclude_leave_the_others_alone(service: Simulator, hook: SmsVerifyHook) -> None:
    first, second, third = rent(hook, "day", "day", "three")
    report = hook.renew_expiring(5 * DAY, only=[first, second], exclude=str(second))
    assert outcomes(report) == {first: "renewed", second: "excluded", third: "excluded"}
    assert report.next_cost == Decimal("1.20")
    assert renewals(service) == {first: 1, second: 0, third: 0}
    assert service.order(second).status_requests == 0


def test_a_dry_run_reports_the_same_and_pays_nothing(service: Simulator, hook: SmsVerifyHook) -> None:
    kinds = ("day", "day", "three", "month", "thirty")
    rent(hook, *kinds)
    service.set_balance("16")
    frugal = in_a_day(hook, hook.reconcile().spent_today + Decimal("12"))
    dry = frugal.renew_expiring(40 * DAY, max_price="11", dry_run=True)
    assert posts(service) == 0
    wet = frugal.renew_expiring(40 * DAY, max_price="11")
    would = {order_id: word.replace("would_renew", "renewed") for order_id, word in outcomes(dry).items()}
    assert would == outcomes(wet)
    assert (dry.dry_run, dry.cost, dry.next_cost) == (True, wet.cost, wet.next_cost)
    assert (dry.balance, wet.balance) == (Decimal("16.00"), Decimal("16.00") - wet.cost)
    assert sorted(outcomes(wet).values()) == [
        *("budget_reached", "renewed", "renewed", "renewed", "too_expensive")
    ]


def test_a_wallet_that_is_too_small_keeps_what_it_can(service: Simulator, hook: SmsVerifyHook) -> None:
    day, three, month = rent(hook, "day", "three", "month")
    service.set_time_left(month, HOUR)
    service.set_balance("5.20")
    before = service.stats().by_endpoint.get("GET balance/", 0)
    report = hook.renew_expiring(4 * DAY)
    assert service.stats().by_endpoint["GET balance/"] == before + 1
    assert outcomes(report) == {month: "insufficient_balance", day: "renewed", three: "renewed"}
    assert report.rentals[0].order_id == month
    assert (report.balance, report.lasts) == (Decimal("0.00"), False)
    assert posts(service) == 2
    with pytest.raises(errors.FindingsError, match=f"rental {month} .*insufficient_balance") as caught:
        report.raise_if_failed()
    assert caught.value.report is report


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_price_that_rises_while_a_renewal_waits_is_what_was_paid(
    is_lost: bool, service: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    three, thirty = rent(hook, "three", "thirty")
    service.set_balance("15.00")  # for both at their prices before
    if is_lost:
        service.add_fault(Fault("lost_answer", f"order/{three}/renew/"))
    renew = ServiceApi.post_renewal

    def renew_late(self: ServiceApi, order_id: int, **options: Any) -> OrderStatus:
        service.set_offer("rental", "WhatsApp", price_3days="5.00")
        time.sleep(0.5)  # until the list of prices is too old
        return renew(self, order_id, **options)

    monkeypatch.setattr(ServiceApi, "post_renewal", renew_late)
    report = hook.renew_expiring(40 * DAY, max_price="12")
    assert outcomes(report) == {three: "unknown" if is_lost else "renewed", thirty: "insufficient_balance"}
    assert posts(service) == 1
    if not is_lost:
        assert (report.cost, of(report, three).price) == (Decimal("5.00"), Decimal("5.00"))
        assert report.balance == service.balance()


@pytest.mark.slow
def test_each_failure_has_a_name_and_stops_no_other(
    service: Simulator, hook: SmsVerifyHook, clock: Clock
) -> None:
    names = ["402", "refused", "lost", "unanswered", "expired", "lost_day", "well", "well_too"]
    kinds = ["day", "day", "three", "day", "day", "day", "day", "three"]
    ids = dict(zip(names, rent(hook, *kinds), strict=True))
    clock.pass_by(2 * HOUR)
    paths = {name: f"order/{order_id}/renew/" for name, order_id in ids.items()}
    service.add_fault(
        Fault("out_of_stock", paths["402"], status=402, body='{"error": "Insufficient balance"}')
    )
    service.add_fault(Fault("out_of_stock", paths["refused"], body='{"error": "Order cannot be renewed"}'))
    service.add_fault(Fault("lost_answer", paths["lost"]))
    service.add_fault(Fault("error_before", f"order/{ids['unanswered']}/status/", times=None))
    service.add_fault(Fault("error_after", paths["lost_day"]))
    service.set_time_left(ids["expired"], 0)
    report = hook.renew_expiring(4 * DAY)
    found = outcomes(report)
    assert {name: found[order_id] for name, order_id in ids.items()} == {
        "402": "insufficient_balance",
        "refused": "refused",
        "lost": "unknown",
        "unanswered": "failed",
        "expired": "expired",
        "lost_day": "renewed",  # its time left shows it
        "well": "renewed",
        "well_too": "renewed",
    }
    assert all(kept.reason for kept in report.failed)
    assert report.cost == Decimal("6.40")
    # What may pass has passed, and is made good; what is unknown stays so.
    service.clear_faults()
    clock.pass_by(60)
    found = outcomes(hook.renew_expiring(20 * HOUR + 4 * HOUR))
    assert found[ids["402"]] == found[ids["refused"]] == found[ids["unanswered"]]
    assert found[ids["402"]] == "renewed"
    assert (found[ids["lost"]], found[ids["expired"]]) == ("unknown", "expired")
    assert found[ids["lost_day"]] == found[ids["well"]] == found[ids["well_too"]] == "not_due"
    truth = renewals(service)
    assert {name: truth[order_id] for name, order_id in ids.items()} == {
        **dict.fromkeys(names, 1),
        "expired": 0,
    }
    # A person decides. The end of one that has long ended is no news any more.
    key = f"renew:{ids['lost']}:0"
    hook.resolve(key, order_id=ids["lost"])
    clock.pass_by(1.1 * DAY)
    report = hook.renew_expiring(HOUR)
    assert of(report, ids["lost"]).expires_estimated
    assert of(report, ids["lost"]).outcome == "not_due"
    assert ids["expired"] not in outcomes(report)


@pytest.mark.parametrize("kind", ["day", "three"])
def test_runs_at_the_same_time_renew_once(
    kind: str, simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    """Also of deployments that share the store, and have keys of their own."""
    service = simulate(speed=1.0, rate_limit=None)
    hooks = [
        make_hook(service, any_store_url, rate_period=1.0, namespace=name) for name in ("", "", "b", "c")
    ]
    ids = rent(hooks[0], kind, kind)
    service.add_fault(Fault("slow_after", path="order/*/renew/", seconds=0.3, times=None))
    reports: list[RentalsReport] = []
    threads = [
        threading.Thread(target=lambda hook=hook: reports.append(hook.renew_expiring(4 * DAY)))
        for hook in hooks
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert renewals(service) == dict.fromkeys(ids, 1)
    for order_id in ids:
        assert sorted(outcomes(report)[order_id] for report in reports) == [*["not_due"] * 3, "renewed"]
    assert sum(report.cost for report in reports) == 50 - service.balance() - sum(
        order.price for order in service.orders()
    )


def test_a_refused_look_at_an_open_renewal_stops_no_other(
    service: Simulator, hook: SmsVerifyHook, clock: Clock
) -> None:
    first, second = rent(hook, "day", "day")
    service.add_fault(Fault("lost_answer", f"order/{first}/renew/"))
    service.add_fault(Fault("error_before", f"order/{first}/status/", after=1, times=None))
    assert outcomes(hook.renew_expiring(2 * DAY)) == {first: "unknown", second: "renewed"}
    service.clear_faults()
    body = '{"order_id": ["Is not known here."]}'
    fault = Fault("out_of_stock", f"order/{first}/status/", status=400, body=body, times=None)
    service.add_fault(fault)
    clock.pass_by(1.5 * DAY)
    found = outcomes(hook.renew_expiring(2 * DAY))
    assert found[second] == "renewed"
    assert found[first] != "renewed"


def test_what_is_to_be_cancelled_is_not_renewed(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    service = simulate(speed=1.0, rate_limit=None)
    hook = make_hook(service, store_url, rate_period=1.0)
    (three,) = rent(hook, "three")
    with pytest.raises(errors.NotCancellableError):
        hook.cancel(three)
    kept = of(hook.renew_expiring(4 * DAY), three)
    assert (kept.outcome, posts(service)) == ("excluded", 0)
    assert "to be cancelled" in str(kept.reason)


def test_a_refused_key_ends_it(service: Simulator, hook: SmsVerifyHook) -> None:
    first, second = rent(hook, "day", "day")
    service.add_fault(Fault("unauthorized", "balance/"))
    with pytest.raises(errors.AuthenticationError):
        hook.renew_expiring(2 * DAY)
    service.add_fault(Fault("unauthorized", "order/*/renew/"))
    report = hook.renew_expiring(2 * DAY)
    assert outcomes(report) == {first: "failed", second: "failed"}
    assert posts(service) == 1
    assert sorted("not tried" in str(kept.reason) for kept in report.rentals) == [False, True]


def test_a_run_that_is_stopped_says_so(service: Simulator, hook: SmsVerifyHook) -> None:
    rent(hook, "day", "three", "month")
    stop = threading.Event()
    stop.set()
    report = hook.renew_expiring(40 * DAY, stop=stop)
    assert set(outcomes(report).values()) == {"stopped"}
    assert posts(service) == 0


def test_a_balance_that_cannot_be_read_keeps_nothing_from_being_renewed(
    service: Simulator, hook: SmsVerifyHook
) -> None:
    (day,) = rent(hook, "day")
    service.add_fault(Fault("html", "balance/", times=None))
    report = hook.renew_expiring(2 * DAY)
    assert (of(report, day).outcome, report.balance, report.lasts) == ("renewed", None, False)


def test_nothing_is_renewed_with_a_store_that_others_do_not_see(
    service: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    rent(hook, "day")
    monkeypatch.setattr(RunContext, "why_unshared", lambda self: "tasks run on other machines")
    with pytest.raises(errors.StoreError, match="PostgreSQL"):
        hook.renew_expiring(2 * DAY)
    assert posts(service) == 0
    assert set(outcomes(hook.renew_expiring(2 * DAY, dry_run=True)).values()) == {"would_renew"}


def test_the_larger_of_two_prices_counts_against_the_limit(
    requests_mock: Mocker, service: Simulator, hook: SmsVerifyHook, clock: Clock
) -> None:
    requests_mock.real_http = True  # type: ignore[attr-defined]
    requests_mock.register_uri(
        "GET",
        f"{service.url}/api/v1/services/rent-1day/",
        json={
            "success": True,
            "data": {"services": [{"service_id": 4421, "name": "Tinder", "price": 2.5, "sell_price": 1.2}]},
        },
    )
    (day,) = rent(hook, "day")
    assert of(hook.renew_expiring(2 * DAY, max_price=2), day).outcome == "too_expensive"
    spent = hook.reconcile().spent_today
    assert of(in_a_day(hook, spent + 2).renew_expiring(2 * DAY), day).outcome == "budget_reached"
    kept = of(hook.renew_expiring(2 * DAY, max_price="2.5"), day)
    assert (kept.outcome, kept.price) == ("renewed", Decimal("1.2"))
