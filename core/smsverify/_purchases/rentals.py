"""Rentals: how long each one lasts, and renewing those that end soon.

First all facts are read, then `due` decides, then the due rentals are paid. The count of a rental's renewals
is read before all other facts. The ledger carries out at most one renewal for that count, so runs that
overlap or are repeated renew once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any, Final

from smsverify._input.amounts import exactly
from smsverify._orders.orders import Orders
from smsverify._purchases.due import Seen, Selection, Verdict, is_over, trouble_of
from smsverify._purchases.expiry import Expiry, Sight
from smsverify._purchases.kept import KeptRecords
from smsverify._purchases.ledger import Ledger
from smsverify._purchases.periods import Periods
from smsverify._purchases.recovery import Recovery
from smsverify._purchases.renewing import Renewals, refuse_other_products
from smsverify._purchases.sending import check_price
from smsverify._purchases.spending import Caps
from smsverify._purchases.wallet import Wallet
from smsverify._runtime.clock import DAY
from smsverify.errors import (
    AuthenticationError,
    InsufficientBalanceError,
    InvalidRequestError,
    PriceLimitError,
    PurchaseUnknownError,
    RateLimitedError,
    ServiceError,
    ServiceUnavailableError,
    SmsVerifyError,
    SpendingLimitError,
    StoreError,
    UnexpectedResponseError,
    WaitStoppedError,
)
from smsverify.models import RENTALS, Order, Rental, gets_no_more
from smsverify.reports import KeptRental, Outcome, RentalsReport
from smsverify.text import amount, log_of

log = log_of(__name__)

SHOWN: Final = ("rent-1day", "rent-30days")  # the products whose status shows the time left
REMEMBERED = DAY  # seconds for which a rental that has ended is named, at time scale 1


class Rentals:
    """The rentals of one account.

    Args:
        wallet, ledger, orders, renewals, recovery: of the account.
        periods: how far its rentals are paid.
        kept: what the newest run has done for each.
        grace: seconds after which the status of a rental should show that it was renewed.
        time_scale: how long the service's minute is in real minutes.
    """

    def __init__(
        self,
        wallet: Wallet,
        ledger: Ledger,
        orders: Orders,
        renewals: Renewals,
        recovery: Recovery,
        *,
        periods: Periods,
        kept: KeptRecords,
        grace: float,
        time_scale: float,
    ) -> None:
        self._kept = kept
        self._wallet = wallet
        self._ledger = ledger
        self._orders = orders
        self._records = orders.records
        self._renewals = renewals
        self._recovery = recovery
        self._periods = periods
        self._grace = grace
        self._time_scale = time_scale

    # -------------------------------------------------------------- looking

    def overview(self, order_ids: Sequence[int]) -> list[Rental]:
        """See `SmsVerifyHook.rentals`."""
        seen = self._survey(Selection(0.0, tuple(order_ids)), None)
        return [
            _rental(one)
            for one in seen
            if one.order_id in order_ids or not (one.trouble and one.trouble[0] == "expired")
        ]

    def _survey(self, selection: Selection, stop: threading.Event | None) -> list[Seen]:
        """All rentals that are meant, the one that ends soonest first."""
        known = {order.order_id: order for order in self._records.rentals(self._is_long_gone)}
        for order_id in selection.named:
            known[order_id] = self._named(order_id)
        seen = []
        is_down = False
        for order in known.values():
            if selection.leaves_out(order.order_id):
                seen.append(self._unseen(order, ("excluded", "the caller left it out")))
            elif stop is not None and stop.is_set():
                seen.append(self._unseen(order, ("stopped", "the run was stopped")))
            else:
                one, is_down = self._look(order, stop, hasty=is_down)
                seen.append(one)
        return sorted(seen, key=lambda one: (one.expiry is None, one.left or 0.0, one.order_id))

    def _named(self, order_id: int) -> Order:
        known = self._records.get(order_id) or Order(order_id=order_id)
        refuse_other_products(known)
        return known

    def _is_long_gone(self, order: Order) -> bool:
        """Whether a rental has ended, and has been named often enough."""
        if order.cancelled:
            return True
        # The service's word that it is over is final. An end on record may have moved since, and a calendar
        # may be set. So the store's own count of what was paid has to say the same.
        if not gets_no_more(order.status, RENTALS[0]):
            may_end_later = order.status != "completed" and self._may_end_later(order)
            if may_end_later or not self._periods.is_used_up(order):
                return False
        left = self._unseen(order).left
        if not is_over(order.status, left, is_sure=True):
            return False
        return left is None or left < -REMEMBERED * self._time_scale

    def _is_used_up(self, order: Order) -> bool:
        """Whether a code has completed a rental, and all that was paid for it is over."""
        return order.status == "completed" and self._periods.is_used_up(order)

    def _look(self, order: Order, stop: threading.Event | None, *, hasty: bool) -> tuple[Seen, bool]:
        """A rental as it is now, and whether the service did not answer."""
        order_id = order.order_id
        if self._has_open_renewal(order_id):
            self._recovery.resolve_renewals(order_id)  # first: what is found to be made counts
        count = self._ledger.renewals.count(order_id)
        known = self._records.get(order_id) or order
        if not self._has_to_ask(known):
            return self._judged(known, known, count, None, stop), False
        try:
            sight = self._renewals.sight(order_id, stop=stop, hasty=hasty)
        except (AuthenticationError, StoreError):
            raise
        except SmsVerifyError as error:
            is_down = isinstance(error, ServiceUnavailableError)
            return self._unseen(known, (_outcome_of(error), str(error))), is_down
        return self._judged(known, self._records.get(order_id) or known, count, sight, stop), False

    def _has_open_renewal(self, order_id: int) -> bool:
        return any(
            call.request["order_id"] == order_id and not call.under_way
            for call in self._ledger.open_renewals()
        )

    def _has_to_ask(self, order: Order) -> bool:
        """Whether only its status may show when a rental ends, or whether it has ended."""
        expiry = self._periods.expiry(order.expires_at)
        return expiry is None or expiry.latest <= self._ledger.now() or self._may_show_its_end(order, expiry)

    def _may_end_later(self, order: Order) -> bool:
        """Whether a rental may last longer than the end on record says."""
        expiry = self._periods.expiry(order.expires_at)
        if expiry is None or order.expires_estimated or self._has_open_renewal(order.order_id):
            return True
        return self._may_show_its_end(order, expiry)

    def _may_show_its_end(self, order: Order, on_record: Expiry) -> bool:
        """Whether its status may show another end than the one on record."""
        if order.product is None or order.product in SHOWN:
            return True
        # Where its status shows an end, the one on record may be from before its renewal.
        last = self._periods.last(order.order_id)
        return last is not None and last.expiry is not None and not on_record.is_later_than(last.expiry)

    def _unseen(self, order: Order, trouble: Verdict | None = None) -> Seen:
        """A rental whose status was not read."""
        return Seen(
            order,
            self._ledger.renewals.count(order.order_id),
            self._ledger.now(),
            self._periods.expiry(order.expires_at),
            trouble=trouble,
        )

    def _judged(
        self, before: Order, order: Order, count: int, sight: Sight | None, stop: threading.Event | None
    ) -> Seen:
        """A rental with all that decides on it: as on record before the look and after it, and the look."""
        shown = None if sight is None else sight.expiry
        release = self._orders.releases.of(order.order_id)
        try:
            price, highest = self._renewals.prices(order, stop)
        except WaitStoppedError:
            price = highest = None
        seen = Seen(
            order,
            count,
            self._ledger.now(),
            shown or self._periods.expiry(order.expires_at),
            sight,
            last=self._periods.last(order.order_id),
            last_begins=self._periods.last_begins(before),
            is_used_up=self._is_used_up(order),
            is_open=self._has_open_renewal(order.order_id),
            cancel_reason=None if release is None or release.is_planned else release.reason,
            unclaimed_for=self._orders.handover.unclaimed_for(order.order_id),
            price=price,
            highest=highest,
        )
        return replace(seen, trouble=trouble_of(seen, grace=self._grace, time_scale=self._time_scale))

    # -------------------------------------------------------------- renewing

    @exactly
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
        self._periods.compare_calendars()
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
        if not dry_run:
            self._kept.note(kept, caps.task)
        for finding in report.findings:
            log.warning("Needs attention: %s", finding)
        return report

    def _balance(self) -> Decimal | None:
        try:
            _, reading = self._wallet.read()
            return None if reading is None else reading.amount
        except AuthenticationError:
            raise
        except ServiceError as error:
            log.warning("The balance cannot be read, so rentals are renewed without a look at it: %s", error)
            return None

    def _keep(
        self,
        seen: Iterable[Seen],
        within: float,
        limit: Decimal | None,
        caps: Caps,
        balance: Decimal | None,
        *,
        dry_run: bool,
        stop: threading.Event | None,
    ) -> Iterator[KeptRental]:
        """What becomes of each rental. Money that one rental cannot use is for those that end later."""
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
                spent += (self._price_sent(one) if kept.outcome == "unknown" else kept.cost) or 0
                yield kept

    def _price_sent(self, one: Seen) -> Decimal | None:
        """What a rental's renewal of unknown outcome costs, at its price when it was sent."""
        sent = [
            call.price for call in self._ledger.open_renewals() if call.request["order_id"] == one.order_id
        ]
        return sent[0] if sent else one.price

    def _why_not_paid(
        self, one: Seen, limit: Decimal | None, caps: Caps, left: Decimal | None, *, planned: Decimal
    ) -> Verdict | None:
        """What keeps a rental from being paid, as far as that is known before the call."""
        what = f"renewing order {one.order_id}"
        charge = None if one.highest is None else one.highest + planned
        try:
            check_price(one.highest, limit, what)
            self._ledger.refuse_beyond_caps(caps, charge=charge, what=what)
        except (PriceLimitError, SpendingLimitError) as error:
            return _outcome_of(error, one.highest), str(error)
        if left is not None and one.price is not None and one.price > left:
            return (
                "insufficient_balance",
                f"it costs {amount(one.price)} USD, and {amount(left)} USD are left",
            )
        return None

    def _renew(
        self, one: Seen, limit: Decimal | None, caps: Caps, stop: threading.Event | None
    ) -> KeptRental:
        try:
            renewal = self._renewals.pay_once(
                one.order_id, one.count, limit=limit, caps=caps, sight=one.sight, stop=stop
            )
        except (AuthenticationError, StoreError):
            raise
        except SmsVerifyError as error:
            return _kept(one, _outcome_of(error, one.highest), str(error))
        self._renewals.note_handed_out(one.order_id)
        if not renewal.is_new:
            return _kept(one, "not_due", "it was renewed by another call", order=renewal.order)
        now = replace(one, price=renewal.price)
        return _kept(now, "renewed", order=renewal.order, cost=renewal.price)


