"""Many numbers, and the code of each, by the operators of smsverify."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from smsverify_provider.operators.smsverify import SmsVerifyOrderOperator
from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor

COUNT = int(os.environ["NUMBERS"])
SERVICE_ID = 22

with DAG("by_operators", max_active_tasks=2 * COUNT):
    for number in range(COUNT):
        ordered = SmsVerifyOrderOperator(task_id=f"order_{number}", product="temporary", service=SERVICE_ID)
        SmsVerifyOtpSensor(
            task_id=f"wait_{number}",
            order_id=ordered.output["order_id"],
            timeout=900,
            deferrable=True,
        )
