"""What an answer of the service means: a decoded success, or which error."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from smsverify._input.times import as_datetime
from smsverify._service.bodies import (
    EMPTY,
    OF_AN_ORDER,
    TEXT_KEYS,
    Contradiction,
    envelope,
    has_something_of_an_order,
    named_in,
    names_an_order,
    parse,
    words_of,
)
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
    UnexpectedResponseError,
)
from smsverify.models import known_status
from smsverify.otp import extract_otp
from smsverify.text import masked, printable

LONGEST_RETRY_AFTER = 3600.0  # seconds; a longer one is a mistake
EXCERPT = 200  # characters of an answer that an error quotes
LONGEST_TEXT = 1000  # characters of the service's words that say which error it is

# With these the service says that it carried out nothing, unless it names an order. Any other status proves
# nothing about a paid call.
REJECTIONS = frozenset({400, 401, 402, 403, 404, 422, 429})
# The same in a 2xx: these words and no others. A text that goes on, or names an order or a provider, may
# speak of a purchase that had begun, and that is still charged or refunded.
_NOTHING_BOUGHT = re.compile(
    r"(insufficient|not enough) (wallet |account )?(balance|funds|credits?|money)( in your (wallet|account))?"
    r"|(no (phone )?numbers?( (available|left|in stock))?"
    r"|(service|plan|country|(phone )?numbers?) not available"
    r"|(service |plan )?(out of stock|sold out)|(service|plan|country) not found)"
    r"( (for|in) this (service|country|area code))?( (right now|at the moment))?"
    r"|invalid (or missing )?api key|rate limit exceeded maximum 60 requests per minute"
)
# Words of the documentation, which show that an error comes from the service, in whatever envelope.
_OWN_WORDS = re.compile(rf"{_NOTHING_BOUGHT.pattern}|order (not found|cannot be cancelled)")

# What an envelope says of a failure: in `status`, or as a status of HTTP in one of these fields.
_FAILURE = frozenset({"error", "fail", "failure", "failed"})
_NO_ERROR = frozenset({"", "0", "none", "null", "false", "no", "no error"})
_STATUS_CODE_KEYS = ("status", "code", "status_code")

# An error may quote the values of these fields. Any other may hold a code: the error names its type only.
_QUOTED = frozenset({"success", "status", "error", "errors", "detail", "non_field_errors", "title"})
# A body with one of the first names comes from the service; with one of the second, from a proxy or a
# firewall, unless its words are the service's.
_OWN_KEYS = frozenset({"success", "error", "errors", "detail", "non_field_errors"})
_OF_A_PROXY = frozenset({"title", "ray_id", "cloudflare_error"})
_NO_TEXT = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>?", re.IGNORECASE | re.DOTALL)
_NAME_IN_JSON = re.compile(r'"([^"]{1,40})"\s*:')
_SECONDS = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(?:s|secs?|seconds?)?", re.IGNORECASE)
_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")
_HTTP_DATE = re.compile(r"[A-Za-z]{3,9},? [^,]*")

_OF_THE_KEY = r"api key|authentication"
# What the text of a 4xx, or of `success: false`, means where the status does not say. The first match counts.
_BY_TEXT: tuple[tuple[str, type[ServiceError]], ...] = (
    (
        r"(insufficient|not enough)[\s_-]+([^\W_]+[\s_-]+)?(numbers?|stock|inventory|quantity)\b",
        NotAvailableError,
    ),
    (r"insufficient|not enough (\w+ )?(balance|funds?|credits?|money)", InsufficientBalanceError),
    (r"order not found", NotFoundError),
    (r"cancel", NotCancellableError),
    (
        r"(not |un)available|out of stock|sold out|no (numbers?|stock)\b|(service|plan|country) not found",
        NotAvailableError,
    ),
    (r"rate limit|too many requests", RateLimitedError),
    (rf"{_OF_THE_KEY}|unauthori[sz]ed", AuthenticationError),
)
_BY_STATUS: dict[int, type[ServiceError]] = {
    401: AuthenticationError,
    402: InsufficientBalanceError,
    408: ServiceUnavailableError,
    425: ServiceUnavailableError,
    429: RateLimitedError,
}
_ONE_ORDER = re.compile(r"/order/[0-9]+/")


@dataclass(frozen=True)
class Answer:
    """An answer, as it came. `secret` is the API key: errors never show it."""

    status_code: int
    headers: Mapping[str, str]
    text: str
    endpoint: str
    secret: str = field(repr=False)

    @property
    def excerpt(self) -> str:
        """Its beginning, without what may be secret."""
        return redacted_excerpt(self.text, self.secret)

    @property
    def date(self) -> float | None:
        """Seconds since 1970 by the service's clock, in whole seconds."""
        return _http_date(self.headers.get("Date"))

    @property
    def retry_after(self) -> float | None:
        """Seconds, from any form of the header. A date is relative to the service's own clock.

        Where the header came several times, the longest time counts.
        """
        value = (self.headers.get("Retry-After") or "").replace('"', "").strip()
        parts = [part.strip() for part in value.split(",")]
        seconds = [_SECONDS.fullmatch(part) for part in parts]
        if all(seconds):
            return min(max(float(one[1]) for one in seconds if one), LONGEST_RETRY_AFTER)
        dates = [date for date in map(_http_date, _HTTP_DATE.findall(value)) if date is not None]
        times = [as_datetime(part) for part in parts if _ISO_DATE.match(part)]
        dates += [when.timestamp() for when in times if when is not None]
        if not dates:
            return None
        now = time.time() if self.date is None else self.date
        return min(max(max(dates) - now, 0.0), LONGEST_RETRY_AFTER)


