"""The trigger in an event loop of its own: when it fires, what it leaves alone, and what it gives back."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from airflow.sdk.execution_time import supervisor, task_runner
from airflow.triggers.base import TriggerEvent

from smsverify.models import Order
from smsverify.simulator import Simulator
from smsverify.wings import claim
from smsverify_provider import kills
from smsverify_provider.hooks.smsverify import SmsVerifyHook
from smsverify_provider.resuming import RESUME_GAP
from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor
from smsverify_provider.triggers import smsverify as triggers
from smsverify_provider.triggers.smsverify import SmsVerifyOtpTrigger

NEVER = pytest.mark.smsverify_simulator(sms_delay="never")


@pytest.fixture
def order(hook: Any) -> Order:
    return hook.order("temporary", service="WhatsApp")


@pytest.fixture
def make(order: Order) -> Callable[..., SmsVerifyOtpTrigger]:
    """Makes a trigger as the triggerer does: from what is in the metadata database."""

    def make(timeout: float = 60.0, **changes: Any) -> SmsVerifyOtpTrigger:
        arguments = {
            "order_id": order.order_id,
            "deadline": time.time() + timeout,
            "not_before": 0.0,
            "waiter": "the sensor",
            "cancel_on_timeout": True,
            "cancel_on_kill": True,
            "smsverify_conn_id": "smsverify_default",
        }
        trigger = SmsVerifyOtpTrigger(**json.loads(json.dumps(arguments | changes)))
        trigger.task_instance = SimpleNamespace(  # type: ignore[assignment]
            dag_id="dag", run_id="run", task_id="wait", map_index=-1
        )
        return trigger

    return make


class Gate:
    """Lets nobody read settings or plan a release while it is shut: both block."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.waiting = 0

    def pass_through(self) -> None:
        self.waiting += 1
        assert self.open.wait(30), "the gate is opened by the event loop, which is blocked"

    def before(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def gated(*args: Any, **options: Any) -> Any:
            self.pass_through()
            return work(*args, **options)

        return gated


@pytest.fixture
def gate(order: Order, monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate()
    for owner, name in ((SmsVerifyHook, "_load_settings"), (kills, "plan_release")):
        monkeypatch.setattr(owner, name, gate.before(getattr(owner, name)))
    return gate


async def event_of(trigger: SmsVerifyOtpTrigger) -> dict[str, Any]:
    """The payload of a trigger's only event."""
    events: list[TriggerEvent] = [event async for event in trigger.run()]
    (event,) = events
    return event.payload


async def start(trigger: SmsVerifyOtpTrigger, sim: Simulator) -> asyncio.Task[dict[str, Any]]:
    """Runs a trigger until it waits: until the service is asked for its order (again)."""
    before = sim.order(trigger.order_id).status_requests
    running = asyncio.create_task(event_of(trigger))
    await until(lambda: trigger.waiter != "the sensor")
    await until(lambda: sim.order(trigger.order_id).status_requests > before)
    return running


async def kill(trigger: SmsVerifyOtpTrigger, running: asyncio.Task[dict[str, Any]]) -> None:
    """Does to a trigger what the triggerer does when a user has acted on its task."""
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await trigger.on_kill()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def run(awaitable: Awaitable[Any]) -> Any:
    async def main() -> Any:
        return await asyncio.wait_for(awaitable, 60)

    return asyncio.run(main())


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


def test_no_event_comes_before_a_worker_has_let_go_of_the_task(make: Any, sim: Simulator) -> None:
    not_before = time.time() + 1.5
    run(event_of(make(not_before=not_before)))
    assert time.time() >= not_before
    # The race that this avoids: a worker's supervisor may notice this late that its task has deferred.
    assert RESUME_GAP > supervisor.MIN_HEARTBEAT_INTERVAL + 2


@NEVER
def test_a_store_that_fails_for_a_while_does_not_end_the_wait(
    make: Any, sim: Simulator, order: Order, connection: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(triggers, "STORE_PAUSE", 0.05)
    good = os.environ["AIRFLOW_CONN_SMSVERIFY_DEFAULT"]
    connection["extra"]["store_url"] = f"sqlite:///{tmp_path}/missing/smsverify.db"
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


# ------------------------------------------------------------------ being killed


class Comms:
    """Stands for Airflow's supervisor, which says what state the task is in."""

    def __init__(self, state: str | Exception) -> None:
        self._state = state

    async def asend(self, question: Any) -> Any:
        if isinstance(self._state, Exception):
            raise self._state
        return SimpleNamespace(task_states={question.run_ids[0]: {question.task_ids[0]: self._state}})


@NEVER
@pytest.mark.parametrize(
    ("state", "status", "on_record"),
    [
        ("failed", "cancelled", False),  # a user has marked it
        ("deferred", "pending", False),  # its triggerer ends, and another one goes on
        ("queued", "pending", True),  # it was cleared
        (OSError("no answer"), "pending", True),
    ],
)
def test_where_airflow_tells_of_no_kill_a_trigger_that_ends_asks_for_its_task(
    make: Any,
    order: Order,
    sim: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    state: Any,
    status: str,
    on_record: bool,
    going_back: Any,
) -> None:
    monkeypatch.setattr(triggers, "CALLS_ON_KILL", False)

    async def scenario() -> None:
        trigger = make()
        running = await start(trigger, sim)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Comms(state), raising=False)
        await trigger.cleanup()

    run(scenario())
    assert sim.order(order.order_id).status == status
    assert (order.order_id in going_back()) is on_record


@NEVER
def test_the_end_of_a_wait_is_no_kill(
    make: Any, order: Order, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triggers, "CALLS_ON_KILL", False)

    async def scenario() -> None:
        trigger = make(cancel_on_timeout=False, timeout=0.3)
        await event_of(trigger)
        await trigger.cleanup()

    run(scenario())
    assert sim.order(order.order_id).status == "pending"


@NEVER
@pytest.mark.parametrize("state", ["failed", "success", "skipped", "upstream_failed", "removed"])
def test_a_task_that_does_not_run_again_gets_its_number_refunded(
    make: Any, order: Order, sim: Simulator, airflow_says: Any, state: str
) -> None:
    airflow_says(state)

    async def scenario() -> None:
        trigger = make()
        await kill(trigger, await start(trigger, sim))

    run(scenario())
    assert sim.order(order.order_id).status == "cancelled"
    assert sim.balance() == 50


@NEVER
@pytest.mark.parametrize("claims_first", [True, False])
def test_a_kill_at_the_start_gets_the_number_refunded_too(
    make: Any, order: Order, sim: Simulator, gate: Gate, airflow_says: Any, claims_first: bool
) -> None:
    """The kill may overtake the claim of the trigger, which has to leave the release on record then."""

    async def scenario() -> None:
        trigger = make()
        running = asyncio.create_task(event_of(trigger))
        await until(lambda: gate.waiting == 1)
        if claims_first:
            gate.open.set()
            await until(lambda: trigger.waiter != "the sensor")
        running.cancel()
        killing = asyncio.create_task(trigger.on_kill())
        await asyncio.sleep(0.05)
        gate.open.set()
        await killing

    run(scenario())
    assert sim.order(order.order_id).status == "cancelled"


@NEVER
@pytest.mark.parametrize(
    "state", [None, "scheduled", "queued", "running", "deferred", "up_for_retry", OSError("no answer")]
)
def test_a_cleared_task_keeps_its_number_however_long_its_next_try_has_to_queue(
    make: Any,
    order: Order,
    sim: Simulator,
    airflow_says: Any,
    state: Any,
    going_back: Any,
    carry_out_releases: Any,
) -> None:
    airflow_says(state)

    async def scenario() -> dict[str, Any]:
        trigger = make()
        await kill(trigger, await start(trigger, sim))
        # If that try never comes, another process carries the release out, but not for a while.
        assert order.order_id in going_back()
        carry_out_releases()
        assert sim.order(order.order_id).status == "pending"
        next_try = make()
        running = await start(next_try, sim)
        assert order.order_id not in going_back()
        sim.deliver_sms(order.order_id)
        return await running

    assert run(scenario())["outcome"] == "arrived"


@NEVER
def test_a_kill_that_overtakes_the_claim_stays_on_record(
    make: Any, order: Order, sim: Simulator, hook: Any, airflow_says: Any, going_back: Any
) -> None:
    airflow_says("queued")
    claim(hook, order.order_id, "the sensor")
    trigger = make()
    trigger._give_back(hook, None)
    trigger._claim(hook)  # in a thread that nobody can stop
    assert order.order_id in going_back()


@NEVER
def test_the_number_of_a_cleared_task_that_never_runs_again_is_given_back_later(
    make: Any,
    order: Order,
    sim: Simulator,
    airflow_says: Any,
    monkeypatch: pytest.MonkeyPatch,
    carry_out_releases: Any,
) -> None:
    airflow_says("queued")
    monkeypatch.setattr(kills, "REQUEUE", 0.0)

    async def scenario() -> None:
        trigger = make()
        await kill(trigger, await start(trigger, sim))

    run(scenario())
    assert sim.order(order.order_id).status == "pending"
    run(until(lambda: carry_out_releases() or sim.order(order.order_id).status == "cancelled"))


@NEVER
def test_the_release_is_on_record_before_anybody_is_asked(
    make: Any, order: Order, sim: Simulator, monkeypatch: pytest.MonkeyPatch, going_back: Any
) -> None:
    """A triggerer that dies while it asks for the state of the task must not forget the number."""
    asked, answer = threading.Event(), threading.Event()

    def state_of(_ti: Any) -> str:
        asked.set()
        assert answer.wait(30)
        return "failed"

    monkeypatch.setattr(kills, "state_of", state_of)

    async def scenario() -> None:
        trigger = make()
        killing = asyncio.create_task(kill(trigger, await start(trigger, sim)))
        await until(asked.is_set)
        assert order.order_id in going_back()
        answer.set()
        await killing

    run(scenario())
    assert sim.order(order.order_id).status == "cancelled"


@NEVER
def test_a_next_try_that_waits_already_keeps_the_number(
    make: Any, order: Order, sim: Simulator, hook: Any, airflow_says: Any
) -> None:
    async def scenario() -> None:
        trigger = make()
        running = await start(trigger, sim)
        claim(hook, order.order_id, "the next try")
        await kill(trigger, running)

    run(scenario())
    assert sim.order(order.order_id).status == "pending"


@NEVER
def test_a_trigger_that_moves_to_another_triggerer_keeps_its_number(
    make: Any, order: Order, sim: Simulator, airflow_says: Any
) -> None:
    """Airflow calls `on_kill` of the trigger that is left behind, although no user has done anything."""

    async def scenario() -> dict[str, Any]:
        left_behind, moved = make(), make()
        running = await start(left_behind, sim)
        still_running = await start(moved, sim)
        await kill(left_behind, running)
        sim.deliver_sms(order.order_id)
        return await still_running

    assert run(scenario())["outcome"] == "arrived"


@NEVER
def test_a_number_whose_code_has_come_is_not_given_back(
    make: Any, order: Order, sim: Simulator, hook: Any, airflow_says: Any
) -> None:
    async def scenario() -> None:
        trigger = make(not_before=time.time() + 60)
        running = await start(trigger, sim)
        sim.deliver_sms(order.order_id)
        await until(lambda: hook.check_otp(order.order_id, ask=False) is not None)
        await kill(trigger, running)

    run(scenario())
    assert sim.order(order.order_id).status == "completed"


@NEVER
def test_on_request_a_kill_leaves_the_number_alone(
    make: Any, order: Order, sim: Simulator, airflow_says: Any
) -> None:
    async def scenario() -> None:
        trigger = make(cancel_on_kill=False)
        await kill(trigger, await start(trigger, sim))

    run(scenario())
    assert sim.order(order.order_id).status == "pending"


@NEVER
def test_hundreds_that_are_killed_at_once_wait_side_by_side(
    make: Any, sim: Simulator, airflow_says: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow gives each thirty seconds; the loop's own few threads would serve them one after the other."""
    many = 100
    together = threading.Barrier(many)
    monkeypatch.setattr(
        "smsverify_provider.kills.plan_release", lambda *args, **options: together.wait(30) * 0
    )

    async def scenario() -> None:
        await asyncio.gather(*[make().on_kill() for _ in range(many)])

    run(scenario())
    assert not together.broken


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
