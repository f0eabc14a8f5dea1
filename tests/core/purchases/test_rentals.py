"""Rentals: how long each one lasts, and which are renewed, once for each period."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from requests_mock import Mocker
from rigs import in_a_day
from rigs.money import Clock

from smsverify import errors
from smsverify._store.store import Store
from smsverify.hook import SmsVerifyHook
from smsverify.reports import KeptRental, RentalsReport
from smsverify.simulator import Fault, Simulator
from smsverify.wings import RunContext

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]

HOUR = 3600.0
DAY = 24 * HOUR
KINDS: dict[str, dict[str, Any]] = {
    "day": {"product": "rent-1day", "service": "Tinder"},  # 1.20
    "month": {"product": "rent-30days", "service": "Instagram"},  # 12.00
    "three": {"product": "rental", "service": "WhatsApp", "duration": 3},  # 4.00
    "thirty": {"product": "rental", "service": "Telegram", "duration": 30},  # 10.50
}


@pytest.fixture
def service(simulate: Simulate) -> Simulator:
    """A service whose days are days, and which takes any number of requests."""
    return simulate(speed=1.0, rate_limit=None, balance="200", cancel_active="refund")


@pytest.fixture
def hook(service: Simulator, make_hook: MakeHook, store_url: str) -> SmsVerifyHook:
    return make_hook(service, store_url, rate_period=1.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def rent(hook: SmsVerifyHook, *kinds: str) -> list[int]:
    return [hook.order(**KINDS[kind]).order_id for kind in kinds]


def of(report: RentalsReport, order_id: int) -> KeptRental:
    (kept,) = [rental for rental in report.rentals if rental.order_id == order_id]
    return kept


def outcomes(report: RentalsReport) -> dict[int, str]:
    return {rental.order_id: rental.outcome for rental in report.rentals}


def renewals(service: Simulator) -> dict[int, int]:
    return {order.order_id: order.renewals for order in service.orders()}


def posts(service: Simulator) -> int:
    return sum(record.path.endswith("/renew/") for record in service.requests())


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
        assert abs((rental.expires_at - order.expires_at).total_seconds()) < 5
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
        assert abs((kept.expires_at - truth.expires_at).total_seconds()) < 5
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


def test_a_rental_is_kept_over_many_periods_with_one_renewal_in_each(
    service: Simulator, hook: SmsVerifyHook, clock: Clock
) -> None:
    """By runs that come every four hours, whatever kind it is."""
    service.set_balance("1000")
    ids = rent(hook, "day", "three")
    ends = {order_id: [service.order(order_id).expires_at.timestamp()] for order_id in ids}
    while clock.now() < ends[ids[1]][0] + 6 * DAY:
        clock.pass_by(4 * HOUR)
        for kept in hook.renew_expiring(6 * HOUR, max_price="4").rentals:
            if kept.outcome == "renewed":
                due = ends[kept.order_id][-1]
                assert due - 6 * HOUR - 5 <= clock.now() < due
                ends[kept.order_id].append(service.order(kept.order_id).expires_at.timestamp())
    assert {order.status for order in service.orders()} <= {"pending", "active"}
    assert (len(ends[ids[0]]) - 1, len(ends[ids[1]]) - 1) == (9, 3)


def test_a_lost_answer_that_is_resolved_in_the_next_period_leaves_no_gap(
    service: Simulator, hook: SmsVerifyHook, clock: Clock
) -> None:
    """What is found to be made then was made for the period before."""
    (day,) = rent(hook, "day")
    service.add_fault(Fault("lost_answer", "order/*/renew/"))
    service.add_fault(Fault("error_before", "order/*/status/", after=1, times=None))
    assert of(hook.renew_expiring(2 * DAY), day).outcome == "unknown"
    service.clear_faults()
    clock.pass_by(1.9 * DAY)
    assert of(hook.renew_expiring(4 * HOUR), day).outcome == "renewed"
    assert renewals(service) == {day: 2}


def test_looking_takes_nothing_from_a_renewal_that_is_tried_again(
    service: Simulator, hook: SmsVerifyHook
) -> None:
    """It resolves what is open, and a caller that has lost the answer still gets it."""
    (day,) = rent(hook, "day")
    service.add_fault(Fault("lost_answer", "order/*/renew/"))
    service.add_fault(Fault("error_before", "order/*/status/", after=1, times=None))
    with pytest.raises(errors.PurchaseUnknownError):
        hook.renew(day)
    service.clear_faults()
    assert [rental.renewals for rental in hook.rentals()] == [1]
    hook.renew_expiring(2 * DAY)
    hook.renew(day)
    assert renewals(service) == {day: 1}


@pytest.mark.parametrize("kind", ["day", "three"])
def test_no_more_than_one_period_is_paid_ahead(
    kind: str, service: Simulator, hook: SmsVerifyHook, clock: Clock
) -> None:
    """Also where a rental ends within the time that is given however often it is renewed."""
    (order_id,) = rent(hook, kind)
    period = (1 if kind == "day" else 3) * DAY
    for renewed in (1, 2):
        for _ in range(3):
            hook.renew_expiring(60 * DAY)
            assert renewals(service) == {order_id: renewed}
        clock.pass_by(period + 60)


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


def test_a_decision_that_was_overtaken_renews_nothing(
    service: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its look and its renewal another run has renewed."""
    day, three = rent(hook, "day", "three")
    renew = type(hook._parts.rentals)._renew

    def late(*arguments: Any) -> Any:
        monkeypatch.undo()
        hook.renew_expiring(4 * DAY)
        return renew(*arguments)

    monkeypatch.setattr(type(hook._parts.rentals), "_renew", late)
    report = hook.renew_expiring(4 * DAY)
    assert set(outcomes(report).values()) == {"not_due"}
    assert {kept.reason for kept in report.rentals} == {"it was renewed by another call"}
    assert renewals(service) == {day: 1, three: 1}


