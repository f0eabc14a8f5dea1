"""The clock for lengths of time: the same for all processes of a machine."""

from __future__ import annotations

import subprocess
import sys

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
