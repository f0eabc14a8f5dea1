"""What an endpoint is asked and what it answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from smsverify.simulator.records import SimulatedOrder


@dataclass
class Request:
    """What an endpoint needs of a request, and what a fault asks of it.

    Attributes:
        query: The query's parameters.
        body: The decoded JSON object of a POST.
        order_id: The order that the path names, 0 for none.
        lags: For how long the order bought is missing from the list, and from its status.
        provider_failure: Roll a purchase's debit back and refuse it with this status.
    """

    query: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    order_id: int = 0
    lags: tuple[float, float] = (0.0, 0.0)
    provider_failure: int | None = None


@dataclass
class Answer:
    """A status and a body, before anything happens to them on the way."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    order: SimulatedOrder | None = None


def reply(value: Any, status: int = 200, order: SimulatedOrder | None = None) -> Answer:
    """A JSON answer; amounts become JSON floats, as the service writes them."""
    return Answer(status, json.dumps(value, default=_json).encode(), order=order)


def reply_data(data: dict[str, Any], status: int = 200, order: SimulatedOrder | None = None) -> Answer:
    """The answer of the endpoints that wrap it in ``{success, data}``."""
    return reply({"success": True, "data": data}, status, order)


def refusal(status: int, text: str, wrapped: bool) -> Answer:
    """An error in one of the two documented shapes."""
    return reply({"success": False, "error": text} if wrapped else {"error": text}, status)


def _json(value: object) -> float:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"not JSON: {value!r}")
