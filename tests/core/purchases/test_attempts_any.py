"""Whatever becomes of attempts: one number at a time, within `max_cost`, each used, refunded or reported."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rigs.money import Clock, Deaths, Died
from rigs.rooms import rooms_of

from smsverify import Order, PurchaseConflictError, SmsVerifyHook, Verification, VerificationError
from smsverify._purchases.run_context import RunContext
from smsverify._purchases.sending import Sender
from smsverify.simulator import Fault, Simulator

SOAK = bool(os.environ.get("SMSVERIFY_SOAK"))
LEASE = 2.65
HURRIED = {"purchase_grace": 1.0, "connect_timeout": 0.5, "read_timeout": 0.5}
REFUSES = Fault("out_of_stock", "order/*/cancel/", status=400, body='{"error": "not now"}', times=None)
FORGOTTEN = 1300.0  # seconds after which nobody waits any more, and a reconciliation names what is left


class FormDown(Exception):
    """The user's function fails."""


class Retried(RunContext):
    def next_try_within(self) -> float | None:
        return 600.0


@dataclass(frozen=True)
class Call:
    """One call of `verify` under the same key.

    Attributes:
        ends: what becomes of each number that it tries.
        product: that it asks for.
        has_alternative: whether it may take the other one.
        attempts: how many numbers it may try.
        is_retried: whether its run tries again after an error.
        is_refused: whether the service refuses cancellations meanwhile.
        dies_after: at which transaction its process dies; `None` for never.
    """

    ends: tuple[str, ...]
    product: str
    has_alternative: bool
    attempts: int
    is_retried: bool
    is_refused: bool
    dies_after: int | None


ENDS = st.lists(st.sampled_from(["code", "silence", "silence", "error"]), min_size=1, max_size=3).map(tuple)
CALLS = st.builds(
    Call,
    ends=ENDS,
    product=st.sampled_from(["temporary", "temporary", "best-temp"]),
    has_alternative=st.booleans(),
    attempts=st.integers(1, 3),
    is_retried=st.booleans(),
    is_refused=st.sampled_from([False, False, True]),
    dies_after=st.none() | st.integers(0, 45),
)


class Account:
    """A wallet, a store of its own, and the calls that are made with them."""

    def __init__(self, simulator: Simulator, make: Callable[..., SmsVerifyHook], deaths: Deaths) -> None:
        self.simulator, self.make, self.deaths = simulator, make, deaths
        self.has_died = False

    def call(self, call: Call, max_cost: str | None) -> None:
        """Makes a call, and checks what it says of its cost."""
        ends = iter(call.ends)

        def submit(number: Order) -> str:
            end = next(ends, "silence")
            if end == "error":
                raise FormDown
            if end == "code" and self.simulator.order(number.order_id).status == "pending":
                self.simulator.deliver_sms(number.order_id, otp="545121")
            return end

        other = {"temporary": "best-temp", "best-temp": "temporary"}[call.product]
        hook = self.make(run_context=Retried() if call.is_retried else RunContext())
        if call.is_refused:
            self.simulator.add_fault(REFUSES)
        self.deaths.arm(call.dies_after)
        cost = Decimal(0)
        try:
            cost = hook.verify(
                submit,
                call.product,
                service="WhatsApp",
                max_price="0.90",
                max_cost=max_cost,
                attempts=call.attempts,
                alternatives=[{"product": other}] if call.has_alternative else [],
                timeout=0.25,
                key="sign-up",
            ).cost
        except VerificationError as error:
            cost = error.cost
        except Died:
            self.has_died = True
        except FormDown:
            pass
        except PurchaseConflictError:
            # A dead process counts as one that still tries its number, for a quarter of an hour.
            assert self.has_died
        finally:
            self.deaths.arm(None)
            self.simulator.clear_faults()
        assert max_cost is None or cost <= Decimal(max_cost)

    def live(self) -> list[int]:
        """The numbers that can still have an SMS and that nothing gives back."""
        going_back = {row.order_id for row in self.make().overview().releases.rows if not row.planned}
        pending = [order.order_id for order in self.simulator.orders() if order.status == "pending"]
        return [order_id for order_id in pending if order_id not in going_back]

    def settle(self) -> None:
        """Checks that after a while every number is used, refunded or reported."""
        hook = self.make()
        report = hook.reconcile(cancel_after=1.0)
        assert report.unknown == []
        reported = {held.order_id for held in (*report.leaks, *report.to_cancel)}
        for order in self.simulator.orders():
            was_used = rooms_of(hook).orders.handover.was_used(order.order_id)
            assert order.status == "cancelled" or was_used or order.order_id in reported, order
        paid = sum(order.price for order in self.simulator.orders() if order.status != "cancelled")
        assert self.simulator.balance() == 50 - paid


