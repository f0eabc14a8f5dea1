"""When a rental ends, as far as that is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Final

from smsverify._purchases.moments import Moment
from smsverify._runtime.clock import DAY
from smsverify.models import OrderStatus, seconds_left

STALE: Final = 90.0  # seconds by which a time left may be old: the service may update it once in its minute
ROUNDED: Final = DAY + 2  # seconds by which a number of whole days may be wrong


@dataclass(frozen=True)
class Expiry:
    """The end of a rental, in seconds by the store's clock, which no one can set.

    A date on record is exact: both ends are the same. A status is less exact: its time left may be a minute
    old, and its days left are whole ones.

    Attributes:
        earliest: the rental does not end before.
        latest: the rental does not end after, unless it is renewed.
    """

    earliest: float
    latest: float

    @classmethod
    def shown_by(cls, status: OrderStatus, now: float, time_scale: float) -> Expiry | None:
        """The end that a status shows; `None` where it shows none.

        Args:
            status: the status.
            now: when it came, by the store's clock.
            time_scale: how long the service's minute is in real minutes.
        """
        left = seconds_left(status)
        if left is None:
            return None
        is_rounded = status.time_left_seconds is None and status.days_left is not None
        return cls(now + left - (ROUNDED if is_rounded else max(STALE * time_scale, 2.0)), now + left)

    def sooner(self, seconds: float) -> Expiry:
        """The same end where the store's clock is that much behind what it was reckoned by."""
        return Expiry(self.earliest - seconds, self.latest - seconds)

    @classmethod
    def recorded_in(cls, request: Mapping[str, Any]) -> Expiry | None:
        """The end before a renewal, as the renewal's request has it on record."""
        both = request.get("expiry")
        return None if both is None else cls(*both)

    def for_record(self) -> tuple[float, float]:
        """What `recorded_in` reads."""
        return astuple(self)

    @property
    def is_shown(self) -> bool:
        """Whether a status shows this end."""
        return self.latest > self.earliest

    @property
    def in_days(self) -> bool:
        """Whether a status shows whole days only."""
        return self.latest - self.earliest >= DAY

    @property
    def surely(self) -> float:
        """Until when the rental lasts at least: the last of its whole days may be over."""
        return self.earliest if self.in_days else self.latest

    def is_shown_like(self, other: Expiry) -> bool:
        """Whether statuses show both ends in the same way, so that they can be compared."""
        return self.is_shown and other.is_shown and self.in_days == other.in_days

    def is_later_than(self, other: Expiry) -> bool:
        """Whether this end is later, however wrong each of the two may be."""
        step = max(self.latest - self.earliest, other.latest - other.earliest)
        return self.latest > other.latest + step

    def has_grown(self, other: Expiry, seconds: float) -> bool:
        """Whether more time is left than at a look so many seconds before. An end that has moved with the
        time alone was not moved by a renewal: the status is stuck.
        """
        return self.latest - other.latest - seconds > min(self.latest - self.earliest, DAY / 2)


@dataclass(frozen=True)
class Sight:
    """What the status of a rental says.

    Attributes:
        status: of the order.
        moment: when it had said that.
        expiry: the end that it shows; `None` where it shows none.
    """

    status: OrderStatus
    moment: Moment
    expiry: Expiry | None
