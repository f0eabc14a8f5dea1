"""Fixtures for tests that talk to a simulated service. Nothing is imported until a fixture is used.

- ``smsverify_simulator``: a fresh, running `Simulator` on a free port, whose minute lasts one second.
- ``smsverify_simulator_factory``: a function that starts more: ``factory(speed=10, sms_delay="never")``.
- ``smsverify_env``: the same simulator as ``smsverify_simulator``, with the ``SMSVERIFY_…`` environment
  variables and Airflow's default connection pointing at it and at a store of the test's own, so that
  `SmsVerifyHook()` needs no argument. No other service can be reached while it is in use, whatever
  connection, block or argument names one: not from this process, nor from those that it starts.

Settings come from a marker, on a test, a class or a module (``pytestmark``)::

    @pytest.mark.smsverify_simulator(balance="1.00", sms_delay="never")
    def test_gives_up(smsverify_env): ...
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from smsverify import simulator  # loads nothing by itself

if TYPE_CHECKING:
    from smsverify.simulator.simulator import Simulator

_LOOPBACK = "127.0.0.1,localhost,::1"
_running: list[str] = []  # the addresses of the simulators of this process's tests

FAST: dict[str, Any] = {"speed": 60.0, "sms_delay": (3.0, 12.0)}
"""The fixtures' defaults: a minute lasts a second, and an SMS comes within 0.05 to 0.2 s."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "smsverify_simulator(**settings): settings of the simulator that the smsverify fixtures start",
    )


@pytest.fixture
def smsverify_simulator_factory() -> Iterator[Callable[..., Simulator]]:
    """A function that starts a simulator with the given settings; all are stopped at the end of the test."""
    running: list[Simulator] = []

    def start(**settings: Any) -> Simulator:
        running.append(simulator.Simulator(**{**FAST, **settings}).start())
        _running.append(running[-1].url)
        if "SMSVERIFY_ONLY" in os.environ:
            os.environ["SMSVERIFY_ONLY"] = " ".join(_running)
        return running[-1]

    yield start
    for started in running:
        _running.remove(started.url)
        started.stop()


@pytest.fixture
def smsverify_simulator(
    request: pytest.FixtureRequest, smsverify_simulator_factory: Callable[..., Simulator]
) -> Simulator:
    """A fresh, running simulator whose minute lasts one second; the marker gives settings."""
    settings: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("smsverify_simulator"))):
        settings.update(marker.kwargs)
    return smsverify_simulator_factory(**settings)


@pytest.fixture
def smsverify_env(
    smsverify_simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Simulator:
    """The test's simulator; nothing from outside of the test gets in, and nothing gets out."""
    for name, value in list(os.environ.items()):
        if name.upper().startswith("SMSVERIFY_") or _is_connection(name, value):
            monkeypatch.delenv(name)
    # A request to another service is refused.
    monkeypatch.setenv("SMSVERIFY_ONLY", " ".join(_running))
    # Airflow looks here before it looks into its database. What is blank comes from the variables below.
    monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", '{"conn_type": "smsverify"}')
    # A proxy would be asked for the simulator, and does not find it.
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, ",".join(filter(None, (os.environ.get(name), _LOOPBACK))))
    for name, value in smsverify_simulator.environment(f"sqlite:///{tmp_path / 'smsverify.db'}").items():
        monkeypatch.setenv(name, value)
    return smsverify_simulator


def _is_connection(name: str, value: str) -> bool:
    """Whether a variable holds a connection of our type, for Airflow."""
    return name.startswith("AIRFLOW_CONN_") and "smsverify" in f"{name} {value}".lower()
