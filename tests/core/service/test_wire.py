"""One request on the wire: proxies, TLS, and the last moment before its first byte."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from requests_mock import Mocker
from rigs import API_KEY, eventually
from rigs.transport import ORDER, PATH, MakeTransport, buy, cut
from rigs.wire import (
    WireServer,
    answer,
    answers_and_notes_the_end,
    closed_port,
    closes,
    drips,
    is_silent,
    notes_the_end,
    resets,
    response,
    sends,
    tunnels_to,
)

from smsverify import errors
from smsverify._service.transport import OutcomeUnknown, Transport
from smsverify._service.wire import WatchedConnection
from smsverify.settings import Settings

# ------------------------------------------------------------------ proxies


pytestmark = pytest.mark.slow


def test_a_proxy_of_the_environment_is_used_and_gets_the_request_as_it_is(
    wire: WireServer, make_transport: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", wire.url.replace("http://", "http://user:word@"))
    wire.on("POST", answer(201, ORDER))
    buy(make_transport("http://sms.example", insecure=True))
    (request,) = wire.received
    assert request.path == f"http://sms.example{PATH}"
    assert request.headers["authorization"] == f"Bearer {API_KEY}"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1.2.3"])
def test_this_machine_is_not_looked_for_from_a_proxy(
    host: str, wire: WireServer, make_transport: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, it would be another machine, which would be shown the API key."""
    proxy = WireServer()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    transport = make_transport(wire.url.replace("127.0.0.1", host), connect_timeout=1.0, call_timeout=0.1)
    with contextlib.suppress(errors.ServiceUnavailableError):  # it may not listen at every address
        transport.get("/api/v1/balance/")
    assert proxy.connections == 0
    proxy.stop()


