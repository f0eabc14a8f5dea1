"""The sensor whose task is killed, and the one that its triggerer lets down."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSensorTimeout, TaskDeferred
from trigger_runs import event_of, run
from verify_runs import Tries, same_try

from smsverify.errors import SmsVerifyError
from smsverify.models import Order
from smsverify.simulator import Simulator
from smsverify.wings import claim
from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor
from smsverify_provider.triggers.smsverify import SmsVerifyOtpTrigger

pytestmark = pytest.mark.slow

NEVER = pytest.mark.smsverify_simulator(sms_delay="never")


def deferring(order: Order, **arguments: Any) -> SmsVerifyOtpSensor:
    """A sensor whose `execute` returns at once, and puts nothing on record for a time-out."""
    return SmsVerifyOtpSensor(
        task_id="wait", order_id=order.order_id, deferrable=True, cancel_on_timeout=False, **arguments
    )


@NEVER
@pytest.mark.parametrize(
    ("sensor", "state", "retries", "claimed_by", "status", "on_record"),
    [
        ({}, "failed", 1, None, "cancelled", False),
        ({}, "failed", 1, "the next try", "pending", False),
        ({}, "skipped", 0, None, "cancelled", False),  # dagrun_timeout
        ({}, "running", 0, None, "cancelled", False),  # execution_timeout, without a retry
        ({}, "running", 1, None, "pending", True),  # the same with one, or its worker shuts down
        ({}, "restarting", 0, None, "pending", True),  # cleared
        ({"cancel_on_kill": False}, "failed", 0, None, "pending", False),
    ],
)
def test_a_poking_sensor_that_is_killed_gives_the_number_back_unless_somebody_will_wait(
    connection: Any,
    hook: Any,
    order: Order,
    sim: Simulator,
    airflow_says: Any,
    sensor: Any,
    state: str,
    retries: int,
    claimed_by: str | None,
    status: str,
    on_record: bool,
    going_back: Any,
    carry_out_releases: Any,
) -> None:
    airflow_says(state)
    wait = deferring(order, **sensor)
    with pytest.raises(TaskDeferred):
        wait.execute({"ti": Tries(max_tries=retries)})
    if claimed_by:
        claim(hook, order.order_id, claimed_by)
    wait.on_kill()
    carry_out_releases()  # none is due
    assert sim.order(order.order_id).status == status
    assert (order.order_id in going_back()) is on_record


@NEVER
def test_the_next_try_of_a_killed_sensor_takes_the_release_off_the_record(
    connection: Any, order: Order, sim: Simulator, airflow_says: Any, going_back: Any
) -> None:
    airflow_says("restarting")
    for this_try in ("first", "second"):
        wait = deferring(order)
        with pytest.raises(TaskDeferred):
            wait.execute({"ti": Tries(id=this_try)})
        assert order.order_id not in going_back()
        wait.on_kill()
        assert order.order_id in going_back()


@NEVER
def test_a_sensor_whose_worker_shuts_down_slowly_looks_on_and_leaves_its_number_on_record(
    connection: Any, order: Order, sim: Simulator, airflow_says: Any, going_back: Any, carry_out_releases: Any
) -> None:
    airflow_says("running")
    wait = deferring(order)
    with pytest.raises(TaskDeferred):
        wait.execute({"ti": Tries(max_tries=1)})
    wait.on_kill()
    assert not wait.poke({})
    carry_out_releases()  # none is due
    assert order.order_id in going_back()
    sim.deliver_sms(order.order_id)
    assert wait.poke({}).xcom_value["otp"] == sim.order(order.order_id).otp
    assert order.order_id not in going_back()


@NEVER
@pytest.mark.parametrize("trigger_starts", [True, False])
def test_a_kill_before_the_trigger_has_started_is_made_good_at_the_end_of_the_wait(
    run_task: Any,
    hook: Any,
    order: Order,
    sim: Simulator,
    monkeypatch: Any,
    trigger_starts: bool,
    going_back: Any,
    carry_out_releases: Any,
) -> None:
    monkeypatch.setattr("smsverify_provider.sensors.smsverify.START", -5.0)
    wait = SmsVerifyOtpSensor(task_id="wait", order_id=order.order_id, timeout=5, deferrable=True)
    deferral = run_task(wait).msg
    assert order.order_id in going_back()
    if trigger_starts:
        SmsVerifyOtpTrigger(**deferral.trigger_kwargs)._claim(hook)
    carry_out_releases()
    assert sim.order(order.order_id).status == ("pending" if trigger_starts else "cancelled")


@NEVER
def test_a_wait_that_no_triggerer_serves_is_a_time_out_and_a_refund(
    connection: Any, order: Order, sim: Simulator
) -> None:
    wait = SmsVerifyOtpSensor(task_id="wait", order_id=order.order_id, deferrable=True)
    with pytest.raises(AirflowSensorTimeout):
        wait.resume_execution("__fail__", {"error": "Trigger timeout"}, {"ti": Tries()})
    assert sim.order(order.order_id).status == "cancelled"


@NEVER
def test_a_trigger_that_fails_gives_its_own_number_back_and_no_other(
    run_task: Any,
    connection: Any,
    hook: Any,
    order: Order,
    sim: Simulator,
    airflow_says: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    airflow_says("running")
    wait = SmsVerifyOtpSensor(task_id="wait", order_id=order.order_id, deferrable=True, do_xcom_push=False)
    trigger = SmsVerifyOtpTrigger(**run_task(wait).msg.trigger_kwargs)
    monkeypatch.setattr("smsverify.hook.SmsVerifyHook.await_otp", fails)
    event = run(event_of(trigger))
    other = wait.order_id = hook.order("temporary", service="WhatsApp", key="other").order_id  # rendered anew
    with pytest.raises(SmsVerifyError, match=r"failed in the triggerer: RuntimeError$"):
        wait.resume_execution("execute_complete", {"event": event}, same_try(trigger))
    statuses = {one.order_id: one.status for one in sim.orders()}
    assert statuses == {order.order_id: "cancelled", other: "pending"}


async def fails(*_arguments: Any, **_options: Any) -> None:
    raise RuntimeError("some text")


@NEVER
@pytest.mark.parametrize(("retries", "status"), [(0, "cancelled"), (1, "pending")])
def test_a_trigger_that_fails_leaves_the_number_to_the_next_try_only(
    connection: Any,
    order: Order,
    sim: Simulator,
    airflow_says: Any,
    retries: int,
    status: str,
    going_back: Any,
) -> None:
    airflow_says("running")
    wait = SmsVerifyOtpSensor(task_id="wait", order_id=order.order_id, deferrable=True)
    with pytest.raises(Exception, match="Trigger failure"):
        wait.resume_execution("__fail__", {"error": "Trigger failure"}, {"ti": Tries(max_tries=retries)})
    assert sim.order(order.order_id).status == status
    assert (order.order_id in going_back()) is (retries > 0)


FAILURES = {
    "the wait failed": ("execute_complete", {"outcome": "failed", "detail": "it failed"}),
    "a filter rendered wrong": ("execute_complete", {"outcome": "arrived"}),
    "the trigger failed": ("__fail__", {"error": "Trigger failure"}),
    "no triggerer": ("__fail__", {"error": "Trigger timeout"}),
}


@NEVER
@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("is_claimed_anew", [False, True])
def test_a_sensor_that_comes_back_gives_up_its_own_wait_and_no_newer_one(
    run_task: Any,
    hook: Any,
    order: Order,
    sim: Simulator,
    airflow_says: Any,
    going_back: Any,
    failure: str,
    retries: int,
    is_claimed_anew: bool,
) -> None:
    airflow_says("running")
    wait = SmsVerifyOtpSensor(task_id="wait", order_id=order.order_id, deferrable=True)
    trigger = SmsVerifyOtpTrigger(**run_task(wait).msg.trigger_kwargs)
    trigger._claim(hook)
    if is_claimed_anew:
        claim(hook, order.order_id, "a newer wait")
    method, end = FAILURES[failure]
    if method == "execute_complete":
        end = {"event": {"order_id": order.order_id, **end}}
    if failure == "a filter rendered wrong":
        wait.sender = ""
    this_try = same_try(trigger)
    this_try["ti"].max_tries = retries
    with pytest.raises(Exception):  # noqa: B017, PT011 - what it says, other tests check
        wait.resume_execution(method, end, this_try)
    is_kept = retries > 0 and failure != "no triggerer"
    assert sim.order(order.order_id).status == ("pending" if is_claimed_anew or is_kept else "cancelled")
    assert going_back() == ([order.order_id] if is_kept and not is_claimed_anew else [])