@pytest.mark.slow
def test_no_number_is_lost_and_none_is_tried_beside_another(
    simulate: Callable[..., Simulator],
    make_hook: Callable[..., SmsVerifyHook],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, deaths, numbers = Clock(monkeypatch), Deaths(monkeypatch), itertools.count()
    monkeypatch.setattr(Sender, "wait_for_another", lambda *_: clock.pass_by(LEASE))

    @settings(
        max_examples=300 if SOAK else 12,
        derandomize=not SOAK,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # to make it smaller takes longer than to understand it
        suppress_health_check=list(HealthCheck),
    )
    @given(calls=st.lists(CALLS, min_size=2, max_size=5), max_cost=st.sampled_from([None, None, "0.90"]))
    def whatever_happens(calls: list[Call], max_cost: str | None) -> None:
        simulator = simulate()
        url = f"sqlite:///{tmp_path / f'{next(numbers)}.db'}"

        def make(**options: Any) -> SmsVerifyHook:
            return make_hook(simulator, url, **HURRIED, **options)

        account = Account(simulator, make, deaths)
        for call in calls:
            account.call(call, max_cost)
            assert len(account.live()) <= 1
        clock.pass_by(LEASE)
        account.make().reconcile()  # what it finds of calls that nobody has heard the end of is new to it
        clock.pass_by(FORGOTTEN)
        account.settle()
        simulator.stop()

    whatever_happens()
    assert deaths.places


# ------------------------------------------------------------------ many accounts


@pytest.mark.slow
def test_accounts_end_verified_or_with_a_full_report_where_many_numbers_get_no_sms(
    simulate: Callable[..., Simulator], make_hook: Callable[..., SmsVerifyHook], any_store_url: str
) -> None:
    """Of ten numbers four get no SMS, and one cancellation in ten is refused at first."""
    accounts = 200 if SOAK else 15
    simulator = simulate(speed=30.0, balance="500")
    hook = make_hook(simulator, any_store_url, call_timeout=900.0)
    for nth in range(accounts):
        simulator.add_fault(replace(REFUSES, times=1, after=9 * (nth + 1)))
    verified: list[Verification] = []
    reports: list[VerificationError] = []

    def submit(number: Order) -> int:
        if number.order_id % 10 not in (1, 4, 6, 9):
            simulator.deliver_sms(number.order_id, otp=f"{number.order_id % 10**6:06d}")
        return number.order_id

    def sign_up(nth: int) -> None:
        try:
            verified.append(
                hook.verify(
                    submit, "temporary", service="WhatsApp", attempts=4, timeout=0.5, key=f"account {nth}"
                )
            )
        except VerificationError as error:
            reports.append(error)

    with ThreadPoolExecutor(25) as threads:
        list(threads.map(sign_up, range(accounts)))
    assert len(verified) + len(reports) == accounts
    assert len({one.order_id for one in verified}) == len(verified) > accounts / 2
    assert all(one.otp == f"{one.order_id % 10**6:06d}" for one in verified)
    assert all(len(error.attempts) == 4 for error in reports)
    simulator.clear_faults()
    hook.reconcile()  # cancels what was refused
    left = [order for order in simulator.orders() if order.status != "cancelled"]
    assert {order.order_id for order in left} == {one.order_id for one in verified}
    assert simulator.balance() == 500 - sum(order.price for order in left)
    stats = simulator.stats()
    assert stats.refused == 0
    print(
        f"{accounts} accounts: {len(verified)} verified, {len(reports)} reported; {stats.orders} numbers, "
        f"{500 - simulator.balance()} USD; {stats.faults.get('out_of_stock', 0)} cancellations refused at "
        f"first; {stats.requests} requests, {stats.refused} answered 429"
    )
