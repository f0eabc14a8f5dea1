"""What the runs on a schedule report: `renew_expiring` rental by rental, `reconcile` order by order.

A report is written for people first: `as_text` sums it up, and each of its `findings` is a line that a person
should act on. `as_dict` has the same for machines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from smsverify._runtime.commands import how_to_resolve, may_have_bought
from smsverify._runtime.tasks import Task
from smsverify.errors import FindingsError
from smsverify.models import Order
from smsverify.text import amount, printable, usd

Outcome = Literal[
    "renewed",
    "would_renew",
    "not_due",
    "excluded",
    "expired",
    "unclaimed",
    "expiry_unknown",
    "too_expensive",
    "price_unknown",
    "budget_reached",
    "insufficient_balance",
    "refused",
    "unknown",
    "unconfirmed",
    "failed",
    "stopped",
]
KEPT: Final[frozenset[Outcome]] = frozenset({"renewed", "would_renew", "not_due", "excluded"})


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Report(_Row, ABC):
    """What a run has found and done."""

    @property
    @abstractmethod
    def findings(self) -> list[str]:
        """What a person should look at, one line each; empty if all is well."""

    @abstractmethod
    def as_text(self) -> str:
        """The report for people, in lines. The first one sums it up."""

    def as_dict(self) -> dict[str, Any]:
        """All fields and the findings, ready for JSON."""
        return self.model_dump(mode="json") | {"findings": self.findings}

    def raise_if_failed(self) -> None:
        """Raises `FindingsError`, which carries this report, if a person should look at something."""
        if findings := self.findings:
            raise FindingsError("; ".join(findings), report=self)


# ------------------------------------------------------------------ rentals


class KeptRental(_Row):
    """What was done for a rental, or why nothing was done.

    Attributes:
        order_id, product, service, phone: of the rental.
        outcome: one of these words.

            - `renewed`: just now.
            - `would_renew`: it is due, and this was a dry run.
            - `not_due`: it lasts longer than `within`, the period that was paid last has not begun, or
              another call has renewed it meanwhile.
            - `excluded`: the caller left it out, or it is to be cancelled.
            - `expired`: it has ended. The report names it for a day.
            - `unclaimed`: the task or program that bought it ended before it returned the rental, so perhaps
              no one knows of it.
            - `expiry_unknown`: its end is unknown, so it is not renewed automatically.
            - `too_expensive`: a renewal costs more than `max_price`.
            - `price_unknown`: the price is unknown, so `max_price` or a budget cannot be checked.
            - `budget_reached`: the renewal would exceed a budget for the day or the run.
            - `insufficient_balance`: the wallet does not hold enough.
            - `refused`: the service refuses to renew it, or does not know it.
            - `unknown`: a renewal was sent, and its outcome is unknown. It is not sent again.
            - `unconfirmed`: it was renewed before, and its status does not show that. It is not renewed
              again.
            - `failed`: the service or the store did not work, nothing was paid. The next run tries again.
            - `stopped`: the run was stopped before it came to this rental.
        reason: the same for people, if there is more to say.
        price: USD that renewing it once costs; `None` if that is unknown.
        cost: USD that were paid just now; `None` if that is unknown.
        expires_before, expires_at: UTC, its end before and now; `None` if that is unknown.
        expires_estimated: whether `expires_at` is calculated, because the service does not say it.
    """

    order_id: int
    product: str | None
    service: str | None
    phone: str | None
    outcome: Outcome
    reason: str | None = None
    price: Decimal | None = None
    cost: Decimal | None = Decimal(0)
    expires_before: datetime | None = None
    expires_at: datetime | None = None
    expires_estimated: bool = False

    @property
    def failed(self) -> bool:
        """Whether the rental is not kept, so that a person may have to act."""
        return self.outcome not in KEPT

    def as_text(self) -> str:
        """What was done for it, in a line."""
        what = ", ".join(filter(None, (self.service, self.product, self.phone))) or "not bought here"
        paid = f" for {usd(self.cost, 'an unknown amount')}" if self.outcome == "renewed" else ""
        about = "about " if self.expires_estimated else ""
        end = "unknown" if self.expires_at is None else f"{about}{_utc(self.expires_at)}"
        reason = f" ({self.reason})" if self.reason else ""
        return printable(f"rental {self.order_id} ({what}): {self.outcome}{paid}, its end is {end}{reason}")


class RentalsReport(_Report):
    """What `renew_expiring` has done, rental by rental.

    Attributes:
        checked_at: UTC.
        dry_run: whether this run was not to pay anything.
        rentals: one entry for each rental, the one that ends soonest first.
        cost: USD that were paid, as far as prices are known; in a dry run, that would have been paid.
        unpriced: how many renewals were paid at an unknown price.
        balance: USD in the wallet: what it held, less what was paid; `None` if it could not be read.
        next_cost: USD that it costs to renew each rental that goes on once more, as far as prices are known.
    """

    checked_at: datetime
    dry_run: bool
    rentals: list[KeptRental]
    cost: Decimal
    unpriced: int
    balance: Decimal | None
    next_cost: Decimal

    @property
    def failed(self) -> list[KeptRental]:
        """The rentals that were due, or may have been, and were not renewed."""
        return [rental for rental in self.rentals if rental.failed]

    @property
    def findings(self) -> list[str]:
        return [rental.as_text() for rental in self.failed]

    @property
    def lasts(self) -> bool:
        """Whether the wallet is known to hold enough to renew each rental once more."""
        return self.balance is not None and self.balance >= self.next_cost

    def as_dict(self) -> dict[str, Any]:
        """All fields, the findings and whether the wallet lasts, ready for JSON."""
        return super().as_dict() | {"lasts": self.lasts}

    def as_text(self) -> str:
        outcomes = Counter(rental.outcome for rental in self.rentals)
        counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()) or "no rentals"
        held = usd(self.balance, "an unknown amount")
        head = (
            f"{counts}; that {'would cost' if self.dry_run else 'cost'} {amount(self.cost)} USD, and the "
            f"wallet holds {held}; to renew each rental once more costs {amount(self.next_cost)} USD"
        )
        return "\n".join([head, *(rental.as_text() for rental in self.rentals)])


# ------------------------------------------------------------------ reconciliation


class ResolvedCall(_Row):
    """A paid call whose outcome was unknown and is now known.

    Attributes:
        key, kind: of the call; `order` or `renewal`.
        outcome: `bought` or `not made`.
        order_id: the order that it bought or renewed; `None` if the call was not made.
    """

    key: str
    kind: str
    outcome: str
    order_id: int | None = None

    def as_text(self) -> str:
        """The call and its outcome, in a line."""
        order = f", order {self.order_id}" if self.order_id else ""
        return printable(f"resolved: {self.key} ({self.kind}) {self.outcome}{order}")


class UnknownCall(_Row):
    """A paid call whose outcome is unknown.

    Attributes:
        namespace, key, kind: of the call; `order` or `renewal`.
        sent_at: UTC.
        price: USD that it would have cost; `None` if that is unknown.
        order_ids: the orders that it may have bought, if a person has to decide; for a renewal, its order.
        overdue: whether only a person can resolve it.
        task: has made the call; `None` for a program of its own.
    """

    namespace: str
    key: str
    kind: str
    sent_at: datetime
    price: Decimal | None
    order_ids: tuple[int, ...]
    overdue: bool
    task: Task | None = None

    def as_text(self) -> str:
        """What is known of the call, and what comes next, in a line."""
        price = usd(self.price, "unknown price")
        candidates = self.kind == "order" and self.order_ids
        but = f", but {may_have_bought(self.order_ids)}" if candidates else ""
        what_next = "The next reconciliation looks again"
        if self.overdue:
            what_next = how_to_resolve(self.key, self.order_ids)
        return printable(
            f"{self.key} ({self.kind}, {price}) was sent at {_utc(self.sent_at)}, and its outcome is unknown"
            f". It is not sent again{but}. {what_next}"
        )


class HeldOrder(_Row):
    """An order that costs money, and that no task or program uses.

    Attributes:
        order_id, service, phone, status: as last seen.
        price: USD; `None` if that is unknown.
        created_at: UTC; `None` if that is unknown.
        key: of its purchase; `None` where it was not bought through this store.
        reason: why it is in the report, for people.
    """

    order_id: int
    service: str | None
    phone: str | None
    status: str
    price: Decimal | None
    created_at: datetime | None
    key: str | None
    reason: str

    @classmethod
    def of(cls, order: Order, reason: str) -> HeldOrder:
        """The order as it is on record, with the reason."""
        names = cls.model_fields.keys() - {"reason"}
        return cls(reason=reason, **{name: getattr(order, name) for name in names})

    def as_text(self) -> str:
        """The order and the reason, in a line."""
        what = f"{self.service or '-'}, {usd(self.price, 'unknown price')}, {self.status}"
        return printable(f"order {self.order_id} ({what}): {self.reason}")


class Reconciliation(_Report):
    """What a reconciliation has found and done.

    Attributes:
        checked_at: UTC.
        balance: the wallet, USD; `None` if it could not be read.
        spent_today: USD spent since midnight (UTC), less refunds.
        spent: USD spent since the store exists, less refunds.
        refunded: USD that came back, as the service's list shows it.
        resolved: calls whose outcome was unknown until now.
        unknown: calls whose outcome is still unknown.
        cancelled: orders that this run has cancelled.
        to_cancel: orders that are to be cancelled; the service has not done so yet.
        planned: orders that will be cancelled later, unless the task that they were bought for claims them
            first; no finding.
        leaks: orders that are paid, not refunded and not used, and that no call waits for. One that has ended
            stays here for a day.
        missing_refunds: orders that the list shows as cancelled, while the wallet has not shown their refund.
            They count as spent until it does.
        foreign: orders of the last day in the service's list that cost money and were not bought through this
            store. If others buy on the account too, they are no finding.
        overcharged: purchases of the last day that cost more than `max_price`, or more than a budget allowed.
        unpriced: how many paid calls have no known price, and are not in `spent`.
        blocked_until: UTC; until then nothing is sent, because the service has refused further requests
            (429). `None` if it has not.
        foreign_is_fine: whether others buy on the account too. It is not in `as_dict`.
    """

    checked_at: datetime
    balance: Decimal | None
    spent_today: Decimal
    spent: Decimal
    refunded: Decimal
    resolved: list[ResolvedCall]
    unknown: list[UnknownCall]
    cancelled: list[int]
    to_cancel: list[HeldOrder]
    planned: list[HeldOrder]
    leaks: list[HeldOrder]
    missing_refunds: list[HeldOrder]
    foreign: list[HeldOrder]
    overcharged: list[HeldOrder] = []
    unpriced: int = 0
    blocked_until: datetime | None = None
    foreign_is_fine: bool = Field(default=False, exclude=True)

    @property
    def findings(self) -> list[str]:
        return [finding for found in self.findings_by_kind.values() for finding in found]

    @property
    def findings_by_kind(self) -> dict[str, list[str]]:
        """The findings by their kind, which is the name of their field."""
        foreign = [] if self.foreign_is_fine else self.foreign
        return {
            "unknown": [call.as_text() for call in self.unknown if call.overdue],
            "to_cancel": [order.as_text() for order in self.to_cancel],
            "leaks": [order.as_text() for order in self.leaks],
            "missing_refunds": [order.as_text() for order in self.missing_refunds],
            "overcharged": [order.as_text() for order in self.overcharged],
            "foreign": [order.as_text() for order in foreign],
        }

    def as_text(self) -> str:
        balance = usd(self.balance, "unknown")
        unpriced = f"; {self.unpriced} calls of unknown price" if self.unpriced else ""
        lines = [
            f"wallet {balance}; spent today {amount(self.spent_today)} USD, in all {amount(self.spent)} USD; "
            f"refunded {amount(self.refunded)} USD{unpriced}"
        ]
        if self.blocked_until is not None:
            lines.append(
                f"the service refuses requests (429): nothing is sent before {_utc(self.blocked_until)}"
            )
        findings = self.findings
        return "\n".join(
            [
                *lines,
                *(call.as_text() for call in self.resolved),
                *(f"cancelled: order {order_id}" for order_id in self.cancelled),
                *(f"needs attention: {finding}" for finding in findings),
                f"findings: {len(findings) or 'none'}",
            ]
        )


# ------------------------------------------------------------------ upkeep


class PruneReport(_Row):
    """What `prune_store` has removed, or would remove.

    Attributes:
        before: only what is older goes.
        dry_run: whether nothing was removed.
        stopped: whether it was stopped before all was removed.
        rows: how many rows of each table.
    """

    before: datetime
    dry_run: bool
    stopped: bool
    rows: dict[str, int]

    @classmethod
    def of(cls, before: float, rows: dict[str, int], *, dry_run: bool, stopped: bool) -> PruneReport:
        """A report; `before` is in seconds since 1970."""
        when = datetime.fromtimestamp(before, timezone.utc)
        return cls(before=when, dry_run=dry_run, stopped=stopped, rows=rows)

    def as_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return self.model_dump(mode="json")

    def as_text(self) -> str:
        """The report for people: one line for all, and one for each table."""
        done = "would be removed" if self.dry_run else "are removed"
        text = f"{sum(self.rows.values())} rows from before {self.before:%Y-%m-%d %H:%M} UTC {done}"
        if self.stopped:
            text += "; it was stopped, and goes on where it was when it is called again"
        width = max(map(len, self.rows))
        return "\n".join([text, *(f"{name.ljust(width)}  {count}" for name, count in self.rows.items())])


# ------------------------------------------------------------------ words


def _utc(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"
