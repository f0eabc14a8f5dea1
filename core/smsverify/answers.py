"""What an answer of the service means: a decoded success, or which error."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from smsverify.errors import (
    AuthenticationError,
    InsufficientBalanceError,
    InvalidRequestError,
    NotAvailableError,
    NotCancellableError,
    NotFoundError,
    RateLimitedError,
    ServiceError,
    ServiceUnavailableError,
    SmsVerifyError,
    UnexpectedResponseError,
)

LONGEST_RETRY_AFTER = 3600.0  # seconds; nobody means more
EXCERPT = 200  # characters of an answer that an error quotes

# With these the service says that it carried out nothing. Any other status proves nothing about a paid call.
REJECTIONS = frozenset({400, 401, 402, 403, 404, 422, 429})

# Fields whose values are never quoted, by a part of their name, whatever the service calls them.
_SECRET = re.compile(r"otp|sms|message|text|code|pin|body|token|secret|key|passw", re.IGNORECASE)
_SECRET_IN_TEXT = re.compile(rf'"[^"]*(?:{_SECRET.pattern})[^"]*"\s*:.*', re.IGNORECASE)
_TEXT_KEYS = ("error", "detail", "message", "non_field_errors", "errors")
_OF_AN_ORDER = frozenset({"otp", "order_id", "activation_code", "phone", "sms"})
_NOT_A_FIELD = frozenset({"success", "data", "status", "status_code", "code", "title", "type"})
_PARAMETERS = (
    "service_id",
    "country_id",
    "area_code",
    "duration",
    "order_id",
    "service",
    "plan",
)

# What the texts of a 4xx, or of `success: false`, say where the status alone does not. The first that fits.
_BY_TEXT: tuple[tuple[str, type[ServiceError]], ...] = (
    (r"insufficient|not enough (balance|funds|credit)", InsufficientBalanceError),
    (r"order not found", NotFoundError),
    (r"cancel", NotCancellableError),
    (
        r"(not |un)available|out of stock|sold out|no (numbers?|stock)\b|(service|plan|country) not found",
        NotAvailableError,
    ),
    (r"api key|unauthori[sz]ed|authentication", AuthenticationError),
    (r"rate limit|too many requests", RateLimitedError),
)


@dataclass(frozen=True)
class Answer:
    """Any answer, as it came."""

    status_code: int
    headers: Mapping[str, str]
    text: str
    endpoint: str

    @property
    def date(self) -> float | None:
        """Seconds since 1970 by the service's clock, in whole seconds."""
        return _http_date(self.headers.get("Date"))

    @property
    def retry_after(self) -> float | None:
        """Seconds, from either form of the header; a date is taken relative to the service's own clock."""
        value = (self.headers.get("Retry-After") or "").strip()
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
            return min(float(value), LONGEST_RETRY_AFTER)
        until = _http_date(value)
        if until is None:
            return None
        now = time.time() if self.date is None else self.date
        return min(max(until - now, 0.0), LONGEST_RETRY_AFTER)


@dataclass(frozen=True)
class Reply:
    """The decoded body of a success."""

    answer: Answer
    body: Any


