"""The service's clock, which no host can set: each of its answers shows it, in whole seconds."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timezone

from smsverify._runtime.clock import boottime


class ServiceClock:
    """What the newest answer has shown, and what this machine's uptime has counted since."""

    def __init__(self) -> None:
        self._shown: tuple[float, float] | None = None

    def note(self, date: float | None) -> None:
        """Takes what an answer shows that has just come; `None` where it shows nothing."""
        if date is not None:
            self._shown = (date, boottime())

    def now(self) -> float | None:
        """Seconds since 1970, too few where the uptime stood still; `None` where no answer has shown them."""
        if self._shown is None:
            return None
        date, noted_at = self._shown
        return date + boottime() - noted_at


def shown_or_now(date: float | None) -> datetime:
    """A moment that the service's clock has shown, in UTC; now by the calendar where it has shown none."""
    if date is not None:
        with suppress(ValueError, OverflowError, OSError):  # beyond the years that Python knows
            return datetime.fromtimestamp(date, timezone.utc)
    return datetime.now(timezone.utc)
