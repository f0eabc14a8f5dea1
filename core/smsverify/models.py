"""What goes to the service and what comes back: requests that are checked, answers that are typed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from smsverify.errors import InvalidRequestError

Product = Literal["temporary", "best-temp", "rental", "rent-1day", "rent-30days", "global", "esim"]
PRODUCTS: Final[tuple[Product, ...]] = get_args(Product)
RENTALS: Final[tuple[Product, ...]] = ("rental", "rent-1day", "rent-30days")
RENTAL_DURATIONS: Final = (3, 30)
LONGEST_KEY: Final = 500  # characters that are kept as they are; a database's index takes no more than some

# The documentation names pending, active, completed and cancelled only; the others end an order wherever such
# words are used.
CANCELLED: Final = frozenset({"cancelled", "canceled", "refunded"})
ENDED: Final = CANCELLED | {"completed", "expired", "failed", "timeout"}
KNOWN_STATUSES: Final = ENDED | {"pending", "active"}


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


class OrderRequest(BaseModel):
    """A purchase that has been checked as far as it can be without asking the service.

    Attributes:
        product: the API's word for the kind of number.
        service: id or name of the service; `None` for an eSIM.
        country: id or name of the country, for `global`.
        area_code: three digits, for `temporary`.
        duration: 3 or 30 days, for `rental`.
        plan: name of the plan, for `esim`.
        max_price: most that may be paid, in USD.
    """

    model_config = ConfigDict(frozen=True)

    product: Product
    service: str | None = None
    country: str | None = None
    area_code: str | None = None
    duration: int | None = None
    plan: str | None = None
    max_price: Decimal | None = None

    @property
    def fingerprint(self) -> str:
        """What makes two requests the same: everything as it was asked for, but the price limit."""
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
        "product": _unless_later(product, check_product),
        "service": _unless_later(service, lambda value: _id_or_name(value, "service")),
        "country": _unless_later(country, lambda value: _id_or_name(value, "country")),
        "area_code": _unless_later(area_code, _area_code),
        "duration": _unless_later(duration, _duration),
        "plan": _unless_later(plan, lambda value: _id_or_name(value, "plan")),
        "max_price": _unless_later(max_price, check_price_limit),
    }
    if product is None:
        checked["product"] = check_product(product)
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


def check_product(value: Any) -> Product:
    """The API's word for a kind of number; `InvalidRequestError` where it is none."""
    for product in PRODUCTS:
        if value == product:
            return product
    raise InvalidRequestError(
        f"product {value!r} is unknown: choose one of {', '.join(PRODUCTS)}",
        field="product",
    )


def check_order_id(value: Any, field: str = "order_id") -> int:
    """An order's id, given as a number or as its digits; `InvalidRequestError` where it is none."""
    text = str(value).strip()
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, str))
        or not re.fullmatch(r"[0-9]{1,18}", text)
        or int(text) == 0
    ):
        raise InvalidRequestError(
            f"{field} {value!r} is malformed: it must be a positive whole number, as it was answered",
            field=field,
        )
    return int(text)


