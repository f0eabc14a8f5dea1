"""Rentals over time: each period is paid once, and their end is what the records and the service say."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from requests_mock import Mocker
from rigs.money import Clock
from rigs.rentals import DAY, HOUR, KINDS, of, outcomes, renewals, rent

from smsverify import errors
from smsverify._purchases.rentals import Rentals
from smsverify._store.store import Store
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Fault, Simulator

pytestmark = pytest.mark.slow

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]


@pytest.fixture
def hook(service: Simulator, make_hook: MakeHook, store_url: str) -> SmsVerifyHook:
    return make_hook(service, store_url, rate_period=1.0)


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


@pytest.mark.parametrize(("first", "then"), [(None, None), ("monday", "tuesday")])
def test_a_lost_answer_that_is_found_in_the_next_period_does_not_stand_for_the_renewal_asked_for_then(
    first: str | None, then: str | None, service: Simulator, hook: SmsVerifyHook, clock: Clock
) -> None:
    (day,) = rent(hook, "day")
    clock.pass_by(23.5 * HOUR)
    service.add_fault(Fault("lost_answer", "order/*/renew/"))
    service.add_fault(Fault("error_before", "order/*/status/", after=1, times=None))
    with pytest.raises(errors.PurchaseUnknownError) as caught:
        hook.renew(day, key=first)
    service.clear_faults()
    clock.pass_by(DAY)
    hook.renew(day, key=then)
    hook.renew(day, key=caught.value.key)
    assert renewals(service) == {day: 2}


@pytest.mark.parametrize("after", [2.5 * DAY, DAY - 30], ids=["over", "over soon"])
def test_a_renewal_that_is_asked_for_again_is_paid_once_though_the_period_before_it_is_over(
    after: float, service: Simulator, make_hook: MakeHook, store_url: str, clock: Clock
) -> None:
    hook, elsewhere = (make_hook(service, url, rate_period=1.0) for url in (store_url, f"{store_url}.other"))
    (day,) = rent(hook, "day")
    for _ in range(3):
        elsewhere.renew(day)
    clock.pass_by(after)
    service.add_fault(Fault("lost_answer", "order/*/renew/"))
    service.add_fault(Fault("error_before", "order/*/status/", after=1, times=None))
    with pytest.raises(errors.PurchaseUnknownError):
        hook.renew(day)
    service.clear_faults()
    clock.pass_by(60)
    hook.renew(day)
    assert renewals(service) == {day: 4}


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


def test_a_decision_that_was_overtaken_renews_nothing(
    service: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its look and its renewal another run has renewed."""
    day, three = rent(hook, "day", "three")
    renew = Rentals._renew

    def late(*arguments: Any) -> Any:
        monkeypatch.undo()
        hook.renew_expiring(4 * DAY)
        return renew(*arguments)

    monkeypatch.setattr(Rentals, "_renew", late)
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
    requests_mock.get(f"{url}/orders/", json=[])
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
    requests_mock.get(f"{url}/orders/", json=[])
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


@pytest.mark.parametrize(("kind", "days"), [("day", 1), ("three", 3), ("month", 30), ("thirty", 30)])
def test_a_rental_is_kept_where_the_uptime_stands_still_while_the_machine_is_saved(
    kind: str, days: int, service: Simulator, hook: SmsVerifyHook, clock: Clock
) -> None:
    (order_id,) = rent(hook, kind)
    period = days * DAY
    for awake, saved in ((0.2, 0.6), (0.3, 0.7), (0.4, 0.6)):
        clock.pass_by(awake * period)
        clock.be_saved(saved * period)
        assert of(hook.renew_expiring(0.3 * period), order_id).outcome == "renewed"
        # The period after is not paid before this one has begun.
        hook.renew_expiring(90 * DAY)
    assert renewals(service) == {order_id: 3}


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


@pytest.mark.parametrize("kind", ["error_before", "error_after"])
def test_a_completed_rental_is_renewed_on_after_a_renewal_of_unknown_outcome(
    kind: str, simulate: Simulate, make_hook: MakeHook, store_url: str, clock: Clock
) -> None:
    products = {"rent-1day": {"sms_status": "completed"}}
    service = simulate(speed=1.0, rate_limit=None, products=products, renew_completed=True)
    hook = make_hook(service, store_url, rate_period=1.0)
    (day,) = rent(hook, "day")
    service.deliver_sms(day, otp="123456")
    assert hook.get_status(day).status == "completed"
    service.set_time_left(day, HOUR / 2)
    service.add_fault(Fault(kind, path="order/*/renew/", status=502, times=1))
    was_made = kind == "error_after"
    assert of(hook.renew_expiring(HOUR), day).outcome == ("renewed" if was_made else "unknown")
    clock.pass_by(150)
    assert of(hook.renew_expiring(HOUR), day).outcome == ("not_due" if was_made else "renewed")
    assert service.order(day).renewals == 1
    clock.pass_by(DAY)
    assert of(hook.renew_expiring(HOUR), day).outcome == "renewed"


def test_a_completed_rental_that_runs_on_longer_than_its_status_has_shown_is_not_forgotten(
    simulate: Simulate, make_hook: MakeHook, store_url: str, clock: Clock
) -> None:
    service = simulate(speed=1.0, products={"rent-30days": {"sms_status": "completed"}})
    hook = make_hook(service, store_url, rate_period=1.0)
    (month,) = rent(hook, "month")
    service.deliver_sms(month, otp="123456")
    service.set_time_left(month, 60)
    hook.get_status(month)
    service.set_time_left(month, 20 * DAY)
    clock.pass_by(2 * DAY)
    assert [rental.order_id for rental in hook.rentals()] == [month]
    clock.pass_by(40 * DAY)
    assert hook.rentals() == []


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
