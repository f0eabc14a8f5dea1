"""What a Dag file pays for naming our operators."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SNIPPETS = Path(__file__).parents[2] / "docs" / "snippets"
HEAVY = {
    "requests",
    "urllib3",
    "sqlalchemy",
    "starlette",
    "uvicorn",
    "psycopg",
    "airflow.models",
    "airflow.triggers",
}
OPERATORS = (
    "import smsverify_provider, smsverify_provider.operators.smsverify, smsverify_provider.sensors.smsverify"
)


def loaded_by(*statements: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after some statements."""
    code = "; ".join([*statements, "import sys; print('loaded', *sys.modules)"])
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split("loaded ")[-1].split())


@pytest.mark.slow
def test_operators_and_sensor_load_no_client_no_database_and_no_server() -> None:
    sdk = "from airflow.sdk import DAG, BaseOperator, BaseSensorOperator, conf, task"
    ours = loaded_by(sdk, OPERATORS) - loaded_by(sdk)
    assert {
        name for name in ours if any(name == heavy or name.startswith(f"{heavy}.") for heavy in HEAVY)
    } == set()
    # Of the core, what checks the arguments and names the errors.
    of_the_core = {name.removeprefix("smsverify.") for name in ours if name.startswith("smsverify.")}
    files = ("actions", "amounts", "ids", "names", "patterns", "phones", "templates", "times", "values")
    checks = {"_input", *(f"_input.{name}" for name in files)}
    runtime = {"_runtime", *(f"_runtime.{name}" for name in ("clock", "forking", "job_thread", "threads"))}
    assert of_the_core <= {"_version", "text", "errors", "models", "checks", "wings", *checks, *runtime}
    assert "regex" not in ours


@pytest.mark.slow
def test_what_every_component_of_airflow_imports_is_next_to_nothing() -> None:
    base = "import airflow.sdk.plugins_manager"
    ours = loaded_by(
        base, "import smsverify_provider.plugin, smsverify_provider.get_provider_info"
    ) - loaded_by(base)
    # With the provider installed, Airflow has loaded most of it by itself.
    assert ours <= {
        "smsverify",
        "smsverify._version",
        "smsverify_provider",
        "smsverify_provider.get_provider_info",
        "smsverify_provider.plugin",
        "smsverify_provider.versions",
    }


RUN = """
import sys, time
import airflow.settings

airflow.settings.initialize()
there = set(sys.modules)
from airflow.sdk.exceptions import TaskDeferred
from smsverify_provider.hooks.smsverify import SmsVerifyHook
from smsverify_provider.operators.smsverify import SmsVerifyOperator

numbers = []
try:
    SmsVerifyOperator(
        task_id="verify", python_callable=numbers.append, product="temporary", service="WhatsApp", key="k"
    ).execute({})
except TaskDeferred:
    while SmsVerifyHook().check_otp(numbers[0]["order_id"]) is None:
        time.sleep(0.1)
print("loaded", *(name for name in sys.modules if name not in there))
"""


@pytest.mark.slow
def test_a_task_loads_nothing_of_smsverify_that_local_settings_have_loaded(connection: object) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SNIPPETS)}
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,  # if no code comes
    )
    loaded = set(done.stdout.split("loaded ")[-1].split())
    # A hook loads this one with its first request, for the sake of requests, which is there.
    assert {name for name in loaded if name.startswith("smsverify")} <= {"smsverify._service.wire"}
    assert not loaded & {"requests", "sqlalchemy"}
