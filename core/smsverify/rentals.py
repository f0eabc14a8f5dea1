"""Rentals: how long each one lasts, and renewing those that end soon.

A renewal is decided on how often the rental had been renewed (counted before anything else is looked at) and
on its end. The ledger carries it out at most once for that count, so runs that overlap, are repeated or know
nothing of each other renew once. And no more than one period is ever paid ahead: while the one that was
renewed before the last renewal still runs, or where its status does not show that renewal, nothing is paid.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from smsverify.api import ServiceApi
from smsverify.errors import (
    AuthenticationError,
    InsufficientBalanceError,
    InvalidRequestError,
    PriceLimitError,
    PurchaseUnknownError,
    RateLimitedError,
    RentalsNotKeptError,
    ServiceError,
    ServiceUnavailableError,
    SmsVerifyError,
    SpendingLimitError,
    StoreError,
    UnexpectedResponseError,
    WaitStoppedError,
)
from smsverify.ledger import LastRenewal, Ledger
from smsverify.models import RENTALS, Order, Rental, expiry_step, has_ended
from smsverify.orders import Orders
from smsverify.purchasing import Purchases, Sight
from smsverify.recovery import Recovery
from smsverify.spending import DAY, Caps

log = logging.getLogger(__name__)

TELLING: Final = ("rent-1day", "rent-30days")  # the products whose status tells the time left
SHORTEST_PERIOD = 0.9 * DAY  # seconds; a rental for a day, less what a run may come late
REMEMBERED = DAY  # seconds for which a rental that has ended is named, where a minute lasts a minute

Outcome = Literal[
    "renewed",
    "would_renew",
    "not_due",
    "excluded",
    "expired",
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
ALL_IS_WELL: Final[frozenset[Outcome]] = frozenset({"renewed", "would_renew", "not_due", "excluded"})


class KeptRental(BaseModel):
    """What was done for a rental, or why it was not.

    Attributes:
        order_id, product, service, phone: of the rental.
        outcome: one of these words.

            - `renewed`: just now.
            - `would_renew`: it is due, and this was a dry run.
            - `not_due`: it lasts longer than `within`, the period that was paid last has not begun, or it was
              renewed by somebody else meanwhile.
            - `excluded`: the caller left it out, or it is to be cancelled.
            - `expired`: it has ended; it is named for a day.
            - `expiry_unknown`: nobody knows when it ends, so it is not renewed by itself.
            - `too_expensive`: a renewal costs more than `max_price`.
            - `price_unknown`: the price is not known, so `max_price` or a budget can not be kept.
            - `budget_reached`: a budget for the day or the run would be passed.
            - `insufficient_balance`: the wallet does not hold enough.
            - `refused`: the service refuses to renew it, or does not know it.
            - `unknown`: a renewal was sent and nobody knows whether it was carried out; it is not sent again.
            - `unconfirmed`: it was renewed before, and its status does not show that; it is not paid again.
            - `failed`: the service or the store did not work, nothing was paid; the next run tries again.
            - `stopped`: the run was ended before its turn came.
        reason: the same for people, where there is more to say.
        price: USD that renewing it once costs; `None` where nobody knows.
        cost: USD that were paid just now; `None` where that is unknown.
        expires_before, expires_at: UTC, its end before and now; `None` where that is unknown.
        expires_estimated: whether `expires_at` is reckoned rather than told.
    """

    model_config = ConfigDict(frozen=True)

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
        """Whether a person may have to do something, since it is not kept."""
        return self.outcome not in ALL_IS_WELL

    def as_text(self) -> str:
        """What became of it, in a line."""
        until = "an unknown time" if self.expires_at is None else f"{self.expires_at:%Y-%m-%d %H:%M:%S} UTC"
        end = f"until {'about ' if self.expires_estimated else ''}{until}"
        paid = f" for {_usd(self.cost)}" if self.outcome == "renewed" else ""
        reason = f" ({self.reason})" if self.reason else ""
        what = ", ".join(filter(None, (self.service, self.product, self.phone))) or "not bought here"
        return f"rental {self.order_id} ({what}): {self.outcome}{paid}, {end}{reason}"


class RentalsReport(BaseModel):
    """What `renew_expiring` has done, rental by rental.

    Attributes:
        checked_at: UTC.
        dry_run: whether nothing was to be paid.
        rentals: one entry for each rental, the one that ends soonest first.
        cost: USD that were paid, as far as prices are known; in a dry run, that would have been.
        unpriced: how many renewals were paid at an unknown price.
        balance: USD in the wallet: what it held, less what was paid; `None` where it could not be read.
        next_cost: USD that it costs to renew each rental that goes on once more, as far as prices are known.
    """

    model_config = ConfigDict(frozen=True)

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
        """What a person should look at, a line each; empty where all is well."""
        return [rental.as_text() for rental in self.failed]

    @property
    def lasts(self) -> bool:
        """Whether the wallet is known to hold enough to renew each rental once more."""
        return self.balance is not None and self.balance >= self.next_cost

    def raise_if_failed(self) -> None:
        """Raises `RentalsNotKeptError`, which carries this report, where a rental is not kept."""
        if self.failed:
            raise RentalsNotKeptError("; ".join(self.findings), report=self)

    def as_dict(self) -> dict[str, Any]:
        """All fields, the findings and whether the wallet lasts, ready for JSON."""
        return self.model_dump(mode="json") | {"lasts": self.lasts, "findings": self.findings}

    def as_text(self) -> str:
        """What a person wants to know, in lines."""
        outcomes = Counter(rental.outcome for rental in self.rentals)
        counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()) or "no rentals"
        paid = "would cost" if self.dry_run else "cost"
        head = (
            f"{counts}; that {paid} {_usd(self.cost)}, and the wallet holds {_usd(self.balance)}; renewing "
            f"each once more costs {_usd(self.next_cost)}"
        )
        return "\n".join([head, *(rental.as_text() for rental in self.rentals)])


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
class _Seen:
    """A rental as it was found.

    Attributes:
        order: as on record after the look.
        count: how often it was renewed here, read before all else.
        status: the service's word for it.
        left: seconds until its end; `None` where that is unknown.
        surely: seconds that it lasts at least, which is less where only days are told.
        price, highest: USD that a renewal costs, and that a limit is checked against.
        sight: what its status told, where it was asked for.
        trouble: why it can not be renewed whatever the prices are, with the reason.
    """

    order: Order
    count: int
    status: str
    left: float | None
    surely: float | None
    price: Decimal | None
    highest: Decimal | None
    sight: Sight | None
    trouble: tuple[Outcome, str] | None

    @property
    def order_id(self) -> int:
        return self.order.order_id


class Rentals:
    """The rentals of one account.

    Args:
        api, ledger, orders, purchases, recovery: of the account.
        grace: seconds after which the status of a rental should show that it was renewed.
        tempo: how long the service's minute is in real minutes.
    """

    def __init__(
        self,
        api: ServiceApi,
        ledger: Ledger,
        orders: Orders,
        purchases: Purchases,
        recovery: Recovery,
        *,
        grace: float,
        tempo: float,
    ) -> None:
        self._api = api
        self._ledger = ledger
        self._book = ledger.book
        self._orders = orders
        self._purchases = purchases
        self._recovery = recovery
        self._grace = grace
        self._tempo = tempo

    # -------------------------------------------------------------- looking

    def overview(self, order_ids: Sequence[int]) -> list[Rental]:
        """See `SmsVerifyHook.rentals`."""
        seen = self._survey(Selection(0.0, tuple(order_ids)), None)
        return [
            _rental(one)
            for one in seen
            if one.order_id in order_ids or not (one.trouble and one.trouble[0] == "expired")
        ]

    def _survey(self, selection: Selection, stop: threading.Event | None) -> list[_Seen]:
        """All rentals that are meant, the one that ends soonest first."""
        known = {order.order_id: order for order in self._book.rentals() if not self._is_long_gone(order)}
        for order_id in selection.named:
            known[order_id] = self._named(order_id)
        seen = []
        is_down = False
        for order in known.values():
            if selection.leaves_out(order.order_id):
                seen.append(self._unseen(order, "excluded", "left out by the caller"))
            elif stop is not None and stop.is_set():
                seen.append(self._unseen(order, "stopped", "the run was ended"))
            else:
                one, is_down = self._look(order, stop, hasty=is_down)
                seen.append(one)
        return sorted(seen, key=lambda one: (one.left is None, one.left or 0.0, one.order_id))

    def _named(self, order_id: int) -> Order:
        known = self._book.get(order_id)
        if known is not None and known.product is not None and known.product not in RENTALS:
            raise InvalidRequestError(
                f"order_id {order_id} is a {known.product} order: only rentals can be renewed",
                field="order_id",
            )
        return known or Order(order_id=order_id)

    def _is_long_gone(self, order: Order) -> bool:
        """Whether a rental has ended, and has been named often enough."""
        if order.cancelled:
            return True
        left = _left_of(order, self._ledger.now())
        # An end on record may have been moved since; a service's word that it is over stands.
        is_sure = has_ended(order.status) or not (self._has_to_ask(order) or order.expires_estimated)
        if not is_sure or not _is_over(order.status, left, is_told=True):
            return False
        return left is None or left < -REMEMBERED * self._tempo

    def _look(self, order: Order, stop: threading.Event | None, *, hasty: bool) -> tuple[_Seen, bool]:
        """A rental as it is now, and whether the service did not answer."""
        order_id = order.order_id
        if self._has_open_renewal(order_id):
            self._recovery.settle_renewals(order_id)  # first: what is found to be made counts
        count = self._ledger.renewals(order_id)
        known = self._book.get(order_id) or order
        if not self._has_to_ask(known):
            return self._judged(self._seen(known, count, None, stop), self._paid_ahead(known, None)), False
        try:
            sight = self._purchases.sight(order_id, stop=stop, hasty=hasty)
        except (AuthenticationError, StoreError):
            raise
        except SmsVerifyError as error:
            is_down = isinstance(error, ServiceUnavailableError)
            return self._unseen(known, _outcome_of(error), str(error)), is_down
        seen = self._seen(self._book.get(order_id) or known, count, sight, stop)
        return self._judged(seen, self._paid_ahead(known, sight)), False

    def _has_open_renewal(self, order_id: int) -> bool:
        return any(
            call.request["order_id"] == order_id and not call.under_way
            for call in self._ledger.open_renewals()
        )

    def _has_to_ask(self, order: Order) -> bool:
        """Whether only its status may tell when a rental ends, or whether it has ended."""
        left = _left_of(order, self._ledger.now())
        if left is None or order.product is None or order.product in TELLING:
            return True
        if left <= 0 and (order.expires_estimated or self._has_open_renewal(order.order_id)):
            return True
        # Where its status tells an end, it may have told that of before its renewal.
        last = self._ledger.last_renewal(order.order_id)
        if last is None or last.end is None or order.expires_at is None:
            return False
        return order.expires_at.timestamp() <= last.end + (last.step or 0.0)

    def _paid_ahead(self, before: Order, sight: Sight | None) -> tuple[Outcome, str] | None:
        """Whether a rental was renewed for a period that has not begun yet, however soon it seems to end.

        Args:
            before: the rental as on record before it was looked at.
            sight: what its status told, where it was asked.
        """
        last, now = self._ledger.last_renewal(before.order_id), self._ledger.now()
        if last is None or last.end is None:
            return None
        ends_at = None if sight is None else sight.ends_at
        step = (None if sight is None else expiry_step(sight.status, self._tempo)) or 0.0
        end = last.end + step
        # Whole days are too coarse to show that a rental of one day was renewed.
        would_show = step < DAY or before.product == "rent-30days"
        if would_show and ends_at is not None and ends_at <= end:
            # What has been shown, and is not any more, the service has thought better of.
            has_shown = self._has_shown(last, before, end) or last.step != step
            return None if has_shown else self._unshown(now - last.settled_at)
        if step >= DAY:
            # The end before may have been as much earlier; but no rental lasts less than a day.
            is_ahead = now < max(last.settled_at + SHORTEST_PERIOD, last.end - step)
        else:
            is_ahead = now < last.end
        return ("not_due", "the period that was paid last has not begun") if is_ahead else None

    def _has_shown(self, last: LastRenewal, before: Order, end: float) -> bool:
        """Whether the end of a rental was ever seen beyond what it was before its last renewal."""
        if not last.has_shown and before.expires_at is not None and before.expires_at.timestamp() > end:
            self._ledger.shows(last)
            return True
        return last.has_shown

    def _unshown(self, age: float) -> tuple[Outcome, str]:
        """A rental was renewed so many seconds ago, and its status does not show it."""
        if age < self._grace:
            return "not_due", "it was renewed just now, which its status does not show yet"
        return "unconfirmed", "it was renewed and paid, but its time left has not grown: see the dashboard"

    def _unseen(self, order: Order, outcome: Outcome, reason: str) -> _Seen:
        """A rental that the service was not asked for."""
        left = _left_of(order, self._ledger.now())
        count = self._ledger.renewals(order.order_id)
        return _Seen(order, count, order.status, left, left, None, None, None, (outcome, reason))

    def _seen(self, order: Order, count: int, sight: Sight | None, stop: threading.Event | None) -> _Seen:
        now = self._ledger.now()
        left = surely = _left_of(order, now)
        if sight is not None and sight.ends_at is not None:
            left = surely = sight.ends_at - now
            if (expiry_step(sight.status, self._tempo) or 0.0) >= DAY:
                surely = left - DAY  # the last of its days may be over
        try:
            price, highest = self._purchases.renewal_prices(order, stop)
        except WaitStoppedError:
            price = highest = None
        status = order.status if sight is None else sight.status.status
        return _Seen(order, count, status, left, surely, price, highest, sight, None)

    def _judged(self, seen: _Seen, paid_ahead: tuple[Outcome, str] | None) -> _Seen:
        """The same, with what keeps it from being renewed whatever it costs."""
        order, trouble = seen.order, paid_ahead
        shows_end = seen.sight is not None and seen.sight.ends_at is not None
        is_open = not shows_end and self._has_open_renewal(order.order_id)
        # Whole days left, none of them: the last one may still run.
        is_whole = seen.surely is not None and seen.left is not None and seen.surely < seen.left
        is_told = not is_whole and (shows_end or not (order.expires_estimated or is_open))
        release = self._book.release_of(order.order_id)
        if _is_over(seen.status, seen.left, is_told=is_told):
            trouble = "expired", "its time is over" if not has_ended(seen.status) else f"it is {seen.status}"
        elif release is not None and not release.is_planned:
            trouble = "excluded", f"it is to be cancelled: {release.reason}"
        elif is_open:
            trouble = "unknown", "a renewal was sent, and nobody knows whether it was carried out"
        elif seen.left is None:
            trouble = "expiry_unknown", "the service does not tell when it ends"
        return replace(seen, trouble=trouble)

    # -------------------------------------------------------------- renewing

    def renew_expiring(
        self,
        selection: Selection,
        *,
        limit: Decimal | None,
        caps: Caps,
        dry_run: bool,
        stop: threading.Event | None = None,
    ) -> RentalsReport:
        """See `SmsVerifyHook.renew_expiring`."""
        balance = self._balance()
        seen = self._survey(selection, stop)
        kept = list(self._keep(seen, selection.within, limit, caps, balance, dry_run=dry_run, stop=stop))
        costs = [rental.cost for rental in kept if rental.outcome in ("renewed", "would_renew")]
        cost = sum((one for one in costs if one is not None), Decimal(0))
        goes_on = [rental for rental in kept if rental.outcome not in ("excluded", "expired", "refused")]
        report = RentalsReport(
            checked_at=datetime.now(timezone.utc),
            dry_run=dry_run,
            rentals=kept,
            cost=cost,
            unpriced=costs.count(None),
            balance=balance if balance is None or dry_run else balance - cost,
            next_cost=sum((rental.price for rental in goes_on if rental.price is not None), Decimal(0)),
        )
        for finding in report.findings:
            log.warning("To look at: %s", finding)
        return report

    def _balance(self) -> Decimal | None:
        try:
            return self._api.get_balance().amount
        except AuthenticationError:
            raise
        except ServiceError as error:
            log.warning("The balance can not be read, rentals are renewed without: %s", error)
            return None

    def _keep(
        self,
        seen: Iterable[_Seen],
        within: float,
        limit: Decimal | None,
        caps: Caps,
        balance: Decimal | None,
        *,
        dry_run: bool,
        stop: threading.Event | None,
    ) -> Iterator[KeptRental]:
        """What becomes of each rental. One that can not be paid leaves the money to those that end later."""
        spent = planned = Decimal(0)
        ended: SmsVerifyError | None = None
        for one in seen:
            left = None if balance is None else balance - spent
            why_not = (
                one.trouble
                or _why_not_now(one, within, ended, stop)
                or self._why_not_paid(one, limit, caps, left, planned=planned)
            )
            if why_not is not None:
                yield _kept(one, *why_not)
            elif dry_run:
                spent += one.price or 0
                planned += one.highest or 0
                yield _kept(one, "would_renew", cost=one.price)
            else:
                try:
                    kept = self._renew(one, limit, caps, stop)
                except (AuthenticationError, StoreError) as error:
                    ended = error
                    kept = _kept(one, "failed", str(error))
                # A renewal whose outcome is unknown may have been paid.
                spent += (one.price if kept.outcome == "unknown" else kept.cost) or 0
                yield kept

    def _why_not_paid(
        self, one: _Seen, limit: Decimal | None, caps: Caps, left: Decimal | None, *, planned: Decimal
    ) -> tuple[Outcome, str] | None:
        """What keeps a rental from being paid, as far as that is known before."""
        if limit is not None and one.highest is not None and one.highest > limit:
            return "too_expensive", f"it costs {_usd(one.highest)}, more than max_price={limit}"
        if limit is not None and one.highest is None:
            return "price_unknown", f"its price is unknown, so max_price={limit} can not be kept"
        try:
            charge = None if one.highest is None else one.highest + planned
            self._ledger.refuse_beyond_caps(caps, charge=charge, what=f"renewing order {one.order_id}")
        except (PriceLimitError, SpendingLimitError) as error:
            return _outcome_of(error), str(error)
        if left is not None and one.price is not None and one.price > left:
            return "insufficient_balance", f"it costs {_usd(one.price)}, and {_usd(left)} are left"
        return None

    def _renew(
        self, one: _Seen, limit: Decimal | None, caps: Caps, stop: threading.Event | None
    ) -> KeptRental:
        try:
            renewal = self._purchases.renew_from(
                one.order_id, one.count, limit=limit, caps=caps, sight=one.sight, stop=stop
            )
        except (AuthenticationError, StoreError):
            raise
        except SmsVerifyError as error:
            return _kept(one, _outcome_of(error, one.highest), str(error))
        if not renewal.is_new:
            return _kept(one, "not_due", "it was renewed by another call", order=renewal.order)
        return _kept(one, "renewed", order=renewal.order, cost=renewal.price)


def _left_of(order: Order, now: float) -> float | None:
    return None if order.expires_at is None else order.expires_at.timestamp() - now


def _why_not_now(
    one: _Seen, within: float, ended: SmsVerifyError | None, stop: threading.Event | None
) -> tuple[Outcome, str] | None:
    if one.surely is not None and one.surely > within:
        return "not_due", ""
    if stop is not None and stop.is_set():
        return "stopped", "the run was ended"
    # What concerns all of them: a refused key, or a store that can not be used.
    return None if ended is None else ("failed", f"not tried: {ended}")


def _is_over(status: str, left: float | None, *, is_told: bool) -> bool:
    """Whether a rental has ended. A code completes an order, but not the time that it is rented for."""
    if status.strip().lower() == "completed":
        return left is not None and left <= 0
    return has_ended(status) or (is_told and left is not None and left <= 0)


def _outcome_of(error: SmsVerifyError, highest: Decimal | None = None) -> Outcome:
    """The word for what went wrong."""
    if isinstance(error, PriceLimitError):
        return "price_unknown" if highest is None else "too_expensive"
    words: list[tuple[tuple[type[SmsVerifyError], ...], Outcome]] = [
        ((SpendingLimitError,), "budget_reached"),
        ((InsufficientBalanceError,), "insufficient_balance"),
        ((PurchaseUnknownError,), "unknown"),
        ((WaitStoppedError,), "stopped"),
        ((RateLimitedError, ServiceUnavailableError, UnexpectedResponseError), "failed"),
        ((ServiceError, InvalidRequestError), "refused"),
    ]
    return next((word for kinds, word in words if isinstance(error, kinds)), "failed")


def _kept(
    one: _Seen,
    outcome: Outcome,
    reason: str | None = None,
    *,
    order: Order | None = None,
    cost: Decimal | None = Decimal(0),
) -> KeptRental:
    before = _end_of(one)
    after = order or one.order.model_copy(update={"expires_at": before})
    return KeptRental(
        order_id=one.order_id,
        product=one.order.product,
        service=one.order.service,
        phone=one.order.phone,
        outcome=outcome,
        reason=reason or None,
        price=one.price,
        cost=cost,
        expires_before=before,
        expires_at=after.expires_at,
        expires_estimated=after.expires_estimated,
    )


def _end_of(one: _Seen) -> datetime | None:
    """When a rental ends, as it was found."""
    if one.sight is not None and one.sight.status.expires_at is not None:
        return one.sight.status.expires_at
    return one.order.expires_at


def _rental(one: _Seen) -> Rental:
    return Rental(
        order_id=one.order_id,
        product=one.order.product,
        service=one.order.service,
        phone=one.order.phone,
        status=one.status,
        duration=one.order.duration,
        price=one.price,
        expires_at=_end_of(one),
        expires_estimated=one.order.expires_estimated,
        time_left_seconds=None if one.left is None else max(one.left, 0.0),
        renewals=one.count,
        note=one.trouble[1] if one.trouble and one.trouble[0] != "not_due" else None,
    )


def _usd(amount: Decimal | None) -> str:
    return "an unknown amount" if amount is None else f"{amount:.2f} USD"
