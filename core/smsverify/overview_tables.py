"""An overview in words and tables, which the terminal and Prefect's artifact show as they stand.

Airflow's page has the same words in a form of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from smsverify._runtime.tasks import Task
from smsverify.overview import (
    DELIVERY_DAYS,
    Callbacks,
    Delivery,
    Need,
    OrderRow,
    Overview,
    ReleaseRow,
    RentalRow,
    Section,
    WaitRow,
)
from smsverify.text import amount

KINDS = {
    "purchase_unknown": "purchase unknown",
    "renewal_unknown": "renewal unknown",
    "rental_not_kept": "rental not kept",
    "not_given_back": "to give back",
    "not_used": "not used",
    "refund_missing": "refund missing",
    "overcharged": "overcharged",
    "bought_elsewhere": "bought elsewhere",
}
STATES = {
    "under_way": "under way",
    "unknown": "unknown",
    "waiting": "waiting",
    "code_arrived": "code arrived",
    "refunded": "cancelled, refunded",
    "cancelled": "cancelled",
    "ended": "ended",
    "bought": "bought",
}
CALLBACKS = {"off": "off", "none_yet": "none yet", "silent": "silent", "healthy": "healthy"}
DELIVERY = (
    "product",
    "service",
    "country",
    "area",
    "bought",
    "codes",
    "rate (95 % interval)",
    "p50",
    "p95",
    "USD per code",
    "refunds",
)
FIRST_STEPS = (
    f"No number was bought in the last {DELIVERY_DAYS} days. To begin:",
    "  smsverify simulate     to try it without paying: a simulator of the service, which prints the",
    "                         SMSVERIFY_BASE_URL and SMSVERIFY_API_KEY that lead to it",
    "  smsverify balance      to see whether your API key works",
    "  smsverify order temporary --service WhatsApp --max-price 0.50",
    "                         to buy a number",
    "  smsverify wait ID      to wait for the code of the order with this id",
)
SOON = timedelta(hours=6)
LAST_MOMENT = timedelta(minutes=1)


@dataclass(frozen=True)
class Fact:
    """A figure as text.

    Attributes:
        name: what it is.
        figure: without its limit.
        limit: `of` the most that it may be; empty if it has no limit.
        note: what there is to say besides; may be empty.
        used, most: figure and limit as numbers, for a meter; `most` is 0 if there is no limit.
        level: `bad`, `warn`, `ok` or an empty text.
    """

    name: str
    figure: str
    limit: str = ""
    note: str = ""
    used: float = 0
    most: float = 0
    level: str = ""

    @property
    def text(self) -> str:
        """The figure with its limit."""
        return f"{self.figure} {self.limit}".rstrip()


@dataclass(frozen=True)
class Table:
    """A section as text.

    Attributes:
        title: its name.
        note: what there is to say besides; may be empty.
        head: the columns' names.
        rows: the cells of each row.
        levels: of each row, `bad`, `warn`, `ok` or an empty text.
    """

    title: str
    note: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    levels: list[str]


# ------------------------------------------------------------------ figures


def facts(overview: Overview) -> list[Fact]:
    """The figures."""
    return [
        _wallet(overview),
        _spent(overview),
        _requests(overview),
        _waits(overview),
        Fact(
            "Callbacks",
            CALLBACKS[overview.callbacks.state],
            note=called(overview.callbacks, overview.at),
            level={"healthy": "ok", "silent": "warn"}.get(overview.callbacks.state, ""),
        ),
        _releases(overview),
    ]


def _wallet(overview: Overview) -> Fact:
    wallet = overview.wallet
    if wallet is None:
        return Fact("Wallet", "not read yet")
    return Fact(
        f"Wallet (seen {ago(wallet.seen_at, overview.at)})",
        f"{amount(wallet.amount)} USD",
        note=f"renewals in the next 24 h cost {amount(wallet.renewals)} USD",
    )


def _spent(overview: Overview) -> Fact:
    name, spend = "Spent today (UTC)", overview.spend
    unpriced = f" · {spend.unpriced} of unknown price" if spend.unpriced else ""
    note = f"refunded {amount(spend.refunded)} USD{unpriced}"
    if spend.budget is None:
        return Fact(name, f"{amount(spend.amount)} USD", note=note)
    return Fact(
        name,
        amount(spend.amount),
        f"of {amount(spend.budget)} USD",
        note=f"{note} · cap resets in {length(spend.resets_at - overview.at)}",
        used=float(spend.amount),
        most=float(spend.budget),
        level=_level_of(float(spend.amount), float(spend.budget)),
    )


def _requests(overview: Overview) -> Fact:
    requests = overview.requests
    waiting = ", ".join(f"{count} {name}" for name, count in requests.waiting.items()) or "none"
    blocked = f" · blocked until {requests.blocked_until:%H:%M:%S}" if requests.blocked_until else ""
    refusals = f"refused by the service so far: {requests.refusals}"
    return Fact(
        f"Requests, last {requests.period:g} s",
        str(requests.sent),
        f"of {requests.limit}",
        note=f"waiting for their turn: {waiting} · {refusals}{blocked}",
        used=requests.sent,
        most=requests.limit,
        level=_level_of(requests.sent, requests.limit),
    )


def _waits(overview: Overview) -> Fact:
    at, waits = overview.at, overview.waits
    note = "" if waits.longest_since is None else f"longest {length(at - waits.longest_since)}"
    if waits.next_poll_at is not None:
        note += f" · the next poll, for all of them, {within(waits.next_poll_at, at)}"
    return Fact("Waiting for a code", str(waits.count), note=note)


def _releases(overview: Overview) -> Fact:
    name, releases = "To give back", overview.releases
    if not releases.rows:
        return Fact(name, str(releases.count))
    first = releases.rows[0]
    next_at = within(first.next_at, overview.at)
    note = f"order {first.order_id}, tried {first.tries}×, next {next_at}"
    return Fact(name, str(releases.count), note=note)


def _level_of(used: float, most: float) -> str:
    """How close to its limit a figure is."""
    if not most:
        return ""
    return "bad" if used >= most * 0.95 else "warn" if used >= most * 0.7 else ""


# ------------------------------------------------------------------ sections


def tables(overview: Overview) -> Iterator[Table]:
    """The sections that are lists, empty ones left out except the orders."""
    if overview.needs.rows:
        yield _needs_table(overview)
    if overview.waits.rows:
        yield _waits_table(overview)
    if overview.releases.rows:
        yield _releases_table(overview)
    if overview.rentals.rows:
        yield _rentals_table(overview)
    yield _orders_table(overview)
    if overview.delivery.rows:
        yield _delivery_table(overview)


def _needs_table(overview: Overview) -> Table:
    needs = overview.needs
    return Table(
        f"{needs.count} {'needs' if needs.count == 1 else 'need'} a person",
        _more(needs),
        ("what", "known", "task", "command"),
        [
            (KINDS[need.kind], need.text, by(need.task) if need.task else "-", need.command or "-")
            for need in needs.rows
        ],
        [need_level(need) for need in needs.rows],
    )


def _waits_table(overview: Overview) -> Table:
    at, waits = overview.at, overview.waits

    def cells(row: WaitRow) -> tuple[str, ...]:
        return (
            str(row.order_id),
            row.phone or "-",
            row.service or "-",
            length(at - row.since),
            gives_up(row, at),
            by(row.task),
        )

    return Table(
        "Waiting now",
        _more(waits),
        ("order", "number", "service", "waiting", "gives up in", "task"),
        [cells(row) for row in waits.rows],
        [wait_level(row, at) for row in waits.rows],
    )


def _releases_table(overview: Overview) -> Table:
    at, releases = overview.at, overview.releases

    def cells(row: ReleaseRow) -> tuple[str, ...]:
        return (
            str(row.order_id),
            row.phone or "-",
            row.service or "-",
            row.reason,
            f"{row.tries}×",
            next_try(row, at),
        )

    return Table(
        "To give back",
        _more(releases),
        ("order", "number", "service", "why", "tried", "next try"),
        [cells(row) for row in releases.rows],
        [""] * len(releases.rows),
    )


def _rentals_table(overview: Overview) -> Table:
    at, rentals = overview.at, overview.rentals

    def cells(row: RentalRow) -> tuple[str, ...]:
        return (
            str(row.order_id),
            row.phone or "-",
            named(row),
            time_left(row, at),
            str(row.renewals),
            "-" if row.price is None else amount(row.price),
            "never" if row.last_sms_at is None else ago(row.last_sms_at, at),
            "nobody" if row.outcome is None and row.kept_by is None else by(row.kept_by),
            outcome(row) or "-",
        )

    return Table(
        "Rentals",
        _more(rentals),
        (
            *("order", "number", "service", "time left", "renewals", "renewal costs", "last SMS", "kept by"),
            "result",
        ),
        [cells(row) for row in rentals.rows],
        [rental_level(row, at) for row in rentals.rows],
    )


def _orders_table(overview: Overview) -> Table:
    orders = overview.orders

    def cells(row: OrderRow) -> tuple[str, ...]:
        return (
            str(row.order_id or "-"),
            row.phone or "-",
            row.service or "-",
            "-" if row.price is None else amount(row.price),
            STATES[row.state],
            "-" if row.seconds_to_code is None else seconds(row.seconds_to_code),
            by(row.task),
        )

    return Table(
        "Orders",
        f"last 24 h: {counts(overview)}{_more(orders, ' · ')}",
        ("order", "number", "service", "price", "state", "code after", "bought by"),
        [cells(row) for row in orders.rows],
        [order_level(row) for row in orders.rows],
    )


def _delivery_table(overview: Overview) -> Table:
    delivery = overview.delivery
    return Table(
        "Delivery",
        f"{measured(overview)}{_more(delivery, ' · ')}",
        DELIVERY,
        [delivered(one) for one in delivery.rows],
        [""] * len(delivery.rows),
    )


# ------------------------------------------------------------------ words


def length(time: timedelta) -> str:
    """A length of time, in its two largest units."""
    seconds = max(int(time.total_seconds()), 0)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


def seconds(number: float) -> str:
    """A number of seconds, as `length` says it."""
    return length(timedelta(seconds=number))


def ago(when: datetime, at: datetime) -> str:
    """How long before the overview something was."""
    return f"{length(at - when)} ago"


def within(when: datetime, at: datetime) -> str:
    """How long after the overview something is."""
    return "now" if when <= at else f"in {length(when - at)}"


def by(task: Task | None) -> str:
    """Who has made a call, or waits."""
    return "a program" if task is None else task.as_text()


def named(rental: RentalRow) -> str:
    """What is rented, and for how long."""
    days = {"rent-1day": "1 day", "rent-30days": "30 days"}.get(rental.product, f"{rental.duration} days")
    return f"{rental.service or 'any'} ({days})"


def gives_up(wait: WaitRow, at: datetime) -> str:
    """When a wait ends, and what happens to the order then."""
    if wait.until is None:
        return "unknown"
    return f"{length(wait.until - at)}, then {'cancelled' if wait.cancels else 'kept'}"


def time_left(rental: RentalRow, at: datetime) -> str:
    """How long a rental lasts; `≈` if that is calculated."""
    if rental.expires_at is None:
        return "unknown"
    return f"{'≈ ' if rental.expires_estimated else ''}{length(rental.expires_at - at)}"


def outcome(rental: RentalRow) -> str:
    """What the newest run of `renew_expiring` has done for a rental; empty if none has."""
    return (rental.outcome or "").replace("_", " ")


def next_try(release: ReleaseRow, at: datetime) -> str:
    """When an order is tried to be given back next."""
    return f"{within(release.next_at, at)}{', unless a call claims it' if release.planned else ''}"


def called(callbacks: Callbacks, at: datetime) -> str:
    """Which callbacks have come and which were refused."""
    last = "none has come" if callbacks.secrets else "none is expected: callback_secrets is not set"
    if callbacks.last_at is not None:
        last = f"last {ago(callbacks.last_at, at)}"
    if callbacks.last_secret is not None and callbacks.secrets > 1:
        last += f" by secret {callbacks.last_secret} of {callbacks.secrets}"
    if callbacks.state == "silent":
        last += ", and the newest SMS came without one"
    others = []
    if callbacks.refused_at is not None:
        why = f"last {ago(callbacks.refused_at, at)}: {callbacks.refused_why}"
        others.append(f"{callbacks.refused} refused ({why})")
    if callbacks.without_secret:
        others.append(f"{callbacks.without_secret} without a secret")
    return f"{last} · in 24 h {', '.join(others)}" if others else last


def measured(overview: Overview) -> str:
    """Which numbers the figures of delivery are about."""
    return f"the newest {overview.delivery.numbers} numbers of the last {overview.delivery.days} days"


def delivered(one: Delivery) -> tuple[str, ...]:
    """The cells of what the numbers of one kind have delivered."""
    rate = "-" if one.rate is None else f"{one.rate:.0%} ({one.rate_low:.0%} to {one.rate_high:.0%})"
    return (
        one.product,
        one.service,
        one.country or "-",
        one.area_code or "-",
        str(one.bought),
        str(one.codes),
        rate,
        *("-" if time is None else f"{time:.1f} s" for time in (one.p50_seconds, one.p95_seconds)),
        "-" if one.cost_per_code is None else f"{one.cost_per_code:.2f}",
        str(one.refunds),
    )


def counts(overview: Overview) -> str:
    """What became of the orders of the last 24 hours, and what Dags and flows have spent today."""
    orders, workflows = overview.orders, overview.spend.workflows
    unknown = f", {orders.unknown} unknown" if orders.unknown else ""
    spent = ", ".join(f"{one.workflow or 'programs'} {amount(one.amount)}" for one in workflows.rows[:5])
    more = f" and {workflows.count - 5} more" if workflows.count > 5 else ""
    today = f" · spent today by {spent}{more}" if spent else ""
    return f"{orders.bought} bought, {orders.codes} with an SMS, {orders.refunded} refunded{unknown}{today}"


def need_level(need: Need) -> str:
    """How urgent it is."""
    return "warn" if need.kind in {"rental_not_kept", "bought_elsewhere"} else "bad"


def wait_level(wait: WaitRow, at: datetime) -> str:
    """Whether a wait is about to give up."""
    return "warn" if wait.until is not None and wait.until - at < LAST_MOMENT else ""


def rental_level(rental: RentalRow, at: datetime) -> str:
    """Whether a rental ends soon, and whether it will be kept."""
    if rental.expires_at is None:
        return "warn"
    if rental.expires_at - at > SOON:
        return ""
    return "warn" if rental.outcome in {"renewed", "not_due"} else "bad"


def order_level(order: OrderRow) -> str:
    """How the order's state looks."""
    return {"code_arrived": "ok", "unknown": "bad", "waiting": "warn"}.get(order.state, "")


def _more(section: Section[Any], before: str = "") -> str:
    return f"{before}and {section.more} more" if section.more else ""
