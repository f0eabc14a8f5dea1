"""A price is looked at again when the call leaves, and what was charged above what was allowed is named."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from rigs import eventually
from rigs.purchases import read_prices
from rigs.rooms import hold_up, rooms_of, store_of
from rigs.wire import WireServer, answer

from smsverify import errors
from smsverify._purchases.spending import Caps
from smsverify.hook import SmsVerifyHook
from smsverify.models import Order
from smsverify.simulator import Fault, Simulator

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]


def buy(hook: SmsVerifyHook, key: str | None = None, **options: Any) -> Order:
    return hook.order("temporary", service="WhatsApp", key=key, **options)


def requests_of(simulator: Simulator) -> list[str]:
    """What was asked, each as `GET` or `POST` and the path's last part."""
    return [f"{one.method} {one.path.strip('/').split('/')[-2]}" for one in simulator.requests()]


def wait_together(
    hooks: list[SmsVerifyHook], call: Callable[[SmsVerifyHook], Any], meanwhile: Callable[[], None]
) -> list[Any]:
    """What comes of a call by each hook, all of which wait for their turn while something happens."""

    def called(hook: SmsVerifyHook) -> Any:
        try:
            return call(hook)
        except errors.SmsVerifyError as error:
            return type(error)

    for hook in hooks:
        hook.upgrade_store()  # which takes its time
    read_prices(hooks[0])
    hold_up(hooks[0], 15)
    with ThreadPoolExecutor(len(hooks)) as threads:
        results = threads.map(called, hooks)
        eventually(lambda: hooks[0].rate_limit().waiting == len(hooks), "waiting")
        meanwhile()
        with store_of(hooks[0]).write() as connection:
            old = hooks[0].settings.rate_period / 2
            connection.exec_driver_sql(f"UPDATE smsverify_catalogues SET fetched_at = fetched_at - {old}")
            connection.exec_driver_sql("UPDATE smsverify_rate_limits SET blocked_until = 0")
        return list(results)


@pytest.fixture
def dear(simulate: Simulate) -> Simulator:
    """A simulator with money enough, whose minute lasts six seconds, so that a price is fresh for two."""
    return simulate(balance="200", speed=10.0)


CAPS: dict[str, tuple[dict[str, Any], type[errors.SmsVerifyError]]] = {
    "max_price": ({"max_price": "0.50"}, errors.PriceLimitError),
    "daily_budget": ({"daily_budget": "4.99"}, errors.SpendingLimitError),
    "run_budget": ({"run_budget": "4.99"}, errors.SpendingLimitError),
}


