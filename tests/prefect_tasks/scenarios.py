"""Flows that wait for ever, in processes that the tests bring down: `python scenarios.py <flow> [<signal>]`.

The account is that of the environment, whose SMS never come. With a signal, the process sends it to itself
as soon as a number has been ordered.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from typing import Any

from prefect import flow, task, unmapped
from prefect.task_runners import ProcessPoolTaskRunner
from prefect.transactions import transaction

from prefect_smsverify import (
    SmsVerifyCredentials,
    aorder_number,
    arented_number,
    await_otp,
    order_number,
    rented_number,
    wait_for_otp,
    wait_for_otps,
)
from smsverify import Order

ACCOUNT = SmsVerifyCredentials()


def three_orders() -> list[Order]:
    return [order_number(ACCOUNT, "temporary", service="WhatsApp") for _ in range(3)]


@flow
def direct() -> None:
    order = order_number(ACCOUNT, "temporary", service="WhatsApp")
    wait_for_otp(ACCOUNT, order)


@flow
def mapped() -> None:
    wait_for_otp.map(unmapped(ACCOUNT), three_orders()).result()


@flow
def mapped_coroutines() -> None:
    await_otp.map(unmapped(ACCOUNT), three_orders()).result()


@flow
def submitted_at_once() -> None:
    wait_for_otps.submit(ACCOUNT, three_orders()).result()


@flow
async def gathered() -> None:
    orders = [await aorder_number(ACCOUNT, "temporary", service="WhatsApp") for _ in range(3)]
    await asyncio.gather(*(await_otp(ACCOUNT, order) for order in orders))


@flow
def chained_in_a_transaction() -> None:
    with transaction():
        orders = order_number.map(unmapped(ACCOUNT), "temporary", service=["WhatsApp"] * 3)
        wait_for_otp.map(unmapped(ACCOUNT), orders).result()


@task
def rents(_: int) -> None:
    with rented_number(ACCOUNT, "temporary", service="WhatsApp") as number:
        number.wait_for_otp()


@flow
def mapped_wrappers() -> None:
    rents.map([1, 2, 3]).result()


@task
def runs_a_subflow() -> None:
    mapped()


@flow
def subflow_in_a_task() -> None:
    runs_a_subflow.submit().result()


@flow
def busy_with_a_rented_number() -> None:
    with rented_number(ACCOUNT, "temporary", service="WhatsApp"):
        time.sleep(1000)


@flow
async def busy_coroutine_with_a_rented_number() -> None:
    async with arented_number(ACCOUNT, "temporary", service="WhatsApp"):
        await asyncio.sleep(1000)


@task
def uses_the_hook(way: str) -> None:
    hook = ACCOUNT.get_hook()
    if way == "waits":
        hook.wait_for_otp(hook.order("temporary", service="WhatsApp").order_id)
    elif way == "verifies":
        hook.verify(lambda order: None, "temporary", service="WhatsApp")
    else:
        with hook.rented_number("temporary", service="WhatsApp") as number:
            number.wait_for_otp()


@flow
def mapped_hooks() -> None:
    uses_the_hook.map(["waits", "verifies", "rents"]).result()


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def in_processes() -> None:
    orders = [order_number(ACCOUNT, "temporary", service="WhatsApp") for _ in range(2)]
    wait_for_otp.map(unmapped(ACCOUNT), orders, timeout=300, cancel_on_timeout=False).result()


@flow
def renting() -> None:
    with rented_number(ACCOUNT, "temporary", service="WhatsApp") as number:
        number.wait_for_otp()


@flow
async def renting_coroutine() -> None:
    async with arented_number(ACCOUNT, "temporary", service="WhatsApp") as number:
        await number.await_otp()


@flow
def ordering() -> None:
    order_number.map(unmapped(ACCOUNT), "temporary", service=["WhatsApp"] * 3).result()


class SignalAfterPurchase(logging.Filter):
    """Sends a signal when the task that orders has ended, and its caller does not know that yet."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._signal = signal.Signals[name]

    def filter(self, record: logging.LogRecord) -> bool:
        if "Order number" in getattr(record, "task_run_name", "") and "Finished" in record.getMessage():
            os.kill(os.getpid(), self._signal)
        return True


def main(name: str, signal_name: str | None = None) -> Any:
    if signal_name is not None:
        logging.getLogger("prefect.task_runs").addFilter(SignalAfterPurchase(signal_name))
    if name == "serve":
        return mapped.serve(name="scenario")
    running: Any = globals()[name]()
    return asyncio.run(running) if asyncio.iscoroutine(running) else running


if __name__ == "__main__":
    # A shell starts what runs in its background with this signal ignored, and processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(*sys.argv[1:])
