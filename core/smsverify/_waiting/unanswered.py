"""What polls have asked for without an answer: requests that are under way, and orders that are left alone.

One order that hangs or fails keeps no other waiting, and takes no more requests than it is worth.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from smsverify._service.transport import CallOptions
from smsverify.errors import ServiceUnavailableError, SmsVerifyError, UnexpectedResponseError

LIST: Final = 0  # stands for the list of orders; no order has this id

# Seconds for which a thread waits for its answers before another one may ask beside it: an answer that is
# healthy is there by then, or it is taken when it comes.
PATIENCE = 5.0
# Seconds at time scale 1 until what has failed is asked for again, doubled with each failure in a row.
FIRST_PAUSE = 1.5
LONGEST_PAUSE = 15.0


class Requests:
    """The requests of one thread. Safe to use from several threads, which share the work.

    Attributes:
        is_overtaken: whether another thread has begun a newer poll, which asks for whatever is left.
    """

    def __init__(self) -> None:
        self.is_overtaken = False
        self._lock = threading.Lock()
        self._left_at: dict[int, float] = {}

    @contextmanager
    def one(self, what: int) -> Iterator[CallOptions]:
        """One request, from now until its end; gives how it is to be sent."""

        def waits() -> None:
            with self._lock:
                self._left_at[what] = math.inf

        def leaves() -> None:
            with self._lock:
                self._left_at[what] = time.monotonic()

        waits()
        try:
            yield CallOptions(once=True, before_sending=leaves, while_waiting=waits)
        finally:
            with self._lock:
                del self._left_at[what]

    def under_way(self) -> set[int]:
        """What has no answer yet."""
        with self._lock:
            return set(self._left_at)

    def are_stuck(self) -> bool:
        """Whether nothing is to be expected but answers that are late."""
        late = time.monotonic() - PATIENCE
        with self._lock:
            return bool(self._left_at) and all(left_at < late for left_at in self._left_at.values())


@dataclass(frozen=True)
class _Trouble:
    """A failure.

    Attributes:
        error: what has failed.
        pause: seconds for which it is left alone.
        until: `time.monotonic()` at the end of these.
        is_of_news: whether news that the list has shown could not be read since it could be read last.
    """

    error: SmsVerifyError
    pause: float
    until: float
    is_of_news: bool


class Troubles:
    """Why orders and the list cannot be read, and until when they are left alone for that.

    Only a service that does not answer as it should is left alone. One that refuses to show an order, perhaps
    until its SMS has come, is asked at the usual pace.

    Args:
        time_scale: how long the service's minute is in real minutes.
    """

    def __init__(self, time_scale: float) -> None:
        self._time_scale = time_scale
        self._noted: dict[int, _Trouble] = {}

    def note(self, what: int, error: SmsVerifyError, *, is_of_news: bool = False) -> bool:
        """Notes a failure; returns whether it is the first one in a row.

        Args:
            what: could not be read.
            error: why.
            is_of_news: whether the list has shown that there is something to read.
        """
        before = self._noted.get(what)
        pause = 0.0
        if isinstance(error, (ServiceUnavailableError, UnexpectedResponseError)):
            asked = getattr(error, "retry_after", None) or 0.0
            pause = max(2 * before.pause if before else 0.0, FIRST_PAUSE * self._time_scale, asked)
            pause = min(pause, LONGEST_PAUSE * self._time_scale)
        is_of_news = is_of_news or (before is not None and before.is_of_news)
        self._noted[what] = _Trouble(error, pause, time.monotonic() + pause, is_of_news)
        return before is None

    def end(self, what: int) -> None:
        """Notes that it could be read."""
        self._noted.pop(what, None)

    def of(self, what: int) -> SmsVerifyError | None:
        """Why it could not be read at last; `None` where it could."""
        noted = self._noted.get(what)
        return None if noted is None else noted.error

    def are_of_news(self, what: int) -> bool:
        """Whether news of it that the list has shown could not be read."""
        noted = self._noted.get(what)
        return noted is not None and noted.is_of_news

    def is_left_alone(self, what: int) -> bool:
        """Whether it is not asked for now."""
        noted = self._noted.get(what)
        return noted is not None and time.monotonic() < noted.until

    def end_in(self, some: Iterable[int], *, since: float) -> float | None:
        """Seconds until the first of those that have failed is asked for again; `None` where none has.

        Args:
            some: what was asked for.
            since: `time.monotonic()` after which a failure counts.
        """
        noted = [self._noted.get(one) for one in some]
        ends = [
            one.until for one in noted if one is not None and one.pause and one.until - one.pause >= since
        ]
        return max(min(ends) - time.monotonic(), 0.0) if ends else None
