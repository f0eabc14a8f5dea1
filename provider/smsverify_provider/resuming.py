"""When a deferred task may be resumed."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

# A worker's supervisor notices only every five seconds that its task has deferred. If the task is resumed
# before that, the scheduler takes the old run's late end for the failure of the new one, and the event is
# lost. So no event comes earlier than this many seconds after the deferral.
RESUME_GAP = 8.0
# Seconds before its turn at which a task comes back: about as long as Airflow takes for that.
LEAD = 3.0
CENTURY = 36_525 * 86_400.0  # seconds


class Gap:
    """Keeps the event of a trigger back until its task may be resumed, and never for longer than the gap.

    Args:
        not_before: when that is, by the store's time: the clocks of worker and triggerer differ.
    """

    def __init__(self, not_before: float) -> None:
        self._not_before = not_before
        self._end = time.monotonic() + RESUME_GAP

    def note(self, now: float) -> None:
        """Takes what the store's time is; the trigger's own beginning counts until this is known."""
        self._end = time.monotonic() + min(max(self._not_before - now, 0.0), RESUME_GAP)

    async def passed(self) -> None:
        """Waits for its end."""
        await asyncio.sleep(self._end - time.monotonic())


def longest_deferral(seconds: float) -> timedelta:
    """A time span for a deferral, which has to end within Airflow's calendar."""
    return timedelta(seconds=min(seconds, CENTURY))
