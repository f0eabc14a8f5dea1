"""Answers the requests: what the service posts is read, stored, and only then answered with 200."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from anyio import fail_after
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smsverify._messages.callbacks import OPEN, UNVERIFIED, VERIFIED, Callback, name_of_secret
from smsverify._messages.inbox import Inbox
from smsverify._receiver.accounts import Account, merged, with_secret
from smsverify._receiver.limits import COMPLAIN_PAUSE, Allowance, Complaints, log
from smsverify._receiver.masking import mask
from smsverify._receiver.payloads import TooManyOrders, load, read_sms, read_wallet
from smsverify._receiver.refusals import Refusals
from smsverify._receiver.writing import Writer
from smsverify.errors import SmsVerifyError, StoreError
from smsverify.metrics import CALLBACKS_REFUSED, Meter

LONGEST_BODY = 64 * 1024  # bytes; the documented one has 200
# Seconds. The service gives up after five: what is not stored by then had better say so itself.
BODY_TIMEOUT = 4.0
STORE_TIMEOUT = 4.0

# Of what comes without a secret, which strangers can send.
LONGEST_UNVERIFIED = 16 * 1024  # bytes
UNVERIFIED_AT_ONCE = 8
UNVERIFIED_IN_A_ROW = 120  # taken at any rate, before
UNVERIFIED_PER_SECOND = 4.0  # are


class Receiver:
    """Answers the requests.

    Args:
        accounts: gives those that are known now, `None` for one that is not; it may raise.
        meter: counts what is refused.
    """

    def __init__(self, accounts: Callable[[], Sequence[Account | None]], meter: Meter) -> None:
        self._accounts = accounts
        self._meter = meter
        self._writers: dict[tuple[str, str], Writer] = {}
        self._secrets: tuple[str, ...] = ()
        self._complaints = Complaints()
        self._unverified = Allowance(UNVERIFIED_IN_A_ROW, UNVERIFIED_PER_SECOND)
        self._unverified_at_once = 0
        self._refusals = Refusals(self._note_refused)

    def knows(self, accounts: Sequence[Account]) -> None:
        """Takes note of the secrets, which no log may show."""
        self._secrets = tuple(
            secret.decode("utf-8", "replace") for account in accounts for secret in account.secrets
        )

    def masked(self, app: ASGIApp) -> ASGIApp:
        """The app, whose requests have no secret in them when they are logged.

        A connection is kept for those alone whose callbacks are taken: what a stranger has sent behind a
        refused request is not even read.
        """

        async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
            inner = dict(mask(scope, self._secrets))

            async def send_last(message: Message) -> None:
                is_taken = message.get("status") == 200 and scope.get("method") == "POST"
                if message["type"] == "http.response.start" and not is_taken and _is_http_1(scope):
                    message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
                await send(message)

            await app(inner, receive, send_last)
            mask(scope, self._secrets)  # those that have become known by it

        return wrapped

    async def sms(self, request: Request) -> Response:
        return self._counted(await self._take(request, read_sms))

    async def wallet(self, request: Request) -> Response:
        return self._counted(await self._take(request, read_wallet))

    def _counted(self, response: Response) -> Response:
        if response.status_code != 200:
            self._meter.count(CALLBACKS_REFUSED, status=str(response.status_code))
        return response

    async def _take(self, request: Request, read: Callable[..., list[Callback]]) -> Response:
        secret = request.path_params.get("secret")
        known, are_all = await self._known_accounts()
        accounts = known if secret is None else with_secret(known, secret)
        if refusal := self._refusal(request, accounts, known, are_all=are_all):
            return refusal
        if secret is not None:
            return await self._take_in(request, read, accounts, LONGEST_BODY, secret=secret)
        if self._unverified_at_once >= UNVERIFIED_AT_ONCE or not self._unverified.take():
            return self._refuse(429, "too many come without a secret", known)
        self._unverified_at_once += 1
        try:
            return await self._take_in(request, read, accounts, LONGEST_UNVERIFIED, secret=None)
        finally:
            self._unverified_at_once -= 1

    def _refusal(
        self, request: Request, accounts: Sequence[Account], known: Sequence[Account], *, are_all: bool
    ) -> Response | None:
        """What can be refused before the body is read."""
        if not accounts and not are_all:
            return answer(503)
        if len(accounts) > 1 and "secret" in request.path_params:
            self._complaints.say(
                logging.ERROR,
                "callback_secrets of two accounts are the same: a callback with this secret is refused, "
                "because it may be for either",
            )
            return answer(503)
        if not accounts:
            return self._refuse(404, "no account has this secret among its callback_secrets", known)
        if request.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
            return self._refuse(415, "its body is compressed", accounts)
        return None

    async def _known_accounts(self) -> tuple[Sequence[Account], bool]:
        """The accounts that are known now, and whether those are all."""
        try:
            accounts = await asyncio.to_thread(self._accounts)
        except Exception as error:
            # The text of an error that is not ours could quote anything.
            text = str(error) if isinstance(error, SmsVerifyError) else type(error).__name__
            self._complaints.say(
                logging.ERROR, "A callback cannot be taken in now, the service will repeat it: %s", text
            )
            return [], False
        known = [account for account in accounts if account is not None]
        self.knows(known)
        return merged(known), len(known) == len(accounts)

    async def _take_in(
        self,
        request: Request,
        read: Callable[..., list[Callback]],
        accounts: Sequence[Account],
        longest: int,
        *,
        secret: str | None,
    ) -> Response:
        try:
            with fail_after(BODY_TIMEOUT):
                body = await _body_of(request, longest)
        except (ClientDisconnect, TimeoutError):
            return self._refuse(408, "its body did not come in time", accounts)
        if body is None:
            return self._refuse(413, f"its body has more than {longest} bytes", accounts)
        try:
            callbacks = read(load(body), body, by_secret=secret is not None)
        except ValueError as error:
            is_json = isinstance(error, TooManyOrders)
            status, why = (413, str(error)) if is_json else (400, "its body is not JSON")
            return self._refuse(status, why, accounts)
        name = None if secret is None else name_of_secret(secret)
        try:
            with fail_after(STORE_TIMEOUT):
                for callback in callbacks:
                    if not await self._store(accounts, replace(callback, secret=name)):
                        return answer(503)
        except TimeoutError:
            self._complaints.say(
                logging.ERROR,
                "A callback could not be stored in %.0f s, the service will repeat it",
                STORE_TIMEOUT,
            )
            return answer(503)
        return answer(200)

    async def _store(self, accounts: Sequence[Account], callback: Callback) -> bool:
        """Whether a callback is stored: one without a secret with the accounts that have its order."""
        if not callback.by_secret:
            accounts = [account for account in accounts if not self._writer(account).is_broken()]
            if len(accounts) > 1 and callback.order_id is not None:
                knowing = await self._each(
                    accounts, callback, lambda inbox: inbox.knows(callback.order_id or 0)
                )
                accounts = [
                    account for account, knows in zip(accounts, knowing, strict=True) if knows is True
                ] or accounts
        states = await self._each(accounts, callback, lambda inbox: inbox.take(callback))
        stored = [state for state in states if not isinstance(state, BaseException)]
        if stored:
            self._report(callback, stored)
        return bool(stored)

    async def _each(
        self, accounts: Sequence[Account], callback: Callback, job: Callable[[Inbox], Any]
    ) -> list[Any]:
        """What a job returns for each account, or the error that it raises."""
        futures = [
            self._writer(account).submit(job, account.inbox, callback.by_secret) for account in accounts
        ]
        try:
            # What has not begun when the time is up never will; what has may get there, and its repeat is
            # recognised.
            results = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        finally:
            for future in futures:
                future.cancel()
        for result in results:
            if isinstance(result, StoreError):
                self._complaints.say(
                    logging.ERROR, "A callback could not be stored, the service will repeat it: %s", result
                )
            elif isinstance(result, Exception):
                # Its text could quote the message.
                where = "".join(traceback.format_tb(result.__traceback__))
                self._complaints.say(
                    logging.ERROR, "A callback could not be stored: %s in\n%s", type(result).__name__, where
                )
        return results

    def _writer(self, account: Account) -> Writer:
        return self._writers.setdefault(account.inbox.name, Writer(STORE_TIMEOUT))

    def _report(self, callback: Callback, states: Sequence[str | None]) -> None:
        level, text = _about(callback, states)
        if callback.by_secret:
            log.log(level, *text)
        else:
            self._complaints.say(level, *text, what="unverified")

    def _note_refused(self, account: Account, times: int, why: str) -> None:
        writer = self._writer(account)
        if not writer.is_broken():
            writer.submit(lambda inbox: inbox.note_refused(times, why), account.inbox, False)

    def _refuse(self, status: int, why: str, accounts: Sequence[Account]) -> Response:
        """Refuses a callback that is for one of these accounts, as far as that is known."""
        self._refusals.count(accounts, why)
        self._complaints.say(
            logging.WARNING,
            "A callback was refused with %d: %s (more of these in the next %.0f s are not logged)",
            status,
            why,
            COMPLAIN_PAUSE,
            what="refused",
        )
        return answer(status)


def _is_http_1(scope: Scope) -> bool:
    return bool(scope.get("http_version", "1.1").startswith("1"))


def answer(status: int) -> Response:
    return PlainTextResponse("" if status == 200 else "refused\n", status)


async def _body_of(request: Request, longest: int) -> bytes | None:
    """The body; `None` where it is too large, which shows without reading the rest."""
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and (len(stated) > 18 or int(stated) > longest):
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > longest:
            return None
    return bytes(body)


def _about(callback: Callback, states: Sequence[str | None]) -> tuple[int, tuple[Any, ...]]:
    """What the log says of a callback that is stored."""
    if all(state is None for state in states):
        return logging.DEBUG, ("A callback was repeated",)
    if callback.kind == "wallet":
        return logging.INFO, ("A callback about the wallet was stored",)
    if VERIFIED in states:
        return logging.INFO, ("A callback has brought the message of order %d", callback.order_id)
    if UNVERIFIED in states:
        text = "A callback about order %d is unverified: only the status of the order counts"
        return logging.INFO, (text, callback.order_id)
    if OPEN in states:
        return logging.INFO, (
            "A callback is about order %d, which is not known yet. It is kept until then",
            callback.order_id,
        )
    return logging.WARNING, ("A callback in an unknown form was stored, and has no effect",)
