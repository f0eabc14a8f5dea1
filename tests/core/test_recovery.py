"""Purchases whose answer was lost are found in the service's list of orders, or told; never made twice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from rigs.processes import in_processes

from smsverify import errors
from smsverify.hook import SmsVerifyHook
from smsverify.models import Order
from smsverify.recovery import Matching, Open, match
from smsverify.simulator import Fault, Simulator
from smsverify.store import Store, open_store, purchases

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]
LOST = ["lost_answer", "error_after", "cut_headers", "truncated_body", "html", "cut_json", "empty_body"]


def buy(hook: SmsVerifyHook, key: str | None = "k", **given: Any) -> Order:
    return hook.order(**{"product": "temporary", "service": "WhatsApp", "key": key, **given})


def lose(simulator: Simulator, kind: str = "lost_answer", **more: Any) -> None:
    simulator.add_fault(Fault(kind, path="order/temporary/", **more))


def unknown(hook: SmsVerifyHook, key: str = "k", **given: Any) -> errors.PurchaseUnknownError:
    with pytest.raises(errors.PurchaseUnknownError) as caught:
        buy(hook, key, **given)
    return caught.value


# ------------------------------------------------------------------ over HTTP


@pytest.mark.parametrize("kind", LOST)
def test_a_purchase_whose_answer_was_lost_is_found_and_handed_out(
    kind: str, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    lose(simulator, kind)
    order = buy(hook)
    (sold,) = simulator.orders()
    assert (order.order_id, order.phone, order.price) == (sold.order_id, sold.phone, Decimal("0.40"))
    assert (order.product, order.service, order.key) == ("temporary", "WhatsApp", "k")
    assert buy(hook).order_id == order.order_id
    assert simulator.balance() == Decimal("49.60")


@pytest.mark.parametrize(
    "given",
    [
        {"product": "global", "country": "Germany"},
        {"product": "rental", "duration": 30},
        {"product": "best-temp"},
        {"product": "esim", "service": None, "plan": "USA 1GB / 7 days"},
        {"area_code": "212"},
    ],
    ids=str,
)
def test_each_product_is_found(given: dict[str, Any], simulator: Simulator, hook: SmsVerifyHook) -> None:
    simulator.add_fault(Fault("lost_answer", path="order/*/"))
    order = buy(hook, **given)
    (sold,) = simulator.orders()
    assert (order.order_id, order.product, order.duration) == (sold.order_id, sold.product, sold.duration)


def test_what_was_lost_before_it_was_made_is_bought_when_its_grace_is_over(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    lose(simulator, "reset")
    unknown(hook)
    unknown(hook)
    assert simulator.orders() == []
    impatient = make_hook(simulator, any_store_url, purchase_grace=0)
    assert buy(impatient).order_id == simulator.orders()[0].order_id
    assert len(simulator.orders()) == 1


def test_an_order_that_shows_late_is_found_within_the_grace(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    simulator.configure(list_lag=120)
    lose(simulator)
    unknown(hook)
    simulator.configure(list_lag=0)
    simulator.add_fault(Fault("out_of_stock", path="order/temporary/", times=None))  # nothing else is bought
    order_id: int | None = None
    while order_id is None:
        try:
            order_id = buy(hook).order_id
        except errors.PurchaseUnknownError:
            continue
    assert [order.order_id for order in simulator.orders()] == [order_id]


def test_an_order_that_a_glance_has_seen_is_still_found(simulator: Simulator, hook: SmsVerifyHook) -> None:
    simulator.add_fault(Fault("error_before", path="orders/", times=4))
    lose(simulator)
    unknown(hook)
    order_id = simulator.orders()[0].order_id
    hook.get_status(order_id)
    hook.claim(order_id, "somebody")
    again = SmsVerifyHook(**{**hook._given, "purchase_grace": 0})
    assert buy(again).order_id == order_id


@pytest.mark.parametrize("skew", [-300.0, 300.0])
def test_the_service_s_clock_may_be_wrong(
    skew: float, simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(clock_skew=skew)
    hook = make_hook(simulator, store_url)
    lose(simulator)
    assert buy(hook).order_id == simulator.orders()[0].order_id


def test_an_order_that_was_there_before_is_not_taken(simulator: Simulator, hook: SmsVerifyHook) -> None:
    other = SmsVerifyHook(**{**hook._given, "store_url": hook._given["store_url"].replace("store", "other")})
    buy(other, "theirs")
    hook.list_orders()
    lose(simulator, "reset")
    assert unknown(hook).order_ids == ()
    open_store(other._given["store_url"]).close()


def test_a_list_that_can_not_be_read_decides_nothing(simulator: Simulator, hook: SmsVerifyHook) -> None:
    lose(simulator)
    simulator.add_fault(Fault("error_before", path="orders/", times=None))
    unknown(hook)
    impatient = SmsVerifyHook(**{**hook._given, "purchase_grace": 0})
    with pytest.raises(errors.SmsVerifyError):
        buy(impatient)
    assert len(simulator.orders()) == 1
    simulator.clear_faults()
    assert buy(impatient).order_id == simulator.orders()[0].order_id


def test_on_an_account_that_others_use_too_a_find_is_told_and_not_taken(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, store_url, exclusive_account=False)
    lose(simulator)
    error = unknown(hook)
    assert error.order_ids == (simulator.orders()[0].order_id,)
    assert unknown(make_hook(simulator, store_url, exclusive_account=False, purchase_grace=0)).order_ids
    assert len(simulator.orders()) == 1


def test_a_price_that_does_not_fit_is_told(simulator: Simulator, hook: SmsVerifyHook) -> None:
    hook._catalogue.services("temporary")
    simulator.set_offer("temporary", 1012, price="0.45")
    lose(simulator)
    assert unknown(hook).order_ids == (simulator.orders()[0].order_id,)


def test_many_lost_answers_in_many_processes_lose_no_order(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate(balance="100")
    lose(simulator, times=None, probability=0.5)
    hook = make_hook(simulator, any_store_url)
    settings = {**hook._given, "call_timeout": 60.0}
    order = {"product": "temporary", "service": "WhatsApp"}
    results = in_processes("buy", 6, settings=settings, order=order)
    bought = {result for result in results if isinstance(result, int)}
    assert len(bought) + results.count("PurchaseUnknownError") == 6
    assert len(simulator.orders()) == 6
    assert bought <= {sold.order_id for sold in simulator.orders()}


def test_no_more_is_bought_than_the_list_can_explain(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(rate_limit=None, balance="100")
    hook = make_hook(simulator, store_url, rate_limit=1000)
    lose(simulator, "reset")
    unknown(hook)
    for _ in range(40):
        buy(hook, None)
    with pytest.raises(errors.PurchaseUnknownError):
        buy(hook, None)
    assert len(simulator.orders()) == 40


def test_a_purchase_that_died_after_it_was_sent_is_found(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row says that it is under way; when that can not be so any more, the list decides."""
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("smsverify.ledger.Ledger.bought", die)
        with pytest.raises(KeyboardInterrupt):
            buy(hook)
    with open_store(any_store_url).read() as connection:
        assert connection.execute(sa.select(purchases.c.state)).scalar_one() == "sent"
    right = Store.now
    monkeypatch.setattr(Store, "now", lambda self, connection: right(self, connection) + 100)
    assert buy(hook).order_id == simulator.orders()[0].order_id
    assert len(simulator.orders()) == 1


