"""What the service's list of orders says of each order, and how much of the list was read.

The list shows the newest orders only. So the store records how far it was read, and where orders may have
been missed between two readings.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

import sqlalchemy as sa

from smsverify._orders import day_sums
from smsverify._orders.records import Records, is_cut_off
from smsverify._service.endpoints import Listed
from smsverify._store import sequence
from smsverify._store.sequence import Asked
from smsverify._store.tables import accounts, orders, purchases
from smsverify.metrics import REFUNDED, REFUNDS, Meter
from smsverify.models import LIST_LENGTH, RENTALS, Order, was_cancelled
from smsverify.text import amount, log_of

log = log_of(__name__)


@dataclass(frozen=True)
class Listing:
    """The service's list of orders, as it was read once.

    Attributes:
        rows: the newest orders, the newest first, as far as they could be read.
        unreadable: how many more rows could not be read: an order that is missing may be one of them.
        is_whole: whether the list has left out no order: it is too short for that, and names no further page.
        asked: from before the request left.
        skew: seconds that the service's clock was ahead of the store's; `None` where the answer has no time.
    """

    rows: list[Order]
    unreadable: int
    is_whole: bool
    asked: Asked
    skew: float | None


class OrderList:
    """The list of orders of one account.

    Args:
        records: of the orders.
        length: how many orders the service lists.
        meter: counts the refunds.
    """

    def __init__(self, records: Records, *, length: int = LIST_LENGTH, meter: Meter | None = None) -> None:
        self._meter = meter or Meter()
        self._store = records.store
        self._account = records.account
        self._records = records
        self._length = length
        self._this = accounts.c.account == self._account

    def asked(self) -> Asked:
        """What to note before the service is asked for the list."""
        with self._store.read() as connection:
            return sequence.asked(self._store, connection, self._account)

    def note(self, listed: Listed[Order], asked: Asked) -> Listing:
        """Records every order of a list, and what is new of known orders: their end, and their refund.

        A rental that was cancelled while it was active may be refunded or not, so it does not count as
        refunded.

        Args:
            listed: the list, as the service has answered.
            asked: from before the request left.
        """
        with self._store.write() as connection:
            number = sequence.advance(self._store, connection, self._account)
            now = self._store.now(connection)
            # The service's clock shows whole seconds.
            skew = None if listed.date is None else listed.date + 0.5 - now
            is_whole = listed.length < self._length and not listed.left_out
            listing = Listing(listed.rows, listed.unreadable, is_whole, asked, skew)
            self._note_reach(connection, listing, number)
            if listing.rows:
                self._put_new(connection, listing, now, number)
                self._put_news(connection, listing, now, number)
        return listing

    def _note_reach(self, connection: sa.Connection, listing: Listing, number: int) -> None:
        """Records how far the list was read, and whether it may have missed orders since the last time."""
        before = connection.execute(sa.select(accounts).where(self._this)).one()
        values: dict[str, Any] = {"listed_number": number}
        if before.asked_number is None or listing.asked.number >= before.asked_number:
            values |= {"asked_number": listing.asked.number, "asked_at": listing.asked.at}
        # What is newer than an order that the last reading knew is in this one.
        earliest = self.first_number(connection, listing)
        known = before.listed_number
        reaches = known is not None and earliest is not None and earliest <= known
        if listing.unreadable or not (listing.is_whole or reaches):
            values["gap_number"] = number
        connection.execute(sa.update(accounts).where(self._this).values(**values))

    def _put_new(self, connection: sa.Connection, listing: Listing, now: float, number: int) -> None:
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
                "seen_number": number,
                "ended_number": number if order.ended else None,
                "made_at": _made_at(order, listing.skew),
            }
            for order in listing.rows
        ]
        connection.execute(self._store.insert(orders).on_conflict_do_nothing(), rows)

    def _put_news(self, connection: sa.Connection, listing: Listing, now: float, number: int) -> None:
        by_id = {order.order_id: order for order in listing.rows}
        # What follows is decided from this row, so it is locked until the transaction ends.
        known = connection.execute(
            sa.select(orders)
            .where(orders.c.account == self._account, orders.c.order_id.in_(by_id))
            .order_by(orders.c.order_id)
            .with_for_update()
        ).all()
        changed = []
        for row in known:
            news = _news(row, by_id[row.order_id], listing.skew, now, number)
            if news:
                self._records.update(connection, row.order_id, **news)
            if "price" in news and row.key is not None:
                self._correct_charge(connection, row.order_id, news["price"])
            if "refunded_at" in news and row.key is not None:
                refund = partial(self._count_refund, row, news.get("price", row.price))
                self._store.after_commit(connection, refund)
            if not news.keys().isdisjoint({"price", "refunded_at"}):
                changed.append(row.order_id)
        if changed:
            day_sums.forget_orders(connection, self._account, changed)

    def _correct_charge(self, connection: sa.Connection, order_id: int, price: str) -> None:
        its_purchase = sa.and_(
            purchases.c.account == self._account,
            purchases.c.kind == "order",
            purchases.c.state == "bought",
            purchases.c.order_id == order_id,
        )
        connection.execute(sa.update(purchases).where(its_purchase).values(charge=price))
        allowed = connection.execute(sa.select(purchases.c.max_price).where(its_purchase)).scalar()
        warn_if_overcharged(order_id, Decimal(price), None if allowed is None else Decimal(allowed))

    def _count_refund(self, row: Any, price: str | None) -> None:
        what = {"product": row.product, "service": row.service}
        self._meter.count(REFUNDS, **what)
        if price is not None:
            self._meter.count(REFUNDED, Decimal(price), **what)

    # -------------------------------------------------------------- how much of it is on record

    def first_number(self, connection: sa.Connection, listing: Listing) -> int | None:
        """The number of the order in a list that was known first; `None` where none is known."""
        listed = orders.c.order_id.in_([one.order_id for one in listing.rows])
        first = sa.select(sa.func.min(orders.c.seen_number)).where(orders.c.account == self._account, listed)
        return connection.execute(first).scalar()

    def was_read(self, connection: sa.Connection) -> bool:
        """Whether the list was ever read."""
        return connection.execute(sa.select(accounts.c.listed_number).where(self._this)).scalar() is not None

    def has_shown_all_since(self, connection: sa.Connection, number: int) -> bool:
        """Whether all orders since a number of the sequence are on record, reading by reading."""
        is_gapless = sa.and_(accounts.c.listed_number.is_not(None), accounts.c.gap_number < number)
        return bool(connection.execute(sa.select(is_gapless).where(self._this)).scalar())

    def was_asked_after(self, connection: sa.Connection, number: int, when: float) -> bool:
        """Whether the list was asked for after a number of the sequence and a time of the store's clock."""
        is_later = sa.and_(accounts.c.asked_number >= number, accounts.c.asked_at > when)
        return bool(connection.execute(sa.select(is_later).where(self._this)).scalar())

    def is_late(self, connection: sa.Connection, listing: Listing, number: int) -> bool:
        """Whether a list lacks the last order that was bought before a number of the sequence, though it
        reaches back to it: then it may lack later ones too.
        """
        last = connection.execute(
            sa.select(purchases.c.order_id)
            .where(
                purchases.c.account == self._account,
                purchases.c.kind == "order",
                purchases.c.state == "bought",
                purchases.c.address == self._records.address,
                purchases.c.resolved_number < number,
            )
            .order_by(purchases.c.resolved_number.desc())
            .limit(1)
        ).scalar()
        first = self.first_number(connection, listing)
        reaches = listing.is_whole or (first is not None and first < number)
        return last is not None and reaches and all(row.order_id != last for row in listing.rows)

    def begin_introduction(self, patience: float) -> bool:
        """Whether this caller alone makes the first readings of the account.

        Args:
            patience: seconds after which another one may try.
        """
        with self._store.write() as connection:
            now = self._store.now(connection)
            connection.execute(
                self._store.insert(accounts)
                .values(account=self._account, number=0)
                .on_conflict_do_nothing(index_elements=[accounts.c.account])
            )
            is_free = sa.not_(_is_introducing(now, patience))
            values = {"introducing_until": now + patience}
            return bool(
                connection.execute(sa.update(accounts).where(self._this, is_free).values(**values)).rowcount
            )

    def is_being_introduced(self, connection: sa.Connection, patience: float) -> bool:
        """Whether another caller makes the first readings; `patience` as for `begin_introduction`."""
        is_introducing = _is_introducing(self._store.now(connection), patience)
        return bool(connection.execute(sa.select(is_introducing).where(self._this)).scalar())


