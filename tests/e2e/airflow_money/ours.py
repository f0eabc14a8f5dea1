"""Dags that end in all the ways a task can end, with the operators of smsverify; see test_airflow_money.py.

The area code of the number names the scenario, at the simulator too.
"""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from smsverify_provider.operators.smsverify import SmsVerifyCancelOrderOperator, SmsVerifyOrderOperator
from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor

RETRY = {"retries": 1, "retry_delay": timedelta(seconds=2)}


class DiesAfterOrdering(SmsVerifyOrderOperator):
    """Its process is killed when the number is bought and nothing was returned yet."""

    def execute(self, context: Any) -> Any:
        order = super().execute(context)
        if context["ti"].try_number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return order


class WithShortBackstop(SmsVerifyOtpSensor):
    """Airflow itself ends its deferral soon."""

    _backstop = 5.0


class RunsOutOfTimeOnce(SmsVerifyOtpSensor):
    """Its first try is ended by Airflow's own limit."""

    def pre_execute(self, context: Any) -> None:
        if context["ti"].try_number > 1:
            self.execution_timeout = None


def order(area_code: int, operator: Any = SmsVerifyOrderOperator, **arguments: Any) -> Any:
    return operator(
        task_id="order", product="temporary", service="Telegram", area_code=area_code, **RETRY | arguments
    )


def wait(ordered: Any, operator: Any = SmsVerifyOtpSensor, **arguments: Any) -> Any:
    arguments = {"timeout": 600, "deferrable": True} | RETRY | arguments
    return operator(task_id="wait", order_id=ordered.output["order_id"], **arguments)


def poke(ordered: Any, operator: Any = SmsVerifyOtpSensor, **arguments: Any) -> Any:
    return wait(ordered, operator, deferrable=False, poke_interval=1, **arguments)


with DAG("ours_lost_answer"):
    wait(order(201))
with DAG("ours_worker_killed"):
    wait(order(202, DiesAfterOrdering))
with DAG("ours_marked_failed"):
    wait(order(203))
with DAG("ours_marked_success"):
    wait(order(204))
with DAG("ours_cleared"):
    wait(order(205))
with DAG("ours_cleared_from_the_start"):
    wait(order(206))
with DAG("ours_run_timeout", dagrun_timeout=timedelta(seconds=60)):
    wait(order(207))
with DAG("ours_timed_out"):
    wait(order(208), timeout=10)
with DAG("ours_teardown"):
    ordered = order(209)

    @task
    def work() -> None:
        raise RuntimeError("the step between fails")

    cancel = SmsVerifyCancelOrderOperator(task_id="cancel", order_id=ordered.output["order_id"])
    middle = work()
    ordered.as_setup() >> middle >> wait(ordered) >> cancel.as_teardown(setups=ordered)
with DAG("ours_triggerer_killed"):
    wait(order(210))
with DAG("ours_triggerer_killed_until_too_late"):
    wait(order(211), timeout=75)
with DAG("ours_backstop"):
    wait(order(212), WithShortBackstop, timeout=5)

with DAG("ours_poke_marked_failed"):
    poke(order(301))
with DAG("ours_poke_cleared"):
    poke(order(302))
with DAG("ours_poke_execution_timeout"):
    poke(order(303), RunsOutOfTimeOnce, execution_timeout=timedelta(seconds=5), **RETRY)
with DAG("ours_own_marked_failed"):

    @task
    def rent() -> str | None:
        from smsverify_provider.hooks.smsverify import SmsVerifyHook

        with SmsVerifyHook().rented_number("temporary", service="Telegram", area_code=304) as number:
            return number.wait_for_otp(600).otp

    rent.override(task_id="wait")()
with DAG("ours_own_busy_marked_failed"):

    @task
    def busy() -> None:
        from smsverify_provider.hooks.smsverify import SmsVerifyHook

        with SmsVerifyHook().rented_number("temporary", service="Telegram", area_code=305):
            time.sleep(600)

    busy.override(task_id="wait")()
with DAG("ours_queued_after_clear"):
    # Its next try finds no free slot for longer than a trigger is given to end.
    wait(order(306), pool="narrow")
with DAG("ours_fill_the_pool"):

    @task(pool="narrow")
    def fill() -> None:
        time.sleep(25)

    fill.override(task_id="wait")()
