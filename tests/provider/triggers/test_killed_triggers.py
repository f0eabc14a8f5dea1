"""A trigger that is killed, in an event loop of its own: which numbers it gives back, and which it keeps."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time import task_runner
from trigger_runs import Gate, event_of, kill, run, start, until

from smsverify.models import Order
from smsverify.simulator import Simulator
from smsverify.wings import claim, store_time
from smsverify_provider import kills
from smsverify_provider.triggers import smsverify as triggers

NEVER = pytest.mark.smsverify_simulator(sms_delay="never")


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
        trigger = make(not_before=store_time(hook) + 60)
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
