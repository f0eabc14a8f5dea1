"""Keep one rented number for as long as this Dag runs: rent it on the first run, and renew it before it ends.

The purchase has a key of its own and so belongs to no single run: every run is handed the same order for as
long as that lives, and a new number is rented after it has ended.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import dag, task

from smsverify_provider.operators.smsverify import SmsVerifyOrderOperator, SmsVerifyRenewOperator

RENEW_WITHIN = timedelta(hours=4)


@dag(
    schedule=timedelta(hours=1),
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    # A renewal is paid once for all tries of its task, so a retry is safe.
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    tags=["smsverify", "example"],
)
def keep_rental_alive() -> None:
    rental = SmsVerifyOrderOperator(
        task_id="rent_number",
        product="rent-1day",
        service="Tinder",
        max_price="1.50",
        key="keep_rental_alive",
    )

    @task.short_circuit
    def ends_soon(order_id: int) -> bool:
        """Whether it is time to renew. The service tells the time left for 1-day and 30-day rentals."""
        # Imported here: Airflow parses this file all the time, and the hook brings the whole client with it.
        from smsverify_provider.hooks.smsverify import SmsVerifyHook

        left = SmsVerifyHook().get_status(order_id).time_left_seconds
        return left is not None and left < RENEW_WITHIN.total_seconds()

    renew = SmsVerifyRenewOperator(
        task_id="renew_rental",
        order_id=rental.output["order_id"],
        max_price="1.50",
    )
    ends_soon(rental.output["order_id"]) >> renew


keep_rental_alive()
