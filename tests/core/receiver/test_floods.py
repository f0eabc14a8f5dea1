"""What strangers send to the receiver of callbacks, in whatever quantity, keeps the service's own not out."""

from __future__ import annotations

import http.client
import json
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest
import sqlalchemy as sa
from rigs import eventually
from rigs.receiver import ROTATED, SECRET, Serving, payload, receiving
from rigs.rooms import rooms_of, store_of
from rigs.wire import closed_port

from smsverify import errors
from smsverify._messages.callbacks import Callback
from smsverify._messages.inbox import Inbox
from smsverify._receiver.connections import NotTooOften, limited_protocol, most_connections
from smsverify._store.tables import callbacks
from smsverify.callback import _usable, account_of, make_app
from smsverify.hook import SmsVerifyHook
from smsverify.models import Order
from smsverify.simulator import Simulator

MakeHook = Callable[..., SmsVerifyHook]
OTHER = "the-SECRET-of-the-other-account"


@pytest.fixture
def hook(simulator: Simulator, make_hook: MakeHook, store_url: str) -> SmsVerifyHook:
    return make_hook(simulator, store_url, callback_secrets=[SECRET])


@pytest.fixture
def order(hook: SmsVerifyHook) -> Order:
    return hook.order("temporary", service="WhatsApp")


def of(order: Order, text: str) -> dict[str, Any]:
    return payload(order.order_id, order.phone_digits, text)


def head(path: str = "/api/callback", length: int | None = None, more: str = "") -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{size}\r\n{more}\r\n".encode()


def counted(hook: SmsVerifyHook) -> int:
    with store_of(hook).read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(callbacks)).scalar_one())


# ------------------------------------------------------------------ many requests

LONG_TEXT = ("1 234 " * 700)[:3990]  # to look for a code in it takes a quarter of a second
FLOODS: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "long texts": ("/api/callback", lambda n: json.dumps(payload(n, "1", f"{n} {LONG_TEXT}")).encode()),
    "many orders": ("/api/callback", lambda n: json.dumps({"order_id": n + 1}).encode()),
    "wallet": ("/api/wallet/callback", lambda n: json.dumps({"amount": n}).encode()),
    "too large": ("/api/callback", lambda n: b"x" * 200_000),
    "not JSON": ("/api/callback", lambda n: b"{" * 15_000),
    "deep": ("/api/callback", lambda n: b"[" * 15_000 + b"]" * 15_000),
    "wrong secrets": (f"/callback/{SECRET}x", lambda n: json.dumps(payload(n, "1")).encode()),
}


