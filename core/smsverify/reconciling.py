"""Comparing what is on record with the service: what is open is settled, what is lost is named."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from smsverify.api import ServiceApi
from smsverify.errors import ServiceError, SmsVerifyError, WaitStoppedError
from smsverify.ledger import Ledger
from smsverify.models import RENTALS, Order
from smsverify.orders import Orders
from smsverify.recovery import Recovery
from smsverify.spending import DAY
from smsverify.store import Store

log = logging.getLogger(__name__)

FORGOTTEN = 900.0  # seconds without anybody waiting after which a number is reported as forgotten
KEPT = (*RENTALS, "esim")  # what is bought to be kept, and so never forgotten
AT_ONCE = 20  # orders that one reconciliation looks at or cancels, so that its cost stays small


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True)


class SettledCall(_Report):
    """A paid call whose outcome was unknown, and is not any more.

    Attributes:
        key, kind: of the call; `order` or `renewal`.
        outcome: `bought` or `not made`.
        order_id: what it has bought or renewed.
    """

    key: str
    kind: str
    outcome: str
    order_id: int | None = None


class UnknownCall(_Report):
    """A paid call whose outcome is unknown.

    Attributes:
        namespace, key, kind: of the call; `order` or `renewal`.
        sent_at: UTC.
        price: USD that it would have cost; `None` where that is unknown.
        order_ids: the orders that may be it, where a person has to tell; for a renewal, its order.
        overdue: whether it will not settle by itself.
    """

    namespace: str
    key: str
    kind: str
    sent_at: datetime
    price: Decimal | None
    order_ids: tuple[int, ...]
    overdue: bool


class HeldOrder(_Report):
    """An order that costs money and that nobody uses.

    Attributes:
        order_id, service, phone, status: as last seen.
        price: USD; `None` where that is unknown.
        created_at: UTC, `None` where it is unknown.
        key: of its purchase; `None` where it was not bought through this store.
        reason: why it is here, for people.
    """

    order_id: int
    service: str | None
    phone: str | None
    status: str
    price: Decimal | None
    created_at: datetime | None
    key: str | None
    reason: str


class Reconciliation(_Report):
    """What a reconciliation has found and done.

    Attributes:
        checked_at: UTC.
        balance: the wallet, USD; `None` where it could not be read.
        spent_today: USD spent since midnight (UTC), refunds taken off.
        spent: USD spent since the store exists, refunds taken off.
        refunded: USD that came back, as the service's list shows it.
        settled: calls whose outcome was unknown until now.
        unknown: calls whose outcome is unknown still.
        cancelled: orders that were cancelled just now.
        to_cancel: orders that are to be cancelled, and could not be yet.
        planned: orders that are to be cancelled in a while, unless the task that they were bought for claims
            them until then; no finding.
        leaks: orders that are paid, not refunded and not used, and that nobody waits for; one that has ended
            stays here for a day.
        foreign: orders of the last day in the service's list that cost money and were not bought through this
            store. Where others buy on the account too, they are no finding.
        unpriced: how many paid calls have no known price, and are not in `spent`.
    """

    checked_at: datetime
    balance: Decimal | None
    spent_today: Decimal
    spent: Decimal
    refunded: Decimal
    settled: list[SettledCall]
    unknown: list[UnknownCall]
    cancelled: list[int]
    to_cancel: list[HeldOrder]
    planned: list[HeldOrder]
    leaks: list[HeldOrder]
    foreign: list[HeldOrder]
    unpriced: int = 0
    foreign_is_fine: bool = False

    @property
    def findings(self) -> list[str]:
        """What a person should look at, a line each; empty where all is well."""
        lines = [
            f"{call.key} ({call.kind}, {_price(call.price)}) was sent at "
            f"{call.sent_at:%Y-%m-%d %H:%M:%S} UTC, and nobody knows whether it was carried out"
            f"{_candidates(call)}"
            for call in self.unknown
            if call.overdue
        ]
        held = [*self.to_cancel, *self.leaks, *([] if self.foreign_is_fine else self.foreign)]
        return lines + [
            f"order {order.order_id} ({order.service or '-'}, {_price(order.price)}, {order.status}): "
            f"{order.reason}"
            for order in held
        ]

    def as_dict(self) -> dict[str, Any]:
        """All fields and the findings, ready for JSON."""
        return self.model_dump(mode="json", exclude={"foreign_is_fine"}) | {"findings": self.findings}

    def as_text(self) -> str:
        """What a person wants to know, in lines."""
        balance = "unknown" if self.balance is None else f"{self.balance:.2f} USD"
        settled = [
            f"settled: {call.key} ({call.kind}) {call.outcome}"
            + (f", order {call.order_id}" if call.order_id else "")
            for call in self.settled
        ]
        return "\n".join(
            [
                f"wallet {balance}; spent today {self.spent_today:.2f} USD, in all {self.spent:.2f} USD; "
                f"refunded {self.refunded:.2f} USD"
                + (f"; {self.unpriced} calls of unknown price" if self.unpriced else ""),
                *settled,
                *(f"cancelled: order {order_id}" for order_id in self.cancelled),
                *(f"open: {finding}" for finding in self.findings),
                "all is accounted for" if not self.findings else f"{len(self.findings)} to look at",
            ]
        )


class Reconciler:
    """Reconciles one account.

    Args:
        store, api, ledger, orders, recovery: of the account.
        grace: seconds after which a call that does not show should have been decided.
        is_exclusive: whether nobody else buys on this account.
        alive: seconds for which a wait is alive after its last sign of life.
        tempo: how long the service's minute is in real minutes.
    """

    def __init__(
        self,
        store: Store,
        api: ServiceApi,
        ledger: Ledger,
        orders: Orders,
        recovery: Recovery,
        *,
        grace: float,
        is_exclusive: bool,
        alive: float,
        tempo: float,
    ) -> None:
        self._store = store
        self._api = api
        self._ledger = ledger
        self._book = ledger.book
        self._orders = orders
        self._recovery = recovery
        self._grace = grace
        self._is_exclusive = is_exclusive
        self._alive = alive
        self._tempo = tempo

    def run(self, *, cancel_after: float | None, stop: threading.Event | None) -> Reconciliation:
        """See `SmsVerifyHook.reconcile`."""
        stop = stop or threading.Event()
        settled = self._recovery.settle() + self._recovery.settle_renewals()
        cancelled = list(self._cancel_again(stop))
        leaks = self._leaks(cancel_after, cancelled, stop)
        if cancelled:
            self._note_refunds()
        with self._store.read() as connection:
            now = self._store.now(connection)
            spent_today = self._ledger.spending.today(connection).amount
            spent = self._ledger.spending.in_all(connection)
            unknown = self._unknown(connection, now)
        candidates = {order_id for call in unknown for order_id in call.order_ids}
        open_releases = [
            (release, _held(self._known(release.order_id), f"to be cancelled ({release.reason})"))
            for release in self._book.open_releases()
        ]
        report = Reconciliation(
            checked_at=datetime.now(timezone.utc),
            balance=self._balance(),
            spent_today=spent_today,
            spent=spent.amount,
            unpriced=spent.unpriced,
            refunded=self._book.refunded(),
            settled=[
                SettledCall(
                    key=one.key,
                    kind=one.kind,
                    outcome=one.outcome,
                    order_id=one.order_ids[0] if one.order_ids else None,
                )
                for one in settled
                if one.outcome != "ambiguous"
            ],
            unknown=unknown,
            cancelled=cancelled,
            to_cancel=[held for release, held in open_releases if not release.is_planned],
            planned=[held for release, held in open_releases if release.is_planned],
            leaks=leaks,
            foreign=[
                _held(order, "was not bought through this store")
                for order in self._book.foreign(DAY)
                if order.order_id not in candidates
            ],
            foreign_is_fine=not self._is_exclusive,
        )
        for finding in report.findings:
            log.warning("To look at: %s", finding)
        return report

    def _cancel_again(self, stop: threading.Event) -> Iterator[int]:
        for _ in range(min(len(self._book.open_releases()), AT_ONCE)):
            _refuse_if(stop)
            yield from self._orders.retry_releases(limit=1, even_early=True)

    def _leaks(
        self, cancel_after: float | None, cancelled: list[int], stop: threading.Event
    ) -> list[HeldOrder]:
        """Looks at the numbers that nobody waits for, cancels them if that is wanted, and names the rest."""
        patience = FORGOTTEN * self._tempo
        if cancel_after is not None:
            patience = min(patience, cancel_after)
        with self._store.read() as connection:
            now = self._store.now(connection)
        limits = (now - patience, now - self._alive)
        unclaimed = self._ledger.unclaimed()
        unused = [
            order
            for order in self._book.unused(limits[0], alive_since=limits[1], ended_since=now - DAY)
            if order.product not in KEPT and self._book.release_of(order.order_id) is None
        ]
        for order in unused[:AT_ONCE]:
            _refuse_if(stop)
            if not order.ended:
                self._look_at(order.order_id)
            if cancel_after is not None and not self._known(order.order_id).ended:
                reason = f"nobody has waited for it for {cancel_after:.0f} s"
                if self._orders.release(order.order_id, reason, unless_since=limits):
                    cancelled.append(order.order_id)
        known = [self._known(order.order_id) for order in unused]
        leaks = [
            _held(order, "its code was never used" if order.status == "completed" else "nobody waits for it")
            for order in known
            if not order.cancelled and self._book.release_of(order.order_id) is None
        ]
        kept = [self._known(order_id) for order_id in unclaimed]
        return leaks + [_held(order, _why_unclaimed(order)) for order in kept if order.product in KEPT]

    def _note_refunds(self) -> None:
        """Only the list says that the money came back."""
        try:
            self._orders.read_list()
        except ServiceError as error:
            log.warning("Whether what was cancelled is refunded can not be read: %s", error)

    def _look_at(self, order_id: int) -> None:
        try:
            self._orders.look(order_id)
        except SmsVerifyError as error:
            log.warning("Order %d can not be looked at: %s", order_id, error)

    def _known(self, order_id: int) -> Order:
        return self._book.get(order_id) or Order(order_id=order_id)

    def _unknown(self, connection: sa.Connection, now: float) -> list[UnknownCall]:
        return [
            UnknownCall(
                namespace=call.namespace,
                key=call.key,
                kind=call.kind,
                sent_at=datetime.fromtimestamp(call.sent_at, timezone.utc),
                price=call.price,
                order_ids=call.candidates or ((call.request["order_id"],) if call.kind == "renewal" else ()),
                overdue=bool(call.candidates) or now > call.sent_at + self._grace,
            )
            for call in self._ledger.open_calls(connection)
            if not call.under_way
        ]

    def _balance(self) -> Decimal | None:
        try:
            return self._api.get_balance().amount
        except ServiceError as error:
            log.warning("The balance can not be read: %s", error)
            return None


def _held(order: Order, reason: str) -> HeldOrder:
    return HeldOrder(
        order_id=order.order_id,
        service=order.service,
        phone=order.phone,
        status=order.status,
        price=order.price,
        created_at=order.created_at,
        key=order.key,
        reason=reason,
    )


def _why_unclaimed(order: Order) -> str:
    lost = ", and its activation code is lost" if order.product == "esim" else ""
    return f"was bought by a call whose answer was lost{lost}; call again with its key {order.key!r}"


def _refuse_if(stop: threading.Event) -> None:
    if stop.is_set():
        raise WaitStoppedError("the reconciliation was stopped; what it has done is on record")


def _price(price: Decimal | None) -> str:
    return "unknown price" if price is None else f"{price:.2f} USD"


def _candidates(call: UnknownCall) -> str:
    if not call.order_ids or call.kind == "renewal":
        return ""
    named = ", ".join(map(str, call.order_ids))
    return f"; it may be order {named}: tell with `smsverify settle`"
