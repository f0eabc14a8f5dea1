"""Where a paid call is made: never in an import, and never nameless in a run of a framework."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smsverify import InvalidRequestError, SmsVerifyHook
from smsverify._runtime.surroundings import refuse_in_import, run_name
from smsverify.cli import main
from smsverify.simulator import Simulator
from smsverify.wings import RunContext

IN_AIRFLOW = {"AIRFLOW_CTX_DAG_ID": "buy", "AIRFLOW_CTX_DAG_RUN_ID": "manual", "AIRFLOW_CTX_TASK_ID": "order"}
IN_PREFECT = {"PREFECT__FLOW_RUN_ID": "0199-run"}


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Any], None]]:
    """Imports a module of some lines, which sees a hook."""
    monkeypatch.syspath_prepend(tmp_path)

    def run(lines: str, hook: SmsVerifyHook) -> None:
        sys.modules["given"] = types.SimpleNamespace(hook=hook)  # type: ignore[assignment]
        (tmp_path / "module_that_buys.py").write_text(f"from given import hook\n{lines}\n")
        importlib.invalidate_caches()
        importlib.import_module("module_that_buys")

    yield run
    for name in ("given", "module_that_buys"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "line",
    [
        "hook.order('temporary', service='WhatsApp')",
        "hook.order('temporary', service='WhatsApp', key='mine')",
        "with hook.rented_number('temporary', service='WhatsApp') as number: pass",
        "hook.renew(7)",
        "hook.renew_expiring(3600)",
        "def buy(): hook.order('temporary', service='WhatsApp')\nbuy()",
    ],
)
def test_nothing_is_bought_while_a_file_is_imported(
    imported: Callable[..., None], hook: SmsVerifyHook, simulator: Simulator, line: str
) -> None:
    with pytest.raises(InvalidRequestError, match="while a file is imported"):
        imported(line, hook)
    assert simulator.orders() == []
    assert simulator.requests() == []


def test_what_an_imported_file_defines_may_buy(
    imported: Callable[..., None], hook: SmsVerifyHook, simulator: Simulator
) -> None:
    imported(
        "def buy(): return hook.order('temporary', service='WhatsApp')\nhook.renew_expiring(9, dry_run=True)",
        hook,
    )
    sys.modules["module_that_buys"].buy()
    assert len(simulator.orders()) == 1


def test_a_thread_of_a_dag_file_is_a_part_of_its_import(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "\n".join(
        [
            "from concurrent.futures import ThreadPoolExecutor",
            "from smsverify._runtime.surroundings import refuse_in_import",
            "problem = ThreadPoolExecutor(1).submit(refuse_in_import).exception()",
        ]
    )
    module = types.ModuleType("unusual_prefix_0815_my_dags")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # before it runs, as Airflow does
    exec(compile(lines, "my_dags.py", "exec"), vars(module))
    assert "while a file is imported" in str(vars(module)["problem"])
    refuse_in_import()


@pytest.mark.parametrize("environment", [IN_AIRFLOW, IN_PREFECT])
def test_in_a_process_that_a_run_has_started_a_paid_call_needs_a_key(
    hook: SmsVerifyHook, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for call in (
        lambda: hook.order("rent-1day", service="Tinder"),
        lambda: hook.renew(7),
        lambda: hook.rented_number("temporary", service="WhatsApp").__enter__(),
    ):
        with pytest.raises(InvalidRequestError, match="key is missing") as caught:
            call()
        assert caught.value.field == "key"
    assert simulator.requests() == []
    orders = [hook.order("rent-1day", service="Tinder", key="buy manual order") for _ in range(2)]
    assert orders[0].order_id == orders[1].order_id
    assert len(simulator.orders()) == 1


def test_budgets_of_a_run_hold_in_every_process_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_name() is None
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "0199-run")
    assert RunContext().name() == "prefect:0199-run"
    for name, value in IN_AIRFLOW.items():
        monkeypatch.setenv(name, value)
    assert RunContext().name() == "airflow:buy:manual"


def test_the_command_line_asks_for_a_key_too(
    simulator: Simulator, store_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**simulator.environment(store_url), **IN_AIRFLOW}.items():
        monkeypatch.setenv(name, value)
    order = ["order", "temporary", "--service", "WhatsApp"]
    assert main(order) == 2
    assert "key is missing" in capsys.readouterr().err
    assert simulator.orders() == []
    assert main([*order, "--key", "manual order"]) == 0


def test_what_a_task_has_left_in_its_own_process_is_no_run() -> None:
    code = (
        "import os, sys, types\n"
        "from smsverify._runtime.surroundings import run_name\n"
        "sys.modules['airflow.sdk.execution_time.task_runner'] = types.ModuleType('task_runner')\n"
        "print(run_name())\n"
        f"os.environ.update({IN_AIRFLOW!r})\n"
        "print(run_name())\n"
    )
    bare = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_CTX_")}
    for environment, expected in ((bare, ["None", "None"]), (bare | IN_AIRFLOW, ["airflow:buy:manual"] * 2)):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
        )
        assert done.stdout.split() == expected
