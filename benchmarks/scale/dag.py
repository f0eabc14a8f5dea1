"""As many verified accounts as asked for, each a mapped task."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task


@dag(
    schedule=None,
    params={"accounts": Param(200, type="integer", minimum=1)},
    # Airflow uses tries up while its own components are down.
    default_args={"retries": 20, "retry_delay": timedelta(seconds=10)},
    max_active_tasks=1000,
)
def scale() -> None:
    @task
    def names(**context: Any) -> list[str]:
        return [f"airflow-{number}" for number in range(context["params"]["accounts"])]

    @task.smsverify(product="temporary", service="WhatsApp", max_price="0.50", attempts=4, timeout=300)
    def sign_up(number: dict[str, Any], name: str) -> str:
        return f"{name}:{number['order_id']}"

    sign_up.expand(name=names())


scale()
