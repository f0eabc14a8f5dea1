"""A moment by three clocks, since none of them alone says how much time has passed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smsverify._runtime.clock import MINUTE


@dataclass(frozen=True)
class Moment:
    """A moment in seconds.

    Attributes:
        at: by the store's clock.
        wall: by the store's calendar; `None` where that is not on record.
        date: by the service's clock; `None` where that has not said.
    """

    at: float
    wall: float | None = None
    date: float | None = None

    @classmethod
    def recorded_in(cls, request: Mapping[str, Any], otherwise: float) -> Moment:
        """When an order was looked at before its renewal, as the renewal's request has it on record."""
        wall, date = request.get("calendars") or (None, None)
        return cls(request.get("asked_at", otherwise), wall, date)

    def for_record(self) -> dict[str, Any]:
        """What `recorded_in` reads."""
        return {"asked_at": self.at, "calendars": (self.wall, self.date)}

    def missed_since(self, earlier: Moment) -> float:
        """How many seconds since an earlier moment the store's clock has not counted.

        That of a machine whose uptime stands still while it is saved counts none of them. The calendar of a
        host may be set, and an answer may show a wrong date. So both have to say that the time has passed:
        no one of them alone makes a period seem to have begun. What is less than a minute is their noise.
        """
        if self.wall is None or earlier.wall is None or self.date is None or earlier.date is None:
            return 0.0
        passed = min(self.wall - earlier.wall, self.date - earlier.date)
        missed = passed - (self.at - earlier.at)
        return missed if missed > MINUTE else 0.0
