"""A reconciliation resolves what is open, gives back what nobody needs, and names the rest."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from rigs import eventually, in_a_day, let_go_of_all_numbers
from rigs.rooms import going_back, rooms_of

from smsverify import errors
from smsverify._messages.filters import MessageFilter
from smsverify._orders import holding
from smsverify._orders.handover import Handover
from smsverify._purchases.reconciling import AT_ONCE
from smsverify._purchases.renewal_records import RenewalRecords
from smsverify._purchases.renewing import Renewals
from smsverify._purchases.run_context import RunContext
from smsverify._store.store import Store
from smsverify.hook import SmsVerifyHook
from smsverify.reports import Reconciliation
from smsverify.simulator import Fault, Simulator
from smsverify.wings import plan_release

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]


def buy(hook: SmsVerifyHook, **given: Any) -> int:
    return hook.order("temporary", service="WhatsApp", **given).order_id


def lose(simulator: Simulator, hook: SmsVerifyHook, key: str, kind: str = "lost_answer") -> None:
    """A purchase whose answer is lost, while the list cannot be read either."""
    simulator.add_fault(Fault(kind, path="order/temporary/"))
    simulator.add_fault(Fault("error_before", path="orders/", times=None))
    with pytest.raises(errors.PurchaseUnknownError):
        buy(hook, key=key)
    simulator.clear_faults()


def test_where_all_is_well_there_is_nothing_to_look_at(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    used, cancelled = buy(hook), buy(hook)
    simulator.deliver_sms(used, otp="123456")
    hook.wait_for_otp(used, 30)
    hook.cancel(cancelled)
    hook.order("rental", service="WhatsApp", duration=3)
    report = hook.reconcile(cancel_after=0)
    assert report.findings == []
    assert report.balance == simulator.balance() == Decimal("45.60")
    assert (report.spent, report.spent_today, report.refunded) == (
        Decimal("4.40"),
        Decimal("4.40"),
        Decimal("0.40"),
    )
    assert "all is accounted for" in report.as_text()
    assert json.loads(json.dumps(report.as_dict()))["findings"] == []


def test_a_silence_that_the_service_has_asked_for_is_in_the_report(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook(simulator, store_url, call_timeout=3.0)
    assert hook.reconcile().blocked_until is None
    simulator.add_fault(Fault("rate_limited", path="balance/", retry_after=99_999_999))
    report = hook.reconcile()
    until = hook.rate_limit().blocked_until
    assert until is not None
    assert report.blocked_until is not None
    assert abs((report.blocked_until - until).total_seconds()) < 1
    assert f"nothing is sent before {until:%Y-%m-%d %H:%M:%S} UTC" in report.as_text()
    assert str(until.year) in report.as_dict()["blocked_until"]


def test_a_purchase_whose_answer_was_lost_is_found(simulator: Simulator, hook: SmsVerifyHook) -> None:
    lose(simulator, hook, "k")
    (resolved,) = hook.reconcile().resolved
    assert (resolved.key, resolved.outcome) == ("k", "bought")
    assert resolved.order_id == simulator.orders()[0].order_id == buy(hook, key="k")


def test_a_purchase_that_was_not_made_is_resolved_when_its_grace_is_over(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(simulator, hook, "k", "reset")
    (unknown,) = hook.reconcile().unknown
    assert (unknown.key, unknown.kind, unknown.overdue) == ("k", "order", False)
    assert hook.reconcile().findings == []
    right = Store.now
    monkeypatch.setattr(Store, "now", lambda self, connection: right(self, connection) + 130)
    (resolved,) = hook.reconcile().resolved
    assert (resolved.outcome, resolved.order_id) == ("not made", None)


def test_what_a_person_has_to_decide_is_named_and_can_be_decided(
    simulate: Simulate, make_hook: MakeHook, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, store_url, exclusive_account=False)
    lose(simulator, hook, "k")
    report = hook.reconcile()
    order_id = simulator.orders()[0].order_id
    assert [unknown.order_ids for unknown in report.unknown] == [(order_id,)]
    assert len(report.findings) == 1
    assert "smsverify resolve" in report.findings[0]
    assert f"k may have bought one of the orders {order_id}: decide" in caplog.text
    with pytest.raises(errors.PurchaseAmbiguousError) as caught:
        buy(hook, key="k")
    assert caught.value.order_ids == (order_id,)
    hook.resolve("k", order_id=order_id)
    assert buy(hook, key="k") == order_id
    assert hook.reconcile().unknown == []


def test_what_a_person_decides_must_be_possible(simulator: Simulator, hook: SmsVerifyHook) -> None:
    owned = buy(hook)
    lose(simulator, hook, "k", "reset")
    for key, order_id, field in (("k", owned, "order_id"), ("k", 999, "order_id"), ("other", None, "key")):
        with pytest.raises(errors.InvalidRequestError) as caught:
            hook.resolve(key, order_id=order_id)
        assert caught.value.field == field
    hook.resolve("k", order_id=None)
    assert buy(hook, key="k") != owned


def test_a_list_that_cannot_be_read_is_said_to_be_so(simulator: Simulator, hook: SmsVerifyHook) -> None:
    lose(simulator, hook, "k")
    simulator.add_fault(Fault("error_before", path="orders/", times=None))
    with pytest.raises(errors.PurchaseUnverifiableError, match="cannot be read") as caught:
        buy(hook, key="k")
    assert caught.value.key == "k"
    with pytest.raises(errors.ServiceUnavailableError):
        hook.reconcile()
    assert len(simulator.orders()) == 1


def test_a_number_that_nobody_waits_for_is_reported_and_given_back_where_that_is_wanted(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    order_id = buy(hook)
    assert hook.reconcile().leaks == []  # somebody may be about to wait
    assert hook.reconcile(cancel_after=1000).leaks == []
    report = hook.reconcile(cancel_after=0)
    assert report.cancelled == [order_id]
    assert report.findings == []
    assert report.refunded == Decimal("0.40")
    assert simulator.balance() == 50


def test_a_number_that_somebody_waits_for_is_left_alone(
    simulator: Simulator, hook: SmsVerifyHook, make_hook: MakeHook, store_url: str
) -> None:
    order_id = buy(hook)
    wait = rooms_of(hook).waiter.add(order_id, 30.0, wanted=MessageFilter())
    assert make_hook(simulator, store_url).reconcile(cancel_after=0).cancelled == []
    assert simulator.order(order_id).status == "pending"
    wait.future.cancel()


def test_a_code_that_nobody_has_taken_is_a_leak(simulator: Simulator, hook: SmsVerifyHook) -> None:
    order_id = buy(hook)
    simulator.deliver_sms(order_id, otp="123456")
    report = hook.reconcile(cancel_after=0)
    assert [(leak.order_id, leak.status) for leak in report.leaks] == [(order_id, "completed")]
    assert "never used" in report.findings[0]
    assert "123456" not in report.as_text() + str(report.as_dict())
    hook.check_otp(order_id)
    assert hook.reconcile(cancel_after=0).findings == []


def test_a_number_that_was_not_bought_here_is_named(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate()
    stranger = buy(make_hook(simulator, store_url.replace("store.db", "other.db")))
    (foreign,) = make_hook(simulator, store_url).reconcile(cancel_after=0).foreign
    assert (foreign.order_id, foreign.key) == (stranger, None)
    shared = make_hook(simulator, store_url, exclusive_account=False).reconcile()
    assert ([order.order_id for order in shared.foreign], shared.findings) == ([stranger], [])
    assert simulator.order(stranger).status == "pending"


def test_a_cancellation_that_was_refused_is_tried_again_and_named_until_it_is_made(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = hook.order("rental", service="WhatsApp", duration=3).order_id
    with pytest.raises(errors.NotCancellableError):
        hook.cancel(order_id)
    report = hook.reconcile()
    assert [order.order_id for order in report.to_cancel] == [order_id]
    assert "to be cancelled" in report.findings[0]
    simulator.configure(cancel_active="refund")
    assert hook.reconcile().cancelled == [order_id]
    assert hook.reconcile().findings == []
    assert simulator.balance() == 50


def test_a_renewal_whose_answer_was_lost_is_found_or_named(simulator: Simulator, hook: SmsVerifyHook) -> None:
    by_day = hook.order("rent-1day", service="Tinder").order_id
    by_name = hook.order("rental", service="WhatsApp", duration=3).order_id
    for order_id in (by_day, by_name):
        simulator.add_fault(Fault("lost_answer", path=f"order/{order_id}/renew/"))
        simulator.add_fault(Fault("error_before", path=f"order/{order_id}/status/", after=1, times=None))
        with pytest.raises(errors.PurchaseUnknownError):
            hook.renew(order_id)
    simulator.clear_faults()
    report = hook.reconcile()
    assert [(one.kind, one.order_id, one.outcome) for one in report.resolved] == [
        ("renewal", by_day, "bought")
    ]
    assert [(one.kind, one.order_ids) for one in report.unknown] == [("renewal", (by_name,))]
    hook.resolve(report.unknown[0].key, order_id=by_name)
    assert hook.reconcile().unknown == []
    assert [simulator.order(order_id).renewals for order_id in (by_day, by_name)] == [1, 1]


def test_it_costs_a_handful_of_requests_however_much_was_bought(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(rate_limit=None, sms_delay=0)
    hook = make_hook(simulator, store_url, rate_limit=1000)
    for _ in range(30):
        order_id = buy(hook)
        assert hook.check_otp(order_id) is not None
    before = simulator.stats().requests
    assert hook.reconcile(cancel_after=0).findings == []
    assert simulator.stats().requests - before == 2  # the list and the balance


# ------------------------------------------------------------------ the next to run


def test_a_cancellation_that_was_cut_off_is_made_by_the_next_order(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    order_id = buy(hook)
    simulator.add_fault(Fault("error_before", path="order/**", times=None))
    assert not hook.release(order_id, "not needed")
    simulator.clear_faults()
    later = make_hook(simulator, any_store_url)
    while simulator.order(order_id).status == "pending":
        buy(later)
    assert simulator.order(order_id).refunded == Decimal("0.40")


def test_a_cancellation_that_was_cut_off_is_made_by_the_next_wait(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    given_up, awaited = buy(hook), buy(hook)
    simulator.add_fault(Fault("error_before", path=f"order/{given_up}/**", times=4))
    hook.release(given_up, "not needed")
    with pytest.raises(errors.WaitTimeoutError):
        hook.wait_for_otp(awaited, 3)
    assert simulator.order(given_up).status == "cancelled"


def test_only_one_of_many_tries_again(simulate: Simulate, make_hook: MakeHook, any_store_url: str) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    order_id = buy(hook)
    assert plan_release(hook, order_id, "not needed", patience=0)
    several = [rooms_of(hook).orders.releases for _ in range(4)]
    taken = [len(releases.take_due(60, 3600, limit=3)) for releases in several]
    assert taken == [1, 0, 0, 0]


def test_an_undone_purchase_of_a_rental_is_cancelled_or_stays_on_record(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    rental = hook.order("rental", service="WhatsApp", duration=3).order_id
    assert not hook.release(rental, "not needed")
    assert going_back(hook) == []  # in use: nothing is to be given back
    assert not hook.release(rental, "undone", undo=True)
    assert going_back(hook) == [rental]
    simulator.configure(cancel_active="refund")
    assert hook.release(rental, "undone", undo=True)
    assert simulator.balance() == 50
    used = hook.order("rental", service="WhatsApp", duration=3).order_id
    simulator.deliver_sms(used, otp="123456")
    assert not hook.release(used, "undone", undo=True)
    assert going_back(hook) == []


# ------------------------------------------------------------------ who has what was bought


KEPT: list[dict[str, Any]] = [
    {"product": "rent-1day", "service": "Tinder"},
    {"product": "rent-30days", "service": "Instagram"},
    {"product": "rental", "service": "WhatsApp", "duration": 3},
    {"product": "esim", "plan": "USA 1GB / 7 days"},
]


class Killed(BaseException):
    """The process ends here."""


def buy_and_die(hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch, **wanted: Any) -> None:
    """A purchase whose process is killed after its record, and before anybody has it."""

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(RunContext, "hand_over", die)
        with pytest.raises(Killed):
            hook.order(**wanted)


def hours_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = Store.now
    monkeypatch.setattr(Store, "now", lambda self, connection: now(self, connection) + 2 * 3600)


@pytest.mark.parametrize("wanted", KEPT, ids=lambda wanted: wanted["product"])
def test_what_was_bought_to_be_kept_and_handed_to_nobody_is_named_until_somebody_has_it(
    wanted: dict[str, Any], simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    buy_and_die(hook, monkeypatch, **wanted, key="k")
    assert hook.reconcile().leaks == []  # it may be handed over yet
    hours_later(monkeypatch)
    for _ in range(2):
        (leak,) = hook.reconcile().leaks
        assert (leak.order_id, leak.key) == (simulator.orders()[0].order_id, "k")
        assert f"smsverify status {leak.order_id}" in leak.reason
    if wanted["product"] == "rent-30days":
        hook.get_order(leak.order_id)
    else:
        assert hook.order(**wanted, key="k").order_id == leak.order_id
    hours_later(monkeypatch)
    assert hook.reconcile(cancel_after=0).findings == []
    assert len(simulator.orders()) == 1


@pytest.mark.parametrize("wanted", KEPT, ids=lambda wanted: wanted["product"])
def test_what_was_handed_to_nobody_is_given_back_where_that_is_wanted_and_can_be(
    wanted: dict[str, Any],
    simulate: Simulate,
    make_hook: MakeHook,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulator = simulate(cancel_active="refund")
    hook = make_hook(simulator, store_url)
    buy_and_die(hook, monkeypatch, **wanted)
    hook.order(**wanted)  # somebody has this one
    lost, had = simulator.orders()
    assert hook.reconcile(cancel_after=0).cancelled == []
    hours_later(monkeypatch)
    report = hook.reconcile(cancel_after=0)
    is_esim = wanted["product"] == "esim"
    assert report.cancelled == ([] if is_esim else [lost.order_id])
    assert [leak.order_id for leak in report.leaks] == ([lost.order_id] if is_esim else [])
    assert simulator.order(had.order_id).status == had.status


def test_a_block_that_was_killed_has_its_number_no_more(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as its process lives, the number is in use, however long that is."""
    monkeypatch.setattr(holding, "FORGOTTEN", 6.0)
    with hook.rented_number(**KEPT[0]) as number:
        unclaimed_for = rooms_of(hook).orders.handover.unclaimed_for
        ages = [unclaimed_for(number.order_id)]

        def is_younger() -> bool:
            ages.append(unclaimed_for(number.order_id))
            return ages[-1] < ages[-2]

        eventually(is_younger, "a sign of life")
        assert hook.reconcile(cancel_after=0).findings == []
        let_go_of_all_numbers()
        with monkeypatch.context() as patched:
            hours_later(patched)
            assert [leak.order_id for leak in hook.reconcile().leaks] == [number.order_id]
    assert simulator.order(number.order_id).status == "cancelled"