def as_reply(answer: Answer) -> Reply | None:
    """The decoded body of a success, or `None` where the answer is an error.

    Raises:
        ValueError: the status is one of success, but the body is not JSON.
    """
    if not 200 <= answer.status_code < 300:
        return None
    try:
        body = json.loads(answer.text, parse_float=Decimal, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if isinstance(body, dict) and (
        body.get("success") is False or (body.get("error") and not body.get("success"))
    ):
        return None
    return Reply(answer, body)


def is_rejection(answer: Answer, error: SmsVerifyError) -> bool:
    """Whether the answer proves that nothing was carried out."""
    if 200 <= answer.status_code < 300:
        return type(error) is not ServiceError and not _names_an_order(json.loads(answer.text))
    return answer.status_code in REJECTIONS


def _names_an_order(body: Any) -> bool:
    inner = body.get("data") if isinstance(body, dict) else None
    return any(isinstance(part, dict) and part.get("order_id") is not None for part in (body, inner))


def as_error(answer: Answer, secret: str) -> Any:
    """The error that an answer stands for, by its status or else by its text.

    Args:
        answer: one that is not a success.
        secret: the API key, taken out of all texts.
    """
    text, field = _service_text(answer, secret)
    status = answer.status_code
    if 300 <= status < 400:
        return unexpected(answer, secret)
    message = f"{answer.endpoint} answered {status}: {text}"
    kind = _kind(status, text)
    if kind is ServiceError and status in (400, 422):
        field = field or _named_in(text)
        if field is not None:
            return InvalidRequestError(
                message, field=field, status_code=status, service_message=text, endpoint=answer.endpoint
            )
    return kind(
        message,
        status_code=status,
        service_message=text,
        endpoint=answer.endpoint,
        retry_after=answer.retry_after,
    )


def unexpected(answer: Answer, secret: str) -> UnexpectedResponseError:
    """The error for an answer that is not what the documentation says, with a redacted excerpt of it."""
    excerpt = redacted_excerpt(answer.text, secret)
    what = "something else than documented"
    if 300 <= answer.status_code < 400:
        target = urlsplit(answer.headers.get("Location", ""))._replace(query="", fragment="").geturl()
        what = f"a redirect to {target.replace(secret, '***')}, which is not followed (is base_url right?)"
    return UnexpectedResponseError(
        f"{answer.endpoint} answered {answer.status_code} with {what}: {excerpt or '(nothing)'}",
        status_code=answer.status_code,
        service_message=excerpt,
        endpoint=answer.endpoint,
    )


def redacted_excerpt(text: str, secret: str) -> str:
    """The beginning of an answer, with everything taken out that may be a code, a message or the key."""
    text = " ".join(text.split())
    try:
        text = json.dumps(_without_secrets(json.loads(text)), ensure_ascii=False)
    except (ValueError, RecursionError):
        # Where a value ends can not be told, so nothing that follows a secret name is quoted.
        text = _SECRET_IN_TEXT.sub("***", text[: 10 * EXCERPT])
    return re.sub(r"[0-9]{3,}", "***", text.replace(secret, "***"))[:EXCERPT]


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: "***" if _SECRET.search(str(name)) else _without_secrets(inner)
            for name, inner in value.items()
        }
    return [_without_secrets(inner) for inner in value] if isinstance(value, list) else value


def _kind(status: int, text: str) -> type[ServiceError]:
    if status in (401, 403):
        return AuthenticationError
    if status == 402:
        return InsufficientBalanceError
    if status == 429:
        return RateLimitedError
    if status >= 500 or status in (408, 425):
        return ServiceUnavailableError
    for pattern, kind in _BY_TEXT:
        if re.search(pattern, text.lower()):
            return kind
    return NotFoundError if status == 404 else ServiceError


def _service_text(answer: Answer, secret: str) -> tuple[str, str | None]:
    """The service's own words, and the field that they are about where they name one."""
    try:
        body = json.loads(answer.text)
    except (ValueError, RecursionError):
        body = None
    text, field = _envelope(body)
    if text is None:
        return redacted_excerpt(answer.text, secret) or "(no text)", None
    return text.replace(secret, "***"), field


def _envelope(body: Any) -> tuple[str | None, str | None]:
    """Text and field of `{error}`, `{detail}`, `{message}`, `{non_field_errors}` or `{field: [texts]}`."""
    if isinstance(body, str):
        return body.strip() or None, None
    if isinstance(body, list):
        texts = [text for text, _ in map(_envelope, body) if text]
        return "; ".join(texts) or None, None
    if not isinstance(body, dict):
        return None, None
    # In a body that is an order, `message` is the SMS.
    is_order = not _OF_AN_ORDER.isdisjoint(body)
    for key in _TEXT_KEYS:
        text, field = _envelope(body.get(key)) if not (is_order and key == "message") else (None, None)
        if text is not None:
            return text, field
    for field, value in body.items():
        text, _ = _envelope(value) if _may_be_refused(str(field), value) else (None, None)
        if text is not None:
            return f"{field}: {text}", str(field)
    return None, None


def _may_be_refused(field: str, value: Any) -> bool:
    """Whether a field of an error's body may be the name of a parameter, with what is wrong about it."""
    if field in _PARAMETERS:
        return True
    return field not in _NOT_A_FIELD and isinstance(value, (list, dict)) and not _SECRET.search(field)


def _named_in(text: str) -> str | None:
    """The parameter that a text is about: words of everyday language count only where it begins with them."""
    for name in _PARAMETERS:
        if re.search(rf"\b{name}\b" if "_" in name else rf"\A\W*{name}\b", text):
            return name
    return None


def _http_date(value: str | None) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp() if value else None
    except (TypeError, ValueError):
        return None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