def check_key(value: Any, field: str = "key") -> str:
    """The name of a paid call, or another one, as it is kept; `InvalidRequestError` where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not str(value).strip():
        raise InvalidRequestError(
            f"{field} {value!r} is malformed: it must be a text that is not empty", field=field
        )
    key = str(value).replace("\0", "")
    if len(key) <= LONGEST_KEY:
        return key
    return f"{key[:LONGEST_KEY]}…{hashlib.sha256(key.encode()).hexdigest()}"


def check_price_limit(value: Any, field: str = "max_price") -> Decimal:
    """An amount of USD, zero or more; `InvalidRequestError` where it is none."""
    try:
        amount = Decimal(str(value).strip())
    except InvalidOperation:
        amount = Decimal("NaN")
    if isinstance(value, bool) or not amount.is_finite() or amount < 0:
        raise InvalidRequestError(
            f"{field} {value!r} is not an amount: it must be USD, zero or more, such as 0.50",
            field=field,
        )
    return amount


def check_order_ids(value: Any, field: str) -> tuple[int, ...]:
    """Orders' ids: one, several, or a text with commas between them, as a template renders a list.

    Raises:
        InvalidRequestError: one of them is no order's id.
    """
    if isinstance(value, str):
        value = [part for part in re.split(r"[\s,]+", value.strip(" ()[]")) if part]
    given = value if isinstance(value, Iterable) and not isinstance(value, Mapping) else (value,)
    try:
        return tuple(dict.fromkeys(check_order_id(one) for one in given))
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{field}: {error}", field=field) from None


def check_seconds(value: Any, field: str) -> float:
    """A time span in seconds, zero or more, or a `timedelta`; `InvalidRequestError` where it is none."""
    try:
        if isinstance(value, timedelta):
            value = value.total_seconds()
        seconds = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = float("nan")
    if not 0 <= seconds < float("inf"):
        raise InvalidRequestError(
            f"{field} {value!r} is not a time span: it must be seconds, zero or more, or a timedelta",
            field=field,
        )
    return seconds


def check_after(value: Any) -> datetime:
    """A point in time in UTC, given as a message that came then, as an aware datetime, or in ISO 8601."""
    given = value.received_at if isinstance(value, Message) else value
    try:
        when = datetime.fromisoformat(_iso(given)) if isinstance(given, str) else given
    except ValueError:
        when = None
    if not isinstance(when, datetime) or when.tzinfo is None:
        raise InvalidRequestError(
            f"after {given!r} is no point in time: it must be a message, an aware datetime, or that in ISO "
            "8601, such as a message's received_at",
            field="after",
        )
    return when.astimezone(timezone.utc)


def _iso(text: str) -> str:
    """Python 3.10 reads neither a Z nor fractions of a second that have not three or six digits."""
    text = re.sub("[Zz]$", "+00:00", text.strip())
    return re.sub(r"[.,]([0-9]{1,6})[0-9]*", lambda part: f".{part[1]:0<6}", text, count=1)


def check_sender(value: Any) -> str:
    """The name or number of a sender."""
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not str(value).strip():
        raise InvalidRequestError(
            f"sender {value!r} is malformed: it must be a name or a number, as callbacks tell it",
            field="sender",
        )
    return str(value).strip()


def check_pattern(value: Any) -> re.Pattern[str]:
    """A regular expression for texts."""
    try:
        pattern = re.compile(value)
    except (re.error, TypeError, RecursionError, OverflowError) as error:
        raise InvalidRequestError(
            f"pattern {value!r} is no regular expression: {error}", field="pattern"
        ) from error
    if not isinstance(pattern.pattern, str) or not pattern.pattern:
        raise InvalidRequestError(
            f"pattern {value!r} is malformed: it must be a regular expression for text", field="pattern"
        )
    return pattern


def _id_or_name(value: Any, field: str) -> str:
    text = str(value).strip()
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, str))
        or not text
        or not text.isprintable()
        or len(text) > 200
    ):
        raise InvalidRequestError(f"{field} {value!r} is malformed: it must be an id or a name", field=field)
    return text


def _area_code(value: Any) -> str:
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"[2-9][0-9]{2}", text):
        raise InvalidRequestError(
            f"area_code {value!r} is malformed: it must be three digits, such as 212",
            field="area_code",
        )
    return text


def _duration(value: Any) -> int:
    text = str(value).strip()
    if isinstance(value, bool) or text not in {str(days) for days in RENTAL_DURATIONS}:
        raise InvalidRequestError(
            f"duration {value!r} is not offered: it must be 3 or 30 (days)",
            field="duration",
        )
    return int(text)


# ------------------------------------------------------------------ answers


def as_price(value: Any) -> Any:
    """A price from JSON: a number or its text. A float never comes in, the transport reads decimals."""
    if isinstance(value, str):
        value = value.strip().lstrip("$")
    if value is None or value == "" or isinstance(value, bool):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() else None


def _as_text(value: Any) -> Any:
    if value is None or isinstance(value, (bool, dict, list)):
        return None
    # A text cut inside an emoji holds half of one, and no database takes that, nor a NUL.
    text = str(value).replace("\0", "").encode("utf-8", "replace").decode()
    return text.strip() or None


_DATETIME: Final[TypeAdapter[datetime]] = TypeAdapter(datetime)


def as_datetime(value: Any) -> datetime | None:
    """Reads a date and time (ISO 8601, UTC where it names no zone); `None` where it is unreadable."""
    if isinstance(value, str):
        value = re.sub(r"\s*(UTC|GMT)$", "Z", value.strip())
    try:
        when = _DATETIME.validate_python(value) if isinstance(value, (str, datetime)) and value else None
        if when is None:
            return None
        # Not every date of the calendar can be told in UTC and in seconds.
        when = when.replace(tzinfo=timezone.utc) if when.tzinfo is None else when.astimezone(timezone.utc)
        return datetime.fromtimestamp(when.timestamp(), timezone.utc) and when
    except (ValidationError, ValueError, OverflowError, OSError):
        return None


def _as_order_id(value: Any) -> int:
    try:
        return check_order_id(value)
    except InvalidRequestError as error:
        raise ValueError(str(error)) from None


def _as_seconds(value: Any) -> Any:
    amount = as_price(value)
    return None if amount is None else float(amount)


def _as_whole_number(value: Any) -> Any:
    amount = as_price(value)
    return None if amount is None or amount.adjusted() > 18 else int(amount)


Price = Annotated[Decimal | None, BeforeValidator(as_price)]
Text = Annotated[str | None, BeforeValidator(_as_text)]
When = Annotated[datetime | None, BeforeValidator(as_datetime)]
OrderId = Annotated[int, BeforeValidator(_as_order_id)]
WholeNumber = Annotated[int | None, BeforeValidator(_as_whole_number)]
Seconds = Annotated[float | None, BeforeValidator(_as_seconds)]


class _Answer(BaseModel):
    """An answer of the service: fields that are not known are kept in `model_extra`."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    def as_dict(self) -> dict[str, Any]:
        """The documented fields, ready for JSON; an eSIM's activation code, a secret, is left out."""
        documented = set(type(self).model_fields) - {"activation_code"}
        return self.model_dump(mode="json", include=documented)

    def __repr_args__(self) -> Any:
        # What the service adds without documentation could be anything, a code included.
        return [(name, value) for name, value in super().__repr_args__() if name in type(self).model_fields]


