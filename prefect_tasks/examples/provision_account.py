"""Provisions a test account in one task: it tries numbers until one gets its code.

Runs as it stands, against a simulator or the service, whichever the environment names:

    smsverify simulate --port 8900 &
    export SMSVERIFY_BASE_URL=http://127.0.0.1:8900 SMSVERIFY_API_KEY=sim-key
    python provision_account.py
"""

from prefect import flow, task

from prefect_smsverify import SmsVerifyCredentials, verify_number
from smsverify import Order


def sign_up(number: Order) -> str:
    """Stands for your sign-up form, which makes the service send its SMS. Called with each number tried."""
    print(f"signing up with {number.phone}")
    return f"test-{(number.phone or '')[-4:]}"


@task
def confirm(account: str, otp: str | None) -> None:
    """Stands for entering the code. A code is a secret: it is neither printed nor returned."""
    print(f"{account} is confirmed")


@flow(log_prints=True)
def provision_account(
    credentials: str | None = None, service: int | str = "WhatsApp", timeout: float = 120
) -> str | None:
    """Provisions an account.

    Args:
        credentials: name of a saved block. Without one, the SMSVERIFY_... environment names the account.
        service: whose SMS the numbers are for, by its name or its number in `smsverify services`.
        timeout: seconds to wait for the SMS of each number; without one it is refunded.
    """
    verified = verify_number(
        credentials or SmsVerifyCredentials(),
        sign_up,
        "temporary",
        service=service,
        max_price="0.50",  # of one number: nothing is bought where the price has risen above this
        attempts=3,
        timeout=timeout,
        alternatives=[{"product": "best-temp"}],  # where no number of the first kind is available
    )
    confirm(verified.result, verified.otp)
    return verified.phone


if __name__ == "__main__":
    provision_account()
