"""What is sent again, an answer in pieces included: a read that failed, and whatever was answered 429."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from rigs import eventually
from rigs.transport import ORDER, MakeTransport, buy, chunked, cut
from rigs.wire import (
    Behaviour,
    WireServer,
    answer,
    closes,
    drips,
    resets,
    response,
    sends,
)

from smsverify import errors
from smsverify._service.rate_limit import HeldSlot, Priority, backoff
from smsverify._service.transport import OutcomeUnknown

# ------------------------------------------------------------------ reads

pytestmark = pytest.mark.slow

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
    ("status", "kind"), [(503, errors.ServiceUnavailableError), (429, errors.RateLimitedError)]
)
def test_a_hasty_call_waits_for_no_long_pause(
    status: int, kind: type[errors.ServiceError], wire: WireServer, make_transport: MakeTransport
) -> None:
    wire.on("POST", answer(status, "", Retry_After="25"), answer(200, {"success": True}))
    transport = make_transport(wire.url, call_timeout=900.0, rate_period=60.0)
    with pytest.raises(kind):
        transport.post("/api/v1/order/7/cancel/", priority=Priority.RELEASE, is_repeatable=True, hasty=True)
    assert len(wire.received) == 1


@pytest.mark.parametrize("priority", [Priority.RELEASE, Priority.READ])
def test_a_hasty_call_that_gives_nothing_back_waits_for_its_slot(
    priority: Priority, wire: WireServer, make_transport: MakeTransport
) -> None:
    """A release is on record, and is tried again. What a read finds out is missed."""
    transport = make_transport(wire.url, call_timeout=900.0, rate_period=60.0)
    transport._rate_limit.block(50)
    stop = threading.Event()
    stop.set()
    kind = errors.RateLimitedError if priority is Priority.RELEASE else errors.WaitStoppedError
    with pytest.raises(kind):
        transport.get("/api/v1/order/7/status/", priority=priority, hasty=True, stop=stop)
    assert wire.received == []


def test_a_hasty_call_has_a_second_attempt(wire: WireServer, make_transport: MakeTransport) -> None:
    wire.on("GET", closes, answer(200, {}), answer(503), answer(503), answer(200, {}))
    transport = make_transport(wire.url)
    assert transport.get("/api/v1/balance/", hasty=True).body == {}
    with pytest.raises(errors.ServiceUnavailableError):
        transport.get("/api/v1/balance/", hasty=True)
    assert len(wire.received) == 4


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


@pytest.mark.parametrize(
    ("method", "what_next"),
    [
        ("GET", "It changed nothing: call it again"),
        ("POST", "It may have been carried out. Call it again: that does no harm"),
    ],
)
def test_a_stop_ends_the_pause_before_a_repetition(
    method: str, what_next: str, wire: WireServer, make_transport: MakeTransport
) -> None:
    wire.on(method, answer(503, "", Retry_After="100"))
    transport, stop = make_transport(wire.url, call_timeout=200.0), threading.Event()
    ended: list[BaseException] = []

    def call() -> None:
        try:
            if method == "GET":
                transport.get("/api/v1/balance/", stop=stop)
            else:
                transport.post(
                    "/api/v1/order/7/cancel/", priority=Priority.RELEASE, is_repeatable=True, stop=stop
                )
        except errors.SmsVerifyError as error:
            ended.append(error)

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    eventually(lambda: wire.received, "the first attempt")
    stop.set()
    caller.join(60)
    (error,) = ended
    assert isinstance(error, errors.WaitStoppedError)
    assert str(error).endswith(what_next)
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
        assert 0.1 < caught.value.retry_after <= 5.1
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


def test_no_number_of_refusals_ends_a_call_before_its_deadline() -> None:
    assert 15 <= backoff(5000, time_scale=1.0) <= 30


def test_a_request_that_is_refused_keeps_its_place(wire: WireServer, make_transport: MakeTransport) -> None:
    wire.on("GET", answer(429, ""), answer(503, ""), answer(200, {}))
    transport = make_transport(wire.url)
    arrived: list[float | None] = []
    acquire = transport._rate_limit.acquire

    @contextmanager
    def noting(*args: Any, **options: Any) -> Iterator[HeldSlot]:
        with acquire(*args, **options) as slot:
            arrived.append(slot.arrived_at)
            yield slot

    transport._rate_limit.acquire = noting  # type: ignore[method-assign]
    transport.get("/api/v1/balance/")
    first, after_the_refusal, after_a_failure = arrived
    assert first == after_the_refusal
    assert first is not None
    assert after_a_failure is not None
    assert first < after_a_failure


@pytest.mark.parametrize("accepted", [answer(204, ""), answer(200, "<html>")], ids=["no body", "no JSON"])
def test_a_success_that_cannot_be_read_ends_the_trial(
    accepted: Behaviour, wire: WireServer, make_transport: MakeTransport
) -> None:
    wire.on("POST", answer(429, ""), accepted)
    transport = make_transport(wire.url)
    with contextlib.suppress(OutcomeUnknown):
        transport.post("/api/v1/order/7/cancel/", priority=Priority.RELEASE, is_repeatable=True, once=True)
    with transport._rate_limit.acquire(Priority.RELEASE, deadline=time.monotonic() + 60) as slot:
        assert slot.pauses == 0


# ------------------------------------------------------------------ a refusal for the rate, in words


LIMITED = {"error": "Rate limit exceeded. Maximum 60 requests per minute."}


@pytest.mark.parametrize("status", [200, 400, 403])
def test_a_refusal_for_the_rate_makes_everybody_wait_whatever_its_status(
    status: int, wire: WireServer, make_transport: MakeTransport
) -> None:
    wire.on("GET", answer(status, LIMITED, Retry_After="2"), answer(200, {}))
    transport = make_transport(wire.url)
    began = time.monotonic()
    with pytest.raises(errors.RateLimitedError) as caught:
        transport.get("/api/v1/order/7/status/")
    assert caught.value.retry_after == 2
    make_transport(wire.url).get("/api/v1/orders/")
    assert time.monotonic() - began >= 2


def test_a_purchase_that_may_have_been_made_before_the_rate_was_refused_is_unknown(
    wire: WireServer, make_transport: MakeTransport
) -> None:
    wire.on("POST", answer(201, {"error": "Rate limit exceeded"}, Retry_After="5"))
    transport = make_transport(wire.url)
    with pytest.raises(OutcomeUnknown):
        buy(transport)
    assert wire.posts == 1
    assert transport._rate_limit.state().blocked_until is not None
