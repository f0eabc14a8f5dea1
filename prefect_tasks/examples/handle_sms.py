"""Starts a flow run for each SMS on the account's rentals, while this program runs.

Runs as it stands, beside `publish_message_events.py`, which publishes the events. They have ids only; the
flow reads the text. For one rental, match `smsverify.order.<order_id>`.
"""

from prefect import flow
from prefect.events import DeploymentEventTrigger

from prefect_smsverify import MESSAGE_RECEIVED, get_message


@flow(persist_result=False)
def handle_sms(credentials: str, message_id: int) -> int:
    """Put your own work on one SMS here."""
    message = get_message(credentials, message_id)
    print(f"Order {message.order_id} has received an SMS of {len(message.message or '')} characters")
    return message.order_id


if __name__ == "__main__":
    handle_sms.serve(
        name="handle-sms",
        triggers=[
            DeploymentEventTrigger(
                expect={MESSAGE_RECEIVED},
                match={"prefect.resource.id": "smsverify.order.*"},
                parameters={
                    "credentials": "{{ event.payload.credentials }}",
                    "message_id": "{{ event.payload.message_id }}",
                },
            )
        ],
    )
