"""Publishes an event to Prefect for each SMS on the account's rentals, until it is stopped.

Runs as it stands, against a simulator or the service, as `provision_account.py` does. Keep one running beside
the receiver of callbacks (`smsverify callbacks serve`). A second one waits until the first has ended.
`handle_sms.py` is the flow that the events start; `prefect.yaml` beside this file deploys both.
"""

import asyncio

from prefect_smsverify import SmsVerifyCredentials, publish_message_events_flow

BLOCK = "smsverify-messages"

if __name__ == "__main__":
    # The flow takes the block's name: of a block in its parameters, Prefect would store a mask for the key.
    SmsVerifyCredentials().save(BLOCK, overwrite=True)
    asyncio.run(publish_message_events_flow(BLOCK))
