"""What the rooms of money say of one paid call: its key, the right to send it, and one that is still open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from smsverify._purchases.spending import Caps

OPEN: Final = ("sent", "unknown")  # the states of a call whose outcome is not known
# Why a call is still open, where that is more than that nothing has decided yet.
WALLET_IS_SHORT: Final = "the wallet holds less than the records explain"
WALLET_IS_UNCLEAR: Final = "the wallet does not show whether it was paid"
WALLET_KEEPS: Final = (WALLET_IS_SHORT, WALLET_IS_UNCLEAR)


@dataclass(frozen=True)
class Purchase:
    """A paid call by its key.

    Attributes:
        key: names it.
        kind: `order` or `renewal`.
        fingerprint: what the key stands for; the same key never stands for something else.
        caps: what may be spent with it.
        count: of a renewal, how often the order had been renewed when this one was decided on.
    """

    key: str
    kind: str
    fingerprint: str
    caps: Caps
    count: int = 0


@dataclass(frozen=True)
class Intent:
    """The right to send one paid call, on record before it is used.

    Attributes:
        id, attempt: of its row.
        purchase: what it is for.
        charge: USD that it may cost at the most; `None` where that is unknown.
        row: all that is on record of it.
    """

    id: int
    purchase: Purchase
    attempt: str
    charge: Decimal | None
    row: Mapping[str, Any] = field(repr=False)

    @property
    def key(self) -> str:
        """The call's key."""
        return self.purchase.key


@dataclass(frozen=True)
class OpenCall:
    """A paid call whose outcome is unknown.

    Attributes:
        id: of its row.
        namespace, key, kind, price: as above.
        request: what was sent.
        sent_at: seconds since 1970 by the store's clock.
        number: the same in the account's sequence: what has a lower number was known before.
        candidates: the orders that may be it, where a person has to decide.
        under_way: whether its answer may still arrive.
        task: has made it, as JSON.
        charge: USD that it may have cost at the most, as a text.
    """

    id: int
    namespace: str
    key: str
    kind: str
    request: dict[str, Any]
    price: Decimal | None
    sent_at: float
    number: int
    candidates: tuple[int, ...]
    under_way: bool
    task: str | None = None
    charge: str | None = None


class UnderWay(Exception):
    """Another process or thread makes the key's call at this moment."""

    def __init__(self, why: str = "another call was being made") -> None:
        super().__init__(why)


class AnswerAwaited(UnderWay):
    """The answer to an earlier call may still come, and this call must not leave before that."""


def renewal_of(order_id: int) -> str:
    """What the key of a renewal stands for: its fingerprint."""
    return f"renewal of {order_id}"
