"""Paid calls that are made where Prefect would make them again: in a flow's file, in a process of a run's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect import flow, task
from prefect.exceptions import ScriptError
from prefect.flows import load_flow_from_entrypoint

from smsverify import InvalidRequestError, SmsVerifyHook
from smsverify.simulator import Simulator

FLOW_FILE = """
from prefect import flow
from prefect_smsverify import SmsVerifyCredentials

number = SmsVerifyCredentials().get_hook().order("temporary", service="WhatsApp", key="mine")

@flow
def use():
    pass
"""


def test_nothing_is_bought_when_a_flows_file_is_loaded(simulator: Simulator, tmp_path: Path) -> None:
    file = tmp_path / "buys.py"
    file.write_text(FLOW_FILE)
    with pytest.raises(ScriptError, match="while a file is imported"):
        load_flow_from_entrypoint(f"{file}:use", use_placeholder_flow=False)
    # For a deployment, Prefect runs the assignments of a file that it cannot import one by one.
    assert load_flow_from_entrypoint(f"{file}:use").name == "use"
    assert simulator.orders() == []


@pytest.mark.slow
def test_a_command_of_a_flow_run_needs_a_key(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from prefect_smsverify import SmsVerifyCredentials\n"
    code += "SmsVerifyCredentials().get_hook().order('temporary', service='WhatsApp')"
    environment = os.environ | {"PREFECT__FLOW_RUN_ID": "01996f36-2a5f-7cbb-9cd6-2f4a0b1c2d3e"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=False, capture_output=True, text=True
    )
    assert "key is missing" in done.stderr
    assert simulator.orders() == []


def test_the_hook_of_plain_python_needs_a_key_in_a_run(silent: Simulator) -> None:
    @task
    def step(key: str | None) -> int:
        return SmsVerifyHook().order("temporary", service="WhatsApp", key=key).order_id

    @flow
    def whole(inside: bool, key: str | None = None) -> int:
        return step(key) if inside else step.fn(key)

    for inside in (True, False):
        with pytest.raises(InvalidRequestError, match="key is missing") as caught:
            whole(inside)
        assert caught.value.field == "key"
    assert silent.orders() == []
    assert whole(True, key="one") == whole(False, key="one")
