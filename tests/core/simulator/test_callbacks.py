"""The callbacks that the simulator posts, seen from the receiver's side."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest
import requests

from smsverify.simulator import Simulator

SECRET_PATH = "/api/callback/very-secret"


@dataclass
class Receiver:
    """Records what is posted; `answers` gives the statuses of the first posts, 200 follows."""

    port: int = 0
    answers: list[int] = field(default_factory=list)
    pause: float = 0.0
    posts: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    on_post: Callable[[], None] = lambda: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{SECRET_PATH}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            receiver.on_post()
            receiver.posts.append((time.monotonic(), self.path, body))
            time.sleep(receiver.pause)
            self.send_response(receiver.answers.pop(0) if receiver.answers else 200)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.port = server.server_port
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield receiver
    server.shutdown()
    server.server_close()


def buy(simulator: Simulator, product: str = "temporary", **body: Any) -> int:
    answer = requests.post(
        f"{simulator.url}/api/v1/order/{product}/",
        json=body,
        headers={"Authorization": f"Bearer {simulator.api_key}"},
        timeout=30,
    ).json()
    return int(answer.get("data", answer)["order_id"])


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def delivered(simulator: Simulator) -> int:
    return sum(record.delivered for record in simulator.callbacks())


def test_an_sms_is_posted_as_documented(receiver: Receiver) -> None:
    with Simulator(callback_url=receiver.url, speed=100, sms_delay=1) as simulator:
        order_id = buy(simulator, service_id=58)
        wait_for(lambda: delivered(simulator))
        order = simulator.order(order_id)
    [(_, path, body)] = receiver.posts
    assert path == SECRET_PATH
    assert body == {
        "event": "incoming_message",
        "message": {
            "order_id": order_id,
            "number": "14155550123",
            "service": "paypal",
            "sender": "8843",
            "sms": f"Your PayPal OTP is {order.otp}",
            "type": "str",
        },
    }


def test_without_a_url_nothing_is_posted_and_a_url_may_come_later(receiver: Receiver) -> None:
    with Simulator(sms_delay="never") as simulator:
        order_id = buy(simulator, service_id=1012)
        simulator.deliver_sms(order_id)
        simulator.configure(callback_url=receiver.url)
        simulator.deliver_sms(order_id, text="a second one", sender="42")
        wait_for(lambda: delivered(simulator))
        assert len(simulator.callbacks()) == 1
    message = receiver.posts[0][2]["message"]
    assert (message["sms"], message["sender"]) == ("a second one", "42")


def test_anything_but_a_2xx_is_posted_again_with_a_doubling_pause(receiver: Receiver) -> None:
    receiver.answers = [500, 301, 404]
    with Simulator(callback_url=receiver.url, speed=100, callback_backoff=10, sms_delay="never") as simulator:
        simulator.deliver_sms(buy(simulator, service_id=1012))
        wait_for(lambda: delivered(simulator))
        records = simulator.callbacks()
    assert [(r.attempt, r.status, r.delivered) for r in records] == [
        (1, 500, False),
        (2, 301, False),
        (3, 404, False),
        (4, 200, True),
    ]
    assert {path for _, path, _ in receiver.posts} == {SECRET_PATH}
    assert len({json.dumps(body) for _, _, body in receiver.posts}) == 1
    times = [at for at, _, _ in receiver.posts]
    pauses = [after - before for before, after in pairwise(times)]
    assert all(pause >= least for pause, least in zip(pauses, (0.1, 0.2, 0.4), strict=True))


def test_a_receiver_that_is_slow_or_not_there_counts_as_failed(receiver: Receiver) -> None:
    receiver.pause = 1.0
    with Simulator(callback_url=receiver.url, callback_timeout=0.2, sms_delay="never") as simulator:
        simulator.deliver_sms(buy(simulator, service_id=1012))
        wait_for(simulator.callbacks)
        assert [(r.status, r.error) for r in simulator.callbacks()] == [(None, "timed out")]
        simulator.configure(callback_url="http://127.0.0.1:1/")
        simulator.deliver_sms(buy(simulator, service_id=1012))
        wait_for(lambda: len(simulator.callbacks()) > 1)
        assert simulator.callbacks()[1].error == "ConnectionRefusedError"


def test_the_retries_are_given_up_in_the_end(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.answers = [503] * 50
    caplog.set_level(logging.INFO, "smsverify.simulator")
    with Simulator(
        callback_url=receiver.url, callback_backoff=1, callback_give_up=3.5, speed=20, sms_delay="never"
    ) as simulator:
        simulator.deliver_sms(buy(simulator, service_id=1012))
        wait_for(lambda: "given up" in caplog.text)
        # Tries at 0, 1 and 3 seconds at the earliest; the next one would come at 7.
        assert 1 <= len(simulator.callbacks()) <= 3
        assert len(simulator.callbacks()) == len(receiver.posts)


def test_duplicates_follow_each_delivery(receiver: Receiver) -> None:
    with Simulator(callback_url=receiver.url, callback_duplicates=2, sms_delay="never") as simulator:
        simulator.deliver_sms(buy(simulator, service_id=1012))
        wait_for(lambda: delivered(simulator) == 3)
        assert [record.copy for record in simulator.callbacks()] == [0, 1, 2]
    assert len({json.dumps(body) for _, _, body in receiver.posts}) == 1


def test_a_callback_may_come_late(receiver: Receiver) -> None:
    with Simulator(callback_url=receiver.url, callback_delay=30, speed=100, sms_delay="never") as simulator:
        order_id = buy(simulator, service_id=1012)
        before = time.monotonic()
        simulator.deliver_sms(order_id)
        assert simulator.order(order_id).status == "completed"
        wait_for(lambda: delivered(simulator))
    assert receiver.posts[0][0] - before >= 0.3


def test_a_callback_may_come_before_the_purchase_is_answered(receiver: Receiver) -> None:
    with Simulator(callback_url=receiver.url, callback_before_answer=True) as simulator:
        answered: list[int] = []
        seen_at_post: list[int] = []
        receiver.on_post = lambda: seen_at_post.append(len(answered))
        answered.append(buy(simulator, service_id=1012))
        assert seen_at_post == [0]
        assert receiver.posts[0][2]["message"]["order_id"] == answered[0]
        simulator.configure(sms_delay="never")
        buy(simulator, "rental", service="WhatsApp", duration=3)
        assert len(simulator.callbacks()) == 1


def test_a_deposit_is_posted_to_the_wallet_callback(receiver: Receiver) -> None:
    with Simulator(wallet_callback_url=receiver.url, balance="1.00") as simulator:
        simulator.deposit("2.50")
        wait_for(lambda: delivered(simulator))
        assert simulator.balance() == Decimal("3.50")
    assert receiver.posts[0][2] == {
        "event": "wallet_deposit",
        "amount": 2.5,
        "balance": 3.5,
        "currency": "USD",
    }


def test_a_reset_ends_the_retries(receiver: Receiver) -> None:
    receiver.answers = [500]
    with Simulator(callback_url=receiver.url, callback_backoff=0.01, sms_delay="never") as simulator:
        receiver.on_post = simulator.reset
        simulator.deliver_sms(buy(simulator, service_id=1012))
        wait_for(lambda: receiver.posts)
        order_id = buy(simulator, service_id=1012)
        receiver.on_post = lambda: None
        simulator.deliver_sms(order_id)
        wait_for(lambda: delivered(simulator))
        assert [record.attempt for record in simulator.callbacks()] == [1]
        assert len(receiver.posts) == 2


def test_no_log_line_holds_a_code_a_text_a_key_or_the_callbacks_path(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver.answers = [500]
    url, key = receiver.url, "key-that-stays-out"
    with Simulator(
        callback_url=url, callback_backoff=1, speed=100, api_key=key, sms_delay="never"
    ) as simulator:
        order_id = buy(simulator, service_id=1012)
        simulator.deliver_sms(order_id, otp="739154", text="Your secret is 739154")
        esim = simulator.order(buy(simulator, "esim", plan="USA 1GB / 7 days"))
        wait_for(lambda: delivered(simulator))
        text = (
            caplog.text + repr(simulator.orders()) + repr(simulator.callbacks()) + repr(simulator.requests())
        )
    assert f"order {order_id}: SMS" in text
    for secret in ("739154", "Your secret", key, "very-secret", esim.activation_code):
        assert secret
        assert secret not in text
