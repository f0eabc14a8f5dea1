"""Arguments of callers, checked before anything is sent."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import re
import threading
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict

from smsverify._input.actions import why_not_done, why_not_run
from smsverify._input.amounts import as_limit, is_absurd
from smsverify._input.ids import order_id_of
from smsverify._input.names import plain
from smsverify._input.patterns import Pattern, as_pattern
from smsverify._input.templates import is_left_over
from smsverify._input.values import number_text, own_type, written
from smsverify.errors import InvalidRequestError
from smsverify.models import LONGEST_NAME, PRODUCTS, RENTAL_DURATIONS, Message, Product
from smsverify.text import printable, shown

LONGEST_KEY: Final = 500  # characters that are kept as they are; a database's index takes no more than some
LONGEST_COUNT: Final = 9  # digits

T = TypeVar("T")


class _Later:
    """The type of `LATER`."""

    def __repr__(self) -> str:
        return "LATER"


LATER: Final = _Later()
"""Stands for a value that is given but not known yet, such as a template that a framework renders later."""

# What each product needs and may have besides, in the words of `hook.order`.
_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "temporary": ("service",),
    "best-temp": ("service",),
    "rental": ("service", "duration"),
    "rent-1day": ("service",),
    "rent-30days": ("service",),
    "global": ("service", "country"),
    "esim": ("plan",),
}
_MAY_HAVE: Final[Mapping[str, tuple[str, ...]]] = {"temporary": ("area_code",)}


BEST: Final = "best"
"""Stands for the alternatives that a product has by itself, the one first that delivers best."""

# The products whose numbers can stand in for each other: bought by the same service, for the same short time.
_SHORT_TERM: Final = ("temporary", "best-temp")
_OF_AN_ALTERNATIVE = frozenset({"product", "service", "country", "area_code", "duration", "max_price"})


class OrderRequest(BaseModel):
    """A purchase that has been checked as far as it can be without asking the service.

    Attributes:
        product: the API's word for the kind of number.
        service: id (a number is one, a text may be one) or name of the service; `None` for an eSIM.
        country: id or name of the country, for `global`, likewise.
        area_code: three digits, for `temporary`.
        duration: 3 or 30 days, for `rental`.
        plan: name of the plan, for `esim`.
        max_price: most that may be paid, in USD.
    """

    model_config = ConfigDict(frozen=True)

    product: Product
    service: int | str | None = None
    country: int | str | None = None
    area_code: str | None = None
    duration: int | None = None
    plan: str | None = None
    max_price: Decimal | None = None

    @property
    def fingerprint(self) -> str:
        """What makes two requests the same: everything as it was asked for, except the price limit."""
        asked = self.model_dump(exclude={"max_price"})
        folded = {name: str(value).casefold() for name, value in asked.items() if value is not None}
        return hashlib.sha256(json.dumps(folded, sort_keys=True).encode()).hexdigest()

    @classmethod
    def check(cls, **given: Any) -> OrderRequest:
        """Checks the parameters of a purchase.

        Raises:
            InvalidRequestError: a value is unknown, malformed, missing or does not go with the product.
        """
        return cls(**check_order_fields(**given))

    @classmethod
    def check_all(
        cls, product: str, alternatives: Sequence[Mapping[str, Any]] | str | None = (), **wanted: Any
    ) -> list[OrderRequest]:
        """Checks a purchase and what may be bought instead, in that order.

        Args:
            product: of the purchase.
            alternatives: each a dict of what differs from it: `product`, `service`, …; or `BEST`.
            **wanted: the parameters of the purchase. An alternative takes those that its product has.

        Raises:
            InvalidRequestError: as for `check`; or one of them gets no SMS.
        """
        product, alternatives = check_product(product), own_type(alternatives)
        if alternatives is None:
            alternatives = ()
        elif isinstance(alternatives, str) and alternatives == BEST:
            alternatives = _short_term(product, wanted)
        if isinstance(alternatives, (str, Mapping)) or not isinstance(alternatives, Sequence):
            raise InvalidRequestError(
                'alternatives must be a list of dicts, such as [{"product": "best-temp"}], or "best"',
                field="alternatives",
            )
        requests = [cls.check(product=product, **wanted)]
        for nth, alternative in enumerate(alternatives, 1):
            if not isinstance(alternative, Mapping) or not set(alternative) <= _OF_AN_ALTERNATIVE:
                raise InvalidRequestError(
                    f"alternatives: number {nth} must be a dict of {', '.join(sorted(_OF_AN_ALTERNATIVE))}",
                    field="alternatives",
                )
            try:
                other = check_product(alternative.get("product", product))
                takes = {*_NEEDS[other], *_MAY_HAVE.get(other, ()), "max_price"}
                same = {name: value for name, value in wanted.items() if name in takes}
                requests.append(cls.check(**{**same, **alternative, "product": other}))
            except InvalidRequestError as error:
                raise InvalidRequestError(
                    f"alternatives: number {nth}: {error}", field="alternatives"
                ) from error
        for nth, request in enumerate(requests[1:], 1):
            if any(_differ_in_price_only(request, other) for other in requests[:nth]):
                raise InvalidRequestError(
                    f"alternatives: number {nth} differs from an earlier one in max_price only. Give the "
                    "earlier one the higher max_price, and leave this one out",
                    field="alternatives",
                )
        for request in requests:
            check_gets_sms(request.product)
        return requests


def _differ_in_price_only(one: OrderRequest, other: OrderRequest) -> bool:
    return one.fingerprint == other.fingerprint and one.max_price != other.max_price


def _short_term(product: str, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What can stand in for a short-term number: one of the other product, or from any area."""
    if product not in _SHORT_TERM:
        raise InvalidRequestError(
            f'alternatives: "best" is for {" and ".join(_SHORT_TERM)}, not for {shown(product)}: give '
            "a list of dicts",
            field="alternatives",
        )
    others: list[dict[str, Any]] = [{"product": one} for one in _SHORT_TERM if one != product]
    return others if wanted.get("area_code") is None else [*others, {"area_code": None}]


