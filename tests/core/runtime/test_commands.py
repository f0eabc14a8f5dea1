"""A command that is shown is one that a person can type."""

from __future__ import annotations

from decimal import Decimal

import pytest

from smsverify._runtime.commands import command


@pytest.mark.parametrize(
    ("price", "typed"),
    [("12.0", "12.00"), ("12", "12.00"), ("1E+1", "10.00"), ("0.400", "0.40"), ("0.125", "0.125")],
)
def test_a_price_has_its_cents_and_is_no_other_one(price: str, typed: str) -> None:
    assert command("renew", "17", max_price=Decimal(price)) == f"smsverify renew 17 --max-price {typed}"
    assert Decimal(typed) == Decimal(price)


def test_other_options_stay_as_they_are() -> None:
    assert command("order", key="a key", plan=3, max_price=None) == "smsverify order --key 'a key' --plan 3"
