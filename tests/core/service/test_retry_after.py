"""When an answer says to come back: in seconds or at a date, however it is written."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from smsverify._service.answers import Answer, as_error


def answer(status: int, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, named, "", "GET /api/v1/orders/", "key")


def at(seconds: float) -> str:
    when = datetime(2026, 5, 12, tzinfo=timezone.utc) + timedelta(seconds=seconds)
    return format_datetime(when, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "7"}, 7),
        ({"Retry_After": " 1.5 "}, 1.5),
        ({"Retry_After": "0"}, 0),
        ({"Retry_After": "86400"}, 3600),
        ({"Retry_After": "9" * 400}, 3600),
        ({"Retry_After": at(30), "Date": at(0)}, 30),
        ({"Retry_After": at(-30), "Date": at(0)}, 0),
        ({"Retry_After": at(90_000), "Date": at(0)}, 3600),
        ({"Retry_After": "5, 7"}, 7),
        ({"Retry_After": f"{at(30)}, {at(20)}", "Date": at(0)}, 30),
        ({"Retry_After": "Tue May 12 00:00:30 2026", "Date": at(0)}, 30),
        ({"Retry_After": "Tue, 12 May 2026 00:00:30 -0000", "Date": at(0)}, 30),
        ({"Retry_After": at(30), "Date": at(-100_000_000)}, 3600),
        ({"Retry_After": at(30), "Date": at(100_000_000)}, 0),
        ({"Retry_After": "30s"}, 30),
        ({"Retry_After": "1.5 seconds"}, 1.5),
        ({"Retry_After": '"30"'}, 30),
        ({"Retry_After": "2026-05-12T00:00:30Z", "Date": at(0)}, 30),
        ({"Retry_After": "2026-05-12 02:00:30+02:00", "Date": at(0)}, 30),
        ({"Retry_After": "2026-99-12T00:00:30Z"}, None),
        ({"Retry_After": "30 bananas"}, None),
        ({"Retry_After": "1e3"}, None),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "-5"}, None),
        ({"Retry_After": "NaN"}, None),
        ({"Retry_After": "inf"}, None),
        ({"Retry_After": ""}, None),
        ({"Retry_After": "Mon, 99 Foo 2026 00:00:00 GMT"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_by_the_service_s_own_clock_or_nothing(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert answer(429, **headers).retry_after == seconds
    assert as_error(answer(429, **headers)).retry_after == seconds
    assert as_error(answer(503, **headers)).retry_after == seconds


def test_a_date_without_the_service_s_clock_is_relative_to_ours() -> None:
    until = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=60), usegmt=True)
    seconds = answer(429, Retry_After=until).retry_after
    assert seconds is not None
    assert 0 < seconds <= 60
