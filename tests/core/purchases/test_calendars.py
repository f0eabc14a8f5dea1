"""Rentals while calendars are set: they end by the service's clock, and no calendar ends one for good."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from rigs.money import Clock
from rigs.rentals import DAY, HOUR, KINDS, of, outcomes, renewals, rent

from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Simulator

pytestmark = pytest.mark.slow

MakeHook = Callable[..., SmsVerifyHook]


@pytest.fixture
def hook(service: Simulator, make_hook: MakeHook, store_url: str) -> SmsVerifyHook:
    return make_hook(service, store_url, rate_period=1.0)


def test_a_calendar_that_is_ahead_when_a_rental_is_bought_shortens_no_renewal(
    service: Simulator, hook: SmsVerifyHook, clock: Clock
) -> None:
    clock.step(2 * DAY)
    (three,) = rent(hook, "three")
    clock.step(-2 * DAY)
    end = hook.get_order(three).expires_at
    renewed = hook.renew(three).expires_at
    assert end is not None
    assert renewed == end + timedelta(days=3)
    assert hook.get_order(three).expires_at == renewed


def test_the_end_that_follows_from_a_time_left_is_of_the_service_s_clock(
    service: Simulator, hook: SmsVerifyHook, clock: Clock
) -> None:
    (day,) = rent(hook, "day")
    clock.step(2 * DAY)
    end = hook.get_status(day).expires_at
    assert end is not None
    assert end.timestamp() - clock.now() == pytest.approx(DAY, abs=600)


@pytest.mark.parametrize("whose", ["the host's", "the service's"])
def test_one_calendar_that_is_set_makes_no_period_begin(
    whose: str, service: Simulator, hook: SmsVerifyHook, clock: Clock
) -> None:
    (thirty,) = rent(hook, "thirty")
    hook.renew_expiring(60 * DAY)
    if whose == "the host's":
        clock.step(40 * DAY)
    else:
        service.configure(clock_skew=40 * DAY)
    hook.renew_expiring(60 * DAY)
    assert renewals(service) == {thirty: 1}


@pytest.mark.parametrize(("whose", "most"), [("the host's", 0), ("the service's", 1)])
def test_a_calendar_that_is_set_lets_no_more_be_paid_than_one_period_ahead(
    whose: str, most: int, service: Simulator, hook: SmsVerifyHook, clock: Clock
) -> None:
    (thirty,) = rent(hook, "thirty")
    for days in (29.9, 59.9, 89.9, -400, 29.9):
        if whose == "the host's":
            clock.wrong = days * DAY
        else:
            service.configure(clock_skew=days * DAY)
        hook.renew_expiring(4 * HOUR)
    assert renewals(service) == {thirty: most}


def test_a_calendar_that_is_ahead_for_a_while_ends_no_rental(
    service: Simulator, hook: SmsVerifyHook, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    ids = rent(hook, *KINDS)
    three = ids[list(KINDS).index("three")]
    for days in (3 - 0.1, 0.2, 0.5, 400):  # as many more: before, at, and long after the end
        clock.step(days * DAY)
        assert {rental.order_id for rental in hook.rentals()} == set(ids)
        assert "expired" not in outcomes(hook.renew_expiring(0.0, dry_run=True)).values()
    assert "s ahead of the service's clock" in caplog.text
    clock.step(-403.6 * DAY)
    caplog.clear()
    assert of(hook.renew_expiring(3.5 * DAY), three).outcome == "renewed"
    assert "the service's clock" not in caplog.text


def test_a_rental_whose_end_a_new_process_sees_by_a_calendar_that_is_ahead_is_asked_about(
    service: Simulator, make_hook: MakeHook, store_url: str, hook: SmsVerifyHook, clock: Clock
) -> None:
    (three,) = rent(hook, "three")
    clock.step(3.1 * DAY)
    (rental,) = make_hook(service, store_url, rate_period=1.0).rentals()
    assert (rental.order_id, rental.note) == (three, None)
    assert rental.time_left_seconds == pytest.approx(3 * DAY, abs=60)


def test_a_rental_that_has_ended_is_named_for_a_day_and_then_asked_about_no_more(
    service: Simulator, hook: SmsVerifyHook, clock: Clock
) -> None:
    (three,) = rent(hook, "three")
    clock.pass_by(3.5 * DAY)
    assert outcomes(hook.renew_expiring(0.0)) == {three: "expired"}
    clock.pass_by(DAY)
    assert outcomes(hook.renew_expiring(0.0)) == {}
    asked = len(service.requests())
    assert hook.rentals() == []
    assert len(service.requests()) == asked
