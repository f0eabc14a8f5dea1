"""Many numbers, and the code of each, by `@task.smsverify`."""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import DAG, task

COUNT = int(os.environ["NUMBERS"])
SERVICE_ID = 22

with DAG("by_task", max_active_tasks=2 * COUNT):

    @task.smsverify(product="temporary", service=SERVICE_ID, timeout=900)
    def sign_up(number: dict[str, Any]) -> str:
        """Stands for a form that is filled in at once."""
        return str(number["phone"])

    for number in range(COUNT):
        sign_up.override(task_id=f"verify_{number}")()