@dataclass(frozen=True)
class Reply:
    """The decoded body of a success."""

    answer: Answer
    body: Any


def as_reply(answer: Answer) -> Reply | None:
    """The decoded body of a success, or `None` where the answer is an error.

    Raises:
        ValueError: the status says success, but the body is not JSON.
    """
    if not 200 <= answer.status_code < 300:
        return None
    body = parse(answer.text)
    return None if isinstance(body, dict) and _is_failure(body, answer.endpoint) else Reply(answer, body)


def _is_no(value: Any) -> bool:
    """Whether `success` is false, as a truth value or as a word."""
    return value is not None and str(value).strip().lower() in ("false", "no", "0")


def _is_failure(body: dict[str, Any], endpoint: str) -> bool:
    """Whether the body of a 2xx says that its request has failed."""
    if _is_no(body.get("success")):
        return True
    if body.get("success"):
        return False
    is_status = endpoint.endswith("/status/")
    return _has_error(body, is_status) or _has_status_of_a_failure(body, is_status)


def _has_error(body: dict[str, Any], is_status: bool) -> bool:
    """Whether `error` says that a request has failed. A status may say there how its order has ended."""
    error = body.get("error")
    if not error or (isinstance(error, str) and words_of(error) in _NO_ERROR):
        return False
    return not (is_status and any(_is_of_an_order(part) for part in (body, body.get("data"))))


def _is_of_an_order(part: Any) -> bool:
    """Whether an object names an order, and how it is or its code."""
    if not isinstance(part, dict) or OF_AN_ORDER.isdisjoint(part):
        return False
    return known_status(part.get("status")) is not None or part.get("otp") not in EMPTY


def _has_status_of_a_failure(body: dict[str, Any], is_status: bool) -> bool:
    """Whether the status of an answer is one of a failure. Beside anything of an order, it is the order's.

    So it is in the answer about an order's status, where a field of an order is empty, or no text says why.
    """
    word, known = str(body.get("status")).strip().lower(), known_status(body.get("status"))
    is_failure = word in _FAILURE or any(_is_code_of_a_failure(body, key) for key in _STATUS_CODE_KEYS)
    named = {name for name, value in body.items() if is_status or value not in EMPTY}
    is_of_an_order = known not in (None, *_FAILURE) or not OF_AN_ORDER.isdisjoint(named)
    is_bare = is_status and known is not None and envelope(body)[0] is None
    return is_failure and not (is_of_an_order or is_bare or has_something_of_an_order(body))


