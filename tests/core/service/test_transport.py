"""The transport: a paid call is never sent twice, the key goes nowhere else, and what is done before."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import requests
from rigs import API_KEY
from rigs.transport import ORDER, PATH, MakeTransport, buy, chunked, cut
from rigs.wire import (
    Behaviour,
    WireServer,
    answer,
    closed_port,
    closes,
    drips,
    is_silent,
    resets,
    resets_at_the_first_byte,
    response,
    sends,
)

from smsverify import errors
from smsverify._service.rate_limit import Priority
from smsverify._service.transport import NotReady, OutcomeUnknown

# ------------------------------------------------------------------ paid calls

# The server has read the POST. No one knows whether it has carried it out.
PERHAPS_CARRIED_OUT: dict[str, Behaviour] = {
    "reset after the request": resets,
    "closed after the request": closes,
    "cut in the status line": sends(b"HTTP/1.1 20"),
    "cut in the headers": sends(cut(0.3)),
    "cut before the body": sends(response(201, ORDER).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"),
    "cut in the body": sends(cut(0.8)),
    "cut in a chunk": sends(chunked(b'{"order_id"', whole=False)[:-3]),
    "cut between chunks": sends(chunked(b'{"order_id"', whole=False)),
    "not HTTP": sends(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "a body that is no gzip": answer(201, ORDER, Content_Encoding="gzip"),
    "no answer": is_silent,
    "a slow drip": drips(response(201, ORDER)[-60:], 0.1, first=response(201, ORDER)[:-60]),
    "an empty 201": answer(201),
    "HTML with 200": answer(200, "<html>Welcome</html>", Content_Type="text/html"),
    "cut JSON": answer(201, '{"success": true, "data": {"order_id": 7'),
    "deep JSON": answer(201, "[" * 100_000),
    "success false": answer(200, {"success": False, "error": "Something went wrong"}),
    "301": answer(301, "", Location="/elsewhere/"),
    "302": answer(302, "", Location="/elsewhere/"),
    "307": answer(307, "", Location=PATH),
    "308": answer(308, "", Location=PATH),
    "408": answer(408, {"error": "Request time-out"}),
    "409": answer(409, {"error": "Conflict"}),
    "500": answer(500, {"service_id": ["A valid integer is required."]}),
    "502": answer(502, "<h1>Bad gateway</h1>"),
    "503 with Retry-After": answer(503, "", Retry_After="0"),
    "504": answer(504),
}


@pytest.mark.parametrize("name", PERHAPS_CARRIED_OUT)
def test_a_paid_post_is_never_sent_twice_after_it_may_have_left(
    name: str, wire: WireServer, make_transport: MakeTransport
) -> None:
    wire.on("POST", PERHAPS_CARRIED_OUT[name])
    read_timeout = 1.0 if name in ("no answer", "a slow drip") else 30.0
    with pytest.raises(OutcomeUnknown) as caught:
        buy(make_transport(wire.url, read_timeout=read_timeout))
    assert wire.posts == 1
    assert wire.of("POST")[0].path == PATH
    assert len(wire.received) == 1  # in particular, no GET of where a redirect leads
    assert isinstance(caught.value.cause, errors.ServiceError)
    assert API_KEY not in str(caught.value)


def test_a_reset_before_the_request_was_read_may_still_be_a_purchase(
    wire: WireServer, make_transport: MakeTransport
) -> None:
    wire.on_accept(resets_at_the_first_byte)
    wire.on("POST", answer(201, ORDER))
    with pytest.raises(OutcomeUnknown):
        buy(make_transport(wire.url))
    assert (wire.connections, wire.posts) == (1, 0)


REJECTED: dict[int, type[errors.SmsVerifyError]] = {
    400: errors.ServiceError,
    401: errors.AuthenticationError,
    402: errors.InsufficientBalanceError,
    403: errors.AuthenticationError,
    404: errors.NotFoundError,
    422: errors.ServiceError,
}


@pytest.mark.parametrize(("status", "kind"), REJECTED.items())
def test_a_clear_no_is_an_error_and_is_not_asked_again(
    status: int, kind: type[errors.SmsVerifyError], wire: WireServer, make_transport: MakeTransport
) -> None:
    wire.on("POST", answer(status, {"error": "No"}))
    with pytest.raises(kind):
        buy(make_transport(wire.url))
    assert wire.posts == 1


def test_a_refused_connection_is_tried_again_and_then_unavailable(
    wire: WireServer, make_transport: MakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "smsverify")
    calls: list[int] = []
    with pytest.raises(errors.ServiceUnavailableError, match="was not sent") as caught:
        buy(make_transport(f"http://127.0.0.1:{closed_port()}"), before_sending=lambda: calls.append(1))
    assert len(calls) == 4
    assert "refused" in str(caught.value)
    assert "object at 0x" not in str(caught.value)
    assert len([record for record in caplog.records if "trying again" in record.message]) == 3


def test_a_host_without_an_address_is_unavailable(make_transport: MakeTransport) -> None:
    transport = make_transport("https://nowhere.invalid", call_timeout=60.0)
    with pytest.raises(errors.ServiceUnavailableError, match="was not sent"):
        buy(transport)


def test_a_connection_that_comes_up_at_last_carries_the_purchase_once(
    make_transport: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = WireServer()
    server.on("POST", answer(201, ORDER))
    attempts: list[int] = []
    connect = requests.adapters.HTTPAdapter.send

    def refuse_twice(self: Any, request: Any, *args: Any, **options: Any) -> Any:
        attempts.append(1)
        if len(attempts) < 3:
            request = request.copy()
            request.url = f"http://127.0.0.1:{closed_port()}/"
        return connect(self, request, *args, **options)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", refuse_twice)
    reply = buy(make_transport(server.url))
    assert reply.body == ORDER
    assert (len(attempts), server.posts) == (3, 1)
    server.stop()


def test_a_purchase_that_is_answered_429_goes_again(wire: WireServer, make_transport: MakeTransport) -> None:
    wire.on("POST", answer(429, {"error": "Rate limit exceeded."}, Retry_After="0"), answer(201, ORDER))
    assert buy(make_transport(wire.url)).body == ORDER
    assert wire.posts == 2


def test_a_cancellation_goes_again_where_it_was_not_answered(
    wire: WireServer, make_transport: MakeTransport
) -> None:
    wire.on("POST", closes, answer(502), answer(200, {"success": True}))
    transport = make_transport(wire.url)
    transport.post("/api/v1/order/7/cancel/", priority=Priority.RELEASE, is_repeatable=True)
    assert wire.posts == 3


def test_what_is_decided_in_the_last_moment_keeps_a_request_from_leaving(
    wire: WireServer, make_transport: MakeTransport
) -> None:
    wire.on("POST", answer(201, ORDER))

    def refuse() -> None:
        raise LookupError("not any more")

    transport = make_transport(wire.url, rate_limit=1, rate_period=60.0)
    with pytest.raises(LookupError):
        buy(transport, before_sending=refuse)
    assert wire.connections == 0
    assert buy(transport).body == ORDER  # its slot came back


def test_every_post_has_a_connection_of_its_own(wire: WireServer, make_transport: MakeTransport) -> None:
    wire.on("POST", answer(201, ORDER))
    transport = make_transport(wire.url)
    for _ in range(3):
        buy(transport)
    assert (wire.connections, wire.posts) == (3, 3)


# ------------------------------------------------------------------ the key, and where it goes


def test_a_request_carries_what_the_documentation_asks_for(
    wire: WireServer, make_transport: MakeTransport
) -> None:
    wire.on("POST", answer(201, ORDER))
    transport = make_transport(wire.url)
    transport.get("/api/v1/global/services/", {"country_id": "4"})
    buy(transport)
    transport.post("/api/v1/order/7/cancel/", priority=Priority.RELEASE)
    read, bought, cancelled = wire.received
    for request in wire.received:
        assert request.headers["authorization"] == f"Bearer {API_KEY}"
        assert request.headers["accept"] == "application/json"
        assert request.headers["user-agent"].startswith("smsverify/")
    assert read.path == "/api/v1/global/services/?country_id=4"
    assert read.body == b""
    assert bought.headers["content-type"] == "application/json"
    assert json.loads(bought.body) == {"service_id": 1012}
    assert (cancelled.body, cancelled.headers["content-length"]) == (b"", "0")


def test_a_netrc_does_not_replace_the_key(
    wire: WireServer, make_transport: MakeTransport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\ndefault login x password y\n")
    monkeypatch.setenv("NETRC", str(netrc))
    (tmp_path / "home" / ".netrc").write_text(netrc.read_text())
    wire.on("POST", answer(201, ORDER))
    transport = make_transport(wire.url)
    transport.get("/api/v1/balance/")
    buy(transport)
    assert {request.headers["authorization"] for request in wire.received} == {f"Bearer {API_KEY}"}


def test_cookies_are_not_kept(wire: WireServer, make_transport: MakeTransport) -> None:
    wire.on("GET", answer(200, {}, Set_Cookie="session=other-account; Path=/"))
    transport = make_transport(wire.url)
    transport.get("/api/v1/balance/")
    transport.get("/api/v1/balance/")
    assert [request.headers.get("cookie") for request in wire.received] == [None, None]


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_redirect_is_refused_and_the_key_is_sent_nowhere_else(
    status: int, method: str, wire: WireServer, make_transport: MakeTransport
) -> None:
    elsewhere = WireServer()
    wire.on(method, answer(status, "", Location=f"{elsewhere.url}/api/v1/balance/"))
    transport = make_transport(wire.url)
    send = buy if method == "POST" else lambda transport: transport.get("/api/v1/balance/")
    with pytest.raises((errors.UnexpectedResponseError, OutcomeUnknown), match=r"redirect.*base_url"):
        send(transport)
    assert (len(wire.received), elsewhere.connections) == (1, 0)
    elsewhere.stop()


# ------------------------------------------------------------------ what has to be done before


def test_what_has_to_be_done_first_needs_no_slot_and_keeps_the_place(
    wire: WireServer, make_transport: MakeTransport
) -> None:
    wire.on("GET", answer(200, {"balance": 5}))
    wire.on("POST", answer(201, ORDER))
    transport = make_transport(wire.url, rate_limit=2, rate_period=1.0)
    prepared: list[Any] = []

    def before() -> None:
        if not prepared:
            raise NotReady(lambda: prepared.append(transport.get("/api/v1/balance/").body), "it was")

    assert buy(transport, before_sending=before).body == ORDER
    assert prepared == [{"balance": 5}]
    assert [request.method for request in wire.received] == ["GET", "POST"]


def test_what_cannot_be_done_first_keeps_the_request_back_and_is_not_tried_forever(
    wire: WireServer, make_transport: MakeTransport
) -> None:
    wire.on("GET", answer(503, ""))
    transport = make_transport(wire.url)

    def before() -> None:
        raise NotReady(lambda: transport.get("/api/v1/services/temporary/") and None, "it was")

    with pytest.raises(errors.ServiceUnavailableError, match="services/temporary"):
        buy(transport, before_sending=before)
    assert (len(wire.of("GET")), wire.posts) == (4, 0)


def test_what_has_to_be_done_first_again_and_again_keeps_the_request_back_until_its_deadline(
    wire: WireServer, make_transport: MakeTransport
) -> None:
    transport = make_transport(wire.url, call_timeout=0.5)

    def before() -> None:
        raise NotReady(lambda: None, "its price was too old")

    with pytest.raises(errors.ServiceUnavailableError, match=r"not sent within call_timeout=0\.5 s"):
        buy(transport, before_sending=before)
    assert wire.posts == 0
