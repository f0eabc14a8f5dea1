"""What `SmsVerifyHook.overview` returns: an account as its records show it.

Airflow's page, `smsverify overview`, `smsverify top` and Prefect's artifact all show this one model. It holds
no code, no text of an SMS and no other secret. `smsverify.overview_tables` has its words for people.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from smsverify._runtime.tasks import Task

SHOWN = 50  # rows of a section; the rest is counted
DELIVERY_DAYS = 30  # that the figures of delivery are about, and how many numbers of these, the newest
DELIVERY_NUMBERS = 300

T = TypeVar("T")

NeedKind = Literal[
    "purchase_unknown",
    "renewal_unknown",
    "rental_not_kept",
    "not_given_back",
    "not_used",
    "refund_missing",
    "overcharged",
    "bought_elsewhere",
]
OrderState = Literal[
    "under_way", "unknown", "waiting", "code_arrived", "refunded", "cancelled", "ended", "bought"
]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True)


class Section(_Row, Generic[T]):
    """Rows of one kind.

    Attributes:
        rows: 50 at the most, those first that matter first.
        more: how many there are besides.
    """

    rows: list[T]
    more: int = 0

    @property
    def count(self) -> int:
        """How many there are in all."""
        return len(self.rows) + self.more


class Need(_Row):
    """Something that a person should do.

    Attributes:
        kind: what it is.
        text: what is known of it, for people.
        order_id: the order that it is about; `None` if that is the question.
        key: of the purchase; `None` where it was not bought through this store.
        task: has made the purchase, or should have kept the rental; `None` if that is unknown.
        command: resolves it, for the command line; `None` if no command does.
    """

    kind: NeedKind
    text: str
    order_id: int | None = None
    key: str | None = None
    task: Task | None = None
    command: str | None = None


class WalletSeen(_Row):
    """The wallet as it was last read.

    Attributes:
        amount: USD.
        seen_at: UTC.
        renewals: USD that renewing once the rentals that end in the next 24 hours costs, as far as prices are
            known.
    """

    amount: Decimal
    seen_at: datetime
    renewals: Decimal


class WorkflowSpend(_Row):
    """What one Dag or flow has spent today.

    Attributes:
        workflow: its name; `None` for programs of their own.
        amount: USD, refunds taken off.
    """

    workflow: str | None
    amount: Decimal


class Spend(_Row):
    """What was spent since midnight (UTC).

    Attributes:
        amount: USD, refunds taken off.
        refunded: USD of today's purchases that came back.
        unpriced: how many calls have no known price.
        budget: USD that may be spent in a day; `None` for any amount.
        resets_at: UTC, the next midnight.
        workflows: the same by Dag or flow, the largest first.
    """

    amount: Decimal
    refunded: Decimal
    unpriced: int
    budget: Decimal | None
    resets_at: datetime
    workflows: Section[WorkflowSpend]


class Requests(_Row):
    """The requests of the last period, of all who share the API key.

    Attributes:
        sent: how many.
        limit: how many may be.
        period: seconds.
        waiting: by purpose (`release`, `poll`, `read`, `purchase`), how many wait for their turn.
        refusals: how often the service has refused a request for its rate so far.
        blocked_until: UTC; nothing is sent before. `None` if requests may be sent.
    """

    sent: int
    limit: int
    period: float
    waiting: dict[str, int]
    refusals: int
    blocked_until: datetime | None


class WaitRow(_Row):
    """A wait for the code of an order.

    Attributes:
        order_id, phone, service: of the order.
        since, until: UTC, when the wait began and when it gives up.
        cancels: whether it cancels the order then.
        task: waits; `None` for a program of its own.
    """

    order_id: int
    phone: str | None
    service: str | None
    since: datetime
    until: datetime | None
    cancels: bool
    task: Task | None


class Waits(Section[WaitRow]):
    """The waits that go on, those first that give up first.

    Attributes:
        longest_since: UTC, since when the longest one waits.
        next_poll_at: UTC, when the service is asked for all of them; `None` if that is not planned.
    """

    longest_since: datetime | None = None
    next_poll_at: datetime | None = None


class Callbacks(_Row):
    """The callbacks that have come.

    Attributes:
        state: `off` without a secret, `none_yet`, `silent` if the newest SMS came without one, or
            `healthy`.
        last_at: UTC, when the last one came by the secret address; `None` if none has.
        last_secret: which of the settings' `callback_secrets` that one came by, counted from 1; `None` if
            none has come, or it is not among them any more.
        secrets: how many are valid at the moment.
        by_secret: how many came by the secret address in the last 24 hours.
        without_secret: how many came without; they are never believed.
        refused: how many the receivers have refused in the last 24 hours, by whole hours.
        refused_at: UTC, when the last one was refused; `None` if none was.
        refused_why: the reason of that, for people.
    """

    state: Literal["off", "none_yet", "silent", "healthy"]
    last_at: datetime | None
    last_secret: int | None
    secrets: int
    by_secret: int
    without_secret: int
    refused: int
    refused_at: datetime | None
    refused_why: str | None


class ReleaseRow(_Row):
    """An order that is to be given back.

    Attributes:
        order_id, phone, service: of the order.
        reason: why, for people.
        tries: how often it was tried.
        next_at: UTC, when it is tried next.
        planned: whether a call may still claim the order until then.
    """

    order_id: int
    phone: str | None
    service: str | None
    reason: str
    tries: int
    next_at: datetime
    planned: bool


class RentalRow(_Row):
    """A rental that goes on.

    Attributes:
        order_id, phone, service, product: of the order.
        duration: days, for `rental`.
        expires_at: UTC; `None` if the service does not say.
        expires_estimated: whether that is calculated.
        renewals: how often it was renewed through this store.
        price: USD that renewing it once cost when that was last looked at; `None` if it is unknown.
        last_sms_at: UTC; `None` if none has come.
        outcome: what the newest run of `renew_expiring` has done for it, in the words of
            `smsverify.KeptRental`; `None` if none has.
        reason: the same for people.
        kept_by: the task that has run it, otherwise the one that has renewed it last.
    """

    order_id: int
    phone: str | None
    service: str | None
    product: str
    duration: int | None
    expires_at: datetime | None
    expires_estimated: bool
    renewals: int
    price: Decimal | None
    last_sms_at: datetime | None
    outcome: str | None
    reason: str | None
    kept_by: Task | None


class OrderRow(_Row):
    """A purchase of the last 24 hours.

    Attributes:
        order_id: `None` if it is not known what was bought.
        phone, service: of the order.
        price: USD that it cost or may have cost; `None` if that is unknown.
        state: what became of it.
        status: the service's own word; `None` if it is not known.
        bought_at: UTC.
        seconds_to_code: from the purchase to its first SMS; `None` if none has come.
        task: has bought it; `None` for a program of its own.
    """

    order_id: int | None
    phone: str | None
    service: str | None
    price: Decimal | None
    state: OrderState
    status: str | None
    bought_at: datetime
    seconds_to_code: float | None
    task: Task | None


class Orders(Section[OrderRow]):
    """The purchases of the last 24 hours, the newest first.

    Attributes:
        bought, codes, refunded, unknown: how many were bought, had an SMS, came back, and have an unknown
            outcome.
    """

    bought: int = 0
    codes: int = 0
    refunded: int = 0
    unknown: int = 0


class Delivery(_Row):
    """What the numbers of one kind have delivered.

    Attributes:
        product, service, service_id, country, country_id, area_code: what was bought, as the catalogue names
            it; `None` if it has none.
        bought: how many numbers.
        decided: those of them that have had an SMS, or have ended without one. A number that was given back
            before its SMS could come is one of them.
        codes: those that have had an SMS.
        rate: `codes` of `decided`; `None` if nothing is decided.
        rate_low, rate_high: the interval that holds the true rate with a certainty of 95 % (Wilson).
        p50_seconds, p95_seconds: in which half and 95 % of the codes had come, from the purchase on.
        cost: USD that all of them cost, without refunds.
        cost_per_code: USD; `None` if there was none.
        refunds: how many numbers were refunded.
    """

    product: str
    service: str
    service_id: str | None
    country: str | None
    country_id: str | None
    area_code: str | None
    bought: int
    decided: int
    codes: int
    rate: float | None
    rate_low: float
    rate_high: float
    p50_seconds: float | None
    p95_seconds: float | None
    cost: Decimal
    cost_per_code: Decimal | None
    refunds: int

    def as_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return self.model_dump(mode="json")


class DeliveryFigures(Section[Delivery]):
    """What the numbers have delivered, as `SmsVerifyHook.delivery` says it; the most bought come first.

    Attributes:
        days: how far back they were bought.
        numbers: how many of them count, the newest; 300 at the most.
    """

    days: int = DELIVERY_DAYS
    numbers: int = 0


class Overview(_Row):
    """An account as its records show it; the service was not asked.

    Attributes:
        at: UTC.
        account: its name, which shows nothing of the API key.
        store: where the records are, without a secret.
        schema_version: of the store.
        needs: what needs a person.
        wallet: as last read; `None` if it never was.
        spend: today.
        requests: of the last period.
        waits: for codes.
        callbacks: of the service.
        releases: orders that are to be given back.
        rentals: that go on, the one that ends soonest first.
        orders: of the last 24 hours.
        delivery: which numbers deliver.
    """

    at: datetime
    account: str
    store: str
    schema_version: int
    needs: Section[Need]
    wallet: WalletSeen | None
    spend: Spend
    requests: Requests
    waits: Waits
    callbacks: Callbacks
    releases: Section[ReleaseRow]
    rentals: Section[RentalRow]
    orders: Orders
    delivery: DeliveryFigures

    @property
    def is_empty(self) -> bool:
        """Whether all its sections are: no number goes on, and none was bought in the last 30 days."""
        sections = (self.needs, self.waits, self.releases, self.rentals, self.orders, self.delivery)
        return not any(section.count for section in sections)

    def as_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return self.model_dump(mode="json")
