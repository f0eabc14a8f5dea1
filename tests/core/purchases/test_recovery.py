"""Purchases whose answer was lost are found in the list of orders, or reported; never made twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from rigs.clocks import later
from rigs.processes import in_processes
from rigs.purchases import buy, leave_unknown, lose, read_prices, unknown
from rigs.rooms import rooms_of, settings_of, store_of

from smsverify import errors
from smsverify._messages.callbacks import Callback
from smsverify._service.endpoints import ServiceApi
from smsverify._store.store import open_store
from smsverify._store.tables import purchases
from smsverify.hook import SmsVerifyHook
from smsverify.models import Balance
from smsverify.simulator import Fault, Simulator
from smsverify.wings import claim

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]
LOST = ["lost_answer", "error_after", "cut_headers", "truncated_body", "html", "cut_json", "empty_body"]


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
    simulate: Simulate, make_hook: MakeHook, any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    lose(simulator, "reset")
    unknown(hook)
    unknown(hook)
    assert simulator.orders() == []
    later(monkeypatch, 130)
    assert buy(hook).order_id == simulator.orders()[0].order_id
    assert len(simulator.orders()) == 1


@pytest.mark.slow
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


def test_an_order_that_a_glance_has_seen_is_still_found(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(simulator)
    simulator.add_fault(Fault("error_before", path="orders/", times=None))
    unknown(hook)
    simulator.clear_faults()
    order_id = simulator.orders()[0].order_id
    hook.get_status(order_id)
    claim(hook, order_id, "somebody")
    later(monkeypatch, 130)
    assert buy(hook).order_id == order_id


@pytest.mark.parametrize("skew", [-300.0, 300.0])
def test_the_service_s_clock_may_be_wrong(
    skew: float, simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(clock_skew=skew)
    hook = make_hook(simulator, store_url)
    lose(simulator)
    assert buy(hook).order_id == simulator.orders()[0].order_id


def test_an_order_that_was_there_before_is_not_taken(simulator: Simulator, hook: SmsVerifyHook) -> None:
    settings = settings_of(hook)
    other = SmsVerifyHook(**{**settings, "store_url": settings["store_url"].replace("store", "other")})
    buy(other, "theirs")
    hook.list_orders()
    lose(simulator, "reset")
    assert unknown(hook).order_ids == ()
    store_of(other).close()


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422])
def test_a_page_in_the_answer_s_place_says_nothing_of_the_purchase(
    status: int, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    lose(simulator, "error_after", status=status, body="<html><title>Attention Required!</title></html>")
    assert buy(hook).order_id == simulator.orders()[0].order_id
    assert buy(hook).order_id == simulator.orders()[0].order_id
    assert len(simulator.orders()) == 1


def test_on_an_account_that_others_use_too_a_find_is_reported_and_not_adopted(
    simulate: Simulate, make_hook: MakeHook, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, store_url, exclusive_account=False)
    lose(simulator)
    error = unknown(hook)
    assert error.order_ids == (simulator.orders()[0].order_id,)
    later(monkeypatch, 130)
    assert unknown(hook).order_ids == error.order_ids
    assert len(simulator.orders()) == 1


def test_a_price_that_does_not_fit_is_reported(simulator: Simulator, hook: SmsVerifyHook) -> None:
    read_prices(hook)
    simulator.set_offer("temporary", 1012, price="0.45")
    lose(simulator)
    assert unknown(hook).order_ids == (simulator.orders()[0].order_id,)


@pytest.mark.slow
def test_many_lost_answers_in_many_processes_lose_no_order(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate(balance="100")
    lose(simulator, times=None, probability=0.5)
    hook = make_hook(simulator, any_store_url)
    settings = {**settings_of(hook), "call_timeout": 60.0}
    order = {"product": "temporary", "service": "WhatsApp"}
    results = in_processes("buy", 6, settings=settings, order=order)
    bought = {result for result in results if isinstance(result, int)}
    assert len(bought) + results.count("PurchaseUnknownError") == 6
    assert len(simulator.orders()) == 6
    assert bought <= {sold.order_id for sold in simulator.orders()}


@pytest.mark.slow
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
    """Its row says that it is under way; when that cannot be so any more, the list decides."""
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("smsverify._purchases.ledger.Ledger.record_bought", die)
        with pytest.raises(KeyboardInterrupt):
            buy(hook)
    with open_store(any_store_url).read() as connection:
        assert connection.execute(sa.select(purchases.c.state)).scalar_one() == "sent"
    later(monkeypatch, 120)
    assert buy(hook).order_id == simulator.orders()[0].order_id
    assert len(simulator.orders()) == 1


def test_a_purchase_is_under_way_for_as_long_as_its_own_time_outs_say(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate()
    patient, hasty = (make_hook(simulator, any_store_url, read_timeout=seconds) for seconds in (300, 5))
    at_the_service: list[bool] = []

    def look(*_: Any, **__: Any) -> None:
        later(monkeypatch, 600)
        with store_of(hasty).read() as connection:
            (call,) = rooms_of(hasty).ledger.open_calls(connection)
        at_the_service.append(call.under_way)
        raise KeyboardInterrupt

    monkeypatch.setattr("smsverify._purchases.ledger.Ledger.record_bought", look)
    with pytest.raises(KeyboardInterrupt):
        buy(patient)
    assert at_the_service == [True]


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


def test_two_lost_purchases_of_one_service_are_distinguished_by_their_price(
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


@pytest.mark.parametrize("defect", ["no_price", "rounded"])
def test_an_order_that_was_found_has_the_price_of_its_purchase_where_the_list_does_not_show_it(
    defect: str, simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    """Also where a person says which one it is."""
    simulator = simulate(list_defects=[defect])
    hook = make_hook(simulator, store_url, purchase_grace=0.3)
    leave_unknown(simulator, hook, "k")
    order_id = hook.list_orders()[0].order_id
    if defect == "rounded":
        hook.resolve("k", order_id=order_id)
    assert buy(hook, "k").price == Decimal("0.40")
    hook.cancel(order_id)
    assert hook.reconcile().refunded == Decimal("0.40")


def test_a_person_chooses_also_from_what_seems_to_be_another_thing(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str, tmp_path: Path
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    simulator.configure(list_defects=("other_name",))
    lose(simulator)
    assert unknown(hook).order_ids == ()
    simulator.configure(list_defects=())
    simulator.set_offer("temporary", 1012, price="0.55")
    fits_better = buy(make_hook(simulator, f"sqlite:///{tmp_path / 'other.db'}"), "other").order_id
    mine = simulator.orders()[0].order_id
    assert unknown(hook).order_ids == (mine, fits_better)
    hook.resolve("k", order_id=mine)
    assert buy(hook).order_id == mine


# ------------------------------------------------------------------ whose an order is


def test_what_another_name_of_the_wallet_has_bought_is_nobody_else_s(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate()
    one, other = (make_hook(simulator, any_store_url, account=name) for name in ("one", "other"))
    buy(other, "first")
    bought = buy(one, "k").order_id
    lose(simulator, "reset")
    assert unknown(other).order_ids == ()
    with pytest.raises(errors.InvalidRequestError, match="belongs to 'k'"):
        other.resolve("k", order_id=bought)
    later(monkeypatch, 130)
    assert buy(other).order_id == simulator.orders()[2].order_id != bought


@pytest.mark.parametrize("is_ours", [True, False])
def test_an_answer_that_names_an_order_from_before_is_not_believed(
    is_ours: bool, simulate: Simulate, make_hook: MakeHook, any_store_url: str, tmp_path: Path
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    buyer = hook if is_ours else make_hook(simulator, f"sqlite:///{tmp_path / 'other.db'}")
    first = buy(buyer, "first")
    simulator.deliver_sms(first.order_id, otp="111111")
    hook.list_orders()
    body = json.dumps({"success": True, "data": {"order_id": first.order_id, "status": "pending"}})
    lose(simulator, "error_after", status=201, body=body)
    order = buy(hook, "k")
    assert order.order_id == simulator.orders()[1].order_id != first.order_id
    assert hook.get_order(first.order_id).key == ("first" if is_ours else None)
    assert hook.check_otp(order.order_id) is None


def test_a_callback_from_before_a_purchase_is_not_its_code(simulator: Simulator, hook: SmsVerifyHook) -> None:
    """A service that uses an order's id again has sent the SMS of the old order."""
    first = 458731
    text = "Your WhatsApp code is 548921"
    callback: dict[str, Any] = {
        "by_secret": True,
        "kind": "sms",
        "is_documented": True,
        "phone": "14155550123",
    }
    rooms_of(hook).inbox.take(Callback(order_id=first, message=text, **callback))
    order = buy(hook)
    assert order.order_id == first
    assert hook.check_otp(order.order_id, ask=False) is None
    assert rooms_of(hook).inbox.take(Callback(order_id=first, message=f"{text}.", **callback))
    assert hook.check_otp(order.order_id, ask=False) is not None


