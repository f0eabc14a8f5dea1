"""What is known of the orders: what they are, who waits for them, and which are to be given back.

Every order that was ever bought here or seen in the service's list has a row, and keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from smsverify.models import CANCELLED, RENTALS, Order, OrderStatus, period_of, was_cancelled
from smsverify.store import Store, orders, purchases, waits

# Of an order that is cancelled now: what it was before.
_STATUS_BEFORE = sa.case(
    (sa.func.lower(orders.c.status).in_(sorted(CANCELLED)), orders.c.cancelled_from), else_=orders.c.status
)


@dataclass(frozen=True)
class Release:
    """An order that somebody wants to be cancelled.

    Attributes:
        order_id: the order.
        reason: why, for people.
        scope: what it may be to be cancelled: `pending` and without an SMS, `unused` (also active, without an
            SMS), or `any`.
        is_planned: whether it is to be cancelled later only, unless somebody claims it until then.
    """

    order_id: int
    reason: str
    scope: str = "pending"
    is_planned: bool = False


class OrderBook:
    """The orders of one account, as last seen.

    Args:
        store: where they are kept.
        account: whose they are.
    """

    def __init__(self, store: Store, account: str) -> None:
        self._store = store
        self._account = account

    def row(self, connection: sa.Connection, order_id: int) -> Order:
        """An order that is known, inside of a transaction."""
        return _order(connection.execute(sa.select(orders).where(self._is(order_id))).one())

    def get(self, order_id: int) -> Order | None:
        """An order as last seen; `None` where it is not known here."""
        with self._store.read() as connection:
            row = connection.execute(sa.select(orders).where(self._is(order_id))).one_or_none()
        return _order(row) if row is not None else None

    def bought_since(self, order_id: int) -> float | None:
        """Seconds since an order of ours is known, by the store's clock; `None` where it is not ours."""
        with self._store.read() as connection:
            seen_at = sa.select(orders.c.first_seen_at).where(self._is(order_id), orders.c.key.is_not(None))
            since = connection.execute(seen_at).scalar()
            return None if since is None else self._store.now(connection) - since

    def saw(self, status: OrderStatus) -> None:
        """Notes an order's status, also of an order that was not bought here."""
        values: dict[str, Any] = {"status": status.status}
        if status.phone is not None:
            values["phone"] = status.phone
        if status.expires_at is not None:
            values |= {
                "expires_at": status.expires_at.timestamp(),
                "expires_estimated": False,
            }
        first = dict(values)
        if status.cancelled:
            values["cancelled_from"] = _STATUS_BEFORE
        with self._store.write() as connection:
            self._upsert(connection, status.order_id, values, first)

    def saw_list(self, listed: Sequence[Order]) -> None:
        """Keeps every order that the service has ever listed, with when it was first seen.

        Of those that are known already, the list tells that they have ended, and that their price came back:
        not of a rental that was cancelled while it was active, which may be refunded or not.
        """
        if not listed:
            return
        with self._store.write() as connection:
            now = self._store.now(connection)
            rows = [
                {
                    "account": self._account,
                    "order_id": order.order_id,
                    "service": order.service,
                    "phone": order.phone,
                    "price": str(order.price) if order.price is not None else None,
                    "status": order.status,
                    "created_at": order.created_at.timestamp() if order.created_at else None,
                    "first_seen_at": now,
                }
                for order in listed
            ]
            connection.execute(self._store.insert(orders).on_conflict_do_nothing(), rows)
            by_id = {order.order_id: order for order in listed}
            known = connection.execute(
                sa.select(orders).where(orders.c.account == self._account, orders.c.order_id.in_(by_id))
            ).all()
            for row in known:
                order = by_id[row.order_id]
                if news := _news(row, order, now):
                    connection.execute(sa.update(orders).where(self._is(row.order_id)).values(**news))
                if "price" in news and row.key is not None:
                    self._correct_charge(connection, row.order_id, news["price"])

    def _correct_charge(self, connection: sa.Connection, order_id: int, price: str) -> None:
        connection.execute(
            sa.update(purchases)
            .where(
                purchases.c.account == self._account,
                purchases.c.kind == "order",
                purchases.c.state == "bought",
                purchases.c.order_id == order_id,
            )
            .values(charge=price)
        )

    def assign(self, connection: sa.Connection, order_id: int, key: str, request: Mapping[str, Any]) -> None:
        """Notes which purchase an order of the list belongs to, inside of a transaction."""
        connection.execute(
            sa.update(orders)
            .where(self._is(order_id))
            .values(
                key=key,
                product=request["product"],
                service=request["name"],
                country=request["country_name"],
                duration=request["duration"],
            )
        )
        if request["product"] in RENTALS:
            # Whether it was in use when it was cancelled, and so refunded, nobody has seen.
            this = sa.and_(self._is(order_id), orders.c.status != "refunded")
            connection.execute(sa.update(orders).where(this).values(refunded_at=None))

    def extend(self, connection: sa.Connection, order_id: int, renewals: int) -> None:
        """Notes that a rental was renewed: its end, where one is known, moves by its period.

        Args:
            connection: of a transaction.
            order_id: the rental.
            renewals: how often it had been renewed before.
        """
        known = self.row(connection, order_id)
        period = period_of(known, renewals)
        if known.expires_at is not None and period is not None:
            end = known.expires_at + period
            values = {"expires_at": end.timestamp(), "expires_estimated": True}
            connection.execute(sa.update(orders).where(self._is(order_id)).values(**values))

    def rentals(self) -> list[Order]:
        """The rentals that were bought here, whatever has become of them."""
        with self._store.read() as connection:
            rows = connection.execute(
                sa.select(orders)
                .where(
                    orders.c.account == self._account,
                    orders.c.key.is_not(None),
                    orders.c.product.in_(RENTALS),
                )
                .order_by(orders.c.order_id)
            ).all()
        return [_order(row) for row in rows]

    def unowned(self, connection: sa.Connection, since: float) -> list[tuple[Order, float]]:
        """The orders that belong to no purchase of ours, with when each was first seen, the newest first.

        Args:
            connection: of a transaction.
            since: leaves out those that were first seen before, in seconds since 1970.
        """
        rows = connection.execute(
            sa.select(orders)
            .where(
                orders.c.account == self._account,
                orders.c.key.is_(None),
                orders.c.first_seen_at >= since,
            )
            .order_by(orders.c.order_id.desc())
        ).all()
        return [(_order(row), row.first_seen_at) for row in rows]

    def knew_any(self, connection: sa.Connection, before: float) -> bool:
        """Whether any order had been seen before a time, in seconds since 1970."""
        earliest = sa.select(sa.func.min(orders.c.first_seen_at)).where(orders.c.account == self._account)
        seen = connection.execute(earliest).scalar()
        return seen is not None and seen < before

    def touch(self, order_id: int) -> None:
        """Notes that somebody looks at an order that is known, and so has not forgotten it."""
        with self._store.write() as connection:
            connection.execute(
                sa.update(orders).where(self._is(order_id)).values(waiter_since=self._store.now(connection))
            )

    def hand_out(self, order_id: int) -> None:
        """Notes that somebody needs an order from now on; a release that is on record is off."""
        is_any = orders.c.release_scope == "any"
        values = {
            "release_asked_at": sa.case((is_any, orders.c.release_asked_at), else_=None),
            "release_reason": sa.case((is_any, orders.c.release_reason), else_=None),
        }
        with self._store.write() as connection:
            now = self._store.now(connection)
            connection.execute(sa.update(orders).where(self._is(order_id)).values(waiter_since=now, **values))

    def used(self, order_id: int) -> None:
        """Notes that an order's code was handed out."""
        with self._store.write() as connection:
            connection.execute(
                sa.update(orders)
                .where(self._is(order_id), orders.c.used_at.is_(None))
                .values(
                    used_at=self._store.now(connection),
                    release_asked_at=None,
                    release_reason=None,
                )
            )

    def was_used(self, order_id: int) -> bool:
        """Whether an order's code was handed out."""
        with self._store.read() as connection:
            return (
                connection.execute(sa.select(orders.c.used_at).where(self._is(order_id))).scalar() is not None
            )

    # -------------------------------------------------------------- who waits, and what is to be given back

    def claim(self, order_id: int, waiter: str) -> None:
        """Notes who waits for an order now; a release that an earlier waiter asked for is off."""
        # The same waiter's own stays: it may have been killed before this claim of its got here.
        is_same = orders.c.waiter == waiter
        values = {
            "release_asked_at": sa.case((is_same, orders.c.release_asked_at), else_=None),
            "release_reason": sa.case((is_same, orders.c.release_reason), else_=None),
            "waiter": waiter,
        }
        with self._store.write() as connection:
            since = {"waiter_since": self._store.now(connection)}
            first = {"status": "pending", "waiter": waiter} | since
            self._upsert(connection, order_id, values | since, first)

    def ask_release(
        self,
        order_id: int,
        reason: str,
        *,
        waiter: str | None = None,
        scope: str = "pending",
        patience: float = 0.0,
        is_planned: bool = False,
        unless_since: tuple[float, float] | None = None,
    ) -> bool:
        """Records that an order is to be cancelled; `False` where another waiter has it, or its code was
        handed out.

        Args:
            order_id: the order.
            reason: why, for people.
            waiter: who gives it up; `None` for somebody who decides for all.
            scope: see `Release`; a wider one that is on record stays.
            patience: seconds until others try, should the asker not get to it.
            is_planned: nobody is to try before.
            unless_since: leaves alone what somebody has claimed after the first of these times, or waits for
                with a sign of life after the second.
        """
        this = self._is(order_id)
        if scope != "any":
            this = sa.and_(this, orders.c.used_at.is_(None))
        if unless_since is not None:
            claimed, alive = unless_since
            is_old = sa.func.coalesce(orders.c.waiter_since, 0.0) <= claimed
            this = sa.and_(this, is_old, sa.not_(_is_awaited(alive)))
        if waiter is not None:
            this = sa.and_(this, sa.or_(orders.c.waiter.is_(None), orders.c.waiter == waiter))
        with self._store.write() as connection:
            now = self._store.now(connection)
            is_open = orders.c.release_asked_at.is_not(None)
            stays = sa.case((is_open, orders.c.release_scope), else_="pending")
            values = {
                "release_asked_at": now,
                "release_reason": reason,
                "release_scope": scope if scope != "pending" else stays,
                "release_planned": is_planned,
                "release_tries": sa.case((is_open, orders.c.release_tries), else_=0),
                "release_next_at": now + patience,
            }
            self._upsert(connection, order_id, {})
            return bool(connection.execute(sa.update(orders).where(this).values(**values)).rowcount)

    def release_of(self, order_id: int) -> Release | None:
        """What is on record of an order that is to be cancelled; `None` where it is not."""
        is_open = orders.c.release_asked_at.is_not(None)
        with self._store.read() as connection:
            row = connection.execute(sa.select(orders).where(self._is(order_id), is_open)).one_or_none()
        return _release(row) if row is not None else None

    def release_done(self, order_id: int) -> None:
        """The order was cancelled, or there is nothing to give back."""
        with self._store.write() as connection:
            connection.execute(
                sa.update(orders).where(self._is(order_id)).values(release_asked_at=None, release_reason=None)
            )

    def open_releases(self) -> list[Release]:
        """The orders that are to be cancelled and have not been yet."""
        with self._store.read() as connection:
            rows = connection.execute(
                sa.select(orders)
                .where(
                    orders.c.account == self._account,
                    orders.c.release_asked_at.is_not(None),
                )
                .order_by(orders.c.release_asked_at)
            ).all()
        return [_release(row) for row in rows]

    def take_due_releases(
        self, pause: float, longest: float, *, limit: int, even_early: bool = False
    ) -> list[Release]:
        """Claims releases that it is time to try again, for whoever asks first.

        Args:
            pause: seconds until the next try, doubled with each.
            longest: seconds that this pause never exceeds.
            limit: how many at the most; those that have waited longest.
            even_early: takes those too whose time has not come.
        """
        is_open = sa.and_(orders.c.account == self._account, orders.c.release_asked_at.is_not(None))
        may_be_early = sa.not_(orders.c.release_planned) if even_early else sa.false()
        with self._store.read() as connection:
            now = self._store.now(connection)
            rows = connection.execute(
                sa.select(orders)
                .where(is_open, sa.or_(orders.c.release_next_at <= now, may_be_early))
                .order_by(orders.c.release_next_at)
                .limit(limit)
            ).all()
        taken = []
        for row in rows:
            wait = min(pause * 2.0 ** min(row.release_tries, 60), longest)
            with self._store.write() as connection:
                claimed = connection.execute(
                    sa.update(orders)
                    .where(is_open, self._is(row.order_id), orders.c.release_next_at == row.release_next_at)
                    .values(
                        release_next_at=now + wait,
                        release_tries=row.release_tries + 1,
                        release_planned=False,
                    )
                )
            if claimed.rowcount:
                taken.append(_release(row))
        return taken

    # -------------------------------------------------------------- what a reconciliation asks

    def unused(self, before: float, *, alive_since: float, ended_since: float) -> list[Order]:
        """The orders that were bought here, are not refunded and not used, and that nobody waits for.

        Args:
            before: seconds since 1970; only orders that were bought and last waited for earlier.
            alive_since: a wait that was seen later is alive.
            ended_since: of the orders that have ended, only those that were bought later.
        """
        bought_at = sa.func.coalesce(orders.c.created_at, orders.c.first_seen_at)
        with self._store.read() as connection:
            rows = connection.execute(
                sa.select(orders)
                .where(
                    orders.c.account == self._account,
                    orders.c.key.is_not(None),
                    orders.c.used_at.is_(None),
                    orders.c.refunded_at.is_(None),
                    bought_at <= before,
                    sa.func.coalesce(orders.c.waiter_since, 0.0) <= before,
                    sa.not_(_is_awaited(alive_since)),
                )
                .order_by(orders.c.order_id)
            ).all()
        known = [(_order(row), row.created_at or row.first_seen_at) for row in rows]
        return [order for order, when in known if not order.ended or when >= ended_since]

    def foreign(self, within: float) -> list[Order]:
        """The orders of the last `within` seconds that cost money and were not bought through this store."""
        with self._store.read() as connection:
            since = self._store.now(connection) - within
            rows = connection.execute(
                sa.select(orders)
                .where(
                    orders.c.account == self._account,
                    orders.c.key.is_(None),
                    sa.func.lower(orders.c.status).not_in([*CANCELLED, "failed"]),
                    sa.func.coalesce(orders.c.created_at, orders.c.first_seen_at) >= since,
                )
                .order_by(orders.c.order_id)
            ).all()
        return [_order(row) for row in rows]

    def refunded(self) -> Decimal:
        """USD that came back of what was bought here."""
        with self._store.read() as connection:
            prices = connection.execute(
                sa.select(orders.c.price).where(
                    orders.c.account == self._account,
                    orders.c.key.is_not(None),
                    orders.c.refunded_at.is_not(None),
                )
            ).scalars()
            return sum((Decimal(price) for price in prices if price is not None), Decimal(0))

    # -------------------------------------------------------------- inside

    def put(self, connection: sa.Connection, order: Order) -> None:
        values = {
            "product": order.product,
            "service": order.service,
            "country": order.country,
            "duration": order.duration,
            "phone": order.phone,
            "price": str(order.price) if order.price is not None else None,
            "status": order.status,
            "created_at": order.created_at.timestamp() if order.created_at else self._store.now(connection),
            "expires_at": order.expires_at.timestamp() if order.expires_at else None,
            "expires_estimated": order.expires_estimated,
            "activation_code": order.activation_code,
            "key": order.key,
        }
        self._upsert(connection, order.order_id, values)

    def _upsert(
        self,
        connection: sa.Connection,
        order_id: int,
        values: Mapping[str, Any],
        first: Mapping[str, Any] | None = None,
    ) -> None:
        """Changes an order's row, or makes one, with `first`, for an order that nobody has seen."""
        made = {"status": "pending", "first_seen_at": self._store.now(connection)}
        made |= values if first is None else first
        insert = self._store.insert(orders).values(account=self._account, order_id=order_id, **made)
        this = [orders.c.account, orders.c.order_id]
        connection.execute(
            insert.on_conflict_do_update(index_elements=this, set_=dict(values))
            if values
            else insert.on_conflict_do_nothing(index_elements=this)
        )

    def _is(self, order_id: int) -> sa.ColumnElement[bool]:
        return sa.and_(orders.c.account == self._account, orders.c.order_id == order_id)


