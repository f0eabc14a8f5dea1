"""Whatever happens in whatever order: no money is lost, and every paid order is accounted for."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule
from rigs import API_KEY

from smsverify import SmsVerifyError
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Fault, Simulator
from smsverify.store import open_store, purchases

FAULTS = [
    "reset",
    "lost_answer",
    "error_before",
    "error_after",
    "provider_failure",
    "cut_json",
    "out_of_stock",
]
PATHS = [
    "order/temporary/",
    "order/rent-1day/",
    "orders/",
    "order/*/cancel/",
    "order/*/status/",
    "order/*/renew/",
]
PRODUCTS: dict[str, dict[str, Any]] = {
    "temporary": {"service": "WhatsApp"},
    "rent-1day": {"service": "Tinder"},
}
START = Decimal(1000)


class Money(RuleBasedStateMachine):
    """A few keys, orders that get codes, are cancelled, renewed and end, and faults at any time."""

    orders = Bundle("orders")
    accounts = itertools.count()
    directory = Path(tempfile.mkdtemp(prefix="smsverify-money-"))
    simulator: Simulator

    def __init__(self) -> None:
        super().__init__()
        self.simulator = Simulator(
            api_key=API_KEY, speed=600.0, sms_delay="never", rate_limit=None, balance=START
        ).start()
        self.account = f"account{next(self.accounts)}"
        self.url = f"sqlite:///{self.directory / 'store.db'}"

    @property
    def hook(self) -> SmsVerifyHook:
        """A new process's hook, each time."""
        return SmsVerifyHook(
            API_KEY,
            base_url=self.simulator.url,
            store_url=self.url,
            account=self.account,
            rate_limit=1000,
            rate_period=0.1,
            call_timeout=2.0,
        )

    def teardown(self) -> None:
        self.simulator.stop()

    @rule(kind=st.sampled_from(FAULTS), path=st.sampled_from(PATHS), after=st.integers(0, 1))
    def something_goes_wrong(self, kind: str, path: str, after: int) -> None:
        self.simulator.add_fault(Fault(kind, path=path, after=after))

    @rule(target=orders, key=st.sampled_from("abc"), product=st.sampled_from(sorted(PRODUCTS)))
    def order(self, key: str, product: str) -> Any:
        try:
            return self.hook.order(product, **PRODUCTS[product], key=key).order_id
        except SmsVerifyError:
            return multiple()

    @rule(order_id=orders)
    def a_code_comes(self, order_id: int) -> None:
        if self.simulator.order(order_id).status in ("pending", "active"):
            self.simulator.deliver_sms(order_id, otp="123456")

    @rule(order_id=orders)
    def look(self, order_id: int) -> None:
        with contextlib.suppress(SmsVerifyError):
            self.hook.check_otp(order_id)

    @rule(order_id=orders)
    def cancel(self, order_id: int) -> None:
        with contextlib.suppress(SmsVerifyError):
            status = self.hook.cancel(order_id)
            assert status.cancelled == (self.simulator.order(order_id).status == "cancelled")

    @rule(order_id=orders)
    def release(self, order_id: int) -> None:
        had_code = self.simulator.order(order_id).sms_count > 0
        assert self.hook.release(order_id, "not needed") <= (not had_code)

    @rule(order_id=orders)
    def renew(self, order_id: int) -> None:
        with contextlib.suppress(SmsVerifyError):
            self.hook.renew(order_id)

    @rule(order_id=orders)
    def the_order_ends(self, order_id: int) -> None:
        self.simulator.set_time_left(order_id, 0)

    @invariant()
    def the_wallet_is_what_was_paid_and_refunded(self) -> None:
        orders = self.simulator.orders()
        spent = sum((order.paid - order.refunded for order in orders), Decimal(0))
        assert self.simulator.balance() == START - spent

    @invariant()
    def every_paid_order_is_on_record(self) -> None:
        with open_store(self.url).read() as connection:
            rows = connection.execute(sa.select(purchases).where(purchases.c.account == self.account)).all()
        bought = {row.order_id for row in rows if row.kind == "order" and row.state == "bought"}
        unknown = [row for row in rows if row.kind == "order" and row.state in ("sent", "unknown")]
        unexplained = {order.order_id for order in self.simulator.orders()} - bought
        assert len(unexplained) <= len(unknown)
        renewed = sum(order.renewals for order in self.simulator.orders())
        renewals = [
            row for row in rows if row.kind == "renewal" and row.state in ("bought", "unknown", "sent")
        ]
        assert renewed <= len(renewals)
        unfinished = {order.order_id for order in self.simulator.orders() if order.status == "pending"}
        for key in "abc":
            mine = [row for row in rows if row.kind == "order" and row.key == key]
            open_ones = [
                row for row in mine if row.state in ("sent", "unknown") or row.order_id in unfinished
            ]
            assert len(open_ones) <= 1, key


Money.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=15,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
test_money_is_accounted_for = Money.TestCase
