"""Keeps all rented numbers of the account: every hour, those that end within four hours are renewed.

Runs as it stands, against a simulator or the service, as `provision_account.py` does, until it is stopped. A
run fails where a rental could not be renewed; an automation on failed runs of this deployment tells a person.
`prefect.yaml` beside this file deploys the same flow to a work pool.
"""

from prefect_smsverify import SmsVerifyCredentials, renew_rentals_flow

BLOCK = "smsverify-rentals"

if __name__ == "__main__":
    # A flow is given the block's name, not the block: its parameters are kept as plain text.
    SmsVerifyCredentials().save(BLOCK, overwrite=True)
    renew_rentals_flow.serve(
        name="keep-rentals-alive",
        cron="0 * * * *",
        parameters={"credentials": BLOCK, "within": 4 * 3600, "max_price": "15", "daily_budget": "50"},
    )
