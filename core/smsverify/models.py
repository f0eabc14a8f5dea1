"""What the service answers, typed and read tolerantly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from smsverify._input.amounts import FINEST, MOST_DIGITS, exactly, is_absurd
from smsverify._input.ids import order_id_of
from smsverify._input.phones import is_whole_phone, phone_digits
from smsverify._input.times import as_datetime
from smsverify._runtime.clock import DAY

Product = Literal["temporary", "best-temp", "rental", "rent-1day", "rent-30days", "global", "esim"]
PRODUCTS: Final[tuple[Product, ...]] = get_args(Product)
RENTALS: Final[tuple[Product, ...]] = ("rental", "rent-1day", "rent-30days")
TO_KEEP: Final[tuple[Product, ...]] = (*RENTALS, "esim")  # no call has to wait for these
RENTAL_DURATIONS: Final = (3, 30)

# The documentation names pending, active, completed and cancelled only; the others end an order wherever such
# words are used.
CANCELLED: Final = frozenset({"cancelled", "canceled", "refunded"})
ENDED: Final = CANCELLED | {"completed", "expired", "failed", "timeout"}
ALIVE: Final = frozenset({"pending", "active"})
KNOWN_STATUSES: Final = ENDED | ALIVE
LIST_LENGTH: Final = 50  # orders that the service's list shows, the newest
UNKNOWN_STATUS: Final = "unknown"  # where the service gives none
LONGEST_STATUS: Final = 1000  # characters that are kept of it
LONGEST_NAME: Final = 200  # characters of what a catalogue's line or country is called
LONGEST_ID: Final = 100  # characters of an id of the catalogue


# A comma is read only before a point: without one, it may be either.
_AMOUNT: Final = re.compile(
    r"(?:USD|US\$|\$)?\s*"
    r"([-+]?(?:[0-9]{1,15}(?:\.[0-9]{1,30})?|[0-9]{1,3}(?:,[0-9]{3}){1,4}\.[0-9]{1,30})(?:e[-+]?[0-9]{1,2})?)"
    r"\s*(?:USD|US\$|\$)?",
    re.IGNORECASE,
)


@exactly
def as_amount(value: Any) -> Any:
    """A number or an amount of USD from JSON, or its text; `None` if it is none, or absurd.

    A float never comes in, the transport reads decimals.
    """
    if isinstance(value, str):
        text = _AMOUNT.fullmatch(value.strip())
        value = Decimal(text[1].replace(",", "")) if text else None
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    amount = Decimal(str(value))
    if is_absurd(amount):
        return None
    rounded = amount.quantize(FINEST)
    return amount if rounded == amount else rounded.normalize() + 0  # 0.30000000000000004 is 0.3


def as_price(value: Any) -> Any:
    """A price in USD from JSON, zero or more; `None` if it is none."""
    amount = as_amount(value)
    return None if amount is None or amount < 0 else amount


def is_usd(currency: Any) -> bool:
    """Whether an amount is in USD, by the currency that stands beside it; where none does, it is."""
    return currency in (None, "") or str(currency).strip().upper() in ("USD", "US$", "$")


def _as_text(value: Any) -> Any:
    text = _as_listed_name(value)
    return None if text is None else text.strip()


def _as_listed_name(value: Any) -> Any:
    """A text as it is, with the spaces around it: the service is asked for what it lists by the same name."""
    if value is None or isinstance(value, (bool, dict, list)):
        return None
    # A text cut inside an emoji holds half of one, and no database takes that, nor a NUL.
    text = str(as_whole(value)).replace("\0", "").encode("utf-8", "replace").decode()
    return text if text.strip() else None


def as_whole(value: Any) -> Any:
    """A whole number that was written with a fraction or an exponent, as an `int`; others as they are."""
    is_small = isinstance(value, Decimal) and value.is_finite() and value.adjusted() < 2 * MOST_DIGITS
    return int(value) if is_small and value == value.to_integral_value() else value


def _as_id(value: Any) -> int | str:
    """An id of the catalogue: a whole number or a text."""
    value = as_whole(value)
    text = "" if isinstance(value, bool) or not isinstance(value, (int, str)) else str(value).strip()
    if not text or len(text) > LONGEST_ID:
        raise ValueError("is no id")
    return value if isinstance(value, int) else text


# Not one whose words deny the refund that a cancelled order gets.
_CANCELLED: Final = re.compile(r"cancell?ed(?!.*(?:no|not|non|without)refund)")


def known_status(value: Any) -> str | None:
    """The word that we know for a status, as the documentation writes it; `None` for any other status.

    It may be written in capitals or as several words. A cancelled order may say by whom, or that it was
    refunded.
    """
    word = re.sub(r"[\W_]+", "", value[:LONGEST_STATUS].lower()) if isinstance(value, str) else ""
    if word in KNOWN_STATUSES:
        return word
    if word == "timedout":
        return "timeout"
    return "cancelled" if _CANCELLED.match(word) else None


def _as_status(value: Any) -> str:
    """A status, however odd: in the word that we know for it, otherwise as it is."""
    word: str = (_as_text(value) or UNKNOWN_STATUS)[:LONGEST_STATUS]
    return known_status(word) or word


def _as_phone(value: Any) -> Any:
    """A phone number as it is written; `None` for what is none, such as "pending", or hides digits."""
    text = _as_text(value)
    return text if is_whole_phone(text) else None


def _as_order_id(value: Any) -> int:
    order_id = order_id_of(as_whole(value))
    if order_id is None:
        raise ValueError("is no order's id")
    return order_id


def _as_seconds(value: Any) -> Any:
    amount = as_amount(value)
    return None if amount is None else float(amount)


def _as_whole_number(value: Any) -> Any:
    amount = as_price(value)
    return None if amount is None else int(amount)


Price = Annotated[Decimal | None, BeforeValidator(as_price)]
Text = Annotated[str | None, BeforeValidator(_as_text)]
Phone = Annotated[str | None, BeforeValidator(_as_phone)]
When = Annotated[datetime | None, BeforeValidator(as_datetime)]
Name = Annotated[str, BeforeValidator(_as_listed_name), Field(max_length=LONGEST_NAME)]
Id = Annotated[int | str, BeforeValidator(_as_id)]
OrderId = Annotated[int, BeforeValidator(_as_order_id)]
Status = Annotated[str, BeforeValidator(_as_status)]
WholeNumber = Annotated[int | None, BeforeValidator(_as_whole_number)]
Seconds = Annotated[float | None, BeforeValidator(_as_seconds)]


class _Answer(BaseModel):
    """An answer of the service: fields that are not known are kept in `model_extra`."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _as_documented(cls, values: Any) -> Any:
        """The values without a second one for a field that the documentation calls otherwise. It would be
        kept in `model_extra` under the field's own name, and take the field's place in JSON."""
        if not isinstance(values, Mapping):
            return values
        given_twice = {name for name, field in cls.model_fields.items() if field.alias in values}
        return {name: value for name, value in values.items() if name not in given_twice}

    def as_dict(self) -> dict[str, Any]:
        """The documented fields, ready for JSON; an eSIM's activation code, a secret, is left out."""
        documented = set(type(self).model_fields) - {"activation_code"}
        return self.model_dump(mode="json", include=documented)

    def __repr_args__(self) -> Any:
        # What the service adds without documentation could be anything, a code included.
        return [(name, value) for name, value in super().__repr_args__() if name in type(self).model_fields]


