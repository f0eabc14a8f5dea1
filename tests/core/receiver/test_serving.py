"""Many callbacks at once, the command that takes them, and its death under load."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
from rigs import eventually
from rigs.callbacks import of, rows
from rigs.receiver import ROTATED, SECRET, Serving, payload, receiving
from rigs.wire import closed_port

from smsverify.hook import SmsVerifyHook
from smsverify.models import Order
from smsverify.simulator import Simulator

SOAK = bool(os.environ.get("SMSVERIFY_SOAK"))

MakeHook = Callable[..., SmsVerifyHook]


def send_all(receiver_url: Callable[[], str], bodies: list[dict[str, Any]], connections: int) -> list[int]:
    """Posts all of these, and again whatever is not answered 200, as the service does."""
    acknowledged: list[int] = []
    todo = list(enumerate(bodies))
    lock = threading.Lock()

    def run() -> None:
        session = requests.Session()
        while True:
            with lock:
                if not todo:
                    return
                number, body = todo.pop()
            try:
                status = session.post(receiver_url(), json=body, timeout=10).status_code
            except requests.RequestException:
                status = 0
            with lock:
                if status == 200:
                    acknowledged.append(number)
                else:
                    todo.insert(0, (number, body))
            if status != 200:
                time.sleep(0.02)

    threads = [threading.Thread(target=run) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return acknowledged


@pytest.mark.slow
def test_a_burst_loses_nothing(make_hook: MakeHook, simulator: Simulator, any_store_url: str) -> None:
    hook = make_hook(simulator, any_store_url, callback_secrets=SECRET)
    bodies = [payload(1 + number % 50, "16095170503", f"message {number}") for number in range(1000)]
    with receiving([hook]) as receiver:
        send_all(lambda: receiver.secret_url, [*bodies, *bodies[:200]], 16)
    assert sorted(row.message for row in rows(hook)) == sorted(body["message"]["sms"] for body in bodies)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_gets_a_signal(
    hook: SmsVerifyHook, order: Order, how: signal.Signals
) -> None:
    serving = Serving(hook)
    assert serving.receiver is not None, serving.first_line
    serving.receiver.deliver(of(order))
    assert serving.receiver.post(of(order), f"/callback/{SECRET}-wrong") == 404
    assert hook.check_otp(order.order_id, ask=False) is not None
    code, said = serving.end(how)
    assert code == (0 if how is signal.SIGTERM else 130)
    assert "/callback/<secret>" in said
    assert f"has brought the message of order {order.order_id}" in said
    for secret in (SECRET, ROTATED, "545123"):
        assert secret not in said


@pytest.mark.slow
def test_the_command_says_what_is_missing(hook: SmsVerifyHook) -> None:
    code, said = Serving(hook, SMSVERIFY_CALLBACK_SECRETS="").wait()
    assert (code, "callback_secrets" in said) == (2, True)
    code, said = Serving(hook, SMSVERIFY_CALLBACK_SECRETS="short").wait()
    assert (code, "callback_secrets" in said, "short" in said) == (2, True, False)
    code, said = Serving(
        hook, SMSVERIFY_STORE_URL=f"postgresql+psycopg://u:p@127.0.0.1:{closed_port()}/x"
    ).wait()
    assert (code, "store" in said) == (1, True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, said = Serving(hook, "--port", port).wait()
    assert (code, port in said) == (2, True)


def test_without_the_extra_the_command_says_what_to_install(hook: SmsVerifyHook) -> None:
    code = (
        "import sys; sys.modules['starlette'] = None; from smsverify.cli import main\n"
        "sys.exit(main(['callbacks', 'serve']))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, "smsverify[server]" in done.stderr) == (1, True)


@pytest.mark.slow
def test_what_was_acknowledged_survives_kills(
    make_hook: MakeHook, simulator: Simulator, any_store_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The receiver is killed under load and started again; the sender repeats what got no 200."""
    count, kills = (20_000, 40) if SOAK else (400, 3)
    hook = make_hook(simulator, any_store_url, callback_secrets=SECRET)
    hook.upgrade_store()
    chance = random.Random(5)
    serving = Serving(hook)
    assert serving.receiver is not None, serving.first_line
    url = [serving.receiver.secret_url]
    bodies = [payload(1 + number % 50, "16095170503", f"message {number}") for number in range(count)]
    acknowledged: list[int] = []
    sender = threading.Thread(target=lambda: acknowledged.extend(send_all(lambda: url[0], bodies, 8)))
    sender.start()
    for number in range(kills):
        stored = (number + 1) * count // (kills + 2)
        eventually(lambda: len(rows(hook)) >= stored, "progress", timeout=600)  # noqa: B023
        time.sleep(chance.uniform(0, 0.05))
        serving.end(signal.SIGKILL)
        serving = Serving(hook)
        assert serving.receiver is not None, serving.first_line
        url[0] = serving.receiver.secret_url
    sender.join()
    assert serving.end(signal.SIGTERM)[0] == 0
    kept = sorted(row.message for row in rows(hook))
    assert sorted(acknowledged) == list(range(count))
    assert kept == sorted(body["message"]["sms"] for body in bodies)
    if SOAK:
        with capsys.disabled():
            print(f"  {count} callbacks, {kills} kills of the receiver: none lost, none twice")
