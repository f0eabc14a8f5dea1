"""What tests of the transport send, and the answers that they get."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rigs.wire import response
from smsverify._service.answers import Reply
from smsverify._service.rate_limit import Priority
from smsverify._service.transport import Transport

ORDER = {"success": True, "data": {"order_id": 7, "status": "pending", "phone": "+1 415 555 0123"}}
PATH = "/api/v1/order/temporary/"
MakeTransport = Callable[..., Transport]


def buy(transport: Transport, **options: Any) -> Reply:
    return transport.post(PATH, {"service_id": 1012}, priority=Priority.PURCHASE, **options)


def cut(share: float) -> bytes:
    whole = response(201, ORDER)
    return whole[: int(len(whole) * share)]


def chunked(*pieces: bytes, whole: bool = True) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 201 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n" * whole