@pytest.mark.parametrize("left", [{"time_left_seconds": 3600}, {"days_left": 1}, {"expiry_date": "soon"}])
def test_a_renewal_that_does_not_show_is_not_paid_again(
    left: dict[str, Any],
    requests_mock: Mocker,
    make_hook: MakeHook,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "expiry_date" in left:
        left = {"expiry_date": (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat()}
    url = "http://127.0.0.1:9/api/v1"
    requests_mock.get(f"{url}/balance/", json={"balance": 50})
    begun = time.monotonic()

    def status(*_: Any) -> dict[str, Any]:
        shown = {"order_id": 7, "status": "active", **left}
        if "time_left_seconds" in left:  # which shrinks, however slow this machine is
            shown["time_left_seconds"] = 3600 - (time.monotonic() - begun)
        return shown

    requests_mock.get(f"{url}/order/7/status/", json=status)
    renew = requests_mock.post(f"{url}/order/7/renew/", json={"order_id": 7, "status": "active"})
    found = [
        of(make_hook("http://127.0.0.1:9", store_url, purchase_grace=grace).renew_expiring(7200, only=7), 7)
        for grace in (60, 60)
    ]
    right = Store.now
    monkeypatch.setattr(Store, "now", lambda self, connection: right(self, connection) + 61)
    found += [
        of(make_hook("http://127.0.0.1:9", store_url, purchase_grace=60).renew_expiring(7200, only=7), 7)
    ]
    last = "not_due" if "days_left" in left else "unconfirmed"
    assert [kept.outcome for kept in found] == ["renewed", "not_due", last]
    assert renew.call_count == 1


def test_a_rental_whose_time_the_service_has_shortened_is_renewed_again_in_the_period_after(
    service: Simulator, make_hook: MakeHook, store_url: str, clock: Clock
) -> None:
    """A person hears of it at once: two periods are paid, and who pays a third one has to say so."""
    hook = make_hook(service, store_url, rate_period=1.0, purchase_grace=1)
    (day,) = rent(hook, "day")
    service.set_time_left(day, HOUR)
    assert of(hook.renew_expiring(2 * HOUR), day).outcome == "renewed"
    clock.pass_by(2)
    service.set_time_left(day, HOUR)
    assert of(hook.renew_expiring(2 * HOUR), day).outcome == "unconfirmed"
    assert renewals(service) == {day: 1}
    service.set_time_left(day, DAY + HOUR)
    clock.pass_by(DAY)
    assert of(hook.renew_expiring(2 * HOUR), day).outcome == "renewed"
    assert renewals(service) == {day: 2}


STUCK: list[tuple[str, dict[str, Any], float]] = [
    ("month", {"days_left": 1}, 60.0),
    ("month", {"days_left": 1}, 1.0),
    ("month", {"time_left_seconds": 3000}, 1.0),
    ("day", {"days_left": 0}, 1.0),
    ("day", {"time_left_seconds": 3000}, 60.0),
]


@pytest.mark.parametrize(("kind", "shown", "period"), STUCK, ids=str)
def test_a_time_left_that_is_stuck_is_paid_once_for_each_period(
    kind: str,
    shown: dict[str, Any],
    period: float,
    service: Simulator,
    make_hook: MakeHook,
    store_url: str,
    clock: Clock,
    requests_mock: Mocker,
) -> None:
    requests_mock.real_http = True  # type: ignore[attr-defined]
    hook = make_hook(service, store_url, rate_limit=1000, rate_period=period)
    (order_id,) = rent(hook, kind)
    path = f"{service.url}/api/v1/order/{order_id}/status/"
    requests_mock.register_uri("GET", path, json={"order_id": order_id, "status": "active", **shown})
    found = Counter[str]()
    for _ in range(24):
        found[of(hook.renew_expiring(4 * HOUR), order_id).outcome] += 1
        clock.pass_by(3 * HOUR)
    # Bought for one period, one paid ahead, and one for each that has begun since.
    assert found["renewed"] == renewals(service)[order_id] == (1 if kind == "month" else 3)
    assert kind == "day" or found["unconfirmed"] >= 16, "it is not reported"


def test_a_rental_that_was_rented_elsewhere_is_paid_once_for_each_period_of_the_longest_kind(
    requests_mock: Mocker, make_hook: MakeHook, store_url: str, clock: Clock
) -> None:
    """Its length is unknown, until its renewal shows it."""
    url = "http://127.0.0.1:9/api/v1"
    left = {"time_left_seconds": 3000.0}
    requests_mock.get(f"{url}/balance/", json={"balance": 500})
    requests_mock.get(f"{url}/order/7/status/", json=lambda *_: {"order_id": 7, "status": "active", **left})
    answer = {"order_id": 7, "status": "active"}
    renew = requests_mock.post(f"{url}/order/7/renew/", json=answer)
    hook = make_hook("http://127.0.0.1:9", store_url, rate_limit=1000)
    for _ in range(36):
        hook.renew_expiring(4 * HOUR, only=7)
        clock.pass_by(2 * HOUR)
    assert renew.call_count == 1
    hook = make_hook("http://127.0.0.1:9", store_url, rate_limit=1000, account="another")

    def extend(*_: Any) -> dict[str, Any]:
        left["time_left_seconds"] += DAY
        return answer

    renew = requests_mock.post(f"{url}/order/7/renew/", json=extend)
    for _ in range(36):
        hook.renew_expiring(4 * HOUR, only=7)
        clock.pass_by(2 * HOUR)
        left["time_left_seconds"] -= 2 * HOUR
        assert left["time_left_seconds"] > -2 * HOUR, "it has ended"
    assert renew.call_count == 4


def test_the_short_days_of_a_fast_service_are_kept_one_by_one(
    simulate: Simulate, make_hook: MakeHook, store_url: str, clock: Clock
) -> None:
    """A service whose minute lasts a second, and whose rentals of any kind last 80."""
    products = {name: {"validity": 80 * 60} for name in ("rental", "rent-1day", "rent-30days")}
    service = simulate(speed=60.0, rate_limit=None, balance="2000", products=products)
    hook = make_hook(service, store_url, rate_period=1.0)
    ids = rent(hook, *KINDS)
    for _ in range(30):
        clock.pass_by(15)
        hook.renew_expiring(65)
    assert {order.status for order in service.orders()} <= {"pending", "active"}
    assert set(renewals(service)) == set(ids)
    assert set(renewals(service).values()) <= {5, 6, 7}  # in 450 seconds


def test_a_calendar_that_is_set_lets_no_more_be_paid_than_one_period_ahead(
    service: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    (thirty,) = rent(hook, "thirty")
    wall = Store.wall
    for days in (29.9, 59.9, 89.9, -400, 29.9):
        ahead = days * DAY
        with monkeypatch.context() as patched:
            patched.setattr(
                Store, "wall", lambda self, connection, ahead=ahead: wall(self, connection) + ahead
            )
            hook.renew_expiring(4 * HOUR)
    assert renewals(service) == {thirty: 1}


def test_who_renews_by_hand_pays_for_as_long_as_they_want_and_is_warned(
    service: Simulator, hook: SmsVerifyHook, caplog: pytest.LogCaptureFixture
) -> None:
    (month,) = rent(hook, "month")
    hook.renew(month)
    assert "one period ahead" not in caplog.text
    hook.renew(month, key="a long holiday")
    assert "one period ahead" in caplog.text
    assert renewals(service) == {month: 2}
    assert of(hook.renew_expiring(90 * DAY), month).outcome == "not_due"


def test_a_rental_whose_renewal_is_unknown_is_not_given_up(
    service: Simulator, hook: SmsVerifyHook, clock: Clock
) -> None:
    """Its end on record may be over, and a person may still say that it goes on."""
    (three,) = rent(hook, "three")
    service.add_fault(Fault("lost_answer", "order/*/renew/"))
    for seconds in (0, 4 * DAY):
        clock.pass_by(seconds)
        service.set_balance("99")  # so that the wallet does not decide
        assert of(hook.renew_expiring(4 * DAY), three).outcome == "unknown"
    hook.resolve(f"renew:{three}:0", order_id=three)
    kept = of(hook.renew_expiring(4 * DAY), three)
    assert (kept.outcome, kept.expires_estimated) == ("renewed", True)
    assert renewals(service) == {three: 2}


def test_a_rental_that_shows_days_only_is_kept_without_a_gap(
    simulate: Simulate, make_hook: MakeHook, store_url: str, clock: Clock
) -> None:
    service = simulate(speed=1.0, rate_limit=None, time_left_fields=["days_left"])
    hook = make_hook(service, store_url, rate_period=1.0)
    day, month = rent(hook, "day", "month")
    for _ in range(5 * 8):
        hook.renew_expiring(4 * HOUR)
        clock.pass_by(3 * HOUR)
    assert service.order(day).status == "active"
    assert renewals(service)[day] in (5, 6)
    assert renewals(service)[month] == 0


def test_no_more_than_one_period_is_paid_ahead_where_only_days_are_shown(
    simulate: Simulate, make_hook: MakeHook, store_url: str, clock: Clock
) -> None:
    service = simulate(speed=1.0, rate_limit=None, balance="200", time_left_fields=["days_left"])
    hook = make_hook(service, store_url, rate_period=1.0)
    (month,) = rent(hook, "month")
    for _ in range(5):
        hook.renew_expiring(90 * DAY)
        clock.pass_by(1.1 * DAY)
    assert renewals(service) == {month: 1}


def test_a_renewal_of_thirty_days_that_does_not_show_in_days_is_not_paid_again(
    requests_mock: Mocker, service: Simulator, hook: SmsVerifyHook, clock: Clock
) -> None:
    requests_mock.real_http = True  # type: ignore[attr-defined]
    (month,) = rent(hook, "month")
    shown = {"order_id": month, "status": "active", "days_left": 1}
    requests_mock.register_uri("GET", f"{service.url}/api/v1/order/{month}/status/", json=shown)
    found = []
    for _ in range(2):
        found.append(of(hook.renew_expiring(4 * HOUR), month).outcome)
        clock.pass_by(0.95 * DAY)
    assert found == ["renewed", "unconfirmed"]
    assert renewals(service) == {month: 1}


def test_no_whole_day_left_does_not_end_a_rental(
    requests_mock: Mocker, service: Simulator, hook: SmsVerifyHook
) -> None:
    """Of a rental for one day, whole days that are rounded down are none from the beginning."""
    requests_mock.real_http = True  # type: ignore[attr-defined]
    (day,) = rent(hook, "day")
    shown = {"order_id": day, "status": "active", "days_left": 0}
    requests_mock.register_uri("GET", f"{service.url}/api/v1/order/{day}/status/", json=shown)
    assert of(hook.renew_expiring(4 * HOUR), day).outcome == "renewed"
    assert of(hook.renew_expiring(4 * HOUR), day).outcome == "not_due"
    assert renewals(service) == {day: 1}


def test_a_rental_that_has_a_code_and_an_unknown_end_is_named(
    service: Simulator, hook: SmsVerifyHook, requests_mock: Mocker
) -> None:
    """Its purchase was found in the list, which shows no end."""
    requests_mock.real_http = True  # type: ignore[attr-defined]
    service.add_fault(Fault("lost_answer", "order/rental/"))
    (three,) = rent(hook, "three")
    shown = {"order_id": three, "status": "completed", "otp": "123456"}
    requests_mock.register_uri("GET", f"{service.url}/api/v1/order/{three}/status/", json=shown)
    for _ in range(2):
        assert of(hook.renew_expiring(4 * DAY), three).outcome == "expiry_unknown"


def test_a_status_that_shows_a_renewal_later_does_not_end_the_rental(
    requests_mock: Mocker, service: Simulator, hook: SmsVerifyHook, clock: Clock
) -> None:
    """A `rental` whose status shows its end, unlike the documentation says."""
    requests_mock.real_http = True  # type: ignore[attr-defined]
    (three,) = rent(hook, "three")
    ends = service.order(three).expires_at
    shown = [ends]

    def status(*_: Any) -> dict[str, Any]:
        left = shown[-1].timestamp() - clock.now()
        return {"order_id": three, "status": "active", "time_left_seconds": left}

    requests_mock.register_uri("GET", f"{service.url}/api/v1/order/{three}/status/", json=status)
    assert of(hook.renew_expiring(4 * DAY), three).outcome == "renewed"
    shown.append(service.order(three).expires_at)
    clock.pass_by(3.1 * DAY)
    kept = of(hook.renew_expiring(4 * HOUR), three)
    assert (kept.outcome, kept.expires_at is not None and kept.expires_at > ends) == ("not_due", True)
    clock.pass_by(2.8 * DAY)
    assert of(hook.renew_expiring(4 * HOUR), three).outcome == "renewed"
    assert renewals(service) == {three: 2}


def test_an_end_that_a_renewal_answers_is_no_estimate(
    requests_mock: Mocker, service: Simulator, hook: SmsVerifyHook
) -> None:
    requests_mock.real_http = True  # type: ignore[attr-defined]
    (three,) = rent(hook, "three")
    end = service.order(three).expires_at + timedelta(days=3, hours=5)
    answer = {"order_id": three, "status": "active", "expiry_date": end.isoformat()}
    requests_mock.register_uri("POST", f"{service.url}/api/v1/order/{three}/renew/", json={"data": answer})
    kept = of(hook.renew_expiring(4 * DAY), three)
    assert (kept.outcome, kept.expires_at, kept.expires_estimated) == ("renewed", end, False)


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


def test_a_code_does_not_end_a_rental(simulate: Simulate, make_hook: MakeHook, store_url: str) -> None:
    products = {name: {"sms_status": "completed"} for name in ("rental", "rent-1day")}
    service = simulate(speed=1.0, rate_limit=None, products=products)
    hook = make_hook(service, store_url, rate_period=1.0)
    day, three = rent(hook, "day", "three")
    for order_id in (day, three):
        service.deliver_sms(order_id, otp="123456")
        hook.get_status(order_id)
    assert [rental.order_id for rental in hook.rentals()] == [day, three]
    # Whether it can be renewed, the service decides.
    assert set(outcomes(hook.renew_expiring(4 * DAY)).values()) == {"refused"}


def test_an_estimated_end_does_not_end_a_rental(
    service: Simulator, hook: SmsVerifyHook, clock: Clock
) -> None:
    (three,) = rent(hook, "three")
    hook.renew(three)
    clock.pass_by(6 * DAY - 60)
    service.set_time_left(three, 2 * HOUR)
    clock.pass_by(120)
    assert of(hook.renew_expiring(HOUR), three).outcome == "renewed"
    clock.pass_by(3 * DAY + 3 * HOUR)
    assert of(hook.renew_expiring(HOUR), three).outcome == "expired"
    assert hook.rentals() == []


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