def _is_code_of_a_failure(body: dict[str, Any], key: str) -> bool:
    """Whether a field is a status of HTTP for a failure. A text may be the code of an SMS beside it."""
    value, text = body.get(key), body.get("message")
    is_of_sms = isinstance(value, str) and isinstance(text, str) and extract_otp(text) == value.strip()
    return not is_of_sms and re.fullmatch("[45][0-9]{2}", str(value).strip()) is not None


def is_rejection(answer: Answer) -> bool:
    """Whether an answer that is an error proves that nothing was carried out."""
    if 200 <= answer.status_code < 300:
        return _says_nothing_was_bought(parse(answer.text))
    if answer.status_code == 429:  # requests are counted before they are carried out
        return True
    if answer.status_code not in REJECTIONS or not _is_of_the_service(answer):
        return False
    return not _names_a_purchase(answer)


def _names_a_purchase(answer: Answer) -> bool:
    """Whether the refusal of a purchase names an order: the service may have bought it before it failed.

    What refuses a renewal or a cancellation may name the order that it is about.
    """
    is_purchase = answer.endpoint.startswith("POST ") and not answer.endpoint.endswith(
        ("/renew/", "/cancel/")
    )
    return is_purchase and names_an_order(parse(answer.text))


def _is_of_the_service(answer: Answer) -> bool:
    """Whether an error comes from the service itself: in one of the service's envelopes, or a list of texts.

    An answer of a proxy, a firewall or a login page says nothing about the key, the order or the wallet.
    """
    try:
        body = parse(answer.text)
    except ValueError:
        return False
    if isinstance(body, list):
        # Texts: so Django REST framework answers a refused value. It does not answer a refused key so.
        is_texts = body != [] and all(isinstance(text, str) for text in body)
        return is_texts and answer.status_code not in (401, 403)
    text, named = envelope(body)
    if text is not None and _OWN_WORDS.fullmatch(words_of(text)):
        return True
    if not isinstance(body, dict) or not _OF_A_PROXY.isdisjoint(body):
        return False
    says_failure = text is not None and str(body.get("status")).strip().lower() in _FAILURE
    return says_failure or named is not None or not _OWN_KEYS.isdisjoint(body)


def _says_nothing_was_bought(body: Any) -> bool:
    """Whether a 2xx has no other text than a clear refusal, and nothing of an order beside it."""
    if not isinstance(body, dict) or has_something_of_an_order(body):
        return False
    texts = [text for text, _ in (envelope(body.get(key)) for key in TEXT_KEYS) if text is not None]
    return texts != [] and all(_NOTHING_BOUGHT.fullmatch(words_of(text)) for text in texts)


def as_error(answer: Answer) -> Any:
    """The error for an answer, by its status, otherwise by its text."""
    text, named = _service_text(answer)
    shown = masked((text or answer.excerpt).replace(answer.secret, "***")) or "(no text)"
    status = answer.status_code
    if 300 <= status < 400:
        return unexpected(answer)
    message = f"{answer.endpoint} answered {status}: {shown}"
    kind = _kind(answer, text or "")
    if status == 404 and answer.endpoint.endswith("/status/"):
        kind = NotFoundError  # in whatever words: what it asks for is an order, and nothing is for sale there
    if status in REJECTIONS - {429} and not _is_of_the_service(answer):
        kind = ServiceUnavailableError
        message = (
            f"{answer.endpoint} answered {status}, but not in the service's words. A proxy, a firewall or a "
            f"login page may have answered: check base_url. It said: {shown}"
        )
    elif status in REJECTIONS - {429} and _names_a_purchase(answer):
        message = f"{message}. But the answer names an order"
    details: dict[str, Any] = {"status_code": status, "service_message": shown, "endpoint": answer.endpoint}
    named = named or named_in(text or "")
    if kind is ServiceError and status in (400, 422) and named is not None:
        return InvalidRequestError(message, field=masked(named, 40), **details)
    return kind(message, retry_after=answer.retry_after, **details)