def test_an_order_that_was_found_but_has_failed_is_not_handed_out(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(products={"temporary": {"start_status": "failed"}})
    hook = make_hook(simulator, store_url)
    lose(simulator, "error_after")
    with pytest.raises(errors.OrderEndedError, match="failed"):
        buy(hook)
    simulator.configure(products={"temporary": {"start_status": "pending"}})
    assert buy(hook).order_id == simulator.orders()[1].order_id


def test_two_lost_purchases_of_one_service_are_told_apart_by_their_price(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    simulator.set_offer("best-temp", 1012, price="0.55")
    simulator.add_fault(Fault("error_before", path="orders/", times=None))
    for product in ("temporary", "best-temp"):
        simulator.add_fault(Fault("lost_answer", path=f"order/{product}/"))
        unknown(hook, product, product=product)
    simulator.clear_faults()
    found = {product: buy(hook, product, product=product).order_id for product in ("temporary", "best-temp")}
    assert found == {order.product: order.order_id for order in simulator.orders()}


# ------------------------------------------------------------------ the rule by itself

NOW = 1_800_000_000.0


def an_open(number: int, *, sent: float = 0.0, price: str | None = "0.4", **request: Any) -> Open:
    request = {"product": "temporary", "name": "WhatsApp", "area_code": None, **request}
    return Open(number, f"k{number}", request, Decimal(price) if price else None, NOW + sent)


def listed(order_id: int, *, created: float = 0.5, seen: float = 1.0, **fields: Any) -> tuple[Order, float]:
    values = {"service": "WhatsApp (UK)", "price": Decimal("0.40"), "phone": "+1 212 555 0100", **fields}
    when = datetime.fromtimestamp(NOW + created, timezone.utc)
    return Order(order_id=order_id, created_at=when, **values), NOW + seen


def outcome(matching: Matching) -> tuple[dict[int, int], dict[int, tuple[int, ...]]]:
    return {id_: order.order_id for id_, order in matching.adopted.items()}, matching.doubtful


@pytest.mark.parametrize(
    ("opens", "orders", "skew", "adopted", "doubtful"),
    [
        ([an_open(1)], [listed(7)], 0.0, {1: 7}, {}),
        ([an_open(1)], [], 0.0, {}, {}),
        ([an_open(1)], [listed(7), listed(8)], 0.0, {}, {1: (7, 8)}),
        ([an_open(1), an_open(2)], [listed(7), listed(8)], 0.0, {2: 8, 1: 7}, {}),
        ([an_open(1), an_open(2)], [listed(7)], 0.0, {2: 7}, {}),
        ([an_open(1)], [listed(7, seen=-1)], 0.0, {}, {}),
        ([an_open(1)], [listed(7, created=-60)], 0.0, {}, {}),
        ([an_open(1)], [listed(7, created=-60)], -60.0, {1: 7}, {}),
        ([an_open(1, area_code="212")], [listed(7)], 0.0, {1: 7}, {}),
        ([an_open(1, area_code="415")], [listed(7)], 0.0, {}, {}),
        ([an_open(1)], [listed(7, price=Decimal("0.50"))], 0.0, {}, {1: (7,)}),
        ([an_open(1, price=None)], [listed(7)], 0.0, {1: 7}, {}),
        ([an_open(1)], [listed(7, price=None)], 0.0, {1: 7}, {}),
        ([an_open(1), an_open(2, product="best-temp")], [listed(7)], 0.0, {}, {1: (7,), 2: (7,)}),
        (
            [an_open(1), an_open(2, sent=10)],
            [listed(7, created=1), listed(8, created=11, seen=12)],
            0.0,
            {1: 7, 2: 8},
            {},
        ),
    ],
)
def test_the_rule(
    opens: list[Open],
    orders: list[tuple[Order, float]],
    skew: float,
    adopted: dict[int, int],
    doubtful: dict[int, tuple[int, ...]],
) -> None:
    found, told = outcome(match(opens, orders, skew))
    # Purchases of the same thing are interchangeable.
    assert (sorted(found.values()), told) == (sorted(adopted.values()), doubtful)
    assert len(found) == len(adopted)
