"""A clock for lengths of time: nothing sets or slews it, and it goes on while the machine sleeps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

MINUTE: Final = 60.0  # seconds
HOUR: Final = 3600.0  # seconds
DAY: Final = 86_400.0  # seconds

_IS_LINUX: Final = hasattr(time, "CLOCK_BOOTTIME")
# Nanoseconds between readings of two clocks that are compared, and how often they are read for that.
_AT_ONCE: Final = 100_000
_TRIES: Final = 10
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_OFFSETS = Path("/proc/self/timens_offsets")


def boottime() -> float:
    """Seconds since the machine has started, suspension included; the same for all its processes.

    NTP never sets CLOCK_BOOTTIME, but it slews it: chrony by up to a twelfth, so that 60 of its seconds are
    over after 55. It does not slew CLOCK_MONOTONIC_RAW, which on Linux lacks the suspension.
    """
    # What lies between these readings makes the sum no earlier than the call, and no later than now.
    asleep = _asleep() if _IS_LINUX else 0
    return (time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) + asleep) / 1e9 - _OWN


def _asleep() -> int:
    """Nanoseconds for which the machine was suspended: what two clocks differ by that are slewed alike."""
    for _ in range(_TRIES):
        began = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        with_sleep = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        awake = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        if awake - began <= _AT_ONCE:
            break
    return with_sleep - awake


def _own_offset() -> float:
    """Seconds by which a container's time namespace has moved this process's clock."""
    try:
        lines = _OFFSETS.read_text(encoding="ascii").splitlines()
        offsets = {name: int(seconds) + int(rest) / 1e9 for name, seconds, rest in map(str.split, lines)}
    except (OSError, ValueError):
        return 0.0
    return offsets.get("boottime", 0.0)


_OWN = _own_offset()


def boot_id() -> str:
    """Names the machine's run since it has started, in all its containers; empty where it has no name."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
