"""The HTTP server: sockets, and the ways in which an answer is lost or mangled on its way."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import sys
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from smsverify.simulator.answers import Answer, reply
from smsverify.simulator.faults import Fault
from smsverify.simulator.gateway import Gateway
from smsverify.simulator.mangling import NOTHING_SENT
from smsverify.simulator.records import SimulatorError
from smsverify.simulator.verbs import perform

CONTROL_ROOT = "/_sim/"
_DRIPS = 10


class Server(ThreadingHTTPServer):
    """One thread per connection, kept alive between requests."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], gateway: Gateway) -> None:
        self.gateway = gateway
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Bind without the base class's look-up of the host's name, which can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """Close what clients keep open."""
        with self._open_lock:
            for request in self._open:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours; anything else is shown."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.gateway.settings.keep_alive)

    def log_message(self, format: str, *args: Any) -> None:
        """The gateway logs what matters."""

    def version_string(self) -> str:
        return "smsverify-simulator"

    def do_GET(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            self.close_connection = True
            self._send(reply({"detail": "A Content-Length is needed."}, 411), None)
            return
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self._hang_up()
            return
        if self.path.startswith(CONTROL_ROOT):
            self._send(self._control(body), None)
            return
        authorization, content_type = (
            self.headers.get(name, "") for name in ("Authorization", "Content-Type")
        )
        exchange = self.server.gateway.handle(self.command, self.path, authorization, content_type, body)
        self._send(exchange.answer, exchange.fault)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = do_GET

    def _control(self, body: bytes) -> Answer:
        verb = self.path[len(CONTROL_ROOT) :].partition("?")[0].strip("/")
        try:
            return reply(perform(self.server.gateway, verb, json.loads(body) if body else {}))
        except (SimulatorError, json.JSONDecodeError) as error:
            return reply({"error": str(error)}, 400)

    def _send(self, answer: Answer, fault: Fault | None) -> None:
        kind = fault.kind if fault else None
        if kind in NOTHING_SENT:
            self._hang_up(with_reset=kind == "reset")
            return
        head = self._head(answer)
        body = b"" if self.command == "HEAD" else answer.body
        if fault and kind == "cut_headers":
            self.wfile.write(head[: max(1, int(len(head) * fault.fraction))])
            self._hang_up()
        elif fault and kind == "truncated_body":
            self.wfile.write(head + body[: int(len(body) * fault.fraction)])
            self._hang_up()
        elif fault and kind == "slow_drip":
            self._drip(head, body, fault.seconds)
        else:
            self.wfile.write(head + body)

    def _head(self, answer: Answer) -> bytes:
        lines = [
            f"HTTP/1.1 {answer.status} {http.client.responses.get(answer.status, '')}",
            f"Date: {formatdate(self.server.gateway.clock(), usegmt=True)}",
            f"Server: {self.version_string()}",
            f"Content-Type: {answer.content_type}",
            f"Content-Length: {len(answer.body)}",
            *(f"{name}: {value}" for name, value in answer.headers.items()),
        ]
        if self.close_connection:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _drip(self, head: bytes, body: bytes, seconds: float) -> None:
        self.wfile.write(head)
        size = max(1, -(-len(body) // _DRIPS))
        for start in range(0, len(body), size):
            self.server.gateway.stopping.wait(seconds / _DRIPS)
            self.wfile.write(body[start : start + size])

    def _hang_up(self, with_reset: bool = False) -> None:
        self.close_connection = True
        if with_reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
