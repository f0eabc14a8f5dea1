"""What needs a person, as the records show it: for `reconcile` after its requests, and for `overview`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import sqlalchemy as sa

from smsverify._orders.handover import is_unclaimed, is_unused
from smsverify._orders.holding import FORGOTTEN
from smsverify._orders.orders import Orders
from smsverify._orders.records import as_order, is_foreign, utc_of
from smsverify._purchases.calls import OpenCall
from smsverify._purchases.ledger import Ledger
from smsverify._purchases.refunds import Refunds
from smsverify._runtime.clock import DAY
from smsverify._runtime.tasks import Task
from smsverify._store.parameters import ACCOUNT, ALIVE_SINCE, NOW, WALL, constants, values_of
from smsverify._store.rows import named
from smsverify._store.store import Store
from smsverify._store.tables import FOR_USE, NOT_ENDED, is_order, orders, purchases, releases
from smsverify.models import CANCELLED, TO_KEEP, Order
from smsverify.reports import HeldOrder, UnknownCall

HeldKind = Literal[
    "not_given_back", "planned", "not_used", "refund_missing", "overcharged", "bought_elsewhere"
]


@dataclass(frozen=True)
class Found:
    """An order that is named to a person.

    Attributes:
        kind: why, in a word.
        order: the order, and why for people.
        product: of the order.
        task: has bought it; `None` where that is unknown.
    """

    kind: HeldKind
    order: HeldOrder
    product: str | None
    task: Task | None


# ------------------------------------------------------------------ which orders

# Orders that were used or waited for since then are not forgotten; the same for those bought to keep.
_BEFORE: sa.BindParameter[float] = sa.bindparam("before", type_=sa.Double)
_KEPT_BEFORE: sa.BindParameter[float] = sa.bindparam("kept_before", type_=sa.Double)
# Refunds that the list has shown until then are late.
_REFUNDED_BEFORE: sa.BindParameter[float] = sa.bindparam("refunded_before", type_=sa.Double)
_COLUMNS = [orders.c[name] for name in Order.model_fields if name in orders.c]


def _select(
    *conditions: sa.ColumnElement[bool] | sa.TextClause,
    reason: sa.ColumnElement[Any] | None = None,
    place: sa.ColumnElement[Any] | None = None,
) -> sa.Select[Any]:
    """The orders that some conditions pick, with the reason where that is on record, and what sorts them."""
    reason = sa.cast(sa.null(), sa.Text) if reason is None else reason
    place = sa.literal_column("0.0", sa.Double) if place is None else sa.func.coalesce(place, 0.0)
    columns = [*_COLUMNS, reason.label("reason"), place.label("place")]
    return sa.select(*columns).where(orders.c.account == ACCOUNT, *conditions)


def _to_release(*, planned: bool) -> sa.Select[Any]:
    is_planned = releases.c.planned if planned else sa.not_(releases.c.planned)
    columns = (releases.c.order_id, releases.c.reason, releases.c.asked_at.label("place"))
    return sa.select(*columns).where(releases.c.account == ACCOUNT, is_planned)


def _unneeded() -> list[sa.Select[Any]]:
    """The orders that no call waits for, and those bought to keep that were never handed over. First come
    those that no reconciliation has dealt with for the longest time.

    One that has ended is named for a day. The many that ended before are no row of the index that the second
    of these uses.
    """
    its_release = sa.and_(releases.c.account == orders.c.account, releases.c.order_id == orders.c.order_id)
    is_released = sa.select(releases.c.order_id).where(its_release).exists()
    unused = (is_unused(_BEFORE, ALIVE_SINCE, _KEPT_BEFORE), sa.text(FOR_USE), sa.not_(is_released))
    # An order that was bought to keep is a leak only where its buyer sends no heartbeat.
    is_kept = orders.c.product.in_(constants(TO_KEEP))
    unclaimed = (is_unclaimed(_KEPT_BEFORE), is_kept, sa.not_(is_released))
    goes_on = sa.text(NOT_ENDED)
    conditions: list[tuple[sa.ColumnElement[bool] | sa.TextClause, ...]] = [
        (*unused, orders.c.first_seen_at >= NOW - DAY, orders.c.status.not_in(constants(CANCELLED))),
        (*unused, orders.c.first_seen_at < NOW - DAY, goes_on),
        (*unclaimed, sa.or_(orders.c.status == "completed", goes_on)),
    ]
    return [_select(*these, place=orders.c.reconciled_at) for these in conditions]


_NOT_USED = _unneeded()
_UNNEEDED = sa.union_all(*_NOT_USED)


def _selects(kind: HeldKind, *, has_candidates: bool) -> list[sa.Select[Any]]:
    if kind in ("not_given_back", "planned"):
        return [_to_release(planned=kind == "planned")]
    if kind == "not_used":
        return _NOT_USED
    if kind == "refund_missing":
        return [_select(orders.c.refund_missing_since > 0, orders.c.refunded_at <= _REFUNDED_BEFORE)]
    is_no_candidate = orders.c.order_id.not_in(sa.bindparam("candidates", expanding=True))
    return [_select(is_foreign(NOW, WALL, DAY), *([is_no_candidate] if has_candidates else []))]


@cache
def _held(kinds: tuple[HeldKind, ...], *, has_candidates: bool) -> sa.Select[Any]:
    """The orders of these kinds, in this order, each with the task that has bought it. The candidates of
    unknown calls, where there are any, are left out of those that were bought elsewhere.

    Which they are is found out first: a text and a plan without the orders' other columns are much shorter.
    """
    picked = [
        one.with_only_columns(
            *(one.selected_columns[name] for name in ("order_id", "reason", "place")),
            sa.literal_column(str(rank), sa.Integer).label("rank"),
        )
        for rank, kind in enumerate(kinds)
        for one in _selects(kind, has_candidates=has_candidates)
    ]
    every = sa.union_all(*picked).subquery()
    found = (
        sa.select(every, sa.func.count().over().label("total"))
        .order_by(every.c.rank, every.c.place, every.c.order_id)
        .limit(sa.bindparam("most"))
        .subquery()
    )
    is_its = sa.and_(purchases.c.account == ACCOUNT, purchases.c.kind == "order")
    # An order has few calls, and its index finds them.
    task = sa.select(sa.func.max(sa.case((is_its, purchases.c.task)))).where(
        purchases.c.order_id == found.c.order_id
    )
    columns = [column for column in _COLUMNS if column is not orders.c.order_id]
    return (
        sa.select(found, *columns, task.scalar_subquery().label("task"))
        .join(orders, is_order(ACCOUNT, found.c.order_id))
        .order_by(found.c.rank, found.c.place, found.c.order_id)
    )


def _found(kind: HeldKind, row: Any) -> Found:
    order = HeldOrder(
        order_id=row.order_id,
        service=row.service,
        phone=row.phone,
        status=row.status,
        price=row.price,
        created_at=utc_of(row.created_at),
        key=row.key,
        reason=_reason(kind, row),
    )
    return Found(kind, order, row.product, Task.read(row.task))


def _reason(kind: HeldKind, row: Any) -> str:
    if kind in ("not_given_back", "planned"):
        return f"it is to be cancelled ({row.reason})"
    if kind == "not_used":
        return why_unclaimed(as_order(row)) if row.product in TO_KEEP else _why_unused(row.status)
    return _why_missing(row.order_id) if kind == "refund_missing" else "it was not bought through this store"


ALL = 1_000_000  # of a kind, for a report that leaves none out


class Findings:
    """What the records of one account leave to a person. No method asks the service.

    Args:
        store, ledger, orders, refunds: of the account.
        grace: seconds after which a call that does not show should have been decided.
        alive: seconds for which a wait is alive after its last heartbeat.
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
        self._refunds = refunds
        self._grace = grace
        self._alive = alive
        self._forgotten = FORGOTTEN * time_scale

    def unknown_calls(self, open_calls: Iterable[OpenCall], now: float) -> list[UnknownCall]:
        """Those of some open calls, as of now, whose answer does not come any more."""
        return [
            UnknownCall(
                namespace=call.namespace,
                key=call.key,
                kind=call.kind,
                sent_at=self._store.utc(call.sent_at),
                price=call.price,
                order_ids=call.candidates or ((call.request["order_id"],) if call.kind == "renewal" else ()),
                overdue=bool(call.candidates) or now > call.sent_at + self._grace,
                task=Task.read(call.task),
            )
            for call in open_calls
            if not call.under_way
        ]

    def held(
        self,
        connection: sa.Connection,
        now: float,
        *kinds: HeldKind,
        unknown: Iterable[UnknownCall],
        most: int = ALL,
    ) -> tuple[list[Found], int]:
        """The orders that a person should know of, kind by kind, and how many there are.

        Args:
            connection: of a transaction.
            now: seconds by the store's clock.
            *kinds: which of them. `not_given_back` are to be cancelled now, `planned` later; `not_used` are
                those of `unneeded`; of `refund_missing` the list shows a refund that the wallet has never
                shown; `bought_elsewhere` are of the last day, and of no unknown call.
            unknown: the calls whose outcome is unknown.
            most: how many are named.
        """
        candidates = sorted({order_id for call in unknown for order_id in call.order_ids})
        values = {**self._moments(now), "candidates": candidates, "most": most}
        rows = named(connection.execute(_held(kinds, has_candidates=bool(candidates)), values))
        return [_found(kinds[row.rank], row) for row in rows], rows[0].total if rows else 0

    def unneeded(self, now: float, cancel_after: float | None = None) -> tuple[list[Order], list[Order]]:
        """The orders that no call waits for, and those bought to keep that were never handed over. First come
        those that no reconciliation has dealt with for the longest time.

        Args:
            now: seconds by the store's clock.
            cancel_after: seconds after which a number counts as forgotten, if that is sooner than by default.
        """
        with self._store.read() as connection:
            rows = connection.execute(_UNNEEDED, self._moments(now, cancel_after)).all()
        found = [as_order(row) for row in sorted(rows, key=lambda row: (row.place, row.order_id))]
        return (
            [order for order in found if order.product not in TO_KEEP],
            [order for order in found if order.product in TO_KEEP],
        )

    def needed_since(self, order: Order, now: float, cancel_after: float | None) -> tuple[float, float]:
        """An order is needed again if it was claimed after the first of these times, or if its wait gave a
        heartbeat after the second one.

        Args:
            order: one that `unneeded` has found.
            now: seconds by the store's clock, as given to `unneeded`.
            cancel_after: the same.
        """
        patience = self._patience(cancel_after)
        if order.product in TO_KEEP:
            patience = max(self._forgotten, cancel_after or 0.0)
        return now - patience, now - self._alive

    def leaks(self, unused: Iterable[Order], unclaimed: Iterable[Order]) -> list[HeldOrder]:
        """Why each of these orders, as `unneeded` has found them, costs money for nothing."""
        return [HeldOrder.of(order, _why_unused(order.status)) for order in unused] + [
            HeldOrder.of(order, why_unclaimed(order)) for order in unclaimed
        ]

    def overcharged(self, connection: sa.Connection, now: float) -> list[Found]:
        """The purchases of the last day that were charged more than was allowed."""
        charges = self._ledger.spending.overcharged(connection, now - DAY)
        known = self._records.known_in(connection, (one.order_id for one in charges))
        return [
            Found(
                "overcharged",
                HeldOrder.of(known[one.order_id], f"was charged more than {one.allowed}"),
                known[one.order_id].product,
                one.task,
            )
            for one in charges
        ]

    def _patience(self, cancel_after: float | None) -> float:
        return self._forgotten if cancel_after is None else min(self._forgotten, cancel_after)

    def _moments(self, now: float, cancel_after: float | None = None) -> dict[str, Any]:
        """What the statements go by."""
        return {
            **values_of(self._store, self._records.account, now, self._alive),
            "before": now - self._patience(cancel_after),
            "kept_before": now - self._forgotten,
            "refunded_before": now - self._refunds.grace,
        }


def why_unclaimed(order: Order) -> str:
    """Why an order that was never handed over is in the report, and what a person can do."""
    is_lost = order.product == "esim" and order.activation_code is None
    code = "; its activation code is not on record, the dashboard shows it" if is_lost else ""
    return (
        f"it was bought, but never handed over to its buyer{code}. Call again with its key {order.key!r} to "
        f"get it, keep it with `smsverify status {order.order_id}`, or give it back with "
        f"`smsverify cancel {order.order_id}`"
    )


def _why_missing(order_id: int) -> str:
    return (
        "it is listed as cancelled, but its refund has not reached the wallet, or not all of it. It counts "
        "as spent. Ask the service. If the money is there, because it came together with other money, run "
        f"`smsverify resolve --refunded {order_id}`"
    )


def _why_unused(status: str) -> str:
    return "its code was never used" if status == "completed" else "no call waits for it"
