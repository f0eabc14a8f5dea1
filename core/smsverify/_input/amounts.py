"""Which numbers are amounts at all, and how they are reckoned with."""

from __future__ import annotations

import functools
from collections.abc import Callable
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Context, Decimal, InvalidOperation, localcontext
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

FINEST: Final = Decimal(1).scaleb(-10)  # of what an amount is kept to
MOST_DIGITS: Final = 15  # before the point; a float that was reckoned with has noise from there on
_EXACT: Final = Context(prec=50, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation])


def exactly(reckon: Callable[P, T]) -> Callable[P, T]:
    """Lets a function reckon with amounts as they are, whatever its caller has set for decimals: theirs may
    keep six digits only, or raise where one is lost.
    """

    @functools.wraps(reckon)
    def reckoned(*args: P.args, **kwargs: P.kwargs) -> T:
        with localcontext(_EXACT):
            return reckon(*args, **kwargs)

    return reckoned


def is_absurd(amount: Decimal) -> bool:
    """Whether a number is no amount: not finite, or too large, small or exact for a database to reckon with.

    A number with an exponent of millions is written out in as many characters where it is shown.
    """
    if not amount.is_finite() or (amount and not -MOST_DIGITS < amount.adjusted() < MOST_DIGITS):
        return True
    return int(amount.as_tuple().exponent) <= -2 * MOST_DIGITS


@exactly
def as_limit(limit: Decimal) -> Decimal:
    """What a caller allows, cut to ten decimals: a number that was reckoned with has many more."""
    if not limit.is_finite() or not -MOST_DIGITS < limit.adjusted() < MOST_DIGITS:
        return limit
    rounded = limit.quantize(FINEST, ROUND_DOWN)
    return limit if rounded == limit else rounded.normalize()
