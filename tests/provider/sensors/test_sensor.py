"""The sensor in its three modes: codes that come, codes that never do, and what ends a wait besides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG, TaskInstanceState, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout

from smsverify.errors import InvalidRequestError
from smsverify.models import Order
from smsverify.simulator import Fault, Simulator
from smsverify.wings import plan_release, store_time
from smsverify_provider.operators.smsverify import SmsVerifyOrderOperator
from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor
from smsverify_provider.triggers.smsverify import SmsVerifyOtpTrigger

NEVER = pytest.mark.smsverify_simulator(sms_delay="never")
LATER = pytest.mark.smsverify_simulator(sms_delay=60)  # one second


def frames_of_ours(error: BaseException) -> int:
    """How many lines of the task's log an expected end takes beside Airflow's own."""
    assert error.__cause__ is None
    assert error.__suppress_context__
    return sum("smsverify" in frame.filename for frame in traceback.extract_tb(error.__traceback__))


ALL_MODES = pytest.mark.parametrize("mode", ["deferrable", "poke", "reschedule"])
# `reschedule` reads the time of its first try from the metadata database, which `run_task` does without.
WITH_TIMEOUT = pytest.mark.parametrize("mode", ["deferrable", "poke"])


@LATER
@ALL_MODES
@pytest.mark.slow
def test_the_code_is_returned_when_it_comes(run_sensor: Any, order: Order, sim: Simulator, mode: str) -> None:
    state, returned, error = run_sensor(mode, order_id=str(order.order_id))
    assert state == "success", error
    (bought,) = sim.orders()
    expected = {
        "order_id": order.order_id,
        "otp": bought.otp,
        "message": bought.message,
        "phone": bought.phone,
    }
    assert expected.items() <= returned.items()


@NEVER
@WITH_TIMEOUT
def test_a_code_that_never_comes_is_a_time_out_and_a_refund(
    run_sensor: Any, order: Order, sim: Simulator, mode: str
) -> None:
    state, _, error = run_sensor(mode, order_id=order.order_id, timeout=timedelta(seconds=0.5), retries=3)
    assert state == "failed"  # and not up_for_retry: no retry may wait on a cancelled number
    assert isinstance(error, AirflowSensorTimeout)
    assert frames_of_ours(error) == 1
    assert [bought.status for bought in sim.orders()] == ["cancelled"]
    assert sim.balance() == 50


@NEVER
@WITH_TIMEOUT
def test_with_soft_fail_a_time_out_skips_the_task(
    run_sensor: Any, order: Order, sim: Simulator, mode: str
) -> None:
    state, _, _ = run_sensor(mode, order_id=order.order_id, timeout=0.5, soft_fail=True)
    assert state == "skipped"
    assert sim.balance() == 50


@NEVER
@WITH_TIMEOUT
def test_on_request_the_number_is_kept_after_a_time_out(
    run_sensor: Any, order: Order, sim: Simulator, mode: str
) -> None:
    state, _, error = run_sensor(mode, order_id=order.order_id, timeout=0.5, cancel_on_timeout=False)
    assert state == "failed", error
    assert [bought.status for bought in sim.orders()] == ["pending"]


@NEVER
def test_a_rescheduled_sensor_counts_its_time_from_the_first_look(
    dag_maker: Any, session: Any, order: Order, sim: Simulator
) -> None:
    from airflow.models import TaskInstance

    with dag_maker("rescheduled") as dag:
        SmsVerifyOtpSensor(
            task_id="wait", order_id=order.order_id, mode="reschedule", timeout=2, poke_interval=0.5
        )
    dag.test()
    (state,) = session.query(TaskInstance.state).filter_by(dag_id="rescheduled").one()
    assert state == "failed"
    assert sim.order(order.order_id).status == "cancelled"


@LATER
def test_a_code_that_comes_at_the_last_moment_is_returned_after_all(
    run_sensor: Any, order: Order, sim: Simulator
) -> None:
    """Nobody sees the code before the time is over, but the look that precedes the cancellation does."""
    sim.add_fault(Fault("slow_before", path="order/*/status/", times=2, seconds=1.5))
    state, returned, error = run_sensor("deferrable", order_id=order.order_id, timeout=0.5)
    assert state == "success", error
    assert returned["otp"] == sim.order(order.order_id).otp


@NEVER
@ALL_MODES
def test_an_order_that_has_ended_fails_the_task_for_good(
    run_sensor: Any, hook: Any, order: Order, sim: Simulator, airflow_says: Any, mode: str
) -> None:
    airflow_says("running")
    hook.cancel(order.order_id)
    asked = sim.order(order.order_id).status_requests
    state, _, error = run_sensor(mode, order_id=order.order_id, retries=3)
    assert sim.order(order.order_id).status_requests <= asked + 1  # and none more for a refund
    assert state == "failed"
    assert isinstance(error, AirflowFailException)
    assert frames_of_ours(error) == 1
    assert str(order.order_id) in str(error)
    assert "cancelled" in str(error)


@ALL_MODES
def test_an_order_that_does_not_exist_fails_the_task_for_good(
    run_sensor: Any, connection: Any, mode: str
) -> None:
    state, _, error = run_sensor(mode, order_id=99, retries=3)
    assert state == "failed"
    assert isinstance(error, AirflowFailException)


@NEVER
@ALL_MODES
def test_a_key_that_is_refused_fails_the_task_for_good(
    run_sensor: Any,
    order: Order,
    sim: Simulator,
    airflow_says: Any,
    going_back: Any,
    mode: str,
) -> None:
    airflow_says("running")
    sim.add_fault(Fault("unauthorized", path="**", times=None))
    state, _, error = run_sensor(mode, order_id=order.order_id, retries=3)
    assert state == "failed"
    assert isinstance(error, AirflowFailException)
    assert frames_of_ours(error) == 1
    assert sim.api_key not in str(error)
    assert going_back() == [order.order_id]


@LATER
@ALL_MODES
def test_errors_that_pass_do_not_end_the_wait(
    run_sensor: Any, order: Order, sim: Simulator, connection: Any, mode: str
) -> None:
    connection["extra"]["call_timeout"] = 0.2
    os.environ["AIRFLOW_CONN_SMSVERIFY_DEFAULT"] = json.dumps(connection)
    for kind in ("error_before", "html", "reset", "cut_json", "rate_limited"):
        sim.add_fault(Fault(kind, path="order/*/status/", times=2, retry_after=0))
    state, returned, error = run_sensor(mode, order_id=order.order_id)
    assert state == "success", error
    assert returned["otp"] == sim.order(order.order_id).otp


def test_a_code_that_is_there_already_needs_no_deferral_and_no_request(
    run_task: Any, hook: Any, order: Order, sim: Simulator
) -> None:
    while hook.check_otp(order.order_id) is None:
        time.sleep(0.01)
    before = sim.stats().requests
    result = run_task(SmsVerifyOtpSensor(task_id="wait", order_id=order.order_id, deferrable=True))
    assert result.state == TaskInstanceState.SUCCESS
    assert sim.stats().requests == before


@NEVER
def test_deferring_costs_no_request_and_hands_no_secret_over(
    run_task: Any, hook: Any, order: Order, sim: Simulator
) -> None:
    before = sim.stats().requests
    deferral = run_task(
        SmsVerifyOtpSensor(task_id="wait", order_id=order.order_id, timeout="{{ 60 + 4 }}", deferrable=True)
    ).msg
    assert sim.stats().requests == before
    assert deferral.next_method == "execute_complete"
    assert deferral.trigger_kwargs.keys() == {
        "order_id",
        "deadline",
        "not_before",
        "waiter",
        "cancel_on_timeout",
        "cancel_on_kill",
        "smsverify_conn_id",
        "after",
        "sender",
        "pattern",
        "passed_on",
    }
    assert 60 < deferral.trigger_kwargs["deadline"] - store_time(hook) <= 64
    # Airflow's own limit is only for the case that nobody runs the trigger.
    assert deferral.trigger_timeout > timedelta(seconds=64 + 60)
    trigger = SmsVerifyOtpTrigger(**deferral.trigger_kwargs)
    assert trigger.serialize() == (deferral.classpath, deferral.trigger_kwargs)


def test_mapped_sensors_get_a_code_each(run_dag: Any, connection: Any, sim: Simulator) -> None:
    with DAG("many") as dag:
        order = SmsVerifyOrderOperator.partial(task_id="order", product="temporary")
        orders = order.expand(service=["WhatsApp", "Telegram", "Google"])

        @task
        def ids(orders: list[dict[str, Any]]) -> list[int]:
            return [order["order_id"] for order in orders]

        wait = SmsVerifyOtpSensor.partial(task_id="wait", deferrable=True)
        wait.expand(order_id=ids(orders.output))
    result = run_dag(dag, run_triggerer=True)
    codes = {found["order_id"]: found["otp"] for found in result.xcoms["wait"]}
    assert codes == {order.order_id: order.otp for order in sim.orders()}


@pytest.mark.parametrize("given", ["{{ 'x' }}", "{{ none }}"])
def test_a_template_that_renders_wrong_is_refused(
    run_task: Any, connection: Any, sim: Simulator, given: str
) -> None:
    error = run_task(SmsVerifyOtpSensor(task_id="wait", order_id=given)).error
    assert isinstance(error, InvalidRequestError)
    assert error.field == "order_id"
    assert sim.requests() == []


def test_a_template_that_renders_wrong_leaves_a_planned_release_on_record(
    run_task: Any, hook: Any, order: Order, going_back: Any
) -> None:
    plan_release(hook, order.order_id, "an earlier try was killed", patience=600)
    error = run_task(SmsVerifyOtpSensor(task_id="wait", order_id=order.order_id, pattern="{{ '(' }}")).error
    assert isinstance(error, InvalidRequestError)
    assert going_back() == [order.order_id]


@pytest.mark.slow
def test_the_deployments_default_decides_whether_it_defers() -> None:
    code = (
        "from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor\n"
        "print(SmsVerifyOtpSensor(task_id='wait', order_id=1).deferrable)"
    )
    results = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": value},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[-1]
        for value in ("True", "False")
    ]
    assert results == ["True", "False"]


# ------------------------------------------------------------------ which message


@NEVER
@ALL_MODES
def test_the_message_that_is_waited_for_is_later_and_has_a_pattern(
    run_sensor: Any, hook: Any, sim: Simulator, mode: str
) -> None:
    rental = hook.order("rental", service="WhatsApp", duration=3)
    sim.deliver_sms(rental.order_id, text="Foo: 11111")
    _, first, _ = run_sensor(mode, order_id=rental.order_id)
    sim.deliver_sms(rental.order_id, text="Foo: 22222")
    hook.get_status(rental.order_id)
    sim.deliver_sms(rental.order_id, text="Bar: 33333")
    state, second, error = run_sensor(
        mode,
        order_id=rental.order_id,
        after="{{ '" + first["received_at"] + "' }}",
        pattern="(?i)foo: ([0-9]+)",
    )
    assert state == "success", error
    assert (first["message"], second["otp"]) == ("Foo: 11111", "22222")


@NEVER
@WITH_TIMEOUT
def test_an_order_with_another_message_is_kept_after_a_time_out(
    run_sensor: Any, hook: Any, sim: Simulator, mode: str
) -> None:
    rental = hook.order("rental", service="WhatsApp", duration=3)
    sim.deliver_sms(rental.order_id, text="Bar: 33333")
    state, _, error = run_sensor(mode, order_id=rental.order_id, timeout=1, sender="PayPal")
    assert state == "failed"
    assert isinstance(error, AirflowSensorTimeout)
    assert str(error).startswith("another SMS came for order")
    assert [bought.status for bought in sim.orders()] == ["active"]
