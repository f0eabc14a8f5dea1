"""Callbacks beside Prefect: a receiver for the accounts of blocks, and flows that find what has come."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from prefect import flow
from rigs import eventually

from prefect_smsverify import SmsVerifyCredentials, order_number, serve_callbacks, wait_for_otp
from smsverify.errors import InvalidRequestError
from smsverify.simulator import Simulator

SECRET = "the-SECRET-of-this-url"
SERVE = "import sys; from prefect_smsverify import serve_callbacks; serve_callbacks(*sys.argv[1:], port=0)"


@pytest.mark.slow
def test_a_flow_gets_its_code_by_a_callback(
    simulate: Callable[..., Simulator], prefect_server: str, tmp_path: Path
) -> None:
    simulator = simulate(sms_delay="never")
    store = f"sqlite:///{tmp_path / 'callbacks.db'}"
    block = SmsVerifyCredentials(store_url=store, callback_secrets=[SECRET])
    block.save("callbacks", overwrite=True)
    # What is wrong with these is their own trouble.
    SmsVerifyCredentials(store_url=store, account="without").save("without", overwrite=True)

    @flow
    def sign_up() -> str | None:
        order = order_number("callbacks", "temporary", service="WhatsApp")
        message = {"order_id": order.order_id, "number": order.phone_digits, "sms": "Your code is 545123"}
        payload = {"event": "incoming_message", "message": message}
        eventually(lambda: requests.post(url, json=payload, timeout=60).status_code == 200, "a 200")
        before.append(simulator.stats().requests)
        return wait_for_otp("callbacks", order.order_id, timeout=60).otp

    before: list[int] = []
    receiver = subprocess.Popen(
        [sys.executable, "-c", SERVE, "callbacks", "missing", "without"],
        env=os.environ
        | {"PREFECT_API_URL": prefect_server, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert receiver.stderr is not None
        before_it = []
        for said in receiver.stderr:
            if "taking callbacks at" in said:
                break
            before_it.append(said)
        assert sum("taken for the block 'missing'" in line for line in before_it) == 1
        assert sum("An account gets no callbacks now: callback_secrets" in line for line in before_it) == 1
        url = said.split()[3].replace("<secret>", SECRET)
        assert sign_up() == "545123"
        assert [simulator.stats().requests] == before
    finally:
        receiver.send_signal(signal.SIGTERM)
        _, rest = receiver.communicate(timeout=60)
    assert SECRET not in said + rest
    assert "545123" not in rest


def test_an_account_without_a_secret_is_refused(simulate: Callable[..., Simulator]) -> None:
    simulate()
    with pytest.raises(InvalidRequestError, match="callback_secrets"):
        serve_callbacks(SmsVerifyCredentials(), port=0)


def test_no_account_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="no account is given"):
        serve_callbacks()
