"""What the tests of rentals share: a service for days, and a clock that lets them pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rigs.money import Clock

from smsverify.simulator import Simulator


@pytest.fixture
def service(simulate: Callable[..., Simulator]) -> Simulator:
    """A service whose days are days, and which takes any number of requests."""
    return simulate(speed=1.0, rate_limit=None, balance="200", cancel_active="refund")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of all, which a test can put forward."""
    return Clock(monkeypatch)
