"""The trigger of a wait as the triggerer runs it: its start, its event and its kill."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from airflow.triggers.base import TriggerEvent

from smsverify.simulator import Simulator
from smsverify_provider.triggers.smsverify import SmsVerifyOtpTrigger


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


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def run(awaitable: Awaitable[Any]) -> Any:
    async def main() -> Any:
        return await asyncio.wait_for(awaitable, 60)

    return asyncio.run(main())
