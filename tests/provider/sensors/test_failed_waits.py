"""The sensor whose wait fails: what becomes of its number, and that no old code is returned instead."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import DAG, task

from smsverify.errors import InvalidRequestError
from smsverify.models import Order
from smsverify.simulator import Fault, Simulator
from smsverify.wings import claim
from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor

pytestmark = [pytest.mark.slow, pytest.mark.smsverify_simulator(sms_delay="never")]


@pytest.mark.parametrize("mode", ["deferrable", "poke", "reschedule"])
@pytest.mark.parametrize("soft_fail", [False, True])
def test_a_number_goes_back_at_once_when_its_wait_fails_for_good(
    run_sensor: Any, order: Order, sim: Simulator, airflow_says: Any, mode: str, soft_fail: bool
) -> None:
    airflow_says("running")
    sim.add_fault(Fault("unauthorized", path="order/**", times=1))
    state, _, _ = run_sensor(mode, order_id=order.order_id, retries=3, soft_fail=soft_fail)
    assert state == ("skipped" if soft_fail else "failed")
    assert sim.order(order.order_id).status == "cancelled"


def test_on_request_the_number_is_kept_after_a_failure(
    run_sensor: Any, order: Order, sim: Simulator, airflow_says: Any, going_back: Any
) -> None:
    airflow_says("running")
    sim.add_fault(Fault("unauthorized", path="order/**", times=1))
    run_sensor("poke", order_id=order.order_id, cancel_on_timeout=False)
    assert (sim.order(order.order_id).status, going_back()) == ("pending", [])


@pytest.mark.parametrize("filter_", ["after", "sender", "pattern"])
@pytest.mark.parametrize(("retries", "status"), [(0, "cancelled"), (1, "pending")])
def test_a_filter_that_comes_out_wrong_leaves_the_number_to_the_next_try_only(
    run_task: Any,
    order: Order,
    sim: Simulator,
    airflow_says: Any,
    filter_: str,
    retries: int,
    status: str,
    going_back: Any,
) -> None:
    airflow_says("running")
    sensor = SmsVerifyOtpSensor(
        task_id="wait", order_id=order.order_id, retries=retries, **{filter_: "{{ '' }}"}
    )
    error = run_task(sensor).error
    assert isinstance(error, InvalidRequestError)
    assert error.field == filter_
    assert sim.order(order.order_id).status == status
    assert (order.order_id in going_back()) is (retries > 0)


def test_a_filter_that_comes_out_wrong_leaves_the_number_to_who_waits_for_it(
    run_task: Any, hook: Any, order: Order, sim: Simulator, airflow_says: Any, going_back: Any
) -> None:
    airflow_says("running")
    claim(hook, order.order_id, "another sensor")
    error = run_task(SmsVerifyOtpSensor(task_id="wait", order_id=order.order_id, sender="{{ '' }}")).error
    assert isinstance(error, InvalidRequestError)
    assert (sim.order(order.order_id).status, going_back()) == ("pending", [])


@pytest.mark.parametrize("mode", ["deferrable", "poke"])
@pytest.mark.parametrize("filter_", ["after", "sender", "pattern"])
def test_a_filter_that_another_task_has_left_out_returns_no_old_code(
    run_dag: Any, hook: Any, sim: Simulator, mode: str, filter_: str
) -> None:
    rental = hook.order("rental", service="WhatsApp", duration=3)
    sim.deliver_sms(rental.order_id)
    hook.get_status(rental.order_id)

    @task
    def first() -> None:
        """Leaves no XCom."""

    with DAG(f"second_{filter_}_{mode}") as dag:
        wanted: Any = {filter_: first()}
        SmsVerifyOtpSensor(
            task_id="wait", order_id=rental.order_id, deferrable=mode == "deferrable", timeout=1, **wanted
        )
    found = run_dag(dag)["wait"]
    assert isinstance(found.error, InvalidRequestError)
    assert found.error.field == filter_


def test_a_filter_that_is_gone_after_the_wait_returns_no_old_code(
    hook: Any, order: Order, sim: Simulator
) -> None:
    sim.deliver_sms(order.order_id)
    hook.get_status(order.order_id)
    after = "{{ ti.xcom_pull('first')['received_at'] }}"
    wait = SmsVerifyOtpSensor(task_id="wait", order_id=order.order_id, after=after)
    wait.after = None  # as Airflow renders it where templates give objects
    with pytest.raises(InvalidRequestError, match="after"):
        wait.execute_complete({}, {"order_id": order.order_id, "outcome": "arrived"})
