"""The trigger in an event loop of its own: when it fires, and what it leaves alone."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from airflow.sdk.execution_time import supervisor
from rigs.outages import TwoOutages
from trigger_runs import Gate, event_of, kill, run, start, until

from smsverify.models import Order
from smsverify.simulator import Simulator
from smsverify.wings import store_time
from smsverify_provider.resuming import RESUME_GAP
from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor
from smsverify_provider.triggers import smsverify as triggers

NEVER = pytest.mark.smsverify_simulator(sms_delay="never")


def test_its_event_says_that_the_code_has_come_and_not_what_it_is(
    make: Any, order: Order, sim: Simulator
) -> None:
    event = run(event_of(make()))
    assert event == {"order_id": order.order_id, "outcome": "arrived"}


@NEVER
def test_at_its_deadline_it_cancels(make: Any, order: Order, sim: Simulator) -> None:
    event = run(event_of(make(timeout=0.3)))
    assert (event["outcome"], event["cancelled"]) == ("timeout", True)
    assert sim.order(order.order_id).status == "cancelled"


@NEVER
def test_a_deadline_that_passed_while_no_triggerer_ran_still_cancels(
    make: Any, order: Order, sim: Simulator
) -> None:
    event = run(event_of(make(timeout=-3600.0)))
    assert (event["outcome"], event["cancelled"]) == ("timeout", True)
    assert sim.balance() == 50


def test_no_event_comes_before_a_worker_has_let_go_of_the_task(make: Any, hook: Any, sim: Simulator) -> None:
    not_before = store_time(hook) + 1.5
    run(event_of(make(not_before=not_before)))
    assert store_time(hook) >= not_before
    # The race that this avoids: a worker's supervisor may notice this late that its task has deferred.
    assert RESUME_GAP > supervisor.MIN_HEARTBEAT_INTERVAL + 2


@NEVER
def test_a_store_that_fails_for_a_while_does_not_end_the_wait_and_is_logged_once(
    make: Any,
    sim: Simulator,
    order: Order,
    connection: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(triggers, "STORE_PAUSE", 0.05)
    monkeypatch.setattr(triggers.SmsVerifyOtpTrigger, "log", logging.getLogger(__name__))
    good = os.environ["AIRFLOW_CONN_SMSVERIFY_DEFAULT"]
    connection["extra"]["store_url"] = f"sqlite:///{__file__}/smsverify.db"  # no folder
    monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(connection))

    async def scenario() -> dict[str, Any]:
        trigger = make()
        running = asyncio.create_task(event_of(trigger))
        await asyncio.sleep(0.3)
        assert not running.done()
        monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", good)
        sim.deliver_sms(order.order_id)
        return await running

    assert run(scenario())["outcome"] == "arrived"
    assert caplog.text.count("has to begin again") == 1


@NEVER
def test_each_outage_is_logged_once_where_the_store_takes_the_claim_and_refuses_the_wait(
    make: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(triggers, "STORE_PAUSE", 0.0)
    monkeypatch.setattr(triggers.SmsVerifyOtpTrigger, "log", logging.getLogger(__name__))
    outages = TwoOutages(monkeypatch)

    async def await_otp(*_args: Any, **_options: Any) -> None:
        outages.strike()

    monkeypatch.setattr("smsverify.hook.SmsVerifyHook.await_otp", await_otp)
    assert run(event_of(make()))["outcome"] == "arrived"
    assert outages.are_over()
    assert caplog.text.count("has to begin again") == 2


@pytest.mark.slow
@NEVER
def test_a_store_that_does_not_answer_leaves_airflow_its_threads(
    make: Any, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(
        triggers.SmsVerifyOtpTrigger, "_claim", lambda _trigger, _hook: answers.wait(30) and None
    )

    async def scenario() -> str:
        waits = [asyncio.create_task(event_of(make())) for _ in range(50)]
        await asyncio.sleep(0.3)
        try:
            return await asyncio.wait_for(asyncio.to_thread(lambda: "done"), 5)
        finally:
            answers.set()
            await asyncio.gather(*waits)

    assert run(scenario()) == "done"


@NEVER
@pytest.mark.parametrize("is_known", [True, False])
def test_a_wait_goes_on_with_the_key_that_the_connection_has_by_now(
    make: Any,
    sim: Simulator,
    order: Order,
    connection: Any,
    monkeypatch: pytest.MonkeyPatch,
    is_known: bool,
) -> None:
    async def scenario() -> dict[str, Any]:
        running = await start(make(), sim)
        if is_known:
            monkeypatch.setenv(
                "AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(connection | {"password": "rotated-key-1"})
            )
        sim.configure(api_key="rotated-key-1")
        sim.deliver_sms(order.order_id)
        return await running

    assert run(scenario())["outcome"] == ("arrived" if is_known else "refused")


@NEVER
def test_the_loop_is_never_blocked(
    make: Any, order: Order, sim: Simulator, gate: Gate, airflow_says: Any
) -> None:
    """All triggers of a triggerer live in one loop, and Airflow gives up on one that does not answer."""

    async def scenario() -> None:
        trigger = make()
        running = asyncio.create_task(event_of(trigger))
        await until(lambda: gate.waiting == 1)
        gate.open.set()
        await until(lambda: trigger.waiter != "the sensor")
        gate.open.clear()
        killing = asyncio.create_task(kill(trigger, running))
        await until(lambda: gate.waiting == 2)
        gate.open.set()
        await killing

    run(scenario())
    assert sim.order(order.order_id).status == "cancelled"


@NEVER
def test_triggers_that_begin_together_read_their_connection_once(
    make: Any, order: Order, sim: Simulator, gate: Gate
) -> None:
    async def scenario() -> list[dict[str, Any]]:
        some = [asyncio.create_task(event_of(make())) for _ in range(5)]
        await until(lambda: gate.waiting == 1)
        some[0].cancel()
        gate.open.set()
        await until(lambda: sim.order(order.order_id).status_requests > 0)
        assert gate.waiting == 1
        # One that begins later reads it anew: the key may be another one by now.
        late = asyncio.create_task(event_of(make()))
        await until(lambda: gate.waiting == 2)
        sim.deliver_sms(order.order_id)
        return await asyncio.gather(*some[1:], late)

    assert [event["outcome"] for event in run(scenario())] == 5 * ["arrived"]


@NEVER
def test_it_waits_for_the_message_that_the_sensor_wants(make: Any, hook: Any, sim: Simulator) -> None:
    rental = hook.order("rental", service="WhatsApp", duration=3)
    sim.deliver_sms(rental.order_id, text="Foo: 11111")
    after = hook.wait_for_otp(rental.order_id, 60).as_dict()["received_at"]
    trigger = make(order_id=rental.order_id, after=after, pattern="Foo: ([0-9]+)")
    assert (
        trigger.serialize()[1].items() >= {"after": after, "sender": None, "pattern": "Foo: ([0-9]+)"}.items()
    )

    async def main() -> Any:
        running = await start(trigger, sim)
        assert not running.done()
        sim.deliver_sms(rental.order_id, text="Foo: 22222")
        return await running

    assert run(main()) == {"order_id": rental.order_id, "outcome": "arrived"}


@NEVER
def test_a_triggerer_with_another_store_says_so_and_the_number_is_given_back(
    connection: Any, order: Order, sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify_provider.resuming.RESUME_GAP", 0.2)
    sensor = SmsVerifyOtpSensor(task_id="wait", order_id=order.order_id, deferrable=True, timeout=60)
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute({"ti": None})
    trigger = deferred.value.trigger
    elsewhere = connection["extra"] | {"store_url": f"sqlite:///{tmp_path}/of-the-triggerer.db"}
    monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(connection | {"extra": elsewhere}))
    event = run(event_of(trigger))
    assert event["outcome"] == "other_store"
    monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(connection))
    with pytest.raises(AirflowFailException, match="different stores"):
        sensor.execute_complete({}, event)
    assert sim.order(order.order_id).status == "cancelled"
