"""The JSON of an answer: read, its words found, and what of it may belong to an order."""

from __future__ import annotations

import contextlib
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
_PHONES = frozenset({"phone", "phonenumber", "number"})
_SHORTEST_PHONE = 7  # digits
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


def from_text(value: Any) -> Any:
    """An object or a list that was written as a text; anything else as it is."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        with contextlib.suppress(ValueError):
            return parse(value)
    return value


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


def names_an_order(body: Any) -> bool:
    """Whether a body names an order by a value, however deep: by its id, phone number or activation code.

    A text in the place of such a value, as `{"phone": ["invalid"]}`, says what is wrong about a field.
    """
    left = [("", body)]
    while left:
        parent, value = left.pop()
        value = from_text(value)
        if isinstance(value, Contradiction):
            return True
        if isinstance(value, list):
            left.extend((parent, one) for one in value)
        elif isinstance(value, dict):
            inner = [(name.lower().replace("_", ""), one) for name, one in value.items()]
            # An `id` counts under `order`.
            if any(_is_of_an_order(name, one) or _is_of_an_order(parent + name, one) for name, one in inner):
                return True
            left.extend(inner)
    return False


def _is_of_an_order(name: str, value: Any) -> bool:
    """Whether a field is the id, the phone number or the activation code of an order."""
    if name not in _OF_A_PURCHASE or isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        return False
    text = str(value).strip()
    if name in _PHONES:
        return len(re.findall("[0-9]", text)) >= _SHORTEST_PHONE and re.search(r"[^\W\d_]", text) is None
    return re.fullmatch(r"(?!-)\S*[1-9]\S*", text) is not None


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
