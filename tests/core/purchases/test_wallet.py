"""The wallet, compared with what the records explain of it."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Context, Decimal, localcontext
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from rigs.rooms import rooms_of, store_of

from smsverify._purchases.spending import _sum_of
from smsverify._purchases.wallet import Movement, compare
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Fault, Simulator

CENTS = st.integers(2, 2000).map(lambda cents: Decimal(cents) / 100)
MOVES = st.lists(st.tuples(CENTS, st.sampled_from([-1, 1]), st.booleans(), st.booleans()), max_size=8)


def moved(moves: list[tuple[Decimal, int, bool, bool]]) -> tuple[list[Movement], Decimal]:
    """Movements, and what those of them that have really happened come to."""
    movements = [
        Movement("purchase", None, sign * amount, is_certain) for amount, sign, is_certain, _ in moves
    ]
    total = sum(
        (sign * amount for amount, sign, is_certain, has_happened in moves if is_certain or has_happened),
        Decimal(0),
    )
    return movements, total


def test_a_caller_s_precision_for_decimals_moves_no_cent() -> None:
    paid = Movement("purchase", 1, Decimal("-0.40"), is_certain=True)
    with localcontext(Context(prec=4)):
        assert compare(Decimal("1234.56"), Decimal("1234.16"), [paid]).fits
        assert _sum_of([SimpleNamespace(charge="1234.56", times=2)]).amount == Decimal("2469.12")


@given(CENTS, MOVES)
def test_whatever_may_have_happened_is_explained(before: Decimal, moves: Any) -> None:
    movements, total = moved(moves)
    found = compare(before, before + total, movements)
    assert (found.fits, found.is_short) == (True, False)


@given(CENTS, MOVES, CENTS)
def test_what_is_missing_besides_is_noticed(before: Decimal, moves: Any, missing: Decimal) -> None:
    movements, _ = moved(moves)
    least = before + sum((one.amount for one in movements if one.is_certain or one.amount < 0), Decimal(0))
    found = compare(before, least - missing, movements)
    assert (found.is_short, found.lacks(missing)) == (True, True)


@given(CENTS, MOVES, CENTS)
def test_no_refund_hides_a_payment(before: Decimal, moves: Any, price: Decimal) -> None:
    movements, total = moved([(amount, 1, is_certain, came) for amount, _, is_certain, came in moves])
    found = compare(before, before + total - price, movements)
    assert found.is_short_by(price) or found.may_lack(price)
    assert found.is_short_by(None) or found.may_lack(None)


@given(CENTS, MOVES, CENTS)
def test_where_more_has_come_in_than_is_on_record_nothing_is_said(
    before: Decimal, moves: Any, more: Decimal
) -> None:
    movements, _ = moved(moves)
    most = before + sum((one.amount for one in movements if one.is_certain or one.amount > 0), Decimal(0))
    found = compare(before, most + more, movements)
    assert (found.is_comparable, found.fits, found.is_short) == (False, False, False)


def test_an_unknown_price_compares_with_nothing() -> None:
    unpriced = Movement("purchase", 7, None, is_certain=True)
    assert not compare(Decimal(50), Decimal(40), [unpriced]).is_comparable


def test_the_records_explain_what_was_bought_given_back_and_bought_elsewhere(
    simulator: Simulator, make_hook: Callable[..., SmsVerifyHook], any_store_url: str
) -> None:
    hook = make_hook(simulator, any_store_url)
    wallet, store = rooms_of(hook).wallet, store_of(hook)

    def found() -> Any:
        hook.list_orders()
        then = wallet.read()[1]
        with store.read() as connection:
            return wallet.since(connection, first, then)

    hook.get_balance()
    with store.read() as connection:
        first = wallet.last(connection)
    assert first is not None
    order = hook.order("temporary", service="WhatsApp", key="k").order_id
    assert found().fits
    hook.cancel(order)
    assert found().fits
    hook.order("temporary", service="WhatsApp", key="k")
    assert found().fits
    other = make_hook(simulator, any_store_url, account="elsewhere")
    other.order("temporary", service="Telegram", key="k")
    assert found().fits
    simulator.set_balance(simulator.balance() - Decimal("0.40"))
    assert found().is_short
    assert found().lacks(Decimal("0.40"))
    simulator.deposit(100)
    assert not found().is_comparable


def test_an_amount_in_another_currency_is_shown_and_not_compared(
    hook: SmsVerifyHook, simulator: Simulator
) -> None:
    body = '{"balance": 50, "currency": "GBP"}'
    simulator.add_fault(Fault("error_before", path="balance/", status=200, body=body, times=None))
    balance = hook.get_balance()
    assert (balance.amount, balance.currency) == (Decimal(50), "GBP")
    with store_of(hook).read() as connection:
        assert rooms_of(hook).wallet.last(connection) is None
    assert hook.order("temporary", service="WhatsApp").order_id
    assert hook.reconcile().balance is None


@pytest.mark.parametrize("count", [1, 5])
def test_no_more_readings_are_kept_than_may_be_needed(
    count: int, hook: SmsVerifyHook, simulator: Simulator
) -> None:
    from smsverify._store.tables import balances

    for _ in range(count):
        hook.get_balance()
    with store_of(hook).read() as connection:
        assert len(connection.execute(balances.select()).all()) == 1
