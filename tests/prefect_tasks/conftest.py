"""Fixtures of the Prefect wing's tests: one Prefect server for all, and a simulated service for each.

The server is a process of its own with an empty database; nothing of the machine's own Prefect counts.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

# Prefect reads these when it is imported. Results are not kept below PREFECT_HOME by its older versions.
_home = tempfile.TemporaryDirectory(prefix="smsverify-prefect-")
for _name in [name for name in os.environ if name.startswith(("PREFECT_", "SMSVERIFY_"))]:
    del os.environ[_name]
os.environ |= {
    "PREFECT_HOME": _home.name,
    "PREFECT_RESULTS_LOCAL_STORAGE_PATH": f"{_home.name}/results",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLI_WELCOME": "false",
    "PREFECT_RUNNER_POLL_FREQUENCY": "1",
}

import pytest  # noqa: E402
from prefect.client.orchestration import SyncPrefectClient, get_client  # noqa: E402
from prefect.settings import (  # noqa: E402
    PREFECT_API_DATABASE_CONNECTION_URL,
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    temporary_settings,
)
from prefect.testing.utilities import prefect_test_harness  # noqa: E402

from prefect_smsverify import SmsVerifyCredentials  # noqa: E402
from smsverify.simulator import Simulator  # noqa: E402

# The rigs of the core's tests that need no framework.
sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

LASTING = {"temporary": {"validity": 360_000}}  # no order ends by itself while a test looks elsewhere


@pytest.fixture(scope="session", autouse=True)
def prefect_server() -> Iterator[str]:
    """The URL of the server's API."""
    # A run waits up to a second for the thread of its heartbeats, which no test is about.
    without_heartbeats = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
    with without_heartbeats, prefect_test_harness(server_startup_timeout=240):
        yield PREFECT_API_URL.value()


@pytest.fixture(scope="session")
def prefect_database(prefect_server: str) -> Path:
    """The file that the server keeps everything in."""
    return Path(PREFECT_API_DATABASE_CONNECTION_URL.value().partition(":///")[2])


@pytest.fixture
def results() -> Path:
    """Where Prefect keeps results."""
    return Path(_home.name) / "results"


@pytest.fixture
def simulate(
    smsverify_simulator_factory: Callable[..., Simulator], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Simulator]:
    """Starts a simulator that the SMSVERIFY_... environment points at; settings may be given."""

    def start(**settings: Any) -> Simulator:
        simulator = smsverify_simulator_factory(**{"products": LASTING, **settings})
        for name, value in simulator.environment(f"sqlite:///{tmp_path / 'store.db'}").items():
            monkeypatch.setenv(name, value)
        return simulator

    return start


@pytest.fixture
def simulator(simulate: Callable[..., Simulator]) -> Simulator:
    """A simulator whose minute lasts a second, and whose SMS come within a fraction of that."""
    return simulate()


@pytest.fixture
def silent(simulate: Callable[..., Simulator]) -> Simulator:
    """A simulator whose SMS never come."""
    return simulate(sms_delay="never")


@pytest.fixture
def saved(silent: Simulator, request: pytest.FixtureRequest) -> str:
    """The name of a block with the account of the environment: the `BLOCK` of the test's module."""
    name: str = request.module.BLOCK
    SmsVerifyCredentials().save(name, overwrite=True)
    return name


@pytest.fixture
def client(prefect_server: str) -> Iterator[SyncPrefectClient]:
    """A client of the server."""
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def account() -> SmsVerifyCredentials:
    """The account of the environment."""
    return SmsVerifyCredentials()


@pytest.fixture
def store_refuses(tmp_path: Path) -> Callable[..., AbstractContextManager[None]]:
    """Lets the store refuse one kind of write, such as `INSERT ON smsverify_waits`, for a `with` block."""

    def execute(statement: str) -> None:
        with closing(sqlite3.connect(tmp_path / "store.db", timeout=30)) as connection:
            connection.execute(statement)

    @contextmanager
    def refusing(write: str, when: str = "true") -> Iterator[None]:
        execute(
            f"CREATE TRIGGER refusal BEFORE {write} WHEN {when} BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
        try:
            yield
        finally:
            execute("DROP TRIGGER refusal")

    return refusing
