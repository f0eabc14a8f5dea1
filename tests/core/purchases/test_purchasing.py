"""Money goes out once for a key: through prices, conflicts, crashes and races."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from requests_mock import Mocker
from rigs import API_KEY, eventually
from rigs.clocks import later
from rigs.money import Died
from rigs.processes import in_processes
from rigs.purchases import BOUGHT, buy, make_again, posts, read_prices, states
from rigs.rooms import hold_up, settings_of, store_of
from rigs.sign_ups import die
from rigs.waits import Waiting, status_requests
from rigs.wire import WireServer, answer

from smsverify import errors
from smsverify._purchases.sending import Sender
from smsverify._runtime.clock import DAY
from smsverify._store.tables import purchases
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Fault, Simulator
from smsverify.wings import RunContext, claim

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]


# ------------------------------------------------------------------ one key, one order


def test_the_same_key_hands_out_the_order_that_it_has_bought(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    one, other = make_hook(simulator, any_store_url), make_hook(simulator, any_store_url)
    first = buy(one)
    assert buy(other).as_dict() == first.as_dict()
    assert buy(one, max_price="0.01").order_id == first.order_id  # nothing is paid any more
    assert (posts(simulator), simulator.balance()) == (1, Decimal("49.60"))


def test_an_order_with_its_code_not_handed_out_still_serves(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    first = buy(hook)
    simulator.deliver_sms(first.order_id, otp="123456")
    assert buy(hook).order_id == first.order_id
    assert hook.wait_for_otp(first.order_id, 20).otp == "123456"
    assert buy(hook).order_id != first.order_id  # used: the next one


@pytest.mark.parametrize("end", ["cancelled", "expired", "completed elsewhere"])
def test_a_key_buys_again_when_its_order_has_ended(
    end: str, simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate(products={"temporary": {"end_status": "expired", "end_refund": False}})
    hook = make_hook(simulator, any_store_url)
    generations = [buy(hook).order_id]
    for _ in range(2):
        if end == "cancelled":
            hook.cancel(generations[-1])
        elif end == "expired":
            simulator.set_time_left(generations[-1], 0)
        else:
            simulator.deliver_sms(generations[-1], otp="123456")
            hook.wait_for_otp(generations[-1], 20)
        generations.append(buy(hook).order_id)
    assert len(set(generations)) == 3
    assert posts(simulator, "order/temporary/") == 3
    assert buy(hook).order_id == generations[-1]


@pytest.mark.slow
@pytest.mark.parametrize("end", ["failed", "cancelled", "expired"])
@pytest.mark.parametrize("product", ["temporary", "esim"])
def test_an_order_that_the_answer_shows_as_ended_is_not_handed_out(
    product: str, end: str, simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(products={product: {"start_status": end}})
    hook = make_hook(simulator, store_url)
    given = {"plan": "USA 1GB / 7 days"} if product == "esim" else {"service": "WhatsApp"}
    with pytest.raises(errors.OrderEndedError, match=rf"was bought, and the service shows it as {end}\b"):
        hook.order(product, **given, key="k")
    simulator.configure(products={product: {"start_status": "active"}})
    assert hook.order(product, **given, key="k").order_id == simulator.orders()[1].order_id


@pytest.mark.parametrize(
    ("product", "given"),
    [("rental", {"service": "WhatsApp", "duration": 3}), ("rent-30days", {"service": "Instagram"})],
)
def test_a_rental_serves_on_after_a_code(
    product: str, given: dict[str, Any], simulator: Simulator, hook: SmsVerifyHook
) -> None:
    first = hook.order(product, **given, key="k")
    simulator.deliver_sms(first.order_id, otp="123456")
    assert hook.wait_for_otp(first.order_id, 20).otp == "123456"
    assert hook.order(product, **given, key="k").order_id == first.order_id
    simulator.set_time_left(first.order_id, 0)
    assert hook.order(product, **given, key="k").order_id != first.order_id


def test_a_key_buys_no_second_rental_where_a_code_has_completed_the_first(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    """And its waits go on: it gets more than one SMS."""
    completes = {"sms_status": "completed"}
    simulator = simulate(products={"rent-30days": completes, "rental": completes})
    hook = make_hook(simulator, store_url)
    purchases: list[dict[str, Any]] = [
        {"product": "rental", "service": "WhatsApp", "duration": 3},
        {"product": "rent-30days", "service": "Instagram"},
    ]
    for n, given in enumerate(purchases):
        first = hook.order(**given, key=f"k{n}").order_id
        last = None
        for code in ("123456", "654321"):
            asked = status_requests(simulator)
            waiting = Waiting(hook, [first], after=last)
            eventually(lambda asked=asked: status_requests(simulator) > asked, "a look at the rental")
            simulator.deliver_sms(first, otp=code)
            (last,) = waiting.messages()
            assert last.otp == code
            assert hook.get_order(first).status == "completed"
            assert hook.order(**given, key=f"k{n}").order_id == first
    simulator.set_time_left(first, 0)
    assert hook.order(**given, key=f"k{n}").order_id != first


@pytest.mark.parametrize(
    ("product", "given", "shown", "days"),
    [
        ("rental", {"service": "WhatsApp", "duration": 3}, (), 3),
        ("rent-1day", {"service": "Tinder"}, ("days_left",), 1),
    ],
)
def test_a_completed_rental_whose_end_is_not_shown_is_over_when_all_that_was_paid_is(
    product: str,
    given: dict[str, Any],
    shown: tuple[str, ...],
    days: int,
    simulate: Simulate,
    make_hook: MakeHook,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulator = simulate(products={product: {"sms_status": "completed"}}, time_left_fields=shown)
    hook = make_hook(simulator, store_url)
    first = hook.order(product, **given, key="k").order_id
    later(monkeypatch, 5 * DAY)
    assert hook.order(product, **given, key="k").order_id == first  # the service calls it active
    later(monkeypatch, -5 * DAY)
    simulator.deliver_sms(first, otp="123456")
    assert hook.wait_for_otp(first, 20).otp == "123456"
    simulator.set_time_left(first, 0)
    assert hook.order(product, **given, key="k").order_id == first
    later(monkeypatch, (days + 2) * DAY)
    assert hook.order(product, **given, key="k").order_id != first


def test_a_renewal_that_a_call_has_planned_before_it_died_pays_for_no_period(
    simulate: Simulate, make_hook: MakeHook, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate(products={"rental": {"sms_status": "completed"}})
    hook = make_hook(simulator, store_url)
    wanted = {"product": "rental", "service": "WhatsApp", "duration": 3, "key": "k"}
    first = hook.order(**wanted).order_id
    simulator.deliver_sms(first, otp="123456")
    hook.get_status(first)
    with monkeypatch.context() as patched:
        patched.setattr(Sender, "send", die)
        with pytest.raises(Died):
            hook.renew(first)
    assert states(store_url) == ["bought", "planned"]
    later(monkeypatch, 5 * DAY)
    assert hook.order(**wanted).order_id != first


def test_an_esim_is_handed_out_again_with_its_activation_code(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    first = hook.order("esim", plan="USA 1GB / 7 days", key="k")
    again = hook.order("esim", plan="USA 1GB / 7 days", key="k")
    assert first.activation_code == again.activation_code == simulator.orders()[0].activation_code
    assert hook.get_order(first.order_id).activation_code == first.activation_code
    assert posts(simulator) == 1


def test_a_key_buys_no_second_esim_where_the_first_is_completed_when_it_is_delivered(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(products={"esim": {"start_status": "completed"}})
    hook = make_hook(simulator, store_url)
    first = hook.order("esim", plan="USA 1GB / 7 days", key="k")
    assert first.status == "completed"
    assert hook.order("esim", plan="USA 1GB / 7 days", key="k").as_dict() == first.as_dict()
    assert posts(simulator) == 1


def test_without_a_key_each_call_buys(simulator: Simulator, hook: SmsVerifyHook) -> None:
    assert buy(hook, key=None).order_id != buy(hook, key=None).order_id
    assert posts(simulator) == 2


def test_a_wing_derives_the_key(simulator: Simulator, hook: SmsVerifyHook) -> None:
    class InATask(RunContext):
        def default_key(self, fingerprint: str) -> str | None:
            return f"task:{fingerprint[:8]}"

    inside = SmsVerifyHook(**settings_of(hook), run_context=InATask())
    assert buy(inside, key=None).order_id == buy(inside, key=None).order_id
    assert inside.order("temporary", service="Telegram").order_id != buy(inside, key=None).order_id
    assert posts(simulator) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"product": "temporary", "service": "Telegram"},
        {"product": "best-temp", "service": "WhatsApp"},
        {"product": "temporary", "service": "WhatsApp", "area_code": "212"},
        {"product": "rental", "service": "WhatsApp", "duration": 3},
        {"product": "global", "service": "WhatsApp", "country": 4},
    ],
)
@pytest.mark.slow
def test_a_key_that_stands_for_something_else_is_refused(
    other: dict[str, Any], simulator: Simulator, hook: SmsVerifyHook
) -> None:
    buy(hook)
    with pytest.raises(errors.PurchaseConflictError, match="another") as caught:
        hook.order(**other, key="k")
    assert caught.value.key == "k"
    assert posts(simulator) == 1


def test_deployments_and_accounts_keep_their_keys_apart(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    places: list[tuple[dict[str, Any], str]] = [
        ({}, "k"),
        ({"namespace": "a"}, "k"),
        ({"namespace": "a"}, "b:k"),
        ({"namespace": "a:b"}, "k"),
        ({}, "a:k"),
        ({}, "a:b:k"),
        ({"account": "other"}, "k"),
    ]
    for settings, key in places:
        assert buy(make_hook(simulator, any_store_url, **settings), key).key == key
    assert posts(simulator) == len(places)


def test_keys_and_names_may_be_long(simulate: Simulate, make_hook: MakeHook, any_store_url: str) -> None:
    hook = make_hook(simulate(), any_store_url)
    key = "dag " + "ä" * 2000
    order = buy(hook, key)
    assert buy(hook, key).order_id == order.order_id
    claim(hook, order.order_id, "waiter " + "x" * 2000)
    assert hook.release(order.order_id, "reason " * 500, waiter="waiter " + "x" * 2000)


# ------------------------------------------------------------------ prices


@pytest.mark.parametrize("limit", ["0.39", 0.39, 0, Decimal("0.3999")])
def test_nothing_is_sent_above_the_limit(limit: Any, simulator: Simulator, hook: SmsVerifyHook) -> None:
    with pytest.raises(errors.PriceLimitError, match=r"0\.4"):
        buy(hook, max_price=limit)
    assert posts(simulator) == 0
    assert buy(hook, max_price="0.40").price == Decimal("0.40")  # the key is as good as new


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "limit", "buys"),
    [
        ({"price": 0.4}, "0.4", True),
        ({"price": 0.5, "sell_price": 0.4}, "0.4", False),
        ({"price": 0.4, "sell_price": 0.5}, "0.4", False),
        ({"price": 0.5, "sell_price": 0.4}, "0.5", True),
        ({"price": None}, "100", False),
        ({"price": "ask us"}, "100", False),
        ({}, "100", False),
        ({}, None, True),
        ({"price": 0.1 + 0.2}, "0.3", True),  # the noise of a float is no price
    ],
)
def test_the_limit_fails_closed(
    row: dict[str, Any], limit: str | None, buys: bool, wire: WireServer, make_hook: MakeHook, store_url: str
) -> None:
    wire.on("GET", answer(200, [{"service_id": 1012, "name": "WhatsApp", **row}]))
    wire.on("POST", answer(201, BOUGHT))
    hook = make_hook(wire, store_url)
    if buys:
        assert buy(hook, max_price=limit).order_id == 7
    else:
        with pytest.raises(errors.PriceLimitError):
            buy(hook, max_price=limit)
    assert wire.posts == int(buys)


def test_a_rental_s_limit_is_that_of_its_duration(simulator: Simulator, hook: SmsVerifyHook) -> None:
    with pytest.raises(errors.PriceLimitError, match="12"):
        hook.order("rental", service="WhatsApp", duration=30, max_price=5)
    assert hook.order("rental", service="WhatsApp", duration=3, max_price=4).price == 4
    simulator.set_offer("global", 1012, country_id=4, price="2.00")
    with pytest.raises(errors.PriceLimitError):
        hook.order("global", service=1012, country=4, max_price="1.99")


def test_a_key_s_order_is_handed_out_whatever_became_of_the_catalogue(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    first = buy(hook, max_price="0.40")
    simulator.set_offer("temporary", 1012, price="0.90", stock=0)
    simulator.add_fault(Fault("error_before", path="services/**", times=None))
    assert buy(make_again(hook), max_price="0.40").order_id == first.order_id


# ------------------------------------------------------------------ races


def test_one_key_in_many_processes_buys_one_order(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    order = {"product": "temporary", "service": "WhatsApp", "key": "k"}
    results = in_processes("buy", 4, settings=settings_of(hook), order=order)
    assert len(simulator.orders()) == 1
    assert posts(simulator) == 1
    assert set(results) == {simulator.orders()[0].order_id}


def test_one_key_with_a_slow_service_buys_one_order(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    simulator.add_fault(Fault("slow_before", path="order/temporary/", seconds=1.0))
    hook = make_hook(simulator, any_store_url)
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(buy(hook).order_id)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert set(results) == {simulator.orders()[0].order_id}
    assert posts(simulator) == 1


@pytest.mark.slow
def test_a_purchase_that_is_planned_but_not_sent_is_taken_over(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    """One waits for the budget of its API key; another, with a key not held up, comes with the same."""
    held_up = make_hook(simulator, store_url, account="wallet", api_key=API_KEY, rate_limit=59)
    hook = make_hook(simulator, store_url, account="wallet", api_key=API_KEY)
    read_prices(held_up)
    hold_up(held_up, 1.5)
    results: list[int] = []
    waiting = threading.Thread(target=lambda: results.append(buy(held_up).order_id))
    waiting.start()
    eventually(lambda: states(store_url), "the plan")
    results.append(buy(hook).order_id)
    waiting.join(30)
    assert len(set(results)) == 1
    assert posts(simulator) == 1


@pytest.mark.slow
def test_a_key_whose_order_has_ended_is_bought_anew_once_by_many(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    first = buy(hook)
    hook.cancel(first.order_id)
    order = {"product": "temporary", "service": "WhatsApp", "key": "k"}
    results = in_processes("buy", 4, settings=settings_of(hook), order=order)
    assert len(simulator.orders()) == 2
    assert set(results) == {simulator.orders()[1].order_id}


# ------------------------------------------------------------------ keys and arguments


@pytest.mark.parametrize("key", [5, "5", "ä" * 3000])
def test_a_key_may_be_a_number_or_long(
    key: Any, simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    hook = make_hook(simulate(), any_store_url)
    assert buy(hook, key).order_id == buy(hook, key).order_id


@pytest.mark.parametrize("key", ["", " ", True, 1.5, ["k"], "with\0a NUL", pytest.param(10**5000, id="long")])
def test_what_is_no_key_is_refused(key: Any, simulator: Simulator, hook: SmsVerifyHook) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        buy(hook, key)
    assert caught.value.field == "key"
    assert simulator.requests() == []


def test_the_body_on_record_is_json(simulator: Simulator, hook: SmsVerifyHook) -> None:
    buy(hook)
    with store_of(hook).read() as connection:
        row = connection.execute(sa.select(purchases)).one()
    assert json.loads(row.request)["service"] == "1012"
    assert (row.price, row.state, row.kind) == ("0.4", "bought", "order")


def test_what_is_wrong_is_refused_before_any_request(simulator: Simulator, hook: SmsVerifyHook) -> None:
    wrong: list[dict[str, Any]] = [
        {"product": "sms", "service": 1},
        {"product": "rental", "service": "WhatsApp", "duration": 7},
        {"product": "temporary", "service": 1, "area_code": "12"},
        {"product": "temporary", "service": 1, "plan": "USA"},
        {"product": "temporary", "service": 1, "max_price": -1},
    ]
    for given in wrong:
        with pytest.raises(errors.InvalidRequestError):
            hook.order(**given)
    for order_id in ("x", -1, 0, True, "../balance"):
        for call in (
            hook.renew,
            hook.cancel,
            hook.get_status,
            hook.get_order,
            hook.check_otp,
            hook.wait_for_otp,
        ):
            with pytest.raises(errors.InvalidRequestError) as caught:
                call(order_id)
            assert caught.value.field == "order_id"
    with pytest.raises(errors.InvalidRequestError):
        hook.renew(1, max_price="dear")
    assert simulator.requests() == []


def test_a_response_with_more_than_it_should_is_not_believed_over_the_catalogue(
    requests_mock: Mocker, make_hook: MakeHook, store_url: str
) -> None:
    url = "http://127.0.0.1:9/api/v1/"
    requests_mock.get(
        f"{url}services/temporary/", json=[{"service_id": 1012, "name": "WhatsApp", "price": 0.4}]
    )
    requests_mock.get(f"{url}orders/", json=[])
    requests_mock.get(f"{url}balance/", json={"balance": 50})
    requests_mock.post(
        f"{url}order/temporary/", json={"order_id": 7, "product": "esim", "duration": 30, "key": "x"}
    )
    order = buy(make_hook("http://127.0.0.1:9", store_url))
    assert (order.product, order.duration, order.key) == ("temporary", None, "k")
