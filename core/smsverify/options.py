"""Options that several methods and tasks take, each said once."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, TypedDict

from smsverify.models import Message

OrderIds = Iterable[int | str] | int | str


class NumberOptions(TypedDict, total=False):
    """What the purchase of a number may be given beside its product.

    Attributes:
        service: id or name from the product's list; not for `esim`. A number is an id; a text that is the id
            of one service and the name of another is refused.
        country: id, name or ISO code, for `global`, likewise.
        area_code: three digits of the USA, for `temporary`.
        duration: 3 or 30 days, for `rental`.
        max_price: most that may be paid, in USD. Nothing is sent if the price is higher or unknown. The
            price is checked again when the call leaves: a list older than 20 s is read anew.
        run_budget: most that may be spent, in USD, by the run that this call is a part of: a Dag run, a flow
            run with its subflows, otherwise this program. This purchase is included; refunds are taken off
            when the service's list shows them. The stricter of this and the setting of that name holds, and
            the setting `daily_budget` besides.
        key: names this purchase. Called again with the same key, the order that it has bought is handed out,
            unless that has ended. Default: derived from the task that runs, otherwise random.
        stop: when it is set, the waiting ends, and what was not sent yet is not sent.
    """

    service: int | str | None
    country: int | str | None
    area_code: str | int | None
    duration: int | None
    max_price: Decimal | float | str | None
    run_budget: Decimal | float | str | None
    key: int | str | None
    stop: threading.Event | None


class PurchaseOptions(NumberOptions, total=False):
    """What any purchase may be given: `NumberOptions`, and for an eSIM its plan.

    Attributes:
        plan: the plan's name, for `esim`.
    """

    plan: str | None


class AttemptOptions(NumberOptions, total=False):
    """What the purchases of several attempts may be given: `NumberOptions`, and besides:

    Attributes:
        alternatives: what is bought instead if a number is not available, or too expensive: each a dict of
            `product`, `service`, `country`, `area_code`, `duration`, tried in their order. What one leaves
            out is as in the call; an option that its product does not have is left out too. `"best"` is for
            `temporary` and `best-temp`: both are tried, and with an `area_code` also without it, in the order
            in which their numbers have delivered in the last 30 days (`SmsVerifyHook.delivery`).
        max_cost: most that all attempts may cost together, in USD, without what is refunded.
    """

    alternatives: Sequence[Mapping[str, Any]] | Literal["best"] | None
    max_cost: Decimal | float | str | None


class RenewalOptions(TypedDict, total=False):
    """What the renewal of a rental may be given.

    Attributes:
        max_price: most that may be paid, in USD. Nothing is sent if the price is higher or unknown, as it
            is for an order that was not bought through this store.
        run_budget: most that this run may spend, in USD, as for a purchase.
        key: names this renewal. Default: derived from the task that runs, otherwise the order and the count
            of its renewals.
        stop: when it is set, the waiting ends, and what was not sent yet is not sent.
    """

    max_price: Decimal | float | str | None
    run_budget: Decimal | float | str | None
    key: int | str | None
    stop: threading.Event | None


class KeepOptions(TypedDict, total=False):
    """Which rentals are renewed when they end soon, and what that may cost.

    Attributes:
        max_price: most that one renewal may cost, in USD. A rental whose price is higher or unknown is not
            renewed.
        run_budget: most that this run may spend, in USD, as for a purchase.
        order_ids: rentals besides those that were bought through this store: one id, or several. Their price
            is not known.
        only: renews none but these, which may have been rented elsewhere.
        exclude: leaves these alone.
        dry_run: reports what would be done, and pays nothing.
        stop: ends it between two renewals when it is set.
    """

    max_price: Decimal | float | str | None
    run_budget: Decimal | float | str | None
    order_ids: OrderIds
    only: OrderIds | None
    exclude: OrderIds
    dry_run: bool
    stop: threading.Event | None


class MessageOptions(TypedDict, total=False):
    """Which SMS of an order is wanted; by default the newest.

    Attributes:
        after: only an SMS that comes later than this one (a `Message`), or than a time: an aware datetime, or
            that in ISO 8601, such as a message's `received_at`. Without it, a rental that has had an SMS
            before gives that one again.
        sender: only an SMS from this sender: a name, whatever its capitals, or a number, however it is
            written. Only callbacks name the sender: a message that is known from the order's status alone
            never passes.
        pattern: only an SMS whose text this regular expression finds something in: its first group, otherwise
            the whole match, is the code. It is searched in the text without invisible marks and with ASCII
            digits; in the code, if the service shows no text.
    """

    after: Message | datetime | str | None
    sender: str | None
    pattern: str | re.Pattern[str] | None


class WaitOptions(MessageOptions, total=False):
    """How a wait for an SMS ends, and which SMS is wanted (`MessageOptions`).

    Attributes:
        cancel_on_timeout: whether an order that has not ended at the time-out is cancelled for a refund,
            by default it is. An order for which any SMS has come is not cancelled, even if that was not
            the wanted one: nothing comes back.
        stop: ends the wait when it is set.
        waiter: names who waits, for `release`; random by default.
    """

    cancel_on_timeout: bool
    stop: threading.Event | None
    waiter: str | None
