"""A reconciliation resolves what is open, gives back what nobody needs, and names the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timezone
from decimal import Decimal

import pytest
from rigs.clocks import later
from rigs.purchases import buy_number, leave_unknown
from rigs.rooms import going_back, rooms_of

from smsverify import errors
from smsverify._messages.filters import MessageFilter
from smsverify._purchases.reconciling import AT_ONCE
from smsverify.hook import SmsVerifyHook
from smsverify.reports import UnknownCall
from smsverify.simulator import Fault, Simulator
from smsverify.wings import plan_release

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]


def test_an_unknown_purchase_may_be_one_of_thousands_of_orders(
    simulator: Simulator, make_hook: MakeHook, any_store_url: str
) -> None:
    """As a list that repeats or grows may show; SQLite nests 1,000 conditions at the most."""
    rooms = rooms_of(make_hook(simulator, any_store_url))
    findings, store = rooms.findings, rooms.store
    call = UnknownCall(
        namespace="",
        key="k",
        kind="order",
        sent_at=datetime.now(timezone.utc),
        price=None,
        order_ids=tuple(range(1, 3001)),
        overdue=True,
    )
    with store.read() as connection:
        now = store.now(connection)
        assert findings.held(connection, now, "bought_elsewhere", unknown=[call]) == ([], 0)
        assert findings.held(connection, now, "bought_elsewhere", unknown=[]) == ([], 0)


def test_where_all_is_well_there_is_nothing_to_look_at(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    used, cancelled = buy_number(hook), buy_number(hook)
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
    assert "findings: none" in report.as_text()
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
    leave_unknown(simulator, hook, "k")
    (resolved,) = hook.reconcile().resolved
    assert (resolved.key, resolved.outcome) == ("k", "bought")
    assert resolved.order_id == simulator.orders()[0].order_id == buy_number(hook, key="k")


def test_a_purchase_that_was_not_made_is_resolved_when_its_grace_is_over(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_unknown(simulator, hook, "k", "reset")
    (unknown,) = hook.reconcile().unknown
    assert (unknown.key, unknown.kind, unknown.overdue) == ("k", "order", False)
    assert hook.reconcile().findings == []
    later(monkeypatch, 130)
    (resolved,) = hook.reconcile().resolved
    assert (resolved.outcome, resolved.order_id) == ("not made", None)


def test_what_a_person_has_to_decide_is_named_and_can_be_decided(
    simulate: Simulate, make_hook: MakeHook, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, store_url, exclusive_account=False)
    leave_unknown(simulator, hook, "k")
    report = hook.reconcile()
    order_id = simulator.orders()[0].order_id
    assert [unknown.order_ids for unknown in report.unknown] == [(order_id,)]
    assert len(report.findings) == 1
    what_next = (
        f"it may have bought order {order_id}. Look at the dashboard, then run "
        f"`smsverify resolve k --order {order_id}`, or `smsverify resolve k --not-made`"
    )
    assert report.findings[0].endswith(what_next)
    assert what_next in caplog.text
    with pytest.raises(errors.PurchaseAmbiguousError, match=re.escape(what_next)) as caught:
        buy_number(hook, key="k")
    assert caught.value.order_ids == (order_id,)
    hook.resolve("k", order_id=order_id)
    assert buy_number(hook, key="k") == order_id
    assert hook.reconcile().unknown == []


@pytest.mark.parametrize(
    ("kind", "order_ids", "overdue", "end"),
    [
        ("order", (), False, "It is not sent again. The next reconciliation looks again"),
        (
            "order",
            (),
            True,
            "It is not sent again. Look at the dashboard, then run `smsverify resolve 'a key' --order "
            "ORDER_ID`, or `smsverify resolve 'a key' --not-made`",
        ),
        (
            "order",
            (4, 5),
            True,
            "It is not sent again, but it may have bought order 4 or 5. Look at the dashboard, then run "
            "`smsverify resolve 'a key' --order ORDER_ID`, or `smsverify resolve 'a key' --not-made`",
        ),
        (
            "renewal",
            (4,),
            True,
            "It is not sent again. Look at the dashboard, then run `smsverify resolve 'a key' --order 4`, "
            "or `smsverify resolve 'a key' --not-made`",
        ),
    ],
)
def test_each_unknown_call_names_the_next_step(
    kind: str, order_ids: tuple[int, ...], overdue: bool, end: str
) -> None:
    call = UnknownCall(
        namespace="",
        key="a key",
        kind=kind,
        sent_at=datetime.now(timezone.utc),
        price=None,
        order_ids=order_ids,
        overdue=overdue,
    )
    assert call.as_text().endswith(f"its outcome is unknown. {end}")


def test_what_a_person_decides_must_be_possible(simulator: Simulator, hook: SmsVerifyHook) -> None:
    owned = buy_number(hook)
    leave_unknown(simulator, hook, "k", "reset")
    for key, order_id, field in (("k", owned, "order_id"), ("k", 999, "order_id"), ("other", None, "key")):
        with pytest.raises(errors.InvalidRequestError) as caught:
            hook.resolve(key, order_id=order_id)
        assert caught.value.field == field
    hook.resolve("k", order_id=None)
    assert buy_number(hook, key="k") != owned


def test_a_list_that_cannot_be_read_is_said_to_be_so(simulator: Simulator, hook: SmsVerifyHook) -> None:
    leave_unknown(simulator, hook, "k")
    simulator.add_fault(Fault("error_before", path="orders/", times=None))
    with pytest.raises(errors.PurchaseUnverifiableError, match="cannot be read") as caught:
        buy_number(hook, key="k")
    assert caught.value.key == "k"
    with pytest.raises(errors.ServiceUnavailableError):
        hook.reconcile()
    assert len(simulator.orders()) == 1


def test_a_number_that_nobody_waits_for_is_reported_and_given_back_where_that_is_wanted(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    order_id = buy_number(hook)
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
    order_id = buy_number(hook)
    wait = rooms_of(hook).waiter.add(order_id, 30.0, wanted=MessageFilter())
    assert make_hook(simulator, store_url).reconcile(cancel_after=0).cancelled == []
    assert simulator.order(order_id).status == "pending"
    wait.future.cancel()


def test_a_code_that_nobody_has_taken_is_a_leak(simulator: Simulator, hook: SmsVerifyHook) -> None:
    order_id = buy_number(hook)
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
    stranger = buy_number(make_hook(simulator, store_url.replace("store.db", "other.db")))
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


@pytest.mark.slow
def test_it_costs_a_handful_of_requests_however_much_was_bought(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(rate_limit=None, sms_delay=0)
    hook = make_hook(simulator, store_url, rate_limit=1000)
    for _ in range(30):
        order_id = buy_number(hook)
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
    order_id = buy_number(hook)
    simulator.add_fault(Fault("error_before", path="order/**", times=None))
    assert not hook.release(order_id, "not needed")
    simulator.clear_faults()
    later = make_hook(simulator, any_store_url)
    while simulator.order(order_id).status == "pending":
        buy_number(later)
    assert simulator.order(order_id).refunded == Decimal("0.40")


@pytest.mark.slow
def test_a_cancellation_that_was_cut_off_is_made_by_the_next_wait(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    given_up, awaited = buy_number(hook), buy_number(hook)
    simulator.add_fault(Fault("error_before", path=f"order/{given_up}/**", times=4))
    hook.release(given_up, "not needed")
    with pytest.raises(errors.WaitTimeoutError):
        hook.wait_for_otp(awaited, 3)
    assert simulator.order(given_up).status == "cancelled"


def test_only_one_of_many_tries_again(simulate: Simulate, make_hook: MakeHook, any_store_url: str) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    order_id = buy_number(hook)
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


# ------------------------------------------------------------------ everybody's turn


def test_what_has_ended_takes_no_place_of_what_can_be_given_back(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(
        rate_limit=None, products={"temporary": {"end_status": "expired", "end_refund": False}}
    )
    hook = make_hook(simulator, store_url, rate_limit=1000)
    expired = [buy_number(hook) for _ in range(AT_ONCE)]
    pending = buy_number(hook)
    for order_id in expired:
        simulator.set_time_left(order_id, 0)
    hook.list_orders()
    before = simulator.stats().by_endpoint.get("GET order/{id}/status/", 0)
    assert hook.reconcile(cancel_after=0).cancelled == [pending]
    assert simulator.stats().by_endpoint["GET order/{id}/status/"] <= before + 2


@pytest.mark.slow
def test_cancellations_that_are_refused_take_turns_with_the_others(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    """Also with one that was tried more often before, and so has a longer pause."""
    simulator = simulate(rate_limit=None, products={"temporary": {"validity": 10**6}})
    hook = make_hook(simulator, store_url, rate_limit=1000)
    orders = [buy_number(hook) for _ in range(AT_ONCE + 1)]
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


def test_an_id_that_the_service_does_not_know_is_no_order_from_elsewhere(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    with pytest.raises(errors.NotFoundError):
        hook.cancel(999_999)
    with pytest.raises(errors.NotFoundError):
        hook.wait_for_otp(999_998, timeout=20)
    assert not hook.release(999_997, "not needed")
    report = hook.reconcile()
    assert (report.foreign, report.findings) == ([], [])
