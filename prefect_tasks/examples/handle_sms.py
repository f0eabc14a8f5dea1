"""Starts a flow run for each SMS that a rental receives, while this program runs: `handle_sms.py <order_id>`.

Runs beside `publish_message_events.py`, which publishes the events. They have ids only; the flow reads the
text. It matches one rental: `smsverify.order.*` would match the whole account, and each code of a sign-up
would start a run too.
"""

import sys

from prefect import flow
from prefect.events import DeploymentEventTrigger

from prefect_smsverify import MESSAGE_RECEIVED, get_message


@flow(persist_result=False)
def handle_sms(credentials: str, message_id: int) -> int:
    """Put your own work on one SMS here.

    Args:
        credentials: name of a saved block, from the event.
        message_id: the SMS, from the event.
    """
    message = get_message(credentials, message_id)
    print(f"Order {message.order_id} has received an SMS of {len(message.message or '')} characters")
    return message.order_id


if __name__ == "__main__":
    rental = sys.argv[1] if len(sys.argv) > 1 else "458734"
    handle_sms.serve(
        name="handle-sms",
        triggers=[
            DeploymentEventTrigger(
                expect={MESSAGE_RECEIVED},
                match={"prefect.resource.id": f"smsverify.order.{rental}"},
                parameters={
                    "credentials": "{{ event.payload.credentials }}",
                    "message_id": "{{ event.payload.message_id }}",
                },
            )
        ],
    )
