"""Flows that wait for ever, in processes that the tests bring down: `python scenarios.py <flow>`.

The account is that of the environment, whose SMS never come.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from prefect import flow, task, unmapped
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


@flow
def ordering() -> None:
    order_number.map(unmapped(ACCOUNT), "temporary", service=["WhatsApp"] * 3).result()


def main(name: str) -> Any:
    if name == "serve":
        return mapped.serve(name="scenario")
    running: Any = globals()[name]()
    return asyncio.run(running) if asyncio.iscoroutine(running) else running


if __name__ == "__main__":
    main(sys.argv[1])
