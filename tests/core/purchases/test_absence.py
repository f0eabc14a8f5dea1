"""What proves no absence: while a purchase may have been made, it is not made again."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from rigs.clocks import later
from rigs.purchases import buy, lose, unknown

from smsverify import errors
from smsverify._orders.status import StatusReader
from smsverify._store.store import Store
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Fault, Simulator
from smsverify.simulator.phones import Phones

pytestmark = pytest.mark.slow

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]


def test_the_wallet_keeps_a_first_purchase_unknown_though_no_list_could_be_read(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.add_fault(Fault("error_before", path="orders/", times=None))
    lose(simulator)
    lose(simulator, "list_lag", seconds=600)
    unknown(hook)
    simulator.clear_faults()
    later(monkeypatch, 130)
    unknown(hook)
    assert len(simulator.orders()) == 1


@pytest.mark.parametrize(
    "row",
    [
        '{"order_id": null}',
        '{"order_id": "x"}',
        "null",
        '{"order_id": 9, "order_id": 10}',
        '{"order_id": 1, "service": "Telegram"}, {"order_id": 1, "service": "Gmail"}',
    ],
)
def test_a_row_that_cannot_be_read_may_be_the_purchase(
    row: str, simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(simulator)
    simulator.add_fault(Fault("error_before", path="orders/", times=None))
    unknown(hook)
    simulator.clear_faults()
    other = '{"order_id": 3, "service": "Telegram", "created_at": "2020-01-01T00:00:00Z"}'
    shown = Fault("error_before", path="orders/", status=200, body=f"[{row}, {other}]", times=None)
    simulator.add_fault(shown)
    later(monkeypatch, 130)
    unknown(hook)
    simulator.clear_faults()
    assert buy(hook).order_id == simulator.orders()[0].order_id
    assert len(simulator.orders()) == 1


@pytest.mark.parametrize("reaches_back", [False, True])
def test_the_purchase_may_stand_on_another_page_of_the_list(
    reaches_back: bool, simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    """Unless this one shows an order that was known before it."""
    simulator = simulate()
    hook = make_hook(simulator, store_url, purchase_grace=0.3)
    known = [buy(hook, "before").order_id] if reaches_back else []
    hook.reconcile()
    simulator.add_fault(Fault("error_before", path="order/temporary/", status=503))
    simulator.add_fault(Fault("error_before", path="orders/", times=None))
    unknown(hook)
    simulator.clear_faults()
    ids = [*range(7000, 7019), *known]
    other = {"service": "Telegram", "price": 1.7, "phone": "+44 20 7946 0017"}
    rows = [{"order_id": order_id, **other} for order_id in reversed(ids)]
    page = json.dumps({"count": 21, "next": "http://x/?page=2", "results": rows})
    simulator.add_fault(Fault("error_before", path="orders/", status=200, body=page, times=None))
    time.sleep(0.5)
    if not reaches_back:
        unknown(hook)
        return
    buy(hook)
    assert len(simulator.orders()) == 2


def test_a_list_that_cannot_be_read_decides_nothing(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(simulator)
    simulator.add_fault(Fault("error_before", path="orders/", times=None))
    unknown(hook)
    later(monkeypatch, 130)
    with pytest.raises(errors.SmsVerifyError):
        buy(hook)
    assert len(simulator.orders()) == 1
    simulator.clear_faults()
    assert buy(hook).order_id == simulator.orders()[0].order_id


@pytest.mark.parametrize("step", [-300.0, -5.0, 5.0])
def test_a_clock_that_is_set_while_an_answer_is_lost_decides_nothing(
    step: float, simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(simulator)
    right = Store.now

    def stepped(self: Store, connection: Any) -> float:
        return right(self, connection) + (step if simulator.orders() else 0.0)

    monkeypatch.setattr(Store, "now", stepped)
    for seconds in (0, 130, 600):
        later(monkeypatch, seconds)
        with contextlib.suppress(errors.PurchaseUnknownError):
            buy(hook)
        assert len(simulator.orders()) == 1


def test_a_number_of_another_area_is_reported_and_not_bought_again(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Phones, "usa", lambda *_: "+1 415 555 0100")
    lose(simulator)
    assert unknown(hook, area_code="212").order_ids == (simulator.orders()[0].order_id,)
    later(monkeypatch, 130)
    assert unknown(hook, area_code="212").order_ids == (simulator.orders()[0].order_id,)
    assert len(simulator.orders()) == 1


@pytest.mark.parametrize(
    "row",
    [
        {"service": "WA", "sell_price": 0.4},
        {"service": "WA", "sell_price": 0.5, "phone": "+1 415 555 0100"},
        {"service": "WhatsApp Messenger"},
        {"service": "WhatsApp", "created_at": "2001-01-01T00:00:00Z"},
        {},
    ],
    ids=str,
)
def test_an_order_that_the_list_spells_in_its_own_way_is_not_bought_again(
    row: dict[str, Any], simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    buy(hook, "before")
    lose(simulator)
    simulator.add_fault(Fault("error_before", path="orders/", times=None))
    unknown(hook)
    simulator.clear_faults()
    bought = simulator.orders()[-1].order_id
    body = json.dumps([{"order_id": bought, **row}])
    simulator.add_fault(Fault("error_before", path="orders/", status=200, body=body, times=None))
    later(monkeypatch, 130)
    assert unknown(hook).order_ids == (bought,)
    assert len(simulator.orders()) == 2


def test_while_the_wallet_is_short_nothing_is_bought_again_however_late_the_list_is(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate(list_lag=7200)
    hook = make_hook(simulator, any_store_url)
    lose(simulator)
    unknown(hook)
    later(monkeypatch, 130)
    before = simulator.stats().by_endpoint["GET balance/"]
    assert "the wallet holds less" in str(unknown(hook))
    assert simulator.stats().by_endpoint["GET balance/"] == before + 1
    assert len(simulator.orders()) == 1


@pytest.fixture
def refunded(simulate: Simulate, make_hook: MakeHook, any_store_url: str) -> tuple[Simulator, SmsVerifyHook]:
    """An account that has got 0.40 USD back, which nobody knows, since the wallet was read last."""
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    ended = buy(hook, "before").order_id
    hook.get_balance()
    simulator.set_time_left(ended, 0)
    return simulator, hook


def test_a_refund_of_the_same_amount_hides_no_payment(
    refunded: tuple[Simulator, SmsVerifyHook], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wallet holds as much if the refund came before the last reading and nothing was paid."""
    simulator, hook = refunded
    lose(simulator)
    lose(simulator, "list_lag", seconds=7200)
    unknown(hook)
    later(monkeypatch, 130)
    for _ in range(2):
        assert "does not show whether it was paid" in str(unknown(hook))
    assert len(simulator.orders()) == 2


