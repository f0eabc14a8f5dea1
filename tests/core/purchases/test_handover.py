"""What was bought and handed to nobody is named or given back; what somebody has is left alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from rigs import eventually, let_go_of_all_numbers
from rigs.clocks import later
from rigs.purchases import buy_number
from rigs.rooms import rooms_of
from rigs.waits import Waiting

from smsverify import errors
from smsverify._orders import holding
from smsverify._orders.handover import Handover
from smsverify._orders.releases import Releases
from smsverify._orders.status import StatusReader
from smsverify._purchases.renewal_records import RenewalRecords
from smsverify._purchases.renewing import Renewals
from smsverify._purchases.run_context import RunContext
from smsverify._runtime import clock
from smsverify._service.endpoints import ServiceApi
from smsverify.hook import SmsVerifyHook
from smsverify.models import Order
from smsverify.simulator import Simulator

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]


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
    later(monkeypatch, 2 * 3600)


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


@pytest.mark.parametrize(("room", "name"), [(Handover, "_record_heartbeat"), (StatusReader, "read")])
def test_an_interrupt_right_after_its_purchase_gives_the_number_of_a_block_back(
    room: type, name: str, simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, post, calls = getattr(room, name), ServiceApi.post_order, itertools.count()

    def interrupted_once(*args: Any, **options: Any) -> Any:
        if next(calls) == 0:
            raise KeyboardInterrupt
        return real(*args, **options)

    def without_phone(*args: Any, **options: Any) -> Order:
        return post(*args, **options).model_copy(update={"phone": None})

    monkeypatch.setattr(ServiceApi, "post_order", without_phone)
    monkeypatch.setattr(room, name, interrupted_once)
    with pytest.raises(KeyboardInterrupt), hook.rented_number("temporary", service="WhatsApp"):
        pytest.fail("its block has begun")
    assert [order.status for order in simulator.orders()] == ["cancelled"]


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

        eventually(is_younger, "a heartbeat")
        assert hook.reconcile(cancel_after=0).findings == []
        let_go_of_all_numbers()
        with monkeypatch.context() as patched:
            hours_later(patched)
            assert [leak.order_id for leak in hook.reconcile().leaks] == [number.order_id]
    assert simulator.order(number.order_id).status == "cancelled"


def test_a_heartbeat_that_fails_in_any_way_keeps_none_of_another_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    given: list[int] = []

    def fail(_: int) -> None:
        raise RecursionError("too deep")

    held = [
        holding.Held("an account", order_id, 0.02, keep_alive, *[lambda *_: None] * 2)
        for order_id, keep_alive in ((1, fail), (2, given.append))
    ]
    for one in held:
        holding.hold(one)
    eventually(lambda: len(given) > 2, "a third heartbeat", timeout=20)
    for one in held:
        one.let_go()
    assert "too deep" in caplog.text


def test_naming_a_held_number_records_a_heartbeat_only_when_it_is_due(
    hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task names its number several times right after the purchase, each time under the store's lock."""
    right, recorded = Handover._record_heartbeat, []

    def record(handover: Handover, order_id: int, values: dict[str, Any]) -> None:
        recorded.append(order_id)
        if len(recorded) == 1:
            raise errors.StoreError("the database is locked")
        right(handover, order_id, values)

    monkeypatch.setattr(Handover, "_record_heartbeat", record)
    with hook.rented_number(**KEPT[0]) as number:
        for _ in range(3):
            hook.check_otp(number.order_id, ask=False)
        assert len(recorded) == 2, "the first one failed, the second one makes up for it"
        began = clock.boottime()
        monkeypatch.setattr(holding, "boottime", lambda: began + holding.FORGOTTEN / 4 + 1)
        hook.check_otp(number.order_id, ask=False)
        assert len(recorded) == 3


def in_a_block(hook: SmsVerifyHook) -> None:
    with hook.rented_number(**KEPT[0]):
        raise LookupError


def in_an_attempt(hook: SmsVerifyHook) -> None:
    for attempt in hook.attempts(**KEPT[0]):
        with attempt:
            raise LookupError


@pytest.mark.parametrize("sign_up", [in_a_block, in_an_attempt])
def test_a_number_that_no_store_can_give_back_is_let_go_and_found_later(
    sign_up: Callable[[SmsVerifyHook], None],
    simulator: Simulator,
    hook: SmsVerifyHook,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error of the block is the one that is raised."""

    def fail(*_: Any, **__: Any) -> None:
        raise errors.StoreError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Releases, "request", fail)
        patched.setattr(Handover, "_end_holding", fail)
        with pytest.raises(LookupError):
            sign_up(hook)
    hours_later(monkeypatch)
    assert [leak.order_id for leak in hook.reconcile().leaks] == [simulator.orders()[0].order_id]


def test_a_store_that_fails_at_the_end_takes_nobodys_purchase_away(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise errors.StoreError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Handover, "_end_holding", fail)
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


def test_a_rental_that_is_let_go_is_named_no_sooner_than_that_of_a_killed_process(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next try of its task may come late, and gets it by its key."""
    order_id = hook.order(**KEPT[0]).order_id
    handover = rooms_of(hook).orders.handover
    handover.hand_out_again(order_id, "a task")
    handover.hold(order_id, holder="a task").let_go()
    assert hook.reconcile(cancel_after=0).findings == []
    hours_later(monkeypatch)
    assert [leak.order_id for leak in hook.reconcile().leaks] == [order_id]


def test_an_order_is_in_hand_while_a_call_waits_for_it(simulator: Simulator, hook: SmsVerifyHook) -> None:
    handover, order_id = rooms_of(hook).orders.handover, buy_number(hook)
    assert not handover.is_in_hand(order_id)
    waiting = Waiting(hook, [order_id])
    eventually(lambda: handover.is_in_hand(order_id), "a wait")
    simulator.deliver_sms(order_id, otp="123456")
    waiting.messages()
