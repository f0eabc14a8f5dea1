"""What the answer to a paid call says: a clear no, what nobody knows, and what cannot be true."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from requests_mock import Mocker
from rigs.purchases import BOUGHT, buy, posts, read_prices, states
from rigs.rooms import hold_up, rooms_of, settings_of
from rigs.wire import WireServer, answer, closed_port, closes, resets, sends

from smsverify import errors
from smsverify._store.store import open_store
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Fault, Simulator

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]


# ------------------------------------------------------------------ a clear no

NO: list[tuple[dict[str, Any], type[errors.SmsVerifyError]]] = [
    ({"kind": "unauthorized"}, errors.AuthenticationError),
    ({"kind": "forbidden"}, errors.AuthenticationError),
    ({"kind": "out_of_stock"}, errors.NotAvailableError),
    (
        {"kind": "error_before", "status": 402, "body": '{"error": "Insufficient balance"}'},
        errors.InsufficientBalanceError,
    ),
    (
        {"kind": "error_before", "status": 404, "body": '{"error": "Service not found"}'},
        errors.NotAvailableError,
    ),
    ({"kind": "error_before", "status": 400, "body": '{"service_id": ["Bad."]}'}, errors.InvalidRequestError),
    (
        {"kind": "success_false", "body": '{"success": false, "error": "Insufficient balance"}'},
        errors.InsufficientBalanceError,
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "kind"), NO)
def test_after_a_clear_no_the_key_may_try_again(
    fault: dict[str, Any],
    kind: type[errors.SmsVerifyError],
    simulator: Simulator,
    hook: SmsVerifyHook,
) -> None:
    simulator.add_fault(Fault(path="order/temporary/", **fault))
    with pytest.raises(kind):
        buy(hook)
    assert (posts(simulator), simulator.orders()) == (1, [])
    assert buy(hook).order_id == simulator.orders()[0].order_id
    assert posts(simulator) == 2


def test_an_empty_wallet_says_so(simulate: Simulate, make_hook: MakeHook, store_url: str) -> None:
    hook = make_hook(simulate(balance="0.10"), store_url)
    with pytest.raises(errors.InsufficientBalanceError, match="Insufficient balance") as caught:
        buy(hook)
    assert caught.value.status_code == 402
    assert caught.value.endpoint == "POST /api/v1/order/temporary/"


def test_a_wrong_key_is_an_authentication_error_before_anything_is_bought(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    with pytest.raises(errors.AuthenticationError):
        buy(make_hook(simulator, store_url, api_key="wrong"))
    assert posts(simulator) == 0


@pytest.mark.slow
def test_a_service_that_cannot_be_reached_costs_nothing_and_the_key_may_try_again(
    wire: WireServer, make_hook: MakeHook, store_url: str
) -> None:
    wire.on("POST", answer(201, BOUGHT))
    hook = make_hook(wire, store_url, account="wallet", rate_period=0.1)
    read_prices(hook)
    elsewhere = f"http://127.0.0.1:{closed_port()}"
    gone = make_hook(elsewhere, store_url, account="wallet", rate_period=60.0, call_timeout=1.0)
    with pytest.raises(errors.ServiceUnavailableError, match="was not sent"):
        buy(gone)
    assert states(store_url) == ["rejected"]
    assert buy(hook).order_id == 7


# ------------------------------------------------------------------ nobody knows

# The wire server lists no orders, so what became of the call cannot be found out.
LOST = {
    "reset": resets,
    "closed": closes,
    "cut": sends(b"HTTP/1.1 201 Cre"),
    "500": answer(500),
    "no JSON": answer(201),
    "a failed provider": answer(
        201, {"success": False, "error": "Provider failed, your order was cancelled, refund pending"}
    ),
    "an order beside a no": answer(201, {"success": False, "error": "Out of stock", "order": {"id": 7}}),
}


@pytest.mark.parametrize("name", LOST)
def test_an_unknown_outcome_is_an_error_now_and_later_and_never_a_second_post(
    name: str, wire: WireServer, make_hook: MakeHook, any_store_url: str
) -> None:
    wire.on("POST", LOST[name])
    hook = make_hook(wire, any_store_url, rate_period=0.1)
    with pytest.raises(errors.PurchaseUnknownError, match="not sent again") as caught:
        buy(hook)
    assert (caught.value.key, caught.value.order_ids) == ("k", ())
    assert isinstance(caught.value.__cause__, errors.ServiceError)
    wire.on("POST", answer(201, BOUGHT))
    for _ in range(2):
        with pytest.raises((errors.PurchaseUnknownError, errors.ServiceError)):
            buy(make_hook(wire, any_store_url))
    assert wire.posts == 1
    assert buy(hook, "another").order_id == 7


def test_a_store_that_fails_after_the_call_does_not_hide_that_it_was_made(
    wire: WireServer, make_hook: MakeHook, store_url: str
) -> None:
    for number, behaviour in enumerate((answer(500), answer(201, BOUGHT))):
        url = store_url.replace("store.db", f"store{number}.db")
        hook = make_hook(wire, url)
        hook.upgrade_store()

        def break_store(*given: Any, url: str = url, behaviour: Any = behaviour) -> None:
            with open_store(url).write() as connection:
                connection.exec_driver_sql("ALTER TABLE smsverify_purchases RENAME TO gone")
            behaviour(*given)

        wire.on("POST", break_store)
        with pytest.raises(errors.PurchaseUnknownError) as caught:
            buy(hook)
        assert caught.value.key == "k"
        assert caught.value.order_ids == ((7,) if number else ())


def test_without_the_store_nothing_is_bought(wire: WireServer, make_hook: MakeHook, store_url: str) -> None:
    wire.on("POST", answer(201, BOUGHT))
    hook = make_hook(wire, store_url)
    hook.upgrade_store()
    with open_store(store_url).write() as connection:
        connection.exec_driver_sql("ALTER TABLE smsverify_purchases RENAME TO gone")
    with pytest.raises(errors.StoreError):
        buy(hook)
    assert wire.posts == 0


def test_an_interruption_while_the_call_is_under_way_leaves_it_on_record(
    wire: WireServer, make_hook: MakeHook, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire.on("POST", answer(201, BOUGHT))
    hook = make_hook(wire, store_url, connect_timeout=0.05, read_timeout=0.1, rate_period=0.1)

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("smsverify._service.wire._read", interrupt)
        with pytest.raises(KeyboardInterrupt):
            rooms_of(hook).api.post_order(*_request(hook))
    assert wire.posts == 1


def _request(hook: SmsVerifyHook) -> tuple[Any, Any]:
    from smsverify.checks import OrderRequest
    from smsverify.models import Service

    entry = Service(product="temporary", service_id=1012, name="WhatsApp")
    return OrderRequest.check(product="temporary", service=1012), entry


@pytest.mark.parametrize("is_busy", [True, False])
def test_a_stop_before_the_call_costs_nothing(
    is_busy: bool, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    read_prices(hook)
    if is_busy:
        hold_up(hook, 10)
    stop = threading.Event()
    stop.set()
    with pytest.raises(errors.WaitStoppedError):
        buy(hook, stop=stop)
    assert posts(simulator) == 0
    assert states(settings_of(hook)["store_url"]) == ["rejected"]


# ------------------------------------------------------------------ answers that cannot be true


IMPLAUSIBLE: list[Any] = [
    *[
        {"data": {"order_id": order_id}}
        for order_id in (None, True, False, 0, -7, 7.5, "", "7a", 10**19, [7])
    ],
    {"data": [{"order_id": 7}, {"order_id": 8}]},
    {"data": {"orders": [{"order_id": 7}, {"order_id": 8}]}},
    [{"order_id": 7}, {"order_id": 8}],
    {"data": {"status": "pending", "phone": "+1 415 555 0123"}},
]


@pytest.mark.slow
@pytest.mark.parametrize("body", IMPLAUSIBLE, ids=str)
def test_an_answer_that_names_no_order_leaves_the_outcome_unknown(
    body: Any, wire: WireServer, make_hook: MakeHook, store_url: str
) -> None:
    wire.on("POST", answer(201, body))
    hook = make_hook(wire, store_url, rate_period=0.1)
    for _ in range(2):
        with pytest.raises(errors.PurchaseUnknownError):
            buy(hook)
    assert wire.posts == 1


@pytest.mark.parametrize("is_shown", [True, False])
def test_a_phone_number_that_the_answer_leaves_out_is_asked_for_once(
    is_shown: bool, requests_mock: Mocker, make_hook: MakeHook, store_url: str
) -> None:
    url = "http://127.0.0.1:9/api/v1/"
    row = {"service_id": 1012, "name": "WhatsApp", "price": 0.4}
    requests_mock.get(f"{url}services/temporary/", json=[row])
    requests_mock.get(f"{url}orders/", json=[])
    requests_mock.get(f"{url}balance/", json={"balance": 50})
    requests_mock.post(f"{url}order/temporary/", json={"order_id": "7", "status": "pending"})
    shown = {"order_id": 7, "status": "pending"} | ({"phone": "+1 415 555 0123"} if is_shown else {})
    status = requests_mock.get(f"{url}order/7/status/", json=shown)
    order = buy(make_hook("http://127.0.0.1:9", store_url))
    assert (order.order_id, order.phone) == (7, "+1 415 555 0123" if is_shown else None)
    assert order.key == "k"
    assert status.call_count == 1
