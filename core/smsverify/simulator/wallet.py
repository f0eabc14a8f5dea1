"""The wallet: a balance that is the sum of its movements."""

from __future__ import annotations

from decimal import Decimal

from smsverify.simulator.agenda import moment, now
from smsverify.simulator.records import Movement


class Wallet:
    """USD and how they came and went. Not thread-safe: its owner holds a lock."""

    def __init__(self, start: Decimal) -> None:
        self.movements: list[Movement] = []
        self.move("start", start)

    @property
    def balance(self) -> Decimal:
        return self.movements[-1].balance if self.movements else Decimal(0)

    def move(self, kind: str, amount: Decimal, order_id: int | None = None) -> None:
        """Add `amount`, negative for a debit, and write it down."""
        self.movements.append(Movement(kind, amount, self.balance + amount, order_id, moment(now())))