class _OfAnOrder(_Answer):
    order_id: OrderId
    phone: Text = None

    @property
    def phone_digits(self) -> str | None:
        """The phone number's digits, country code first."""
        return phone_digits(self.phone)

    @property
    def phone_e164(self) -> str | None:
        """The phone number in the form +14155550123."""
        return f"+{self.phone_digits}" if self.phone_digits else None


def phone_digits(phone: str | None) -> str | None:
    """The digits of a phone number, country code first: ten bare digits are a number of the USA."""
    digits = _bare(phone)
    if not digits:
        return None
    is_national = len(digits) == 10 and not (phone or "").strip().startswith("+")
    return f"1{digits}" if is_national else digits.removeprefix("00")


def is_same_phone(one: str | None, other: str | None) -> bool:
    """Whether two ways to write a phone number mean the same; the country code of the USA may be missing."""
    if phone_digits(one) is None or phone_digits(other) is None:
        return False
    return phone_digits(one) == phone_digits(other) or _bare(one) == _bare(other)


def _bare(phone: str | None) -> str:
    return "".join(character for character in phone or "" if character.isdecimal())


class Balance(_Answer):
    """The wallet: `amount` in `currency` (USD)."""

    amount: Annotated[Decimal, BeforeValidator(as_price)] = Field(alias="balance")
    currency: Annotated[str, BeforeValidator(lambda value: _as_text(value) or "USD")] = "USD"


