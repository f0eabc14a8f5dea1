"""Fixtures for the tests of the command line."""

from __future__ import annotations

import pytest

from smsverify.simulator import Simulator


@pytest.fixture
def environment(simulator: Simulator, store_url: str, monkeypatch: pytest.MonkeyPatch) -> Simulator:
    """The simulator, with the environment pointing at it."""
    for name, value in simulator.environment(store_url).items():
        monkeypatch.setenv(name, value)
    return simulator
