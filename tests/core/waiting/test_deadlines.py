"""The ends that a caller sets: deadlines that hold, and stops."""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal

import pytest
from rigs import await_end_of_waits, eventually
from rigs.rooms import going_back, store_of
from rigs.waits import PATIENT, Waiting, buy, status_requests

from smsverify import errors
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Fault, Simulator
from smsverify.wings import claim

pytestmark = pytest.mark.slow

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]


def test_on_its_deadline_an_order_is_cancelled_and_refunded(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    (order_id,) = buy(hook)
    with pytest.raises(errors.WaitTimeoutError, match=str(order_id)) as caught:
        hook.wait_for_otp(order_id, 0.3)
    assert (caught.value.order_id, caught.value.cancelled) == (order_id, True)
    assert simulator.order(order_id).status == "cancelled"
    assert simulator.balance() == Decimal(50)


def test_on_its_deadline_an_order_is_kept_where_that_is_asked_for(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    (order_id,) = buy(hook)
    with pytest.raises(errors.WaitTimeoutError) as caught:
        hook.wait_for_otp(order_id, 0, cancel_on_timeout=False)
    assert not caught.value.cancelled
    assert simulator.order(order_id).status == "pending"
    simulator.deliver_sms(order_id, otp="123456")
    assert hook.wait_for_otp(order_id, PATIENT).otp == "123456"


def test_an_order_that_cannot_be_cancelled_on_the_deadline_stays_on_record(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    (order_id,) = buy(hook)
    simulator.add_fault(Fault("error_before", path="order/**", times=None))
    with pytest.raises(errors.WaitTimeoutError) as caught:
        hook.wait_for_otp(order_id, 0.2)
    assert not caught.value.cancelled
    assert going_back(hook) == [order_id]


def test_a_rental_in_use_is_not_cancelled_on_a_deadline(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(cancel_active="no-refund")
    hook = make_hook(simulator, store_url)
    order_id = hook.order("rental", service="WhatsApp", duration=3).order_id
    with pytest.raises(errors.WaitTimeoutError) as caught:
        hook.wait_for_otp(order_id, 0.2)
    assert not caught.value.cancelled
    assert simulator.order(order_id).status == "active"


def test_a_code_that_comes_at_the_last_moment_is_handed_out_after_all(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    (order_id,) = buy(hook)
    simulator.add_fault(Fault("slow_before", path="order/*/status/", times=None, seconds=1.0))
    waiting = Waiting(hook, [order_id], 0.3)
    eventually(lambda: going_back(hook) == [order_id], "the deadline")
    simulator.deliver_sms(order_id, otp="123456")
    assert waiting.codes() == ["123456"]
    assert simulator.order(order_id).status == "completed"


def test_a_waiter_that_has_lost_its_order_to_another_does_not_cancel_it(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    (order_id,) = buy(hook)
    waiting = Waiting(hook, [order_id], 1.0, waiter="first")
    eventually(lambda: status_requests(simulator) > 0, "the first poll")
    claim(hook, order_id, "second")
    (end,) = waiting.join()
    assert isinstance(end, errors.WaitTimeoutError)
    assert not end.cancelled
    assert simulator.order(order_id).status == "pending"


def test_a_stop_ends_a_wait_and_leaves_the_order_alone(simulator: Simulator, hook: SmsVerifyHook) -> None:
    order_ids, stop = buy(hook, 3), threading.Event()
    waiting = Waiting(hook, order_ids, stop=stop)
    eventually(lambda: simulator.stats().requests > 4, "polling")
    stop.set()
    assert {type(end) for end in waiting.join()} == {errors.WaitStoppedError}
    assert {order.status for order in simulator.orders()} == {"pending"}
    await_end_of_waits()
    with store_of(hook).read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM smsverify_waits").scalar_one() == 0


def test_nobody_asks_when_nobody_waits(simulator: Simulator, hook: SmsVerifyHook) -> None:
    order_ids = buy(hook, 2)
    stop = threading.Event()
    waiting = Waiting(hook, order_ids, stop=stop)
    eventually(lambda: status_requests(simulator) > 2, "polling")
    stop.set()
    waiting.join()
    await_end_of_waits()
    before = simulator.stats().requests
    with pytest.raises(errors.WaitTimeoutError):  # time enough for polls, for another order
        hook.wait_for_otp(order_ids[0], 0.5, cancel_on_timeout=False)
    asked = {request.path for request in simulator.requests()[before:]}
    assert asked <= {f"/api/v1/order/{order_ids[0]}/status/"}


def test_waits_under_one_name_are_waits_of_their_own(simulator: Simulator, hook: SmsVerifyHook) -> None:
    first, second = buy(hook, 2)
    waiting = Waiting(hook, [first, second, first], waiter="the same task")
    simulator.deliver_sms(second, otp="222222")
    eventually(lambda: waiting.ends[1], "the second's code")
    simulator.deliver_sms(first, otp="111111")
    assert waiting.codes() == ["111111", "222222", "111111"]


def test_what_is_no_time_span_is_refused(simulator: Simulator, hook: SmsVerifyHook) -> None:
    (order_id,) = buy(hook)
    for timeout in (-1, float("nan"), float("inf"), "soon"):
        with pytest.raises(errors.InvalidRequestError, match="seconds") as caught:
            hook.wait_for_otp(order_id, timeout)  # type: ignore[arg-type]
        assert caught.value.field == "timeout"
    assert simulator.order(order_id).status == "pending"


def test_every_waiter_of_an_order_gets_a_last_look(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify._waiting.schedule.Schedule.is_poll_due", lambda *_: False)
    (order_id,) = buy(hook)
    waiting = Waiting(hook, [order_id, order_id], timeout=0.5)
    simulator.deliver_sms(order_id, otp="123456")
    assert waiting.codes() == ["123456"] * 2


def test_a_service_that_hangs_does_not_hold_a_wait_long_beyond_its_deadline(
    simulator: Simulator, make_hook: MakeHook, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify._service.transport.HASTE", 0.2)
    hook = make_hook(simulator, store_url, read_timeout=600.0)
    (order_id,) = buy(hook)
    simulator.add_fault(Fault("slow_after", path="order/*/status/", seconds=600, times=None))
    with pytest.raises(errors.WaitTimeoutError):
        hook.wait_for_otp(order_id, 0.2)
    assert going_back(hook) == [order_id]
    simulator.stop()  # which ends the answers that hang
