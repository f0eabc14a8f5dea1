"""Compares the records with the service every quarter of an hour, until it is stopped.

Runs as it stands, against a simulator or the service, as `provision_account.py` does. A run fails if a
person should look at a finding; let an automation on failed runs of this deployment alert you.
"""

from prefect_smsverify import SmsVerifyCredentials, reconcile_flow

BLOCK = "smsverify-reconcile"

if __name__ == "__main__":
    # The flow takes the block's name: of a block in its parameters, Prefect would store a mask for the key.
    SmsVerifyCredentials().save(BLOCK, overwrite=True)
    reconcile_flow.serve(
        name="reconcile",
        cron="*/15 * * * *",
        parameters={"credentials": BLOCK, "cancel_after": 3600},
        limit=1,
    )
