"""Which orders of the list belong to purchases whose answer was lost: pure functions.

The service has no idempotency key, so this decides. A purchase has bought an order that was not known before
the purchase was sent, that has no owner, and that fits the request. Purchases of the same thing are
interchangeable, so k such orders belong to k of n purchases. A person decides where there are more orders
than purchases, where an order could belong to different things, and where an order fits except in one point:
the list spells names in its own way, rounds, and may leave anything out.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from smsverify._input.phones import phone_digits
from smsverify._orders.records import Seen
from smsverify.models import Order

# A phone that may be a whole number, with its country: not masked, not a word, and no id of a SIM card.
_PHONE = re.compile(r"[\s+().\-/0-9]*")
_DIGITS = range(8, 16)
EARLY = 3.0  # seconds that an order may seem to be created before it was asked for: both clocks are coarse


class Fit(enum.IntEnum):
    """How well an order of the list fits a purchase."""

    NOT = 0  # another service at another price, of another kind of number
    STRANGE = 1  # by its name or its time it is another one, and both may be wrong
    LOOSE = 2  # except its price or its area
    EXACT = 3


@dataclass(frozen=True)
class Open:
    """A purchase whose outcome is unknown.

    Attributes:
        number: when it was sent, by the account's sequence.
        sent_at: the same by the store's clock.
    """

    id: int
    key: str
    request: dict[str, Any]
    price: Decimal | None
    number: int
    sent_at: float

    @property
    def identity(self) -> str:
        """What is the same for interchangeable purchases."""
        return json.dumps(self.request, sort_keys=True)

    def fit(self, seen: Seen, skew: float | None) -> Fit:
        """How well an order fits; `NOT` where it was known before this was sent.

        Args:
            seen: the order.
            skew: seconds that the service's clock is ahead of the store's, where that is known.
        """
        order = seen.order
        if seen.number < self.number:
            return Fit.NOT
        names, prices, is_kind = self._has_name_of(order), self._costs(order), self._is_of_kind(order)
        if names is False:
            return Fit.NOT if prices is False and is_kind is False else Fit.STRANGE
        if self._is_before(order, skew):
            return Fit.STRANGE
        is_known = names is True or prices is True
        if is_known and prices is not False and is_kind is not False and self._is_of_area(order) is not False:
            # A name that is only akin to the one that was ordered proves little.
            return Fit.EXACT if names is True or not order.service else Fit.LOOSE
        return Fit.LOOSE

    def _has_name_of(self, order: Order) -> bool | None:
        """Whether the names are the same, or neither the same nor akin; `None` for anything between."""
        # The list has its own names, such as "WhatsApp (UK)" for WhatsApp.
        wanted, listed = _plain(str(self.request.get("name") or "")), _plain(order.service or "")
        if not wanted or not listed:
            return None
        if wanted == listed:
            return True
        return None if wanted in listed or listed in wanted else False

    def _costs(self, order: Order) -> bool | None:
        """Whether an order has the price that this purchase was to have; `None` where one is not known."""
        return None if order.price is None or self.price is None else order.price == self.price

    def _is_of_kind(self, order: Order) -> bool | None:
        """Whether an order's phone is of the USA, from abroad or missing, as this purchase's was to be."""
        digits, product = phone_digits(order.phone), self.request["product"]
        if digits is None or len(digits) not in _DIGITS or not _PHONE.fullmatch(order.phone or ""):
            return None
        if product == "esim":
            return False
        is_usa = len(digits) == 11 and digits.startswith("1")
        if product == "global":
            return None if is_usa else True  # others share the code of the USA
        return is_usa

    def _is_of_area(self, order: Order) -> bool | None:
        area_code, digits = self.request.get("area_code"), phone_digits(order.phone)
        return None if area_code is None or digits is None else digits.startswith(f"1{area_code}")

    def _is_before(self, order: Order, skew: float | None) -> bool:
        """Whether an order was created before this was sent, by the service's clock."""
        if order.created_at is None or skew is None:
            return False
        return order.created_at.timestamp() < self.sent_at + skew - EARLY


@dataclass(frozen=True)
class Matching:
    """What the list decides of the open purchases.

    Attributes:
        adopted: the order of each purchase that has one, by the purchase's id.
        doubtful: the orders that may be one of several different things, by the ids of those purchases.
    """

    adopted: dict[int, Order]
    doubtful: dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class Verdict:
    """What the list says of an open purchase.

    Attributes:
        what: `bought`; `doubtful`, which a person has to decide; `absent` where no order can be it; `open`
            where the list says nothing yet.
        order_ids: the order that it has bought, or those that it may have bought.
    """

    what: Literal["bought", "doubtful", "absent", "open"]
    order_ids: tuple[int, ...] = ()


