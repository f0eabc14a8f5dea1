"""Two calls with one key: the newer one has the number, and no older one gives that back."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from rigs import eventually, let_go_of_all_numbers
from rigs.clocks import later
from rigs.rooms import rooms_of
from rigs.sign_ups import WHATSAPP, delivers_to, statuses, verify

from smsverify import PurchaseConflictError, SmsVerifyHook, errors, wings
from smsverify._orders import holding
from smsverify._orders.handover import Handover
from smsverify._orders.holding import Held
from smsverify._purchases.attempt_records import AttemptRecords
from smsverify._purchases.ledger import Ledger
from smsverify._purchases.run_context import RunContext
from smsverify._purchases.sending import Sender
from smsverify.numbers import Attempt, RentedNumber
from smsverify.simulator import Fault, Simulator

pytestmark = pytest.mark.slow

MakeHook = Callable[..., SmsVerifyHook]
Block = Callable[[RentedNumber, SmsVerifyHook], Any]


class WithRetries(RunContext):
    def next_try_within(self) -> float | None:
        return 0.0


class InATask(RunContext):
    """Hands over at the end of the task, which comes where a test ends what it has `held`."""

    def __init__(self) -> None:
        self.held: list[Held] = []

    def hand_over(
        self,
        order_id: int,
        handover: Handover,
        holder: str,
        then: Callable[[], object] = lambda: None,
        *,
        then_if_failed: bool = True,
    ) -> None:
        self.held.append(handover.hold(order_id, holder=holder, at_end=then))


@pytest.fixture(params=[RunContext, WithRetries], ids=["once", "retried"])
def old(
    request: pytest.FixtureRequest, simulator: Simulator, make_hook: MakeHook, store_url: str
) -> SmsVerifyHook:
    return make_hook(simulator, store_url, run_context=request.param())


@pytest.fixture
def new(simulator: Simulator, make_hook: MakeHook, store_url: str) -> SmsVerifyHook:
    return make_hook(simulator, store_url)


CALLS: list[Iterator[Attempt]] = []


@pytest.fixture(autouse=True)
def no_call_outlasts_its_test(simulator: Simulator) -> Iterator[None]:
    """Otherwise the garbage collector ends it, in the middle of another test."""
    yield
    while CALLS:
        CALLS.pop().close()  # type: ignore[attr-defined]


def attempts(hook: SmsVerifyHook, **options: Any) -> Iterator[Attempt]:
    CALLS.append(hook.attempts("temporary", **{**WHATSAPP, "key": "sign-up", "attempts": 1, **options}))
    return CALLS[-1]


def handover_of(hook: SmsVerifyHook) -> Handover:
    return rooms_of(hook).orders.handover


def fails(number: RentedNumber, hook: SmsVerifyHook) -> None:
    raise LookupError


def waits_in_vain(number: RentedNumber, hook: SmsVerifyHook) -> None:
    hook.wait_for_otp(number.order_id, 0.0, cancel_on_timeout=False)


def begins_to_wait(number: RentedNumber, hook: SmsVerifyHook) -> None:
    number.wait_for_otp(timeout=0.0)


def needs_no_code(number: RentedNumber, hook: SmsVerifyHook) -> None:
    pass


@pytest.mark.parametrize(
    ("block", "error"),
    [
        (fails, LookupError),
        (waits_in_vain, PurchaseConflictError),
        (begins_to_wait, PurchaseConflictError),
        (needs_no_code, None),
    ],
)
def test_a_call_leaves_the_number_that_a_newer_one_works_with_alone(
    block: Block, error: type[Exception] | None, simulator: Simulator, old: SmsVerifyHook, new: SmsVerifyHook
) -> None:
    attempt = next(attempts(old))
    with next(attempts(new)) as number:
        with pytest.raises(error) if error else contextlib.nullcontext(), attempt:
            block(attempt.number, old)
        new.reconcile()
        assert statuses(simulator) == ["pending"]
        simulator.deliver_sms(number.order_id, otp="545121")
        assert number.wait_for_otp(5).otp == "545121"
    assert statuses(simulator) == ["completed"]


OTHERS: dict[str, dict[str, Any]] = {
    "another service": {"service": "Telegram"},
    "a lower price": {"max_price": "0.20", "alternatives": [{"product": "best-temp", "max_price": "0.50"}]},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("place", ["plan", "mark_sent"])
def test_a_key_with_other_arguments_buys_no_number_beside_one_that_is_about_to_be_bought(
    place: str,
    other: dict[str, Any],
    simulator: Simulator,
    old: SmsVerifyHook,
    new: SmsVerifyHook,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, older, newer = getattr(Ledger, place), attempts(old), [attempts(new, **other)]
    conflicts: list[str | None] = []

    def tries(call: Iterator[Attempt]) -> None:
        try:
            next(call)
        except PurchaseConflictError as error:
            conflicts.append(error.key)

    def meanwhile(ledger: Ledger, *args: Any, **options: Any) -> Any:
        if newer:
            with ThreadPoolExecutor(1) as thread:
                thread.submit(tries, newer.pop()).result()
        return real(ledger, *args, **options)

    monkeypatch.setattr(Ledger, place, meanwhile)
    tries(older)
    assert (statuses(simulator), conflicts) == (["pending"], ["sign-up"])


def test_the_time_out_of_a_call_leaves_the_number_that_a_newer_one_works_with_alone(
    simulator: Simulator, old: SmsVerifyHook, new: SmsVerifyHook
) -> None:
    with ThreadPoolExecutor(1) as thread:
        over = thread.submit(verify, old, lambda _: None, timeout=5.0, attempts=2)
        eventually(simulator.orders, "a purchase")
        order_id = simulator.orders()[0].order_id
        eventually(lambda: new.overview().waits.count, "a wait")
        with next(attempts(new, attempts=2)) as number:
            with pytest.raises(PurchaseConflictError, match=f"a newer call .* tries order {order_id} now"):
                over.result()
            assert (number.order_id, statuses(simulator)) == (order_id, ["pending"])
            simulator.deliver_sms(order_id, otp="545121")
            assert number.wait_for_otp(5).otp == "545121"


def test_the_end_of_a_block_leaves_the_number_that_a_newer_block_has_alone(
    simulator: Simulator, old: SmsVerifyHook, new: SmsVerifyHook
) -> None:
    with contextlib.ExitStack() as older, contextlib.ExitStack() as newer:
        older.enter_context(old.rented_number("temporary", key="k", **WHATSAPP))
        newer.enter_context(new.rented_number("temporary", key="k", **WHATSAPP))
        older.close()
        assert statuses(simulator) == ["pending"]
    assert statuses(simulator) == ["cancelled"]


def test_a_wait_of_a_block_leaves_the_number_that_a_newer_block_has_alone(
    simulator: Simulator, old: SmsVerifyHook, new: SmsVerifyHook
) -> None:
    with rented(old) as older, rented(new) as newer:
        with pytest.raises(
            PurchaseConflictError, match=f"a newer call with the key 'k' has order {older.order_id}"
        ):
            older.wait_for_otp(timeout=0.0)
        with pytest.raises(PurchaseConflictError):
            asyncio.run(older.await_otp(timeout=0.0))
        assert statuses(simulator) == ["pending"]
        simulator.deliver_sms(newer.order_id, otp="545121")
        assert newer.wait_for_otp(20).otp == "545121"


def test_the_time_out_of_a_block_leaves_the_number_that_a_newer_one_elsewhere_has_alone(
    simulator: Simulator, old: SmsVerifyHook, new: SmsVerifyHook
) -> None:
    with rented(old) as number:
        handover_of(new)._record_heartbeat(number.order_id, {"holder": "in another process"})
        with pytest.raises(errors.WaitTimeoutError) as caught:
            old.wait_for_otp(number.order_id, 0.0)
        assert not caught.value.cancelled
    assert statuses(simulator) == ["pending"]


def test_the_end_of_a_block_leaves_the_number_that_a_newer_order_has_returned_alone(
    simulator: Simulator, old: SmsVerifyHook, new: SmsVerifyHook
) -> None:
    with rented(old) as number:
        assert new.order("temporary", key="k", **WHATSAPP).order_id == number.order_id
    assert statuses(simulator) == ["pending"]


def test_a_newer_order_gives_the_number_of_an_older_block_back(
    simulator: Simulator, old: SmsVerifyHook, new: SmsVerifyHook
) -> None:
    with rented(old) as number:
        new.order("temporary", key="k", **WHATSAPP)
        with pytest.raises(errors.WaitTimeoutError):
            new.wait_for_otp(number.order_id, 0.0)
        assert statuses(simulator) == ["cancelled"]


@pytest.mark.parametrize("call", ["attempts", "rented_number"])
def test_a_call_is_the_newest_although_the_store_fails_once(
    call: str, simulator: Simulator, old: SmsVerifyHook, new: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, has_failed = Handover._record_heartbeat, threading.Event()

    def fails_once(handover: Handover, order_id: int, values: dict[str, Any]) -> None:
        if "holder" in values and not has_failed.is_set():
            has_failed.set()
            raise errors.StoreError("the database is locked")
        right(handover, order_id, values)

    def block(hook: SmsVerifyHook) -> contextlib.AbstractContextManager[RentedNumber]:
        return rented(hook) if call == "rented_number" else next(attempts(hook))

    with contextlib.ExitStack() as older, contextlib.ExitStack() as newer:
        older.enter_context(block(old))
        monkeypatch.setattr(Handover, "_record_heartbeat", fails_once)
        number = newer.enter_context(block(new))
        assert has_failed.is_set()
        older.close()
        assert statuses(simulator) == ["pending"]
        simulator.deliver_sms(number.order_id, otp="545121")
        assert number.wait_for_otp(20).otp == "545121"


def rented(hook: SmsVerifyHook) -> contextlib.AbstractContextManager[RentedNumber]:
    return hook.rented_number("temporary", key="k", **WHATSAPP)


def test_a_killed_call_gives_back_no_number_that_a_newer_one_elsewhere_has(
    simulator: Simulator, old: SmsVerifyHook, new: SmsVerifyHook
) -> None:
    attempt = next(attempts(old))
    handover_of(new)._record_heartbeat(attempt.number.order_id, {"holder": "in another process"})
    assert not wings.plan_release(old, attempt.number.order_id, "the task was killed", patience=0.0)
    assert not old.release(attempt.number.order_id, "the task was killed", undo=True)
    assert statuses(simulator) == ["pending"]


@pytest.mark.parametrize("end", [Held.hand_over, Held.let_go])
def test_the_end_of_an_older_task_takes_no_heartbeat_off_the_number_of_a_newer_call(
    end: Callable[[Held], None], simulator: Simulator, make_hook: MakeHook, store_url: str, new: SmsVerifyHook
) -> None:
    task = InATask()
    order = make_hook(simulator, store_url, run_context=task).order("temporary", **WHATSAPP, key="sign-up")
    with new.rented_number("temporary", **WHATSAPP, key="sign-up") as number:
        assert number.order_id == order.order_id
        end(task.held[0])
        assert new.reconcile(cancel_after=0).cancelled == []
    assert statuses(simulator) == ["cancelled"]


@pytest.mark.parametrize("end", [Held.hand_over, Held.let_go])
@pytest.mark.parametrize("is_named", [False, True])
def test_a_number_whose_task_has_ended_is_held_no_more(
    end: Callable[[Held], None],
    is_named: bool,
    simulator: Simulator,
    make_hook: MakeHook,
    store_url: str,
    new: SmsVerifyHook,
) -> None:
    task = InATask()
    order_id = make_hook(simulator, store_url, run_context=task).order("temporary", **WHATSAPP).order_id
    if is_named:
        handover_of(new).take(order_id)  # as another process does that reads its status
    assert new.reconcile(cancel_after=0).cancelled == []
    end(task.held[0])
    assert new.reconcile(cancel_after=60).cancelled == []
    assert new.reconcile(cancel_after=0).cancelled == [order_id]


# ------------------------------------------------------------------ other arguments


class Killed(BaseException):
    """The process ends here."""


def test_a_call_that_has_died_before_it_sent_keeps_no_later_one_from_going_on(
    simulator: Simulator, old: SmsVerifyHook, new: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Sender, "send", die)
        with pytest.raises(Killed):
            next(attempts(old))
    with pytest.raises(errors.VerificationError, match="more than max_price"):
        next(attempts(new, max_price="0.01"))
    assert simulator.orders() == []


def test_a_call_that_waits_for_its_turn_is_not_outlasted(
    simulator: Simulator, old: SmsVerifyHook, new: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_planned, is_over = threading.Event(), threading.Event()

    def wait(sender: Sender, call: Any, *_: Any, **__: Any) -> None:
        while not is_over.wait(0.05):
            sender._ledger.keep_planned(call.intent)
            is_planned.set()
        raise LookupError

    monkeypatch.setattr(Sender, "send", wait)
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(next, attempts(old))
        try:
            assert is_planned.wait(20)
            with pytest.raises(PurchaseConflictError, match="at this moment"):
                next(attempts(new, max_price="0.01"))
        finally:
            is_over.set()
        assert isinstance(waiting.exception(), LookupError)


def test_a_number_whose_answer_was_lost_is_left_alone_by_a_call_that_asks_for_something_else(
    simulator: Simulator, make_hook: MakeHook, store_url: str, new: SmsVerifyHook
) -> None:
    hurried = {"purchase_grace": 0.3, "connect_timeout": 0.2, "read_timeout": 0.5}
    hook = make_hook(simulator, store_url, **hurried)
    simulator.add_fault(Fault("error_after", path="order/temporary/"))
    with next(attempts(hook)) as number:
        assert_left_alone(new, simulator, number.order_id)


def test_a_number_that_another_process_has_looked_at_is_left_alone_while_its_call_runs(
    simulator: Simulator, old: SmsVerifyHook, new: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = next(attempts(old))
    order_id = attempt.number.order_id
    handover_of(new).take(order_id)  # as another process does that reads its status
    assert_left_alone(new, simulator, order_id)
    later(monkeypatch, 3600)
    handover_of(old).keep_alive(order_id)
    assert_left_alone(new, simulator, order_id)
    assert new.reconcile(cancel_after=600).cancelled == []
    later(monkeypatch, 7200)
    verify(new, delivers_to(simulator, 1), service="Telegram")
    assert statuses(simulator) == ["cancelled", "completed"]


def test_a_number_that_a_running_call_holds_is_not_cancelled_however_soon_others_are(
    simulator: Simulator, old: SmsVerifyHook, new: SmsVerifyHook
) -> None:
    with old.rented_number("temporary", **WHATSAPP):
        assert new.reconcile(cancel_after=0).cancelled == []
    with next(attempts(old)):
        assert new.reconcile(cancel_after=0).cancelled == []
    assert statuses(simulator) == ["cancelled", "cancelled"]


def assert_left_alone(hook: SmsVerifyHook, simulator: Simulator, order_id: int) -> None:
    with pytest.raises(PurchaseConflictError, match="still tries its number"):
        next(attempts(hook, service="Telegram"))
    assert [(order.order_id, order.status) for order in simulator.orders()] == [(order_id, "pending")]


# ------------------------------------------------------------------ right after the purchase


@pytest.mark.parametrize("error", [errors.StoreError("the disk is full"), KeyboardInterrupt()])
def test_an_error_right_after_a_purchase_gives_the_number_back(
    error: BaseException, simulator: Simulator, new: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, has_failed = AttemptRecords.last_series, threading.Event()

    def fails_once(records: AttemptRecords) -> list[Any]:
        rows = right(records)
        if rows and rows[-1].order_id is not None and not has_failed.is_set():
            has_failed.set()
            raise error
        return rows

    monkeypatch.setattr(AttemptRecords, "last_series", fails_once)
    with pytest.raises(type(error)):
        next(attempts(new))
    assert statuses(simulator) == ["cancelled"]
    assert list(holding._hands._held) == []


@pytest.fixture
def in_a_task(simulator: Simulator, make_hook: MakeHook, store_url: str) -> Iterator[SmsVerifyHook]:
    yield make_hook(simulator, store_url, run_context=InATask())
    let_go_of_all_numbers()


@pytest.mark.parametrize("asked", [{}, {"service": "Telegram"}])
def test_a_second_call_of_one_task_buys_another_number(
    in_a_task: SmsVerifyHook, simulator: Simulator, asked: dict[str, Any]
) -> None:
    submit = delivers_to(simulator, 1, 2)
    codes = [verify(in_a_task, submit, timeout=30, **options).otp for options in ({}, asked)]
    assert codes == ["545121", "545122"]


@pytest.mark.parametrize(("hours", "bought"), [(1, 1), (25, 2)])
def test_the_number_of_a_call_that_has_died_with_its_code_is_for_a_try_of_the_next_hours(
    in_a_task: SmsVerifyHook,
    new: SmsVerifyHook,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    hours: float,
    bought: int,
) -> None:
    submit = delivers_to(simulator, 1, 2)
    verify(in_a_task, submit, timeout=30)
    let_go_of_all_numbers()
    later(monkeypatch, hours * 3600)
    assert verify(new, submit, timeout=30).otp == f"54512{bought}"
    assert len(simulator.orders()) == bought
