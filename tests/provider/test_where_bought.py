"""Paid calls that are made where Airflow would make them again: in a Dag file, in a process of a task's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, TaskInstanceState, dag, task

from smsverify import SmsVerifyHook as CoreHook
from smsverify.errors import InvalidRequestError
from smsverify.simulator import Simulator
from smsverify_provider.hooks.smsverify import SmsVerifyHook

WHATSAPP = {"product": "temporary", "service": "WhatsApp"}

DAG_FILE = """
from airflow.sdk import DAG, task
from smsverify_provider.hooks.smsverify import SmsVerifyHook

{top}

with DAG("buys_when_parsed") as dag:
    @task
    def use(): pass
    use()
"""
ORDER = 'SmsVerifyHook().order("temporary", service="WhatsApp", key="mine")'


@pytest.mark.parametrize(
    "top",
    [
        ORDER,
        "import concurrent.futures\nwith concurrent.futures.ThreadPoolExecutor() as pool:\n"
        f"    pool.submit(lambda: {ORDER}).result()",
        f"import asyncio\nasync def buy(): return {ORDER}\nasyncio.run(buy())",
    ],
)
def test_nothing_is_bought_when_a_dag_file_is_parsed(
    connection: Any, sim: Simulator, tmp_path: Path, top: str
) -> None:
    file = tmp_path / "buys.py"
    file.write_text(DAG_FILE.format(top=top))
    for _ in range(2):
        errors = DagBag(file).import_errors
        assert "while a file is imported" in str(errors)
    assert sim.orders() == []


def test_nothing_is_bought_where_a_dag_is_defined(connection: Any, sim: Simulator) -> None:
    @dag
    def mistaken() -> None:
        SmsVerifyHook().order(**WHATSAPP)

    with pytest.raises(InvalidRequestError, match="while a Dag is defined"):
        mistaken()
    with DAG("also"), pytest.raises(InvalidRequestError, match="while a Dag is defined"):
        SmsVerifyHook().renew_expiring(3600)
    assert sim.requests() == []


# As Airflow begins the scripts of `@task.external_python` and `@task.virtualenv`. Without a supervisor, which
# these tests have not, its own script ends before it comes to the callable.
OTHER_PYTHON = """
import os, sys
os.environ["PYTHON_OPERATORS_VIRTUAL_ENV_MODE"] = "1"
from airflow.sdk.execution_time import task_runner
from smsverify_provider.hooks.smsverify import SmsVerifyHook
SmsVerifyHook().order("temporary", service="WhatsApp", key=sys.argv[1] if len(sys.argv) > 1 else None)
raise RuntimeError("after the purchase")
"""


@pytest.mark.slow
@pytest.mark.parametrize("key", [(), ("one for all tries",)])
def test_another_python_of_a_task_needs_a_key(
    run_task: Any, connection: Any, sim: Simulator, key: tuple[str, ...]
) -> None:
    @task
    def buy() -> str:
        command = [sys.executable, "-c", OTHER_PYTHON, *key]
        return subprocess.run(command, check=False, capture_output=True, text=True).stderr

    with DAG("external"):
        operator = buy().operator
    for _ in range(2):
        error = run_task(operator).xcoms["return_value"]
        assert ("after the purchase" if key else "key is missing") in error
    assert len(sim.orders()) == len(key)


def test_a_command_of_a_task_needs_a_key(
    run_task: Any, connection: Any, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in sim.environment(connection["extra"]["store_url"]).items():
        monkeypatch.setenv(name, value)
    command = f"{sys.executable} -c 'from smsverify.cli import main; import sys; sys.exit(main())'"
    order = f"{command} order temporary --service WhatsApp"
    assert run_task(BashOperator(task_id="buy", bash_command=order)).state == TaskInstanceState.FAILED
    assert sim.orders() == []
    keyed = BashOperator(task_id="buy", bash_command=order + " --key '{{ run_id }} {{ ti.map_index }}'")
    assert run_task(keyed).state == TaskInstanceState.SUCCESS
    assert len(sim.orders()) == 1


def test_the_hook_of_plain_python_needs_a_key_in_a_task(
    run_task: Any, connection: Any, sim: Simulator
) -> None:
    @task
    def buy() -> None:
        CoreHook(connection["password"], base_url=sim.url, store_url=connection["extra"]["store_url"]).order(
            **WHATSAPP
        )

    with DAG("plain"):
        operator = buy().operator
    result = run_task(operator)
    assert isinstance(result.error, InvalidRequestError)
    assert result.error.field == "key"
    assert sim.orders() == []