def judge(
    opens: Sequence[Open],
    unowned: Sequence[Seen],
    skew: float | None,
    *,
    first_under_way: int | None,
    is_exclusive: bool,
    should_show: Callable[[Open], bool],
) -> list[tuple[Open, Verdict]]:
    """Says of each open purchase what the list shows of it.

    Args:
        opens: the purchases whose outcome is unknown.
        unowned: orders without an owner.
        skew: seconds that the service's clock is ahead of the store's, where that is known.
        first_under_way: the number of the first purchase whose answer may still arrive, if there is one.
        is_exclusive: whether all purchases on the account are ours. Otherwise a person decides.
        should_show: whether the list is late enough to show what a purchase has bought.
    """
    # An order that may also belong to a call under way decides nothing until that call has ended.
    free = [seen for seen in unowned if first_under_way is None or seen.number < first_under_way]
    matching = match(opens, free, skew)
    taken = {order.order_id for order in matching.adopted.values()}
    left = [seen for seen in unowned if seen.order.order_id not in taken]

    def verdict(purchase: Open) -> Verdict:
        if purchase.id in matching.adopted:
            what: Literal["bought", "doubtful"] = "bought" if is_exclusive else "doubtful"
            return Verdict(what, (matching.adopted[purchase.id].order_id,))
        may_be = [seen for seen in left if purchase.fit(seen, skew) > Fit.NOT]
        if purchase.id not in matching.doubtful:
            if not should_show(purchase):
                return Verdict("open")
            if not may_be:
                return Verdict("absent")
            if not all(seen in free for seen in may_be):
                return Verdict("open")
        # A person chooses from all orders that it may be, also from those that seem to be another thing.
        return Verdict("doubtful", tuple(seen.order.order_id for seen in may_be if seen in free))

    return [(purchase, verdict(purchase)) for purchase in opens]


def match(opens: Sequence[Open], listed: Sequence[Seen], skew: float | None) -> Matching:
    """Decides which orders belong to which purchases.

    Args:
        opens: the purchases whose outcome is unknown.
        listed: orders without an owner.
        skew: seconds that the service's clock is ahead of the store's, where that is known.
    """
    fits = {
        (purchase.id, seen.order.order_id): purchase.fit(seen, skew) for purchase in opens for seen in listed
    }
    exact = {
        purchase.id: [seen.order for seen in listed if fits[purchase.id, seen.order.order_id] is Fit.EXACT]
        for purchase in opens
    }
    # A clock that was set proves nothing. An order that fits except for its time still ties a purchase
    # to the others that it fits.
    at_any_time = {
        purchase.id: [seen.order for seen in listed if purchase.fit(seen, None) is Fit.EXACT]
        for purchase in opens
    }
    adopted: dict[int, Order] = {}
    for group in _groups(opens, at_any_time):
        orders_of_group = {order.order_id for purchase in group for order in exact[purchase.id]}
        is_same_thing = len({purchase.identity for purchase in group}) == 1
        if is_same_thing and len(orders_of_group) <= len(group):
            adopted |= _pair(group, exact)
    taken = {order.order_id for order in adopted.values()}
    doubtful: dict[int, tuple[int, ...]] = {}
    for purchase in opens:
        left = sorted(
            seen.order.order_id
            for seen in listed
            if fits[purchase.id, seen.order.order_id] >= Fit.LOOSE and seen.order.order_id not in taken
        )
        if left and purchase.id not in adopted:
            doubtful[purchase.id] = tuple(left)
    return Matching(adopted, doubtful)


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
    for purchase in sorted(group, key=lambda one: one.number, reverse=True):
        free = [order for order in candidates[purchase.id] if order.order_id not in taken]
        if free:
            pairs[purchase.id] = max(free, key=lambda order: order.order_id)
            taken.add(pairs[purchase.id].order_id)
    return pairs


def _plain(name: str) -> str:
    """The letters and digits of a name, without what stands in brackets."""
    # What is behind the last bracket has none that is closed: looking for its end would take long.
    noted, closing, rest = name.rpartition(")")
    return re.sub(r"\([^)]*\)|\W", "", noted + closing).casefold() + re.sub(r"\W", "", rest).casefold()
