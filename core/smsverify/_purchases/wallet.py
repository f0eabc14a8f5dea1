"""What the wallet holds, and what it should hold by the records.

Each reading of the balance is kept. If the outcome of a paid call is unknown later, the balance is read
again. Payments and refunds in between are on record, so a further difference shows a payment that is not on
record. Where the two readings cannot be compared, the wallet decides nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from smsverify._input.amounts import exactly
from smsverify._runtime.properties import cached_property
from smsverify._service.endpoints import ServiceApi
from smsverify._store import sequence
from smsverify._store.sequence import Asked
from smsverify._store.store import Store
from smsverify._store.tables import balances, orders, purchases
from smsverify.metrics import BALANCE, Meter
from smsverify.models import Balance, is_usd
from smsverify.text import log_of

log = log_of(__name__)

ROUNDING = Decimal("0.01")  # USD by which two balances, or a price, may be rounded
MOST_SUMS = 10_000  # sums that are looked through


@dataclass(frozen=True)
class Reading:
    """What the wallet held.

    Attributes:
        amount: USD.
        asked: before the request left: what had happened until then is in the amount.
        number: when it went on record, in the account's sequence: what was sent later is not in it.
        read_at: the same by the store's clock.
    """

    amount: Decimal
    asked: Asked
    number: int
    read_at: float


@dataclass(frozen=True)
class Movement:
    """What has moved the wallet between two readings, or may have.

    Attributes:
        what: `purchase`, `renewal`, `refund`, or `foreign` for what was not bought through the store.
        order_id: the order.
        amount: USD, negative for what was paid; `None` where that is unknown.
        is_certain: whether it has happened in between. Otherwise it may have: before, in between, or later.
        is_open: whether the call was under way when the wallet was read at last.
    """

    what: str
    order_id: int | None
    amount: Decimal | None
    is_certain: bool
    is_open: bool = False


@dataclass(frozen=True)
class Comparison:
    """The wallet, and what it may hold by the records.

    Attributes:
        amount: USD that it holds.
        payments: the amounts that it may hold without the refunds that may have come; empty where that is
            unknown.
        refunds: the sums that those may come to.
        is_settled: whether all payments between the readings are explained: none was under way at the later
            one that is on record by now.
    """

    amount: Decimal
    payments: frozenset[Decimal] = frozenset()
    refunds: frozenset[Decimal] = frozenset()
    is_settled: bool = True

    @cached_property
    @exactly
    def expected(self) -> tuple[Decimal, ...]:
        """The amounts that it may hold, the lowest first; empty where that is unknown."""
        return tuple(sorted({paid + came for paid in self.payments for came in self.refunds}))

    @property
    @exactly
    def is_comparable(self) -> bool:
        """Whether this shows anything: it does not where more has come in than the records explain."""
        return bool(self.expected) and self.amount <= self.expected[-1] + ROUNDING

    @property
    def fits(self) -> bool:
        """Whether the records explain what it holds."""
        return self.lacks(Decimal(0))

    @property
    def is_short(self) -> bool:
        """Whether it holds less than the records explain."""
        return self.is_comparable and not self.fits

    def is_short_by(self, price: Decimal | None) -> bool:
        """The same where the question is whether a price was paid: it may be no more than the rounding."""
        return self.is_comparable and not self._lacks(Decimal(0), _rounding(price))

    @exactly
    def may_lack(self, price: Decimal | None) -> bool:
        """Whether refunds that may have come explain as well that a price was paid, and that it was not."""
        rounding = _rounding(price)

        def is_either(paid: Decimal) -> bool:
            more = [paid + came - self.amount for came in self.refunds]
            is_without = any(abs(one) <= rounding for one in more)
            is_with = any(one > rounding if price is None else abs(one - price) <= rounding for one in more)
            return is_without and is_with

        return self.is_comparable and any(is_either(paid) for paid in self.payments)

    def lacks(self, amount: Decimal) -> bool:
        """Whether the records would explain what it holds if this had been paid besides."""
        return self.is_comparable and self._lacks(amount, ROUNDING)

    @exactly
    def _lacks(self, amount: Decimal, rounding: Decimal) -> bool:
        return any(abs(one - amount - self.amount) <= rounding for one in self.expected)


@exactly
def _rounding(price: Decimal | None) -> Decimal:
    return ROUNDING if price is None else min(ROUNDING, price / 2)


@exactly
def compare(before: Decimal, after: Decimal, movements: Sequence[Movement]) -> Comparison:
    """What the wallet holds against what it held before, and what has happened in between.

    Args:
        before, after: USD that it held.
        movements: in between.
    """
    payments, refunds = {before}, {Decimal(0)}
    for movement in movements:
        if movement.amount is None:
            return Comparison(after)
        if movement.is_certain:
            payments = {one + movement.amount for one in payments}
        elif movement.amount > 0:
            refunds |= {one + movement.amount for one in refunds}
        else:
            payments |= {one + movement.amount for one in payments}
        if len(payments) * len(refunds) > MOST_SUMS:
            return Comparison(after)
    return Comparison(after, frozenset(payments), frozenset(refunds))


_LAST_READING = (
    sa.select(balances)
    .where(balances.c.account == sa.bindparam("account"), balances.c.number < sa.bindparam("before"))
    .order_by(balances.c.number.desc())
    .limit(1)
)


class Wallet:
    """The wallet of one account.

    Args:
        store: where the readings and the paid calls are.
        account: whose it is.
        api: asks the service.
        note: is given each reading that is kept and the one before it, in the same transaction.
        meter: shows what it holds.
    """

    def __init__(
        self,
        store: Store,
        account: str,
        api: ServiceApi,
        note: Callable[[sa.Connection, Reading, Reading], None],
        *,
        meter: Meter | None = None,
    ) -> None:
        self._meter = meter or Meter()
        self._store = store
        self._account = account
        self._api = api
        self._note = note

    def read(
        self, ask: Callable[..., Balance] | None = None, *, stop: threading.Event | None = None
    ) -> tuple[Balance, Reading | None]:
        """Asks the service what the wallet holds, and keeps that for later comparisons.

        It is not kept if another reading came after it was asked for. An amount in another currency than USD
        cannot be compared: it is no reading.

        Args:
            ask: another way to ask it; takes `CallOptions`.
            stop: ends the waiting for the rate limit when it is set.
        """
        asked: list[Asked] = []

        def note_turn() -> None:
            """What is paid while the request waits for its turn is in the amount."""
            with self._store.read() as connection:
                asked.append(sequence.asked(self._store, connection, self._account))

        balance = (ask or self._api.get_balance)(stop=stop, before_sending=note_turn)
        if not is_usd(balance.currency):
            log.warning("The wallet is in %s: it is not compared with the records in USD", balance.currency)
            return balance, None
        with self._store.write() as connection:
            self._store.lock(connection, self._account)
            before = self.last(connection)
            number = sequence.advance(self._store, connection, self._account)
            reading = Reading(balance.amount, asked[-1], number, self._store.now(connection))
            # An answer that comes after that of a later request shows nothing new.
            if before is None or reading.asked.number >= before.number:
                self._keep(connection, reading)
                if before is not None:
                    self._note(connection, before, reading)
        self._meter.gauge(BALANCE, balance.amount)
        return balance, reading

    def before(self, connection: sa.Connection, number: int) -> Reading | None:
        """The last reading that was on record before a number of the sequence."""
        row = connection.execute(_LAST_READING, {"account": self._account, "before": number}).one_or_none()
        return None if row is None else _reading(row)

    def last(self, connection: sa.Connection) -> Reading | None:
        """The last reading."""
        return self.before(connection, sequence.LATEST)

    def since(self, connection: sa.Connection, first: Reading, then: Reading) -> Comparison:
        """What the wallet held at a reading, compared with an earlier one.

        Calls that were open at the later one explain nothing: whether they were paid is the question.
        """
        moved = movements(connection, self._account, first, then)
        settled = [one for one in moved if not one.is_open]
        return replace(compare(first.amount, then.amount, settled), is_settled=len(settled) == len(moved))

    def _keep(self, connection: sa.Connection, reading: Reading) -> None:
        connection.execute(
            sa.insert(balances).values(
                account=self._account,
                number=reading.number,
                asked_number=reading.asked.number,
                asked_at=reading.asked.at,
                read_at=reading.read_at,
                amount=str(reading.amount),
            )
        )
        self._forget(connection, reading.number)

    def _forget(self, connection: sa.Connection, newest: int) -> None:
        """Keeps the newest reading, and the last one before each call that is open."""
        numbers = (
            connection.execute(sa.select(balances.c.number).where(balances.c.account == self._account))
            .scalars()
            .all()
        )
        sent = (
            connection.execute(
                sa.select(purchases.c.sent_number).where(
                    purchases.c.account == self._account, purchases.c.state.in_(("sent", "unknown"))
                )
            )
            .scalars()
            .all()
        )
        before = {max((n for n in numbers if n < number), default=newest) for number in sent if number}
        connection.execute(
            sa.delete(balances).where(
                balances.c.account == self._account, balances.c.number.not_in({newest, *before})
            )
        )


def movements(connection: sa.Connection, account: str, first: Reading, then: Reading) -> list[Movement]:
    """What has moved the wallet between two readings, or may have; of calls, those that were carried out.

    A call that was under way while the wallet was read may be in that reading or not.
    """
    calls = connection.execute(
        sa.select(purchases).where(
            purchases.c.account == account,
            purchases.c.state == "bought",
            purchases.c.resolved_number > first.asked.number,
        )
    ).all()
    found = [
        Movement(
            "purchase" if call.kind == "order" else "renewal",
            call.order_id,
            paid(call),
            is_certain=call.sent_number > first.number and call.resolved_number <= then.asked.number,
            is_open=call.resolved_number > then.asked.number,
        )
        for call in calls
        # Not in the query: the index of what is open, by this number, would read all of the history.
        if call.sent_number < then.number
    ]
    certain = {one.order_id for one in found if one.what == "purchase" and one.is_certain}
    rows = connection.execute(
        sa.select(orders).where(
            orders.c.account == account,
            sa.or_(
                orders.c.ended_number > first.asked.number,
                sa.and_(orders.c.key.is_(None), orders.c.seen_number > first.asked.number),
            ),
        )
    ).all()
    for row in rows:
        if row.key is None and row.seen_number > first.asked.number:
            found.append(Movement("foreign", row.order_id, _negative(row.price), is_certain=False))
        elif row.status != "completed":
            is_later = row.order_id in certain or (row.cancelled_at or 0.0) > first.read_at
            is_certain = (
                is_later
                and row.refunded_at is not None
                and row.refund_missing_since is None
                and row.ended_number <= then.asked.number
            )
            found += _refunds(connection, row, is_certain=is_certain)
    return found


def _refunds(connection: sa.Connection, order: Any, *, is_certain: bool) -> list[Movement]:
    """What came back of an order that has ended, or may have."""
    if order.key is None:
        back = _negative(order.price)
        return [Movement("refund", order.order_id, None if back is None else -back, is_certain=False)]
    calls = connection.execute(
        sa.select(purchases).where(
            purchases.c.account == order.account,
            purchases.c.state == "bought",
            purchases.c.order_id == order.order_id,
        )
    ).all()
    amounts = [(call.kind == "order", paid(call)) for call in calls]
    return [
        Movement(
            "refund",
            order.order_id,
            None if amount is None else -amount,
            # The service does not say what it refunds for renewals.
            is_certain=is_certain and is_order,
        )
        for is_order, amount in amounts
    ]


def _reading(row: Any) -> Reading:
    return Reading(Decimal(row.amount), Asked(row.asked_number, row.asked_at), row.number, row.read_at)


def paid(call: Any) -> Decimal | None:
    """USD that a call has taken out of the wallet, as a negative amount."""
    # The charge of a purchase is what its order costs; a renewal's the most that it may have cost.
    return _negative(call.charge if call.kind == "order" or call.price is None else call.price)


def _negative(amount: str | None) -> Decimal | None:
    return None if amount is None else Decimal(amount).copy_negate()
