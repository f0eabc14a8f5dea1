"""Provisions many test accounts at once, each with a number of its own. One that fails does not stop others.

Runs as it stands, against a simulator or the service, as `provision_account.py` does.
"""

from prefect import flow, task, unmapped

from prefect_smsverify import SmsVerifyCredentials, order_number, wait_for_otp


@task
def provision(account: SmsVerifyCredentials | str, service: str, timeout: float) -> str | None:
    """Provisions an account.

    A task is a transaction around the tasks that it calls. When a step fails after the number was bought,
    Prefect rolls `order_number` back, and the rollback cancels the number for a refund.
    """
    order = order_number(account, "temporary", service=service, max_price="1.00")
    print(f"signing up for {service} with {order.phone}")
    message = wait_for_otp(account, order, timeout)
    print(f"confirming {order.phone} with the {len(message.otp or '')} digits of its code")
    return order.phone


@flow(log_prints=True)
def provision_many(
    credentials: str | None = None,
    services: tuple[str, ...] = ("WhatsApp", "Telegram", "WhatsApp"),
    timeout: float = 600,
) -> list[str | None]:
    """Provisions an account for each service, all at the same time.

    Args:
        credentials: name of a saved block. Without one, the SMSVERIFY_... environment names the account.
        services: whose SMS the numbers are for.
        timeout: seconds to wait for each SMS.
    """
    account = credentials or SmsVerifyCredentials()
    # unmapped, because Prefect would take a block apart into its fields. All waits share one poll: a hundred
    # waits cost hardly more requests than a few.
    provisioned = provision.map(unmapped(account), services, unmapped(timeout))
    # Waits for all of them, and fails when one has failed.
    return provisioned.result()


if __name__ == "__main__":
    provision_many()
