"""What came of several attempts to get a code."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class TriedNumber(BaseModel):
    """One attempt: a number that was tried, or an alternative that was not available.

    Attributes:
        order_id, phone: of the number; `None` where none was bought.
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

    def as_text(self) -> str:
        """The attempt in one line."""
        if self.order_id is None:
            return f"{self.product}: {self.why}"
        price = "an unknown price" if self.price is None else f"{self.price:.2f} USD"
        back = "refunded" if self.refunded else "not refunded"
        return f"order {self.order_id} ({self.product}, {self.phone}) for {price}, {back}: {self.why}"


class Verification(BaseModel):
    """A number whose code has come.

    Attributes:
        order_id, phone: of the number.
        otp: the code; `None` where the text holds none that can be read with certainty.
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
        """All fields, ready for JSON but for `result`, which stays what it is."""
        return self.model_dump(mode="json", exclude={"result"}) | {"result": self.result}
