"""Many numbers, and the code of each, by the operators for HTTP."""

from __future__ import annotations

import json
import os
from datetime import timedelta

from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import DAG

COUNT = int(os.environ["NUMBERS"])
SERVICE_ID = 22

with DAG(
    "by_http",
    max_active_tasks=2 * COUNT,
    # For the 429s, which neither the operator nor the sensor waits out.
    default_args={"retries": 20, "retry_delay": timedelta(seconds=10)},
):
    for number in range(COUNT):
        order = HttpOperator(
            task_id=f"order_{number}",
            http_conn_id="sms",
            endpoint="api/v1/order/temporary/",
            headers={"Content-Type": "application/json"},
            data=json.dumps({"service_id": SERVICE_ID}),
            response_filter=lambda response: response.json()["data"]["order_id"],
        )
        order >> HttpSensor(
            task_id=f"wait_{number}",
            http_conn_id="sms",
            endpoint=f"api/v1/order/{{{{ ti.xcom_pull('order_{number}') }}}}/status/",
            response_check=lambda response: bool(response.json()["data"]["otp"]),
            mode="reschedule",  # a wait holds no worker between two looks
            poke_interval=5,
            timeout=900,
        )
