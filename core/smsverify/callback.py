"""The receiver of callbacks: an ASGI app that stores what the service posts, and only then answers 200.

`POST /callback/<secret>` takes incoming SMS and `POST /callback/<secret>/wallet` deposits; the secret says
which account they are for. `POST /api/callback` and `/api/wallet/callback` are the addresses that the
service's documentation names. They have no secret, so what comes there is a hint at the most.

Whatever is not stored is not answered with 200, and the service sends it again: its retries are our queue.
Needs the extra `server`.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from anyio import fail_after
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from smsverify.errors import InvalidRequestError, SmsVerifyError, StoreError
from smsverify.hook import SmsVerifyHook
from smsverify.inbox import HINT, KEPT, OPEN, TOLD, Callback, Inbox

log = logging.getLogger(__name__)

LONGEST_BODY = 64 * 1024  # bytes; the documented one has 200
# Seconds. The service gives up after five: what is not stored by then had better say so itself.
BODY_TIMEOUT = 4.0
STORE_TIMEOUT = 4.0
GRACE = 10  # for what is under way when the receiver is to end
BACKLOG = 2048  # connections that wait to be accepted
COMPLAIN_PAUSE = 60.0  # between two lines about what anybody can send, so that a stranger fills no log

_SECRET_IN_PATH = re.compile(r"(/callback/+)[^/]+")
_ORDER_ID_NAMES = ("order_id", "orderId", "orderid", "order")
_DEEPEST = 4  # levels of a payload that are searched for an order
_LARGEST_ID = 2**63 - 1  # that the store can keep


@dataclass(frozen=True)
class Account:
    """Whose callbacks are taken.

    Attributes:
        secrets: of its callback URL; each of them is valid.
        inbox: where they go.
    """

    secrets: tuple[bytes, ...] = field(repr=False)
    inbox: Inbox


def account_of(hook: SmsVerifyHook) -> Account:
    """The account of a hook.

    Raises:
        InvalidRequestError: a setting is not allowed.
    """
    secrets = tuple(secret.get_secret_value().encode() for secret in hook.settings.callback_secrets)
    return Account(secrets, hook.inbox)


def check_secrets(accounts: Sequence[Account]) -> None:
    """Makes sure that a secret stands for one account.

    Raises:
        InvalidRequestError: two accounts have the same.
    """
    secrets = [secret for account in accounts for secret in set(account.secrets)]
    if len(set(secrets)) < len(secrets):
        raise InvalidRequestError(
            "callback_secrets of two accounts are the same: a secret says whose a callback is",
            field="callback_secrets",
        )


def make_app(accounts: Sequence[Account] | Callable[[], Sequence[Account]]) -> ASGIApp:
    """The receiver as an ASGI app, for any server that runs those; it can be mounted in another app.

    Args:
        accounts: whose callbacks are taken. A function is called in a thread for each request, and may raise
            an `SmsVerifyError` where they are not known now: then the service is told to try again.

    Raises:
        InvalidRequestError: two accounts have the same secret.
    """
    if callable(accounts):
        receiver = _Receiver(accounts)
    else:
        known = tuple(accounts)
        check_secrets(known)
        receiver = _Receiver(lambda: known)
    return _without_secrets(
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

    Args:
        hooks: of the accounts.
        host, port: where to listen. TLS is a proxy's concern.

    Raises:
        InvalidRequestError: an account has no secret, two have the same, or the port is taken.
        StoreError: the store can not be used.
    """
    import uvicorn

    accounts = [account_of(hook) for hook in hooks]
    for hook, account in zip(hooks, accounts, strict=True):
        if not account.secrets:
            raise InvalidRequestError(
                "callback_secrets is missing: without one, nothing that comes can be believed. Set "
                "SMSVERIFY_CALLBACK_SECRETS, for example to what "
                "`python -c 'import secrets; print(secrets.token_urlsafe(32))'` prints",
                field="callback_secrets",
            )
        hook.check_store()
    # The access log would have the secret in each line.
    config = uvicorn.Config(
        make_app(accounts),
        access_log=False,
        lifespan="off",
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    with _listen(host, port) as listener:
        port = listener.getsockname()[1]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/callback/<secret>"
        print(f"taking callbacks at {address} and {address}/wallet", file=sys.stderr, flush=True)
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise InvalidRequestError(
            f"port {port} of {host} can not be listened at: {error}", field="port"
        ) from None


# ------------------------------------------------------------------ requests


class _Receiver:
    """Answers the requests. One thread writes: a store has one writer, and a queue in order is fair."""

    def __init__(self, accounts: Callable[[], Sequence[Account]]) -> None:
        self._accounts = accounts
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="smsverify-callback")
        self._next_complaint = 0.0
        self._next_hint_line = 0.0

    async def sms(self, request: Request) -> Response:
        return await self._take(request, read_sms)

    async def wallet(self, request: Request) -> Response:
        return await self._take(request, read_wallet)

    async def _take(self, request: Request, read: Callable[..., Callback]) -> Response:
        secret = request.path_params.get("secret")
        try:
            accounts = await asyncio.to_thread(self._accounts)
        except SmsVerifyError as error:
            log.error("A callback can not be taken in now, the service will repeat it: %s", error)
            return _answer(503)
        if secret is not None:
            accounts = _with_secret(accounts, secret)
        if not accounts:
            return self._refuse(404, "no account has this secret among its callback_secrets")
        try:
            with fail_after(BODY_TIMEOUT):
                body = await _body_of(request)
        except (ClientDisconnect, TimeoutError):
            return self._refuse(408, "its body did not come in time")
        if body is None:
            return self._refuse(413, f"its body has more than {LONGEST_BODY} bytes")
        try:
            payload = json.loads(body)
        except (ValueError, RecursionError):
            return self._refuse(400, "its body is not JSON")
        callback = read(payload, body, by_secret=secret is not None)
        return await self._store(accounts, callback)

    async def _store(self, accounts: Sequence[Account], callback: Callback) -> Response:
        future = self._writer.submit(self._store_and_tell, accounts, callback)
        try:
            with fail_after(STORE_TIMEOUT):
                await asyncio.shield(asyncio.wrap_future(future))
        except TimeoutError:
            # What has not begun never will; what has may get there, and its repeat is recognised.
            future.cancel()
            log.error("A callback could not be stored in %.0f s, the service will repeat it", STORE_TIMEOUT)
            return _answer(503)
        except StoreError as error:
            log.error("A callback could not be stored, the service will repeat it: %s", error)
            return _answer(503)
        except Exception as error:
            # Its text could quote the message.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("A callback could not be stored: %s in\n%s", type(error).__name__, where)
            return _answer(503)
        return _answer(200)

    def _store_and_tell(self, accounts: Sequence[Account], callback: Callback) -> None:
        states = _store(accounts, callback)
        if not callback.by_secret:
            if time.monotonic() < self._next_hint_line:
                return
            self._next_hint_line = time.monotonic() + COMPLAIN_PAUSE
        _tell(callback, states)

    def _refuse(self, status: int, why: str) -> Response:
        if time.monotonic() >= self._next_complaint:
            self._next_complaint = time.monotonic() + COMPLAIN_PAUSE
            log.warning(
                "A callback was refused with %d: %s (more of these in the next %.0f s are not told)",
                status,
                why,
                COMPLAIN_PAUSE,
            )
        return _answer(status)


