"""The plugin (entry point `airflow.plugins`): macros for templates, and the receiver of callbacks.

Every component of Airflow imports this module, so it imports next to nothing.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk.plugins_manager import AirflowPlugin

# What the service's documentation calls the addresses of callbacks.
DOCUMENTED_PATHS = frozenset({"/api/callback", "/api/wallet/callback"})


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


async def receive_callback(scope: Any, receive: Any, send: Any) -> None:
    """The receiver of callbacks, an ASGI app that is made when the first one comes.

    Airflow asks nobody who calls it to log in: it answers to those who know one of its secrets.
    """
    import asyncio

    # In a thread, because the first import takes a second that the API server has not.
    app = await asyncio.to_thread(_receiver)
    await app(scope, receive, send)


def _receiver() -> Any:
    from smsverify_provider.callbacks import app

    return app


class DocumentedPaths:
    """Hands `/api/callback` and `/api/wallet/callback` to the receiver.

    An ASGI middleware, because an app can not be mounted at a path that does not end in a slash, nor at
    `/api`, where Airflow's own API is.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "").removeprefix(scope.get("root_path", "")).rstrip("/")
        is_documented = scope["type"] == "http" and path in DOCUMENTED_PATHS
        await (receive_callback if is_documented else self._app)(scope, receive, send)


class SmsVerifyPlugin(AirflowPlugin):
    """Makes the functions above known to templates as `macros.smsverify`, and mounts the receiver."""

    # The base class declares these without ClassVar.
    name = "smsverify"
    macros = [activation_code, e164]  # noqa: RUF012
    fastapi_apps = [  # noqa: RUF012
        {"name": "smsverify callbacks", "url_prefix": "/smsverify", "app": receive_callback}
    ]
    fastapi_root_middlewares = [  # noqa: RUF012
        {"name": "smsverify documented callbacks", "middleware": DocumentedPaths}
    ]
