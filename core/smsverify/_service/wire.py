"""One request on the wire: its connection, the last moment before its first byte, and its answer.

Loaded with the first request, since requests takes long to load.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import os
import re
import socket
import struct
import threading
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connection import HTTPConnection, HTTPSConnection

from smsverify._service.answers import Answer
from smsverify._service.exchange import Exchange, WireError
from smsverify._version import __version__
from smsverify.settings import Settings

LARGEST_BODY = 10 * 1024 * 1024  # bytes
MOST_INTERIM = 100  # answers with a status of 1xx before the answer itself
LONGEST_REASON = 1000  # characters that are read of what an exception says
# Of SO_LINGER: what happens when a connection is closed.
_ABORT = struct.pack("ii", 1, 0)
_FINISH = struct.pack("ii", 0, 0)


class Wire:
    """Sends requests to the service. Safe to use from several threads.

    Args:
        settings: address, key and time-outs.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reading: tuple[int, requests.Session] | None = None

    def send(self, exchange: Exchange) -> Answer:
        """Sends a request once, and reads its answer.

        Raises:
            WireError: there is no answer.
        """
        session = self._session(is_post=exchange.is_post)
        exchange.may_have_left = True  # only a connection that watches it knows better
        _this_thread.exchange = exchange
        try:
            return self._exchange(session, exchange)
        except _KeptBack as kept:
            raise kept.reason from kept.reason.__cause__
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise WireError(_reason(error)) from None
        finally:
            exchange.watch.end()
            if exchange.is_post:
                session.close()

    def _exchange(self, session: requests.Session, exchange: Exchange) -> Answer:
        asked = exchange.request
        prepared = session.prepare_request(
            requests.Request(asked.method, asked.url, params=asked.params, json=asked.body)
        )
        options = session.merge_environment_settings(prepared.url, {}, True, None, None)
        if self._settings.is_local:
            options["proxies"] = {}  # from a proxy, this machine's own address would be another machine's
        timeout = (min(self._settings.connect_timeout, exchange.timeout), exchange.timeout)
        response = session.send(prepared, timeout=timeout, allow_redirects=False, **options)
        with response:
            text = _read(response, exchange.watch.is_late)
            secret = self._settings.api_key.get_secret_value()
            return Answer(response.status_code, response.headers, text, exchange.endpoint, secret)

    def _session(self, *, is_post: bool) -> requests.Session:
        """Each process keeps one session for its reads. Every POST gets a session of its own.

        On a kept connection, a POST could arrive just as the server closes it. Then no one could say whether
        the server has read it.
        """
        if is_post:
            return self._make_session()
        if self._reading is None or self._reading[0] != os.getpid():
            self._reading = (os.getpid(), self._make_session())
        return self._reading[1]

    def _make_session(self) -> requests.Session:
        session = _Session()
        session.auth = _Bearer(self._settings)
        session.headers.update({"Accept": "application/json", "User-Agent": f"smsverify/{__version__}"})
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        session.mount("http://", _WatchedAdapter())
        session.mount("https://", _WatchedAdapter())
        return session


class _Session(requests.Session):
    """Never looks where a redirect leads. Also where it follows none, requests would parse the address, which
    may fail after the request has left, and read the whole body, however long."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class _Bearer(AuthBase):
    """The key as an auth object of the session, so that a `.netrc` of the machine cannot replace it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._settings.api_key.get_secret_value()}"
        return request


# -------------------------------------------------------------- the connection


class _ThisThread(threading.local):
    """What this thread sends. requests and urllib3 have no way to pass it to the connection."""

    exchange: Exchange


_this_thread = _ThisThread()


