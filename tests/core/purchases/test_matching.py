"""Which order of a list is which purchase's, if its answer was lost: the rule by itself."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest

from smsverify._orders.records import Seen
from smsverify._purchases.matching import Fit, Matching, Open, Verdict, judge, match
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


def judged(
    orders: list[Seen],
    *,
    first_under_way: int | None = None,
    is_exclusive: bool = True,
    should_show: bool = False,
) -> Verdict:
    ((_, verdict),) = judge(
        [an_open(1)],
        orders,
        0.0,
        first_under_way=first_under_way,
        is_exclusive=is_exclusive,
        should_show=lambda _: should_show,
    )
    return verdict


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


EARLIER = listed(7, created=-60)  # fits but for its time


@pytest.mark.parametrize(
    ("orders", "is_late_enough", "verdict"),
    [
        ([listed(7)], False, Verdict("bought", (7,))),
        ([listed(7), listed(8)], False, Verdict("doubtful", (7, 8))),
        ([], False, Verdict("open")),
        ([], True, Verdict("absent")),
        ([listed(7, seen=-1)], True, Verdict("absent")),
        ([EARLIER], False, Verdict("open")),
        ([EARLIER], True, Verdict("doubtful", (7,))),
        # With those that seem to be another thing.
        ([listed(8), listed(9), EARLIER], False, Verdict("doubtful", (8, 9, 7))),
    ],
)
def test_a_late_list_that_shows_no_order_says_that_nothing_was_bought(
    orders: list[Seen], is_late_enough: bool, verdict: Verdict
) -> None:
    assert judged(orders, should_show=is_late_enough) == verdict


def test_a_person_decides_where_others_buy_on_the_account() -> None:
    assert judged([listed(7)], is_exclusive=False) == Verdict("doubtful", (7,))


@pytest.mark.parametrize("is_late_enough", [False, True])
def test_an_order_that_a_call_under_way_may_have_bought_decides_nothing(is_late_enough: bool) -> None:
    (seen,) = orders = [listed(7)]
    judgement = judged(orders, first_under_way=seen.number, should_show=is_late_enough)
    assert judgement == Verdict("open")


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
