"""Servers made of bare sockets, for what goes wrong below HTTP."""

from __future__ import annotations

import contextlib
import json
import random
import select
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TEMPORARY = [{"service_id": 1012, "name": "WhatsApp", "price": 0.40}]


@dataclass(frozen=True)
class Received:
    """One request as it came over the wire; the headers' names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Behaviour = Callable[[socket.socket, threading.Event], None]


def answer(status: int, body: Any = "", **headers: str) -> Behaviour:
    """Answers properly: `body` is text, bytes, or anything else as JSON."""
    return sends(response(status, body, **headers))


def response(status: int, body: Any = "", **headers: str) -> bytes:
    """The bytes of an answer; `Retry_After` stands for the header Retry-After."""
    raw = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(raw)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


def sends(raw: bytes) -> Behaviour:
    """Sends these bytes and closes."""

    def behave(connection: socket.socket, _: threading.Event) -> None:
        connection.sendall(raw)

    return behave


def drips(raw: bytes, pause: float, *, first: bytes = b"") -> Behaviour:
    """Sends the `first` bytes at once and these one by one."""

    def behave(connection: socket.socket, stopping: threading.Event) -> None:
        connection.sendall(first)
        for place in range(len(raw)):
            connection.sendall(raw[place : place + 1])
            if stopping.wait(pause):
                return

    return behave


def resets(connection: socket.socket, _: threading.Event) -> None:
    """Resets the connection (RST)."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def resets_at_the_first_byte(connection: socket.socket, stopping: threading.Event) -> None:
    """Resets the connection when something has come, without reading it."""
    connection.recv(1, socket.MSG_PEEK)
    resets(connection, stopping)


def closes(_connection: socket.socket, _: threading.Event) -> None:
    """Closes without a word."""


def is_silent(_connection: socket.socket, stopping: threading.Event) -> None:
    """Says nothing until the test is over."""
    stopping.wait(60)


def notes_the_end(ends: list[str]) -> Behaviour:
    """Says nothing, and notes how the other side ends the connection."""

    def behave(connection: socket.socket, _: threading.Event) -> None:
        try:
            while socket.socket.recv(connection, 65_536):  # below TLS, whose alerts may come first
                pass
            ends.append("closed")
        except ConnectionResetError:
            ends.append("reset")

    return behave


def answers_and_notes_the_end(raw: bytes, ends: list[str]) -> Behaviour:
    """Sends these bytes and waits for the other side to end the connection."""

    def behave(connection: socket.socket, stopping: threading.Event) -> None:
        connection.sendall(raw)
        notes_the_end(ends)(connection, stopping)

    return behave


def tunnels_to(port: int) -> Behaviour:
    """A proxy that lets through what it is asked for, always to this port of this machine."""

    def behave(near: socket.socket, _: threading.Event) -> None:
        with socket.create_connection(("127.0.0.1", port)) as far:
            near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            _pass_on(near, far)

    return behave


def _pass_on(near: socket.socket, far: socket.socket) -> None:
    """Passes on what comes and how it ends, both ways: in one thread, because two may not use one TLS
    connection at a time."""
    sinks = {near: far, far: near}
    while sinks:
        waiting = [source for source in sinks if isinstance(source, ssl.SSLSocket) and source.pending()]
        ready = waiting or select.select(list(sinks), [], [], 30)[0]
        if not ready:
            return
        for source in ready:
            sink = sinks[source]
            try:
                source.setblocking(False)
                chunk = source.recv(65_536)
            except ssl.SSLWantReadError:  # TLS had something for itself
                continue
            except ConnectionResetError:
                sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            if chunk:
                sink.settimeout(30)
                sink.sendall(chunk)
            else:
                del sinks[source]
                socket.socket.shutdown(sink, socket.SHUT_WR)  # TLS's own would read no more either


class WireServer:
    """A server on a free port of this machine that behaves as its script says, one request per connection.

    Args:
        tls: wraps each connection, where it is given.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.received: list[Received] = []
        self.connections = 0
        self.context = tls
        self._behaviours: dict[str, list[Behaviour]] = {
            "GET": [answer(200, TEMPORARY)],
            "CONNECT": [answer(502)],
        }
        self._on_accept: list[Behaviour] = []
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def on(self, method: str, *behaviours: Behaviour) -> None:
        """Each request of this method meets the next behaviour; the last one stays."""
        self._behaviours[method] = list(behaviours)

    def on_accept(self, *behaviours: Behaviour) -> None:
        """Each of the next connections meets one of these before anything is read of it."""
        self._on_accept = list(behaviours)

    def of(self, method: str) -> list[Received]:
        """The requests of this method so far."""
        return [request for request in self.received if request.method == method]

    @property
    def posts(self) -> int:
        """How many POSTs have come, even if only in part."""
        return len(self.of("POST"))

    def stop(self) -> None:
        """Closes everything."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        with connection, contextlib.suppress(OSError):
            if self._on_accept:
                self._on_accept.pop(0)(connection, self._stopping)
                return
            if self.context is None:
                self._exchange(connection)
                return
            with self.context.wrap_socket(connection, server_side=True) as wrapped:
                self._exchange(wrapped)

    def _exchange(self, connection: socket.socket) -> None:
        request = _read_request(connection)
        if request is None:
            return
        self.received.append(request)
        behaviours = self._behaviours.get(request.method, [answer(405)])
        behaviour = behaviours.pop(0) if len(behaviours) > 1 else behaviours[0]
        behaviour(connection, self._stopping)


def _read_request(connection: socket.socket) -> Received | None:
    raw = b""
    while b"\r\n\r\n" not in raw:
        chunk = connection.recv(65_536)
        if not chunk:
            return None
        raw += chunk
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    method, path, _ = lines[0].split(" ", 2)
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
    while len(body) < int(headers.get("content-length", 0)):
        chunk = connection.recv(65_536)
        if not chunk:
            break
        body += chunk
    return Received(method, path, headers, body)


@contextmanager
def delayed(url: str, longest: float, *, seed: int = 0) -> Iterator[str]:
    """The address of a way to the server at `url` on which every piece takes from 0 to `longest` seconds."""
    chance = random.Random(seed)
    host, port = url.removeprefix("http://").split(":")
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65_536):
                time.sleep(chance.uniform(0, longest))
                sink.sendall(chunk)
            # What is under way still arrives when the sender has gone.
            sink.shutdown(socket.SHUT_WR)

    def serve(near: socket.socket) -> None:
        with near, socket.create_connection((host, int(port))) as far:
            back = threading.Thread(target=pump, args=(far, near), daemon=True)
            back.start()
            pump(near, far)
            back.join()

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(near,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def closed_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def make_certificate(directory: Path) -> Path:
    """A throwaway certificate for 127.0.0.1 that nobody has signed, with its key, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl command to make a certificate with")
    path = directory / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(path), "-out", str(directory / "alone.pem")]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + (directory / "alone.pem").read_bytes())
    return path
