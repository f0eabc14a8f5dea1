"""What the receiver refuses, whose callbacks it takes, and that no log shows a secret."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest
import requests
from rigs import eventually
from rigs.callbacks import of, rows, states
from rigs.receiver import ROTATED, SECRET, TEXT, Receiver, payload, receiving
from rigs.rooms import settings_of
from rigs.waits import PATIENT

from smsverify import InvalidRequestError
from smsverify._messages.callbacks import OPEN, UNVERIFIED, VERIFIED
from smsverify._receiver.masking import mask
from smsverify._receiver.receiver import LONGEST_BODY
from smsverify.callback import account_of, make_app
from smsverify.hook import SmsVerifyHook
from smsverify.models import Order
from smsverify.simulator import Simulator

pytestmark = pytest.mark.slow

MakeHook = Callable[..., SmsVerifyHook]


def rotated_away(hook: SmsVerifyHook) -> SmsVerifyHook:
    """The same account, once its first secret is not valid any more."""
    return SmsVerifyHook(**settings_of(hook) | {"callback_secrets": [ROTATED]})


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "path", [f"/callback/{SECRET}x", "/callback/x", "/callback/", "/", f"/{SECRET}", "/callback/%ff"]
)
def test_a_wrong_secret_is_not_found(
    receiver: Receiver, hook: SmsVerifyHook, order: Order, path: str
) -> None:
    assert receiver.post(of(order), path) == 404
    assert rows(hook) == []


def test_the_overview_counts_what_was_refused_and_says_why(
    receiver: Receiver, hook: SmsVerifyHook, order: Order
) -> None:
    for _ in range(3):
        assert receiver.post(of(order), f"/callback/{SECRET}x") == 404
    seen = eventually(
        lambda: found if (found := hook.overview().callbacks).refused == 3 else None, "three are on record"
    )
    assert (seen.refused_why, seen.last_secret) == (
        "no account has this secret among its callback_secrets",
        None,
    )
    assert receiver.post(b"{") == 400
    seen = eventually(
        lambda: found if (found := hook.overview().callbacks).refused == 4 else None, "one more is on record"
    )
    assert seen.refused_why == "its body is not JSON"


def test_the_overview_says_by_which_secret_the_last_one_came(
    receiver: Receiver, hook: SmsVerifyHook, order: Order
) -> None:
    for number, secret in enumerate((ROTATED, SECRET), start=1):
        assert receiver.post(of(order, f"Your code is {number}0000"), f"/callback/{secret}") == 200
        seen = hook.overview().callbacks
        assert (seen.last_secret, seen.secrets, seen.by_secret) == (3 - number, 2, number)
    seen = rotated_away(hook).overview().callbacks
    assert (seen.last_secret, seen.secrets) == (None, 1)


@pytest.mark.parametrize("path", [f"/callback/{SECRET}", f"/callback/{SECRET}/wallet", "/api/callback"])
def test_other_methods_are_not_allowed(receiver: Receiver, path: str) -> None:
    assert {
        requests.request(method, receiver.url + path, timeout=30).status_code
        for method in ("GET", "PUT", "HEAD")
    } == {405}


def test_a_look_at_its_health_writes_nothing(receiver: Receiver, hook: SmsVerifyHook) -> None:
    assert requests.get(f"{receiver.url}/healthz", timeout=30).status_code == 200
    assert rows(hook) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        json.dumps(payload(1, "2")).encode()[:-10],
        b"order_id=5",
        '{"sms": "für Sie"}'.encode("latin-1"),
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"\x00\xff\xfe",
    ],
    ids=["empty", "brace", "cut", "form", "latin-1", "deep list", "deep object", "bytes"],
)
def test_what_is_not_json_is_refused(receiver: Receiver, hook: SmsVerifyHook, body: bytes) -> None:
    assert receiver.post(body) == 400
    assert rows(hook) == []


def chunks(*pieces: bytes) -> bytes:
    head = f"POST /callback/{SECRET} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)


class TestTooLarge:
    def test_the_largest_that_is_taken(self, receiver: Receiver, hook: SmsVerifyHook) -> None:
        body = json.dumps("x" * (LONGEST_BODY - 2)).encode()
        assert len(body) == LONGEST_BODY
        assert receiver.post(body) == 200
        assert receiver.post(body[:-1] + b'x"') == 413
        assert len(rows(hook)) == 1

    def test_a_stated_length_is_refused_without_reading(self, receiver: Receiver) -> None:
        head = f"POST /callback/{SECRET} HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n"
        assert b" 413 " in receiver.send(head.encode(), and_close=False)

    def test_an_endless_one_is_refused_in_the_middle(self, receiver: Receiver, hook: SmsVerifyHook) -> None:
        pieces = [b"x" * 8192] * (LONGEST_BODY // 8192 + 1)
        assert b" 413 " in receiver.send(chunks(*pieces), and_close=False)
        assert rows(hook) == []


def test_a_body_that_speaks_of_too_many_orders_is_refused(receiver: Receiver, hook: SmsVerifyHook) -> None:
    assert receiver.post(json.dumps({"order_id": [*range(1, 22)]}).encode()) == 413
    assert rows(hook) == []
    assert receiver.post(json.dumps({"order_id": [*range(1, 21)]}).encode()) == 200
    assert len(rows(hook)) == 20


def test_a_body_in_pieces_without_a_length_is_taken(
    receiver: Receiver, hook: SmsVerifyHook, order: Order
) -> None:
    body = json.dumps(of(order)).encode()
    raw = chunks(*(body[place : place + 7] for place in range(0, len(body), 7)), b"")
    assert b" 200 " in receiver.send(raw, and_close=False)
    assert states(hook) == [VERIFIED]


def test_one_who_goes_away_or_stalls_in_the_middle_holds_nobody_up(
    receiver: Receiver, hook: SmsVerifyHook, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = f"POST /callback/{SECRET} HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n".encode()
    with monkeypatch.context() as hasty:
        hasty.setattr("smsverify._receiver.receiver.BODY_TIMEOUT", 0.3)
        with socket.create_connection(("127.0.0.1", receiver.port)) as gone:
            gone.sendall(head + b'{"event":')
        assert b" 408 " in receiver.send(head + b'{"event":', and_close=False)
    assert receiver.post(of(order)) == 200
    assert states(hook) == [VERIFIED]


# ------------------------------------------------------------------ accounts and their secrets


def test_secrets_rotate(receiver: Receiver, hook: SmsVerifyHook, order: Order) -> None:
    assert receiver.post(of(order, "Your code is 100001"), f"/callback/{SECRET}") == 200
    assert receiver.post(of(order, "Your code is 100002"), f"/callback/{ROTATED}/") == 200
    assert states(hook) == [VERIFIED, VERIFIED]


def test_the_secret_selects_the_account_and_without_one_the_order_does(
    hook: SmsVerifyHook, simulator: Simulator, make_hook: MakeHook, store_url: str, order: Order
) -> None:
    other = make_hook(simulator, store_url, account="other", callback_secrets="the-secret-of-the-other")
    with receiving([hook, other]) as receiver:
        assert receiver.post(of(order), "/callback/the-secret-of-the-other") == 200
        assert hook.check_otp(order.order_id, ask=False) is None
        assert receiver.post(of(order), f"/callback/{SECRET}") == 200
        assert receiver.post(of(order, "another"), "/api/callback") == 200
        assert receiver.post(payload(1, "2"), "/api/callback") == 200
    mine = hook.settings.account_id
    # Each account has a writer of its own, so the order holds within an account only.
    assert [row.state for row in rows(hook) if row.account == mine] == [VERIFIED, UNVERIFIED, OPEN]
    assert [row.state for row in rows(hook) if row.account == "other"] == [OPEN, OPEN]


def test_a_secret_of_two_accounts_is_refused(
    hook: SmsVerifyHook, simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    other = make_hook(simulator, store_url, account="other", callback_secrets=ROTATED)
    with pytest.raises(InvalidRequestError, match="callback_secrets") as caught:
        make_app([account_of(hook), account_of(other)])
    assert ROTATED not in str(caught.value)


def test_no_secret_and_no_text_is_in_any_line(
    receiver: Receiver, hook: SmsVerifyHook, order: Order, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    for body in (of(order), of(order), of(order, "no code here"), {"event": TEXT}, b"{cut", b"x" * 70_000):
        for path in (f"/callback/{SECRET}", f"/callback/{SECRET}x", "/api/callback"):
            receiver.post(body, path)
            requests.get(receiver.url + path, timeout=30)
    hook.wait_for_otp(order.order_id, PATIENT)
    out, err = capfd.readouterr()
    ours = "\n".join(
        record.getMessage() for record in caplog.records if not record.name.startswith("urllib3")
    )
    assert "A callback has brought the message of order" in ours
    for secret in (SECRET, "545123", "PayPal", "no code here"):
        assert secret not in ours + out + err
    assert SECRET not in repr(account_of(hook))


def test_a_stranger_fills_no_log(receiver: Receiver, order: Order, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="smsverify.callback")
    for number in range(20):
        receiver.post({"hello": number}, "/api/callback")
        receiver.post(of(order, f"{number} is no code"), "/api/callback")
        receiver.post({"order_id": 10**9 + number}, "/api/callback")
    assert len(caplog.records) == 1
    receiver.post(of(order))
    assert "has brought the message" in caplog.records[-1].getMessage()


@pytest.mark.parametrize("slash", ["/", "//"], ids=["as it should be", "as a proxy may make it"])
def test_a_log_of_the_request_afterwards_has_no_secret(hook: SmsVerifyHook, slash: str) -> None:
    import asyncio

    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/mounted/callback{slash}{SECRET}/wallet",
        "raw_path": f"/mounted/callback{slash}{SECRET}/wallet".encode(),
        "root_path": "/mounted",
        "query_string": b"",
        "headers": [],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(make_app([account_of(hook)])(scope, receive, send))  # type: ignore[arg-type, misc]
    assert sent[0]["status"] in (404, 405)
    assert SECRET not in str(scope)


@pytest.mark.parametrize("method", ["POST", "GET", "HEAD"])
@pytest.mark.parametrize(
    ("raw", "query"),
    [
        (f"/callback/{SECRET}/", ""),
        (f"//mounted//callback/{SECRET}", ""),
        (f"/CALLBACK/{SECRET}", ""),
        (f"/mounted/{SECRET}", ""),
        (f"/{SECRET.upper()}/callback", ""),
        (f"/callback%2F{SECRET}", ""),
        ("/callback/" + "".join(f"%{ord(char):02x}" for char in SECRET), ""),
        ("/else/" + "".join(f"%{ord(char):02X}" for char in SECRET), ""),
        ("/else/" + "".join(f"%25{ord(char):02x}" for char in SECRET), ""),
        ("/callback", f"secret={SECRET}"),
        ("/else", "a=%2Fcallback%2F" + SECRET.replace("-", "%2D")),
    ],
)
def test_a_secret_at_a_slightly_wrong_address_is_seen_by_nobody(
    hook: SmsVerifyHook, method: str, raw: str, query: str
) -> None:
    import asyncio
    from urllib.parse import unquote

    scope = {
        "type": "http",
        "method": method,
        "path": unquote(raw),
        "raw_path": raw.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [],
    }

    async def receive() -> Any:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        seen.append(str(scope))  # as a server does that logs when the answer begins

    seen: list[str] = []
    asyncio.run(make_app([account_of(hook)])(scope, receive, send))  # type: ignore[arg-type, misc]
    for said in (*seen, str(scope)):
        plain = unquote(unquote(unquote(said))).casefold()
        assert SECRET.casefold() not in plain
    assert "***" in str(scope)


def test_what_holds_no_secret_is_logged_as_it_came() -> None:
    path = "/api/v2/dags/a%2Fb/callbacks/x"
    scope = {"path": "/api/v2/dags/a/b/callbacks/x", "raw_path": path.encode(), "query_string": b"a=%25+b"}
    assert mask(scope, [SECRET]) is scope
    assert scope["raw_path"] == path.encode()
