"""What a Dag file pays for naming our operators."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
