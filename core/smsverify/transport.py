"""HTTP: authentication, the budget, what an error means, and which requests may be repeated."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import random
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import tenacity
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connection import HTTPConnection, HTTPSConnection

from smsverify.answers import (
    Answer,
    Reply,
    as_error,
    as_reply,
    is_rejection,
    unexpected,
)
from smsverify.budget import Budget, Priority
from smsverify.errors import (
    RateLimitedError,
    ServiceError,
    ServiceUnavailableError,
    UnexpectedResponseError,
    WaitStoppedError,
)
from smsverify.settings import Settings
from smsverify.version import __version__

log = logging.getLogger(__name__)

ATTEMPTS = 4
BACKOFF_BASE = 0.5  # seconds, doubled with every attempt, of a service whose minute lasts a minute
BACKOFF_MAX = 30.0
HASTE = 10.0  # seconds for an answer, and two attempts, where somebody is on the way out
LARGEST_BODY = 10 * 1024 * 1024


class OutcomeUnknown(Exception):
    """A POST may have been carried out, or not; `cause` is what was seen."""

    def __init__(self, cause: ServiceError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(frozen=True)
class _Call:
    """A request, and how it may be sent."""

    request: requests.Request
    priority: Priority
    stop: threading.Event | None
    is_repeatable: bool
    before_sending: Callable[[], None] | None = None
    while_waiting: Callable[[], None] | None = None
    hasty: bool = False

    @property
    def is_post(self) -> bool:
        return bool(self.request.method == "POST")


class _Bearer(AuthBase):
    """The key as an auth object of the session, so that a `.netrc` of the machine can not replace it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._settings.api_key.get_secret_value()}"
        return request


class _Wire(threading.local):
    """What this thread's request does on the wire.

    Attributes:
        sent: whether it has begun to leave; `None` where nobody watched.
        patience: seconds that all headers of the answer together may take.
    """

    sent: bool | None = None
    patience = 60.0


_wire = _Wire()


class _Watched(HTTPConnection):
    """Notes when a request begins to leave, and ends an answer whose headers come too slowly."""

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        _wire.sent = True
        super().putrequest(*args, **kwargs)

    def getresponse(self) -> Any:
        # The socket's time-out begins anew with each byte.
        timer = threading.Timer(_wire.patience, _shut, (self.sock,))
        timer.daemon = True
        timer.start()
        try:
            return super().getresponse()
        finally:
            timer.cancel()


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _HTTPSConnection(_Watched, HTTPSConnection):
    pass


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Watched


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _WatchedAdapter(HTTPAdapter):
    """Tells afterwards whether a request that failed had begun to leave: only one that had not is safe to
    repeat.

    requests alone does not tell a TLS handshake that failed from a connection that broke after the request.
    """

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _HTTPPool,
            "https": _HTTPSPool,
        }

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> urllib3.ProxyManager:
        manager: urllib3.ProxyManager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        return manager

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        _wire.sent = False
        return super().send(*args, **kwargs)


