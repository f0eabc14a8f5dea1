"""What the tests of the sensor share."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import DAG, TaskInstanceState

from smsverify.models import Order
from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor


@pytest.fixture
def order(hook: Any) -> Order:
    return hook.order("temporary", service="WhatsApp")


@pytest.fixture
def run_sensor(run_task: Any, run_dag: Any) -> Callable[..., Any]:
    """Runs a sensor to its end in a mode; returns its state, its result and its error."""

    def run(mode: str, **arguments: Any) -> tuple[str, Any, BaseException | None]:
        with DAG(f"sensor_{mode}_{uuid.uuid4().hex[:8]}") as dag:
            if mode == "deferrable":
                SmsVerifyOtpSensor(task_id="wait", deferrable=True, **arguments)
            else:
                SmsVerifyOtpSensor(
                    task_id="wait", mode=mode, poke_interval=0.05, deferrable=False, **arguments
                )
        if mode == "deferrable":
            result = run_dag(dag, run_triggerer=True)
            return str(result["wait"].state), result["wait"].xcom, result["wait"].error
        while True:
            result = run_task(dag.get_task("wait"))
            if result.state != TaskInstanceState.UP_FOR_RESCHEDULE:
                return result.state.value, result.xcoms.get("return_value"), result.error
            time.sleep(0.05)

    return run
