"""Provisions many test accounts at once, each with numbers of its own. One that fails does not stop others.

Runs as it stands, against a simulator or the service, as `provision_account.py` does.
"""

from prefect import flow, task, unmapped

from prefect_smsverify import SmsVerifyCredentials, publish_progress, verify_number
from smsverify import Order, Verification


def sign_up(number: Order) -> str:
    """Stands for your sign-up form, which makes the service send its SMS. Called with each number tried."""
    print(f"signing up for {number.service} with {number.phone}")
    return f"test-{(number.phone or '')[-4:]}"


@task
def confirm(verified: Verification) -> str:
    """Stands for entering the code. A code is a secret: it is neither printed nor returned."""
    print(f"{verified.result} is confirmed with the {len(verified.otp or '')} digits of its code")
    return str(verified.result)


@flow(log_prints=True)
def provision_many(
    credentials: str | None = None,
    services: tuple[str, ...] = ("WhatsApp", "Telegram", "WhatsApp"),
    timeout: float = 120,
) -> list[str]:
    """Provisions an account for each service, all at the same time.

    Args:
        credentials: name of a saved block. Without one, the SMSVERIFY_... environment names the account.
        services: whose SMS the numbers are for.
        timeout: seconds to wait for the SMS of each number; without one it is refunded.
    """
    # unmapped, because Prefect would take a block apart into its fields. All waits share one poll: a hundred
    # waits cost hardly more requests than a few.
    verified = verify_number.map(
        unmapped(credentials or SmsVerifyCredentials()),
        unmapped(sign_up),
        "temporary",
        service=services,
        max_price="0.50",  # of one number
        attempts=3,
        timeout=timeout,
    )
    confirmed = confirm.map(verified)  # each as soon as its code has come
    publish_progress(verified)
    confirmed.wait()
    # Fails where no number of an account got its code.
    verified.result()
    return confirmed.result()


if __name__ == "__main__":
    provision_many()
