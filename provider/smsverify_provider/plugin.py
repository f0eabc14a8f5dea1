"""The plugin (entry point `airflow.plugins`): macros for templates, the receiver of callbacks, and the page.

Every component of Airflow imports this module, so it imports next to nothing.
"""

from __future__ import annotations

from typing import Any

from smsverify_provider.versions import AirflowPlugin

# What the service's documentation calls the addresses of callbacks.
DOCUMENTED_PATHS = frozenset({"/api/callback", "/api/wallet/callback"})
# No callback goes here.
AIRFLOWS_OWN = ("/api/v2/", "/ui/", "/auth/", "/execution/", "/static/", "/pluginsv2/", "/smsverify-page/")


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
            f"order_id {order_id} has no activation code on record: it is not an eSIM, or was bought "
            "elsewhere",
            field="order_id",
        )
    return code


def e164(phone: str) -> str:
    """A phone number as most forms want it: `macros.smsverify.e164("+1 415 555 0123")` is `+14155550123`."""
    from smsverify.wings import phone_digits

    return f"+{phone_digits(phone)}"


async def receive_callback(scope: Any, receive: Any, send: Any) -> None:
    """The receiver of callbacks, an ASGI app that is made when the first callback comes.

    Airflow asks for no login here: the receiver believes only a caller that knows one of its secrets.
    """
    import asyncio

    # In a thread, because the first import blocks for a second.
    app = await asyncio.to_thread(_receiver)
    await app(scope, receive, send)


def _receiver() -> Any:
    from smsverify_provider.callbacks import app

    return app


async def show_page(scope: Any, receive: Any, send: Any) -> None:
    """The page of the UI, an ASGI app that is made when it is first asked for; it needs Airflow's login."""
    import asyncio

    try:
        # In a thread, because the first import blocks for a second.
        app = await asyncio.to_thread(_page)
    except Exception:
        from smsverify.text import log_of

        # Without Airflow's own checks, nothing is shown.
        log_of(__name__).exception("The page cannot be shown")
        app = _no_page
    await app(scope, receive, send)


def _page() -> Any:
    from smsverify_provider.page.app import app

    return app


async def _no_page(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        text = b"The page cannot be shown: see the API server's log."
        await send({"type": "http.response.body", "body": text})


class DocumentedPaths:
    """Hands `/api/callback` and `/api/wallet/callback` to the receiver, and keeps secrets out of the log.

    It is an ASGI middleware, because an app cannot be mounted at a path that does not end in a slash, nor at
    `/api`, where Airflow's own API is; and because a secret also comes at addresses that are slightly wrong.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        from smsverify.wings import mask

        inner = mask(scope, await _known_secrets(scope))
        is_documented = _path_of(inner).rstrip("/") in DOCUMENTED_PATHS
        await (receive_callback if is_documented else self._app)(inner, receive, send)


def _path_of(scope: Any) -> str:
    path: str = scope.get("path", "")
    return path.removeprefix(scope.get("root_path", ""))


async def _known_secrets(scope: Any) -> list[str]:
    """The secrets of callbacks that may stand in a request's address; they are read if they may."""
    import asyncio
    import re
    import sys

    callbacks = sys.modules.get("smsverify_provider.callbacks")
    address = scope.get("raw_path", b"") + b"?" + scope.get("query_string", b"")
    if _path_of(scope).startswith(AIRFLOWS_OWN) or not re.search(rb"[\w%-]{16}", address):
        return callbacks.connections.known_secrets() if callbacks else []
    # In a thread, because the first import blocks for a second.
    secrets: list[str] = await asyncio.to_thread(_read_secrets)
    return secrets


def _read_secrets() -> list[str]:
    from smsverify_provider.callbacks import connections

    return connections.secrets()


class SmsVerifyPlugin(AirflowPlugin):
    """Makes the functions above known to templates as `macros.smsverify`, and mounts receiver and page."""

    # The base class declares these without ClassVar.
    name = "smsverify"
    macros = [activation_code, e164]  # noqa: RUF012
    fastapi_apps = [  # noqa: RUF012
        {"name": "smsverify callbacks", "url_prefix": "/smsverify", "app": receive_callback},
        {"name": "smsverify page", "url_prefix": "/smsverify-page", "app": show_page},
    ]
    # Relative, so that they hold under a base path.
    external_views = [  # noqa: RUF012
        {
            "name": "SmsVerify",
            "href": "smsverify-page/",
            "destination": "nav",
            "category": "browse",
            "url_route": "smsverify",
            "icon": "smsverify-page/icon.svg",
            "icon_dark_mode": "smsverify-page/icon-dark.svg",
        }
    ]
    fastapi_root_middlewares = [  # noqa: RUF012
        {"name": "smsverify documented callbacks", "middleware": DocumentedPaths}
    ]
