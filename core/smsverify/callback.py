"""The receiver of callbacks: an ASGI app that stores what the service posts, and only then answers 200.

`POST /callback/<secret>` takes incoming SMS and `POST /callback/<secret>/wallet` deposits; the secret says
which account they are for. `POST /api/callback` and `/api/wallet/callback` are the addresses that the
service's documentation names. They have no secret, so what comes there is never believed, and is taken only
as far as that delays nothing that came by a secret.

Whatever is not stored is not answered with 200, and the service sends it again: its retries are our queue.
Needs the extra `server`.
"""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from smsverify._purchases.run_context import RunContext
from smsverify._receiver.accounts import Account
from smsverify._receiver.limits import log
from smsverify._receiver.receiver import Receiver, answer
from smsverify.errors import InvalidRequestError, SmsVerifyError, StoreError
from smsverify.hook import SmsVerifyHook
from smsverify.metrics import Meter

__all__ = ["Account", "account_of", "check_secrets", "make_app", "serve"]

LONGEST_HEAD = 16 * 1024  # bytes
GRACE = 10  # seconds for what is under way when the receiver is to end


def account_of(hook: SmsVerifyHook) -> Account:
    """The account of a hook.

    Raises:
        InvalidRequestError: a setting is not allowed.
    """
    secrets = tuple(secret.get_secret_value().encode() for secret in hook.settings.callback_secrets)
    return Account(secrets, hook._parts.inbox)


def check_secrets(accounts: Sequence[Account]) -> None:
    """Makes sure that a secret stands for one account.

    Raises:
        InvalidRequestError: two accounts have the same.
    """
    secrets = [secret for account in accounts for secret in set(account.secrets)]
    if len(set(secrets)) < len(secrets):
        raise InvalidRequestError(
            "callback_secrets of two accounts are the same. A secret says which account a callback is for, "
            "so each account needs its own",
            field="callback_secrets",
        )


def make_app(
    accounts: Sequence[Account] | Callable[[], Sequence[Account | None]], *, meter: Meter | None = None
) -> ASGIApp:
    """The receiver as an ASGI app, for any server that runs those; it can be mounted in another app.

    Args:
        accounts: whose callbacks are taken. A function is called in a thread for each request, and may raise
            if they are not known now; `None` stands for one that is not. Then the answer
            makes the service try again, unless it is one of the others. A secret that two accounts have is
            refused, and the others work on.
        meter: counts what is refused; by default with OpenTelemetry, if its API is installed. What is taken
            counts for its account.

    Raises:
        InvalidRequestError: two accounts have the same secret.
    """
    meter = meter or RunContext().meter()
    if callable(accounts):
        receiver = Receiver(accounts, meter)
    else:
        known = tuple(accounts)
        check_secrets(known)
        receiver = Receiver(lambda: known, meter)
        receiver.knows(known)
    return receiver.masked(
        Starlette(
            routes=[
                Route("/healthz", _health, methods=["GET"]),
                *_routes("/callback/{secret}", receiver.sms),
                *_routes("/callback/{secret}/wallet", receiver.wallet),
                *_routes("/api/callback", receiver.sms),
                *_routes("/api/wallet/callback", receiver.wallet),
            ]
        )
    )


def serve(hooks: Sequence[SmsVerifyHook], *, host: str = "127.0.0.1", port: int = 8080) -> None:
    """Runs the receiver until SIGTERM or SIGINT, and lets what is under way come to its end.

    What is wrong with one of several accounts is said once and keeps no other from its callbacks: a store
    that cannot be used now may be usable later, and an account without a valid secret is left out.

    Args:
        hooks: of the accounts.
        host, port: where to listen. TLS is a proxy's concern.

    Raises:
        InvalidRequestError: there is no account, none has a secret, all have the same, or the port is taken.
        StoreError: no account's store can be used.
    """
    if not hooks:
        raise InvalidRequestError("no account is given, so no callback could be taken. Give one or more")
    import uvicorn

    from smsverify._receiver.connections import (
        ACCEPTED_AT_ONCE,
        LimitedServer,
        NotTooOften,
        limited_protocol,
        most_connections,
    )

    accounts = _usable(hooks)
    app = make_app(lambda: accounts, meter=hooks[0]._run_context.meter())
    # Strangers can cause these lines, by malformed requests and by taking all descriptors.
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).addFilter(NotTooOften())
    # The access log would have the secret in each line.
    config = uvicorn.Config(
        app,
        access_log=False,
        backlog=ACCEPTED_AT_ONCE,
        h11_max_incomplete_event_size=LONGEST_HEAD,
        http=limited_protocol(most_connections()),
        lifespan="off",
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        ws="none",
    )
    with _listen(host, port) as listener:
        port = listener.getsockname()[1]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/callback/<secret>"
        print(f"taking callbacks at {address} and {address}/wallet", file=sys.stderr, flush=True)
        LimitedServer(config).run(sockets=[listener])


def _usable(hooks: Sequence[SmsVerifyHook]) -> list[Account]:
    """The accounts that callbacks can be taken for.

    Raises:
        SmsVerifyError: what is wrong, if that is so with all of them.
    """
    accounts: list[Account] = []
    troubles: list[SmsVerifyError] = []
    for hook in hooks:
        try:
            account = account_of(hook)
            if not account.secrets:
                raise InvalidRequestError(
                    "callback_secrets is missing: without a secret, no callback can be trusted. Set "
                    "SMSVERIFY_CALLBACK_SECRETS, for example to what "
                    "`python -c 'import secrets; print(secrets.token_urlsafe(32))'` prints",
                    field="callback_secrets",
                )
        except InvalidRequestError as error:
            troubles.append(error)
            continue
        try:
            hook.upgrade_store()
        except StoreError as error:
            troubles.append(error)
        accounts.append(account)
    if len(troubles) == len(hooks):
        raise troubles[0]
    for trouble in troubles:
        log.error("An account gets no callbacks now: %s", trouble)
    return accounts


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise InvalidRequestError(
            f"the receiver cannot listen on port {port} of {host}: {error}", field="port"
        ) from None


def _routes(path: str, endpoint: Any) -> list[Route]:
    # With and without the slash: a redirect would turn the POST into a GET.
    return [Route(one, endpoint, methods=["POST"]) for one in (path, f"{path}/")]


async def _health(_: Request) -> Response:
    return answer(200)
