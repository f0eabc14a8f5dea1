"""The pace, for any situation: no database, no service."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsverify._service.rate_limit import Load
from smsverify._service.turns import Sharing
from smsverify._waiting import pace
from smsverify._waiting.pace import Arrival, Poll

PERIODS = st.sampled_from([0.6, 6.0, 60.0])
LIMITS = st.integers(1, 600)
AGES = st.lists(st.floats(0, 4000), min_size=1, max_size=200)
COUNTS = st.integers(0, 600)
LOADS = st.builds(Load, COUNTS, COUNTS, COUNTS, COUNTS)
UNLISTED = st.none() | COUNTS
SITUATIONS = st.fixed_dictionaries({"ages": AGES, "load": LOADS, "unlisted": UNLISTED})


def polled(period: float, limit: int, situation: dict[str, Any], first_poll: float | None = None) -> Poll:
    return pace.next_poll(limit, period, **{"sharing": Sharing()} | situation, first_poll=first_poll)


def cost(poll: Poll, situation: dict[str, Any]) -> int:
    """The requests of one poll, without the reads of codes that have come."""
    count, unlisted = len(situation["ages"]), situation["unlisted"]
    is_listed = count > 1 and unlisted is not None
    return is_listed + min(unlisted if is_listed else count, poll.one_by_one)


@given(PERIODS, LIMITS, SITUATIONS)
def test_a_poll_comes_neither_too_soon_nor_too_late(
    period: float, limit: int, situation: dict[str, Any]
) -> None:
    poll = polled(period, limit, situation)
    assert poll.is_made
    assert poll.pause * 60 / period + 1e-9 >= pace.FASTEST_POLL
    assert poll.pause * 60 / period <= pace.SLOWEST_POLL + 1e-9
    assert 1 <= poll.one_by_one <= pace.ONE_BY_ONE


@given(LIMITS, SITUATIONS)
def test_polls_take_no_more_than_others_leave_unless_they_would_be_too_rare(
    limit: int, situation: dict[str, Any]
) -> None:
    poll, load = polled(60.0, limit, situation), situation["load"]
    left = limit - load.purchases - load.releases - load.reads
    if poll.pause < pace.SLOWEST_POLL:
        assert cost(poll, situation) * 60 / poll.pause <= left + 1e-6


@given(LIMITS, SITUATIONS, st.sampled_from(["releases", "reads", "purchases", "purchases_waiting"]), COUNTS)
def test_nobody_who_needs_more_makes_polls_more_frequent(
    limit: int, situation: dict[str, Any], what: str, more: int
) -> None:
    load = situation["load"]
    busier = Load(**{**vars(load), what: getattr(load, what) + more})
    assert polled(60.0, limit, situation).pause <= polled(60.0, limit, situation | {"load": busier}).pause


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
        assert pace.FIRST_SAFETY_POLL <= poll.pause <= pace.SLOWEST_SAFETY_POLL


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
    assert 0 < Sharing(long).purchases < 1
    assert pace.slowest_poll(short) <= pace.slowest_poll(long)
    assert pace.slowest_poll(long) <= 2 * long


def test_by_default_purchases_leave_as_much_for_their_codes() -> None:
    assert Sharing().purchases == pytest.approx(0.45, abs=0.01)
    assert pace.slowest_poll(Sharing().code_latency) == pace.SLOWEST_POLL


@given(LIMITS, SITUATIONS, LATENCIES)
def test_no_code_waits_for_a_poll_longer_than_it_may(
    limit: int, situation: dict[str, Any], code_latency: float
) -> None:
    poll = polled(60.0, limit, situation | {"sharing": Sharing(code_latency)})
    assert poll.pause <= max(pace.slowest_poll(code_latency), pace.FASTEST_POLL)


def test_the_next_poll_is_when_enough_slots_have_come_back() -> None:
    waiting = {"ages": [1.0] * 50, "unlisted": 0, "sharing": Sharing(40.0)}
    for free_in, pause in [(15.0, 15.0), (0.5, 20.0), (59.0, 20.0)]:
        load = Load(0, 0, 50, 0, free_in=[0.0] * 10 + [free_in] * 50)
        assert polled(60.0, 60, waiting | {"load": load}).pause == pause


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