def check_order_fields(
    *,
    product: Any,
    service: Any = None,
    country: Any = None,
    area_code: Any = None,
    duration: Any = None,
    plan: Any = None,
    max_price: Any = None,
) -> dict[str, Any]:
    """Checks what is known of a purchase; `LATER` stands for values that are not known yet.

    Returns:
        the normalised values by name, without those that are `None` or `LATER`.

    Raises:
        InvalidRequestError: a value is unknown, malformed, missing or does not go with the product; `field`
            names it.
    """
    given = {
        "service": service,
        "country": country,
        "area_code": area_code,
        "duration": duration,
        "plan": plan,
    }
    checked = {
        "product": None if product is LATER else check_product(product),
        "service": _unless_later(service, lambda value: check_id_or_name(value, "service")),
        "country": _unless_later(country, lambda value: check_id_or_name(value, "country")),
        "area_code": _unless_later(area_code, _area_code),
        "duration": _unless_later(duration, _duration),
        "plan": _unless_later(plan, lambda value: str(check_id_or_name(value, "plan"))),
        "max_price": _unless_later(max_price, check_price_limit),
    }
    if product is not LATER:
        _check_combination(checked["product"], given)
    return {name: value for name, value in checked.items() if value is not None}


def _unless_later(value: Any, check: Any) -> Any:
    return None if value is None or value is LATER else check(value)


def _check_combination(product: str, given: Mapping[str, Any]) -> None:
    needed = _NEEDS[product]
    for field in needed:
        if given[field] is None:
            raise InvalidRequestError(
                f"{field} is missing: a {product} order needs {' and '.join(needed)}",
                field=field,
            )
    for field, value in given.items():
        if value is not None and field not in needed + _MAY_HAVE.get(product, ()):
            hint = "the product says how long" if field == "duration" else f"it takes {', '.join(needed)}"
            raise InvalidRequestError(f"{field} does not go with a {product} order: {hint}", field=field)


def refuse_left_over(value: Any, field: str) -> None:
    """Refuses what an empty template or a missing result leaves; `InvalidRequestError` names the field."""
    if is_left_over(value):
        raise InvalidRequestError(
            f"{field} {shown(value)} is malformed: it is empty, or the result of a template without a value. "
            f"Give {field} a value, or leave it out",
            field=field,
        )


def check_gets_sms(product: str) -> None:
    """Refuses a product of which no code can come."""
    if product == "esim":
        raise InvalidRequestError("product: an eSIM gets no SMS, so it has no code", field="product")


def check_product(value: Any) -> Product:
    """The API's word for a kind of number; `InvalidRequestError` if it is none."""
    value = _unwrapped(value, "product")
    for product in PRODUCTS:
        if isinstance(value, str) and value == product:
            return product
    raise _refused("product", value, f"is unknown: choose one of {', '.join(PRODUCTS)}")


def check_listed_product(value: Any) -> Product:
    """Checks a product that has a list of services.

    Raises:
        InvalidRequestError: it is none, or its list is another one; `field` is "product".
    """
    product = check_product(value)
    if product in ("global", "esim"):
        other = "list_global_services(country)" if product == "global" else "list_esim_plans()"
        raise InvalidRequestError(f"product {product!r} is not listed here: use {other}", field="product")
    return product


