"""What is known of each order: what was bought, what the service said of it last, and since when.

Every order that was bought here or seen in the service's list has a row, and keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from smsverify._input.amounts import exactly
from smsverify._input.phones import fuller_phone
from smsverify._store import sequence
from smsverify._store.parameters import constants
from smsverify._store.store import Store
from smsverify._store.tables import is_order, orders, waits
from smsverify.models import CANCELLED, RENTALS, Order, OrderStatus, has_ended, period_of, was_cancelled

# Of an order that is cancelled now: what it was before, where the service has shown that.
_STATUS_BEFORE = sa.case(
    (orders.c.status.in_(constants(CANCELLED)), orders.c.cancelled_from),
    (orders.c.seen_number.is_not(None), orders.c.status),
)


# The list shows that what an order cost has come back, and the wallet does not lack it.
IS_REFUNDED = sa.and_(orders.c.refunded_at.is_not(None), orders.c.refund_missing_since.is_(None))


@dataclass(frozen=True)
class Seen:
    """An order as last seen.

    Attributes:
        order: the order.
        number: of the account's sequence, from when the service first showed the order.
    """

    order: Order
    number: int


class Records:
    """The orders of one account, as last seen.

    Args:
        store: where they are kept.
        account: whose they are.
        address: of the service whose orders they are; accounts of one service know the same orders.
        time_scale: how long the service's minute is in real minutes.
    """

    def __init__(self, store: Store, account: str, *, address: str = "", time_scale: float = 1.0) -> None:
        self.store = store
        self.account = account
        self.address = address
        self._time_scale = time_scale

    def row(self, connection: sa.Connection, order_id: int) -> Order:
        """An order that is known, inside of a transaction."""
        return as_order(connection.execute(sa.select(orders).where(self.is_order(order_id))).one())

    def get(self, order_id: int) -> Order | None:
        """An order as last seen; `None` where it is not known here."""
        with self.store.read() as connection:
            row = connection.execute(sa.select(orders).where(self.is_order(order_id))).one_or_none()
        return as_order(row) if row is not None else None

    def age(self, order_id: int) -> float | None:
        """Seconds since an order that was bought here is known; `None` where it was not bought here."""
        bought = sa.case((orders.c.key.is_not(None), orders.c.first_seen_at))
        with self.store.read() as connection:
            since = self.value(connection, order_id, bought)
            return None if since is None else self.store.now(connection) - since

    def known(self, order_ids: Iterable[int]) -> dict[int, Order]:
        """Orders by their ids; one that is not on record has nothing but its id."""
        with self.store.read() as connection:
            return self.known_in(connection, order_ids)

    def known_in(self, connection: sa.Connection, order_ids: Iterable[int]) -> dict[int, Order]:
        """The same inside of a transaction."""
        wanted = sorted(set(order_ids))
        rows = self.rows(connection, orders.c.order_id.in_(wanted)) if wanted else []
        return {order_id: Order(order_id=order_id) for order_id in wanted} | {
            row.order_id: as_order(row) for row in rows
        }

    def made_at(self, connection: sa.Connection, order_id: int) -> float | None:
        """When an order was made, by the store's clock, as the list showed first; `None` where it has not."""
        return self.value(connection, order_id, orders.c.made_at)

    def number_of(self, connection: sa.Connection, order_id: int) -> int | None:
        """When the service first showed an order, by the account's sequence; `None` where it has not."""
        return self.value(connection, order_id, orders.c.seen_number)

    # -------------------------------------------------------------- several orders

    def rentals(self, is_over: Callable[[Order], bool]) -> list[Order]:
        """The rentals that were bought here and are not over. What is over is not looked at again, until an
        answer of the service says anything new of it.

        Args:
            is_over: whether a rental is over for good.
        """
        with self.store.read() as connection:
            rows = self.rows(connection, orders.c.key.is_not(None), orders.c.rental_since > 0)
        found = [(row, as_order(row)) for row in rows]
        over = {order.order_id for _, order in found if is_over(order)}
        if over:
            self._close_rentals([row for row, _ in found if row.order_id in over])
        return [order for _, order in found if order.order_id not in over]

    def _close_rentals(self, rows: Sequence[Any]) -> None:
        """Records that rentals are over, except those of which something new is on record by now."""
        this = sa.and_(
            orders.c.account == self.account,
            orders.c.order_id == sa.bindparam("of"),
            orders.c.rental_since == sa.bindparam("since"),
        )
        known = [{"of": row.order_id, "since": row.rental_since} for row in rows]
        with self.store.write() as connection:
            connection.execute(sa.update(orders).where(this).values(rental_since=None), known)

    def unowned(self, connection: sa.Connection, since: int) -> list[Seen]:
        """The orders that belong to no purchase of this account, the newest first.

        Args:
            connection: of a transaction.
            since: leaves out those that were known before this number of the sequence.
        """
        rows = self.rows(connection, orders.c.key.is_(None), orders.c.seen_number >= since)
        return [Seen(as_order(row), row.seen_number) for row in reversed(rows)]

    def refund_of(self, order_id: int) -> bool | None:
        """Whether what an order cost has come back: the list shows it, and the wallet does not lack it.
        `None` where neither has said so yet. What a rental cost that was cancelled in use does not come back,
        unless the service says so.
        """
        with self.store.read() as connection:
            row = connection.execute(sa.select(orders).where(self.is_order(order_id))).one_or_none()
        if row is None:
            return None
        if row.refund_missing_since is not None:
            return False
        if row.refunded_at is not None:
            return True
        was_in_use = was_cancelled(row.status) and row.cancelled_from != "pending"
        return False if row.product in RENTALS and was_in_use else None

    # -------------------------------------------------------------- what a purchase or the service says

    def put(self, connection: sa.Connection, order: Order, *, is_unclaimed: bool = False) -> None:
        """Records all that an answer says of an order, inside of a transaction.

        Args:
            connection: of a transaction.
            order: the order.
            is_unclaimed: it was bought just now, and no caller has it yet.
        """
        values: dict[str, Any] = {
            "product": order.product,
            "service": order.service,
            "country": order.country,
            "duration": order.duration,
            "phone": order.phone,
            "price": str(order.price) if order.price is not None else None,
            "status": order.status,
            "created_at": order.created_at.timestamp() if order.created_at else self.store.wall(connection),
            "expires_at": order.expires_at.timestamp() if order.expires_at else None,
            "expires_estimated": order.expires_estimated,
            "activation_code": order.activation_code,
            "key": order.key,
        }
        if is_unclaimed:
            values["unclaimed_since"] = self.store.now(connection)
        self._put(connection, order.order_id, values)

    def put_renewed(self, connection: sa.Connection, order: Order) -> None:
        """Records when a rental ends after its renewal, inside of a transaction.

        What is on record of it besides may be newer than `order`, unless its row or its owner was lost.
        """
        known = connection.execute(sa.select(orders).where(self.is_order(order.order_id))).one_or_none()
        if known is None or (known.key is None and order.key is not None):
            self.put(connection, order)
            return
        end = order.expires_at.timestamp() if order.expires_at else None
        values: dict[str, Any] = {"expires_at": end, "expires_estimated": order.expires_estimated}
        if known.product in RENTALS:
            values["rental_since"] = self.store.now(connection)
        self.update(connection, order.order_id, **values)

    def put_status(self, status: OrderStatus) -> None:
        """Records an order's status, also of an order that was not bought here."""
        values: dict[str, Any] = {"status": status.status, "phone": status.phone}
        if status.activation_code is not None:
            values["activation_code"] = status.activation_code
        if status.expires_at is not None:
            values |= {"expires_at": status.expires_at.timestamp(), "expires_estimated": False}
        if status.cancelled:
            values["cancelled_from"] = _STATUS_BEFORE
        with self.store.write() as connection:
            self._put(connection, status.order_id, values)

    def _put(self, connection: sa.Connection, order_id: int, values: dict[str, Any]) -> None:
        """Records what the service says of an order: for the first time that it is there, or has ended."""
        known = connection.execute(sa.select(orders).where(self.is_order(order_id))).one_or_none()
        if known is not None:
            values["phone"] = fuller_phone(known.phone, values["phone"])
        first = [] if known is not None and known.seen_number is not None else ["seen_number"]
        if has_ended(values["status"]) and (known is None or known.ended_number is None):
            first.append("ended_number")
        if values.get("product", None if known is None else known.product) in RENTALS:
            values["rental_since"] = self.store.now(connection)
        if first:
            values |= dict.fromkeys(first, sequence.advance(self.store, connection, self.account))
        self.ensure(connection, order_id)
        self.update(connection, order_id, **values)

    def assign(
        self,
        connection: sa.Connection,
        order_id: int,
        key: str,
        request: Mapping[str, Any],
        price: Decimal | None,
    ) -> None:
        """Records which purchase an order of the list belongs to, inside of a transaction.

        Args:
            connection: of a transaction.
            order_id: the order.
            key, request: of the purchase.
            price: USD that it was to cost; it counts where the list shows none, or a part of it.
        """
        values: dict[str, Any] = {
            "key": key,
            "product": request["product"],
            "service": request["name"],
            "country": request["country_name"],
            "duration": request["duration"],
            # Its buyer does not know of it, so a reconciliation may name it at once.
            "unclaimed_since": 0.0,
            "waiter_since": self.store.now(connection),
        }
        if request["product"] in RENTALS:
            values["rental_since"] = self.store.now(connection)
            # It may have been in use when it was cancelled: then its price did not come back.
            values["refunded_at"] = sa.case((orders.c.status == "refunded", orders.c.refunded_at))
        listed = self.row(connection, order_id).price
        if price is not None and (listed is None or is_cut_off(listed, price)):
            values["price"] = str(price)
        self.update(connection, order_id, **values)

    def extend(self, connection: sa.Connection, order_id: int, renewals: int) -> None:
        """Records that a rental was renewed: its end, where one is known, moves by its period.

        Args:
            connection: of a transaction.
            order_id: the rental.
            renewals: how often it had been renewed before.
        """
        known = self.row(connection, order_id)
        period = self.period_of(known, renewals)
        if known.expires_at is not None and period is not None:
            end = (known.expires_at + period).timestamp()
            now = self.store.now(connection)
            self.update(connection, order_id, expires_at=end, expires_estimated=True, rental_since=now)

    def period_of(self, order: Order, renewals: int) -> timedelta | None:
        """For how long a renewal extends a rental, after so many of them; `None` where it is not known."""
        return period_of(order, renewals, time_scale=self._time_scale)

    # -------------------------------------------------------------- rows, for the rooms beside this one

    def is_order(self, order_id: int) -> sa.ColumnElement[bool]:
        """Picks the row of an order."""
        return is_order(self.account, order_id)

    def value(self, connection: sa.Connection, order_id: int, of: sa.ColumnElement[Any]) -> Any | None:
        """What a column of an order's row says; `None` where there is no row."""
        return connection.execute(sa.select(of).where(self.is_order(order_id))).scalar()

    def rows(self, connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> Sequence[Any]:
        """The rows of the account's orders that some conditions pick, by their ids."""
        found = connection.execute(sa.select(orders).where(orders.c.account == self.account, *conditions))
        # Sorted here: a database might take its order from the index of all orders.
        return sorted(found, key=lambda row: row.order_id)

    def lock(
        self, connection: sa.Connection, order_id: int, *conditions: sa.ColumnElement[bool]
    ) -> sa.Row[Any] | None:
        """The row of an order, which stays as it is until the transaction ends.

        `None`, and not locked, where there is none, or where it does not meet the conditions.
        """
        this = sa.select(orders).where(self.is_order(order_id), *conditions)
        return connection.execute(this.with_for_update()).one_or_none()

    def ensure(self, connection: sa.Connection, order_id: int) -> None:
        """Makes a row for an order that was never seen; changes none."""
        values = {"account": self.account, "order_id": order_id, "status": "pending"}
        insert = self.store.insert(orders).values(first_seen_at=self.store.now(connection), **values)
        connection.execute(insert.on_conflict_do_nothing())

    def update(self, connection: sa.Connection, order_id: int, **values: Any) -> None:
        """Changes the row of an order, if there is one."""
        connection.execute(sa.update(orders).where(self.is_order(order_id)).values(**values))


@exactly
def is_cut_off(listed: Decimal | None, known: Decimal | None) -> bool:
    """Whether an answered price is the known one with digits cut off, or is 0: what was paid is no less."""
    if listed is None or known is None:
        return False
    exponent = listed.normalize().as_tuple().exponent
    unit = Decimal(1).scaleb(min(int(exponent), 0))
    return listed < known and (listed == 0 or known < listed + unit)


def as_order(row: Any) -> Order:
    """The order that a row is about."""
    values = {name: row._mapping[name] for name in Order.model_fields if name in row._mapping}
    return Order.model_validate(
        values | {"created_at": utc_of(row.created_at), "expires_at": utc_of(row.expires_at)}
    )


def is_claimed_by(waiter: str) -> sa.ColumnElement[bool]:
    """Picks the orders that a waiter has claimed.

    A name with a / at its end stands for the name without it, and for all names that begin with it.
    """
    is_claimed = orders.c.waiter == waiter.removesuffix("/")
    if not waiter.endswith("/"):
        return is_claimed
    return sa.or_(is_claimed, sa.func.substr(orders.c.waiter, 1, len(waiter)) == waiter)


def is_awaited(alive_since: float | sa.ColumnElement[float]) -> sa.ColumnElement[bool]:
    """Picks the orders that a call waits for, with a heartbeat after a time of the store's clock.

    An order has few waits. By the bare time, PostgreSQL expects next to none that are alive in all, and
    compares each order with each of them.
    """
    return (
        sa.select(waits.c.id)
        .where(
            waits.c.account == orders.c.account,
            waits.c.order_id == orders.c.order_id,
            sa.func.coalesce(waits.c.seen_at, 0.0) >= alive_since,
        )
        .exists()
    )


def is_foreign(
    now: sa.ColumnElement[float], wall: sa.ColumnElement[float], within: float
) -> sa.ColumnElement[bool]:
    """Picks the orders of the last `within` seconds that cost money and were not bought through this store.

    Args:
        now, wall: by the store's clock, and by the calendar.
        within: seconds.
    """
    is_recent = sa.case(
        (orders.c.created_at.is_(None), orders.c.first_seen_at >= now - within),
        else_=orders.c.created_at >= wall - within,
    )
    is_paid = orders.c.status.not_in(constants([*CANCELLED, "failed"]))
    # None of them was seen before it was made; by this, the index finds them.
    is_new = orders.c.first_seen_at >= now - within
    # An id that a caller has named by mistake has a row, too.
    is_there = orders.c.seen_number.is_not(None)
    return sa.and_(orders.c.key.is_(None), is_there, is_paid, is_recent, is_new)


def utc_of(when: float | None) -> datetime | None:
    """A moment of the calendar, as a row has it."""
    return None if when is None else datetime.fromtimestamp(when, timezone.utc)