def test_a_store_that_fails_at_the_end_takes_nobodys_purchase_away(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise errors.StoreError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Handover, "take", fail)
        patched.setattr(RenewalRecords, "claim_all", fail)
        order_id = hook.order(**KEPT[1]).order_id
    with monkeypatch.context() as patched:
        patched.setattr(RenewalRecords, "claim_all", fail)
        assert hook.renew(order_id).order_id == order_id
        (kept,) = hook.renew_expiring(10**7).rentals
        assert kept.outcome == "not_due"
        day = hook.order(**KEPT[0]).order_id
        assert {kept.order_id: kept.outcome for kept in hook.renew_expiring(10**7).rentals} == {
            order_id: "not_due",
            day: "renewed",
        }


def test_a_renewal_whose_answer_never_arrived_is_not_paid_again(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process was killed after its record; the program is run again."""
    order_id = hook.order(**KEPT[1]).order_id

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Renewals, "_with_shown_end", die)
        with pytest.raises(Killed):
            hook.renew(order_id)
    hook.renew(order_id)
    assert simulator.order(order_id).renewals == 1
    hook.renew(order_id)
    assert simulator.order(order_id).renewals == 2


# ------------------------------------------------------------------ everybody's turn


def test_what_has_ended_takes_no_place_of_what_can_be_given_back(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(
        rate_limit=None, products={"temporary": {"end_status": "expired", "end_refund": False}}
    )
    hook = make_hook(simulator, store_url, rate_limit=1000)
    expired = [buy(hook) for _ in range(AT_ONCE)]
    pending = buy(hook)
    for order_id in expired:
        simulator.set_time_left(order_id, 0)
    hook.list_orders()
    before = simulator.stats().by_endpoint.get("GET order/{id}/status/", 0)
    assert hook.reconcile(cancel_after=0).cancelled == [pending]
    assert simulator.stats().by_endpoint["GET order/{id}/status/"] <= before + 2


def test_cancellations_that_are_refused_take_turns_with_the_others(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    """Also with one that was tried more often before, and so has a longer pause."""
    simulator = simulate(rate_limit=None, products={"temporary": {"validity": 10**6}})
    hook = make_hook(simulator, store_url, rate_limit=1000)
    orders = [buy(hook) for _ in range(AT_ONCE + 1)]
    simulator.add_fault(
        Fault("out_of_stock", "order/*/cancel/", status=400, body='{"error": "not now"}', times=None)
    )
    last = orders[-1]
    hook.release(last, "tried early")
    for _ in range(6):
        rooms_of(hook).orders.cancelling.retry_releases(limit=1, even_early=True)
    for order_id in orders[:-1]:
        hook.release(order_id, "tried later")
    simulator.clear_faults()
    for order_id in orders[:-1]:
        simulator.add_fault(
            Fault("out_of_stock", f"order/{order_id}/cancel/", status=400, body='{"error": "no"}', times=None)
        )
    cancelled = [order_id for _ in range(2) for order_id in hook.reconcile().cancelled]
    assert cancelled == [last]


# ------------------------------------------------------------------ refunds that never come

HASTY = 0.25  # seconds, the shortest grace of a service whose minute lasts a second


def buy_and_cancel(hook: SmsVerifyHook, simulator: Simulator, *, is_refunded: bool) -> int:
    """An order that the list shows as cancelled, and the wallet as refunded or not."""
    order_id = buy(hook)
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
        buy(in_a_day(hook, "0.50"))
    simulator.set_balance(simulator.balance() + Decimal("0.40"))
    report = hook.reconcile()
    assert (report.findings, report.spent_today, report.refunded) == ([], Decimal(0), Decimal("0.80"))
    buy(in_a_day(hook, "0.50"))


def test_a_refund_has_its_time_to_reach_the_wallet(
    simulator: Simulator, hook: SmsVerifyHook, make_hook: MakeHook, store_url: str
) -> None:
    lost = buy_and_cancel(hook, simulator, is_refunded=False)
    patient = make_hook(simulator, store_url, rate_period=60)
    report = patient.reconcile()
    assert (report.findings, report.spent_today) == ([], Decimal("0.40"))  # it is no money to spend yet
    hasty = make_hook(simulator, store_url, purchase_grace=HASTY)
    assert [held.order_id for held in await_finding(hasty).missing_refunds] == [lost]


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
        buy(hook)


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
    buy(elsewhere)
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
        buy(hook)
    assert simulator.balance() == Decimal("49.60")
