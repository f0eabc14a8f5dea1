"""Which numbers are amounts at all."""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal
from typing import Final

FINEST: Final = Decimal(1).scaleb(-10)  # of what an amount is kept to
MOST_DIGITS: Final = 15  # before the point; a float that was reckoned with has noise from there on


def is_absurd(amount: Decimal) -> bool:
    """Whether a number is no amount: not finite, or too large, small or exact for a database to reckon with.

    A number with an exponent of millions is written out in as many characters where it is shown.
    """
    if not amount.is_finite() or (amount and not -MOST_DIGITS < amount.adjusted() < MOST_DIGITS):
        return True
    return int(amount.as_tuple().exponent) <= -2 * MOST_DIGITS


def as_limit(limit: Decimal) -> Decimal:
    """What a caller allows, cut to ten decimals: a number that was reckoned with has many more."""
    if not limit.is_finite() or not -MOST_DIGITS < limit.adjusted() < MOST_DIGITS:
        return limit
    rounded = limit.quantize(FINEST, ROUND_DOWN)
    return limit if rounded == limit else rounded.normalize()
