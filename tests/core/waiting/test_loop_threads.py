"""Coroutines that wait for codes need none of the threads of their event loop."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest
from rigs.loops import full_loop
from rigs.waits import buy

from smsverify import WaitTimeoutError
from smsverify._runtime.loop_threads import LoopThreads
from smsverify.hook import SmsVerifyHook
from smsverify.models import Message
from smsverify.simulator import Simulator

PATIENT = 30.0  # seconds; clearly less than the threads of the loop are busy for


def test_waits_begin_and_end_in_time_while_the_threads_of_the_loop_are_busy(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    silent, delivered = buy(hook, 2)
    simulator.deliver_sms(delivered, otp="123456")

    async def run() -> tuple[Message, WaitTimeoutError]:
        with full_loop():
            message = await asyncio.wait_for(hook.await_otp(delivered, PATIENT), PATIENT)
            with pytest.raises(WaitTimeoutError) as caught:
                await asyncio.wait_for(hook.await_otp(silent, 0.1), PATIENT)
        return message, caught.value

    message, error = asyncio.run(run())
    assert message.otp == "123456"
    assert error.cancelled
    assert simulator.order(silent).status == "cancelled"


def test_a_wait_in_a_block_begins_in_time_while_the_threads_of_the_loop_are_busy(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    async def run() -> Message:
        with hook.rented_number("temporary", service="WhatsApp") as number, full_loop():
            simulator.deliver_sms(number.order_id, otp="123456")
            return await asyncio.wait_for(number.await_otp(PATIENT), PATIENT)

    assert asyncio.run(run()).otp == "123456"


def test_what_must_come_to_its_end_does_so_however_often_it_is_cancelled() -> None:
    threads, may_begin, done = LoopThreads(1, "test"), threading.Event(), threading.Event()

    async def run() -> None:
        before = asyncio.create_task(threads.run(lambda: may_begin.wait(PATIENT)))
        task = asyncio.create_task(threads.run_to_end(done.set))
        await asyncio.sleep(0.1)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert task.cancelled()
        may_begin.set()
        assert await before

    asyncio.run(run())
    assert done.wait(PATIENT)


def test_what_has_not_begun_is_not_done_after_a_cancellation() -> None:
    threads, may_begin, done = LoopThreads(1, "test"), threading.Event(), threading.Event()

    async def run() -> None:
        before = asyncio.create_task(threads.run(lambda: may_begin.wait(PATIENT)))
        task = asyncio.create_task(threads.run(done.set))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.sleep(0)
        may_begin.set()
        assert await before
        await threads.run(lambda: None)  # what came before it has ended, too

    asyncio.run(run())
    assert not done.is_set()


def test_a_forked_child_has_threads_of_its_own() -> None:
    threads = LoopThreads(1, "test")

    async def run() -> int:
        return await asyncio.wait_for(threads.run(os.getpid), PATIENT)

    assert asyncio.run(run()) == os.getpid()
    child = os.fork()
    if child == 0:
        os._exit(0 if asyncio.run(run()) == os.getpid() else 1)
    deadline = time.monotonic() + PATIENT
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ended == (child, 0)
