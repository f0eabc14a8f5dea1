"""Start work when an SMS arrives on a rental: one run for each SMS, or for several at once.

The asset stands for the SMS that come. Its watcher runs in the triggerer and announces each SMS once, by its
id; the task reads the text. It watches one rental: without `order_id` it would watch the whole account, and
each code of a sign-up would start a run too.

Put the `order_id` of your rental into `RENTAL`, or a list of several.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.sdk import Asset, AssetWatcher, dag, task

from smsverify_provider.triggers.smsverify import SmsVerifyMessageTrigger

RENTAL = 458734
SMS = Asset(
    "sms", watchers=[AssetWatcher(name="sms_watcher", trigger=SmsVerifyMessageTrigger(order_id=RENTAL))]
)


@dag(
    description="Runs for each SMS that a rental receives",
    doc_md=__doc__,
    schedule=[SMS],
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    # In Airflow 3.3, an event that comes while this many runs are active waits for the next event.
    max_active_runs=16,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    tags=["smsverify", "example"],
)
def handle_sms() -> None:
    @task
    def read(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """Facts about the SMS of this run. Their texts stay out of Airflow's database."""
        # Imported here: Airflow parses this file again and again, and the hook loads the whole client.
        from smsverify_provider.hooks.smsverify import SmsVerifyHook

        messages = SmsVerifyHook().messages_of(triggering_asset_events)
        return [
            {
                "order_id": message.order_id,
                "has_code": message.otp is not None,
                "length": len(message.message or ""),
            }
            for message in messages
        ]

    @task(doc_md="Stands for your own work on one SMS.")
    def handle(sms: dict[str, Any]) -> int:
        return int(sms["order_id"])

    handle.expand(sms=read())


handle_sms()
