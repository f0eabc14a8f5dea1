"""Keeps a rented number: buys it once, and renews it on a schedule before it ends.

Runs as it stands, against a simulator or the service, as `provision_account.py` does, until it is stopped.
"""

from datetime import datetime, timedelta, timezone

from prefect import flow

from prefect_smsverify import SmsVerifyCredentials, order_number, renew_rental


@flow(log_prints=True)
def keep_rental_alive(
    credentials: str | None = None, service: str = "WhatsApp", renew_within_hours: float = 24
) -> int:
    """Buys the rental, or renews it when its end is near.

    Args:
        credentials: name of a saved block. Without one, the SMSVERIFY_... environment names the account.
        service: whose SMS the number is for.
        renew_within_hours: how long before its end the rental is renewed.
    """
    account = credentials or SmsVerifyCredentials()
    # All runs share this key: the first buys the rental, the others are handed the same one until it ends.
    rental = order_number(
        account, "rental", service=service, duration=3, max_price="5.00", key=f"keep-alive-{service}"
    )
    soon = datetime.now(timezone.utc) + timedelta(hours=renew_within_hours)
    # An end that is not known is no reason to pay.
    if rental.expires_at is not None and rental.expires_at < soon:
        # Safe in a run that is retried: it does not pay again.
        rental = renew_rental(account, rental, max_price="5.00")
    print(f"{rental.phone} is ours until {rental.expires_at}")
    return rental.order_id


if __name__ == "__main__":
    # One run at a time: two that find the rental due at the same moment would both renew it.
    keep_rental_alive.serve(name="keep-rental-alive", cron="0 * * * *", limit=1)
