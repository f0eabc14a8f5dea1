"""What comes late, or at the same time, neither costs a second time nor takes a number from who needs it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from rigs import eventually, in_a_day
from rigs.clocks import later
from rigs.purchases import buy, leave_unknown, read_prices
from rigs.rooms import going_back, hold_up, rooms_of, settings_of, store_of

from smsverify import errors
from smsverify._messages.filters import MessageFilter
from smsverify._orders import listing as listing_room
from smsverify._orders.listing import OrderList
from smsverify._orders.records import Records
from smsverify._orders.status import StatusReader
from smsverify._purchases.calls import Intent, Purchase, UnderWay
from smsverify._purchases.ledger import Ledger
from smsverify._purchases.spending import Caps
from smsverify._service.endpoints import Listed
from smsverify._store.sequence import Asked
from smsverify._store.store import open_store
from smsverify._store.tables import orders, purchases
from smsverify.hook import SmsVerifyHook
from smsverify.models import Order
from smsverify.simulator import Fault, Simulator
from smsverify.wings import claim, plan_release

pytestmark = pytest.mark.slow

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]


def states(url: str) -> list[tuple[str, int | None]]:
    with open_store(url).read() as connection:
        rows = connection.execute(sa.select(purchases).order_by(purchases.c.id)).all()
    return [(row.state, row.order_id) for row in rows]


# ------------------------------------------------------------------ answers that come late


@pytest.mark.parametrize("answer", ["lost", "given", "refused"])
def test_a_late_answer_changes_nothing_of_what_the_list_has_decided(
    answer: str,
    simulate: Simulate,
    make_hook: MakeHook,
    any_store_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process is suspended between the service's answer and its record of it, and wakes afterwards."""
    simulator = simulate()
    hook, other = make_hook(simulator, any_store_url), make_hook(simulator, any_store_url)
    right = {name: getattr(Ledger, name) for name in ("record_bought", "record_unknown", "record_rejected")}
    resolved: list[int] = []

    def wake_late(name: str) -> Any:
        def record(self: Ledger, *given: Any) -> Any:
            if not resolved:
                monkeypatch.undo()
                later(monkeypatch, 1000)
                resolved.append(buy(other).order_id)
            return right[name](self, *given)

        return record

    for name in right:
        monkeypatch.setattr(Ledger, name, wake_late(name))
    kind = {"lost": "lost_answer", "given": None, "refused": "error_after"}[answer]
    if kind is not None:
        simulator.add_fault(Fault(kind, path="order/temporary/", status=400 if answer == "refused" else None))
    try:
        got = buy(hook).order_id
    except errors.ServiceError:
        got = resolved[0]
    assert got == resolved[0] == buy(other).order_id
    assert states(any_store_url) == [("bought", resolved[0])]
    assert len(simulator.orders()) == 1


