"""What the body of a callback says, as far as it can be read. Nothing that came is lost for its shape."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from smsverify._input.ids import order_id_of
from smsverify._messages.callbacks import Callback

LONGEST_NUMBER = 30  # digits; a longer one names nothing
MOST_ORDERS = 20  # that one body may speak of: each is stored by itself, in the time that an answer has

_ORDER_ID_NAMES = ("order_id", "orderId", "orderid", "order")
_DEEPEST = 4  # levels of a payload that are searched for an order


class TooManyOrders(ValueError):
    """A body speaks of more than `MOST_ORDERS` orders."""


def load(body: bytes) -> Any:
    """The JSON of a body. A name that stands twice in an object has a list of both its values.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return _parsed(body.decode(json.detect_encoding(body), "surrogatepass"))
    except UnicodeDecodeError:
        # An 8-bit code page: the letters may be others, the numbers are not.
        payload = [_parsed(body.decode("latin-1"))]
        if not _find_order_ids(payload):
            raise
        return payload


def _parsed(text: str) -> Any:
    try:
        return json.loads(text.removeprefix("\ufeff"), parse_int=_number, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _number(digits: str) -> int | str:
    return int(digits) if len(digits) <= LONGEST_NUMBER else digits


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, list[Any]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: given if len(given) > 1 else given[0] for name, given in values.items()}


def read_sms(payload: Any, body: bytes, *, by_secret: bool) -> list[Callback]:
    """What can be read of a callback about an SMS. What has not the documented shape is kept as it is.

    Raises:
        TooManyOrders: it can be kept for some of its orders only.
    """
    message = payload.get("message") if isinstance(payload, dict) else None
    if isinstance(message, dict) and payload.get("event") == "incoming_message":
        order_id, phone, text = (
            _as_id(message.get("order_id")),
            _as_text(message.get("number")),
            _as_text(message.get("sms")),
        )
        if order_id is not None and phone is not None and text is not None:
            sender = _as_text(message.get("sender"))
            return [Callback(by_secret, "sms", True, order_id, phone, sender, text)]
    order_ids: list[int | None] = [*_find_order_ids(payload)] or [None]
    if len(order_ids) > MOST_ORDERS:
        raise TooManyOrders(f"it speaks of more than {MOST_ORDERS} orders")
    return [Callback(by_secret, "unknown", order_id=order_id, body=_decoded(body)) for order_id in order_ids]


def read_wallet(_payload: Any, body: bytes, *, by_secret: bool) -> list[Callback]:
    """A callback about the wallet; what it says is not documented."""
    return [Callback(by_secret, "wallet", body=_decoded(body))]


def _find_order_ids(payload: Any) -> list[int]:
    """What a payload calls an order's id, in the uppermost level that has any."""
    level = [_from_text(payload)]
    for _ in range(_DEEPEST):
        named = [
            one[name] for one in level if isinstance(one, dict) for name in _ORDER_ID_NAMES if name in one
        ]
        several = [value for one in named for value in (one if isinstance(one, list) else [one])]
        found = dict.fromkeys(order_id for value in several if (order_id := _as_id(value)) is not None)
        if found:
            return list(found)
        level = [_from_text(child) for one in level for child in _children(one)]
    return []


def _from_text(value: Any) -> Any:
    """JSON that was written as a text once more; any other value as it is."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        with contextlib.suppress(ValueError):
            return _parsed(value)
    return value


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _as_id(value: Any) -> int | None:
    return order_id_of(int(value) if isinstance(value, float) and value.is_integer() else value)


def _as_text(value: Any) -> str | None:
    """Text as the store takes it, and as an order's status would show it: numbers are text too."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    return _storable(value).strip() or None if isinstance(value, str) else None


def _decoded(body: bytes) -> str:
    return _storable(body.decode("utf-8", "replace"))


def _storable(text: str) -> str:
    """No database takes half of an emoji, nor a NUL."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
