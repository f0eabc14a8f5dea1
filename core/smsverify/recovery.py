"""Finding out what became of paid calls whose outcome is unknown: by the service's list of orders, and for
renewals by the time left.

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

from smsverify.errors import InvalidRequestError, ServiceError
from smsverify.ledger import Ledger, OpenCall
from smsverify.models import Order, expiry_step, phone_digits, seconds_left
from smsverify.orders import Orders
from smsverify.store import Store

log = logging.getLogger(__name__)

LIST_LENGTH = 50  # orders that the service lists
DAY = 86_400.0
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

    def is_misdated(self, order: Order, first_seen_at: float, skew: float) -> bool:
        """Whether an order fits but for its time, which may come from another clock than the answers."""
        if first_seen_at < self.sent_at or order.created_at is None:
            return False
        age = abs(order.created_at.timestamp() - self.sent_at - skew)
        return age < DAY and self._is_same_service(order) and self.costs(order)

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
    fitting = {
        purchase.id: [
            order for order, first_seen_at in listed if purchase.may_have_bought(order, first_seen_at, skew)
        ]
        for purchase in opens
    }
    # The price tells apart what has the same name in several catalogues, unless no purchase was to have it.
    priced = {order.order_id for purchase in opens for order in fitting[purchase.id] if purchase.costs(order)}
    candidates = {
        purchase.id: [
            order for order in fitting[purchase.id] if purchase.costs(order) or order.order_id not in priced
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


@dataclass(frozen=True)
class Settled:
    """A paid call whose outcome was unknown, and what has become of it.

    Attributes:
        key, kind: of the call; `order` or `renewal`.
        outcome: `bought`, `not made`, or `ambiguous`, which a person has to decide.
        order_ids: the order that it has bought or renewed, or those that come into question.
    """

    key: str
    kind: str
    outcome: str
    order_ids: tuple[int, ...] = ()


class Recovery:
    """Settles the paid calls of an account whose outcome is unknown.

    Args:
        store: where they are.
        ledger: the account's paid calls and orders.
        orders: reads the service's list, and the status of an order.
        grace: seconds after which a call that does not show was not made.
        is_exclusive: whether nobody else buys on this account. Else no order is adopted, only told.
        tempo: how long the service's minute is in real minutes.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        orders: Orders,
        *,
        grace: float,
        is_exclusive: bool,
        tempo: float,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._book = ledger.book
        self._orders = orders
        self._grace = grace
        self._is_exclusive = is_exclusive
        self._tempo = tempo

    def _now(self) -> float:
        with self._store.read() as connection:
            return self._store.now(connection)

    # -------------------------------------------------------------- purchases

    def settle(self) -> list[Settled]:
        """Reads the list of orders and settles the purchases that it decides; the rest stays unknown.

        Raises:
            ServiceError: the list can not be read, so nothing can be decided.
        """
        listed, date = self._orders.read_list()
        settled: list[Settled] = []
        with self._store.write() as connection:
            self._ledger.lock(connection)
            now = self._store.now(connection)
            skew = 0.0 if date is None else date + CLOCK_STEP / 2 - now
            calls = [call for call in self._ledger.open_calls(connection) if call.kind == "order"]
            under_way_since = min((call.sent_at for call in calls if call.under_way), default=None)
            opens = {call.id: call for call in calls if not call.under_way}
            # Not of the list alone: what it has shown once is kept.
            unowned = self._book.unowned(
                connection, min((call.sent_at for call in opens.values()), default=now)
            )
            purchases = [
                Open(call.id, call.key, call.request, call.price, call.sent_at) for call in opens.values()
            ]
            matching = match(purchases, _created_before(unowned, under_way_since, skew), skew)
            for purchase in purchases:
                call = opens[purchase.id]
                # One that may be it, but may as well belong to a call under way, decides later.
                may_come = any(
                    purchase.may_have_bought(order, seen, skew)
                    and (purchase.costs(order) or under_way_since is not None)
                    for order, seen in unowned
                )
                is_over = now > purchase.sent_at + self._grace and _shows(listed, purchase.sent_at + skew)
                if purchase.id in matching.doubtful:
                    settled.append(self._doubt(connection, call, matching.doubtful[purchase.id]))
                elif purchase.id in matching.adopted:
                    settled.append(self._adopt(connection, call, matching.adopted[purchase.id], now))
                elif is_over and not may_come:
                    knew_any = self._book.knew_any(connection, purchase.sent_at)
                    strangers = [
                        order.order_id
                        for order, seen in unowned
                        if purchase.is_perhaps(order, seen, skew)
                        or (knew_any and purchase.is_misdated(order, seen, skew))
                    ]
                    if strangers:
                        settled.append(self._doubt(connection, call, tuple(strangers)))
                    else:
                        settled.append(
                            self._give_up(connection, call, now, "the list of orders does not show it")
                        )
        return settled

    def _doubt(self, connection: sa.Connection, call: OpenCall, order_ids: tuple[int, ...]) -> Settled:
        self._ledger.doubt(connection, call, order_ids)
        log.error("%s may have bought one of the orders %s: a person has to tell", call.key, order_ids)
        return Settled(call.key, call.kind, "ambiguous", order_ids)

    def _give_up(self, connection: sa.Connection, call: OpenCall, now: float, why: str) -> Settled:
        self._ledger.close(connection, call, "rejected", now, why)
        log.warning("%s was not made: %s", call.key, why)
        return Settled(call.key, call.kind, "not made")

    def _adopt(self, connection: sa.Connection, call: OpenCall, found: Order, now: float) -> Settled:
        if not self._is_exclusive:
            return self._doubt(connection, call, (found.order_id,))
        note = "found in the list of orders"
        self._ledger.close(connection, call, "bought", now, note, order_id=found.order_id)
        self._book.assign(connection, found.order_id, call.key, call.request)
        log.warning("%s has bought order %d, as the list of orders shows", call.key, found.order_id)
        if call.request["product"] == "esim":
            log.warning("The activation code of order %d is lost; the dashboard has it", found.order_id)
        return Settled(call.key, call.kind, "bought", (found.order_id,))

    # -------------------------------------------------------------- renewals

    def settle_renewals(self, only: int | None = None) -> list[Settled]:
        """Settles the renewals that the status of their order decides, by its time left before and after.

        Args:
            only: looks at the renewals of this order alone.
        """
        with self._store.read() as connection:
            calls = [
                call
                for call in self._ledger.open_calls(connection)
                if call.kind == "renewal" and not call.under_way
                if only in (None, call.request["order_id"])
            ]
        settled = []
        for call in calls:
            was_made = self._was_renewed(call)
            if was_made is None:
                continue
            with self._store.write() as connection:
                self._ledger.lock(connection)
                now = self._store.now(connection)
                if all(
                    call.id != still.id or still.under_way for still in self._ledger.open_calls(connection)
                ):
                    continue  # Somebody else was quicker.
                order_id = call.request["order_id"]
                if was_made:
                    note = "the order's time left shows it"
                    self._ledger.close(connection, call, "bought", now, note, order_id=order_id)
                    log.warning("%s has renewed order %d, as its time left shows", call.key, order_id)
                    settled.append(Settled(call.key, call.kind, "bought", (order_id,)))
                elif now > call.sent_at + self._grace:
                    why = "the order's time left has not grown"
                    settled.append(self._give_up(connection, call, now, why))
        return settled

    def _was_renewed(self, call: OpenCall) -> bool | None:
        """Whether a renewal was carried out; `None` where the status does not tell."""
        before, step = call.request.get("ends_at"), call.request.get("step")
        if before is None or step is None:
            return None
        asked_at = self._now()
        try:
            status = self._orders.look(call.request["order_id"])
        except (ServiceError, InvalidRequestError) as error:
            log.warning("Whether %s was renewed can not be found out now: %s", call.key, error)
            return None
        left = seconds_left(status)
        if left is None or expiry_step(status, self._tempo) != step or status.ended:
            return None
        # By the clock that all share, the end before was reckoned at the answer's arrival, and so is never
        # too early; this one is never too late. However slow both were, an end beyond both was moved.
        if asked_at + left > before + step:
            return True
        # Days left are whole ones: that they have not grown says nothing of a rental of one day.
        return False if step < DAY else None


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
