"""The pace, for any situation: no database, no service."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsverify._service.rate_limit import Load
from smsverify._service.turns import LEAST_SHARE, Sharing
from smsverify._waiting import pace
from smsverify._waiting.pace import Arrival, Poll

PERIODS = st.sampled_from([0.6, 6.0, 60.0])
LIMITS = st.integers(1, 600)
AGES = st.lists(st.floats(0, 4000), min_size=1, max_size=200)
COUNTS = st.integers(0, 600)
LOADS = st.builds(Load, COUNTS, COUNTS, COUNTS, COUNTS)
UNLISTED = st.none() | COUNTS
SLOWEST = 10.0  # seconds between two polls, by default
SITUATIONS = st.fixed_dictionaries({"ages": AGES, "load": LOADS, "unlisted": UNLISTED})


def polled(period: float, limit: int, situation: dict[str, Any], first_poll: float | None = None) -> Poll:
    return pace.next_poll(limit, period, **{"sharing": Sharing()} | situation, first_poll=first_poll)


def cost(poll: Poll, situation: dict[str, Any]) -> int:
    """The requests of one poll, without the reads of codes that have come."""
    count, unlisted = len(situation["ages"]), situation["unlisted"]
    is_listed = count > 1 and unlisted is not None
    return is_listed + min(unlisted if is_listed else count, poll.one_by_one)


def slowest(limit: int, poll: Poll, situation: dict[str, Any], sharing: Sharing | None = None) -> float:
    """Seconds at time scale 1 between two polls, at the most."""
    longest = (sharing or Sharing()).slowest_poll
    return longest if limit >= 12 else max(longest, 120 * cost(poll, situation) / limit)


@given(PERIODS, LIMITS, SITUATIONS)
def test_a_poll_comes_neither_too_soon_nor_too_late(
    period: float, limit: int, situation: dict[str, Any]
) -> None:
    poll = polled(period, limit, situation)
    assert poll.pause * 60 / period <= slowest(limit, poll, situation) + 1e-9
    assert 1 <= poll.one_by_one <= pace.ONE_BY_ONE
    if poll.is_made:
        assert poll.pause * 60 / period + 1e-9 >= Sharing().fastest_poll
    else:
        assert max(situation["ages"]) < Sharing().code_latency * period / 60


@given(LIMITS, SITUATIONS)
def test_polls_take_no_more_than_others_leave_unless_they_would_be_too_rare(
    limit: int, situation: dict[str, Any]
) -> None:
    poll, load = polled(60.0, limit, situation), situation["load"]
    codes = min(load.releases, len(situation["ages"]) + load.purchases)
    left = limit - load.purchases - codes - load.reads
    if poll.is_made and poll.pause < slowest(limit, poll, situation):
        assert cost(poll, situation) * 60 / poll.pause <= left + 1e-6


@given(LIMITS, SITUATIONS, st.sampled_from(["releases", "reads", "purchases", "purchases_waiting"]), COUNTS)
def test_nobody_who_needs_more_makes_polls_more_frequent(
    limit: int, situation: dict[str, Any], what: str, more: int
) -> None:
    load = situation["load"]
    busier = polled(
        60.0, limit, situation | {"load": Load(**{**vars(load), what: getattr(load, what) + more})}
    )
    idler = polled(60.0, limit, situation)
    assert idler.pause <= busier.pause or not busier.is_made
    assert idler.is_made or not busier.is_made


@given(PERIODS, LIMITS, SITUATIONS, st.none() | st.sampled_from([15.0, 60.0]))
def test_a_service_whose_minute_is_shorter_is_asked_as_often_in_its_minute(
    period: float, limit: int, situation: dict[str, Any], first_poll: float | None
) -> None:
    scale = period / 60
    real = polled(60.0, limit, situation, first_poll)
    short = situation | {"ages": [age * scale for age in situation["ages"]]}
    first = None if first_poll is None else first_poll * scale
    scaled = polled(period, limit, short, first)
    # An age at the very edge may be rounded to either side of it.
    if all(abs(age - edge) > 1e-6 for age in situation["ages"] for edge in (15.0, 60.0)):
        assert scaled.is_made == real.is_made
        assert scaled.pause == pytest.approx(real.pause * scale)


@given(LIMITS, SITUATIONS, st.sampled_from([15.0, 60.0]))
def test_while_callbacks_come_no_wait_is_polled_for_before_its_time(
    limit: int, situation: dict[str, Any], first_poll: float
) -> None:
    poll, oldest = polled(60.0, limit, situation, first_poll), max(situation["ages"])
    assert poll.is_made is (oldest >= first_poll)
    if not poll.is_made:
        assert poll.pause == first_poll - oldest
    else:
        longest = max(pace.SLOWEST_SAFETY_POLL, slowest(limit, poll, situation))
        assert pace.FIRST_SAFETY_POLL <= poll.pause <= longest


@given(PERIODS, LIMITS, SITUATIONS, st.none() | st.sampled_from([15.0, 60.0]))
def test_no_poll_is_put_off_beyond_what_counts_as_a_clock_that_was_set(
    period: float, limit: int, situation: dict[str, Any], first_poll: float | None
) -> None:
    first = None if first_poll is None else first_poll * period / 60
    assert polled(period, limit, situation, first).pause < pace.farthest_poll(period / 60)


# ------------------------------------------------------------------ how long a code may lie

LATENCIES = st.floats(1, 3600)


@given(LATENCIES, LATENCIES)
def test_the_longer_a_code_may_lie_the_more_purchases_have_and_the_rarer_polls_are(
    one: float, other: float
) -> None:
    short, long = sorted([one, other])
    assert Sharing(short).purchases <= Sharing(long).purchases + 1e-9
    assert Sharing(short).orders_ahead <= Sharing(long).orders_ahead
    assert Sharing(short).slowest_poll <= Sharing(long).slowest_poll <= 2 * long
    assert Sharing(short).fastest_poll <= Sharing(long).fastest_poll <= Sharing(long).slowest_poll


@given(LATENCIES)
def test_purchases_leave_as_much_for_their_codes_and_the_rest_for_polls(code_latency: float) -> None:
    sharing = Sharing(code_latency)
    polls = 1 / sharing.slowest_poll
    assert 2 * sharing.purchases + polls <= 1 or sharing.purchases == LEAST_SHARE


def test_by_default_there_are_27_numbers_and_6_polls_a_minute() -> None:
    assert Sharing().purchases == pytest.approx(0.45)
    assert Sharing().slowest_poll == SLOWEST


@pytest.mark.parametrize(("code_latency", "pause"), [(1, 1.5), (5, 1.5), (20, 2), (40, 4), (3600, 30)])
def test_the_limit_of_an_idle_minute_is_left_to_numbers_where_a_code_may_lie(
    code_latency: float, pause: float
) -> None:
    idle = {"ages": [20.0], "unlisted": None, "load": Load(0, 0, 0, 0), "sharing": Sharing(code_latency)}
    assert polled(60.0, 60, idle).pause == pause


@given(LIMITS, SITUATIONS, LATENCIES)
def test_no_code_waits_for_a_poll_longer_than_it_may(
    limit: int, situation: dict[str, Any], code_latency: float
) -> None:
    poll = polled(60.0, limit, situation | {"sharing": Sharing(code_latency)})
    assert poll.pause <= slowest(limit, poll, situation, Sharing(code_latency)) + 1e-6


@given(st.integers(1, 11), SITUATIONS, LATENCIES)
def test_few_slots_are_left_to_others_by_half_where_they_are_needed_and_by_one_where_not(
    limit: int, situation: dict[str, Any], code_latency: float
) -> None:
    """Also those that no purchase waits for: the first read has no load before it is sent."""
    situation = situation | {"sharing": Sharing(code_latency)}
    busy = situation | {"load": Load(0, 0, limit, 600)}
    for case, most in [(situation, max(limit - 1, limit / 2)), (busy, limit / 2)]:
        poll = polled(60.0, limit, case)
        assert not poll.is_made or cost(poll, case) * 60 / poll.pause <= most + 1e-6


@pytest.mark.parametrize(("limit", "a_minute"), [(1, 0.25), (4, 1.0), (11, 2.75), (12, 20), (60, 20)])
def test_few_slots_are_left_to_others_by_subscriptions(limit: int, a_minute: float) -> None:
    assert 60 / pace.subscription_gap(limit) == pytest.approx(a_minute)
    assert pace.subscription_gap(limit) < pace.farthest_look(1.0)


@pytest.mark.parametrize(
    ("free_in", "pause"),
    [
        ([0.0] * 10 + [15.0] * 50, 15.0),
        ([0.0] * 10 + [15.0 + slot / 20 for slot in range(50)], 15.0),  # together: when the first one comes
        ([0.0] * 10 + [slot / 2 for slot in range(1, 51)], 10.5),  # one by one: soon before enough are back
        ([0.0] * 10 + [0.5] * 50, 30.0),
        ([0.0] * 10 + [59.0] * 50, 30.0),
        ([0.0] * 60, 30.0),
    ],
)
def test_the_next_poll_is_when_slots_for_the_codes_come_back(free_in: list[float], pause: float) -> None:
    load = Load(0, 0, 50, 0, free_in=free_in)
    waiting = {"ages": [40.0] * 39, "unlisted": 0, "sharing": Sharing(40.0), "load": load}
    assert polled(60.0, 60, waiting).pause == pytest.approx(pause)


@given(LIMITS, SITUATIONS, LATENCIES)
def test_the_first_poll_waits_where_slots_are_scarce_until_a_code_can_have_come(
    limit: int, situation: dict[str, Any], code_latency: float
) -> None:
    poll = polled(60.0, limit, situation | {"sharing": Sharing(code_latency)})
    oldest = max(situation["ages"])
    if not poll.is_made:
        assert oldest + poll.pause <= min(code_latency, pace.LATEST_FIRST_POLL) + 1e-6
        if Sharing(code_latency).orders_ahead:
            return
        assert oldest + poll.pause <= pace.FIRST_POLL + 1e-6
        idle = {"load": Load(0, 0, 0, 0), "unlisted": 0, "ages": [0.0] * min(len(situation["ages"]), 20)}
        assert polled(60.0, 60, situation | idle).is_made


@pytest.mark.parametrize(("code_latency", "is_made"), [(20.0, True), (30.0, False), (40.0, False)])
def test_where_numbers_are_ordered_ahead_no_idle_slot_is_spent_before_a_code_can_have_come(
    code_latency: float, is_made: bool
) -> None:
    idle = {"ages": [1.0], "unlisted": None, "load": Load(0, 0, 1, 0), "sharing": Sharing(code_latency)}
    assert polled(60.0, 60, idle).is_made is is_made
    assert polled(60.0, 60, idle | {"ages": [20.0]}).is_made


def test_rarer_polls_ask_for_more_orders_that_the_list_does_not_show() -> None:
    load = Load(releases=0, reads=0, purchases=60, purchases_waiting=100)
    scarce = {"ages": [100.0] * 30, "unlisted": 9, "load": load}
    for code_latency, orders in [(2.0, 1), (5.0, 1), (20.0, 3), (30.0, 10), (40.0, 10)]:
        poll = polled(60.0, 60, scarce | {"sharing": Sharing(code_latency)})
        assert (poll.pause, poll.one_by_one) == (Sharing(code_latency).slowest_poll, orders)


@pytest.mark.parametrize(("code_latency", "first_at"), [(2.0, 2.0), (5.0, 5.0), (30.0, 15.0), (40.0, 20.0)])
def test_numbers_that_were_bought_just_now_are_not_polled_for(code_latency: float, first_at: float) -> None:
    load = Load(releases=0, reads=3, purchases=30, purchases_waiting=20)
    just_now = {"ages": [1.0] * 30, "unlisted": 0, "load": load, "sharing": Sharing(code_latency)}
    assert polled(60.0, 60, just_now) == Poll(False, first_at - 1.0, 1)
    assert polled(60.0, 60, just_now | {"ages": [first_at, *[1.0] * 29]}).is_made


def test_when_the_last_codes_are_waited_for_polls_take_what_is_left() -> None:
    """However many codes were read a moment ago."""
    load = Load(releases=50, reads=0, purchases=0, purchases_waiting=0)
    for count, pause in [(1, 1.5), (10, 1.5), (25, 60 / 33), (40, 60 / 18)]:
        waiting = {"ages": [50.0] * count, "unlisted": 0, "load": load}
        assert polled(60.0, 60, waiting).pause == pytest.approx(pause)


# ------------------------------------------------------------------ what callbacks are worth

NOW = 1_800_000_000.0
MESSAGES = st.lists(
    st.builds(
        lambda ago, called: Arrival(NOW - ago, NOW - ago if called else None),
        st.floats(0, 500),
        st.booleans(),
    ),
    max_size=30,
)


def trust(callback_ago: float | None, newest: list[Arrival]) -> float | None:
    callback_at = None if callback_ago is None else NOW - callback_ago
    return pace.first_safety_poll(60.0, now=NOW, callback_at=callback_at, newest=newest)


@given(st.floats(0, 500), MESSAGES)
def test_callbacks_are_relied_on_until_a_poll_finds_what_none_has_brought(
    ago: float, newest: list[Arrival]
) -> None:
    missing = [one for one in newest if one.called_at is None and NOW - ago <= one.came_at]
    first = trust(ago, newest)
    if any(one.came_at <= NOW - pace.CALLBACK_LATE for one in missing):
        assert first is None
    else:
        assert first in (pace.FIRST_SAFETY_POLL, pace.PROVEN_SAFETY_POLL)


@given(st.floats(0, 500), MESSAGES)
def test_only_a_row_of_callbacks_with_one_of_late_is_a_proof(ago: float, newest: list[Arrival]) -> None:
    if trust(ago, newest) == pace.PROVEN_SAFETY_POLL:
        assert ago < pace.LATELY
        assert len(newest) >= pace.PROOF
        assert all(one.called_at is not None for one in newest[: pace.PROOF])


@given(MESSAGES)
def test_callbacks_that_are_configured_are_relied_on_before_the_first_one(newest: list[Arrival]) -> None:
    first = pace.first_safety_poll(60.0, now=NOW, callback_at=None, newest=newest, is_configured=True)
    missing = [one for one in newest if one.called_at is None and one.came_at <= NOW - pace.CALLBACK_LATE]
    assert first == (None if missing else pace.FIRST_SAFETY_POLL)


@given(MESSAGES)
def test_without_a_callback_nothing_is_relied_on(newest: list[Arrival]) -> None:
    assert trust(None, newest) is None
    assert trust(-10, newest) is None  # noted by a clock that was set
