"""The connections of the receiver of callbacks: strangers can neither hold all of them nor fill the log.

uvicorn waits for a request as long as its sender likes. Here, a request has to be there in a few seconds,
and where all connections are taken, the one that has waited longest for its request makes room: the service
sends its request at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from typing import ClassVar

from uvicorn import Server
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_TIMEOUT = 6.0  # seconds from a request's first byte, or the connection's beginning, to its last byte
MOST_CONNECTIONS = 1000
FEWEST_CONNECTIONS = 8
# asyncio accepts as many in a row as it believes may wait, before it looks at one of them.
ACCEPTED_AT_ONCE = 16
BACKLOG = 2048  # that may really wait to be accepted
SAME_LINE_PAUSE = 60.0  # seconds between two lines of a log that say the same
MOST_LINES = 100  # that are remembered


def most_connections() -> int:
    """How many there may be: half of the file descriptors that are left, since the store needs some too."""
    try:
        import resource

        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        in_use = len(os.listdir("/dev/fd"))
    except (ImportError, OSError):
        return MOST_CONNECTIONS
    if allowed == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(FEWEST_CONNECTIONS, min(MOST_CONNECTIONS, (allowed - in_use) // 2))


def limited_protocol(limit: int) -> type[H11Protocol]:
    """uvicorn's protocol, with so many connections at the most."""
    return type("LimitedProtocol", (LimitedProtocol,), {"limit": limit, "open": {}, "waiting": {}})


class LimitedProtocol(H11Protocol):
    """One connection.

    Attributes:
        limit: how many there may be.
        open: all of them.
        waiting: those whose request is not there, or not all of it, the one that waits longest first.
    """

    limit: ClassVar[int]
    open: ClassVar[dict[LimitedProtocol, None]]
    waiting: ClassVar[dict[LimitedProtocol, None]]
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.open[self] = None
        self._note()
        self._set_timer()
        if len(self.open) > self.limit:
            next(iter(self.waiting)).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open.pop(self, None)
        self.waiting.pop(self, None)
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._note()
        if self not in self.waiting:
            self._stop_timer()
        elif self._timer is None:
            self._set_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._note()

    def _note(self) -> None:
        is_complete = self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        if is_complete or self not in self.open:
            self.waiting.pop(self, None)
        else:
            self.waiting.setdefault(self)

    def _set_timer(self) -> None:
        self._timer = self.loop.call_later(REQUEST_TIMEOUT, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class LimitedServer(Server):
    """uvicorn's server, which lets many connections wait though it accepts few at once."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for one in sockets or []:
            one.listen(BACKLOG)


class NotTooOften(logging.Filter):
    """Lets through what a log says for the first time, and the same again only after a while."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is to be written."""
        now = time.monotonic()
        what = str(record.msg)
        if now - self._said.get(what, -SAME_LINE_PAUSE) < SAME_LINE_PAUSE:
            return False
        if len(self._said) >= MOST_LINES:
            self._said.clear()
        self._said[what] = now
        return True
