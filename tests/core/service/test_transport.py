"""The wire: what is sent again, what never is, and what becomes of an answer that comes in pieces."""

from __future__ import annotations

import gzip
import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from rigs import API_KEY, eventually
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


# ------------------------------------------------------------------ reads

WORTH_REPEATING: dict[str, Behaviour] = {
    "reset": resets,
    "closed": closes,
    "cut headers": sends(cut(0.3)),
    "cut body": sends(cut(0.8)),
    "HTML": answer(200, "<html>One moment</html>"),
    "408": answer(408),
    "500": answer(500),
    "503": answer(503, "", Retry_After="0"),
    "429": answer(429, "", Retry_After="0"),
    "no gzip": answer(200, "{}", Content_Encoding="gzip"),
}


@pytest.mark.parametrize("name", WORTH_REPEATING)
def test_a_read_is_repeated_until_it_succeeds(
    name: str, wire: WireServer, make_transport: MakeTransport
) -> None:
    wire.on("GET", WORTH_REPEATING[name], WORTH_REPEATING[name], answer(200, {"balance": 5}))
    assert make_transport(wire.url).get("/api/v1/balance/").body == {"balance": 5}
    assert len(wire.of("GET")) == 3


@pytest.mark.parametrize(
    ("behaviour", "kind", "sent"),
    [
        (answer(500, {"error": "Oops"}), errors.ServiceUnavailableError, 4),
        (closes, errors.ServiceUnavailableError, 4),
        (answer(200, "<html>"), errors.UnexpectedResponseError, 4),
        (answer(302, "", Location="/api/v1/balance/?again"), errors.UnexpectedResponseError, 1),
        (answer(401, {"error": "Invalid API key"}), errors.AuthenticationError, 1),
        (answer(403, {"error": "No"}), errors.AuthenticationError, 1),
        (answer(404, {"error": "Order not found"}), errors.NotFoundError, 1),
        (answer(400, {"error": "country_id query parameter is required"}), errors.InvalidRequestError, 1),
    ],
)
def test_a_read_gives_up_with_what_the_service_said(
    behaviour: Behaviour,
    kind: type[errors.SmsVerifyError],
    sent: int,
    wire: WireServer,
    make_transport: MakeTransport,
) -> None:
    wire.on("GET", behaviour)
    with pytest.raises(kind) as caught:
        make_transport(wire.url).get("/api/v1/balance/")
    assert type(caught.value) is kind
    assert len(wire.received) == sent


def test_a_read_never_takes_longer_than_its_total_deadline(
    wire: WireServer, make_transport: MakeTransport
) -> None:
    wire.on("GET", answer(503, "", Retry_After="3000"))
    with pytest.raises(errors.ServiceUnavailableError) as caught:
        make_transport(wire.url, call_timeout=2.0).get("/api/v1/balance/")
    assert caught.value.retry_after == 3000
    assert len(wire.received) == 1


@pytest.mark.parametrize(
    "first",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "],
    ids=["in the body", "in the headers"],
)
def test_an_answer_that_drips_ends_with_the_time_outs(
    first: bytes, wire: WireServer, make_transport: MakeTransport
) -> None:
    """Each byte comes well within the read time-out; the whole would take minutes."""
    wire.on("GET", drips(b"x" * 1000, 0.2, first=first))
    ended: list[BaseException] = []

    def read() -> None:
        try:
            make_transport(wire.url, read_timeout=1.0, call_timeout=1.0).get("/api/v1/balance/")
        except errors.SmsVerifyError as error:
            ended.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(60)
    assert len(ended) == 1
    assert isinstance(ended[0], (errors.ServiceUnavailableError, errors.UnexpectedResponseError))


def test_a_flood_is_cut_off(wire: WireServer, make_transport: MakeTransport) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
    wire.on("GET", sends(head + b"[" * 12_000_000))
    with pytest.raises(errors.ServiceUnavailableError, match="too long"):
        make_transport(wire.url, call_timeout=3.0).get("/api/v1/balance/")


def test_a_compressed_answer_in_small_pieces_is_read_to_its_end(
    wire: WireServer, make_transport: MakeTransport
) -> None:
    body = [{"order_id": number, "status": "pending"} for number in range(1, 60)]
    packed = gzip.compress(json.dumps(body).encode())
    wire.on("GET", drips(response(200, packed, Content_Encoding="gzip"), 0.001))
    assert make_transport(wire.url, read_timeout=30.0).get("/api/v1/orders/").body == body


def test_chunked_answers_without_a_length_are_read_to_their_end(
    wire: WireServer, make_transport: MakeTransport
) -> None:
    wire.on("GET", drips(chunked(b'{"bal', b'ance": 5', b"}"), 0.001))
    assert make_transport(wire.url).get("/api/v1/balance/").body == {"balance": 5}


def test_a_stop_ends_the_pause_before_a_repetition(wire: WireServer, make_transport: MakeTransport) -> None:
    wire.on("GET", answer(503, "", Retry_After="100"))
    stop = threading.Event()
    ended: list[type[BaseException]] = []

    def read() -> None:
        try:
            make_transport(wire.url, call_timeout=200.0).get("/api/v1/balance/", stop=stop)
        except errors.SmsVerifyError as error:
            ended.append(type(error))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    eventually(lambda: wire.received, "the first attempt")
    stop.set()
    reader.join(60)
    assert ended == [errors.WaitStoppedError]
    assert len(wire.received) == 1


