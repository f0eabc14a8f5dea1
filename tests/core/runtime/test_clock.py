"""The clock for lengths of time: the same for all processes of a machine, and even whatever NTP does."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from smsverify._runtime.clock import boottime

_PRINT = "from smsverify._runtime.clock import boottime; print(boottime())"


@pytest.mark.parametrize("seconds", [1_000_000, -1])
def test_a_container_with_a_clock_of_its_own_has_the_same_time(seconds: int) -> None:
    moved = ["unshare", "--time", "--boottime", str(seconds)]
    try:
        subprocess.run([*moved, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no time namespace can be made here")
    before = boottime()
    program = [*moved, sys.executable, "-c", _PRINT]
    printed = subprocess.run(program, check=True, capture_output=True, text=True)
    assert before - 0.1 <= float(printed.stdout) <= boottime() + 0.1


class Clocks:
    """The clocks of a machine whose time NTP slews.

    Args:
        rate: seconds that the slewed clocks count in a second.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rate: float) -> None:
        self._rate = rate
        self._true, self._asleep = 5_000_000_000, 3_000_000_000  # ns
        self.between = 0  # ns that pass between two readings
        monkeypatch.setattr(time, "clock_gettime_ns", self._read)
        monkeypatch.setattr(time, "clock_gettime", lambda clock: self._read(clock) / 1e9)

    def let_pass(self, seconds: float, *, asleep: float = 0.0) -> None:
        self._true += int(seconds * 1e9)
        self._asleep += int(asleep * 1e9)

    def _read(self, clock: int) -> int:
        self._true += self.between
        slewed = int(self._true * self._rate)
        known = {time.CLOCK_MONOTONIC_RAW: self._true, time.CLOCK_MONOTONIC: slewed}
        return known.get(clock, slewed + self._asleep)


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="these are the clocks of Linux")
@pytest.mark.parametrize("rate", [13 / 12, 11 / 12])
def test_a_machine_whose_time_is_slewed_counts_evenly(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(monkeypatch, rate)
    began = boottime()
    clocks.let_pass(60)
    assert boottime() - began == pytest.approx(60)
    clocks.let_pass(5, asleep=3600)
    assert boottime() - began == pytest.approx(60 + 3600 + 5)


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="these are the clocks of Linux")
def test_a_process_that_is_interrupted_counts_forwards_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(monkeypatch, 1.0)
    moments = []
    for pause in (1_000, 10_000_000_000, 50, 1_000_000):
        clocks.between = pause
        moments.append(boottime())
    assert moments == sorted(moments)