def test_a_refund_keeps_nothing_unknown_that_was_not_paid(
    refunded: tuple[Simulator, SmsVerifyHook], monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator, hook = refunded
    lose(simulator, "error_before")
    unknown(hook)
    later(monkeypatch, 130)
    assert buy(hook).order_id == simulator.orders()[-1].order_id
    assert len(simulator.orders()) == 2


def test_what_is_as_small_as_the_rounding_is_not_bought_again_either(
    simulate: Simulate, make_hook: MakeHook, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    penny = {"temporary": [{"service_id": 7, "name": "Penny", "price": 0.01}]}
    simulator = simulate(list_lag=7200, catalogue=penny)
    hook = make_hook(simulator, store_url)
    lose(simulator)
    unknown(hook, service="Penny")
    later(monkeypatch, 130)
    assert "the wallet holds less" in str(unknown(hook, service="Penny"))
    assert len(simulator.orders()) == 1


@pytest.mark.parametrize("body", ["[]", None], ids=["empty", "late"])
def test_a_list_without_the_order_before_is_too_late_to_prove_anything(
    body: str | None, simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [buy(hook, key) for key in ("one", "two")]
    lose(simulator)
    row = {"order_id": before[0].order_id, "service": "WhatsApp", "status": "pending"}
    late = Fault("error_before", path="orders/", status=200, body=body or json.dumps([row]), times=None)
    simulator.add_fault(late)
    unknown(hook)
    simulator.set_balance("50")  # the wallet decides nothing
    later(monkeypatch, 130)
    unknown(hook)
    assert len(simulator.orders()) == 3
    simulator.clear_faults()
    assert buy(hook).order_id == simulator.orders()[-1].order_id


def test_a_list_that_was_asked_for_early_proves_nothing_later(
    simulate: Simulate, make_hook: MakeHook, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process is stopped between its reading of the list and what it makes of that."""
    simulator = simulate(list_lag=7200)
    hook = make_hook(simulator, store_url)
    lose(simulator)
    unknown(hook)
    simulator.set_balance("50")  # the wallet decides nothing
    read = StatusReader.read_list

    def stopped(self: StatusReader, **options: Any) -> Any:
        listing = read(self, **options)
        later(monkeypatch, 1000)
        return listing

    with monkeypatch.context() as patch:
        patch.setattr(StatusReader, "read_list", stopped)
        unknown(hook)
    assert len(simulator.orders()) == 1


def test_what_the_account_had_before_its_first_purchase_is_read_once(
    simulator: Simulator, hook: SmsVerifyHook, make_hook: MakeHook, store_url: str
) -> None:
    for key in ("one", "two"):
        buy(hook, key)
    buy(make_hook(simulator, store_url), "three")
    counts = simulator.stats().by_endpoint
    assert (counts["GET orders/"], counts["GET balance/"]) == (1, 1)
