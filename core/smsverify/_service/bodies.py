"""The JSON of an answer: read, its words found, and what of it may belong to an order."""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any

LONGEST_NUMBER = 60  # characters
DEEPEST_TEXT = 5  # levels of lists and objects around an error's text
EMPTY: tuple[Any, ...] = (None, "", [], {})
TEXT_KEYS = ("error", "detail", "message", "non_field_errors", "errors")
OF_AN_ORDER = frozenset({"otp", "order_id", "activation_code", "phone", "sms"})
_OF_A_PURCHASE = frozenset({"order", "orderid", "phone", "phonenumber", "number", "activationcode"})
_PARAMETERS = ("service_id", "country_id", "area_code", "duration", "order_id", "service", "plan")
_NOT_A_FIELD = frozenset({"success", "data", "status", "status_code", "code", "title", "type"})
_SECRET = re.compile(r"otp|sms|message|text|code|pin|body|token|secret|key|passw", re.IGNORECASE)


class Contradiction(dict[str, Any]):
    """An object that gives one name two values, so that neither can be believed."""


def parse(text: str) -> Any:
    """Reads JSON. A number that is too long becomes its text; NaN and Infinity become `None`.

    Raises:
        ValueError: it is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(
            text,
            parse_float=_number,
            parse_int=_number,
            parse_constant=lambda _: None,
            object_pairs_hook=_without_contradiction,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _number(text: str) -> int | Decimal | str:
    if len(text) > LONGEST_NUMBER:
        return text
    try:
        return int(text) if text.lstrip("-").isdecimal() else Decimal(text)
    except InvalidOperation:
        return text


def _without_contradiction(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    pairs = [(_whole(name), _whole(value)) for name, value in pairs]
    values = dict(pairs)
    if len(values) < len(pairs) and any(values[name] != value for name, value in pairs):
        return Contradiction(values)
    return values


def _whole(value: Any) -> Any:
    """The same without half an emoji in its texts: no model, no JSON and no database takes that."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return [_whole(one) for one in value] if isinstance(value, list) else value


def has_something_of_an_order(body: Any) -> bool:
    """Whether something in a body, however deep, may belong to an order."""
    left = [body]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            given = (name for name, inner in value.items() if inner not in (0, *EMPTY))
            named = {name.lower().replace("_", "") for name in given}
            if isinstance(value, Contradiction) or not _OF_A_PURCHASE.isdisjoint(named):
                return True
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
        elif isinstance(value, str) and "{" in value:  # JSON as a text, which is not read
            return True
    return False


def words_of(text: str) -> str:
    """The words of a text in small letters, with one space between them."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def envelope(body: Any, depth: int = 0) -> tuple[str | None, str | None]:
    """Text and field of `{error}`, `{detail}`, `{message}`, `{non_field_errors}` or `{field: [texts]}`."""
    if isinstance(body, str):
        return body.strip() or None, None
    if isinstance(body, list) and depth < DEEPEST_TEXT:
        texts = [text for text, _ in (envelope(one, depth + 1) for one in body) if text]
        return "; ".join(texts) or None, None
    if not isinstance(body, dict) or depth == DEEPEST_TEXT:
        return None, None
    # In the body of an order, `message` is the SMS.
    is_order = any(body.get(name) not in EMPTY for name in OF_AN_ORDER)
    for key in TEXT_KEYS:
        is_sms = is_order and key == "message"
        text, field = (None, None) if is_sms else envelope(body.get(key), depth + 1)
        if text is not None:
            return text, field
    for field, value in body.items():
        text, _ = envelope(value, depth + 1) if _may_be_refused(str(field), value) else (None, None)
        if text is not None:
            return f"{field}: {text}", str(field)
    return None, None


def _may_be_refused(field: str, value: Any) -> bool:
    """Whether a field of an error's body may name a parameter, and its value what is wrong about it."""
    if field in _PARAMETERS:
        return True
    return field not in _NOT_A_FIELD and isinstance(value, (list, dict)) and not _SECRET.search(field)


def named_in(text: str) -> str | None:
    """The parameter that a text names. An everyday word counts only where the text begins with it."""
    for name in _PARAMETERS:
        if re.search(rf"\b{name}\b" if "_" in name else rf"\A\W*{name}\b", text):
            return name
    return None