class Country(_Answer):
    """A country outside the USA with at least one service in stock."""

    country_id: int | str
    name: str = Field(alias="country_name")


class Service(_Answer):
    """One line of a catalogue: what can be ordered, and its price.

    Attributes:
        product: the catalogue that it stands in.
        service_id: the id to order by; `None` in the `rental` catalogue, which goes by name.
        name: the service's name; the plan's, for `esim`.
        price: USD; `None` for a rental, which has one price for each duration.
        prices: USD by duration in days, for a rental.
        highest_price, highest_prices: the same, the larger one where the service states two that differ.
        country_id, country_name: for `global`.
    """

    product: Product
    service_id: int | str | None = None
    name: str
    price: Price = None
    prices: dict[int, Decimal] = Field(default_factory=dict)
    highest_price: Price = None
    highest_prices: dict[int, Decimal] = Field(default_factory=dict)
    country_id: int | str | None = None
    country_name: str | None = None

    def price_of(self, duration: int | None) -> Decimal | None:
        """The price in USD, for `duration` days where that matters; `None` where it is unknown."""
        return self.price if duration is None else self.prices.get(duration)

    def highest_price_of(self, duration: int | None) -> Decimal | None:
        """The price in USD that a limit has to be checked against; `None` where it is unknown."""
        return self.highest_price if duration is None else self.highest_prices.get(duration)


class EsimPlan(_Answer):
    """An eSIM data plan; `name` is what it is ordered by, `price` is in USD."""

    name: str
    data_gb: Price = None
    validity_days: WholeNumber = None
    price: Price = None
    highest_price: Price = None


class Order(_OfAnOrder):
    """A number (or eSIM) that was bought.

    Attributes:
        order_id: the service's id of it.
        product: the API's word; `None` in the list of orders, which does not tell.
        service: the service's name; the plan's for an eSIM.
        country: the country's name, for `global`.
        phone: the number as the service writes it; `phone_digits` and `phone_e164` give it bare. `None` for
            an eSIM.
        price: USD that it cost, by the answer or else the catalogue.
        status: the service's own word.
        duration: days, for `rental`.
        created_at, expires_at: UTC, `None` where the service does not say.
        expires_estimated: whether `expires_at` is reckoned rather than answered.
        activation_code: of an eSIM; a secret.
        key: the purchase's key.
    """

    product: Product | None = None
    service: Text = None
    country: Text = None
    price: Price = None
    status: Annotated[str, BeforeValidator(lambda value: _as_text(value) or "pending")] = "pending"
    created_at: When = None
    duration: int | None = None
    expires_at: When = Field(default=None, alias="expiry_date")
    expires_estimated: bool = False
    activation_code: Text = Field(default=None, repr=False)
    key: str | None = None

    @property
    def ended(self) -> bool:
        """Whether the order came to its end."""
        return has_ended(self.status)

    @property
    def cancelled(self) -> bool:
        """Whether the order was cancelled."""
        return was_cancelled(self.status)


class Rental(_OfAnOrder):
    """A number that is rented for days, and how long it lasts.

    Attributes:
        order_id: the order.
        product: `rental`, `rent-1day` or `rent-30days`; `None` where it was not bought through this store.
        service: the service's name.
        phone: the number as the service writes it.
        status: the service's own word, as last seen.
        duration: days, for `rental`.
        price: USD that renewing it once costs now; `None` where nobody knows.
        expires_at: UTC; `None` where the service does not tell.
        expires_estimated: whether `expires_at` is reckoned from an earlier end rather than answered.
        time_left_seconds: seconds until then.
        renewals: how often it was renewed through this store.
        note: what else there is to know, for people.
    """

    product: Product | None = None
    service: Text = None
    status: str = "pending"
    duration: int | None = None
    price: Price = None
    expires_at: When = None
    expires_estimated: bool = False
    time_left_seconds: Seconds = None
    renewals: int = 0
    note: Text = None


