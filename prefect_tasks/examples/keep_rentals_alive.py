"""Keeps all rented numbers of the account: every hour, it renews those that end within four hours.

Runs as it stands, against a simulator or the service, as `provision_account.py` does, until it is stopped. A
run fails when a rental could not be renewed; let an automation on failed runs of this deployment alert you.
`prefect.yaml` beside this file deploys the same flow to a work pool.
"""

from prefect_smsverify import SmsVerifyCredentials, renew_rentals_flow

BLOCK = "smsverify-rentals"

if __name__ == "__main__":
    # The flow takes the block's name: of a block in its parameters, Prefect would store a mask for the key.
    SmsVerifyCredentials().save(BLOCK, overwrite=True)
    renew_rentals_flow.serve(
        name="keep-rentals-alive",
        cron="0 * * * *",
        parameters={"credentials": BLOCK, "within": 4 * 3600, "max_price": "15", "run_budget": "50"},
    )