class Transport:
    """Sends requests to the service within the shared budget. Safe to use from several threads.

    Args:
        settings: address, key and times.
        budget: the key's shared budget; every attempt takes a permit of it.
    """

    def __init__(self, settings: Settings, budget: Budget) -> None:
        self._settings = settings
        self._budget = budget
        self._secret = settings.api_key.get_secret_value()
        self._reading: tuple[int, requests.Session] | None = None

    def get(
        self,
        path: str,
        params: dict[str, str] | None = None,
        *,
        priority: Priority = Priority.READ,
        stop: threading.Event | None = None,
        hasty: bool = False,
    ) -> Reply:
        """Reads. Repeats what failed for no fault of the request, within `call_timeout` seconds.

        `hasty` calls give up sooner: their callers are on the way out.

        Raises:
            ServiceError: by what the service answered, or `ServiceUnavailableError`.
            WaitStoppedError: `stop` was set.
        """
        request = requests.Request("GET", self._settings.base_url + path, params=params)
        return self._repeat(_Call(request, priority, stop, is_repeatable=True, hasty=hasty))

    def post(
        self,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        priority: Priority,
        is_repeatable: bool = False,
        before_sending: Callable[[], None] | None = None,
        while_waiting: Callable[[], None] | None = None,
        stop: threading.Event | None = None,
        hasty: bool = False,
    ) -> Reply:
        """Changes something. Repeats only what provably was not carried out, unless it is harmless to repeat.

        `before_sending` is called when the request has its turn, `while_waiting` now and then before that;
        what either raises keeps it from leaving.

        Raises:
            ServiceError: the request was not carried out.
            OutcomeUnknown: nobody knows whether it was.
            WaitStoppedError: `stop` was set before anything was sent.
        """
        request = requests.Request("POST", self._settings.base_url + path, json=body)
        return self._repeat(
            _Call(request, priority, stop, is_repeatable, before_sending, while_waiting, hasty)
        )

    def unexpected(self, reply: Reply) -> UnexpectedResponseError:
        """The error for a success whose body is not what the documentation says."""
        return unexpected(reply.answer, self._secret)

    # -------------------------------------------------------------- repeating

    def _repeat(self, call: _Call) -> Reply:
        patience = self._settings.call_timeout
        deadline = time.monotonic() + patience

        def may_repeat(error: BaseException) -> bool:
            if isinstance(error, OutcomeUnknown):
                return call.is_repeatable
            return isinstance(error, ServiceUnavailableError)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(may_repeat),
            wait=self._pause,
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(2 if call.hasty else ATTEMPTS),
                tenacity.stop_before_delay(patience),
            ),
            sleep=lambda seconds: _sleep(seconds, call.stop),
            before_sleep=_log_repetition,
            reraise=True,
        )
        try:
            return retrying(self._attempt, call, deadline)
        except OutcomeUnknown as unknown:
            if not call.is_post:
                raise unknown.cause from unknown.cause.__cause__
            raise

    def _pause(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = getattr(error, "retry_after", None) or 0.0
        return max(asked, self._backoff(state.attempt_number - 1))

    def _backoff(self, failures: int) -> float:
        longest: float = min(BACKOFF_BASE * 2.0**failures, BACKOFF_MAX)
        return self._settings.tempo * longest * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)

    def _attempt(self, call: _Call, deadline: float) -> Reply:
        """One attempt. Refusals for the rate are not failures: everybody waits, then it is tried again."""
        refusal: ServiceError | None = None
        for refusals in itertools.count():
            try:
                answer = self._exchange(call, deadline)
            except RateLimitedError as error:
                # The turn does not come in time. What the service itself said tells more.
                if refusal is not None:
                    refusal.retry_after = error.retry_after
                    raise refusal from error
                raise
            if answer.status_code != 429:
                return self._understand(answer, is_post=call.is_post)
            refusal = as_error(answer, self._secret)
            self._budget.block(max(refusal.retry_after or 0.0, self._backoff(refusals)))
        raise AssertionError("unreachable")

    def _understand(self, answer: Answer, *, is_post: bool) -> Reply:
        try:
            reply = as_reply(answer)
        except ValueError:
            # Nothing can be read out of it. Whatever was sent may have been carried out.
            raise OutcomeUnknown(unexpected(answer, self._secret)) from None
        if reply is not None:
            return reply
        error = as_error(answer, self._secret)
        if is_post and not is_rejection(answer, error):
            raise OutcomeUnknown(error)
        raise error

    # -------------------------------------------------------------- one exchange

    def _exchange(self, call: _Call, deadline: float) -> Answer:
        endpoint = f"{call.request.method} {call.request.url.removeprefix(self._settings.base_url)}"
        with self._budget.permit(
            call.priority, deadline=deadline, stop=call.stop, while_waiting=call.while_waiting
        ) as permit:
            if call.before_sending is not None:
                try:
                    call.before_sending()
                except BaseException:
                    permit.give_back()
                    raise
            session = self._session(is_post=call.is_post)
            _wire.sent = None
            try:
                return self._send(session, call, endpoint)
            except (
                requests.RequestException,
                urllib3.exceptions.HTTPError,
                OSError,
            ) as error:
                if not _was_sent(error):
                    permit.give_back()
                    raise ServiceUnavailableError(
                        f"{endpoint} was not sent: {_reason(error)}",
                        endpoint=endpoint,
                    ) from None
                raise OutcomeUnknown(
                    ServiceUnavailableError(
                        f"{endpoint} was not answered: {_reason(error)}",
                        endpoint=endpoint,
                    )
                ) from None
            finally:
                if call.is_post:
                    session.close()

    def _send(self, session: requests.Session, call: _Call, endpoint: str) -> Answer:
        patience = min(self._settings.read_timeout, HASTE if call.hasty else math.inf)
        _wire.patience = patience
        prepared = session.prepare_request(call.request)
        options = session.merge_environment_settings(prepared.url, {}, True, None, None)
        timeout = (min(self._settings.connect_timeout, patience), patience)
        response = session.send(prepared, timeout=timeout, allow_redirects=False, **options)
        with response:
            text = _read(response, time.monotonic() + patience)
            return Answer(response.status_code, response.headers, text, endpoint)

    def _session(self, *, is_post: bool) -> requests.Session:
        """A session for reads, kept by process; a fresh one for every POST.

        On a kept connection a POST could meet the server's closing of it, and nobody could tell whether it
        was read.
        """
        if is_post:
            return self._make_session()
        if self._reading is None or self._reading[0] != os.getpid():
            self._reading = (os.getpid(), self._make_session())
        return self._reading[1]

    def _make_session(self) -> requests.Session:
        session = requests.Session()
        session.auth = _Bearer(self._settings)
        session.headers.update({"Accept": "application/json", "User-Agent": f"smsverify/{__version__}"})
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        session.mount("http://", _WatchedAdapter())
        session.mount("https://", _WatchedAdapter())
        return session


