"""At the end of an example of the money machine, every order is accounted for."""

from __future__ import annotations

from rigs.money_truth import Truth
from rigs.money_world import (
    CALM,
    CALM_LEASE,
    LAG,
    LIST_LENGTH,
    LONG_LAG,
    User,
    Wallet,
    World,
    is_alive,
    is_open,
    orders_by_id,
    renewals_of,
    spent_on,
)
from smsverify._purchases.calls import WALLET_KEEPS
from smsverify.reports import Reconciliation


class Audit:
    """Reconciles wallets when all goes well again, and compares the reports with the truth."""

    def __init__(self, world: World, truth: Truth) -> None:
        self.world = world
        self.truth = truth

    def account_for_all(self, wallets: list[Wallet], *, is_dated_right: bool) -> None:
        """Of all wallets; the service's calendar may have been set meanwhile."""
        for service in self.world.services:
            service.clear_faults()
            service.configure(list_defects=(), clock_skew=0.0)
        self.world.clock.wrong = 0.0
        self.world.clock.pass_by(CALM_LEASE + LAG + 1)
        for wallet in wallets:
            self.reconcile_calmly(wallet)
        self.world.clock.pass_by(LONG_LAG + 1)
        for wallet in wallets:
            self.account_for_everything(wallet, is_dated_right=is_dated_right)

    def account_for_everything(self, wallet: Wallet, *, is_dated_right: bool) -> None:
        # What one pass adopts may have been in the way of something else.
        self.reconcile_calmly(wallet)
        report = self.reconcile_calmly(wallet)
        known, rows = orders_by_id(wallet), self.truth.rows(wallet)
        owned = {row.order_id for row in rows if row.kind == "order" and row.state == "bought"}
        unowned = {
            order_id
            for order_id, order in known.items()
            if order_id not in owned and not wallet.may_be_forgotten(order)
        }
        for call in report.unknown:
            if call.kind == "renewal":
                (renewed,) = (known[order_id] for order_id in call.order_ids)
                assert renewed.product == "rental" or not is_alive(renewed), "its status shows it"
            else:
                (row,) = (
                    row
                    for row in rows
                    if (row.namespace, row.key) == (call.namespace, call.key) and is_open(row)
                )
                is_explained = call.order_ids or row.note in WALLET_KEEPS
                assert is_explained, f"{call.key} is unknown, and nobody says why"
        reported = {order_id for call in report.unknown for order_id in call.order_ids}
        assert unowned <= reported, "a paid order is in no report"
        self.truth.resolve(wallet, "order")
        self.truth.resolve(wallet, "renewal")
        report = self.reconcile_calmly(wallet)
        assert not report.unknown
        pending = {order.order_id for order in wallet.all_orders if order.status == "pending"}
        foreign = {order.order_id for order in report.foreign}
        assert foreign <= wallet.foreign & pending
        # Of the last day, by the service's calendar.
        assert foreign == wallet.foreign & pending or not is_dated_right
        rows = self.truth.rows(wallet)
        bought = [row.order_id for row in rows if row.kind == "order" and row.state == "bought"]
        forgotten = {
            order_id
            for order_id, order in known.items()
            if order_id not in bought and wallet.may_be_forgotten(order)
        }
        assert sorted(bought) == sorted(known.keys() - forgotten)
        for order in known.values():
            assert order.renewals == len(renewals_of(rows, order.order_id, ("bought",)))
        if len(known) <= LIST_LENGTH:
            assert report.spent == spent_on(wallet.orders)
        assert report.balance == wallet.service.balance()

    def reconcile_calmly(self, wallet: Wallet) -> Reconciliation:
        """Without faults and in no hurry."""
        return self.world.hook(User(wallet, ""), **CALM).reconcile()
