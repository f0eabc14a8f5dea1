"""What needs a person, as the records show it: for `reconcile` after its requests, and for `overview`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone

import sqlalchemy as sa

from smsverify._orders.holding import FORGOTTEN
from smsverify._orders.orders import Orders
from smsverify._purchases.ledger import Ledger
from smsverify._purchases.refunds import Refunds
from smsverify._purchases.spending import DAY
from smsverify._store.store import Store
from smsverify.models import RENTALS, Order
from smsverify.overview import Task
from smsverify.reports import HeldOrder, UnknownCall

TO_KEEP = (*RENTALS, "esim")  # products that are bought to be kept: no call has to wait for these

NEVER_CAME = (
    "it is listed as cancelled, but its refund has not reached the wallet, or not all of it: it counts as "
    "spent. Ask the service"
)


class Findings:
    """What the records of one account leave to a person. No method asks the service.

    Args:
        store, ledger, orders, refunds: of the account.
        grace: seconds after which a call that does not show should have been decided.
        alive: seconds for which a wait is alive after its last sign of life.
        time_scale: how long the service's minute is in real minutes.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        orders: Orders,
        refunds: Refunds,
        *,
        grace: float,
        alive: float,
        time_scale: float,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._records = orders.records
        self._releases = orders.releases
        self._handover = orders.handover
        self._refunds = refunds
        self._grace = grace
        self._alive = alive
        self._forgotten = FORGOTTEN * time_scale

    def unknown_calls(self, connection: sa.Connection) -> list[UnknownCall]:
        """The paid calls whose outcome is unknown, and whose answer does not come any more."""
        now = self._store.now(connection)
        return [
            UnknownCall(
                namespace=call.namespace,
                key=call.key,
                kind=call.kind,
                sent_at=datetime.fromtimestamp(self._store.as_wall(call.sent_at), timezone.utc),
                price=call.price,
                order_ids=call.candidates or ((call.request["order_id"],) if call.kind == "renewal" else ()),
                overdue=bool(call.candidates) or now > call.sent_at + self._grace,
                task=Task.read(call.task),
            )
            for call in self._ledger.open_calls(connection)
            if not call.under_way
        ]

    def unneeded(self, now: float, cancel_after: float | None = None) -> tuple[list[Order], list[Order]]:
        """The orders that no call waits for, and those bought to keep that were never handed over.

        Args:
            now: seconds by the store's clock.
            cancel_after: seconds after which a number counts as forgotten, if that is sooner than by default.
        """
        patience = self._forgotten if cancel_after is None else min(self._forgotten, cancel_after)
        unused = self._handover.unused(
            now - patience, alive_since=now - self._alive, ended_since=now - DAY, not_of=TO_KEEP
        )
        # An order that was bought to keep is a leak only where its buyer gives no sign of life.
        unclaimed = [
            order for order in self._handover.unclaimed(now - self._forgotten) if order.product in TO_KEEP
        ]
        released = {release.order_id for release in self._releases.all()} if unused or unclaimed else set()
        return (
            [order for order in unused if not order.cancelled and order.order_id not in released],
            [order for order in unclaimed if not order.cancelled and order.order_id not in released],
        )

    def leaks(self, unused: Iterable[Order], unclaimed: Iterable[Order]) -> list[HeldOrder]:
        """Why each of these orders, as `unneeded` has found them, costs money for nothing."""
        return [HeldOrder.of(order, _why_unused(order)) for order in unused] + [
            HeldOrder.of(order, why_unclaimed(order)) for order in unclaimed
        ]

    def releases(self, *, planned: bool) -> list[HeldOrder]:
        """The orders that are to be cancelled now, or those that this is planned for."""
        found = [release for release in self._releases.all() if release.is_planned == planned]
        known = self._records.known(release.order_id for release in found)
        return [
            HeldOrder.of(known[release.order_id], f"it is to be cancelled ({release.reason})")
            for release in found
        ]

    def missing_refunds(self) -> list[HeldOrder]:
        """The orders that the list shows as cancelled, and whose refund the wallet has never shown."""
        known = self._records.known(self._refunds.missing())
        return [HeldOrder.of(order, NEVER_CAME) for order in known.values()]

    def foreign(self, unknown: Iterable[UnknownCall]) -> list[HeldOrder]:
        """The orders of the last day that were not bought through this store, nor by one of these calls."""
        candidates = {order_id for call in unknown for order_id in call.order_ids}
        return [
            HeldOrder.of(order, "it was not bought through this store")
            for order in self._records.foreign(DAY)
            if order.order_id not in candidates
        ]

    def overcharged(self, connection: sa.Connection) -> list[HeldOrder]:
        """The purchases of the last day that were charged more than was allowed."""
        found = self._ledger.spending.overcharged(connection, self._store.now(connection) - DAY)
        known = self._records.known(order_id for order_id, _ in found)
        return [HeldOrder.of(known[order_id], reason) for order_id, reason in found]


def why_unclaimed(order: Order) -> str:
    """Why an order that was never handed over is in the report, and what a person can do."""
    is_lost = order.product == "esim" and order.activation_code is None
    code = "; its activation code is not on record, the dashboard shows it" if is_lost else ""
    return (
        f"it was bought, but never handed over to its buyer{code}. Call again with its key {order.key!r} to "
        f"get it, keep it with `smsverify status {order.order_id}`, or give it back with "
        f"`smsverify cancel {order.order_id}`"
    )


def _why_unused(order: Order) -> str:
    return "its code was never used" if order.status == "completed" else "no call waits for it"