def _routes(path: str, endpoint: Any) -> list[Route]:
    # With and without the slash: a redirect would turn the POST into a GET.
    return [Route(one, endpoint, methods=["POST"]) for one in (path, f"{path}/")]


async def _health(_: Request) -> Response:
    return _answer(200)


def _answer(status: int) -> Response:
    return PlainTextResponse("" if status == 200 else "refused\n", status)


def _with_secret(accounts: Sequence[Account], given: str) -> list[Account]:
    """The account of a secret; takes the same time for each that is wrong."""
    secret = given.encode("utf-8", "surrogatepass")
    matches = [
        [hmac.compare_digest(secret, configured) for configured in account.secrets] for account in accounts
    ]
    return [account for account, found in zip(accounts, matches, strict=True) if any(found)]


async def _body_of(request: Request) -> bytes | None:
    """The body; `None` where it is too large, which is told without reading the rest."""
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > LONGEST_BODY:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_BODY:
            return None
    return bytes(body)


def _without_secrets(app: ASGIApp) -> ASGIApp:
    """Takes the secret out of what others see of a request: they log its path when it is over."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        inner = dict(scope)
        if "path" in scope:
            scope["path"] = _SECRET_IN_PATH.sub(r"\1***", scope["path"])
            scope["raw_path"] = scope["path"].encode()
        await app(inner, receive, send)

    return wrapped


# ------------------------------------------------------------------ what a callback says


def read_sms(payload: Any, body: bytes, *, by_secret: bool) -> Callback:
    """What can be read of a callback about an SMS. What has not the documented shape is kept as it is."""
    message = payload.get("message") if isinstance(payload, dict) else None
    if isinstance(message, dict) and payload.get("event") == "incoming_message":
        order_id, phone, text = (
            _as_id(message.get("order_id")),
            _as_text(message.get("number")),
            _as_text(message.get("sms")),
        )
        if order_id is not None and phone is not None and text is not None:
            return Callback(by_secret, "sms", True, order_id, phone, _as_text(message.get("sender")), text)
    return Callback(by_secret, "unknown", order_id=_find_order_id(payload), body=_decoded(body))


def read_wallet(_payload: Any, body: bytes, *, by_secret: bool) -> Callback:
    """A callback about the wallet; what it says is not documented."""
    return Callback(by_secret, "wallet", body=_decoded(body))


def _find_order_id(payload: Any) -> int | None:
    """The first thing in a payload that is called an order's id."""
    level = [payload]
    for _ in range(_DEEPEST):
        dicts = [one for one in level if isinstance(one, dict)]
        found = (_as_id(one.get(name)) for one in dicts for name in _ORDER_ID_NAMES)
        first = next((order_id for order_id in found if order_id is not None), None)
        if first is not None:
            return first
        level = [child for one in level for child in _children(one)]
    return None


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _as_id(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,19}\s*", value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_id = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST_ID
    return value if is_id else None


