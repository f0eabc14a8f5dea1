"""Which order of a list is which purchase's, if its answer was lost: the rule by itself."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest

from smsverify._orders.records import Seen
from smsverify._purchases.matching import Fit, Matching, Open, match
from smsverify.models import Order

NOW = 1_800_000_000.0


def an_open(number: int, *, sent: float = 0.0, price: str | None = "0.4", **request: Any) -> Open:
    request = {"product": "temporary", "name": "WhatsApp", "area_code": None, **request}
    value = Decimal(price) if price else None
    return Open(number, f"k{number}", request, value, 100 + round(sent), NOW + sent)


def listed(order_id: int, *, created: float | None = 0.5, seen: int = 1, **fields: Any) -> Seen:
    values = {"service": "WhatsApp (UK)", "price": Decimal("0.40"), "phone": "+1 212 555 0100", **fields}
    when = None if created is None else datetime.fromtimestamp(NOW + created, timezone.utc)
    return Seen(Order(order_id=order_id, created_at=when, **values), 100 + seen)


def outcome(matching: Matching) -> tuple[dict[int, int], dict[int, tuple[int, ...]]]:
    return {id_: order.order_id for id_, order in matching.adopted.items()}, matching.doubtful


@pytest.mark.parametrize(
    ("opens", "orders", "skew", "adopted", "doubtful"),
    [
        ([an_open(1)], [listed(7)], 0.0, {1: 7}, {}),
        ([an_open(1)], [], 0.0, {}, {}),
        ([an_open(1)], [listed(7), listed(8)], 0.0, {}, {1: (7, 8)}),
        ([an_open(1), an_open(2)], [listed(7), listed(8)], 0.0, {2: 8, 1: 7}, {}),
        ([an_open(1), an_open(2)], [listed(7)], 0.0, {2: 7}, {}),
        ([an_open(1)], [listed(7, seen=-1)], 0.0, {}, {}),
        ([an_open(1)], [listed(7, created=-60)], 0.0, {}, {}),
        ([an_open(1)], [listed(7, created=-60)], -60.0, {1: 7}, {}),
        ([an_open(1, area_code="212")], [listed(7)], 0.0, {1: 7}, {}),
        ([an_open(1, area_code="415")], [listed(7)], 0.0, {}, {1: (7,)}),
        ([an_open(1, area_code="415")], [listed(7, phone=None)], 0.0, {1: 7}, {}),
        ([an_open(1)], [listed(7, created=None)], 0.0, {1: 7}, {}),
        ([an_open(1)], [listed(7, service=None)], 0.0, {1: 7}, {}),
        ([an_open(1)], [listed(7, service=None, price=None)], 0.0, {}, {1: (7,)}),
        ([an_open(1)], [listed(7, service="WhatsApp Messenger")], 0.0, {}, {1: (7,)}),
        ([an_open(1)], [listed(7, phone="+44 20 7946 0017")], 0.0, {}, {1: (7,)}),
        ([an_open(1, product="global")], [listed(7, phone="+44 20 7946 0017")], 0.0, {1: 7}, {}),
        ([an_open(1, product="esim")], [listed(7)], 0.0, {}, {1: (7,)}),
        ([an_open(1)], [listed(7), listed(8, price=Decimal("0.50"))], 0.0, {1: 7}, {}),
        ([an_open(1)], [listed(7, price=Decimal("0.50"))], 0.0, {}, {1: (7,)}),
        ([an_open(1, price=None)], [listed(7)], 0.0, {1: 7}, {}),
        ([an_open(1)], [listed(7, price=None)], 0.0, {1: 7}, {}),
        ([an_open(1), an_open(2, product="best-temp")], [listed(7)], 0.0, {}, {1: (7,), 2: (7,)}),
        # Its time speaks for the first, and may be wrong.
        ([an_open(1), an_open(2, product="best-temp", sent=9)], [listed(7, seen=12)], 0.0, {}, {1: (7,)}),
        (
            [an_open(1), an_open(2, sent=10)],
            [listed(7, created=1), listed(8, created=11, seen=12)],
            0.0,
            {1: 7, 2: 8},
            {},
        ),
    ],
)
def test_the_rule(
    opens: list[Open],
    orders: list[Seen],
    skew: float,
    adopted: dict[int, int],
    doubtful: dict[int, tuple[int, ...]],
) -> None:
    found, reported = outcome(match(opens, orders, skew))
    # Purchases of the same thing are interchangeable.
    assert (sorted(found.values()), reported) == (sorted(adopted.values()), doubtful)
    assert len(found) == len(adopted)


@pytest.mark.parametrize(
    ("phone", "fit"),
    [
        ("+44 20 7946 0017", Fit.NOT),
        ("+1 415 *** **23", Fit.STRANGE),
        ("+1 (415) 555-XX23", Fit.STRANGE),
        ("0", Fit.STRANGE),
        ("n/a 3", Fit.STRANGE),
        ("8901260123456789012", Fit.STRANGE),  # the id of a SIM card
    ],
)
def test_a_phone_that_is_no_whole_one_tells_no_order_apart(phone: str, fit: Fit) -> None:
    assert an_open(1).fit(listed(7, service="Other", price=Decimal(5), phone=phone), 0.0) is fit
