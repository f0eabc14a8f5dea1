"""What came of several attempts to get a code."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from smsverify._input.amounts import exactly
from smsverify.text import amount


class TriedNumber(BaseModel):
    """One attempt: a number that was tried, or an alternative that was not available.

    Attributes:
        order_id, phone: of the number; `None` if none was bought.
        product, service: what was asked for.
        price: USD that it cost.
        refunded: whether the price has come back.
        why: how the attempt ended, for people.
    """

    model_config = ConfigDict(frozen=True)

    order_id: int | None
    phone: str | None
    product: str
    service: str | None
    price: Decimal | None
    refunded: bool
    why: str


@exactly
def summary_of(tried: Sequence[TriedNumber], *, not_refunded: Decimal) -> str:
    """What attempts without a code have cost and why they ended; each order and each reason once.

    Args:
        tried: the attempts.
        not_refunded: USD of them that have not come back.
    """
    alike: dict[tuple[str, bool, str], list[TriedNumber]] = {}
    for one in tried:
        is_lost = one.order_id is not None and not one.refunded
        alike.setdefault((one.product, is_lost, one.why), []).append(one)
    reasons = []
    for (product, is_lost, why), those in alike.items():
        orders = ", ".join(f"order {one.order_id} ({one.phone})" for one in those if one.order_id is not None)
        named = f"{product}, {orders}" if orders else product
        reasons.append(f"{named}{', not refunded' if is_lost else ''}: {why}")
    return ". ".join([_paid(tried, not_refunded), *reasons])


def _paid(tried: Sequence[TriedNumber], not_refunded: Decimal) -> str:
    bought = [one for one in tried if one.order_id is not None]
    if not bought:
        return "Nothing was bought"
    paid = sum((one.price or Decimal(0) for one in bought), Decimal(0))
    unpriced = " or more" if any(one.price is None for one in bought) else ""
    if all(one.refunded for one in bought):
        return f"Paid {amount(paid)} USD{unpriced}, and all of it is refunded"
    return (
        f"Paid {amount(paid)} USD{unpriced}, of which {amount(not_refunded)} USD{unpriced} are not refunded: "
        "`smsverify reconcile` gives back what it can, and names the rest"
    )


class Verification(BaseModel):
    """A number whose code has come.

    Attributes:
        order_id, phone: of the number.
        otp: the code; `None` if the text holds none that can be read with certainty.
        message: the text of the SMS.
        attempts: how many numbers were tried, this one included.
        cost: USD that all of them cost together, without what was refunded.
        result: what the function returned for this number.
    """

    model_config = ConfigDict(frozen=True)

    order_id: int
    phone: str | None
    otp: str | None = Field(repr=False)
    message: str | None = Field(repr=False)
    attempts: int
    cost: Decimal
    result: Any = None

    def as_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON except `result`, which stays what it is."""
        return self.model_dump(mode="json", exclude={"result"}) | {"result": self.result}