def _order(row: Any) -> Order:
    values = {name: row._mapping[name] for name in Order.model_fields if name in row._mapping}
    return Order.model_validate(
        values | {"created_at": _utc(row.created_at), "expires_at": _utc(row.expires_at)}
    )


def _is_awaited(alive_since: float) -> sa.ColumnElement[bool]:
    """Whether somebody waits for an order at this moment."""
    return (
        sa.select(waits.c.id)
        .where(
            waits.c.account == orders.c.account,
            waits.c.order_id == orders.c.order_id,
            waits.c.seen_at >= alive_since,
        )
        .exists()
    )


def _news(row: Any, listed: Order, now: float) -> dict[str, Any]:
    """What the list tells of an order that is known already."""
    news: dict[str, Any] = {}
    if listed.price is not None and (row.price is None or Decimal(row.price) != listed.price):
        news["price"] = str(listed.price)
    if not listed.ended:
        return news
    if listed.status != row.status:
        news["status"] = listed.status
    before = row.cancelled_from if was_cancelled(row.status) else row.status
    if listed.cancelled and not was_cancelled(row.status):
        news["cancelled_from"] = row.status
    is_refund = row.product not in RENTALS or before == "pending" or listed.status == "refunded"
    if listed.cancelled and is_refund and row.refunded_at is None:
        news["refunded_at"] = now
    return news


def _release(row: Any) -> Release:
    return Release(row.order_id, row.release_reason, row.release_scope or "pending", row.release_planned)


def _utc(when: float | None) -> Any:
    return None if when is None else datetime.fromtimestamp(when, timezone.utc)
