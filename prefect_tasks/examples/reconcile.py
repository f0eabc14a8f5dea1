"""Compares the records with the service every quarter of an hour, until it is stopped.

Runs as it stands, against a simulator or the service, as `provision_account.py` does. A run fails where
something needs a person; an automation on failed runs of this deployment tells them.
"""

from prefect_smsverify import SmsVerifyCredentials, reconcile_flow

BLOCK = "smsverify-reconcile"

if __name__ == "__main__":
    # A flow is given the block's name, not the block: its parameters are kept as plain text.
    SmsVerifyCredentials().save(BLOCK, overwrite=True)
    reconcile_flow.serve(
        name="reconcile",
        cron="*/15 * * * *",
        parameters={"credentials": BLOCK, "cancel_after": 3600},
        limit=1,
    )