def split(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of some limits is a setting, and what is given with a call."""
    settings = {name: value for name, value in given.items() if name == "daily_budget"}
    return settings, {name: value for name, value in given.items() if name not in settings}


@pytest.mark.slow
@pytest.mark.parametrize("cap", CAPS)
def test_a_price_that_rises_while_purchases_wait_for_their_turn_is_not_paid(
    cap: str, dear: Simulator, make_hook: MakeHook, any_store_url: str
) -> None:
    given, error = CAPS[cap]
    settings, call = split(given)
    hooks = [make_hook(dear, any_store_url, **settings) for _ in range(12)]
    results = wait_together(
        hooks, lambda hook: buy(hook, **call), lambda: dear.set_offer("temporary", 1012, price="5.00")
    )
    assert results == [error] * 12
    assert dear.orders() == []


@pytest.mark.slow
def test_a_price_that_falls_or_stays_is_paid_and_is_read_once_for_all_who_wait(
    dear: Simulator, make_hook: MakeHook, any_store_url: str
) -> None:
    hooks = [make_hook(dear, any_store_url) for _ in range(12)]
    results = wait_together(
        hooks,
        lambda hook: buy(hook, max_price="0.50").price,
        lambda: dear.set_offer("temporary", 1012, price="0.30"),
    )
    assert results == [Decimal("0.3")] * 12
    assert hooks[0].reconcile().spent == Decimal("3.60")
    asked = requests_of(dear)
    assert asked.count("POST order") == 12
    assert asked.count("GET services") <= 4  # one at first, and one for each third of a minute


@pytest.mark.parametrize(("given", "reads"), [({}, 1), ({"max_price": "0.50"}, 2)])
def test_a_purchase_reads_the_list_anew_only_where_the_price_matters_and_is_old(
    given: dict[str, Any], reads: int, dear: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook(dear, store_url, rate_period=60.0)
    for _ in range(3):
        buy(hook, **given)
    assert requests_of(dear).count("GET services") == 1  # as fresh as it may be
    with store_of(hook).write() as connection:
        connection.exec_driver_sql("UPDATE smsverify_catalogues SET fetched_at = fetched_at - 21")
    for _ in range(2):
        buy(hook, **given)
    assert requests_of(dear).count("GET services") == reads


@pytest.mark.slow
def test_a_small_rate_limit_is_enough_for_a_purchase_with_its_price(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    """What has been read is still good when the next slot comes."""
    simulator = simulate(rate_limit=1, balance="200")
    hook = make_hook(simulator, store_url, rate_limit=1)
    for _ in range(2):
        buy(hook, max_price="0.50")
    assert requests_of(simulator).count("POST order") == 2
    assert simulator.stats().refused == 0


@pytest.mark.slow
def test_a_list_that_cannot_be_read_when_the_call_leaves_costs_nothing(
    dear: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook(dear, store_url)
    fault = Fault("error_before", path="services/**", times=None)
    results = wait_together(
        [hook], lambda hook: buy(hook, key="k", max_price="0.50"), lambda: dear.add_fault(fault) and None
    )
    assert results == [errors.ServiceUnavailableError]
    assert dear.orders() == []
    dear.clear_faults()
    assert buy(hook, key="k", max_price="0.50").price == Decimal("0.40")


@pytest.mark.slow
def test_what_is_gone_from_the_list_when_the_call_leaves_is_not_bought(
    dear: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook(dear, store_url)
    results = wait_together(
        [hook],
        lambda hook: buy(hook, max_price="0.50"),
        lambda: dear.set_offer("temporary", 1012, stock=0),
    )
    assert results == [errors.NotAvailableError]
    assert dear.orders() == []


@pytest.mark.slow
def test_a_renewal_s_price_is_looked_at_again_too(
    dear: Simulator, make_hook: MakeHook, any_store_url: str
) -> None:
    hook = make_hook(dear, any_store_url)
    order_id = hook.order("rent-1day", service="Tinder").order_id
    sight = rooms_of(hook).renewals.sight(order_id)
    read_prices(hook, "rent-1day")

    def renew(hook: SmsVerifyHook) -> Any:
        caps = Caps()
        return rooms_of(hook).renewals.pay_once(order_id, 0, limit=Decimal("1.20"), caps=caps, sight=sight)

    raised = lambda: dear.set_offer("rent-1day", 4421, price="9.00")  # noqa: E731
    assert wait_together([hook], renew, raised) == [errors.PriceLimitError]
    assert dear.order(order_id).renewals == 0
    assert hook.renew(order_id, max_price="9").price == Decimal("1.20")
    assert dear.order(order_id).renewals == 1


# ------------------------------------------------------------------ what was charged


ORDER = {"order_id": 7, "status": "pending", "phone": "+1 415 555 0123"}


def test_a_charge_that_the_list_of_orders_shows_makes_an_old_price_void_at_once(
    dear: Simulator, make_hook: MakeHook, any_store_url: str
) -> None:
    hook = make_hook(dear, any_store_url, rate_period=60.0)
    read_prices(hook)
    dear.set_offer("temporary", 1012, price="5.00")
    buy(hook)  # for any price
    buy(hook, max_price="0.50", key="too early to know")
    hook.list_orders()  # as a poll does
    with pytest.raises(errors.PriceLimitError):
        buy(hook, max_price="0.50")
    assert buy(hook, max_price="5.00").price == Decimal("5.00")
    assert requests_of(dear).count("GET services") == 2


@pytest.mark.parametrize("given", [{"max_price": "0.50"}, {"daily_budget": "1"}, {"run_budget": "1"}])
def test_what_was_charged_above_what_was_allowed_is_a_finding_and_in_the_log(
    given: dict[str, Any],
    dear: Simulator,
    make_hook: MakeHook,
    any_store_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings, call = split(given)
    hook = make_hook(dear, any_store_url, rate_period=60.0, **settings)
    read_prices(hook)
    dear.set_offer("temporary", 1012, price="5.00")
    order_id = buy(hook, **call).order_id
    report = hook.reconcile()
    assert [order.order_id for order in report.overcharged] == [order_id]
    (finding,) = report.findings
    assert str(order_id) in finding
    assert "5.00 USD" in finding
    assert next(iter(given)) in finding
    assert report.as_dict()["overcharged"][0]["order_id"] == order_id
    assert f"{order_id}" in "".join(r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)


def test_what_costs_more_than_the_list_said_is_no_finding_where_that_was_allowed(
    dear: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook(dear, store_url, rate_period=60.0)
    read_prices(hook)
    dear.set_offer("temporary", 1012, price="5.00")
    for given in ({}, {"max_price": "5"}, {"daily_budget": "100"}, {"run_budget": "100"}):
        settings, call = split(given)
        buy(make_hook(dear, store_url, rate_period=60.0, **settings), **call)
    assert hook.reconcile().findings == []


def test_an_answer_that_says_more_than_was_allowed_is_in_the_log(
    wire: WireServer, make_hook: MakeHook, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    wire.on("POST", answer(201, {"data": ORDER | {"price": 5}}))
    assert buy(make_hook(wire, store_url), max_price="0.50").price == Decimal(5)
    assert "more than max_price=0.50" in caplog.text
