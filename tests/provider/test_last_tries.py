"""Numbers that a failed try keeps for the next one: when that does not come, or comes too late."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, TaskInstanceState, task

from smsverify.simulator import Fault, Simulator
from smsverify_provider import kills
from smsverify_provider.hooks.smsverify import SmsVerifyHook
from smsverify_provider.operators.smsverify import SmsVerifyOperator
from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor

pytestmark = [pytest.mark.slow, pytest.mark.smsverify_simulator(sms_delay="never")]


def fail_in_an_attempt(_order_id: int | None) -> Any:
    def own() -> None:
        for attempt in SmsVerifyHook().attempts("temporary", service="WhatsApp"):
            with attempt:
                raise ValueError("the form is down for good")

    return task(own, task_id="own")().operator


def fail_with_a_number(_order_id: int | None) -> Any:
    def sign_up(_number: Any) -> None:
        raise ValueError("the form is down for good")

    return SmsVerifyOperator(task_id="own", python_callable=sign_up, product="temporary", service="WhatsApp")


def fail_before_a_wait(order_id: int | None) -> Any:
    return SmsVerifyOtpSensor(task_id="own", order_id=order_id or 0, sender="{{ '' }}")


def in_a_dag(make: Callable[[int | None], Any], hook: Any) -> Any:
    """The operator, for an order that was bought before where it buys none itself."""
    is_bought = make is fail_before_a_wait
    order_id = hook.order("temporary", service="WhatsApp").order_id if is_bought else None
    with DAG("last_tries"):
        return make(order_id)


@pytest.mark.parametrize("make", [fail_in_an_attempt, fail_with_a_number, fail_before_a_wait])
@pytest.mark.parametrize("is_last", [True, False])
def test_a_number_that_is_kept_for_a_next_try_is_given_back_where_a_policy_ends_the_task(
    run_task: Any,
    connection: Any,
    sim: Simulator,
    airflow_says: Any,
    going_back: Any,
    hook: Any,
    make: Callable[[int | None], Any],
    is_last: bool,
) -> None:
    policies = pytest.importorskip("airflow.sdk.definitions.retry_policy", reason="Airflow has none yet")
    airflow_says("running")
    action = policies.RetryAction.FAIL if is_last else policies.RetryAction.RETRY
    operator = in_a_dag(make, hook)
    operator.retries = 3
    rules = [policies.RetryRule(exception=ValueError, action=action)]
    operator.retry_policy = policies.ExceptionRetryPolicy(rules=rules)
    result = run_task(operator, run_callbacks=True)
    assert result.state == (TaskInstanceState.FAILED if is_last else TaskInstanceState.UP_FOR_RETRY)
    (order,) = sim.orders()
    assert order.status == ("cancelled" if is_last else "pending")
    assert going_back() == ([] if is_last else [order.order_id])


@pytest.mark.parametrize("is_slow", [False, True])
def test_a_number_goes_back_before_the_users_callbacks_and_delays_none_of_them_for_long(
    run_task: Any, connection: Any, sim: Simulator, monkeypatch: pytest.MonkeyPatch, is_slow: bool
) -> None:
    """A callback may hang until Airflow ends the process, and it may be the one that alerts a person."""
    policies = pytest.importorskip("airflow.sdk.definitions.retry_policy", reason="Airflow has none yet")
    seen: list[str] = []
    with DAG("callbacks"):
        operator = fail_in_an_attempt(None)
    operator.retries = 3
    rules = [policies.RetryRule(exception=ValueError, action=policies.RetryAction.FAIL)]
    operator.retry_policy = policies.ExceptionRetryPolicy(rules=rules)
    operator.on_failure_callback = [lambda _: seen.append(sim.orders()[0].status)]
    if is_slow:
        monkeypatch.setattr(kills, "KILL_BUDGET", 0.1)
        sim.add_fault(Fault("slow_before", path="order/*/cancel/", seconds=2))
    run_task(operator, run_callbacks=True)
    assert seen == ["pending" if is_slow else "cancelled"]
    assert [order.status for order in sim.orders()] == ["cancelled"]


@pytest.mark.parametrize("make", [fail_in_an_attempt, fail_with_a_number, fail_before_a_wait])
def test_a_number_that_does_not_live_until_the_next_try_is_given_back_at_once(
    run_task: Any,
    connection: Any,
    sim: Simulator,
    airflow_says: Any,
    going_back: Any,
    hook: Any,
    make: Callable[[int | None], Any],
) -> None:
    airflow_says("running")
    operator = in_a_dag(make, hook)
    operator.retries, operator.retry_delay = 3, timedelta(hours=2)
    assert run_task(operator).state == TaskInstanceState.UP_FOR_RETRY
    assert [order.status for order in sim.orders()] == ["cancelled"]
    assert going_back() == []


@pytest.mark.parametrize(
    ("backoff", "longest", "nth", "seconds"),
    [
        (0, None, 3, 300),
        (True, None, 1, 600),
        (2, None, 3, 2400),
        (3.0, timedelta(minutes=20), 3, 1200),
        (2, None, 10**6, kills.LONGEST_DELAY),
    ],
)
def test_the_delay_of_a_next_try_may_grow(
    backoff: float, longest: timedelta | None, nth: int, seconds: float
) -> None:
    delays = SimpleNamespace(
        retry_delay=timedelta(minutes=5), retry_exponential_backoff=backoff, max_retry_delay=longest
    )
    ti = SimpleNamespace(task=delays, try_number=nth)
    assert kills.retry_within(ti) == kills.REQUEUE + seconds
