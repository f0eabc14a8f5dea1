"""Which rentals are due, and why others are not: decided from facts, without a request and without the store.

No more than one period is ever paid ahead: while the period that was paid before the last renewal still runs,
or where the status does not show that renewal, the rental is not renewed.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from smsverify._orders.holding import FORGOTTEN
from smsverify._purchases.expiry import Expiry, Sight
from smsverify._purchases.findings import why_unclaimed
from smsverify._purchases.periods import MadeRenewal
from smsverify._runtime.clock import DAY
from smsverify.models import RENTALS, Order, gets_no_more, has_ended
from smsverify.reports import Outcome

Verdict = tuple[Outcome, str]  # why a rental is not renewed, as a word and for people


@dataclass(frozen=True)
class Selection:
    """Which rentals are meant, and until when they are to last.

    Attributes:
        within: seconds; a rental that ends sooner is due.
        order_ids: rentals besides those that were bought here.
        only: leaves all others alone; `None` for all.
        exclude: leaves these alone.
    """

    within: float
    order_ids: tuple[int, ...] = ()
    only: tuple[int, ...] | None = None
    exclude: tuple[int, ...] = ()

    @property
    def named(self) -> tuple[int, ...]:
        """The rentals that the caller names."""
        return (*self.order_ids, *(self.only or ()))

    def leaves_out(self, order_id: int) -> bool:
        """Whether a rental is to be left alone."""
        return order_id in self.exclude or (self.only is not None and order_id not in self.only)


@dataclass(frozen=True)
class Seen:
    """A rental as it was found. All times are in seconds by the store's clock.

    Attributes:
        order: as on record after the look.
        count: how often it was renewed here, read before all else.
        now: when it was found so.
        expiry: its end by its status, otherwise the one on record; `None` where neither is known.
        sight: what its status said; `None` where it was not read.
        last, last_begins: its last renewal, and when the period that it has paid begins; `None` where it was
            never renewed here.
        is_used_up: whether a code has completed it, and all periods that were paid for are over.
        is_open: whether a renewal was sent whose outcome is unknown.
        cancel_reason: why it is to be cancelled; `None` where it is not.
        unclaimed_for: for how many seconds no caller has had it; `None` where one has.
        price, highest: USD that a renewal costs, and that a limit is checked against.
        trouble: why it cannot be renewed at any price.
    """

    order: Order
    count: int
    now: float
    expiry: Expiry | None
    sight: Sight | None = None
    last: MadeRenewal | None = None
    last_begins: float | None = None
    is_used_up: bool = False
    is_open: bool = False
    cancel_reason: str | None = None
    unclaimed_for: float | None = None
    price: Decimal | None = None
    highest: Decimal | None = None
    trouble: Verdict | None = None

    @property
    def order_id(self) -> int:
        return self.order.order_id

    @property
    def status(self) -> str:
        """The service's word for it."""
        return self.order.status if self.sight is None else self.sight.status.status

    @property
    def left(self) -> float | None:
        """Seconds until its end, as late as that may be; `None` where it is unknown."""
        return None if self.expiry is None else self.expiry.latest - self.now

    def is_due(self, within: float) -> bool:
        """Whether it may end in so many seconds."""
        return self.expiry is None or self.expiry.surely - self.now <= within


def trouble_of(seen: Seen, *, grace: float, time_scale: float) -> Verdict | None:
    """What keeps a rental from being renewed, at any price and however soon it ends.

    Args:
        seen: the rental.
        grace: seconds after which its status should show that it was renewed.
        time_scale: how long the service's minute is in real minutes.
    """
    is_shown = seen.sight is not None and seen.sight.expiry is not None
    is_open = seen.is_open and not is_shown
    # Whole days left, none of them: the last one may still run.
    is_in_days = seen.expiry is not None and seen.expiry.in_days
    is_sure = not is_in_days and (is_shown or not (seen.order.expires_estimated or is_open))
    if is_over(seen.status, seen.left, is_sure=is_sure or seen.is_used_up):
        return "expired", f"it is {seen.status}" if has_ended(seen.status) else "its time is over"
    if (given_up := _given_up(seen, time_scale)) is not None:
        return given_up
    if is_open:
        return "unknown", "a renewal was sent, and it is unknown whether it was carried out"
    no_end: Verdict = ("expiry_unknown", "the service does not say when it ends")
    return no_end if seen.expiry is None else paid_ahead(seen, grace)


def _given_up(seen: Seen, time_scale: float) -> Verdict | None:
    """Whether a rental is to be cancelled, or no caller has it."""
    if seen.cancel_reason is not None:
        return "excluded", f"it is to be cancelled: {seen.cancel_reason}"
    if seen.unclaimed_for is None:
        return None
    if seen.unclaimed_for < FORGOTTEN * time_scale:
        return "not_due", "it was bought just now, and is not handed over yet"
    return "unclaimed", why_unclaimed(seen.order)


def paid_ahead(seen: Seen, grace: float) -> Verdict | None:
    """Whether a rental is paid for a period that has not begun yet, however soon it seems to end."""
    last, begins = seen.last, seen.last_begins
    if last is None or begins is None:
        return None
    age = seen.now - last.sent_at
    shown = None if seen.sight is None else seen.sight.expiry
    # Whole days are too coarse to show that a rental of one day was renewed.
    would_show = shown is None or not shown.in_days or seen.order.product == "rent-30days"
    if would_show and _shows_no_more(last, shown):
        if last.grown is None:
            return _not_shown(age, grace)
        # The status has shown the renewal and shows it no more: the service has changed its mind.
        ahead_until = begins
    else:
        ahead_until = begins if last.expiry is None else max(begins, last.expiry.surely)
    if seen.now >= ahead_until:
        return None
    end = seen.expiry if seen.sight is None else shown
    if end is not None and end.latest < begins and (would_show or age >= DAY):
        return _not_shown(age, grace)
    return "not_due", "the period that was paid last has not begun"


def is_over(status: str, left: float | None, *, is_sure: bool) -> bool:
    """Whether a rental has ended. A code completes an order, but not the time that it is rented for."""
    return gets_no_more(status, RENTALS[0]) or (is_sure and left is not None and left <= 0)


def _shows_no_more(last: MadeRenewal, shown: Expiry | None) -> bool:
    """Whether a status shows no later end than the one before the last renewal did."""
    before = last.expiry
    if shown is None or before is None or not shown.is_shown_like(before):
        return False
    return not shown.is_later_than(before)


def _not_shown(age: float, grace: float) -> Verdict:
    """The verdict on a rental that was renewed so many seconds ago, and whose status does not show it."""
    if age < grace:
        return "not_due", "it was renewed just now, and its status does not show that yet"
    return (
        "unconfirmed",
        "it was renewed and paid, but its time left does not show that: see the dashboard. "
        "`renew` pays again",
    )
