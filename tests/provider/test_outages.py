"""A store, or a connection with its settings, that cannot be read for a while: its database restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from trigger_runs import event_of
from verify_runs import Tries, resume, same_try, verifying

from smsverify._store.store import Store
from smsverify.errors import SettingsUnavailableError, SmsVerifyError, StoreError
from smsverify.models import Order
from smsverify.simulator import Simulator
from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor
from smsverify_provider.triggers.smsverify import SmsVerifyOtpTrigger
from smsverify_provider.versions import AirflowRescheduleException, AirflowSensorTimeout

pytestmark = [pytest.mark.slow, pytest.mark.smsverify_simulator(sms_delay="never")]


class Outage:
    """Lets the next accesses fail, once it has begun."""

    def __init__(self) -> None:
        self.left = 0.0

    def begin(self, accesses: float = float("inf")) -> None:
        self.left = accesses

    def end(self) -> None:
        self.left = 0.0

    def meets(self, function: Callable[..., Any], error: type[StoreError]) -> Callable[..., Any]:
        def access(*args: Any, **options: Any) -> Any:
            if self.left > 0:
                self.left -= 1
                raise error("it is out of reach")
            return function(*args, **options)

        return access


@pytest.fixture(params=["store", "connection"])
def outage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Outage:
    """An outage that the test begins."""
    outage = Outage()
    if request.param == "store":
        for name in ("read", "write"):
            monkeypatch.setattr(Store, name, outage.meets(getattr(Store, name), StoreError))
    else:
        from smsverify_provider.hooks import smsverify

        find = outage.meets(smsverify.find_connection, SettingsUnavailableError)
        monkeypatch.setattr(smsverify, "find_connection", find)
    monkeypatch.setattr("smsverify_provider.deferring.STORE_PAUSE", 0.01)
    return outage


@pytest.fixture
def order(hook: Any) -> Order:
    return hook.order("temporary", service="WhatsApp")


def look(order: Order, nth: int, *, since: datetime | None = None) -> Any:
    """The nth look of a rescheduled sensor, each in a process of its own."""
    wait = SmsVerifyOtpSensor(task_id="wait", order_id=order.order_id, mode="reschedule", timeout=600)
    ti = Tries(get_first_reschedule_date=lambda _context: since)
    return wait.execute({"ti": ti, "task_reschedule_count": nth})


def test_an_outage_before_a_later_look_does_not_end_the_wait_of_a_rescheduled_sensor(
    order: Order, sim: Simulator, outage: Outage
) -> None:
    with pytest.raises(AirflowRescheduleException):
        look(order, 0)
    outage.begin()
    with pytest.raises(AirflowRescheduleException):
        look(order, 1)
    outage.end()
    sim.deliver_sms(order.order_id)
    assert look(order, 2)["otp"] == sim.order(order.order_id).otp


def test_a_sensor_that_cannot_begin_its_wait_fails(order: Order, sim: Simulator, outage: Outage) -> None:
    outage.begin()
    with pytest.raises(StoreError, match="out of reach"):
        look(order, 0)
    assert sim.order(order.order_id).status == "pending"


def test_an_outage_at_the_time_out_delays_the_refund(order: Order, sim: Simulator, outage: Outage) -> None:
    outage.begin(3)
    with pytest.raises(AirflowSensorTimeout):
        look(order, 1, since=datetime.now(timezone.utc) - timedelta(hours=1))
    assert sim.order(order.order_id).status == "cancelled"


def test_a_sensor_that_comes_back_while_the_store_is_away_gets_its_code(
    hook: Any, order: Order, sim: Simulator, outage: Outage
) -> None:
    sim.deliver_sms(order.order_id)
    hook.get_status(order.order_id)
    outage.begin(3)
    wait = SmsVerifyOtpSensor(task_id="wait", order_id=order.order_id)
    result = wait.execute_complete({"ti": Tries()}, {"order_id": order.order_id, "outcome": "arrived"})
    assert result["otp"] == sim.order(order.order_id).otp


def test_a_verification_that_comes_back_while_the_store_is_away_gets_its_code(
    run_task: Any, connection: Any, sim: Simulator, outage: Outage
) -> None:
    wait = verifying(lambda number: sim.deliver_sms(number["order_id"], otp="545121") and None)
    trigger = SmsVerifyOtpTrigger(**run_task(wait).msg.trigger_kwargs)
    event = asyncio.run(event_of(trigger))
    outage.begin(3)
    assert resume(wait, trigger, event)["otp"] == "545121"


ENDS = {
    "failed": ("execute_complete", {"event": {"outcome": "failed", "detail": "Trigger failure"}}),
    "trigger": ("__fail__", {"error": "Trigger failure"}),
    "no triggerer": ("__fail__", {"error": "Trigger timeout"}),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_number_that_cannot_be_given_back_does_not_hide_why_its_wait_failed(
    order: Order, outage: Outage, caplog: pytest.LogCaptureFixture, end: str
) -> None:
    method, arguments = ENDS[end]
    arguments.get("event", {}).update(order_id=order.order_id)  # type: ignore[attr-defined]
    wait = SmsVerifyOtpSensor(task_id="wait", order_id=order.order_id)
    outage.begin()
    with pytest.raises(Exception, match=r"Trigger (failure|timeout)") as caught:
        wait.resume_execution(method, arguments, {"ti": Tries()})
    assert not isinstance(caught.value, StoreError)
    assert f"`smsverify cancel {order.order_id}`" in caplog.text


def test_a_verification_whose_trigger_fails_while_the_store_is_away_says_that_the_trigger_has_failed(
    run_task: Any, connection: Any, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify_provider.deferring.STORE_PATIENCE", 0.0)
    wait = verifying(print)
    trigger = SmsVerifyOtpTrigger(**run_task(wait).msg.trigger_kwargs)
    outage.begin()
    with pytest.raises(Exception, match="Trigger failure") as caught:
        wait.resume_execution("__fail__", {"error": "Trigger failure"}, same_try(trigger))
    assert not isinstance(caught.value, SmsVerifyError)
