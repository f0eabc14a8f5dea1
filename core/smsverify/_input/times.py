"""Dates and times as the service may write them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

EARLIEST: Final = datetime(2000, 1, 1, tzinfo=timezone.utc)
LATEST: Final = datetime(2200, 1, 1, tzinfo=timezone.utc)
_DATETIME: Final[TypeAdapter[datetime]] = TypeAdapter(datetime)
_LONGEST_TIME: Final = 64  # characters
_BASIC: Final = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})[Tt ]([0-9]{2})([0-9]{2})([0-9]{2})(?![0-9])")
_ZONE: Final = re.compile(r"\s+(?=(?:[Zz]|[-+][0-9]{2}:?[0-9]{2})\Z)")
# Times that end a day or a minute, and the same without the last hour or second, which comes on top.
_LAST_HOUR: Final = re.compile(r"(?<=[0-9][Tt ])24(?=:00(?::00(?:[.,]0+)?)?(?![0-9:.,]))")
_LEAP_SECOND: Final = re.compile(r"(?<=[0-9]:[0-9]{2}:)60(?![0-9])")


def as_datetime(value: Any) -> datetime | None:
    """Reads a date and time (ISO 8601, UTC if it names no zone, or seconds or milliseconds since 1970);
    `None` if it is unreadable."""
    if isinstance(value, bool) or not value or (isinstance(value, str) and len(value) > _LONGEST_TIME):
        return None
    more = timedelta()
    if isinstance(value, str):
        value, more = _as_usual(value)
    try:
        when = _DATETIME.validate_python(value) + more
        when = when.replace(tzinfo=timezone.utc) if when.tzinfo is None else when.astimezone(timezone.utc)
    except (ValidationError, ValueError, OverflowError, OSError):
        return None
    # What lies beyond stands for none, such as year 1 or 9999.
    return when if EARLIEST <= when <= LATEST else None


def _as_usual(text: str) -> tuple[str, timedelta]:
    """A time in the usual spelling of ISO 8601, and what comes on top of it."""
    text = re.sub(r"\s*(UTC|GMT)$", "Z", text.strip())
    text = _ZONE.sub("", _BASIC.sub(r"\1-\2-\3T\4:\5:\6", text))
    text, hours = _LAST_HOUR.subn("23", text)
    text, seconds = _LEAP_SECOND.subn("59", text)
    return text, timedelta(hours=hours, seconds=seconds)
