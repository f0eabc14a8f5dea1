"""Start work when an SMS arrives: one run for each SMS on the account's rentals, or for several at once.

The asset stands for the SMS that come. Its watcher runs in the triggerer and announces each SMS once, by its
id; the task reads the text. With a rental's `order_id`, it announces the SMS of that rental only:
`SmsVerifyMessageTrigger(order_id=458734)`.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.sdk import Asset, AssetWatcher, dag, task

from smsverify_provider.triggers.smsverify import SmsVerifyMessageTrigger

SMS = Asset("sms", watchers=[AssetWatcher(name="sms_watcher", trigger=SmsVerifyMessageTrigger())])


@dag(
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

    @task
    def handle(sms: dict[str, Any]) -> int:
        """Stands for your own work on one SMS."""
        return int(sms["order_id"])

    handle.expand(sms=read())


handle_sms()