# ------------------------------------------------------------------ 429


@pytest.mark.parametrize("header", ["seconds", "date", "none"])
def test_a_429_makes_everybody_wait_as_long_as_it_says(
    header: str, wire: WireServer, make_transport: MakeTransport
) -> None:
    headers = {
        "seconds": {"Retry_After": "5"},
        "date": {
            "Date": "Tue, 12 May 2026 05:00:00 GMT",
            "Retry_After": "Tue, 12 May 2026 05:00:05 GMT",
        },
        "none": {},
    }[header]
    wire.on("GET", answer(429, {"error": "Rate limit exceeded."}, **headers), answer(200, {}))
    one, other = make_transport(wire.url), make_transport(wire.url, call_timeout=0.1)
    reader = threading.Thread(target=one.get, args=("/api/v1/balance/",))
    began = time.monotonic()
    reader.start()
    eventually(lambda: other._rate_limit.state().refusals, "the refusal")
    if header != "none":
        with pytest.raises(errors.RateLimitedError) as caught:
            other.get("/api/v1/balance/")
        assert caught.value.retry_after is not None
        assert 0.1 < caught.value.retry_after <= 5
        assert len(wire.received) == 1
    reader.join(60)
    assert len(wire.received) == 2
    assert time.monotonic() - began >= (5 if header != "none" else 0)


def test_a_429_beyond_the_deadline_says_when_to_come_back_and_nothing_more_is_sent(
    wire: WireServer, make_transport: MakeTransport
) -> None:
    wire.on(
        "POST",
        answer(429, {"error": "Rate limit exceeded. Maximum 60 requests per minute."}, Retry_After="90"),
    )
    with pytest.raises(errors.RateLimitedError, match="Maximum 60") as caught:
        buy(make_transport(wire.url, rate_period=60.0))
    assert caught.value.status_code == 429
    assert caught.value.retry_after is not None
    assert 80 < caught.value.retry_after <= 90
    assert wire.posts == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry_After": "99999999"},
        {"Retry_After": "9" * 500},
        {"Retry_After": "Fri, 31 Dec 9999 23:59:59 GMT"},
        {"Retry_After": "Fri, 31 Dec 9999 23:59:59 -1200", "Date": "Thu, 01 Jan 1970 00:00:00 GMT"},
    ],
)
def test_a_429_that_asks_for_ages_is_asked_again_after_five_minutes_of_the_service(
    headers: dict[str, str], wire: WireServer, make_transport: MakeTransport
) -> None:
    """Its minute lasts a tenth of a second here."""
    wire.on("POST", answer(429, {"error": "Rate limit exceeded."}, **headers), answer(201, ORDER))
    assert buy(make_transport(wire.url, rate_period=0.1)).body == ORDER
    assert wire.posts == 2


@pytest.mark.parametrize(
    "headers", [{"Retry_After": "-99999"}, {"Retry_After": "Thu, 01 Jan 1970 00:00:00 GMT"}, {}]
)
def test_a_429_without_a_usable_pause_is_followed_by_a_pause_of_ours(
    headers: dict[str, str], wire: WireServer, make_transport: MakeTransport
) -> None:
    wire.on("POST", answer(429, {"error": "Rate limit exceeded."}, **headers), answer(201, ORDER))
    began = time.monotonic()
    assert buy(make_transport(wire.url, rate_period=6.0)).body == ORDER
    assert time.monotonic() - began > 0.02


def test_no_number_of_refusals_ends_a_call_before_its_deadline(
    wire: WireServer, make_transport: MakeTransport
) -> None:
    transport = make_transport(wire.url)
    assert transport._backoff(5000) <= 0.5  # 30 s of the service's minute


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
            raise NotReady(lambda: prepared.append(transport.get("/api/v1/balance/").body))

    assert buy(transport, before_sending=before).body == ORDER
    assert prepared == [{"balance": 5}]
    assert [request.method for request in wire.received] == ["GET", "POST"]


def test_what_cannot_be_done_first_keeps_the_request_back_and_is_not_tried_forever(
    wire: WireServer, make_transport: MakeTransport
) -> None:
    wire.on("GET", answer(503, ""))
    transport = make_transport(wire.url)

    def before() -> None:
        raise NotReady(lambda: transport.get("/api/v1/services/temporary/") and None)

    with pytest.raises(errors.ServiceUnavailableError, match="services/temporary"):
        buy(transport, before_sending=before)
    assert (len(wire.of("GET")), wire.posts) == (4, 0)


def test_what_has_to_be_done_first_again_and_again_keeps_the_request_back_until_its_deadline(
    wire: WireServer, make_transport: MakeTransport
) -> None:
    transport = make_transport(wire.url, call_timeout=0.5)

    def before() -> None:
        raise NotReady(lambda: None)

    with pytest.raises(errors.ServiceUnavailableError, match=r"not sent within call_timeout=0\.5 s"):
        buy(transport, before_sending=before)
    assert wire.posts == 0
