"""A run that goes down gives back what it waits for; after kill -9 the next run finds it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowFilter
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.flow_engine import run_flow
from prefect.states import Cancelling, Scheduled
from rigs import eventually
from rigs.sign_ups import statuses
from sqlalchemy import create_engine, text

from smsverify.simulator import Simulator

SLOW = pytest.mark.slow
SCENARIOS = Path(__file__).with_name("scenarios.py")
PATIENCE = 120.0  # seconds, for machines that are busy with other things


@pytest.fixture
def start(
    prefect_server: str, silent: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a scenario in a process of its own."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    running: list[subprocess.Popen[bytes]] = []

    def started(*arguments: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "output.txt").open("wb") as output:
            command = [sys.executable, str(SCENARIOS), *arguments]
            # A group of its own: a process that is killed cannot end those that it has started.
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
            running.append(process)
        return running[-1]

    yield started
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    print((tmp_path / "output.txt").read_text())


@pytest.fixture
def waits(tmp_path: Path) -> Callable[[], int]:
    """How many waits are on record in the store."""

    def count() -> int:
        if not (tmp_path / "store.db").exists():
            return 0
        with create_engine(f"sqlite:///{tmp_path / 'store.db'}").connect() as connection:
            if not connection.dialect.has_table(connection, "smsverify_waits"):
                return 0
            return int(connection.execute(text("SELECT count(*) FROM smsverify_waits")).scalar_one())

    return count


def bring_down(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Sends the signal, and again if need be: on a busy machine, a main thread that is blocked now and
    then sleeps through the first one.
    """
    for _ in range(4):
        process.send_signal(how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert process.wait(PATIENCE / 4) != 0
            return
    raise AssertionError(f"{how.name} does not end the process")


def scenarios() -> ModuleType:
    spec = spec_from_file_location("scenarios", SCENARIOS)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "how", "numbers", "waiting"),
    [
        ("direct", signal.SIGTERM, 1, 1),
        pytest.param("mapped", signal.SIGTERM, 3, 3, marks=SLOW),
        ("mapped", signal.SIGINT, 3, 3),
        pytest.param("mapped_coroutines", signal.SIGTERM, 3, 3, marks=SLOW),
        pytest.param("submitted_at_once", signal.SIGINT, 3, 3, marks=SLOW),
        ("gathered", signal.SIGTERM, 3, 3),
        pytest.param("gathered", signal.SIGINT, 3, 3, marks=SLOW),
        ("chained_in_a_transaction", signal.SIGTERM, 3, 3),
        pytest.param("mapped_wrappers", signal.SIGTERM, 3, 3, marks=SLOW),
        pytest.param("mapped_hooks", signal.SIGTERM, 3, 3, marks=SLOW),
        pytest.param("subflow_in_a_task", signal.SIGTERM, 3, 3, marks=SLOW),
        ("busy_with_a_rented_number", signal.SIGTERM, 1, 0),
        pytest.param("busy_coroutine_with_a_rented_number", signal.SIGTERM, 1, 0, marks=SLOW),
    ],
)
@pytest.mark.slow
def test_every_number_is_given_back_on(
    name: str,
    how: signal.Signals,
    numbers: int,
    waiting: int,
    start: Callable[..., subprocess.Popen[bytes]],
    waits: Callable[[], int],
    silent: Simulator,
) -> None:
    process = start(name)
    eventually(lambda: process.poll() is not None or len(silent.orders()) == numbers, "the orders")
    eventually(lambda: process.poll() is not None or waits() == waiting, "the waits")
    bring_down(process, how)
    assert statuses(silent) == ["cancelled"] * numbers
    assert silent.balance() == 50


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("name", ["renting", "renting_coroutine"])
@pytest.mark.slow
def test_a_block_gives_back_what_was_bought_when_the_signal_came(
    name: str, how: str, start: Callable[..., subprocess.Popen[bytes]], silent: Simulator
) -> None:
    process = start(name, how)
    assert process.wait(PATIENCE) != 0
    assert statuses(silent) == ["cancelled"]
    assert silent.balance() == 50


@pytest.mark.parametrize("how", [pytest.param("cancelled", marks=SLOW), "killed"])
@pytest.mark.slow
def test_waits_in_other_processes_end_when_their_flow_is(
    how: str,
    start: Callable[..., subprocess.Popen[bytes]],
    waits: Callable[[], int],
    silent: Simulator,
    client: SyncPrefectClient,
) -> None:
    process = start("in_processes")
    eventually(lambda: process.poll() is not None or waits() == 2, "the waits")
    if how == "killed":
        process.kill()
    else:
        client.set_flow_run_state(newest_run(client, "in-processes").id, Cancelling())
    eventually(lambda: statuses(silent) == ["cancelled"] * 2, "the refunds")
    assert process.wait(PATIENCE) != 0


def newest_run(client: SyncPrefectClient, flow: str) -> FlowRun:
    (run,) = client.read_flow_runs(
        flow_filter=FlowFilter(name={"any_": [flow]}), sort=FlowRunSort.START_TIME_DESC, limit=1
    )
    return run


@pytest.mark.slow
def test_numbers_of_a_cancelled_run_are_given_back(
    start: Callable[..., subprocess.Popen[bytes]],
    waits: Callable[[], int],
    silent: Simulator,
    client: SyncPrefectClient,
) -> None:
    start("serve")

    def deployment() -> Any:
        with contextlib.suppress(ObjectNotFound):
            return client.read_deployment_by_name("mapped/scenario")

    run = client.create_flow_run_from_deployment(eventually(deployment, "the deployment").id)
    eventually(lambda: waits() == 3, "the waits")
    client.set_flow_run_state(run.id, Cancelling())
    eventually(lambda: client.read_flow_run(run.id).state.name == "Cancelled", "the cancellation")
    assert statuses(silent) == ["cancelled"] * 3


@pytest.mark.slow
def test_a_run_that_was_killed_is_handed_its_numbers_when_it_starts_again(
    start: Callable[..., subprocess.Popen[bytes]],
    waits: Callable[[], int],
    silent: Simulator,
    client: SyncPrefectClient,
) -> None:
    process = start("mapped")
    eventually(lambda: waits() == 3, "the waits")
    process.kill()
    process.wait()
    bought = [order.order_id for order in silent.orders()]
    assert statuses(silent) == ["pending"] * 3

    run = newest_run(client, "mapped")
    client.set_flow_run_state(run.id, Scheduled(), force=True)
    for order_id in bought:
        silent.deliver_sms(order_id, otp="123456")
    run_flow(scenarios().mapped, flow_run=client.read_flow_run(run.id))
    assert [order.order_id for order in silent.orders()] == bought
    assert client.read_flow_run(run.id).state.is_completed()
