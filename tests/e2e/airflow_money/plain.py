"""The same Dags as in ours.py as one writes them with the operators for HTTP; see test_airflow_money.py."""

from __future__ import annotations

import json
import os
import signal
from datetime import timedelta
from typing import Any

from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import DAG, task

RETRY = {"retries": 1, "retry_delay": timedelta(seconds=2)}
TELEGRAM = 22


class DiesAfterOrdering(HttpOperator):
    """Its process is killed when the number is bought and nothing was returned yet."""

    def execute(self, context: Any) -> Any:
        order_id = super().execute(context)
        if context["ti"].try_number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return order_id


def order(area_code: int, operator: Any = HttpOperator, **arguments: Any) -> Any:
    return operator(
        task_id="order",
        http_conn_id="sms",
        method="POST",
        endpoint="api/v1/order/temporary/",
        headers={"Content-Type": "application/json"},
        data=json.dumps({"service_id": TELEGRAM, "area_code": str(area_code)}),
        response_filter=lambda response: response.json()["data"]["order_id"],
        **RETRY | arguments,
    )


def wait(ordered: Any, **arguments: Any) -> Any:
    # Its deferrable mode knows no check of the answer, so that a wait for a code has to poke or reschedule.
    sensor = HttpSensor(
        task_id="wait",
        http_conn_id="sms",
        endpoint="api/v1/order/{{ ti.xcom_pull('order') }}/status/",
        response_check=lambda response: bool(response.json()["data"]["otp"]),
        **(
            {"timeout": 600, "mode": "reschedule", "poke_interval": 15, "deferrable": True}
            | RETRY
            | arguments
        ),
    )
    ordered >> sensor
    return sensor


with DAG("plain_lost_answer"):
    wait(order(201))
with DAG("plain_worker_killed"):
    wait(order(202, DiesAfterOrdering))
with DAG("plain_marked_failed"):
    wait(order(203))
with DAG("plain_marked_success"):
    wait(order(204))
with DAG("plain_cleared"):
    wait(order(205))
with DAG("plain_cleared_from_the_start"):
    wait(order(206))
with DAG("plain_run_timeout", dagrun_timeout=timedelta(seconds=60)):
    wait(order(207))
with DAG("plain_timed_out"):
    wait(order(208), timeout=10)
with DAG("plain_teardown"):
    ordered = order(209)

    @task
    def work() -> None:
        raise RuntimeError("the step between fails")

    cancel = HttpOperator(
        task_id="cancel",
        http_conn_id="sms",
        method="POST",
        endpoint="api/v1/order/{{ ti.xcom_pull('order') }}/cancel/",
    )
    middle = work()
    ordered.as_setup() >> middle >> wait(ordered) >> cancel.as_teardown(setups=ordered)
with DAG("plain_triggerer_killed"):
    wait(order(210))