def _is_introducing(now: float, patience: float) -> sa.ColumnElement[bool]:
    # What lies farther ahead than any caller's patience was noted before the time went back.
    return sa.func.coalesce(accounts.c.introducing_until, 0.0).between(now, now + 2 * patience)


def warn_if_overcharged(order_id: int, charged: Decimal | None, most: Decimal | None) -> None:
    """Logs where an order has cost more than its caller allowed.

    Args:
        order_id: the order.
        charged: USD that it has cost; `None` where that is unknown.
        most: USD that it was allowed to cost; `None` for any price.
    """
    if charged is not None and most is not None and charged > most:
        text = "Order %d was charged %s USD, more than max_price=%s"
        log.warning(text, order_id, amount(charged), amount(most))


def _made_at(order: Order, skew: float | None) -> float | None:
    """When an order was made, by the store's clock."""
    return None if order.created_at is None or skew is None else order.created_at.timestamp() - skew


def _news(row: Any, listed: Order, skew: float | None, now: float, number: int) -> dict[str, Any]:
    """What the list says of an order that is known already: the values of its row that change."""
    first = {
        "seen_number": number,
        "service": listed.service,
        "phone": listed.phone,
        "created_at": listed.created_at.timestamp() if listed.created_at else None,
        "made_at": _made_at(listed, skew),
    }
    news: dict[str, Any] = {
        name: value for name, value in first.items() if value is not None and getattr(row, name) is None
    }
    known = None if row.price is None else Decimal(row.price)
    if listed.price not in (None, known) and not is_cut_off(listed.price, known):
        news["price"] = str(listed.price)
    if not listed.ended:
        return news
    if row.ended_number is None:
        news["ended_number"] = number
    if listed.status != row.status:
        news["status"] = listed.status
    before = row.cancelled_from if was_cancelled(row.status) else row.status
    if listed.cancelled and not was_cancelled(row.status):
        news["cancelled_from"] = row.status
    is_refund = row.product not in RENTALS or before == "pending" or listed.status == "refunded"
    if listed.cancelled and is_refund and row.refunded_at is None:
        news["refunded_at"] = now
    return news
