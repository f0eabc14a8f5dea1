"""What has no answer yet, and what is left alone after a failure: by itself, without a service."""

from __future__ import annotations

import pytest

from smsverify import errors
from smsverify._waiting import unanswered
from smsverify._waiting.unanswered import FIRST_PAUSE, LONGEST_PAUSE, Requests, Troubles


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which only a test moves."""
    now = [1000.0]
    monkeypatch.setattr(unanswered.time, "monotonic", lambda: now[0])
    return now


def test_a_thread_is_stuck_when_only_answers_that_are_late_are_to_be_expected(clock: list[float]) -> None:
    requests = Requests()
    assert not requests.are_stuck()
    with requests.one(7) as first, requests.one(8) as second:
        first["before_sending"]()
        clock[0] += unanswered.PATIENCE + 1
        assert not requests.are_stuck()  # the second one waits for the rate limit
        second["before_sending"]()
        assert not requests.are_stuck()
        clock[0] += unanswered.PATIENCE + 1
        assert requests.are_stuck()
        assert requests.under_way() == {7, 8}
        first["while_waiting"]()  # it was answered 429, and will be sent again
        assert not requests.are_stuck()
    assert (requests.under_way(), requests.are_stuck()) == (set(), False)


def pauses(clock: list[float], troubles: Troubles, error: errors.SmsVerifyError, times: int) -> list[float]:
    """For how long something is left alone after each of so many failures in a row."""
    lengths = []
    for _ in range(times):
        troubles.note(7, error)
        began = clock[0]
        while troubles.is_left_alone(7):
            clock[0] += 0.5
        lengths.append(clock[0] - began)
    return lengths


def test_the_pause_after_a_failure_doubles_up_to_its_longest(clock: list[float]) -> None:
    troubles = Troubles(1.0)
    unavailable = errors.ServiceUnavailableError("503")
    assert pauses(clock, troubles, unavailable, 6) == [1.5, 3.0, 6.0, 12.0, LONGEST_PAUSE, LONGEST_PAUSE]
    assert troubles.of(7) is unavailable
    troubles.end(7)
    assert troubles.of(7) is None
    assert pauses(clock, troubles, unavailable, 1) == [FIRST_PAUSE]


def test_a_pause_that_the_service_asks_for_counts_up_to_the_longest(clock: list[float]) -> None:
    short, long = (errors.ServiceUnavailableError("503", retry_after=after) for after in (4.0, 3000.0))
    assert pauses(clock, Troubles(1.0), short, 1) == [4.0]
    assert pauses(clock, Troubles(1.0), long, 1) == [LONGEST_PAUSE]


def test_a_refusal_makes_no_pause(clock: list[float]) -> None:
    troubles = Troubles(1.0)
    assert troubles.note(7, errors.ServiceError("SMS not received yet"))
    assert not troubles.note(7, errors.ServiceError("SMS not received yet"))
    assert not troubles.is_left_alone(7)


def test_what_has_failed_since_a_moment_is_asked_for_again_at_the_end_of_the_shortest_pause(
    clock: list[float],
) -> None:
    troubles = Troubles(1.0)
    for what, after in ((7, 4.0), (8, 9.0)):
        troubles.note(what, errors.ServiceUnavailableError("503", retry_after=after))
    troubles.note(9, errors.ServiceError("SMS not received yet"))
    assert troubles.end_in([9, 10], since=clock[0]) is None
    assert troubles.end_in([7, 8, 9], since=clock[0]) == 4.0
    clock[0] += 6
    assert troubles.end_in([7, 8], since=clock[0] - 6) == 0.0
    assert troubles.end_in([7, 8], since=clock[0]) is None
