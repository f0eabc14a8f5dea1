"""Finding out what became of purchases whose outcome is unknown, by the service's list of orders.

The service has no idempotency key, so this decides: an order that nobody had seen before the purchase was
sent, that nobody owns, and that fits what was asked for, is what the purchase has bought. Purchases of the
same thing are interchangeable, so k such orders belong to k of n purchases. More orders than purchases, or
orders that could belong to different things, are told to a person. A purchase that the list does not show
when its grace is over was not made.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from smsverify.models import Order, phone_digits
from smsverify.orders import Orders
from smsverify.store import Store, orders, purchases

log = logging.getLogger(__name__)

LIST_LENGTH = 50  # orders that the service lists
CLOCK_STEP = 1.0  # seconds; its `Date` header and its `created_at` are whole ones
EARLY = 2.0  # seconds that an order may seem to be created before it was asked for


@dataclass(frozen=True)
class Open:
    """A purchase whose outcome is unknown."""

    id: int
    key: str
    request: dict[str, Any]
    price: Decimal | None
    sent_at: float

    @property
    def identity(self) -> str:
        """What is the same for interchangeable purchases."""
        return json.dumps(self.request, sort_keys=True)

    def may_have_bought(self, order: Order, first_seen_at: float, skew: float) -> bool:
        """Whether an order of the list could be this purchase."""
        return self._is_new(order, first_seen_at, skew) and self._is_same_service(order)

    def is_perhaps(self, order: Order, first_seen_at: float, skew: float) -> bool:
        """Whether an order fits but for its name: the list has names of its own."""
        return self._is_new(order, first_seen_at, skew) and self.costs(order)

    def _is_new(self, order: Order, first_seen_at: float, skew: float) -> bool:
        if first_seen_at < self.sent_at:
            return False
        earliest = self.sent_at + skew - EARLY - CLOCK_STEP
        if order.created_at is not None and order.created_at.timestamp() < earliest:
            return False
        area_code = self.request.get("area_code")
        return area_code is None or (phone_digits(order.phone) or "").startswith(f"1{area_code}")

    def costs(self, order: Order) -> bool:
        """Whether an order has the price that this purchase was to have, as far as both are known."""
        return order.price is None or self.price is None or order.price == self.price

    def _is_same_service(self, order: Order) -> bool:
        # The list has its own names, such as "WhatsApp (UK)" for WhatsApp.
        if order.service is None:
            return True
        listed, wanted = _plain(order.service), _plain(str(self.request.get("name") or ""))
        return listed in wanted or wanted in listed


@dataclass(frozen=True)
class Matching:
    """What the list tells of the open purchases.

    Attributes:
        adopted: the order of each purchase that has one, by the purchase's id.
        doubtful: the orders that may be one of several different things, by the ids of those purchases.
    """

    adopted: dict[int, Order]
    doubtful: dict[int, tuple[int, ...]]


def match(opens: Sequence[Open], listed: Sequence[tuple[Order, float]], skew: float) -> Matching:
    """Decides which orders belong to which purchases.

    Args:
        opens: the purchases whose outcome is unknown.
        listed: orders that nobody owns, with when they were first seen (seconds by the store's clock).
        skew: seconds that the service's clock is ahead of the store's.
    """
    candidates = {
        purchase.id: [
            order for order, first_seen_at in listed if purchase.may_have_bought(order, first_seen_at, skew)
        ]
        for purchase in opens
    }
    adopted: dict[int, Order] = {}
    doubtful: dict[int, tuple[int, ...]] = {}
    for group in _groups(opens, candidates):
        orders_of_group = {order.order_id: order for purchase in group for order in candidates[purchase.id]}
        is_same_thing = len({purchase.identity for purchase in group}) == 1
        fits = all(purchase.costs(order) for purchase in group for order in orders_of_group.values())
        if not orders_of_group:
            continue
        if is_same_thing and fits and len(orders_of_group) <= len(group):
            adopted |= _pair(group, candidates)
        else:
            doubtful |= {purchase.id: tuple(sorted(orders_of_group)) for purchase in group}
    return Matching(adopted, doubtful)


class Recovery:
    """Settles the purchases of an account whose outcome is unknown.

    Args:
        store: where they are.
        orders: reads the service's list.
        account: whose they are.
        lease: seconds that a call under way may take; until then its outcome is its own business.
        grace: seconds after which a purchase that the list does not show was not made.
        is_exclusive: whether nobody else buys on this account. Else no order is adopted, only told.
    """

    def __init__(
        self, store: Store, orders: Orders, account: str, *, lease: float, grace: float, is_exclusive: bool
    ) -> None:
        self._store = store
        self._orders = orders
        self._account = account
        self._lease = lease
        self._grace = grace
        self._is_exclusive = is_exclusive

    def settle(self) -> None:
        """Reads the list of orders and settles what it decides; the rest stays unknown.

        Raises:
            ServiceError: the list can not be read, so nothing can be decided.
        """
        listed, date = self._orders.read_list()
        with self._store.write() as connection:
            self._store.lock(connection, self._account)
            now = self._store.now(connection)
            skew = 0.0 if date is None else date + CLOCK_STEP / 2 - now
            opens, under_way_since = self._unsettled(connection, now)
            unowned = self._unowned(connection, listed)
            matching = match(opens, _created_before(unowned, under_way_since, skew), skew)
            for purchase in opens:
                # One that may be it, but may as well belong to a call under way, decides later.
                may_come = any(purchase.may_have_bought(order, seen, skew) for order, seen in unowned)
                is_over = now > purchase.sent_at + self._grace and _shows(listed, purchase.sent_at + skew)
                if purchase.id in matching.doubtful:
                    self._doubt(connection, purchase, matching.doubtful[purchase.id])
                elif purchase.id in matching.adopted:
                    self._adopt(connection, purchase, matching.adopted[purchase.id], now)
                elif is_over and not may_come:
                    strangers = [
                        order.order_id for order, seen in unowned if purchase.is_perhaps(order, seen, skew)
                    ]
                    if strangers:
                        self._doubt(connection, purchase, tuple(strangers))
                    else:
                        self._give_up(connection, purchase, now)

    def _doubt(self, connection: sa.Connection, purchase: Open, order_ids: tuple[int, ...]) -> None:
        self._update(connection, purchase, state="unknown", candidates=json.dumps(order_ids))
        log.error("%s may have bought one of the orders %s: a person has to tell", purchase.key, order_ids)

    def _give_up(self, connection: sa.Connection, purchase: Open, now: float) -> None:
        note = "the list of orders does not show it"
        self._update(connection, purchase, state="rejected", settled_at=now, note=note)
        log.warning("%s was not made: %s", purchase.key, note)

    def _adopt(self, connection: sa.Connection, purchase: Open, found: Order, now: float) -> None:
        if not self._is_exclusive:
            self._doubt(connection, purchase, (found.order_id,))
            return
        note = "found in the list of orders"
        self._update(connection, purchase, state="bought", order_id=found.order_id, settled_at=now, note=note)
        connection.execute(
            sa.update(orders)
            .where(orders.c.account == self._account, orders.c.order_id == found.order_id)
            .values(
                key=purchase.key,
                product=purchase.request["product"],
                service=purchase.request["name"],
                country=purchase.request["country_name"],
                duration=purchase.request["duration"],
            )
        )
        log.warning("%s has bought order %d, as the list of orders shows", purchase.key, found.order_id)
        if purchase.request["product"] == "esim":
            log.warning("The activation code of order %d is lost; the dashboard has it", found.order_id)

    def _update(self, connection: sa.Connection, purchase: Open, **values: Any) -> None:
        connection.execute(sa.update(purchases).where(purchases.c.id == purchase.id).values(**values))

    def _unsettled(self, connection: sa.Connection, now: float) -> tuple[list[Open], float | None]:
        """The purchases to settle, and since when others are under way."""
        rows = connection.execute(
            sa.select(purchases).where(
                purchases.c.account == self._account,
                purchases.c.kind == "order",
                purchases.c.state.in_(("sent", "unknown")),
            )
        ).all()
        under_way = [row for row in rows if row.state == "sent" and now - self._lease < row.sent_at <= now]
        opens = [
            Open(
                row.id,
                row.key,
                json.loads(row.request),
                Decimal(row.price) if row.price else None,
                row.sent_at,
            )
            for row in rows
            if row not in under_way
        ]
        return opens, min((row.sent_at for row in under_way), default=None)

    def _unowned(self, connection: sa.Connection, listed: Sequence[Order]) -> list[tuple[Order, float]]:
        mine = sa.and_(orders.c.account == self._account, orders.c.key.is_(None))
        first_seen = {
            row.order_id: row.first_seen_at
            for row in connection.execute(sa.select(orders.c.order_id, orders.c.first_seen_at).where(mine))
        }
        return [(order, first_seen[order.order_id]) for order in listed if order.order_id in first_seen]


def _created(order: Order, unknown: float) -> float:
    return unknown if order.created_at is None else order.created_at.timestamp()


def _created_before(
    unowned: Sequence[tuple[Order, float]], under_way_since: float | None, skew: float
) -> list[tuple[Order, float]]:
    """Without the orders that may belong to a call that is still under way."""
    if under_way_since is None:
        return list(unowned)
    latest = under_way_since + skew - EARLY - CLOCK_STEP
    return [(order, seen) for order, seen in unowned if _created(order, latest) < latest]


def _shows(listed: Sequence[Order], when: float) -> bool:
    """Whether the list is long enough to show what was created at that time."""
    return len(listed) < LIST_LENGTH or any(_created(order, when) < when - EARLY for order in listed)


def _groups(opens: Sequence[Open], candidates: dict[int, list[Order]]) -> list[list[Open]]:
    """The purchases that are the same thing, or that an order could belong to alike."""
    groups: list[tuple[list[Open], set[str], set[int]]] = []
    for purchase in opens:
        members, identities = [purchase], {purchase.identity}
        order_ids = {order.order_id for order in candidates[purchase.id]}
        apart = []
        for group in groups:
            if group[1] & identities or group[2] & order_ids:
                members, identities, order_ids = (
                    group[0] + members,
                    group[1] | identities,
                    group[2] | order_ids,
                )
            else:
                apart.append(group)
        groups = [*apart, (members, identities, order_ids)]
    return [members for members, _, _ in groups]


def _pair(group: Sequence[Open], candidates: dict[int, list[Order]]) -> dict[int, Order]:
    """An order for as many of these purchases of the same thing as can have one."""
    pairs: dict[int, Order] = {}
    taken: set[int] = set()
    # What may belong to a later one may belong to an earlier one: the latest have the least to choose from.
    for purchase in sorted(group, key=lambda one: one.sent_at, reverse=True):
        free = [order for order in candidates[purchase.id] if order.order_id not in taken]
        if free:
            pairs[purchase.id] = max(free, key=lambda order: order.order_id)
            taken.add(pairs[purchase.id].order_id)
    return pairs


def _plain(name: str) -> str:
    return re.sub(r"\(.*?\)|[^\w]", "", name).casefold()
