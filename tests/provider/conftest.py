"""What the tests of the Airflow wing share.

pytest-airflow-in-a-box gives them a disposable AIRFLOW_HOME, `run_task` (one task, no database), `session`
(the metadata database) and `run_dag` (a whole Dag in this process, triggers included).
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smsverify._parts import Parts
from smsverify.simulator import Simulator

# The rigs of the core's tests that need no framework, and what tests of the wing share.
sys.path[:0] = [str(Path(__file__).parents[1] / "core"), str(Path(__file__).parent)]


@pytest.fixture
def sim(smsverify_simulator: Simulator) -> Simulator:
    """The simulated service; a minute lasts a second. The marker `smsverify_simulator` gives settings.

    No order ends by itself, however long a test takes.
    """
    lasting = {name: {"validity": 3_600_000.0} for name in ("temporary", "best-temp", "global")}
    smsverify_simulator.configure(products=lasting)
    return smsverify_simulator


@pytest.fixture
def connection(sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The default connection, to the simulator and a fresh store, as `AIRFLOW_CONN_…` holds it."""
    value = {
        "conn_type": "smsverify",
        "password": sim.api_key,
        "host": sim.url,
        "extra": {"store_url": f"sqlite:///{tmp_path / 'smsverify.db'}", "rate_period": sim.rate_period},
    }
    monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(value))
    yield value
    from rigs import let_go_of_all_numbers

    let_go_of_all_numbers()  # a task has no process of its own here, and its store is gone soon


@pytest.fixture
def hook(connection: dict[str, Any]) -> Any:
    """The wing's hook on the default connection."""
    from smsverify_provider.hooks.smsverify import SmsVerifyHook

    return SmsVerifyHook()


@pytest.fixture
def rooms(hook: Any) -> Parts:
    """The rooms of the account, made anew on its store: for what no public method does or shows."""
    from rigs.rooms import rooms_of

    return rooms_of(hook)


@pytest.fixture
def going_back(hook: Any) -> Callable[[], list[int]]:
    """The orders that are to be given back, by the records."""
    from rigs import rooms

    return lambda: rooms.going_back(hook)


@pytest.fixture
def carry_out_releases(hook: Any) -> Callable[[], None]:
    """Gives back what is due, as each purchase does; this one finds nothing to buy."""
    from rigs.purchases import read_prices

    return lambda: read_prices(hook)


@pytest.fixture(autouse=True)
def _no_kill_outlives_its_store(tmp_path: Path) -> Iterator[None]:
    """A task that is killed leaves what it gives back to threads, which have their time."""
    yield
    for thread in threading.enumerate():
        if thread.name == "smsverify-kill":
            thread.join(30)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow in one process has not the race that deferred tasks avoid."""
    monkeypatch.setattr("smsverify_provider.deferring.RESUME_GAP", 0.0)


@pytest.fixture
def airflow_says(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Sets the state that Airflow has on record of the task; at first a user has marked it as failed."""

    def airflow_says(state: Any) -> None:
        def state_of(_ti: Any) -> Any:
            if isinstance(state, Exception):
                raise state
            return state

        monkeypatch.setattr("smsverify_provider.kills.state_of", state_of)

    airflow_says("failed")
    return airflow_says