@contextmanager
def flooding(port: int, path: str, body: Callable[[int], bytes]) -> Iterator[list[int]]:
    """Posts from 30 connections until the end of the block; gives the statuses that were answered."""
    is_over = threading.Event()
    statuses: list[int] = []

    def post(first: int) -> None:
        number = first
        while not is_over.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            try:
                for _ in range(50):
                    number += 1000
                    connection.request("POST", path, body(number))
                    response = connection.getresponse()
                    response.read()
                    statuses.append(response.status)
                    if is_over.is_set():
                        return
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()

    threads = [threading.Thread(target=post, args=(number,), daemon=True) for number in range(30)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        is_over.set()
        for thread in threads:
            thread.join(30)


@pytest.mark.parametrize("kind", FLOODS)
@pytest.mark.slow
def test_genuine_callbacks_are_taken_during_a_flood(hook: SmsVerifyHook, order: Order, kind: str) -> None:
    path, body = FLOODS[kind]
    serving = Serving(hook)
    assert serving.receiver is not None, serving.first_line
    receiver = serving.receiver
    with flooding(receiver.port, path, body) as statuses:
        eventually(lambda: len(statuses) > 100, "the flood")
        for number in range(15):
            receiver.deliver(of(order, f"Your code is {100000 + number}"))
    assert set(statuses) <= {200, 400, 404, 408, 413, 429, 503}
    _, said = serving.end(signal.SIGTERM)
    assert len(said.splitlines()) < 40
    assert counted(hook) < 15 + 1100


def test_what_comes_without_a_secret_is_bounded_and_never_read(
    hook: SmsVerifyHook, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr("smsverify._messages.inbox.extract_otp", read.append)
    monkeypatch.setattr("smsverify._receiver.receiver.UNVERIFIED_IN_A_ROW", 10)
    monkeypatch.setattr("smsverify._receiver.receiver.UNVERIFIED_PER_SECOND", 0.001)
    with receiving([hook]) as receiver:
        statuses = [
            receiver.post(of(order, f"Your code is {n}"), "/api/callback") for n in range(100000, 100020)
        ]
        assert statuses == [200] * 10 + [429] * 10
        assert read == []
        assert receiver.post(of(order, "x" * 17_000), "/api/callback") == 429
        assert receiver.post(of(order, "x" * 17_000)) == 200  # by the secret
        # Refused before the body is there, with or without a length.
        assert b" 429 " in receiver.send(head(length=10), and_close=False)
        assert b" 429 " in receiver.send(head(), and_close=False)
    assert read == ["x" * 17_000]


def test_slow_callbacks_of_strangers_take_no_more_than_their_places(
    hook: SmsVerifyHook, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify._receiver.receiver.UNVERIFIED_AT_ONCE", 3)
    with receiving([hook]) as receiver:
        slow = [socket.create_connection(("127.0.0.1", receiver.port)) for _ in range(3)]
        for connection in slow:
            connection.sendall(head(length=100) + b"{")
        eventually(lambda: receiver.post({"order_id": 1}, "/api/callback") == 429, "all places to be taken")
        assert receiver.post(of(order, "Your code is 482913")) == 200
        for connection in slow:
            connection.close()
        eventually(lambda: receiver.post({"order_id": 1}, "/api/callback") == 200, "a place")


def test_a_strangers_callback_that_is_too_large_is_refused(hook: SmsVerifyHook) -> None:
    with receiving([hook]) as receiver:
        assert receiver.post({"order_id": 1, "sms": "x" * 17_000}, "/api/callback") == 413
        assert b" 413 " in receiver.send(head(length=20_000), and_close=False)
        compressed = receiver.post(b"", f"/callback/{SECRET}", headers={"Content-Encoding": "gzip"})
        assert compressed == 415


def test_the_table_of_strangers_callbacks_stays_small(
    hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify._messages.inbox.UNSIGNED", 20)
    inbox = rooms_of(hook).inbox
    for number in range(100):
        inbox.take(Callback(False, "unknown", order_id=number + 1, body=str(number)))
        assert counted(hook) <= 20


# ------------------------------------------------------------------ many connections
@pytest.mark.slow
def test_idle_connections_keep_nobody_out_though_descriptors_are_few(
    hook: SmsVerifyHook, order: Order
) -> None:
    serving = Serving(hook, files=256)
    assert serving.receiver is not None, serving.first_line
    receiver = serving.receiver
    begun = [b"", b"POST /callb", head(length=100) + b"{", head(f"/callback/{SECRET}", 100) + b"{", head()]
    idle = []
    for number in range(300):
        connection = socket.create_connection(("127.0.0.1", receiver.port))
        connection.sendall(begun[number % len(begun)])
        idle.append(connection)
    for number in range(5):
        receiver.deliver(of(order, f"Your code is {100000 + number}"))
    _, said = serving.end(signal.SIGTERM)
    for connection in idle:
        connection.close()
    assert len(said.splitlines()) < 20


@pytest.mark.slow
def test_a_request_has_to_be_there_in_time(
    hook: SmsVerifyHook, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify._receiver.connections.REQUEST_TIMEOUT", 0.3)
    with receiving([hook], http=limited_protocol(100)) as receiver:
        whole = json.dumps(of(order, "Your code is 482913")).encode()
        request = head(f"/callback/{SECRET}", len(whole)) + whole

        def answer_to(sent: bytes) -> bytes:
            answer = b""
            connection = socket.create_connection(("127.0.0.1", receiver.port), timeout=30)
            with connection, suppress(ConnectionError):
                connection.sendall(sent)
                while chunk := connection.recv(65_536):
                    answer += chunk
            return answer

        def is_in_time_each_time() -> bool:
            kept = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=30)
            with closing(kept), suppress(ConnectionError, http.client.HTTPException):
                for number in range(4):  # together they take longer than one may
                    kept.request("POST", f"/callback/{SECRET}", json.dumps(of(order, f"code {number}")))
                    response = kept.getresponse()
                    response.read()
                    assert response.status == 200
                    time.sleep(0.1)
                return True
            return False

        for begun in (b"", b"POST /callback/", head("/callback/x", 10**9) + b"x" * 100):
            assert b" 200 " not in answer_to(begun)
        # On a busy machine, a whole request may be late too.
        eventually(lambda: b" 200 " in answer_to(request + b"POST /call"), "the answer to a whole request")
        eventually(is_in_time_each_time, "four requests of one connection")


@pytest.mark.parametrize(
    "request_", ["GET /healthz", "GET /nothing", "POST /callback/wrong", "GET /api/callback"]
)
def test_what_follows_a_request_that_brings_nothing_is_not_read(hook: SmsVerifyHook, request_: str) -> None:
    with receiving([hook]) as receiver:
        again = f"{request_} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
        answers = b""
        connection = socket.create_connection(("127.0.0.1", receiver.port), timeout=30)
        with connection, suppress(ConnectionResetError):
            connection.sendall(again * 100)
            while chunk := connection.recv(65_536):
                answers += chunk
        assert answers.count(b"HTTP/1.1 ") == 1


def test_the_one_that_waits_longest_makes_room(
    hook: SmsVerifyHook, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify._receiver.connections.REQUEST_TIMEOUT", 600.0)  # so time makes none
    with receiving([hook], http=limited_protocol(3)) as receiver:
        idle = [socket.create_connection(("127.0.0.1", receiver.port), timeout=30) for _ in range(3)]
        assert receiver.post(of(order, "Your code is 482913")) == 200
        with suppress(ConnectionResetError):
            assert idle[0].recv(1) == b""
        whole = json.dumps(of(order, "Your code is 482913")).encode()
        idle[2].sendall(head(f"/callback/{SECRET}", len(whole)) + whole)
        assert b" 200 " in idle[2].recv(65_536)
        for connection in idle:
            connection.close()


def test_the_number_of_connections_follows_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    for allowed, most in ((256, 128), (20, 20), (10**6, 1000), (resource.RLIM_INFINITY, 1000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, allowed=allowed: (allowed, allowed))
        assert 8 <= most_connections() <= most


def test_a_log_says_the_same_once_in_a_while() -> None:
    limit = NotTooOften()

    def says(text: str) -> bool:
        return bool(
            limit.filter(logging.LogRecord("uvicorn.error", logging.WARNING, "", 0, text, None, None))
        )

    assert [says("Invalid HTTP request received.") for _ in range(3)] == [True, False, False]
    assert [says("other"), says("other")] == [True, False]
    assert sum(says(f"{number}") for number in range(1000)) == 1000
    assert len(limit._said) <= 100


# ------------------------------------------------------------------ accounts whose trouble is their own


def unreachable() -> str:
    return f"postgresql+psycopg://u:p@127.0.0.1:{closed_port()}/x"


@pytest.fixture
def broken(simulator: Simulator, make_hook: MakeHook) -> SmsVerifyHook:
    return make_hook(simulator, unreachable(), account="broken", callback_secrets=OTHER)


def test_a_store_that_is_down_is_its_own_accounts_affair(
    hook: SmsVerifyHook, broken: SmsVerifyHook, order: Order, caplog: pytest.LogCaptureFixture
) -> None:
    with receiving([broken, hook]) as receiver:
        for number in range(3):
            assert receiver.post(of(order, "Your code is 482913"), f"/callback/{OTHER}") == 503
            assert receiver.post(of(order, f"Your code is {100000 + number}")) == 200
            assert receiver.post(of(order, f"guess {number}"), "/api/callback") == 200
    assert sum("could not be stored" in record.message for record in caplog.records) == 1


def test_a_store_that_hangs_holds_up_no_other(
    hook: SmsVerifyHook, broken: SmsVerifyHook, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify._receiver.receiver.STORE_TIMEOUT", 0.3)
    is_over = threading.Event()
    take, name = Inbox.take, rooms_of(broken).inbox.name

    def take_or_hang(inbox: Inbox, callback: Callback) -> Any:
        return is_over.wait(600) if inbox.name == name else take(inbox, callback)

    monkeypatch.setattr(Inbox, "take", take_or_hang)
    with receiving([broken, hook]) as receiver:
        assert receiver.post(of(order, "Your code is 482913"), f"/callback/{OTHER}") == 503
        for number in range(3):
            receiver.deliver(of(order, f"Your code is {100000 + number}"))
            receiver.deliver(of(order, f"guess {number}"), "/api/callback")
        is_over.set()


def test_a_secret_of_two_accounts_is_nobodys_and_the_others_work(
    hook: SmsVerifyHook, simulator: Simulator, make_hook: MakeHook, store_url: str, order: Order
) -> None:
    first = make_hook(simulator, store_url, account="first", callback_secrets=[ROTATED])
    second = make_hook(simulator, store_url, account="second", callback_secrets=[ROTATED, OTHER])
    again = make_hook(simulator, store_url, callback_secrets=[SECRET])  # the same account, given twice
    app = make_app(lambda: [account_of(one) for one in (hook, first, second, again)])
    with receiving([], app) as receiver:
        assert receiver.post(of(order, "code 1"), f"/callback/{ROTATED}") == 503
        assert receiver.post(of(order, "code 2"), f"/callback/{OTHER}") == 200
        assert receiver.post(of(order, "code 3")) == 200


def test_accounts_that_cannot_be_read_are_said_once_and_not_lost(
    order: Order, caplog: pytest.LogCaptureFixture
) -> None:
    def accounts() -> Any:
        raise RuntimeError("with a secret in it")

    with receiving([], make_app(accounts)) as receiver:
        assert [receiver.post(of(order, "code 1")) for _ in range(3)] == [503] * 3
    assert caplog.text.count("cannot be taken in now") == 1
    assert "with a secret" not in caplog.text


@pytest.mark.slow
def test_the_receiver_serves_those_that_are_in_order(
    hook: SmsVerifyHook,
    broken: SmsVerifyHook,
    simulator: Simulator,
    make_hook: MakeHook,
    store_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    without = make_hook(simulator, store_url, account="without")
    short = make_hook(simulator, store_url, account="short", callback_secrets="short")
    usable = _usable([broken, without, hook, short])
    # A store may come back.
    assert [account.inbox.name for account in usable] == [rooms_of(one).inbox.name for one in (broken, hook)]
    assert caplog.text.count("An account gets no callbacks now") == 3
    for wrong, kind in ((without, errors.InvalidRequestError), (broken, errors.StoreError)):
        with pytest.raises(kind):
            _usable([wrong])