class _KeptBack(Exception):
    """The check kept a request from leaving. urllib3 and requests take some errors for their own."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__(str(reason))
        self.reason = reason


class _FinalResponse(http.client.HTTPResponse):
    """The answer itself. Python passes over a 100 before it, and takes any other 1xx for the whole answer.
    Then the next request on the connection would read the answer to this one."""

    def begin(self) -> None:
        super().begin()
        for _ in range(MOST_INTERIM):
            if not 101 < self.status < 200:
                break
            self.headers = None  # type: ignore[assignment]  # it would count as begun
            super().begin()
        if self.status < 200:
            raise http.client.UnknownProtocol(f"HTTP with {self.status} in the place of an answer")


class WatchedConnection(HTTPConnection):
    """Checks a last time whether a request may leave, notes that it leaves, and ends an answer whose headers
    come too slowly.

    The request is collected, and leaves in one piece over a connection that is already open, with its proxy
    and its TLS. So nothing that takes long lies between the check and the first byte, nor between the first
    byte and the last.

    A request without an answer is taken back from the kernel when its connection is closed, also by the death
    of this process. Otherwise the kernel would send it again for minutes, and it could reach the service when
    it counts as not made.
    """

    response_class = _FinalResponse
    _collected: list[bytes] | None = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        self._collected = []
        try:
            super().request(*args, **kwargs)
            whole = b"".join(self._collected)
        finally:
            self._collected = None
        exchange = _this_thread.exchange
        try:
            exchange.watch.start(_tcp(self.sock))
            exchange.check()
        except BaseException as error:
            raise _KeptBack(error) from error
        _abort_without_an_answer(_tcp(self.sock), exchange.timeout)
        exchange.may_have_left = True
        exchange.watch.request_leaves()
        self.send(whole)

    def send(self, data: Any) -> None:
        if self._collected is None:
            super().send(data)
        else:
            self._collected.append(bytes(data))

    def getresponse(self) -> Any:
        connection = _tcp(self.sock)
        response = super().getresponse()
        _this_thread.exchange.watch.headers_came()
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _FINISH)
        return response


def _tcp(connection: Any) -> socket.socket:
    """The socket itself, below the TLS that urllib3 puts around a TLS connection to a proxy."""
    while not isinstance(connection, socket.socket):
        connection = connection.socket
    return connection


def _abort_without_an_answer(connection: socket.socket, timeout: float) -> None:
    """Lets the kernel send a request no more once its connection is closed, nor after its time-out: a process
    that is stopped closes nothing.

    Every system has the first of the two options. Where it cannot be set, nothing may be sent.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        milliseconds = min(math.ceil(timeout * 1000), 2**31 - 1)
        with contextlib.suppress(OSError):  # Python has the name, but not every kernel has the option.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


class _HTTPSConnection(WatchedConnection, HTTPSConnection):
    pass


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = WatchedConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class _WatchedAdapter(HTTPAdapter):
    """Uses connections that note whether a request has left: only one that has not is safe to repeat.

    requests reports a TLS handshake that failed and a connection that broke after the request as the same
    error.
    """

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> urllib3.ProxyManager:
        manager: urllib3.ProxyManager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        _this_thread.exchange.may_have_left = False
        return super().send(*args, **kwargs)


# -------------------------------------------------------------- the answer


def _read(response: requests.Response, is_late: threading.Event) -> str:
    """The body. A server that drips it has until `is_late` is set; one that floods is cut off."""
    parts: list[bytes] = []
    size = 0
    while (part := response.raw.read1(65536, decode_content=True)) or is_late.is_set():
        parts.append(part)
        size += len(part)
        if size > LARGEST_BODY or is_late.is_set():
            raise requests.exceptions.ConnectionError("the answer is too long or came too slowly")
    return b"".join(parts).decode("utf-8-sig", errors="replace")


def _reason(error: Exception) -> str:
    """What went wrong, in the words of the lowest layer, without the addresses of objects."""
    cause: Any = error.args[0] if error.args else error
    cause = getattr(cause, "reason", None) or cause
    # It may quote a line of the answer, of any length.
    words = str(cause)[:LONGEST_REASON]
    text = re.sub(r"<[^>]*>:? ?|\(?<?urllib3\.\S+ object at 0x[0-9a-f]+>?,? ?", "", words).strip()
    return f"{type(error).__name__}: {text or type(cause).__name__}"
