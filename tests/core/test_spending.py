"""Budgets for the day and the run hold over all who share the store, and count refunds back."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from rigs.processes import in_processes

from smsverify import errors
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Fault, Simulator
from smsverify.spending import DAY
from smsverify.store import Store

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]


def buy(hook: SmsVerifyHook, **given: Any) -> int:
    return hook.order("temporary", service="WhatsApp", **given).order_id  # 0.40


def too_much(hook: SmsVerifyHook, **given: Any) -> str | None:
    with pytest.raises(errors.SpendingLimitError, match="nothing was sent") as caught:
        buy(hook, **given)
    return caught.value.budget


def test_the_day_s_budget_counts_what_all_have_bought(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    one, other = make_hook(simulator, any_store_url), make_hook(simulator, any_store_url, namespace="b")
    buy(one)
    buy(other, daily_budget="0.80")
    assert too_much(one, daily_budget="1.19") == "daily_budget"
    assert too_much(other, daily_budget=1) == "daily_budget"
    buy(one, daily_budget="1.20")
    assert len(simulator.orders()) == 3


def test_the_setting_and_the_call_both_hold(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook(simulator, store_url, daily_budget="0.50")
    assert too_much(hook, daily_budget="0.30") == "daily_budget"
    buy(hook, daily_budget="100")
    assert too_much(hook, daily_budget="100") == "daily_budget"
    assert simulator.balance() == Decimal("49.60")


def test_the_run_s_budget_counts_its_own_calls(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    class InARun(SmsVerifyHook):
        run = "one"

        def _run_name(self) -> str:
            return self.run

    hook = InARun(**make_hook(simulator, store_url)._given)
    buy(hook, run_budget="0.50")
    assert too_much(hook, run_budget="0.50") == "run_budget"
    hook.run = "two"
    buy(hook, run_budget="0.50")


def test_without_a_framework_the_program_is_the_run(hook: SmsVerifyHook) -> None:
    buy(hook, run_budget="0.50")
    assert too_much(SmsVerifyHook(**hook._given), run_budget="0.50") == "run_budget"


def test_a_refund_counts_when_the_list_shows_it(simulator: Simulator, hook: SmsVerifyHook) -> None:
    order_id = buy(hook)
    hook.cancel(order_id)
    assert too_much(hook, daily_budget="0.50") == "daily_budget"
    hook.list_orders()
    buy(hook, daily_budget="0.50")


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
        buy(hook, key="lost", daily_budget="0.50")
    assert too_much(hook, daily_budget="0.50") == "daily_budget"
    hook.settle("lost", order_id=None)
    buy(hook, daily_budget="0.50")


def test_a_call_that_was_refused_does_not_count(simulator: Simulator, hook: SmsVerifyHook) -> None:
    simulator.add_fault(Fault("out_of_stock", path="order/temporary/"))
    with pytest.raises(errors.NotAvailableError):
        buy(hook, daily_budget="0.50")
    buy(hook, daily_budget="0.50")


def test_a_key_that_has_bought_already_needs_no_budget(hook: SmsVerifyHook) -> None:
    order_id = buy(hook, key="k", daily_budget="0.40")
    assert buy(hook, key="k", daily_budget="0.40") == order_id


def test_renewals_count(simulator: Simulator, hook: SmsVerifyHook) -> None:
    rental = hook.order("rent-1day", service="Tinder", daily_budget="2")  # 1.20
    with pytest.raises(errors.SpendingLimitError):
        hook.renew(rental.order_id, daily_budget="2")
    hook.renew(rental.order_id, daily_budget="2.40")
    assert too_much(hook, daily_budget="2.40") == "daily_budget"
    assert simulator.order(rental.order_id).renewals == 1


def test_the_larger_of_two_stated_prices_is_what_must_fit(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    from smsverify.simulator import Catalogue

    catalogue = Catalogue()
    catalogue.global_[0].shown_price = Decimal("2.00")  # WhatsApp in the United Kingdom, sold for 0.95
    hook = make_hook(simulate(catalogue=catalogue), store_url)
    with pytest.raises(errors.SpendingLimitError):
        hook.order("global", service="WhatsApp", country=4, daily_budget="1.50")
    hook.order("global", service="WhatsApp", country=4, daily_budget="2.00")


def test_an_unknown_price_fails_closed(
    simulate: Simulate, make_hook: MakeHook, store_url: str, tmp_path: Any
) -> None:
    simulator = simulate()
    elsewhere = make_hook(simulator, f"sqlite:///{tmp_path / 'elsewhere.db'}")
    rental = elsewhere.order("rent-1day", service="Tinder")
    hook = make_hook(simulator, store_url)
    with pytest.raises(errors.PriceLimitError):
        hook.renew(rental.order_id, daily_budget="100")
    hook.renew(rental.order_id)
    assert too_much(hook, daily_budget="100") == "daily_budget"  # what was spent today can not be told


def test_a_new_day_is_a_new_budget(hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch) -> None:
    buy(hook, daily_budget="0.50")
    right = Store.now
    monkeypatch.setattr(Store, "now", lambda self, connection: right(self, connection) + DAY)
    buy(hook, daily_budget="0.50")


@pytest.mark.parametrize("name", ["daily_budget", "run_budget"])
def test_a_budget_that_is_no_amount_is_refused(name: str, simulator: Simulator, hook: SmsVerifyHook) -> None:
    for value in (-1, "much", float("nan"), True):
        with pytest.raises(errors.InvalidRequestError) as caught:
            buy(hook, **{name: value})
        assert caught.value.field == name
    assert simulator.requests() == []


def test_many_processes_never_pass_the_budget(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    hook._catalogue.services("temporary")
    simulator.add_fault(Fault("slow_after", path="order/temporary/", seconds=0.3, times=None))
    order = {"product": "temporary", "service": "WhatsApp", "daily_budget": "1.20"}
    results = in_processes("buy", 8, settings=hook._given, order=order)
    assert len(simulator.orders()) == 3
    assert results.count("SpendingLimitError") == 5
