"""Many numbers, and the code of each: by the operators for HTTP, by those of smsverify, and by its task."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import Any

from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import DAG, task

from smsverify_provider.operators.smsverify import SmsVerifyOrderOperator
from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor

COUNT = int(os.environ["NUMBERS"])
SERVICE_ID = 22
# By HTTP the retries are for the 429s, which neither the operator nor the sensor waits out.
RUN = {
    "max_active_tasks": 2 * COUNT,
    "default_args": {"retries": 20, "retry_delay": timedelta(seconds=10)},
}

with DAG("by_http", **RUN):
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

with DAG("by_operators", **RUN):
    for number in range(COUNT):
        ordered = SmsVerifyOrderOperator(task_id=f"order_{number}", product="temporary", service=SERVICE_ID)
        SmsVerifyOtpSensor(
            task_id=f"wait_{number}",
            order_id=ordered.output["order_id"],
            timeout=900,
            deferrable=True,
        )

with DAG("by_task", **RUN):

    @task.smsverify(product="temporary", service=SERVICE_ID, timeout=900)
    def sign_up(number: dict[str, Any]) -> str:
        """Stands for a form that is filled in at once."""
        return str(number["phone"])

    for number in range(COUNT):
        sign_up.override(task_id=f"verify_{number}")()
