"""Tells Prefect of every SMS on the account's rentals, until it is stopped.

Runs as it stands, against a simulator or the service, as `provision_account.py` does. Keep one running beside
what receives the callbacks (`smsverify callbacks serve`), by the same means; a second one waits until the
first has ended. `handle_sms.py` is what the events start; `prefect.yaml` beside this file deploys both.
"""

import asyncio

from prefect_smsverify import SmsVerifyCredentials, tell_of_messages_flow

BLOCK = "smsverify-messages"

if __name__ == "__main__":
    # A flow is given the block's name, not the block: its parameters are kept as plain text.
    SmsVerifyCredentials().save(BLOCK, overwrite=True)
    asyncio.run(tell_of_messages_flow(BLOCK))