# ------------------------------------------------------------------ what is open blocks nobody else


@pytest.mark.slow
def test_a_call_with_candidates_blocks_nobody_else(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(rate_limit=None, balance="100")
    hook = make_hook(simulator, store_url, rate_limit=1000)
    read_prices(hook)
    simulator.set_offer("temporary", 1012, price="0.45")
    lose(simulator)
    assert unknown(hook).order_ids
    for _ in range(45):
        buy(hook, None)
    assert len(simulator.orders()) == 46


@pytest.mark.slow
def test_an_old_call_that_nothing_explains_blocks_nobody_else(
    simulate: Simulate, make_hook: MakeHook, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate(rate_limit=None, balance="100")
    hook = make_hook(simulator, store_url, rate_limit=1000)
    lose(simulator, "reset")
    unknown(hook)
    simulator.set_balance("99.60")
    for _ in range(40):
        buy(hook, None)
    with pytest.raises(errors.PurchaseUnknownError, match="nothing was sent for 'mine'") as caught:
        buy(hook, "mine")
    assert caught.value.key == "mine"
    later(monkeypatch, 130)
    for _ in range(5):
        buy(hook, None)
    assert unknown(hook).order_ids == ()
    assert len(simulator.orders()) == 45


# ------------------------------------------------------------------ renewals


def test_a_renewal_that_its_status_does_not_show_is_found_by_the_wallet(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    rental = hook.order("rental", service="WhatsApp", duration=3, key="r").order_id
    simulator.add_fault(Fault("lost_answer", path="order/*/renew/"))
    with pytest.raises(errors.PurchaseUnknownError):
        hook.renew(rental)
    later(monkeypatch, 130)
    assert [one.outcome for one in hook.reconcile().resolved] == ["bought"]
    hook.renew(rental)
    assert simulator.order(rental).renewals == 1


def test_a_purchase_while_the_balance_is_read_is_not_taken_for_a_renewal(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    rental = buy(hook, "r", product="rental", duration=3).order_id
    simulator.add_fault(Fault("error_before", path="order/*/renew/", status=502))
    with pytest.raises(errors.PurchaseUnknownError):
        hook.renew(rental)
    later(monkeypatch, 130)
    read = ServiceApi.get_balance

    def read_while_others_buy(self: ServiceApi, **options: Any) -> Balance:
        options.pop("before_sending", lambda: None)()
        buy(hook, "meanwhile", product="rental", duration=3)
        return read(self, **options)

    monkeypatch.setattr(ServiceApi, "get_balance", read_while_others_buy)
    for _ in range(2):
        assert [call.kind for call in hook.reconcile().unknown] == ["renewal"]


def test_a_refund_of_the_same_amount_hides_no_renewal_that_was_paid(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status does not show the renewal either."""
    same_price = [{"service_id": 7, "name": "Tinder", "price": 1.2}]
    simulator = simulate(catalogue={"temporary": same_price, "rent-1day": same_price})
    hook = make_hook(simulator, any_store_url)
    rental = buy(hook, "r", product="rent-1day", service="Tinder").order_id
    ended = buy(hook, "before", service="Tinder").order_id
    hook.get_balance()
    simulator.set_time_left(ended, 0)
    simulator.add_fault(Fault("lost_answer", path="order/*/renew/"))
    simulator.add_fault(Fault("error_before", path="order/*/status/", after=1, times=None))
    with pytest.raises(errors.PurchaseUnknownError):
        hook.renew(rental)
    simulator.clear_faults()
    simulator.set_time_left(rental, 600)
    later(monkeypatch, 130)
    for _ in range(2):
        assert [call.kind for call in hook.reconcile().unknown] == ["renewal"]
    assert simulator.order(rental).renewals == 1


def test_a_date_shows_no_renewal_where_two_hosts_have_other_calendars(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one is an hour ahead, so that by its calendar less time was left."""
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    rental = buy(hook, product="rent-1day", service="Tinder").order_id
    end = simulator.order(rental).expires_at.isoformat()
    body = json.dumps({"order_id": rental, "status": "active", "expiry_date": end})
    shown = Fault("error_before", path="order/*/status/", status=200, body=body, times=None)
    simulator.add_fault(shown)
    simulator.add_fault(Fault("reset", path="order/*/renew/"))
    with monkeypatch.context() as ahead:
        for module in ("models", "_service.endpoints"):
            ahead.setattr(f"smsverify.{module}.datetime", AnHourAhead)
        with pytest.raises(errors.PurchaseUnknownError):
            hook.renew(rental)
    assert hook.reconcile().resolved == []
    assert [call.kind for call in hook.reconcile().unknown] == ["renewal"]


class AnHourAhead(datetime):
    """The calendar of a host that is an hour ahead."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        return datetime.now(tz) + timedelta(hours=1)


@pytest.mark.parametrize("left", [{"time_left_seconds": 3000}, {"days_left": 1}], ids=str)
def test_a_time_left_that_is_stuck_proves_no_renewal(
    left: dict[str, int], simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    rental = buy(hook, product="rent-1day", service="Tinder").order_id
    body = json.dumps({"order_id": rental, "status": "active", **left})
    stuck = Fault("error_before", path="order/*/status/", status=200, body=body, times=None)
    simulator.add_fault(stuck)
    simulator.add_fault(Fault("reset", path="order/*/renew/"))
    with pytest.raises(errors.PurchaseUnknownError):
        hook.renew(rental)
    later(monkeypatch, 2 * 86_400)
    assert hook.reconcile().resolved == []
    assert [call.kind for call in hook.reconcile().unknown] == ["renewal"]
    assert simulator.order(rental).renewals == 0
