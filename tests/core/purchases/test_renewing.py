"""Renewals: one for each count, found again where the answer was lost, within their limit."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from requests_mock import Mocker
from rigs.processes import in_processes
from rigs.purchases import make_again, posts
from rigs.rooms import rooms_of, settings_of

from smsverify import errors
from smsverify._service.endpoints import ServiceApi
from smsverify.hook import SmsVerifyHook
from smsverify.models import OrderStatus
from smsverify.simulator import Fault, Simulator

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]


def test_a_renewal_extends_by_the_period_and_the_default_key_lets_each_be_followed_by_the_next(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(speed=1.0, rate_limit=None)
    hook = make_hook(simulator, store_url, rate_period=1.0)
    order = hook.order("rental", service="WhatsApp", duration=3)
    assert order.expires_at is not None
    expiries = [order.expires_at]
    for _ in range(2):
        renewed = hook.renew(order.order_id, max_price="4.00")
        assert renewed.expires_at is not None
        assert renewed.expires_estimated  # the service never shows it
        assert (renewed.product, renewed.duration, renewed.phone) == ("rental", 3, order.phone)
        expiries.append(renewed.expires_at)
    assert expiries[2] - expiries[1] == expiries[1] - expiries[0]
    assert (expiries[1] - expiries[0]).days == 3
    assert simulator.order(order.order_id).renewals == 2
    assert hook.get_order(order.order_id).expires_at == expiries[-1]


def test_a_renewal_extends_by_what_the_service_has_shown_where_that_is_much_less(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    """So that a service whose days are minutes is believed."""
    simulator = simulate(products={"rental": {"validity": 60 * 900.0}}, balance="200")
    hook = make_hook(simulator, store_url)
    for duration in (3, 30):
        order = hook.order("rental", service="WhatsApp", duration=duration)
        for _ in range(3):
            order = hook.renew(order.order_id)
        assert order.expires_at is not None
        shown = simulator.order(order.order_id).expires_at
        assert abs((order.expires_at - shown).total_seconds()) < 20  # it answers whole seconds, four times


def test_the_expiry_of_a_rental_by_the_day_is_read_not_reckoned(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(speed=1.0, rate_limit=None)
    hook = make_hook(simulator, store_url, rate_period=1.0)
    order = hook.order("rent-1day", service="Tinder")
    renewed = hook.renew(order.order_id)
    assert renewed.expires_at is not None
    assert not renewed.expires_estimated
    assert abs((renewed.expires_at - simulator.order(order.order_id).expires_at).total_seconds()) < 30


def test_a_key_renews_once(simulator: Simulator, hook: SmsVerifyHook) -> None:
    order = hook.order("rent-1day", service="Tinder")
    for _ in range(2):
        assert hook.renew(order.order_id, key="monday").order_id == order.order_id
    assert simulator.order(order.order_id).renewals == 1
    with pytest.raises(errors.PurchaseConflictError):
        hook.order("temporary", service="WhatsApp", key="monday")
    other = hook.order("rent-1day", service="Discord")
    with pytest.raises(errors.PurchaseConflictError):
        hook.renew(other.order_id, key="monday")


def test_an_order_s_key_is_none_for_its_renewal(simulator: Simulator, hook: SmsVerifyHook) -> None:
    order = hook.order("rent-1day", service="Tinder", key="k")
    with pytest.raises(errors.PurchaseConflictError):
        hook.renew(order.order_id, key="k")
    hook.renew(order.order_id)
    assert hook.order("rent-1day", service="Tinder", key="k").order_id == order.order_id
    assert simulator.stats().orders == 1


LOST_RENEWALS = ["lost_answer", "error_after", "cut_json", "empty_body", "cut_headers"]


@pytest.mark.parametrize("kind", LOST_RENEWALS)
def test_a_renewal_whose_answer_is_lost_is_found_by_the_time_left(
    kind: str, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order = hook.order("rent-1day", service="Tinder")
    simulator.add_fault(Fault(kind, path="order/*/renew/"))
    for _ in range(2):
        assert hook.renew(order.order_id, key="monday").order_id == order.order_id
    assert simulator.order(order.order_id).renewals == 1
    assert posts(simulator, f"order/{order.order_id}/renew/") == 1


@pytest.mark.parametrize("kind", LOST_RENEWALS)
@pytest.mark.slow
def test_a_renewal_whose_answer_is_lost_is_not_sent_again_where_no_time_left_is_shown(
    kind: str, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order = hook.order("rental", service="WhatsApp", duration=3)
    simulator.add_fault(Fault(kind, path="order/*/renew/"))
    for key in (None, None, "another"):
        with pytest.raises(errors.PurchaseUnknownError) as caught:
            hook.renew(order.order_id, key=key)
        assert str(order.order_id) in str(caught.value)
    assert simulator.order(order.order_id).renewals == 1
    assert posts(simulator, f"order/{order.order_id}/renew/") == 1


def test_a_renewal_that_was_paid_is_handed_out_whatever_became_of_its_price(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order = hook.order("rent-1day", service="Tinder")
    hook.renew(order.order_id, max_price="1.20", key="monday")
    assert hook.renew(order.order_id, max_price="0.01", key="monday").order_id == order.order_id
    assert simulator.order(order.order_id).renewals == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        [],
        None,
        {"success": True, "data": {}},
        {"order_id": 8, "status": "active"},
        {"order_id": None},
        {"success": True, "data": {"order_id": 7, "status": "cancelled"}},
        {"order_id": 7, "status": "pending_payment"},
        {"status": "processing"},
        {"status": "error", "message": "Upstream timeout"},
        {"code": 402, "status": 402},
    ],
    ids=str,
)
def test_a_renewal_is_believed_only_where_the_answer_is_about_it(
    body: Any, requests_mock: Mocker, make_hook: MakeHook, store_url: str
) -> None:
    url = "http://127.0.0.1:9/api/v1"
    requests_mock.get(f"{url}/orders/", json=[])
    requests_mock.get(f"{url}/balance/", json={"balance": "10.00"})
    requests_mock.get(f"{url}/order/7/status/", json={"order_id": 7, "status": "active"})
    requests_mock.post(f"{url}/order/7/renew/", json=body)
    with pytest.raises(errors.PurchaseUnknownError):
        make_hook("http://127.0.0.1:9", store_url).renew(7)


@pytest.mark.parametrize("status", ["active", "Active", "pending", "completed", None])
def test_a_renewal_was_made_where_the_rental_goes_on(
    status: str | None, requests_mock: Mocker, make_hook: MakeHook, store_url: str
) -> None:
    url = "http://127.0.0.1:9/api/v1"
    requests_mock.get(f"{url}/orders/", json=[])
    requests_mock.get(f"{url}/balance/", json={"balance": "10.00"})
    requests_mock.get(f"{url}/order/7/status/", json={"order_id": 7, "status": "active"})
    requests_mock.post(f"{url}/order/7/renew/", json={"data": {"order_id": 7, "status": status}})
    assert make_hook("http://127.0.0.1:9", store_url).renew(7).status == "active"


def test_a_renewal_that_a_success_refuses_is_not_paid(
    requests_mock: Mocker, make_hook: MakeHook, store_url: str
) -> None:
    url = "http://127.0.0.1:9/api/v1"
    requests_mock.get(f"{url}/orders/", json=[])
    requests_mock.get(f"{url}/balance/", json={"balance": "10.00"})
    requests_mock.get(f"{url}/order/7/status/", json={"order_id": 7, "status": "active"})
    refused = {"status": "error", "message": "Insufficient balance"}
    renew = requests_mock.post(f"{url}/order/7/renew/", json=refused)
    hook = make_hook("http://127.0.0.1:9", store_url)
    for _ in range(2):
        with pytest.raises(errors.InsufficientBalanceError):
            hook.renew(7)
    assert renew.call_count == 2


def test_a_renewal_that_was_not_made_is_made_when_its_grace_is_over(
    simulator: Simulator, hook: SmsVerifyHook, make_hook: MakeHook, store_url: str
) -> None:
    order = hook.order("rent-1day", service="Tinder")
    simulator.add_fault(Fault("reset", path="order/*/renew/"))
    with pytest.raises(errors.PurchaseUnknownError):
        hook.renew(order.order_id)
    with pytest.raises(errors.PurchaseUnknownError):
        hook.renew(order.order_id)
    hasty = make_hook(simulator, store_url, purchase_grace=0.25)
    while not simulator.order(order.order_id).renewals:
        with contextlib.suppress(errors.PurchaseUnknownError):
            hasty.renew(order.order_id)
    assert simulator.order(order.order_id).renewals == 1


def test_renewals_at_the_same_time_under_different_keys_are_one(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    order = hook.order("rent-1day", service="Tinder")
    simulator.add_fault(Fault("slow_after", path="order/*/renew/", seconds=1.0, times=None))
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda key=key: results.append(hook.renew(order.order_id, key=key).order_id))
        for key in ("one", "two", "three")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [order.order_id] * 3
    assert simulator.order(order.order_id).renewals == 1
    for key in ("one", "two", "three"):
        hook.renew(order.order_id, key=key)
    assert simulator.order(order.order_id).renewals == 1
    hook.renew(order.order_id, key="four")
    assert simulator.order(order.order_id).renewals == 2


def test_a_renewal_keeps_to_its_limit_and_fails_closed(
    simulator: Simulator, make_hook: MakeHook, store_url: str, any_other_store: str
) -> None:
    hook = make_hook(simulator, store_url)
    order = hook.order("rent-1day", service="Tinder")
    simulator.set_offer("rent-1day", 4421, price="1.21")
    hook = make_again(hook)
    with pytest.raises(errors.PriceLimitError):
        hook.renew(order.order_id, max_price="1.20")
    # A store that does not know the order does not know its price either.
    with pytest.raises(errors.PriceLimitError, match="unknown"):
        make_hook(simulator, any_other_store).renew(order.order_id, max_price="100")
    assert simulator.order(order.order_id).renewals == 0
    assert hook.renew(order.order_id, max_price="1.21").price == Decimal("1.20")
    assert make_hook(simulator, any_other_store).renew(order.order_id).order_id == order.order_id


# What is to be cancelled by now, or is in use and stays.
WISHES = [("any", False, False), ("unused", False, False), ("pending", False, True), ("any", True, True)]


def active(order_id: int) -> str:
    return json.dumps({"order_id": order_id, "status": "active", "time_left_seconds": 3000})


@pytest.fixture
def any_other_store(store_url: str) -> str:
    """A second store."""
    return store_url.replace("store.db", "other.db")


REFUSED = json.dumps({"success": False, "error": "Order cannot be cancelled"})


def test_a_rental_that_is_to_be_cancelled_is_renewed_when_that_is_withdrawn(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    simulator.add_fault(Fault("error_before", "order/*/cancel/", status=400, body=REFUSED))
    with hook.rented_number("rent-1day", service="Tinder") as order:
        pass
    for key in (None, "monday"):
        with pytest.raises(errors.InvalidRequestError, match=r"its code was not used.*nothing was paid"):
            hook.renew(order.order_id, key=key)
    assert posts(simulator, f"order/{order.order_id}/renew/") == 0
    with pytest.raises(errors.WaitTimeoutError):
        hook.wait_for_otp(order.order_id, 0.1, cancel_on_timeout=False)
    hook.renew(order.order_id)
    assert posts(simulator, f"order/{order.order_id}/renew/") == 1


@pytest.mark.parametrize(("scope", "is_planned", "is_renewed"), WISHES)
def test_a_rental_that_is_given_up_while_its_renewal_waits_for_its_turn_is_not_paid(
    scope: str,
    is_planned: bool,
    is_renewed: bool,
    simulator: Simulator,
    hook: SmsVerifyHook,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order_id = hook.order("rent-1day", service="Tinder").order_id
    simulator.add_fault(Fault("error_before", "order/*/status/", status=200, body=active(order_id)))
    renew = ServiceApi.post_renewal

    def renew_late(self: ServiceApi, order_id: int, **options: Any) -> OrderStatus:
        releases = rooms_of(hook).orders.releases
        assert releases.request(order_id, "not needed", scope=scope, is_planned=is_planned)
        return renew(self, order_id, **options)

    monkeypatch.setattr(ServiceApi, "post_renewal", renew_late)
    if is_renewed:
        hook.renew(order_id)
    else:
        with pytest.raises(errors.InvalidRequestError, match="not needed"):
            hook.renew(order_id)
    assert posts(simulator, f"order/{order_id}/renew/") == is_renewed


def test_an_unknown_renewal_of_another_namespace_is_found_out(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    """The default keys of both are the same."""
    simulator = simulate()
    one = make_hook(simulator, any_store_url, namespace="one")
    other = make_hook(simulator, any_store_url, namespace="other", purchase_grace=0.25)
    order_id = one.order("rent-1day", service="Tinder").order_id
    simulator.add_fault(Fault("error_before", "order/*/renew/", status=502))
    with pytest.raises(errors.PurchaseUnknownError):
        one.renew(order_id)
    time.sleep(0.3)
    other.renew(order_id)
    assert simulator.order(order_id).renewals == 1


def test_a_rental_that_gets_its_owner_while_it_is_renewed_keeps_it(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.add_fault(Fault("lost_answer", "order/rent-1day/"))
    simulator.add_fault(Fault("error_before", "orders/", times=None))
    with pytest.raises(errors.PurchaseUnknownError):
        hook.order("rent-1day", service="Tinder", key="k")
    simulator.clear_faults()
    (sold,) = simulator.orders()
    renew = ServiceApi.post_renewal

    def renew_slowly(self: ServiceApi, order_id: int, **options: Any) -> OrderStatus:
        answer = renew(self, order_id, **options)
        hook.reconcile()
        return answer

    monkeypatch.setattr(ServiceApi, "post_renewal", renew_slowly)
    hook.renew(sold.order_id)
    known = hook.get_order(sold.order_id)
    assert (known.key, known.price, known.service) == ("k", Decimal("1.20"), "Tinder")
    assert hook.order("rent-1day", service="Tinder", key="k").order_id == sold.order_id


def test_only_rentals_are_renewed(simulator: Simulator, hook: SmsVerifyHook) -> None:
    for product, given in (("temporary", {"service": 22}), ("esim", {"plan": "USA 1GB / 7 days"})):
        order = hook.order(product, **given)
        with pytest.raises(errors.InvalidRequestError, match="only rentals") as caught:
            hook.renew(order.order_id)
        assert caught.value.field == "order_id"
    assert posts(simulator) == 2
    with pytest.raises(errors.NotFoundError):
        hook.renew(999_999)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("known", "is_scheduled"),
    [("nothing", False), ("nothing", True), ("a balance", False), ("all but the rental", False)],
)
def test_a_first_renewal_whose_answer_is_lost_is_paid_once_while_the_status_lags(
    known: str, is_scheduled: bool, simulate: Simulate, make_hook: MakeHook, store_url: str, tmp_path: Path
) -> None:
    """The wallet decides: it and the list are read before the first paid call of an account."""
    simulator = simulate(rate_limit=None, list_length=1)
    elsewhere = make_hook(simulator, f"sqlite:///{tmp_path / 'elsewhere.db'}")
    rental = elsewhere.order("rent-1day", service="Discord").order_id
    elsewhere.order("rent-1day", service="Discord")  # which alone is listed, at the same price
    hook = make_hook(simulator, store_url, purchase_grace=0.3)
    if known != "nothing":
        hook.get_balance()
    if known == "all but the rental":
        hook.list_orders()
    simulator.set_time_left(rental, 20)
    shown = {"order_id": rental, "status": "active", "phone": "+1 415 555 0123", "time_left_seconds": 1200}
    body = json.dumps({"success": True, "data": shown})
    lags = Fault("error_before", path=f"order/{rental}/status/", status=200, body=body, times=None)
    simulator.add_fault(lags)
    simulator.add_fault(Fault("error_after", path="order/*/renew/", times=1))
    for _ in range(4):
        if is_scheduled:
            hook.renew_expiring(3600, order_ids=[rental])
        else:
            with contextlib.suppress(errors.PurchaseUnknownError):
                hook.renew(rental)
        time.sleep(0.4)
    assert posts(simulator, f"order/{rental}/renew/") == 1


@pytest.mark.slow
def test_many_processes_renew_once(simulate: Simulate, make_hook: MakeHook, any_store_url: str) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    order = hook.order("rent-1day", service="Tinder")
    simulator.add_fault(Fault("slow_after", path="order/*/renew/", seconds=1.0, times=None))
    in_processes("renew", 4, settings=settings_of(hook), order_id=order.order_id)
    renewals = posts(simulator, f"order/{order.order_id}/renew/")
    assert renewals == simulator.order(order.order_id).renewals == 1
