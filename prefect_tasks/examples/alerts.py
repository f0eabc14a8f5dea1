"""Alerts a person if a finding needs one, and if the wallet is nearly empty, while this program runs.

A flow looks every quarter of an hour. If a person is needed, its run fails with the reason, and an
automation on its failed runs calls a notification block. The block here posts to `ALERT_URL`, which may be an
incoming webhook of Slack. Prefect has others, such as for mail, Teams and PagerDuty.
"""

import os
from contextlib import suppress

from prefect import State, flow
from prefect.automations import Automation
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.events import EventTrigger, Posture, SendNotification
from prefect.states import Completed, Failed

from prefect_smsverify import SmsVerifyCredentials, get_balance, reconcile

BLOCK = "smsverify-alerts"


@flow(persist_result=False)
def alerts(credentials: str, minimum: float = 5) -> State[None]:
    """Fails if a person is needed, and names each reason.

    Args:
        credentials: name of a saved block.
        minimum: USD that the wallet should hold.
    """
    reasons = reconcile(credentials, cancel_after=3600).findings
    balance = get_balance(credentials)
    if balance.amount < minimum:
        reasons.append(f"The wallet holds {balance.amount:.2f} USD, and {minimum:.2f} USD are needed")
    return Failed(message="; ".join(reasons)) if reasons else Completed()


def notify_of_failures() -> None:
    """Makes the automation, and replaces the one of an earlier start."""
    webhook = CustomWebhookNotificationBlock(
        name=BLOCK,
        url=os.environ.get("ALERT_URL", "http://127.0.0.1:8901"),
        json_data={"text": "{{subject}}: {{body}}"},
    )
    with suppress(ValueError):
        Automation.read(name=BLOCK).delete()  # type: ignore[attr-defined]  # typed as a coroutine
    Automation(
        name=BLOCK,
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed"},
            # More flows may alert in the same way: the names may be a list.
            match_related={"prefect.resource.role": "flow", "prefect.resource.name": alerts.name},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            SendNotification(
                block_document_id=webhook.save(BLOCK, overwrite=True),
                subject="smsverify",
                body="{{ flow_run.state.message }}",
            )
        ],
    ).create()


if __name__ == "__main__":
    SmsVerifyCredentials().save(BLOCK, overwrite=True)
    notify_of_failures()
    alerts.serve(name="alerts", cron="*/15 * * * *", parameters={"credentials": BLOCK}, limit=1)