def _why_not_now(
    one: Seen, within: float, ended: SmsVerifyError | None, stop: threading.Event | None
) -> Verdict | None:
    if not one.is_due(within):
        return "not_due", ""
    if stop is not None and stop.is_set():
        return "stopped", "the run was stopped"
    # This concerns all of them: a refused key, or a store that cannot be used.
    return None if ended is None else ("failed", f"not tried: {ended}")


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
    one: Seen,
    outcome: Outcome,
    reason: str | None = None,
    *,
    order: Order | None = None,
    cost: Decimal | None = Decimal(0),
) -> KeptRental:
    before = _end_of(one)
    after = order or one.order.model_copy(update={"expires_at": before})
    return KeptRental(
        **_names(one),
        outcome=outcome,
        reason=reason or None,
        price=one.price,
        cost=cost,
        expires_before=before,
        expires_at=after.expires_at,
        expires_estimated=after.expires_estimated,
    )


def _names(one: Seen) -> dict[str, Any]:
    return {name: getattr(one.order, name) for name in ("order_id", "product", "service", "phone")}


def _end_of(one: Seen) -> datetime | None:
    """When a rental ends, as it was found."""
    if one.sight is not None and one.sight.status.expires_at is not None:
        return one.sight.status.expires_at
    return one.order.expires_at


def _rental(one: Seen) -> Rental:
    return Rental(
        **_names(one),
        status=one.status,
        duration=one.order.duration,
        price=one.price,
        expires_at=_end_of(one),
        expires_estimated=one.order.expires_estimated,
        time_left_seconds=None if one.left is None else max(one.left, 0.0),
        renewals=one.count,
        note=one.trouble[1] if one.trouble and one.trouble[0] != "not_due" else None,
    )
