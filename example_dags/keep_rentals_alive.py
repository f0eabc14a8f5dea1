"""Keep all rented numbers of the account alive: every hour, those that end within four hours are renewed.

Each renewal is on record by rental and period, so catch-up, overlapping runs, retries and a second Dag with
the same rentals pay nothing twice. If a rental could not be renewed, or the wallet does not hold enough to
renew each rental once more, the run fails and alerts a person.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.sdk import dag

from smsverify_provider.operators.smsverify import SmsVerifyRenewExpiringOperator
from smsverify_provider.sensors.smsverify import SmsVerifyBalanceSensor


def alert(context: Any) -> None:
    """Stands for the notifier of your choice, such as Airflow's for mail, Slack or PagerDuty."""
    logging.getLogger(__name__).error("%s: %s", context["ti"].task_id, context.get("exception"))


@dag(
    description="Renews the rentals that end soon, and fails if one is not kept",
    doc_md=__doc__,
    schedule=timedelta(hours=1),
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 1,  # harmless: each payment is on record
        "retry_delay": timedelta(minutes=2),
        "on_failure_callback": alert,
    },
    tags=["smsverify", "example"],
)
def keep_rentals_alive() -> None:
    renew = SmsVerifyRenewExpiringOperator(
        task_id="renew_expiring",
        within=timedelta(hours=4),
        max_price="15",  # a rental that costs more is not renewed, and the run names it
        run_budget="50",
        doc_md="Renews each rental that ends within four hours, once for each period. The result lists all "
        "rentals with an `outcome` and its reason.",
    )
    lasts = SmsVerifyBalanceSensor(
        task_id="wallet_lasts",
        minimum=renew.output["next_cost"],
        timeout=0,  # looks once; a longer time waits for a top-up
        doc_md="Fails if the wallet does not hold enough to renew each rental once more.",
    )
    renew >> lasts


keep_rentals_alive()
