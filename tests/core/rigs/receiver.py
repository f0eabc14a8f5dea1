"""The receiver of callbacks in a thread of this process, and posts to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import requests
import uvicorn

from rigs import eventually
from rigs.rooms import settings_of
from smsverify.callback import account_of, make_app
from smsverify.hook import SmsVerifyHook

SECRET = "the-SECRET-of-this-url"
ROTATED = "the-SECRET-that-comes-next"
TEXT = "Your PayPal code is 545123"


class Receiver:
    """Where it listens, and the means to post something there."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.secret_url = f"{self.url}/callback/{SECRET}"

    def post(self, payload: Any, path: str = f"/callback/{SECRET}", **options: Any) -> int:
        """Posts a payload as JSON, or bytes as they are; returns the status."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return requests.post(self.url + path, data=body, timeout=60, **options).status_code

    def deliver(self, payload: Any, path: str = f"/callback/{SECRET}") -> None:
        """Posts a payload until it is taken, as the service does: a busy machine may ask for a repeat."""

        def is_taken() -> bool:
            status = self.post(payload, path)
            assert status in (200, 503)
            return status == 200

        eventually(is_taken, "a callback's 200", timeout=120)

    def send(self, raw: bytes, *, and_close: bool = True) -> bytes:
        """Sends bytes as they are; returns what comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(raw)
            if and_close:
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            while chunk := connection.recv(65_536):
                answer += chunk
                if b"\r\n\r\n" in answer:
                    break
            return answer


def payload(order_id: Any, phone: Any, text: Any = TEXT, **message: Any) -> dict[str, Any]:
    """The documented payload."""
    return {
        "event": "incoming_message",
        "message": {
            "order_id": order_id,
            "number": phone,
            "service": "paypal",
            "sender": "8843",
            "sms": text,
            "type": "str",
            **message,
        },
    }


@contextmanager
def receiving(hooks: Sequence[SmsVerifyHook], app: Any = None, **options: Any) -> Iterator[Receiver]:
    """Runs the receiver for a block; with options of uvicorn's."""
    app = app or make_app([account_of(hook) for hook in hooks])
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = uvicorn.Config(
        app, access_log=False, lifespan="off", log_config=None, timeout_graceful_shutdown=5, **options
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    eventually(lambda: server.started, "the receiver's start")
    try:
        yield Receiver(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


class Serving:
    """`smsverify callbacks serve` in a process of its own."""

    def __init__(
        self, hook: SmsVerifyHook, *options: str, files: int | None = None, **environment: str
    ) -> None:
        given = settings_of(hook)
        self.process = subprocess.Popen(
            [
                *([] if files is None else ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh"]),
                *(sys.executable, "-m", "smsverify", "callbacks", "serve", "--port", "0", *options),
            ],
            env=os.environ
            | {
                "SMSVERIFY_API_KEY": given["api_key"],
                "SMSVERIFY_BASE_URL": given["base_url"],
                "SMSVERIFY_STORE_URL": given["store_url"],
                "SMSVERIFY_CALLBACK_SECRETS": f"{SECRET},{ROTATED}",
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            }
            | environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        self.first_line = self.process.stderr.readline()
        self.receiver: Receiver | None = None
        if "taking callbacks at" in self.first_line:
            self.receiver = Receiver(int(self.first_line.split("/callback/")[0].rpartition(":")[2]))

    def end(self, how: signal.Signals) -> tuple[int, str]:
        """Ends it; returns the exit code, and all that it has said."""
        self.process.send_signal(how)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, self.first_line + err