def check_order_id(value: Any, field: str = "order_id") -> int:
    """An order's id, given as a number or as its digits; `InvalidRequestError` if it is none."""
    value = _unwrapped(value, field)
    if isinstance(value, Mapping) and "order_id" in value:
        raise InvalidRequestError(
            f'{field} is the whole result of a task. Give its order_id, such as order.output["order_id"]',
            field=field,
        )
    order_id = order_id_of(value)
    if order_id is None:
        raise _refused(field, value, "is malformed: it must be a positive whole number, such as 458731")
    return order_id


def check_key(value: Any, field: str = "key") -> str:
    """The name of a paid call, or another one, as it is kept; `InvalidRequestError` if it is none."""
    value = _unwrapped(value, field)
    refuse_left_over(value, field)
    key = _word(value)
    if not key.strip():
        raise _refused(field, value, "is malformed: it must be a text that is not empty")
    # Of two keys that differ in these alone, one would stand for the other's purchase if they were left out.
    if "\0" in key or any(unicodedata.category(char) == "Cs" for char in key):
        raise _refused(
            field, value, "is malformed: it has a NUL or half a character, which no store can keep"
        )
    if len(key) <= LONGEST_KEY:
        return key
    return f"{key[:LONGEST_KEY]}…{hashlib.sha256(key.encode()).hexdigest()}"


def check_waiter(value: Any) -> str | None:
    """Who waits for an order, as it is kept; `None` for none. `InvalidRequestError` if it is no name."""
    return None if value is None else check_key(value, "waiter")


def check_reason(value: Any, field: str = "reason") -> str:
    """Why something is done, for people: on one line, with what cannot be kept escaped.

    Raises:
        InvalidRequestError: it is no text; `field` names it.
    """
    value = _unwrapped(value, field)
    if not isinstance(value, str):
        raise _refused(field, value, "is no text: it must say why, for people")
    return printable(value)


def check_price_limit(value: Any, field: str = "max_price") -> Decimal:
    """An amount of USD, zero or more; `InvalidRequestError` if it is none."""
    value = _unwrapped(value, field)
    try:
        amount = as_limit(Decimal(number_text(value) or "NaN"))
    except InvalidOperation:
        amount = Decimal("NaN")
    if is_absurd(amount) or amount < 0:
        raise _refused(field, value, "is not an amount: it must be USD, zero or more, such as 0.50")
    return amount


def check_order_ids(value: Any, field: str) -> tuple[int, ...]:
    """Orders' ids: one, several, or a text with commas between them, as a template renders a list.

    Raises:
        InvalidRequestError: one of them is no order's id.
    """
    value = _unwrapped(value, field)
    if isinstance(value, str):
        value = [part for part in re.split(r"[\s,]+", value.strip(" ()[]")) if part]
    given = value if isinstance(value, Iterable) and not isinstance(value, Mapping) else (value,)
    try:
        return tuple(dict.fromkeys(check_order_id(one) for one in given))
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{field}: {error}", field=field) from None


def check_count(value: Any, field: str) -> int:
    """A number of things, from 1 on; `InvalidRequestError` if it is none, or absurdly large."""
    value = _unwrapped(value, field)
    refuse_left_over(value, field)
    digits = re.fullmatch(rf"[0-9]{{1,{LONGEST_COUNT}}}", number_text(value))
    if digits is None or int(digits[0]) < 1:
        raise InvalidRequestError(
            f"{field} must be a whole number from 1 on, of {LONGEST_COUNT} digits at the most, not "
            f"{shown(value)}",
            field=field,
        )
    return int(digits[0])


def check_seconds(value: Any, field: str) -> float:
    """A time span in seconds, zero or more, or a `timedelta`; `InvalidRequestError` if it is none."""
    value = _unwrapped(value, field)
    given = value.total_seconds() if isinstance(value, timedelta) else value
    try:
        seconds = float(number_text(given) or "nan")
    except ValueError:
        seconds = float("nan")
    if not 0 <= seconds < float("inf"):
        raise _refused(field, value, "is not a time span: it must be seconds, zero or more, or a timedelta")
    return seconds


def check_switch(value: Any, field: str) -> bool:
    """`True` or `False`; `InvalidRequestError` for all else, since the text "False" would count as true."""
    value = _unwrapped(value, field)
    if isinstance(value, bool):
        return value
    raise _refused(field, value, "is no switch: it must be True or False, and no text, number or template")


