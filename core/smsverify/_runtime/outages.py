"""Which failures of something that is tried again and again are worth a line of the log."""

from __future__ import annotations

from typing import Final

from smsverify._runtime.clock import MINUTE, boottime

# Seconds without a failure after which the same one is another outage; a try may take a minute to fail.
APART: Final = 2 * MINUTE


class Outages:
    """What has failed last, for a caller that tries it until it works, and cannot see when it does."""

    def __init__(self) -> None:
        self._text: str | None = None
        self._failed_at = 0.0

    def begin_with(self, error: Exception) -> bool:
        """Notes a failure. Returns whether an outage begins with it: its words are not those of the failure
        before, or nothing has failed for two minutes.
        """
        before, failed_at = self._text, self._failed_at
        self._text, self._failed_at = str(error), boottime()
        return self._text != before or self._failed_at - failed_at > APART
