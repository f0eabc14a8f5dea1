"""Comparing the records with the service: open calls are resolved, and lost orders are named."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from decimal import Decimal
from typing import Final

from smsverify._orders.orders import Orders
from smsverify._purchases.findings import Findings
from smsverify._purchases.ledger import Ledger
from smsverify._purchases.recovery import Recovery
from smsverify._purchases.wallet import Wallet
from smsverify._service.rate_limit import RateLimit
from smsverify._store.store import Store
from smsverify.errors import ServiceError, SmsVerifyError, WaitStoppedError
from smsverify.metrics import FINDINGS, Meter
from smsverify.models import RENTALS, Order
from smsverify.reports import HeldOrder, Reconciliation, ResolvedCall
from smsverify.text import log_of

log = log_of(__name__)

AT_ONCE = 20  # orders that one reconciliation looks at, and as many that it cancels: its cost stays small
REPORTED: Final = ("not_given_back", "planned", "refund_missing", "bought_elsewhere")


class Reconciler:
    """Reconciles one account.

    Args:
        store, wallet, ledger, orders, recovery, findings, rate_limit, meter: of the account.
        is_exclusive: whether only the users of this store buy on this account.
    """

    def __init__(
        self,
        store: Store,
        wallet: Wallet,
        ledger: Ledger,
        orders: Orders,
        recovery: Recovery,
        *,
        findings: Findings,
        rate_limit: RateLimit,
        meter: Meter,
        is_exclusive: bool,
    ) -> None:
        self._store = store
        self._rate_limit = rate_limit
        self._meter = meter
        self._wallet = wallet
        self._ledger = ledger
        self._orders = orders
        self._recovery = recovery
        self._findings = findings
        self._is_exclusive = is_exclusive

    def run(self, *, cancel_after: float | None, stop: threading.Event | None) -> Reconciliation:
        """See `SmsVerifyHook.reconcile`."""
        stop = stop or threading.Event()
        resolved = self._recovery.resolve_orders() + self._recovery.resolve_renewals()
        cancelled = list(self._cancel_again(stop))
        leaks = self._leaks(cancel_after, cancelled, stop)
        if cancelled:
            self._note_refunds()
        balance = self._balance()
        total = self._ledger.totals.read()
        with self._store.read() as connection:
            now = self._store.now(connection)
            unknown = self._findings.unknown_calls(self._ledger.open_calls(connection, now), now)
            overcharged = self._findings.overcharged(connection, now)
            held, _ = self._findings.held(connection, now, *REPORTED, unknown=unknown)
        of_kind = {kind: [one.order for one in held if one.kind == kind] for kind in REPORTED}
        report = Reconciliation(
            checked_at=datetime.now(timezone.utc),
            balance=balance,
            spent_today=total.today.amount,
            spent=total.spent.amount,
            unpriced=total.spent.unpriced,
            blocked_until=self._rate_limit.state().blocked_until,
            refunded=total.refunded,
            resolved=[
                ResolvedCall(
                    key=one.key, kind=one.kind, outcome=one.outcome, order_id=next(iter(one.order_ids), None)
                )
                for one in resolved
                if one.outcome != "ambiguous"
            ],
            unknown=unknown,
            cancelled=cancelled,
            to_cancel=of_kind["not_given_back"],
            planned=of_kind["planned"],
            leaks=leaks,
            missing_refunds=of_kind["refund_missing"],
            foreign=of_kind["bought_elsewhere"],
            overcharged=[one.order for one in overcharged],
            foreign_is_fine=not self._is_exclusive,
        )
        for kind, found in report.findings_by_kind.items():
            self._meter.gauge(FINDINGS[kind], len(found))
        for finding in report.findings:
            log.warning("Needs attention: %s", finding)
        return report

    def _cancel_again(self, stop: threading.Event) -> Iterator[int]:
        self._orders.cancelling.close_finished()
        for _ in range(min(len(self._orders.releases.all()), AT_ONCE)):
            _refuse_if(stop)
            yield from self._orders.cancelling.retry_releases(limit=1, even_early=True)

    def _leaks(
        self, cancel_after: float | None, cancelled: list[int], stop: threading.Event
    ) -> list[HeldOrder]:
        """Looks at the orders that no call waits for or has. Cancels them if that is wanted; names the
        others.

        An order that has ended needs no request, and does not count for `AT_ONCE`.
        """
        now = self._ledger.now()
        unused, unclaimed = self._findings.unneeded(now, cancel_after)
        running = [order for order in (*unused, *unclaimed) if not order.ended]
        for order in running[:AT_ONCE]:
            _refuse_if(stop)
            since = self._findings.needed_since(order, now, cancel_after)
            if self._deal_with(order, cancel_after, since):
                cancelled.append(order.order_id)
        return self._findings.leaks(
            self._still_held(unused),
            (
                order
                for order in self._still_held(unclaimed)
                if self._orders.handover.unclaimed_for(order.order_id) is not None
            ),
        )

    def _still_held(self, found: list[Order]) -> Iterator[Order]:
        """These orders as they are now, less those that were or will be cancelled."""
        for order in map(self._known, (one.order_id for one in found)):
            if not order.cancelled and self._orders.releases.of(order.order_id) is None:
                yield order

    def _deal_with(self, order: Order, cancel_after: float | None, since: tuple[float, float]) -> bool:
        """Looks at an order that no call needs, or cancels it. Returns whether it was cancelled."""
        self._orders.handover.note_reconciled(order.order_id)
        if order.product == "esim":
            return False
        if cancel_after is None:
            self._look_at(order.order_id)
            return False
        is_rental = order.product in RENTALS
        reason = f"no call has waited for it for {cancel_after:.0f} s"
        if is_rental:
            reason = "it was never handed over to its buyer"
        return self._orders.cancelling.release(order.order_id, reason, undo=is_rental, unless_since=since)

    def _note_refunds(self) -> None:
        """Only the list says that the money came back."""
        try:
            self._orders.status.read_list()
        except ServiceError as error:
            log.warning("Whether the cancelled orders are refunded cannot be read now: %s", error)

    def _look_at(self, order_id: int) -> None:
        try:
            self._orders.status.read(order_id)
        except SmsVerifyError as error:
            log.warning("Order %d cannot be looked at: %s", order_id, error)

    def _known(self, order_id: int) -> Order:
        return self._orders.records.get(order_id) or Order(order_id=order_id)

    def _balance(self) -> Decimal | None:
        try:
            _, reading = self._wallet.read()
            return None if reading is None else reading.amount
        except ServiceError as error:
            log.warning("The balance cannot be read: %s", error)
            return None


def _refuse_if(stop: threading.Event) -> None:
    if stop.is_set():
        raise WaitStoppedError(
            "the reconciliation was stopped. What it has done is on record: run it again to go on"
        )
