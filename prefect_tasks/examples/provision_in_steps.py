"""Provisions a test account step by step, for flows that need the number before its code has come.

If one task is enough, see `provision_account.py`. Runs as it stands, as that one does.
"""

from prefect import flow, task

from prefect_smsverify import SmsVerifyCredentials, rented_number


@task
def sign_up(phone: str | None) -> None:
    """Put your test of the sign-up form here. It makes the service under test send its SMS."""
    print(f"signing up with {phone}")


@task
def confirm(phone: str | None, otp: str | None) -> None:
    """Enter the code here. A code is a secret: do not print it and do not return it."""
    print(f"the account of {phone} is confirmed")


@flow(log_prints=True)
def provision_in_steps(
    credentials: str | None = None, service: int | str = "WhatsApp", timeout: float = 600
) -> str | None:
    """Provisions an account.

    Args:
        credentials: name of a saved block. Without one, the SMSVERIFY_... environment names the account.
        service: whose SMS the number is for.
        timeout: seconds to wait for the SMS.
    """
    account = credentials or SmsVerifyCredentials()
    # However this block ends (no SMS, an error, Ctrl-C, a cancelled run), a number whose code was not
    # used is cancelled for a refund. Nothing is bought when the number costs more than max_price.
    with rented_number(account, "temporary", service=service, max_price="0.50") as number:
        sign_up(number.phone)
        message = number.wait_for_otp(timeout)
        confirm(number.phone, message.otp)
    return number.phone


if __name__ == "__main__":
    provision_in_steps()
