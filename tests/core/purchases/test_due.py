"""The end of a rental, and what is due: pure functions, whatever the facts are."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from smsverify._orders.holding import FORGOTTEN
from smsverify._purchases.due import Seen, paid_ahead, trouble_of
from smsverify._purchases.expiry import ROUNDED, STALE, Expiry, Sight
from smsverify._purchases.moments import Moment
from smsverify._purchases.periods import MadeRenewal
from smsverify._runtime.clock import DAY
from smsverify.models import Order, OrderStatus

GRACE = 120.0
seconds = st.floats(0, 100 * DAY)
statuses = st.sampled_from(["pending", "active", "completed", "expired", "odd"])


def status_of(left: float, *, in_days: bool, status: str = "active") -> OrderStatus:
    shown: dict[str, Any] = {"days_left": left / DAY} if in_days else {"time_left_seconds": left}
    return OrderStatus.model_validate({"order_id": 7, "status": status, **shown})


@st.composite
def ends(draw: st.DrawFn) -> Expiry:
    latest = draw(st.floats(-DAY, 100 * DAY))
    return Expiry(latest - draw(st.sampled_from([0.0, STALE, ROUNDED])), latest)


@st.composite
def rentals(draw: st.DrawFn) -> Seen:
    """A rental as it may be found, however odd."""
    now = draw(seconds)
    order = Order(
        order_id=7,
        product=draw(st.sampled_from(["rental", "rent-1day", "rent-30days", None])),
        status=draw(statuses),
        expires_estimated=draw(st.booleans()),
        key="k",
    )
    shown = draw(st.none() | ends())
    looks = st.builds(Sight, st.just(status_of(1, in_days=False)), st.builds(Moment, seconds), st.just(shown))
    sight = draw(st.none() | looks)
    expiry = shown if sight is not None and shown is not None else draw(st.none() | ends())
    last = draw(
        st.none()
        | st.builds(
            MadeRenewal,
            id=st.just(1),
            sent_at=st.floats(0, now),
            asked_at=st.just(0.0),
            expiry=st.none() | ends(),
            grown=st.none() | seconds,
        )
    )
    return Seen(
        order,
        0 if last is None else 1,
        now,
        expiry,
        sight,
        last=last,
        last_begins=None if last is None else draw(seconds),
        is_open=draw(st.booleans()),
        cancel_reason=draw(st.none() | st.just("a reason")),
        unclaimed_for=draw(st.none() | seconds),
    )


# ------------------------------------------------------------------ the end


@given(
    moved=st.floats(-3 * DAY, 40 * DAY),
    lefts=st.tuples(*[st.integers(1, 30 * int(DAY))] * 2),
    wrong=st.tuples(*[st.sampled_from([0.0, 0.3, 0.99])] * 2),
    in_days=st.booleans(),
    time_scale=st.sampled_from([1.0, 0.1, 0.001]),
)
def test_an_end_is_later_only_where_it_was_moved_however_wrong_a_status_is(
    moved: float, lefts: tuple[int, int], wrong: tuple[float, float], in_days: bool, time_scale: float
) -> None:
    step = ROUNDED if in_days else max(STALE * time_scale, 2.0)
    shown = []
    for end, left, part in zip((0.0, moved), lefts, wrong, strict=True):
        # A status may say more than is left: it is of an earlier moment, or rounded.
        one = Expiry.shown_by(status_of(left + part * step, in_days=in_days), end - left, time_scale)
        assert one is not None
        assert (one.is_shown, one.in_days) == (True, in_days)
        assert one.earliest <= end <= one.latest + 1e-5  # numbers are read to 10 decimals
        shown.append(one)
    before, after = shown
    assert before.is_shown_like(after)
    if after.is_later_than(before):
        assert moved > 0
    if moved > 2 * step:
        assert after.is_later_than(before)


@given(one=ends(), other=ends())
def test_no_end_is_later_than_itself_nor_two_than_each_other(one: Expiry, other: Expiry) -> None:
    assert not one.is_later_than(one)
    assert not (one.is_later_than(other) and other.is_later_than(one))
    if one.is_later_than(other):
        assert one.earliest >= other.latest - 1e-6
    assert one.earliest <= one.surely <= one.latest
    assert Expiry.recorded_in(json.loads(json.dumps({"expiry": one.for_record()}))) == one


def test_a_status_without_an_end_shows_none_and_a_date_on_record_is_exact() -> None:
    assert Expiry.shown_by(OrderStatus(order_id=7, status="active"), 0.0, 1.0) is None
    assert Expiry.recorded_in({"expiry": None}) is None
    exact = Expiry(5.0, 5.0)
    assert not exact.is_shown
    assert not exact.is_shown_like(exact)


@pytest.mark.parametrize(
    ("wall", "date", "missed"),
    [
        (1000 + 2 * DAY, 7000 + 2 * DAY, DAY),
        (1000 + 2 * DAY, 7000 + 3 * DAY, DAY),
        (1000 + 3 * DAY, 7000 + DAY, 0.0),  # a calendar that was set
        (1000 + DAY, 7000 + 3 * DAY, 0.0),  # a wrong date in an answer
        (1000 + DAY + 30, 7000 + DAY + 30, 0.0),  # noise
        (1000 - DAY, 7000 - DAY, 0.0),
        (1000 + 2 * DAY, None, 0.0),
        (None, 7000 + 2 * DAY, 0.0),
    ],
)
def test_what_the_store_s_clock_has_missed_both_calendars_have_to_say(
    wall: float | None, date: float | None, missed: float
) -> None:
    then = Moment.recorded_in(json.loads(json.dumps(Moment(500.0, 1000.0, 7000.0).for_record())), 0.0)
    assert Moment(500.0 + DAY, wall, date).missed_since(then) == missed
    assert Moment(500.0 + DAY, wall, date).missed_since(Moment.recorded_in({}, 500.0)) == 0.0


# ------------------------------------------------------------------ what is due


@given(seen=rentals())
def test_no_period_is_paid_before_the_one_that_was_paid_last_has_begun(seen: Seen) -> None:
    verdict = paid_ahead(seen, GRACE)
    if seen.last is None or seen.last_begins is None:
        assert verdict is None
        return
    if seen.now < seen.last_begins:
        assert verdict is not None
        assert trouble_of(seen, grace=GRACE, time_scale=1.0) is not None
    if verdict is not None:
        assert verdict[0] in ("not_due", "unconfirmed")
        assert verdict[0] == "not_due" or seen.now - seen.last.sent_at >= GRACE


@pytest.mark.slow
@given(seen=rentals())
def test_what_is_doubtful_or_given_up_is_never_renewed(seen: Seen) -> None:
    trouble = trouble_of(seen, grace=GRACE, time_scale=1.0)
    is_shown = seen.sight is not None and seen.sight.expiry is not None
    if (
        seen.cancel_reason is not None
        or seen.unclaimed_for is not None
        or seen.expiry is None
        or (seen.is_open and not is_shown)
    ):
        assert trouble is not None
    if trouble is not None:
        assert trouble[1], "a rental is left alone without a reason"
        if trouble[0] == "unclaimed":
            assert seen.unclaimed_for is not None
            assert seen.unclaimed_for >= FORGOTTEN


@pytest.mark.parametrize(
    ("status", "left", "outcome"),
    [
        ("completed", 60.0, None),
        ("completed", 0.0, "expired"),
        ("active", 0.0, "expired"),
        ("expired", 60.0, "expired"),
        ("Completed", 60.0, None),
    ],
)
def test_a_code_does_not_end_a_rental_before_its_time(status: str, left: float, outcome: str | None) -> None:
    seen = Seen(
        Order(order_id=7, product="rental", status=status), 0, 1000.0, Expiry(1000 + left, 1000 + left)
    )
    trouble = trouble_of(seen, grace=GRACE, time_scale=1.0)
    assert (None if trouble is None else trouble[0]) == outcome


@pytest.mark.parametrize("status", ["completed", "active"])
def test_a_rental_whose_whole_days_left_are_none_may_still_run(status: str) -> None:
    shown = status_of(0, in_days=True, status=status)
    expiry = Expiry.shown_by(shown, 1000.0, 1.0)
    seen = Seen(
        Order(order_id=7, product="rent-1day", status=status), 0, 1000.0, expiry, Sight(shown, 1000.0, expiry)
    )
    assert trouble_of(seen, grace=GRACE, time_scale=1.0) is None
    assert seen.is_due(3600)
    over = trouble_of(replace(seen, is_used_up=True), grace=GRACE, time_scale=1.0)
    assert over is not None
    assert over[0] == "expired"


@pytest.mark.parametrize("in_days", [True, False])
def test_the_end_of_a_rental_that_has_not_begun_is_unknown(in_days: bool) -> None:
    shown = status_of(0, in_days=in_days, status="pending")
    assert Expiry.shown_by(shown, 1000.0, 1.0) is None
    seen = Seen(Order(order_id=7, product="rent-1day"), 0, 1000.0, None, Sight(shown, 1000.0, None))
    trouble = trouble_of(seen, grace=GRACE, time_scale=1.0)
    assert trouble is not None
    assert trouble[0] == "expiry_unknown"


@pytest.mark.parametrize(("in_days", "is_due"), [(True, True), (False, False)])
def test_a_rental_is_due_where_its_last_whole_day_may_be_over(in_days: bool, is_due: bool) -> None:
    shown = Expiry.shown_by(status_of(2 * DAY, in_days=in_days), 1000.0, 1.0)
    assert Seen(Order(order_id=7), 0, 1000.0, shown).is_due(DAY) is is_due
