"""Refunds that never came are named, and are no money that can be spent."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from rigs import in_a_day
from rigs.money import Died
from rigs.purchases import buy_number
from rigs.rooms import rooms_of

from smsverify import errors
from smsverify._orders.releases import Releases
from smsverify._service.endpoints import ServiceApi
from smsverify.hook import SmsVerifyHook
from smsverify.models import Balance, OrderStatus
from smsverify.reports import Reconciliation
from smsverify.simulator import Fault, Simulator

pytestmark = pytest.mark.slow

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]


HASTY = 0.25  # seconds, the shortest grace of a service whose minute lasts a second


def buy_and_cancel(
    hook: SmsVerifyHook, simulator: Simulator, *, is_refunded: bool, service: str = "WhatsApp"
) -> int:
    """An order that the list shows as cancelled, and the wallet as refunded or not."""
    order_id = buy_number(hook, service=service)
    paid = simulator.balance()
    hook.cancel(order_id)
    hook.list_orders()
    if not is_refunded:
        simulator.set_balance(paid)
    return order_id


def await_finding(hook: SmsVerifyHook) -> Reconciliation:
    """The first report that has something to look at."""
    while not (report := hook.reconcile()).findings:
        time.sleep(0.02)
    return report


def test_a_refund_that_never_came_is_named_and_counts_as_spent_until_the_wallet_shows_it(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url, purchase_grace=HASTY)
    hook.reconcile()
    buy_and_cancel(hook, simulator, is_refunded=True)
    assert hook.reconcile().findings == []
    lost = buy_and_cancel(hook, simulator, is_refunded=False)
    await_finding(hook)
    for _ in range(2):
        report = hook.reconcile()
        assert [held.order_id for held in report.missing_refunds] == [lost]
        assert str(lost) in report.findings[0]
        assert (report.spent_today, report.refunded) == (Decimal("0.40"), Decimal("0.40"))
    with pytest.raises(errors.SpendingLimitError):
        buy_number(in_a_day(hook, "0.50"))
    simulator.set_balance(simulator.balance() + Decimal("0.40"))
    report = hook.reconcile()
    assert (report.findings, report.spent_today, report.refunded) == ([], Decimal(0), Decimal("0.80"))
    buy_number(in_a_day(hook, "0.50"))


@pytest.mark.parametrize("how", ["answered", "listed", "looked at"])
def test_a_refund_that_the_wallet_has_shown_before_its_cancellation_was_answered_is_not_missing(
    how: str, simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook(simulator, store_url, purchase_grace=HASTY)
    hook.reconcile()
    order_id = buy_number(hook)
    hook.get_balance()
    simulator.add_fault(Fault("lost_answer", "order/*/cancel/", times=None))
    simulator.add_fault(Fault("error_before", "order/*/status/", times=None))
    with pytest.raises(errors.ServiceError):
        hook.cancel(order_id)
    assert hook.get_balance().amount == 50
    simulator.clear_faults()
    if how != "looked at":
        body = json.dumps({"success": True, "data": {"order_id": order_id, "status": "cancelled"}})
        simulator.add_fault(Fault("error_before", "order/*/cancel/", status=200, body=body))
    releases = rooms_of(hook).orders.releases
    if how == "listed":  # while another process is about to cancel it
        releases.close(order_id)
        releases.request(order_id, "cancel was called", scope="any")
        hook.list_orders()
        rooms_of(hook).orders.cancelling._send_cancellation(order_id, "cancel was called")
    else:
        assert hook.cancel(order_id).cancelled
    hook.list_orders()
    hook.get_balance()
    time.sleep(HASTY + 0.1)
    report = hook.reconcile()
    assert (report.missing_refunds, report.spent_today) == ([], 0)


REFUSED = json.dumps({"success": False, "error": "Order cannot be cancelled"})


@pytest.mark.parametrize("how", ["cancel", "a wish", "a plan"])
def test_a_refund_that_never_came_is_missing_though_its_order_was_to_be_cancelled_before_a_reading(
    how: str, simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook(simulator, store_url, purchase_grace=HASTY)
    hook.reconcile()
    order_id = buy_number(hook)
    orders = rooms_of(hook).orders
    if how == "cancel":
        simulator.add_fault(Fault("error_before", "order/*/cancel/", status=400, body=REFUSED))
        with pytest.raises(errors.NotCancellableError):
            hook.cancel(order_id)
    else:
        orders.releases.request(order_id, "not needed", is_planned=how == "a plan")
    paid = hook.get_balance().amount
    if how == "cancel":
        hook.cancel(order_id)
    else:
        assert orders.cancelling.retry_releases() == [order_id]
    hook.list_orders()
    simulator.set_balance(paid)
    assert [held.order_id for held in await_finding(hook).missing_refunds] == [order_id]


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_refund_that_never_came_is_missing_though_a_list_has_shown_the_end_before_the_answer(
    is_closed: bool,
    simulator: Simulator,
    make_hook: MakeHook,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hook = make_hook(simulator, store_url, purchase_grace=HASTY)
    order_id = buy_number(hook)
    paid = hook.get_balance().amount
    cancel = ServiceApi.post_cancellation

    def cancel_slowly(self: ServiceApi, order_id: int, **options: Any) -> OrderStatus:
        answer = cancel(self, order_id, **options)
        hook.list_orders()
        if is_closed:
            rooms_of(hook).orders.cancelling.close_finished()
        return answer

    monkeypatch.setattr(ServiceApi, "post_cancellation", cancel_slowly)
    hook.cancel(order_id)
    simulator.set_balance(paid)
    assert [held.order_id for held in await_finding(hook).missing_refunds] == [order_id]


@pytest.mark.parametrize("how", ["cancel", "release", "killed", "killed and listed"])
def test_a_refund_that_never_came_is_missing_though_no_answer_has_said_that_its_order_is_cancelled(
    how: str, simulator: Simulator, make_hook: MakeHook, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise Died

    hook = make_hook(simulator, store_url, purchase_grace=HASTY)
    order_id = buy_number(hook)
    paid = hook.get_balance().amount
    if how.startswith("killed"):
        with monkeypatch.context() as patched:
            patched.setattr(Releases, "close", die)
            with pytest.raises(Died):
                hook.release(order_id, "not needed")
        if how.endswith("listed"):
            hook.list_orders()
    else:
        simulator.add_fault(Fault("lost_answer", "order/*/cancel/", times=None))
        hook.cancel(order_id) if how == "cancel" else hook.release(order_id, "not needed")
    simulator.set_balance(paid)
    assert [held.order_id for held in await_finding(hook).missing_refunds] == [order_id]


@pytest.mark.parametrize("how", ["cancel", "release", "refused"])
def test_a_refund_that_came_before_the_order_was_to_be_cancelled_is_not_missing(
    how: str, simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    """Somebody has cancelled it at the dashboard."""
    hook = make_hook(simulator, store_url, purchase_grace=HASTY)
    hook.reconcile()
    order_id = buy_number(hook)
    make_hook(simulator, store_url.replace("store.db", "other.db")).cancel(order_id)
    assert hook.get_balance().amount == 50
    if how == "refused":
        simulator.add_fault(Fault("error_before", "order/*/cancel/", status=400, body=REFUSED))
    if how == "cancel":
        rooms_of(hook).orders.releases.request(order_id, "not needed")
    hook.release(order_id, "not needed") if how == "release" else hook.cancel(order_id)
    for _ in range(2):
        assert hook.reconcile().missing_refunds == []
        time.sleep(HASTY + 0.1)


def test_a_refund_has_its_time_to_reach_the_wallet(
    simulator: Simulator, hook: SmsVerifyHook, make_hook: MakeHook, store_url: str
) -> None:
    lost = buy_and_cancel(hook, simulator, is_refunded=False)
    patient = make_hook(simulator, store_url, rate_period=60)
    report = patient.reconcile()
    assert (report.findings, report.spent_today) == ([], Decimal("0.40"))  # it is no money to spend yet
    hasty = make_hook(simulator, store_url, purchase_grace=HASTY)
    assert [held.order_id for held in await_finding(hasty).missing_refunds] == [lost]


def test_an_answer_that_comes_late_shows_no_refund(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    """It says what the wallet held before the number was bought."""
    hook = make_hook(simulator, store_url, purchase_grace=HASTY)
    hook.reconcile()
    lost = []

    def ask(before_sending: Callable[[], None], **_: Any) -> Balance:
        before_sending()
        before = Balance(amount=simulator.balance())
        lost.append(buy_and_cancel(hook, simulator, is_refunded=False))
        await_finding(hook)
        return before

    rooms_of(hook).wallet.read(ask)
    for _ in range(2):
        assert [held.order_id for held in hook.reconcile().missing_refunds] == lost


def test_an_answer_that_comes_late_hides_no_missing_refund(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook(simulator, store_url, purchase_grace=HASTY)
    lost = []

    def ask(before_sending: Callable[[], None], **_: Any) -> Balance:
        before_sending()
        before = hook.get_balance()
        lost.append(buy_and_cancel(hook, simulator, is_refunded=False))
        return before

    rooms_of(hook).wallet.read(ask)
    assert [held.order_id for held in await_finding(hook).missing_refunds] == lost


@pytest.mark.parametrize("is_in_it", [True, False])
def test_a_purchase_while_the_balance_is_read_makes_no_refund_seem_to_be_missing(
    is_in_it: bool, simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook(simulator, store_url, purchase_grace=HASTY)
    hook.reconcile()
    buy_and_cancel(hook, simulator, is_refunded=True)

    def ask(before_sending: Callable[[], None], **_: Any) -> Balance:
        before_sending()
        before = simulator.balance()
        buy_number(hook, key="meanwhile")
        return Balance(amount=simulator.balance() if is_in_it else before)

    rooms_of(hook).wallet.read(ask)
    hook.cancel(buy_number(hook, key="meanwhile"))
    for _ in range(2):
        assert hook.reconcile().missing_refunds == []
        time.sleep(HASTY + 0.1)


def test_a_purchase_while_the_reading_waits_for_its_turn_hides_no_missing_refund(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook(simulator, store_url, purchase_grace=HASTY)
    hook.reconcile()
    lost = buy_and_cancel(hook, simulator, is_refunded=False)

    def ask(before_sending: Callable[[], None], **_: Any) -> Balance:
        buy_number(hook)
        before_sending()
        return Balance(amount=simulator.balance())

    rooms_of(hook).wallet.read(ask)
    assert [held.order_id for held in await_finding(hook).missing_refunds] == [lost]


def test_a_purchase_that_the_balance_does_not_hold_yet_puts_no_other_refund_in_doubt(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook(simulator, store_url, purchase_grace=HASTY)
    hook.reconcile()
    buy_and_cancel(hook, simulator, is_refunded=True, service="Telegram")
    lost = buy_and_cancel(hook, simulator, is_refunded=False, service="Tinder")

    def ask(before_sending: Callable[[], None], **_: Any) -> Balance:
        before_sending()
        before = simulator.balance()
        buy_number(hook)
        return Balance(amount=before)

    rooms_of(hook).wallet.read(ask)
    assert [held.order_id for held in await_finding(hook).missing_refunds] == [lost]


def test_a_person_says_that_a_refund_has_come_which_the_wallet_cannot_show(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    """Because it came together with a deposit."""
    simulator = simulate()
    hook = make_hook(simulator, any_store_url, purchase_grace=HASTY)
    lost = buy_and_cancel(hook, simulator, is_refunded=False)
    assert f"`smsverify resolve --refunded {lost}`" in await_finding(hook).findings[0]
    simulator.set_balance(simulator.balance() + Decimal("25.40"))
    assert [held.order_id for held in hook.reconcile().missing_refunds] == [lost]
    hook.resolve_refund(lost)
    for _ in range(2):
        report = hook.reconcile()
        assert (report.findings, report.spent_today, report.refunded) == ([], Decimal(0), Decimal("0.40"))
    with pytest.raises(errors.InvalidRequestError, match="no refund of order"):
        hook.resolve_refund(lost)


def test_only_as_many_refunds_are_missing_as_the_wallet_lacks(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook(simulator, store_url, purchase_grace=HASTY)
    hook.reconcile()
    hook.order("rental", service="WhatsApp", duration=3)
    for is_refunded in (True, False, True):
        buy_and_cancel(hook, simulator, is_refunded=is_refunded)
    assert len(await_finding(hook).missing_refunds) == 1


def test_a_refund_that_came_in_part_frees_no_budget(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url, purchase_grace=HASTY, daily_budget="0.50")
    order_id = buy_and_cancel(hook, simulator, is_refunded=False)
    simulator.set_balance(simulator.balance() + Decimal("0.10"))
    assert [held.order_id for held in await_finding(hook).missing_refunds] == [order_id]
    with pytest.raises(errors.SpendingLimitError):
        buy_number(hook)


def test_what_else_the_wallet_does_is_no_missing_refund(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    """A deposit, a withdrawal of another amount, and what others buy."""
    hook = make_hook(simulator, store_url, purchase_grace=HASTY)
    for change in ("25", "-3.15"):
        buy_and_cancel(hook, simulator, is_refunded=True)
        simulator.set_balance(simulator.balance() + Decimal(change))
        assert hook.reconcile().missing_refunds == []
    elsewhere = make_hook(simulator, store_url.replace("store.db", "other.db"))
    buy_number(elsewhere)
    buy_and_cancel(hook, simulator, is_refunded=True)
    assert hook.reconcile().missing_refunds == []


def test_a_refund_that_never_came_frees_no_budget(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url, daily_budget="0.50")
    buy_and_cancel(hook, simulator, is_refunded=False)
    hook.get_balance()
    with pytest.raises(errors.SpendingLimitError):
        buy_number(hook)
    assert simulator.balance() == Decimal("49.60")


@pytest.mark.parametrize("comes_back", ["0.40", "0", "25"])
def test_what_a_failed_order_has_cost_is_spent_until_the_wallet_shows_that_it_came_back(
    comes_back: str, simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    """The list does not say whether it was refunded. Another amount, such as a deposit, proves nothing."""
    simulator = simulate(products={"temporary": {"start_status": "failed"}})
    hook = make_hook(simulator, any_store_url, daily_budget="0.50")
    with pytest.raises(errors.OrderEndedError):
        buy_number(hook)
    simulator.set_balance(simulator.balance() + Decimal(comes_back))
    report = hook.reconcile()
    if comes_back != "0.40":
        assert (report.spent_today, report.refunded) == (Decimal("0.40"), Decimal(0))
        return
    assert (report.spent_today, report.refunded, report.findings) == (Decimal(0), Decimal("0.40"), [])
    with pytest.raises(errors.OrderEndedError):
        buy_number(hook)


def test_a_wallet_that_other_refunds_explain_does_not_show_that_a_failed_order_was_refunded(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(products={"temporary": {"start_status": "failed"}})
    hook = make_hook(simulator, store_url)
    with pytest.raises(errors.OrderEndedError):
        buy_number(hook)
    simulator.configure(products={"temporary": {"start_status": "pending"}})
    hook.cancel(buy_number(hook))
    assert hook.reconcile().spent_today == Decimal("0.40")
