"""A clock for lengths of time: it cannot be set, and it goes on while the machine sleeps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

MINUTE: Final = 60.0  # seconds
DAY: Final = 86_400.0  # seconds

# macOS has no CLOCK_BOOTTIME; its CLOCK_MONOTONIC counts sleep as well.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_OFFSETS = Path("/proc/self/timens_offsets")


def boottime() -> float:
    """Seconds since the machine has started, suspension included; the same for all its processes."""
    return time.clock_gettime(_CLOCK) - _OWN


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