@pytest.mark.parametrize(
    ("proxy", "target"),
    [
        ("no server listens", "http://sms.example"),
        ("no server listens", "https://sms.example"),
        ("refuses", "https://sms.example"),
        ("resets", "https://sms.example"),
        ("says nothing", "https://sms.example"),
        ("is no address", "http://sms.example"),
    ],
)
def test_a_purchase_that_ends_at_the_proxy_s_door_was_not_sent(
    proxy: str,
    target: str,
    wire: WireServer,
    make_transport: MakeTransport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = {"no server listens": f"http://127.0.0.1:{closed_port()}", "is no address": "http://"}
    monkeypatch.setenv("HTTP_PROXY", address.get(proxy, wire.url))
    monkeypatch.setenv("HTTPS_PROXY", address.get(proxy, wire.url))
    wire.on("CONNECT", {"resets": resets, "says nothing": is_silent}.get(proxy, answer(502)))
    with pytest.raises(errors.ServiceUnavailableError, match="was not sent"):
        buy(make_transport(target, connect_timeout=0.5, read_timeout=0.5, insecure=True))
    assert wire.posts == 0
    assert all(API_KEY not in str(request.headers) for request in wire.received)


def test_a_proxy_that_loses_the_answer_leaves_the_outcome_unknown(
    wire: WireServer, make_transport: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", wire.url)
    for behaviour in (closes, answer(502), answer(504), answer(407)):
        wire.on("POST", behaviour)
        wire.received.clear()
        with pytest.raises(OutcomeUnknown):
            buy(make_transport("http://sms.example", insecure=True))
        assert wire.posts == 1


# ------------------------------------------------------------------ TLS


def test_over_tls_with_a_certificate_that_the_environment_trusts_a_purchase_goes_through(
    tls: WireServer, certificate: Path, make_transport: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    tls.on("POST", answer(201, ORDER))
    assert buy(make_transport(tls.url)).body == ORDER
    for behaviour in (closes, resets, sends(cut(0.8))):
        tls.on("POST", behaviour)
        tls.received.clear()
        with pytest.raises(OutcomeUnknown):
            buy(make_transport(tls.url))
        assert tls.posts == 1


@pytest.fixture(params=["an unknown certificate", "a plain port", "a handshake that breaks off"])
def broken_tls(
    request: pytest.FixtureRequest, tls: WireServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WireServer]:
    """A server to which no TLS connection comes about."""
    if request.param == "a plain port":
        plain = WireServer()
        plain.on_accept(*[sends(response(400, "You speak TLS to a plain port"))] * 9)
        plain.url = plain.url.replace("http", "https")
        yield plain
        plain.stop()
        return
    if request.param == "a handshake that breaks off":
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        tls.on_accept(*[closes] * 9)
    yield tls


def test_a_tls_failure_is_not_sent_and_the_key_stays_here(
    broken_tls: WireServer, make_transport: MakeTransport
) -> None:
    with pytest.raises(errors.ServiceUnavailableError, match="was not sent"):
        buy(make_transport(broken_tls.url))
    assert broken_tls.received == []
    assert broken_tls.connections > 1


# ------------------------------------------------------------------ what only a mock can make


@pytest.mark.parametrize(
    "error",
    [
        requests.exceptions.ReadTimeout("read"),
        requests.exceptions.ConnectionError("anything"),
        requests.exceptions.ChunkedEncodingError("cut"),
        requests.exceptions.ContentDecodingError("gzip"),
        OSError("network is unreachable"),
    ],
)
def test_only_a_proof_that_nothing_left_counts(
    error: Exception, make_transport: MakeTransport, requests_mock: Mocker
) -> None:
    requests_mock.post(f"http://127.0.0.1:9{PATH}", exc=error)
    with pytest.raises(OutcomeUnknown):
        buy(make_transport("http://127.0.0.1:9"))
    assert requests_mock.call_count == 1


# ------------------------------------------------------------------ the last moment before the first byte


class Clock:
    """A clock for lengths of time that jumps while a connection comes about, as after a stop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.jumps: list[float] = []
        self.ahead = 0.0
        for module in ("smsverify._service.exchange", "smsverify._service.slots"):
            right = importlib.import_module(module).boottime
            monkeypatch.setattr(f"{module}.boottime", lambda right=right: right() + self.ahead)

        def connect(connection: WatchedConnection) -> None:
            super(WatchedConnection, connection).connect()
            self.ahead += self.jumps.pop(0) if self.jumps else 0.0

        monkeypatch.setattr(WatchedConnection, "connect", connect)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock whose jumps a test says."""
    return Clock(monkeypatch)


WAYS = ["plain", "TLS", "plain through a proxy", "TLS through a proxy"]


@pytest.fixture(params=WAYS)
def way(
    request: pytest.FixtureRequest,
    wire: WireServer,
    tls: WireServer,
    certificate: Path,
    make_transport: MakeTransport,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[WireServer, Callable[..., Transport]]]:
    """A server that sells, and what makes transports to it, on each kind of way there."""
    server = tls if request.param.startswith("TLS") else wire
    server.on("POST", answer(201, ORDER))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    if not request.param.endswith("proxy"):
        yield server, lambda **settings: make_transport(server.url, **settings)
        return
    proxy = WireServer(tls.context if "TLS proxy" in request.param else None) if server is tls else server
    proxy.on("CONNECT", tunnels_to(server.port))
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    # A local address would be gone to without the proxy.
    monkeypatch.setattr(Settings, "is_local", False)
    url = server.url if server is tls else "http://127.0.0.1:9"
    yield server, lambda **settings: make_transport(url, **settings)
    if proxy is not server:
        proxy.stop()


@pytest.mark.parametrize(("seconds", "times"), [(0.0, 1), (1.9, 1), (2.1, 2), (8.0, 2)])
def test_what_is_old_is_put_on_record_anew_right_before_the_first_byte(
    seconds: float, times: int, way: Any, clock: Clock
) -> None:
    server, make = way
    calls: list[int] = []
    clock.jumps = [seconds]
    assert buy(make(), before_sending=lambda: calls.append(server.posts)).body == ORDER
    assert calls == [0] * times
    assert server.posts == 1


def test_what_has_changed_until_the_first_byte_keeps_the_request_back(way: Any, clock: Clock) -> None:
    server, make = way
    calls: list[int] = []

    def announce() -> None:
        calls.append(1)
        if len(calls) > 1:
            raise TimeoutError("no, not any more")  # which requests would take for one of its own

    clock.jumps = [3.0]
    transport = make(rate_limit=1, rate_period=60.0)
    with pytest.raises(TimeoutError, match="not any more"):
        buy(transport, before_sending=announce)
    assert (len(calls), server.posts) == (2, 0)
    assert buy(transport).body == ORDER  # its slot came back


@pytest.mark.parametrize("method", ["get", "buy"])
def test_a_request_that_is_too_late_for_its_slot_takes_another_one(
    method: str, way: Any, clock: Clock
) -> None:
    server, make = way
    server.on("GET", answer(200, {"balance": 5}))
    transport = make(rate_limit=1, rate_period=60.0)
    clock.jumps = [10.1]  # twice its time-out for connecting is the longest that it may take to begin
    body = buy(transport).body if method == "buy" else transport.get("/api/v1/balance/").body
    assert body == (ORDER if method == "buy" else {"balance": 5})
    assert len([request for request in server.received if request.method != "CONNECT"]) == 1
    assert server.connections >= 2


def test_a_request_that_is_always_too_late_is_not_sent_and_says_so(
    wire: WireServer, make_transport: MakeTransport, clock: Clock
) -> None:
    clock.jumps = [11.0] * 9
    with pytest.raises(
        errors.ServiceUnavailableError, match="was not sent: its turn in the rate limit ended"
    ):
        buy(make_transport(wire.url))
    assert wire.posts == 0


def test_a_request_whose_record_is_always_old_is_not_sent_and_says_so(
    wire: WireServer, make_transport: MakeTransport, clock: Clock
) -> None:
    def slow() -> None:
        clock.ahead += 2.1

    with pytest.raises(
        errors.ServiceUnavailableError, match="was not sent: recording that it leaves took too long"
    ):
        buy(make_transport(wire.url, connect_timeout=600.0), before_sending=slow)
    assert wire.posts == 0


def test_a_request_whose_time_out_no_thread_can_watch_is_not_sent(
    way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be a bare error after the first byte."""
    server, make = way
    transport = make(rate_limit=1, rate_period=60.0)

    def fail(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr("smsverify._service.exchange.started", fail)
        with pytest.raises(errors.ServiceUnavailableError, match=r"was not sent: .* can't start new thread"):
            buy(transport, hasty=True)
    assert server.posts == 0
    assert buy(transport).body == ORDER  # its slot came back


def test_a_request_leaves_in_one_piece(
    way: Any, monkeypatch: pytest.MonkeyPatch, make_transport: MakeTransport
) -> None:
    """So that no stop comes between its head and its body."""
    _, make = way
    pieces: list[bytes] = []
    right = WatchedConnection.send

    def send(connection: WatchedConnection, data: Any) -> None:
        if connection._collected is None:
            pieces.append(data)
        right(connection, data)

    monkeypatch.setattr(WatchedConnection, "send", send)
    buy(make())
    posts = [piece for piece in pieces if b"POST" in piece]
    assert len(posts) == 1
    assert posts[0].endswith(b'{"service_id": 1012}')


# ------------------------------------------------------------------ what has no answer


def test_a_request_that_is_given_up_is_taken_back_from_the_kernel(way: Any) -> None:
    """Closed as usual, the connection would go on sending it for minutes while the network is away."""
    server, make = way
    ends: list[str] = []
    server.on("POST", notes_the_end(ends))
    with pytest.raises(OutcomeUnknown):
        buy(make(read_timeout=0.5))
    eventually(lambda: ends, "the end of the connection")
    assert ends == ["reset"]


@pytest.mark.parametrize("stays", [True, False])
def test_an_exchange_that_succeeds_ends_as_usual(stays: bool, way: Any) -> None:
    server, make = way
    ends: list[str] = []
    raw = response(201, ORDER)
    raw = raw.replace(b"Connection: close\r\n", b"") if stays else raw
    server.on("POST", answers_and_notes_the_end(raw, ends))
    assert buy(make()).body == ORDER
    eventually(lambda: ends, "the end of the connection")
    assert ends == ["closed"]


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has it")
@pytest.mark.parametrize("way", [*WAYS, "TLS through a TLS proxy"], indirect=True)
def test_the_kernel_gives_a_request_up_when_a_stopped_process_cannot(
    way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, make = way
    right, limits = WatchedConnection.send, []

    def send(connection: WatchedConnection, data: Any) -> None:
        if connection._collected is None and data.startswith(b"POST"):
            tcp = socket.socket(fileno=os.dup(connection.sock.fileno()))
            limits.append(tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
            tcp.close()
        right(connection, data)

    monkeypatch.setattr(WatchedConnection, "send", send)
    buy(make(read_timeout=7.0))
    assert limits == [7000]


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has it")
def test_a_kernel_without_this_limit_can_buy(
    wire: WireServer, make_transport: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = socket.socket.setsockopt

    def set_option(connection: socket.socket, level: int, option: int, value: Any) -> None:
        if (level, option) == (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT):
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")
        right(connection, level, option, value)

    monkeypatch.setattr(socket.socket, "setsockopt", set_option)
    wire.on("POST", answer(201, ORDER))
    assert buy(make_transport(wire.url)).body == ORDER


# -------------------------------------------------------------- what comes before an answer, or beside it


@pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints\r\nLink: </x>"])
def test_an_answer_that_is_not_the_last_one_is_passed_over(interim: bytes, way: Any) -> None:
    server, make = way
    server.on("POST", sends(b"HTTP/1.1 %b\r\n\r\n" % interim * 3 + response(201, ORDER)))
    assert buy(make()).body == ORDER


@pytest.mark.parametrize("interim", [b"101 Switching Protocols", b"102 Processing"])
def test_answers_that_are_never_the_last_one_are_none(
    interim: bytes, wire: WireServer, make_transport: MakeTransport
) -> None:
    wire.on("POST", sends(b"HTTP/1.1 %b\r\n\r\n" % interim * 200 + response(201, ORDER)))
    with pytest.raises(OutcomeUnknown, match="in the place of an answer"):
        buy(make_transport(wire.url))


@pytest.mark.parametrize(
    "location", [b"/login/\xff", b"http://[::1", b"http://h:99999999/", b"http://" + b"a" * 300 + b".com/"]
)
def test_a_redirect_to_no_address_is_refused_like_any_other(
    location: bytes, wire: WireServer, make_transport: MakeTransport
) -> None:
    moved = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"
    for method in ("GET", "POST"):
        wire.on(method, sends(moved))
    with pytest.raises(OutcomeUnknown, match="redirect"):
        buy(make_transport(wire.url))
    with pytest.raises(errors.UnexpectedResponseError, match="redirect"):
        make_transport(wire.url).get("/api/v1/balance/")


def test_the_body_of_a_redirect_has_the_time_of_any_other(
    wire: WireServer, make_transport: MakeTransport
) -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: /login/\r\n\r\n"
    wire.on("POST", drips(b"x" * 1000, 0.1, first=moved))
    began = time.monotonic()
    with pytest.raises(OutcomeUnknown, match="too slowly"):
        buy(make_transport(wire.url, read_timeout=0.5))
    assert time.monotonic() - began < 5


def test_a_body_whose_bytes_decode_to_nothing_has_the_time_of_any_other(
    wire: WireServer, make_transport: MakeTransport
) -> None:
    head = b"HTTP/1.1 201 Created\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
    start = zlib.compressobj(wbits=31).flush(zlib.Z_SYNC_FLUSH)
    wire.on("POST", drips(b"\x00\x00\x00\xff\xff" * 50, 0.05, first=head + start))
    began = time.monotonic()
    with pytest.raises(OutcomeUnknown):
        buy(make_transport(wire.url, read_timeout=0.5))
    assert time.monotonic() - began < 5


def test_an_error_that_is_no_error_of_a_connection_leaves_the_outcome_unknown(
    make_transport: MakeTransport, requests_mock: Mocker
) -> None:
    requests_mock.post(f"http://127.0.0.1:9{PATH}", exc=UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"))
    with pytest.raises(OutcomeUnknown):
        buy(make_transport("http://127.0.0.1:9"))
