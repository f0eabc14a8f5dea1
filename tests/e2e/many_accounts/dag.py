"""Many accounts, each in a mapped task; see test_many_accounts.py."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task
from form import fill_in

ACCOUNTS = range(int(os.environ["ACCOUNTS"]))

with DAG("many_accounts", max_active_tasks=1000):

    @task.smsverify(
        product="temporary",
        service="WhatsApp",
        max_price="0.50",
        attempts=4,
        timeout=5,
        retries=3,
        retry_delay=timedelta(seconds=1),
    )
    def sign_up(number: dict[str, Any], account: int) -> int:
        return fill_in(number["order_id"], account)

    @task(trigger_rule="all_done")
    def report(verified: Iterable[dict[str, Any]]) -> dict[str, int]:
        """The order of each account that has a code."""
        return {str(one["result"]): one["order_id"] for one in verified}

    report(sign_up.expand(account=list(ACCOUNTS)))