def _was_sent(error: Exception) -> bool:
    """Whether the request may have left before this error; only a proof that it has not counts."""
    if _wire.sent is False or isinstance(error, requests.exceptions.ConnectTimeout):
        return False
    if isinstance(error, requests.exceptions.SSLError):
        return _wire.sent is True
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    reason = getattr(reason, "original_error", reason)  # of a proxy that could not be reached
    return not isinstance(reason, urllib3.exceptions.NewConnectionError)


def _reason(error: Exception) -> str:
    """What went wrong, in the words of the lowest layer, without object addresses."""
    cause: Any = error.args[0] if error.args else error
    cause = getattr(cause, "reason", None) or cause
    text = re.sub(r"<[^>]*>:? ?|\(?<?urllib3\.\S+ object at 0x[0-9a-f]+>?,? ?", "", str(cause)).strip()
    return f"{type(error).__name__}: {text or type(cause).__name__}"


def _read(response: requests.Response, deadline: float) -> str:
    """The body. A server that drips it has until the deadline, one that floods is cut off."""
    parts: list[bytes] = []
    size = 0
    while part := response.raw.read1(65536, decode_content=True):
        parts.append(part)
        size += len(part)
        if size > LARGEST_BODY or time.monotonic() > deadline:
            raise requests.exceptions.ConnectionError("the answer is too long or came too slowly")
    return b"".join(parts).decode("utf-8", errors="replace")


def _sleep(seconds: float, stop: threading.Event | None) -> None:
    if (stop or threading.Event()).wait(seconds):
        raise WaitStoppedError("stopped before a request was repeated")


def _log_repetition(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    pause = state.next_action.sleep if state.next_action else 0.0
    log.info("%s; trying again in %.1f s", error, pause)
