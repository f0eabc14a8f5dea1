"""The settings of a simulator: from keyword arguments, a JSON file or the control API."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any, Literal
from urllib.parse import urlsplit

from smsverify.simulator.catalogue import PRODUCTS, Catalogue
from smsverify.simulator.lives import (
    DAY,
    Delay,
    ProductSettings,
    ServiceSettings,
    default_products,
    default_services,
    merged,
    parse_amount,
    parse_delay,
    positive,
    whole,
)
from smsverify.simulator.records import SimulatorError

LIST_DEFECTS = (
    *("no_phone", "no_service", "no_price", "no_created_at"),
    *("other_name", "rounded", "other_time", "unreadable"),
)


@dataclass(frozen=True)
class Settings:
    """Everything that can be set about a simulator.

    All durations are seconds of the *service's* time and are divided by `speed`: with ``speed=60`` a minute
    lasts one second. In real seconds are what meets the time-outs and clocks of real clients and servers:
    `callback_timeout`, `keep_alive`, `clock_skew` and the pauses of the slow faults. Every time that the
    simulator answers is real time.

    Attributes:
        api_key: The only key that is accepted.
        balance: The wallet at the start, USD.
        speed: By what every duration is divided.
        first_order_id: Of the first order; each further one counts up.
        seed: Of the random delays, codes and fault probabilities; None for a different run every time.
        rate_limit: Requests that any window of `rate_period` may see with one key; None switches the limiter
            off.
        rate_period: The window's length.
        count_refused: Whether refused requests fill the window too.
        retry_after: How a refusal says when to come back: "seconds" (rounded up), "http-date", or "none".
        sms_delay: From purchase to SMS: seconds, a (low, high) range, or "never".
        otp_while_waiting: What `otp` and `message` are before an SMS: "null", "empty" (``""``) or "absent".
        otp_as_integer: Answer `otp` as a JSON integer, which loses leading zeros.
        list_shows_completion: Whether `orders/` shows that an SMS arrived before the order's status was asked
            for.
        list_defects: What is wrong with the rows of `orders/`, any of: "no_phone", "no_service", "no_price",
            "no_created_at" (the field is null), "other_name" (the service goes by another name), "rounded"
            (prices are whole dollars), "other_time" (`created_at` is an hour early), "unreadable" (the newest
            row has no order_id).
        list_length: How many orders `orders/` lists at the most, the newest ones.
        list_lag: How long after its purchase an order is missing from `orders/`.
        status_lag: How long after its purchase an order's status, cancel and renew answer 404.
        time_left_fields: Which of `time_left_seconds` and `days_left` the status of `rent-1day` and
            `rent-30days` orders has.
        cancel_active: Cancelling an `active` rental: "refuse" (400), "refund" (all that was paid comes back,
            unless an SMS has arrived: then 400), or "no-refund". An `active` eSIM is always refused.
        renew_completed: Whether a rental that a code has completed can be renewed, and stays completed.
        clock_skew: Seconds by which the service's clock is ahead of ours in `Date`, `created_at` and
            `expiry_date`.
        keep_alive: Real seconds that an idle connection is kept open.
        callback_url: Where incoming SMS are posted; None for nowhere.
        wallet_callback_url: Where deposits are posted; None for nowhere. The service does not document this
            payload.
        callback_delay: From the SMS's arrival to the first post: seconds or a (low, high) range.
        callback_duplicates: How many identical posts follow each one.
        callback_before_answer: The SMS arrives with the purchase, and its callback is posted before the
            purchase is answered.
        callback_timeout: Real seconds that the callback's receiver has.
        callback_backoff: From a failed post to the first retry; doubles with every retry.
        callback_give_up: No retry begins later than this after the first post.
        products: Per product: see `ProductSettings`. Given partly, the rest keeps its default.
        services: Per service, by lower-case name or by id: see `ServiceSettings`.
        catalogue: What is for sale, at which price, and how many of it.
    """

    api_key: str = "sim-key"
    balance: Decimal = Decimal("50.00")
    speed: float = 1.0
    first_order_id: int = 458731
    seed: int | None = 0
    rate_limit: int | None = 60
    rate_period: float = 60.0
    count_refused: bool = False
    retry_after: Literal["seconds", "http-date", "none"] = "seconds"
    sms_delay: Delay = (5.0, 20.0)
    otp_while_waiting: Literal["null", "empty", "absent"] = "null"
    otp_as_integer: bool = False
    list_shows_completion: bool = True
    list_defects: tuple[str, ...] = ()
    list_length: int = 50
    list_lag: float = 0.0
    status_lag: float = 0.0
    time_left_fields: tuple[str, ...] = ("time_left_seconds", "days_left")
    cancel_active: Literal["refuse", "refund", "no-refund"] = "refuse"
    renew_completed: bool = False
    clock_skew: float = 0.0
    keep_alive: float = 75.0
    callback_url: str | None = None
    wallet_callback_url: str | None = None
    callback_delay: Delay = 0.0
    callback_duplicates: int = 0
    callback_before_answer: bool = False
    callback_timeout: float = 5.0
    callback_backoff: float = 10.0
    callback_give_up: float = DAY
    products: Mapping[str, ProductSettings] = field(default_factory=default_products)
    services: Mapping[str, ServiceSettings] = field(default_factory=default_services)
    catalogue: Catalogue = field(default_factory=Catalogue)

    def __post_init__(self) -> None:
        set_field = partial(object.__setattr__, self)
        set_field("balance", parse_amount(self.balance, "balance"))
        set_field("sms_delay", parse_delay(self.sms_delay, "sms_delay"))
        set_field("callback_delay", parse_delay(self.callback_delay, "callback_delay"))
        set_field("time_left_fields", tuple(self.time_left_fields))
        set_field("list_defects", tuple(self.list_defects))
        if not isinstance(self.catalogue, Catalogue):
            set_field("catalogue", Catalogue.from_json(self.catalogue))
        set_field("products", merged(ProductSettings, "products", default_products(), self.products))
        set_field("services", merged(ServiceSettings, "services", default_services(), self.services))
        self._check()

    def _check(self) -> None:
        for name in _POSITIVE:
            positive(name, getattr(self, name))
        for name, (kind, least) in _AT_LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or value < least:
                raise SimulatorError(f"{name}: a number, not below {least}, not {value!r}")
        for name, words in _WORDS.items():
            value = getattr(self, name)
            if value not in words:
                raise SimulatorError(f"{name}: one of {', '.join(map(str, words))}, not {value!r}")
        if unknown := ", ".join(sorted(set(self.list_defects) - set(LIST_DEFECTS))):
            raise SimulatorError(f"list_defects: unknown {unknown}; known: {', '.join(LIST_DEFECTS)}")
        whole("list_length", self.list_length)
        if self.rate_limit is not None:
            whole("rate_limit", self.rate_limit)
        if not (isinstance(self.api_key, str) and re.fullmatch(r"[!-~]+", self.api_key)):
            raise SimulatorError("api_key: printable ASCII characters without spaces")
        for name in ("callback_url", "wallet_callback_url"):
            url = getattr(self, name)
            if url and not (urlsplit(url).scheme in ("http", "https") and urlsplit(url).hostname):
                # The URL is not shown: it may hold a secret.
                raise SimulatorError(f"{name}: an http:// or https:// URL")
        if unknown := ", ".join(sorted(set(self.products) - set(PRODUCTS))):
            raise SimulatorError(f"products: unknown {unknown}; known: {', '.join(PRODUCTS)}")
        strange = set(self.services) - set(default_services()) - self.catalogue.known_services()
        if strange:
            raise SimulatorError(f"services: not in the catalogue: {', '.join(sorted(strange))}")

    def changed(self, changes: Mapping[str, Any]) -> Settings:
        """These settings with `changes`; `products` and `services` are merged, entry by entry."""
        known = {item.name for item in dataclasses.fields(self)}
        if unknown := ", ".join(sorted(set(changes) - known)):
            raise SimulatorError(f"unknown setting: {unknown}; known: {', '.join(sorted(known))}")
        values = dict(changes)
        for name, kind in (("products", ProductSettings), ("services", ServiceSettings)):
            if name in values:
                values[name] = merged(kind, name, getattr(self, name), values[name])
        return dataclasses.replace(self, **values)

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON; `Settings.from_json` makes equal ones of it."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        values["balance"] = str(self.balance)
        values["catalogue"] = self.catalogue.to_json()
        for name in ("products", "services"):
            values[name] = {key: dataclasses.asdict(entry) for key, entry in values[name].items()}
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Settings:
        """Settings from a JSON object; what it does not name keeps its default."""
        if not isinstance(values, Mapping):
            raise SimulatorError(f"settings: a JSON object, not {values!r}")
        return cls().changed(values)

    def real(self, seconds: float) -> float:
        """Real seconds for `seconds` of the service's time."""
        return seconds / self.speed

    def service(self, service_id: str | None, name: str) -> ServiceSettings:
        """The settings of a service, by its id, or by its name if the id has none."""
        by_id = self.services.get(service_id) if service_id else None
        return by_id or self.services.get(name.lower()) or ServiceSettings()

    def sms_delay_for(self, product: str, service_id: str | None, name: str) -> Delay:
        """An order's delay: that of its service, otherwise of its product, otherwise the general one."""
        for own in (self.service(service_id, name).sms_delay, self.products[product].sms_delay):
            if own is not None:
                return own
        return self.sms_delay


_POSITIVE = ("speed", "rate_period", "keep_alive", "callback_timeout", "callback_backoff", "callback_give_up")
_AT_LEAST: dict[str, tuple[Any, float]] = {
    "list_lag": ((int, float), 0),
    "status_lag": ((int, float), 0),
    "clock_skew": ((int, float), -math.inf),
    "callback_duplicates": (int, 0),
}
_FLAG = (True, False)
_WORDS: dict[str, tuple[object, ...]] = {
    "retry_after": ("seconds", "http-date", "none"),
    "otp_while_waiting": ("null", "empty", "absent"),
    "cancel_active": ("refuse", "refund", "no-refund"),
    "count_refused": _FLAG,
    "otp_as_integer": _FLAG,
    "list_shows_completion": _FLAG,
    "renew_completed": _FLAG,
    "callback_before_answer": _FLAG,
}
