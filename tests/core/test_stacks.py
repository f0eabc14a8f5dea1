"""What the stacks ask Airflow for happens once, also where its locked database refuses it at first."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from rigs.wire import WireServer, answer

from stacks import AirflowStack, Processes
from stacks.airflow import Run

LOCKED = answer(500, {"detail": {"reason": "Database error"}})
THERE = answer(409, {"detail": {"reason": "Unique constraint violation"}})
RUN = answer(200, {"dag_id": "d", "dag_run_id": "r", "state": "queued"})


@pytest.fixture
def airflow(wire: WireServer, tmp_path: Path) -> AirflowStack:
    stack = AirflowStack(Processes(tmp_path), Path(sys.prefix), dags=tmp_path, home=tmp_path)
    stack.rest.base_url = wire.url
    return stack


@pytest.mark.parametrize("then", [[RUN], [THERE]], ids=["refused", "carried out"])
def test_a_run_that_is_answered_with_an_error_is_started_once(
    then: list[object], wire: WireServer, airflow: AirflowStack
) -> None:
    wire.on("GET", answer(200, {"import_errors": []}), RUN)
    wire.on("PATCH", LOCKED, RUN)
    wire.on("POST", LOCKED, *then)
    assert airflow.trigger_dag("d") == Run("d", "r", "queued")
    assert len({json.loads(request.body)["dag_run_id"] for request in wire.of("POST")}) == 1
    assert wire.posts == 2


def test_what_airflow_refuses_for_good_is_an_error(wire: WireServer, airflow: AirflowStack) -> None:
    wire.on("POST", answer(403, {"detail": "Forbidden"}))
    with pytest.raises(RuntimeError, match="Forbidden"):
        airflow.make_pool("narrow", slots=1)
    assert wire.posts == 1


def test_a_pool_and_a_cleared_task_are_asked_for_again(wire: WireServer, airflow: AirflowStack) -> None:
    wire.on("GET", RUN)
    wire.on("POST", LOCKED, THERE, LOCKED, RUN)
    airflow.make_pool("narrow", slots=1)
    airflow.clear(Run("d", "r", "failed"), ["wait"])
    assert wire.posts == 4
