"""The plugin (entry point `airflow.plugins`): macros for templates.

Every component of Airflow imports this module, so it imports next to nothing.
"""

from __future__ import annotations

from airflow.sdk.plugins_manager import AirflowPlugin


def activation_code(order_id: int | str, smsverify_conn_id: str = "smsverify_default") -> str:
    """An eSIM's activation code, for templates: `{{ macros.smsverify.activation_code(order_id) }}`.

    It is a secret and therefore in no XCom. Airflow masks it in the rendered template and in the task's log.

    Args:
        order_id: the eSIM's order.
        smsverify_conn_id: the connection.

    Raises:
        InvalidRequestError: the order is no eSIM, or was not bought through this store.
    """
    from smsverify.errors import InvalidRequestError
    from smsverify_provider.hooks.smsverify import SmsVerifyHook

    code = SmsVerifyHook(smsverify_conn_id).get_order(order_id).activation_code
    if code is None:
        raise InvalidRequestError(
            f"order_id {order_id} has no activation code here: it is no eSIM, or was bought elsewhere",
            field="order_id",
        )
    return code


def e164(phone: str) -> str:
    """A phone number as most forms want it: `macros.smsverify.e164("+1 415 555 0123")` is `+14155550123`."""
    from smsverify.models import phone_digits

    return f"+{phone_digits(phone)}"


class SmsVerifyPlugin(AirflowPlugin):
    """Makes the functions above known to templates as `macros.smsverify`."""

    name = "smsverify"
    macros = [activation_code, e164]  # noqa: RUF012  # the base class declares it without ClassVar
