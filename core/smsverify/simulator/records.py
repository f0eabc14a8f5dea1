"""What the simulator shows of itself: orders, wallet movements, requests, callbacks, counts.

Every record travels as JSON (amounts as strings, times as ISO 8601) and comes back equal, so that the control
API answers exactly what the in-process object answers.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar, get_args, get_type_hints

R = TypeVar("R", bound="Record")


class SimulatorError(ValueError):
    """A setting, fault or verb that the simulator cannot make sense of; the text names the field."""


@dataclass
class Record:
    """Base of the records: conversion from and to JSON."""

    def to_json(self) -> dict[str, Any]:
        """The record's fields as JSON values."""
        return {item.name: _plain(getattr(self, item.name)) for item in dataclasses.fields(self)}

    @classmethod
    def from_json(cls: type[R], values: dict[str, Any]) -> R:
        """The record that `to_json` made `values` of."""
        hints = get_type_hints(cls)
        return cls(**{name: _typed(hints[name], value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return value


def _typed(hint: Any, value: Any) -> Any:
    kinds = {hint, *get_args(hint)}
    if value is None:
        return None
    if Decimal in kinds:
        return Decimal(value)
    if datetime in kinds:
        return datetime.fromisoformat(value)
    return value


@dataclass
class SimulatedOrder(Record):
    """An order as the simulator knows it, which is more than the service would show.

    Attributes:
        order_id: The number that the service answered.
        product: The API's word: temporary, best-temp, rental, rent-1day, rent-30days, global or esim.
        service: The service's (or plan's) name as its catalogue writes it.
        service_id: Its id as text, or None for the products that are bought by name.
        label: Its name as `orders/` writes it, e.g. "WhatsApp (UK)".
        country_id: Of a global order; None for others.
        duration: Of a rental: 3 or 30 (days); None for others.
        area_code: The area code that the purchase asked for, if any.
        phone: As the service formats it; None for an eSIM.
        status: The order's status now.
        price: What one purchase or renewal cost when the order was bought.
        paid: All debits of this order, renewals included.
        refunded: All refunds of this order.
        created_at: When it was bought, real time.
        expires_at: When its validity ends, real time.
        renewals: How many times it was renewed.
        otp: The newest SMS's code as the service parsed it, or None.
        message: The newest SMS's text, or None.
        sender: The newest SMS's sender, or None.
        sms_at: When that SMS arrived, or None.
        sms_count: How many SMS arrived.
        activation_code: Of an eSIM.
        status_requests: How often its status was asked for.
    """

    order_id: int
    product: str
    service: str
    service_id: str | None
    label: str
    country_id: int | None
    duration: int | None
    area_code: str | None
    phone: str | None
    status: str
    price: Decimal
    paid: Decimal
    created_at: datetime
    expires_at: datetime
    refunded: Decimal = Decimal(0)
    renewals: int = 0
    otp: str | None = field(default=None, repr=False)
    message: str | None = field(default=None, repr=False)
    sender: str | None = None
    sms_at: datetime | None = None
    sms_count: int = 0
    activation_code: str | None = field(default=None, repr=False)
    status_requests: int = 0


@dataclass
class Movement(Record):
    """One line of the wallet's ledger: `balance` is the sum of all `amount` up to and including this one.

    Attributes:
        kind: "start", "order", "renewal", "refund", "deposit" or "adjustment" (a balance set by a test).
        amount: USD, negative for a debit.
        balance: The wallet after it.
        order_id: The order concerned, if any.
        at: When, real time.
    """

    kind: str
    amount: Decimal
    balance: Decimal
    order_id: int | None
    at: datetime


@dataclass
class RequestRecord(Record):
    """One request to the service, in order of arrival (the control API's own are not recorded).

    Attributes:
        method: "GET", "POST", …
        path: The path as asked, without the query.
        query: The query string.
        body: The decoded JSON body of a POST, or None.
        status: The status answered; None while it is being answered or when no answer was sent.
        refused: Whether the limiter refused it with 429.
        fault: The kind of the fault that it met, or None.
        at: When it arrived, seconds since the epoch.
    """

    method: str
    path: str
    query: str
    body: Any = field(repr=False)
    status: int | None
    refused: bool
    fault: str | None
    at: float


@dataclass
class CallbackRecord(Record):
    """One attempt to post a callback.

    Attributes:
        event: "incoming_message" or "wallet_deposit".
        order_id: The order concerned, if any.
        attempt: 1 for the first try of this delivery.
        copy: 0 for the delivery itself, 1… for the duplicates that `callback_duplicates` asks for.
        status: The status answered, or None when there was no answer.
        error: Why there was none, e.g. "timed out".
        delivered: Whether the answer was a 2xx.
        at: When the attempt ended, real time.
    """

    event: str
    order_id: int | None
    attempt: int
    copy: int
    status: int | None
    error: str | None
    delivered: bool
    at: datetime


@dataclass
class Stats(Record):
    """Counts since the start or the last reset.

    Attributes:
        requests: All requests to the service, refused ones included.
        refused: Those that the limiter answered with 429 (injected 429s are not among them).
        max_in_window: The highest number of requests, refused ones included, that arrived with one key in any
            window of the limiter's period.
        by_endpoint: Requests per endpoint, e.g. ``{"GET orders/": 3, "GET order/{id}/status/": 8}``.
        faults: How often each kind of fault was met.
        orders: Orders bought.
        callbacks: Callback attempts.
    """

    requests: int = 0
    refused: int = 0
    max_in_window: int = 0
    by_endpoint: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    orders: int = 0
    callbacks: int = 0
