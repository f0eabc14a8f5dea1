"""The logs of a run say what happens, and secrets are in nothing that Prefect keeps."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from prefect import flow, unmapped
from prefect.settings import PREFECT_RESULTS_PERSIST_BY_DEFAULT, temporary_settings

from prefect_smsverify import SmsVerifyCredentials, order_number, wait_for_otp, wait_for_otps
from smsverify import Order, WaitTimeoutError
from smsverify.simulator import Simulator

KEY = "key-that-nobody-may-see"
TEXT = "Good morning Mrs Violet"


def await_in_logs(database: Path, expected: list[str]) -> None:
    """Waits until the server has these lines of runs, which Prefect sends in batches."""
    deadline = time.monotonic() + 120
    while True:
        with sqlite3.connect(database) as connection:
            lines = {row[0] for row in connection.execute("SELECT message FROM log")}
        missing = [line for line in expected if not any(line in found for found in lines)]
        if not missing:
            return
        assert time.monotonic() < deadline, missing
        time.sleep(0.2)


def test_progress_is_logged_and_secrets_are_not_kept(
    simulate: Any, prefect_database: Path, results: Path
) -> None:
    simulator: Simulator = simulate(
        api_key=KEY, services={"whatsapp": {"digits": 12, "text": f"{TEXT}, your code is {{otp}}"}}
    )
    account = SmsVerifyCredentials(api_key=KEY)

    @flow(persist_result=True)
    def takes(ordered: Order) -> Order:
        assert ordered.activation_code
        return ordered

    @flow
    def main_job() -> str:
        esim = order_number(account, "esim", plan="USA 1GB / 7 days")
        assert esim.activation_code
        takes(esim)
        orders = order_number.map(unmapped(account), "temporary", service=["WhatsApp"] * 3)
        wait_for_otp.map(unmapped(account), orders).result()
        wait_for_otps(account, [order_number(account, "temporary", service="WhatsApp")])
        order_number(account, "rental", service="WhatsApp", duration=7)
        return ""

    # Not even a server that keeps all results makes these tasks keep theirs.
    with temporary_settings({PREFECT_RESULTS_PERSIST_BY_DEFAULT: True}):
        main_job(return_state=True)

    orders = simulator.orders()
    numbers = [order for order in orders if order.product == "temporary"]
    await_in_logs(
        prefect_database,
        [f"Bought order {order.order_id} (" for order in orders]
        + [f"The code for order {order.order_id} has arrived" for order in numbers],
    )

    secrets = [KEY, TEXT, *(order.otp for order in numbers)]
    secrets += [order.activation_code for order in orders if order.activation_code]
    assert len(secrets) == 2 + 4 + 1
    kept = [path for path in results.rglob("*") if path.is_file()]
    kept += prefect_database.parent.glob(f"{prefect_database.name}*")
    for path in kept:
        content = path.read_bytes()
        for secret in secrets:
            assert secret.encode() not in content, (path, secret)


def test_what_has_become_of_a_wait_is_in_the_logs_of_its_run(
    silent: Simulator, account: SmsVerifyCredentials, prefect_database: Path, store_refuses: Any
) -> None:
    @flow
    def main_job() -> int:
        ordered = order_number(account, "temporary", service="WhatsApp")
        (error,) = wait_for_otps(account, [ordered], timeout=0.1, cancel_on_timeout=False)
        assert isinstance(error, WaitTimeoutError)
        with store_refuses("INSERT ON smsverify_waits"):
            wait_for_otp.with_options(retries=1)(account, ordered, return_state=True)
        return ordered.order_id

    order_id = main_job()
    await_in_logs(
        prefect_database,
        [f"no code came in time for order {order_id}", f"Order {order_id} is to be given back in 600 s"],
    )