def test_a_late_answer_about_another_order_leaves_that_to_be_found(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    leave_unknown(simulator, hook, "k")
    found = buy(hook)
    with store_of(hook).read() as connection:
        row = connection.execute(sa.select(purchases)).one()
    intent = Intent(row.id, Purchase("k", "order", row.fingerprint, Caps()), row.attempt, None, row._mapping)
    rooms = rooms_of(hook)
    late = rooms.ledger.record_bought(intent, Order(order_id=999, phone="+1 415 555 0999"))
    assert late.order_id == found.order_id
    known = rooms.orders.records.get(999)
    assert known is not None
    assert known.key is None


# ------------------------------------------------------------------ who needs a number, and who gives it back


def test_a_waiter_that_comes_between_the_look_and_the_cancellation_keeps_the_number(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = buy(hook).order_id
    right = StatusReader.read

    def look(self: StatusReader, *given: Any, **options: Any) -> Any:
        status = right(self, *given, **options)
        claim(hook, order_id, "a new waiter")
        return status

    monkeypatch.setattr(StatusReader, "read", look)
    assert not hook.release(order_id, "not needed")
    assert simulator.order(order_id).status == "pending"


def test_a_reconciliation_leaves_alone_what_somebody_has_begun_to_wait_for_meanwhile(
    simulator: Simulator,
    hook: SmsVerifyHook,
    make_hook: MakeHook,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order_id = buy(hook).order_id
    right, waits = StatusReader.read, []

    def look(self: StatusReader, *given: Any, **options: Any) -> Any:
        status = right(self, *given, **options)
        if not waits:
            waits.append(rooms_of(hook).waiter.add(order_id, 30.0, wanted=MessageFilter()))
        return status

    monkeypatch.setattr(StatusReader, "read", look)
    assert make_hook(simulator, store_url).reconcile(cancel_after=0).cancelled == []
    assert simulator.order(order_id).status == "pending"
    waits[0].future.cancel()


def test_an_order_that_is_handed_out_again_is_not_given_back_under_its_new_owner(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = buy(hook).order_id
    simulator.add_fault(Fault("error_before", path="order/**", times=None))
    assert not hook.release(order_id, "not needed")
    simulator.clear_faults()
    assert going_back(hook) == [order_id]
    # The same key before the release is tried again.
    rooms_of(hook).orders.releases.request(order_id, "not needed", patience=60)
    assert buy(hook).order_id == order_id
    assert going_back(hook) == []
    assert hook.reconcile(cancel_after=60).cancelled == []


def test_a_release_that_is_planned_waits_for_its_time(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that was cleared is queued: its next try is to find its number."""
    order_id = buy(hook).order_id
    assert plan_release(hook, order_id, "the task was cleared", patience=600)
    report = hook.reconcile(cancel_after=0)
    assert (report.cancelled, report.findings) == ([], [])
    assert [order.order_id for order in report.planned] == [order_id]
    claim(hook, order_id, "the next try")
    assert hook.reconcile().planned == []
    assert plan_release(hook, order_id, "the task was cleared", patience=600)
    later(monkeypatch, 601)
    assert hook.reconcile().cancelled == [order_id]


def test_a_cancellation_that_was_called_for_stays_on_record_when_its_key_is_used_again(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    rental = hook.order("rental", service="WhatsApp", duration=3, key="r").order_id
    simulator.deliver_sms(rental, otp="123456")
    assert hook.check_otp(rental) is not None
    with pytest.raises(errors.NotCancellableError, match="is on record"):
        hook.cancel(rental)
    assert hook.order("rental", service="WhatsApp", duration=3, key="r").order_id == rental
    assert going_back(hook) == [rental]


# ------------------------------------------------------------------ many with one key


def test_many_with_one_key_do_not_hold_each_other_up(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    """Each could take the plan of another over before that has its turn, for ever."""
    simulator = simulate(rate_limit=6)
    hook = make_hook(simulator, store_url, rate_limit=6, call_timeout=60.0)
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(buy(hook).order_id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [simulator.orders()[0].order_id] * 8
    assert len(simulator.orders()) == 1


def test_a_plan_is_taken_over_only_from_one_who_is_dead(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    purchase = Purchase("k", "order", "f", Caps())
    ledger = rooms_of(hook).ledger
    first = ledger.plan(purchase, {}, None)
    with pytest.raises(UnderWay):
        ledger.plan(purchase, {}, None)
    later(monkeypatch, 60)
    second = ledger.plan(purchase, {}, None)
    assert not isinstance(first, Order)
    assert not isinstance(second, Order)
    for call in (ledger.keep_planned, ledger.mark_sent):
        with pytest.raises(UnderWay):
            call(first)
    ledger.keep_planned(second)
    ledger.mark_sent(second)


def test_a_call_that_waits_for_the_rate_limit_keeps_sending_heartbeats(
    hook: SmsVerifyHook,
) -> None:
    """Otherwise another caller of its key takes its plan over."""
    buy(hook, "before")  # reads the prices and the wallet
    hold_up(hook, 300)  # five of the service's minutes, which are 5 s here
    stop = threading.Event()

    def buy_until_stopped() -> None:
        with pytest.raises(errors.WaitStoppedError):
            buy(hook, stop=stop)

    buyer = threading.Thread(target=buy_until_stopped)
    buyer.start()

    signs: set[float] = set()

    def has_sent_heartbeats() -> bool:
        with store_of(hook).read() as connection:
            of_key = sa.select(purchases).where(purchases.c.key == "k")
            row = connection.execute(of_key).one_or_none()
        if row is not None:
            assert row.state == "planned"
            signs.add(row.sent_at)
        return len(signs) >= 3  # the plan, and two signs

    eventually(has_sent_heartbeats, "a heartbeat, again")
    stop.set()
    buyer.join()


# ------------------------------------------------------------------ deployments, accounts, reports


def test_a_person_s_word_is_about_the_own_deployment_s_call(
    simulator: Simulator, hook: SmsVerifyHook, make_hook: MakeHook, store_url: str
) -> None:
    other = make_hook(simulator, store_url, namespace="b")
    leave_unknown(simulator, other, "nightly")
    with pytest.raises(errors.InvalidRequestError):
        hook.resolve("nightly", order_id=None)
    assert [
        call.namespace
        for call in make_hook(simulator, store_url, exclusive_account=False).reconcile().unknown
    ] == ["b"]


def test_what_was_there_before_is_not_what_a_call_has_bought(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    stranger = simulator_order(simulator)
    hook.list_orders()
    leave_unknown(simulator, hook, "k", "reset")
    with pytest.raises(errors.InvalidRequestError, match="before") as caught:
        hook.resolve("k", order_id=stranger)
    assert caught.value.field == "order_id"


def simulator_order(simulator: Simulator) -> int:
    """An order that a person has bought in the dashboard."""
    import requests

    answer = requests.post(
        f"{simulator.url}/api/v1/order/temporary/",
        json={"service_id": 1012},
        headers={"Authorization": f"Bearer {simulator.api_key}"},
        timeout=10,
    )
    return int(answer.json()["data"]["order_id"])


@pytest.mark.parametrize(
    ("product", "given"),
    [("rental", {"service": "WhatsApp", "duration": 3}), ("esim", {"plan": "USA 1GB / 7 days"})],
)
def test_what_is_bought_to_be_kept_is_reported_until_its_key_has_it(
    product: str, given: dict[str, Any], simulator: Simulator, hook: SmsVerifyHook
) -> None:
    simulator.add_fault(Fault("lost_answer", path="order/*/"))
    simulator.add_fault(Fault("error_before", path="orders/", times=None))
    with pytest.raises(errors.PurchaseUnknownError):
        hook.order(product, **given, key="k")
    simulator.clear_faults()
    for _ in range(2):
        (leak,) = hook.reconcile().leaks
        assert leak.order_id == simulator.orders()[0].order_id
        assert "'k'" in leak.reason
    hook.order(product, **given, key="k")
    assert hook.reconcile().findings == []


def test_every_paid_order_that_nobody_owns_is_named(simulator: Simulator, hook: SmsVerifyHook) -> None:
    completed, pending = simulator_order(simulator), simulator_order(simulator)
    cancelled = simulator_order(simulator)
    simulator.deliver_sms(completed, otp="123456")
    hook.cancel(cancelled)
    assert [order.order_id for order in hook.reconcile().foreign] == [completed, pending]


def test_a_price_that_the_list_shows_otherwise_counts(simulator: Simulator, hook: SmsVerifyHook) -> None:
    buy(hook, None)
    simulator.set_offer("temporary", 1012, price="0.90")
    dear = buy(hook, None).order_id  # by a list that is still young enough
    hook.list_orders()
    assert hook.get_order(dear).price == Decimal("0.90")
    assert hook.reconcile().spent == Decimal("1.30")
    with pytest.raises(errors.SpendingLimitError):
        in_a_day(hook, "1.60").order("temporary", service="WhatsApp")


def test_a_decision_of_a_person_counts_with_the_price_that_the_list_shows(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    read_prices(hook)
    simulator.set_offer("temporary", 1012, price="0.90")
    simulator.add_fault(Fault("lost_answer", path="order/temporary/"))
    with pytest.raises(errors.PurchaseAmbiguousError) as caught:
        buy(hook)
    hook.resolve("k", order_id=caught.value.order_ids[0])
    assert hook.reconcile().spent == Decimal("0.90")


def test_cancellations_that_are_refused_do_not_keep_others_from_being_made(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(rate_limit=None, balance=100)
    hook = make_hook(simulator, store_url, rate_limit=1000)
    bought = [buy(hook, None).order_id for _ in range(25)]
    for order_id in bought[:22]:
        simulator.add_fault(Fault("out_of_stock", path=f"order/{order_id}/cancel/", times=None))
    for _ in range(3):
        hook.reconcile(cancel_after=0)
    assert [simulator.order(order_id).status for order_id in bought[22:]] == ["cancelled"] * 3


# ------------------------------------------------------------------ renewals


def test_a_renewal_that_was_found_is_handed_out_to_who_asks_again(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = hook.order("rent-1day", service="Tinder").order_id
    simulator.add_fault(Fault("lost_answer", path="order/*/renew/"))
    simulator.add_fault(Fault("error_before", path="order/*/status/", after=1, times=None))
    with pytest.raises(errors.PurchaseUnknownError):
        hook.renew(order_id)
    simulator.clear_faults()
    assert [one.outcome for one in hook.reconcile().resolved] == ["bought"]
    hook.renew(order_id)
    assert simulator.order(order_id).renewals == 1
    hook.renew(order_id)
    assert simulator.order(order_id).renewals == 2


def test_a_renewal_is_on_record_before_anything_else_is_asked(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    rental = hook.order("rental", service="WhatsApp", duration=3)
    assert rental.expires_at is not None
    simulator.add_fault(Fault("error_before", path="order/*/status/", after=1, times=None))
    renewed = hook.renew(rental.order_id)
    assert renewed.expires_estimated
    assert renewed.expires_at is not None
    assert renewed.expires_at - rental.expires_at > timedelta(hours=1)  # of 72 minutes, at 60 times the speed
    assert [state for state, _ in states(settings_of(hook)["store_url"])] == ["bought", "bought"]


def test_a_rental_that_a_person_reports_as_renewed_ends_later(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    rental = hook.order("rental", service="WhatsApp", duration=3)
    simulator.add_fault(Fault("lost_answer", path="order/*/renew/"))
    with pytest.raises(errors.PurchaseUnknownError) as caught:
        hook.renew(rental.order_id)
    hook.resolve(caught.value.key or "", order_id=rental.order_id)
    known = hook.get_order(rental.order_id)
    assert rental.expires_at is not None
    assert known.expires_at is not None
    assert known.expires_at - rental.expires_at > timedelta(hours=1)  # of 72 minutes, at 60 times the speed
    assert known.expires_estimated


def test_a_list_that_is_noted_while_an_order_gets_active_counts_no_refund(
    any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rental that was cancelled in use may not be refunded: what the list is compared with stays as it is
    until that is written.
    """
    store = open_store(any_store_url)
    listing = OrderList(Records(store, "account"))
    values = {"account": "account", "order_id": 7, "product": "rental", "first_seen_at": 1.0}
    with store.write() as connection:
        connection.execute(sa.insert(orders).values(status="pending", **values))
    is_active, was_active = threading.Event(), []

    def get_active() -> None:
        with store.write() as connection:
            connection.execute(sa.update(orders).values(status="active"))
        is_active.set()

    getting_active = threading.Thread(target=get_active)
    compare = listing_room._news

    def compare_slowly(*given: Any) -> Any:
        getting_active.start()
        was_active.append(is_active.wait(0.5))
        return compare(*given)

    monkeypatch.setattr(listing_room, "_news", compare_slowly)
    cancelled = Order.model_validate({"order_id": 7, "status": "cancelled", "price": "4.00"})
    listing.note(Listed([cancelled], length=1), Asked(0, 0.0))
    getting_active.join()
    assert was_active == [False]


def test_an_answer_and_a_list_do_not_wait_for_each_other(
    simulator: Simulator,
    make_hook: MakeHook,
    shared_store_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Both record the same order: PostgreSQL ends one of two transactions that wait for each other."""
    hook = make_hook(simulator, shared_store_url)
    record, put_new = Ledger.record_bought, OrderList._put_new
    answers: list[tuple[Ledger, Intent, Order]] = []
    monkeypatch.setattr(Ledger, "record_bought", lambda *given: answers.append(given) or record(*given))
    order_id = buy(hook).order_id
    has_number = threading.Event()

    def hold_number(*given: Any) -> None:
        has_number.set()
        eventually(lambda: waits_for_a_lock(shared_store_url), "the answer's turn")
        put_new(*given)

    monkeypatch.setattr(OrderList, "_put_new", hold_number)
    listed: list[list[Order]] = []
    reader = threading.Thread(target=lambda: listed.append(hook.list_orders()))
    reader.start()
    assert has_number.wait(60)
    record(*answers[0])
    reader.join(60)
    assert [[order.order_id for order in rows] for rows in listed] == [[order_id]]
    assert "cannot record" not in caplog.text


def waits_for_a_lock(url: str) -> bool:
    here = "datname = current_database() AND wait_event_type = 'Lock'"
    waiting = f"SELECT count(*) FROM pg_stat_activity WHERE {here}"
    with open_store(url).read() as connection:
        return bool(connection.execute(sa.text(waiting)).scalar())