def check_stop(value: Any, field: str = "stop") -> threading.Event | None:
    """An event that ends a call when it is set, or `None`; `InvalidRequestError` for one of an event loop."""
    if value is None:
        return None
    methods = [getattr(value, name, None) for name in ("is_set", "set", "wait")]
    is_event = not isinstance(value, type) and all(map(callable, methods))
    if not is_event or any(map(inspect.iscoroutinefunction, methods)):
        raise _refused(field, value, "is no event that threads share: it must be a threading.Event()")
    event: threading.Event = value
    return event


def check_action(value: Any, field: str = "action", *, may_be_async: bool = False) -> None:
    """Refuses what cannot be called with a number, and what a call does not run.

    `may_be_async`: whether the caller awaits what it returns.
    """
    if not callable(value):
        raise _refused(field, value, "is no function: it must be callable with the number that is tried")
    why = why_not_run(value, may_be_async=may_be_async)
    if why is not None:
        raise _refused(field, value, why)


def check_result(result: T, field: str = "action") -> T:
    """What an action has returned; `InvalidRequestError` where that shows that its code did not run."""
    why = why_not_done(result)
    if why is None:
        return result
    raise InvalidRequestError(
        f"{field} returned a {type(result).__name__}, {why}. The number that it was called with is given "
        "back, unless another try uses it",
        field=field,
    )


def check_after(value: Any) -> datetime:
    """A point in time in UTC, given as a message that came then, as an aware datetime, or in ISO 8601."""
    given = _unwrapped(value.received_at if isinstance(value, Message) else value, "after")
    # UTC may have no such time: it begins with the year 1 and ends with 9999.
    with contextlib.suppress(ValueError, OverflowError):
        when = datetime.fromisoformat(_iso(given)) if isinstance(given, str) else given
        if isinstance(when, datetime) and when.tzinfo is not None:
            return when.astimezone(timezone.utc)
    raise InvalidRequestError(
        f"after {shown(given)} is not a point in time: give a message, or a time with a time zone, as a "
        "datetime or in ISO 8601, such as a message's received_at",
        field="after",
    )


def _refused(field: str, value: Any, why: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field} {shown(value)} {why}", field=field)


def _unwrapped(value: Any, field: str) -> Any:
    """A value in Python's own type. Binary data is refused: it would be read as a list of numbers."""
    value = own_type(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise _refused(field, value, "is binary data: give a text or a number")
    return value


def _word(value: Any) -> str:
    """A text, or a whole number as it is written; empty for all else."""
    return written(value) if isinstance(value, (int, str)) else ""


def _iso(text: str) -> str:
    """Python 3.10 reads neither a Z nor fractions of a second that have not three or six digits."""
    text = re.sub("[Zz]$", "+00:00", text.strip())
    return re.sub(r"[.,]([0-9]{1,6})[0-9]*", lambda part: f".{part[1]:0<6}", text, count=1)


def check_sender(value: Any) -> str:
    """The name or number of a sender."""
    value = _unwrapped(value, "sender")
    refuse_left_over(value, "sender")
    sender = _word(value).strip()
    if not sender:
        raise _refused("sender", value, "is malformed: it must be a name or a number, as callbacks name it")
    return sender


def check_pattern(value: Any) -> Pattern:
    """A regular expression for texts, as text or compiled."""
    value = _unwrapped(value, "pattern")
    refuse_left_over(value, "pattern")
    return as_pattern(value)


def check_id_or_name(value: Any, field: str) -> int | str:
    """What names a service, a country or a plan: a number, which is an id, or a text, which may be one."""
    value = _unwrapped(value, field)
    refuse_left_over(value, field)
    text = _word(value).strip()
    if (
        not plain(text)
        # The service's own names may hold spaces of all kinds, and what has no width.
        or not all(char.isprintable() or unicodedata.category(char) in ("Zs", "Cf") for char in text)
        or len(text) > LONGEST_NAME
    ):
        raise _refused(field, value, "is malformed: it must be an id or a name")
    return text if isinstance(value, str) else value


def _area_code(value: Any) -> str:
    value = _unwrapped(value, "area_code")
    text = written(value).strip()
    if not re.fullmatch(r"[2-9][0-9]{2}", text):
        raise _refused("area_code", value, "is malformed: it must be three digits, such as 212")
    return text


def _duration(value: Any) -> int:
    value = _unwrapped(value, "duration")
    text = written(value).strip()
    if text not in {str(days) for days in RENTAL_DURATIONS}:
        raise _refused("duration", value, "is not offered: it must be 3 or 30 (days)")
    return int(text)
