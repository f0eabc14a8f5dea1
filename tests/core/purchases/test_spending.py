"""Budgets for the day and the run hold over all who share the store, and count refunds back."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from rigs import in_a_day
from rigs.processes import in_processes
from rigs.purchases import buy_number, read_prices
from rigs.rooms import settings_of

from smsverify import errors
from smsverify._runtime.clock import DAY
from smsverify._store.store import Store
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Fault, Simulator
from smsverify.wings import RunContext

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]


def too_much(hook: SmsVerifyHook, **given: Any) -> str | None:
    with pytest.raises(errors.SpendingLimitError, match="Nothing was sent") as caught:
        buy_number(hook, **given)
    return caught.value.budget


def test_the_day_s_budget_counts_what_all_have_bought(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    one, other = make_hook(simulator, any_store_url), make_hook(simulator, any_store_url, namespace="b")
    buy_number(one)
    buy_number(in_a_day(other, "0.80"))
    assert too_much(in_a_day(one, "1.19")) == "daily_budget"
    assert too_much(in_a_day(other, "1")) == "daily_budget"
    buy_number(in_a_day(one, "1.20"))
    assert len(simulator.orders()) == 3


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_list_that_cuts_prices_off_frees_no_budget(
    is_answered: bool, simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate(list_defects=["rounded"])  # which shows 0 USD
    hook = in_a_day(make_hook(simulator, any_store_url), "0.50")
    if is_answered:
        buy_number(hook)
    else:
        hook.list_orders()
        simulator.add_fault(Fault("lost_answer", path="order/temporary/"))
        with pytest.raises(errors.PurchaseUnknownError):
            buy_number(hook, key="lost")
        hook.resolve("lost", order_id=simulator.orders()[0].order_id)
    hook.reconcile()
    assert too_much(hook) == "daily_budget"
    assert hook.reconcile().spent == Decimal("0.40")


def test_a_list_that_shows_a_lower_price_frees_budget(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    hook = in_a_day(make_hook(simulator, store_url, rate_period=60.0), "0.70")
    read_prices(hook)
    simulator.set_offer("temporary", 1012, price="0.30")
    buy_number(hook)
    hook.list_orders()
    buy_number(hook)


def test_the_setting_and_the_call_both_hold(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook(simulator, store_url, run_budget="0.50")
    assert too_much(hook, run_budget="0.30") == "run_budget"
    buy_number(hook, run_budget="100")
    assert too_much(hook, run_budget="100") == "run_budget"
    assert simulator.balance() == Decimal("49.60")


def test_the_run_s_budget_counts_its_own_calls(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    class Run(RunContext):
        number = "one"

        def name(self) -> str:
            return self.number

    run = Run()
    hook = SmsVerifyHook(**settings_of(make_hook(simulator, store_url)), run_context=run)
    buy_number(hook, run_budget="0.50")
    assert too_much(hook, run_budget="0.50") == "run_budget"
    run.number = "two"
    buy_number(hook, run_budget="0.50")


def test_without_a_framework_the_program_is_the_run(hook: SmsVerifyHook) -> None:
    buy_number(hook, run_budget="0.50")
    assert too_much(SmsVerifyHook(**settings_of(hook)), run_budget="0.50") == "run_budget"


def test_a_refund_counts_when_the_list_shows_it(simulator: Simulator, hook: SmsVerifyHook) -> None:
    order_id = buy_number(hook)
    hook.cancel(order_id)
    assert too_much(in_a_day(hook, "0.50")) == "daily_budget"
    hook.list_orders()
    buy_number(in_a_day(hook, "0.50"))


@pytest.mark.parametrize("policy", ["refund", "no-refund"])
def test_a_rental_that_was_cancelled_in_use_counts_as_spent(
    policy: str, simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    """The service does not say whether its price came back."""
    hook = make_hook(simulate(cancel_active=policy), store_url)
    hook.cancel(hook.order("rental", service="WhatsApp", duration=3).order_id)
    assert hook.reconcile().spent == Decimal("4.00")
    pending = hook.order("rent-1day", service="Tinder")
    hook.cancel(pending.order_id)
    assert hook.reconcile().spent == Decimal("4.00")


def test_a_call_whose_outcome_is_unknown_counts(simulator: Simulator, hook: SmsVerifyHook) -> None:
    simulator.add_fault(Fault("reset", path="order/temporary/"))
    with pytest.raises(errors.PurchaseUnknownError):
        buy_number(in_a_day(hook, "0.50"), key="lost")
    assert too_much(in_a_day(hook, "0.50")) == "daily_budget"
    hook.resolve("lost", order_id=None)
    buy_number(in_a_day(hook, "0.50"))


@pytest.mark.slow
def test_a_call_that_was_refused_does_not_count(simulator: Simulator, hook: SmsVerifyHook) -> None:
    simulator.add_fault(Fault("out_of_stock", path="order/temporary/"))
    with pytest.raises(errors.NotAvailableError):
        buy_number(in_a_day(hook, "0.50"))
    buy_number(in_a_day(hook, "0.50"))


def test_a_key_that_has_bought_already_needs_no_budget(hook: SmsVerifyHook) -> None:
    frugal = in_a_day(hook, "0.40")
    assert buy_number(frugal, key="k") == buy_number(frugal, key="k")


def test_renewals_count(simulator: Simulator, hook: SmsVerifyHook) -> None:
    rental = in_a_day(hook, "2").order("rent-1day", service="Tinder")  # 1.20
    with pytest.raises(errors.SpendingLimitError):
        in_a_day(hook, "2").renew(rental.order_id)
    in_a_day(hook, "2.40").renew(rental.order_id)
    assert too_much(in_a_day(hook, "2.40")) == "daily_budget"
    assert simulator.order(rental.order_id).renewals == 1


def test_the_larger_of_two_stated_prices_is_what_must_fit(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    from smsverify.simulator import Catalogue

    catalogue = Catalogue()
    catalogue.global_[0].shown_price = Decimal("2.00")  # WhatsApp in the United Kingdom, sold for 0.95
    hook = make_hook(simulate(catalogue=catalogue), store_url)
    with pytest.raises(errors.SpendingLimitError):
        in_a_day(hook, "1.50").order("global", service="WhatsApp", country=4)
    in_a_day(hook, "2.00").order("global", service="WhatsApp", country=4)


def test_an_unknown_price_fails_closed(
    simulate: Simulate, make_hook: MakeHook, store_url: str, tmp_path: Any
) -> None:
    simulator = simulate()
    elsewhere = make_hook(simulator, f"sqlite:///{tmp_path / 'elsewhere.db'}")
    rental = elsewhere.order("rent-1day", service="Tinder")
    hook = make_hook(simulator, store_url)
    with pytest.raises(errors.PriceLimitError):
        in_a_day(hook, "100").renew(rental.order_id)
    hook.renew(rental.order_id)
    assert too_much(in_a_day(hook, "100")) == "daily_budget"  # what was spent today is unknown


def test_a_new_day_is_a_new_budget(hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch) -> None:
    buy_number(in_a_day(hook, "0.50"))
    right = Store.now
    monkeypatch.setattr(Store, "now", lambda self, connection: right(self, connection) + DAY)
    buy_number(in_a_day(hook, "0.50"))


def test_a_budget_that_is_no_amount_is_refused(simulator: Simulator, hook: SmsVerifyHook) -> None:
    for value in (-1, "much", float("nan"), True):
        with pytest.raises(errors.InvalidRequestError) as caught:
            buy_number(hook, run_budget=value)
        assert caught.value.field == "run_budget"
        with pytest.raises(errors.InvalidRequestError) as caught:
            buy_number(in_a_day(hook, value))
        assert caught.value.field == "daily_budget"
    assert simulator.requests() == []


@pytest.mark.slow
def test_many_processes_never_pass_the_budget(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    # In a minute of 60 s a price stays fresh for 20. In one of a second, that is a third of a second, and a
    # busy machine may have to read it again each time that a purchase could leave.
    hook = make_hook(simulator, any_store_url, rate_period=60.0, call_timeout=60.0)
    read_prices(hook)
    simulator.add_fault(Fault("slow_after", path="order/temporary/", seconds=0.3, times=None))
    order = {"product": "temporary", "service": "WhatsApp"}
    results = in_processes("buy", 8, settings=settings_of(in_a_day(hook, "1.20")), order=order)
    assert len(simulator.orders()) == 3
    assert results.count("SpendingLimitError") == 5