def unexpected(answer: Answer) -> UnexpectedResponseError:
    """The error for an answer that is not what the documentation says, with a redacted excerpt of it."""
    what = "what the documentation does not describe"
    if 300 <= answer.status_code < 400:
        what = f"a redirect to {_target(answer)}, which is not followed (check base_url)"
    return UnexpectedResponseError(
        f"{answer.endpoint} answered {answer.status_code} with {what}: {answer.excerpt or '(nothing)'}",
        status_code=answer.status_code,
        service_message=answer.excerpt,
        endpoint=answer.endpoint,
    )


def _target(answer: Answer) -> str:
    """Where a redirect leads, without its query."""
    try:
        target = urlsplit(answer.headers.get("Location", ""))._replace(query="", fragment="").geturl()
    except ValueError:
        return "an invalid address"
    return printable(target.replace(answer.secret, "***"), EXCERPT)


def redacted_excerpt(text: str, secret: str) -> str:
    """The beginning of an answer: its fields with their types, and only such values as may be quoted."""
    text = text.replace(secret, "***") if secret else text
    try:
        shown = json.dumps(_outline(parse(text)), ensure_ascii=False)
    except (ValueError, RecursionError):
        text = text[: 100 * EXCERPT]
        # JSON that is cut, or has something before it. Where a value ends is not known.
        names = ", ".join(dict.fromkeys(_NAME_IN_JSON.findall(text)))
        shown = re.split(r'[{\["]', _NO_TEXT.sub(" ", text), maxsplit=1)[0]
        shown = " ".join(shown.split()) + (f" (cut JSON with {names})" if names else "")
    return masked(shown.strip(), EXCERPT)


def _outline(value: Any, *, may_quote: bool = False, depth: int = 0) -> Any:
    """A body with the types of its values in the place of those that may not be quoted."""
    if isinstance(value, dict) and depth < 5:
        return {
            masked(name, 40): _outline(inner, may_quote=name in _QUOTED, depth=depth + 1)
            for name, inner in list(value.items())[:20]
        }
    if isinstance(value, list) and depth < 5:
        rows = [_outline(inner, may_quote=may_quote, depth=depth + 1) for inner in value[:3]]
        return [*rows, f"and {len(value) - 3} more"] if len(value) > 3 else rows
    if value is None or isinstance(value, bool):
        return value
    if may_quote and isinstance(value, (str, int)):
        return masked(value)
    return f"<{_TYPES.get(type(value), 'number')}>"


_TYPES: dict[type, str] = {str: "text", dict: "object", Contradiction: "object", list: "list"}


def _kind(answer: Answer, text: str) -> type[ServiceError]:
    status, words = answer.status_code, text[:LONGEST_TEXT].lower()
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return ServiceUnavailableError
    kind = next((kind for pattern, kind in _BY_TEXT if re.search(pattern, words)), None)
    if status == 403:
        return _kind_of_a_403(kind, words, answer.endpoint)
    return kind or (NotFoundError if status == 404 else ServiceError)


def _kind_of_a_403(kind: type[ServiceError] | None, words: str, endpoint: str) -> type[ServiceError]:
    """What a 403 means. About one order it says nothing of the key, unless it names the key: the order may be
    another account's."""
    if kind is RateLimitedError:
        return kind
    if _ONE_ORDER.search(endpoint) is None or re.search(_OF_THE_KEY, words):
        return AuthenticationError
    return ServiceError if kind is None or kind is AuthenticationError else kind


def _service_text(answer: Answer) -> tuple[str | None, str | None]:
    """The service's own words, and the field that they name; `None` for what is missing."""
    try:
        return envelope(parse(answer.text))
    except ValueError:
        return None, None


def _http_date(value: str | None) -> float | None:
    try:
        date = parsedate_to_datetime(value) if value else None
        # All dates of HTTP are in UTC, with or without a zone.
        return date.replace(tzinfo=date.tzinfo or timezone.utc).timestamp() if date else None
    except (TypeError, ValueError, OverflowError):
        return None
