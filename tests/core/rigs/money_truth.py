"""What was really bought and by whom, what it has cost, and what the ledger says of it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from rigs.money_world import (
    DAY,
    Row,
    User,
    Wallet,
    World,
    candidates_of,
    identity_of,
    is_open,
    orders_by_id,
    renewals_of,
)
from smsverify._purchases.calls import WALLET_KEEPS
from smsverify._store.store import open_store
from smsverify._store.tables import orders, purchases


class Truth:
    """Knows which call has bought each order, and checks budgets and a person's decisions against that."""

    def __init__(self, world: World) -> None:
        self.world = world

    def write_down(self, user: User, key: str, run: str, before: int, options: dict[str, Any]) -> None:
        """What a paid call has done since so many movements; its limits are checked against that."""
        wallet = user.wallet
        # What others did while this process was stopped is written down already.
        numbers = set(range(before, len(wallet.movements))) - wallet.explained
        wallet.explained |= numbers
        news = [wallet.movements[number] for number in sorted(numbers)]
        returned = {move.order_id for move in news if move.kind == "refund"}
        paid = [move for move in news if move.kind in ("order", "renewal") and move.order_id not in returned]
        assert len(paid) <= 1, "one call was paid twice"
        for move in paid:
            assert move.order_id is not None
            if move.kind == "order":
                wallet.made[move.order_id] = (user.namespace, key)
            else:
                wallet.renewed[user.namespace, key, move.order_id] += 1
            self.world.outcomes["paid"] += 1
            if options.get("max_price"):
                assert -move.amount <= Decimal(options["max_price"])
            if options.get("daily_budget"):
                midnight = self.store_time() // DAY * DAY
                assert self.spent(wallet, since=midnight) <= Decimal(options["daily_budget"])
            if options.get("run_budget"):
                assert self.spent(wallet, run=run) <= Decimal(options["run_budget"])

    def store_time(self) -> float:
        """What begins and ends a day: not the clock that is set here, which goes on a little faster."""
        store = open_store(self.world.store_url)
        with store.read() as connection:
            return store.now(connection)

    def spent(self, wallet: Wallet, *, run: str | None = None, since: float = 0.0) -> Decimal:
        """USD that the calls of a run or of a day have cost, what is open with what it may have cost.

        A price that rose while a call without a limit was stopped counts as in the catalogue: where its
        answer was lost and the list shows no prices, the next call knew nothing else.
        """
        known = orders_by_id(wallet)
        total = Decimal(0)
        for row in self.rows(wallet):
            if run not in (None, row.run) or row.sent_at < since:
                continue
            if not (is_open(row) or row.state == "bought"):
                continue
            if row.kind == "order" and row.state == "bought":
                order = known[row.order_id]
                on_record = max(Decimal(row.price), Decimal(row.charge))
                total += Decimal(0) if order.refunded else min(order.price, on_record)
            else:
                total += Decimal(row.charge)
        return total

    def rows(self, wallet: Wallet) -> list[Any]:
        """The paid calls that the ledger has of an account."""
        with open_store(self.world.store_url).read() as connection:
            found = connection.execute(
                sa.select(purchases).where(purchases.c.account == wallet.account).order_by(purchases.c.id)
            ).all()
        return [Row(row) for row in found]

    def used(self, wallet: Wallet) -> set[int]:
        """The orders whose code was handed out."""
        with open_store(self.world.store_url).read() as connection:
            is_used = sa.and_(orders.c.account == wallet.account, orders.c.used_at.is_not(None))
            return set(connection.execute(sa.select(orders.c.order_id).where(is_used)).scalars())

    def resolve(self, wallet: Wallet, kind: str) -> None:
        """A person who knows everything decides what the ledger cannot."""
        for row in self.rows(wallet):
            is_decidable = row.candidates or row.note in WALLET_KEEPS
            if row.kind != kind or not is_open(row) or (kind == "order" and not is_decidable):
                continue
            truth = (
                self.truth_of_order(wallet, row) if kind == "order" else self.truth_of_renewal(wallet, row)
            )
            self.world.outcomes["resolved"] += 1
            self.world.hook(User(wallet, row.namespace)).resolve(row.key, order_id=truth)
            assert not any(is_open(other) for other in self.rows(wallet) if other.id == row.id)

    def truth_of_order(self, wallet: Wallet, row: Any) -> int | None:
        """The order that a call has bought; another one where that was taken for a call's of the same."""
        owned = {other.order_id for other in self.rows(wallet) if other.kind == "order"}
        mine = [order_id for order_id, maker in wallet.made.items() if maker == (row.namespace, row.key)]
        # A person who sees the dashboard names what the list never showed.
        for order_id in mine:
            if order_id not in owned and identity_of(orders_by_id(wallet)[order_id]) == row.identity:
                return order_id
        return next(
            (
                order_id
                for order_id, order in orders_by_id(wallet).items()
                if order_id not in owned
                and identity_of(order) == row.identity
                and order_id in candidates_of(row)
            ),
            None,
        )

    def truth_of_renewal(self, wallet: Wallet, row: Any) -> int | None:
        order_id = int(row.fingerprint.rpartition(" ")[2])
        done = renewals_of(self.rows(wallet), order_id, ("bought",))
        return order_id if wallet.service.order(order_id).renewals > len(done) else None