class Message(_OfAnOrder):
    """An SMS that came for an order.

    Attributes:
        order_id: the order.
        otp: the code, as the service gives it or as read from the text; `None` where there is none.
        message: the text.
        sender: who sent it, known from a callback only.
        phone: the number that it was sent to.
        received_at: UTC, when we learnt of it.
    """

    otp: Text = Field(default=None, repr=False)
    message: Text = Field(default=None, repr=False)
    sender: Text = None
    received_at: When = None


class OrderStatus(Message):
    """The status of an order, with the SMS if one has come.

    Attributes:
        status: the service's own word.
        time_left_seconds: seconds until a rental ends, `None` where the service does not say.
        expires_at: UTC; from the answer, or reckoned from the time left.
    """

    status: Annotated[str, BeforeValidator(_as_text)]
    time_left_seconds: Seconds = None
    days_left: Price = None
    expires_at: When = Field(default=None, alias="expiry_date")

    @property
    def arrived(self) -> bool:
        """Whether an SMS is there. The status alone never says so."""
        return self.otp is not None or self.message is not None

    @property
    def ended(self) -> bool:
        """Whether the order came to its end."""
        return has_ended(self.status)

    @property
    def cancelled(self) -> bool:
        """Whether the order was cancelled."""
        return was_cancelled(self.status)


def was_cancelled(status: str) -> bool:
    """Whether a status says that an order was cancelled."""
    return status.strip().lower() in CANCELLED


def has_ended(status: str) -> bool:
    """Whether a status is one after which nothing comes; an unknown one is not."""
    return status.strip().lower() in ENDED


def with_leading_zeros(otp: int, message: str | None) -> str:
    """A code that came as a number has lost its leading zeros: the text still has them."""
    joined = re.sub(r"(?<=\d)[ -](?=\d)", "", message or "")
    for text in (joined, message or ""):
        for digits in re.findall(r"(?<!\d)\d+(?!\d)", text):
            if int(digits) == otp:
                return str(digits)
    return str(otp)


def period_of(order: Order, renewals: int) -> timedelta | None:
    """For how long one renewal extends a `rental`; `None` where nobody knows.

    That is its duration, unless its first expiry has shown that the service gives much less.

    Args:
        order: the rental.
        renewals: how often it has been renewed until `expires_at`.
    """
    if order.duration is None:
        return None
    named = timedelta(days=order.duration)
    if order.expires_at is None or order.created_at is None:
        return named
    shown = (order.expires_at - order.created_at) / (renewals + 1)
    # What is nearer may be rounded, to midnight perhaps, and would add up.
    return shown if timedelta() < shown < named / 2 else named


def seconds_left(status: OrderStatus) -> float | None:
    """For how many more seconds a rental lasts, as its status tells; `None` where it does not."""
    if status.time_left_seconds is not None:
        return status.time_left_seconds
    if status.days_left is not None:
        return float(status.days_left) * 86_400
    if status.expires_at is not None:
        return (status.expires_at - datetime.now(timezone.utc)).total_seconds()
    return None


def expiry_step(status: OrderStatus, tempo: float) -> float | None:
    """By how many seconds the time left that a status tells may be wrong; `None` where it tells none.

    Args:
        status: the status.
        tempo: how long the service's minute is in real minutes; it may reckon the time once in a minute.
    """
    if status.time_left_seconds is None and status.days_left is not None:
        return 86_402.0
    return None if seconds_left(status) is None else max(90.0 * tempo, 2.0)


def reckon_expiry(status: OrderStatus, now: datetime) -> datetime | None:
    """When an order ends: the date where it is given, else now and the time left, else unknown."""
    if status.expires_at is not None:
        return status.expires_at
    left = seconds_left(status)
    try:
        return None if left is None else now + timedelta(seconds=left)
    except OverflowError:
        return None