def _as_text(value: Any) -> str | None:
    """Text as the store takes it: numbers are text too, and what no database keeps is replaced."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        return None
    return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _decoded(body: bytes) -> str:
    return body.decode("utf-8", "replace").replace("\0", "\ufffd")


# ------------------------------------------------------------------ what becomes of it


def _store(accounts: Sequence[Account], callback: Callback) -> list[str | None]:
    """Stores a callback with its account; one without a secret with the account that has the order."""
    if len(accounts) > 1 and callback.order_id is not None:
        accounts = [one for one in accounts if one.inbox.knows(callback.order_id or 0)] or accounts
    return [account.inbox.take(callback) for account in accounts]


def _tell(callback: Callback, states: Sequence[str | None]) -> None:
    if all(state is None for state in states):
        log.debug("A callback was repeated")
    elif callback.kind == "wallet":
        log.info("A callback about the wallet was stored")
    elif TOLD in states:
        log.info("A callback has brought the message of order %d", callback.order_id)
    elif HINT in states:
        log.info("A callback speaks of order %d, but proves nothing: its status decides", callback.order_id)
    elif OPEN in states:
        log.info("A callback speaks of order %d, which is not known (yet)", callback.order_id)
    elif KEPT in states:
        log.warning("A callback that is not understood was stored")
