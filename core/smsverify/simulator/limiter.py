"""The service's rate limit, as strict as its documentation can be read: "60 requests / API key / minute".

No window of the period, wherever it begins, ever sees more than the limit.
"""

from __future__ import annotations

from collections import deque


class SlidingWindow:
    """The arrivals of one API key. Not thread-safe: its owner reads the clock and calls it under one lock."""

    def __init__(self) -> None:
        self.max_in_window = 0
        """The highest number of requests, refused ones included, that arrived in any window so far."""
        self._arrivals: deque[float] = deque()
        self._counted: deque[float] = deque()

    def arrive(self, at: float, limit: int | None, period: float, count_refused: bool) -> float | None:
        """Count one request.

        Args:
            at: When it arrived, seconds; never earlier than the one before.
            limit: How many any window may see; None for no limit.
            period: The window's length, seconds.
            count_refused: Whether a refused request fills the window too.

        Returns:
            None when the request may pass, otherwise the seconds until one could.
        """
        self._arrivals.append(at)
        for times in (self._arrivals, self._counted):
            while times and times[0] <= at - period:
                times.popleft()
        self.max_in_window = max(self.max_in_window, len(self._arrivals))
        if limit is None or len(self._counted) < limit:
            self._counted.append(at)
            return None
        if count_refused:
            self._counted.append(at)
        return self._counted[-limit] + period - at
