"""What was spent in all is the sum of all purchases, however old they are and whatever changes of them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest
import sqlalchemy as sa

from smsverify._purchases.totals import Total
from smsverify._store.tables import days, orders, purchases
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Simulator

DAY = 86_400.0


@pytest.fixture
def hook(simulator: Simulator, make_hook: Callable[..., SmsVerifyHook], any_store_url: str) -> SmsVerifyHook:
    return make_hook(simulator, any_store_url)


def buy(hook: SmsVerifyHook, *ages: float) -> list[int]:
    """Buys numbers so many days ago."""
    bought = []
    for age in ages:
        order_id = hook.order("temporary", service="WhatsApp").order_id
        these = purchases.c.order_id == order_id
        with hook._parts.store.write() as connection:
            sent_at = purchases.c.sent_at - age * DAY
            connection.execute(sa.update(purchases).where(these).values(sent_at=sent_at))
        bought.append(order_id)
    return bought


def in_all(hook: SmsVerifyHook) -> tuple[Decimal, int, Decimal]:
    total: Total = hook._parts.ledger.totals.read()
    return total.spent.amount, total.spent.unpriced, total.refunded


def sums(hook: SmsVerifyHook) -> int:
    """How many days are summed up."""
    with hook._parts.store.read() as connection:
        return connection.execute(
            sa.select(sa.func.count()).select_from(days).where(days.c.spent.is_not(None))
        ).scalar_one()


def test_days_that_are_over_are_summed_up_once_and_the_total_is_that_of_all_purchases(
    hook: SmsVerifyHook,
) -> None:
    assert in_all(hook) == (0, 0, 0)
    buy(hook, 400, 30.2, 30.1, 2, 0)
    # Of a purchase that has no price, the amount stays unknown.
    (unpriced,) = buy(hook, 3)
    with hook._parts.store.write() as connection:
        these = purchases.c.order_id == unpriced
        connection.execute(sa.update(purchases).where(these).values(charge=None))
        connection.execute(sa.delete(days))
    assert in_all(hook) == (Decimal("2.00"), 1, 0)
    first = sums(hook)
    assert first >= 399  # Yesterday is summed up an hour after its end.
    assert in_all(hook) == (Decimal("2.00"), 1, 0)
    assert sums(hook) == first


def test_a_refund_of_a_day_that_is_over_counts(hook: SmsVerifyHook, simulator: Simulator) -> None:
    old, _, new = buy(hook, 10, 10, 0)
    assert in_all(hook) == (Decimal("1.20"), 0, 0)
    for order_id in (old, new):
        hook.cancel(order_id)
    assert in_all(hook) == (Decimal("1.20"), 0, 0)
    hook.list_orders()
    assert in_all(hook) == (Decimal("0.40"), 0, Decimal("0.80"))


def test_a_refund_that_the_wallet_lacks_is_no_refund_for_as_long_as_it_does(hook: SmsVerifyHook) -> None:
    (old,) = buy(hook, 10)
    hook.cancel(old)
    hook.list_orders()
    assert in_all(hook) == (0, 0, Decimal("0.40"))
    refunds = hook._parts.refunds
    for since, expected in ((1.0, (Decimal("0.40"), 0, 0)), (None, (0, 0, Decimal("0.40")))):
        with hook._parts.store.write() as connection:
            movement = refunds._missing(connection) if since is None else None
            refunds._mark(connection, movement or [_Refund(old)], since)
        assert in_all(hook) == expected


class _Refund:
    def __init__(self, order_id: int) -> None:
        self.order_id = order_id


def test_a_call_that_ends_on_a_later_day_counts_as_what_it_is_then(
    hook: SmsVerifyHook, simulator: Simulator
) -> None:
    buy(hook, 5)
    with hook._parts.store.write() as connection:
        connection.execute(sa.update(purchases).values(state="unknown", order_id=None, charge="0.70"))
        connection.execute(sa.update(orders).values(key=None))
    assert in_all(hook)[0] == Decimal("0.70")
    with hook._parts.store.write() as connection:
        (call,) = hook._parts.ledger.open_calls(connection)
        hook._parts.ledger.close(connection, call, "rejected", 0.0, "it was not made")
    assert in_all(hook)[0] == 0