class _OfAnOrder(_Answer):
    order_id: OrderId
    phone: Phone = None

    @property
    def phone_digits(self) -> str | None:
        """The phone number's digits, country code first."""
        return phone_digits(self.phone)

    @property
    def phone_e164(self) -> str | None:
        """The phone number in the form +14155550123."""
        return f"+{self.phone_digits}" if self.phone_digits else None


class _MayBeEsim(_OfAnOrder):
    """An answer that may be about an eSIM. Its activation code stays in this process: neither JSON nor a
    pickle has it, in which Prefect keeps parameters and results.
    """

    activation_code: Text = Field(default=None, repr=False, exclude=True)

    @model_serializer(mode="wrap")
    def _without_secrets(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = serialize(self)
        if self.activation_code is None:
            return written
        # Any other field of an eSIM's answer may hold the code in another form.
        return {name: value for name, value in written.items() if name in type(self).model_fields}

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        if self.activation_code is not None:
            state["__dict__"] = {**state["__dict__"], "activation_code": None}
            state["__pydantic_extra__"] = {}
        return state


class Balance(_Answer):
    """The wallet: `amount` in `currency` (USD)."""

    amount: Annotated[Decimal, BeforeValidator(as_amount)] = Field(alias="balance")
    currency: Annotated[str, BeforeValidator(lambda value: _as_text(value) or "USD")] = "USD"


class Country(_Answer):
    """A country outside the USA with at least one service in stock."""

    country_id: Id
    name: Name = Field(alias="country_name")


class Service(_Answer):
    """One line of a catalogue: what can be ordered, and its price.

    Attributes:
        product: the catalogue that it stands in.
        service_id: the id to order by; `None` in the `rental` catalogue, which goes by name.
        name: the service's name; the plan's, for `esim`.
        price: USD; `None` for a rental, which has one price for each duration.
        prices: USD by duration in days, for a rental.
        highest_price, highest_prices: the same, the larger one if the service states two that differ.
        country_id, country_name: for `global`.
    """

    product: Product
    service_id: Id | None = None
    name: Name
    price: Price = None
    prices: dict[int, Decimal] = Field(default_factory=dict)
    highest_price: Price = None
    highest_prices: dict[int, Decimal] = Field(default_factory=dict)
    country_id: Id | None = None
    country_name: Text = None

    def price_of(self, duration: int | None) -> Decimal | None:
        """The price in USD, for `duration` days if that matters; `None` if it is unknown."""
        return self.price if duration is None else self.prices.get(duration)

    def highest_price_of(self, duration: int | None) -> Decimal | None:
        """The price in USD that a limit has to be checked against; `None` if it is unknown."""
        return self.highest_price if duration is None else self.highest_prices.get(duration)


class EsimPlan(_Answer):
    """An eSIM data plan; `name` is what it is ordered by, `price` is in USD."""

    name: Name
    data_gb: Price = None
    validity_days: WholeNumber = None
    price: Price = None
    highest_price: Price = None


class Order(_MayBeEsim):
    """A number (or eSIM) that was bought.

    Attributes:
        order_id: the id that the service gave it.
        product: the API's word; `None` in the list of orders, which does not say.
        service: the service's name; the plan's for an eSIM.
        country: the country's name, for `global`.
        phone: the number as the service writes it; `phone_digits` and `phone_e164` give it bare. `None` for
            an eSIM.
        price: USD that it cost, by the answer, otherwise by the catalogue.
        status: the service's own word; one that we know, in its usual spelling.
        duration: days, for `rental`.
        created_at, expires_at: UTC, `None` if the service does not say.
        expires_estimated: whether `expires_at` is reckoned rather than answered.
        activation_code: of an eSIM; a secret. It stays in this process: neither JSON nor a pickle has it, in
            which Prefect keeps parameters and results. `SmsVerifyHook.get_order` reads it again.
        key: the purchase's key.
    """

    product: Product | None = None
    service: Text = None
    country: Text = None
    price: Price = None
    status: Status = "pending"
    created_at: When = None
    duration: int | None = None
    expires_at: When = Field(default=None, alias="expiry_date")
    expires_estimated: bool = False
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
        price: USD that renewing it once costs now; `None` if it is not known.
        expires_at: UTC; `None` if the service does not say.
        expires_estimated: whether `expires_at` is reckoned from an earlier end rather than answered.
        time_left_seconds: seconds until then.
        renewals: how often it was renewed through this store.
        note: further information for people.
    """

    product: Product | None = None
    service: Text = None
    status: Status = "pending"
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
        otp: the code, as the service gives it or as read from the text; `None` if there is none.
        message: the text.
        sender: who sent it, known from a callback only.
        phone: the number that it was sent to.
        received_at: UTC, when we learnt of it.
    """

    otp: Text = Field(default=None, repr=False)
    message: Text = Field(default=None, repr=False)
    sender: Text = None
    received_at: When = None


class OrderStatus(Message, _MayBeEsim):
    """The status of an order, with the SMS if one has come.

    Attributes:
        status: the service's own word.
        time_left_seconds: seconds until a rental ends, `None` if the service does not say; if it shows
            a date alone, reckoned from that.
        expires_at: UTC; from the answer, or reckoned from the time left.
        activation_code: of an eSIM, where the status shows it; a secret, as in `Order`.
    """

    status: Status
    time_left_seconds: Seconds = None
    days_left: Annotated[Decimal | None, BeforeValidator(as_amount)] = None
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
    """Whether a status, as these models have it, says that an order was cancelled."""
    return status in CANCELLED


def has_ended(status: str) -> bool:
    """Whether a status, as these models have it, is one after which nothing comes; an unknown one is not."""
    return status in ENDED


def gets_no_more(status: str, product: str | None) -> bool:
    """Whether an order gets no SMS any more. A code completes a rental too, which gets more until its end."""
    is_completed_rental = status == "completed" and product in RENTALS
    return has_ended(status) and not is_completed_rental


def may_get_several(product: str | None) -> bool:
    """Whether an order may get several SMS. One whose product is unknown may be a rental."""
    return product is None or product in RENTALS


def with_leading_zeros(otp: int, message: str | None) -> str:
    """A code that came as a number has lost its leading zeros: the text still has them."""
    joined = re.sub(r"(?<=\d)[ -](?=\d)", "", message or "")
    for text in (joined, message or ""):
        for digits in re.findall(r"(?<!\d)\d{1,30}(?!\d)", text):
            if int(digits) == otp:
                return str(digits)
    return str(otp)


def period_of(order: Order, renewals: int, *, time_scale: float) -> timedelta | None:
    """For how long one renewal extends a `rental`; `None` if it is not known.

    That is its duration. Where the service's minute is short, its days may be short too: then the first
    expiry shows how long they are.

    Args:
        order: the rental.
        renewals: how often it has been renewed until `expires_at`.
        time_scale: how long the service's minute is in real minutes.
    """
    if order.duration is None:
        return None
    named = timedelta(days=order.duration)
    if time_scale >= 1 or order.expires_at is None or order.created_at is None:
        return named
    shown = (order.expires_at - order.created_at) / (renewals + 1)
    # What is nearer may be rounded, to midnight perhaps, and would add up.
    return shown if timedelta() < shown < named / 2 else named


def seconds_left(status: OrderStatus) -> float | None:
    """For how many more seconds a rental lasts, as its status says; `None` if it does not.

    No time left of a pending one means that its time has not begun.
    """
    left = status.time_left_seconds
    if left is None and status.days_left is not None:
        left = float(status.days_left) * DAY
    return None if left is not None and left <= 0 and status.status == "pending" else left


def reckon_expiry(status: OrderStatus, now: datetime) -> datetime | None:
    """When an order ends: the date if it is given, otherwise now and the time left."""
    if status.expires_at is not None:
        return status.expires_at
    left = seconds_left(status)
    try:
        return None if left is None else now + timedelta(seconds=left)
    except OverflowError:
        return None
