"""What ends the wait of a verified account without its code: errors, failed triggers, other records."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import TaskInstanceState
from trigger_runs import event_of, run, start
from verify_runs import Form, Tries, resume, same_try, verifying

from smsverify._waiting import waiter
from smsverify.errors import (
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    PurchaseConflictError,
    SmsVerifyError,
)
from smsverify.simulator import Fault, Simulator
from smsverify_provider.hooks.smsverify import SmsVerifyHook
from smsverify_provider.triggers.smsverify import SmsVerifyOtpTrigger
from smsverify_provider.versions import AirflowFailException

pytestmark = [pytest.mark.slow, pytest.mark.smsverify_simulator(sms_delay="never")]
BOTH = pytest.mark.parametrize("deferrable", [True, False])


def test_an_error_while_it_waits_gives_the_number_back(
    run_task: Any, connection: Any, sim: Simulator, going_back: Any
) -> None:
    sim.add_fault(Fault("unauthorized", path="order/*/status/", times=None))
    assert isinstance(run_task(verifying(print, deferrable=False)).error, AuthenticationError)
    assert [order.order_id for order in sim.orders()] == going_back()


@BOTH
def test_an_order_that_the_service_does_not_know_any_more_ends_it(
    run_task: Any, connection: Any, sim: Simulator, going_back: Any, deferrable: bool
) -> None:
    wait = verifying(print, deferrable=deferrable, timeout=3600, do_xcom_push=False)
    sim.add_fault(Fault("error_before", path="order/*/status/", status=404, times=None))
    result = run_task(wait)
    if deferrable:
        trigger = SmsVerifyOtpTrigger(**result.msg.trigger_kwargs)
        event = asyncio.run(event_of(trigger))
        with pytest.raises(NotFoundError):
            resume(wait, trigger, event)
    else:
        assert isinstance(result.error, NotFoundError), result.error
    assert [order.order_id for order in sim.orders()] == going_back()


@pytest.mark.parametrize("seconds", [1e12, 1e300])
def test_a_wait_may_be_longer_than_the_calendar(
    run_task: Any, connection: Any, sim: Simulator, seconds: float
) -> None:
    result = run_task(verifying(print, timeout=seconds))
    assert result.state == TaskInstanceState.DEFERRED, result.error
    assert result.msg.trigger_timeout < timedelta(days=40_000)


@pytest.mark.parametrize(
    "rendered_anew",
    [
        {},
        {"pattern": "("},
        {"timeout": None},
        {"attempts": 0},
        {"max_cost": "much"},
        {"max_price": ""},
        {"alternatives": "worst"},
    ],
)
def test_a_trigger_that_fails_gives_the_number_back(
    run_task: Any, connection: Any, hook: SmsVerifyHook, sim: Simulator, rendered_anew: dict[str, Any]
) -> None:
    wait = verifying(print, key="mine")
    trigger = SmsVerifyOtpTrigger(**run_task(wait).msg.trigger_kwargs)
    trigger._claim(hook)  # which takes the planned release off the record
    vars(wait).update(rendered_anew)
    with pytest.raises(Exception, match="Trigger failure"):
        wait.resume_execution("__fail__", {"error": "Trigger failure"}, same_try(trigger))
    assert [order.status for order in sim.orders()] == ["cancelled"]


def test_a_wait_that_fails_in_the_triggerer_gives_the_number_back(
    run_task: Any, connection: Any, sim: Simulator
) -> None:
    wait = verifying(print)
    trigger = SmsVerifyOtpTrigger(**run_task(wait).msg.trigger_kwargs)
    event = {"order_id": trigger.order_id, "outcome": "failed", "detail": "it failed", **trigger.passed_on}
    with pytest.raises(SmsVerifyError, match="it failed"):
        resume(wait, trigger, event)
    assert [order.status for order in sim.orders()] == ["cancelled"]


@pytest.mark.parametrize("is_waiting", [True, False])
def test_a_task_gives_back_no_number_that_a_newer_call_with_its_key_has(
    run_task: Any,
    connection: Any,
    hook: SmsVerifyHook,
    sim: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    is_waiting: bool,
) -> None:
    wait = verifying(print, key="mine", timeout=3600)
    trigger = SmsVerifyOtpTrigger(**run_task(wait).msg.trigger_kwargs)

    async def ends() -> dict[str, Any]:
        going_on = await start(trigger, sim) if is_waiting else None
        newer = hook.attempts("temporary", key="mine", service="WhatsApp", max_price="0.50")
        number = await asyncio.to_thread(next, newer)
        an_hour_later = SimpleNamespace(monotonic=lambda: time.monotonic() + 4000, sleep=time.sleep)
        monkeypatch.setattr(waiter, "time", an_hour_later)
        event = await (going_on or event_of(trigger))
        with pytest.raises(PurchaseConflictError, match="a newer call"):
            resume(wait, trigger, event)
        assert [(order.order_id, order.status) for order in sim.orders()] == [
            (number.number.order_id, "pending")
        ]
        return event

    assert run(ends())["outcome"] == ("timeout" if is_waiting else "ended")


def test_a_template_that_gives_another_value_after_the_wait_gives_the_number_back(
    run_task: Any, connection: Any, hook: SmsVerifyHook, sim: Simulator, airflow_says: Any
) -> None:
    wait = verifying(print)
    trigger = SmsVerifyOtpTrigger(**run_task(wait).msg.trigger_kwargs)
    trigger._claim(hook)
    wait.pattern = "("
    with pytest.raises(InvalidRequestError):
        resume(wait, trigger, {"order_id": trigger.order_id, "outcome": "arrived", **trigger.passed_on})
    assert [order.status for order in sim.orders()] == ["cancelled"]


@pytest.mark.parametrize("failure", ["a template", "the wait", "the trigger"])
@pytest.mark.parametrize("retries", [0, 1])
def test_a_try_that_counts_as_dead_leaves_the_number_to_the_next_try(
    run_task: Any,
    connection: Any,
    hook: SmsVerifyHook,
    sim: Simulator,
    airflow_says: Any,
    going_back: Any,
    failure: str,
    retries: int,
) -> None:
    airflow_says("running")
    wait = verifying(print, key="mine")
    trigger = SmsVerifyOtpTrigger(**run_task(wait).msg.trigger_kwargs)
    trigger._claim(hook)
    next_try = SmsVerifyOtpTrigger(**run_task(verifying(print, key="mine")).msg.trigger_kwargs)
    assert next_try.order_id == trigger.order_id
    this_try = same_try(trigger)
    this_try["ti"].max_tries = retries
    event = {"order_id": trigger.order_id, "outcome": "failed", "detail": "it failed", **trigger.passed_on}
    method, end = "execute_complete", {"event": event}
    if failure == "a template":
        wait.pattern = "("
    elif failure == "the trigger":
        method, end = "__fail__", {"error": "Trigger failure"}
    with pytest.raises(Exception):  # noqa: B017, PT011 - what it says, other tests check
        wait.resume_execution(method, end, this_try)
    next_try._claim(hook)
    assert (sim.order(trigger.order_id).status, going_back()) == ("pending", [])


def injecting(function: Callable[..., Any]) -> Callable[..., Any]:
    """As a decorator does that gives a function an argument of its own."""

    @functools.wraps(function)
    def injected(*args: Any, **kwargs: Any) -> Any:
        return function("session", *args, **kwargs)

    return injected


def test_a_function_whose_decorator_adds_an_argument_is_taken() -> None:
    verifying(injecting(lambda session, number: None))


@pytest.mark.parametrize("given", [{"op_args": "{{ params.args }}"}, {"op_kwargs": "{{ params.kwargs }}"}])
def test_arguments_that_are_one_template_are_taken(given: dict[str, Any]) -> None:
    verifying(lambda number, name: None, **given)


@pytest.mark.parametrize("outcome", ["arrived", "timeout", "refused"])
@pytest.mark.parametrize("changed", ["namespace", "account", "store_url", "key"])
def test_a_connection_that_was_changed_during_the_wait_buys_no_second_number(
    run_task: Any,
    connection: dict[str, Any],
    hook: SmsVerifyHook,
    sim: Simulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: str,
    outcome: str,
) -> None:
    form = Form(sim)
    wait = verifying(form.submit)
    trigger = SmsVerifyOtpTrigger(**run_task(wait).msg.trigger_kwargs)
    if outcome == "arrived":
        sim.deliver_sms(trigger.order_id)
        hook.wait_for_otp(trigger.order_id, timeout=60)
    if changed == "key":
        sim.configure(api_key="rotated-key-1")
        now = connection | {"password": "rotated-key-1"}
    else:
        values = {"store_url": f"sqlite:///{tmp_path / 'another.db'}"}
        now = connection | {"extra": connection["extra"] | {changed: values.get(changed, "another")}}
    monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(now))
    event = {
        "order_id": trigger.order_id,
        "outcome": outcome,
        "detail": "",
        "reason": "",
        **trigger.passed_on,
    }
    with pytest.raises(AirflowFailException, match="was bought under another account, namespace or store"):
        resume(wait, trigger, event)
    assert form.typed == [order.order_id for order in sim.orders()]
    assert [order.status for order in sim.orders()] == ["completed" if outcome == "arrived" else "cancelled"]


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("was cancelled", "is cancelled already"),
        ("is unknown", "cancel it with the old one"),
        ("cannot be cancelled now", "tried again"),
    ],
)
def test_an_order_without_records_has_the_fate_that_the_error_says(
    run_task: Any,
    connection: dict[str, Any],
    hook: SmsVerifyHook,
    sim: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    says: str,
) -> None:
    wait = verifying(lambda number: None)
    trigger = SmsVerifyOtpTrigger(**run_task(wait).msg.trigger_kwargs)
    event = {"order_id": trigger.order_id, "outcome": "arrived", **trigger.passed_on}
    now = connection | {"extra": connection["extra"] | {"namespace": "another"}}
    monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(now))
    if what == "was cancelled":
        hook.cancel(trigger.order_id)
        event |= {"outcome": "timeout", "cancelled": True}
    elif what == "is unknown":
        event["order_id"] = 999_999_999
    else:
        sim.add_fault(Fault("error_before", path="order/*/cancel/", times=None))
    with pytest.raises(AirflowFailException, match=says):
        resume(wait, trigger, event)


def test_a_triggerer_with_another_store_gives_the_number_back_at_once(
    run_task: Any,
    connection: dict[str, Any],
    sim: Simulator,
    airflow_says: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    airflow_says("running")
    wait = verifying(print)
    trigger = SmsVerifyOtpTrigger(**run_task(wait).msg.trigger_kwargs)
    with monkeypatch.context() as elsewhere:
        extra = connection["extra"] | {"store_url": f"sqlite:///{tmp_path / 'another.db'}"}
        elsewhere.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(connection | {"extra": extra}))
        event = asyncio.run(event_of(trigger))
    with pytest.raises(AirflowFailException, match="different stores"):
        wait.execute_complete({"ti": Tries(max_tries=1)}, event)
    assert [order.status for order in sim.orders()] == ["cancelled"]
