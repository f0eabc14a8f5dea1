"""A request on its way from its slot to its answer, before it is known how it gets there."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from smsverify._runtime.clock import boottime
from smsverify._runtime.threads import started
from smsverify._service.slots import HeldSlot

# Seconds for which the record of a request is fresh, at most a quarter of the longest exchange; and how often
# it is put on record again before the request is given up.
GOOD_FOR = 2.0
ANNOUNCEMENTS = 5


@dataclass(frozen=True)
class Request:
    """What is sent.

    Attributes:
        method: of HTTP.
        url: the whole address, without a query.
        params: the query.
        body: sent as JSON; `None` for no body.
    """

    method: str
    url: str
    params: dict[str, str] | None = None
    body: dict[str, Any] | None = None


class WireError(Exception):
    """A request has no answer. Its `Exchange` says whether it may have left."""


class Exchange:
    """A request on its way from its slot to its answer.

    The way to the first byte may take long: a connection takes time, and a process can be stopped between any
    two steps (SIGSTOP, a suspended machine) while others go on. Others trust the record of the request for a
    limited time: that it is being sent, for `longest` seconds; that its slot is in use, a little longer. So
    both are checked again right before the first byte, by a clock that also counts the time in which the
    machine slept. An old record is renewed, which finds out whether others have decided meanwhile. A slot
    that is too old is not used any more.

    One instant is left, between this check and the one call that passes the whole request to the kernel. A
    process that is stopped there for longer than `longest` sends when it goes on. By then, others have looked
    for the outcome in the service's list, which did not show it yet. Its order is then put on record without
    an owner, and `reconcile` names it.

    Args:
        endpoint: method and path, for errors.
        request: what is sent.
        slot: the request's.
        before_sending: puts on record that the request is being sent; `None` where no one has to know.
        timeout: seconds that the headers may take, and the body again; a connection takes no longer either.
        longest: seconds for which others believe that it is being sent.

    Attributes:
        may_have_left: whether a byte of the request may have left.
        watch: ends an answer that comes too slowly.
    """

    def __init__(
        self,
        endpoint: str,
        request: Request,
        slot: HeldSlot,
        before_sending: Callable[[], None] | None,
        *,
        timeout: float,
        longest: float,
    ) -> None:
        self.endpoint = endpoint
        self.request = request
        self.timeout = timeout
        self.may_have_left = False
        self.watch = Watch(timeout)
        self._slot = slot
        self._before_sending = before_sending
        self._good_for = min(GOOD_FOR, longest / 4)
        self._announced_at = 0.0

    @property
    def is_post(self) -> bool:
        """Whether the request changes something."""
        return self.request.method == "POST"

    def announce(self) -> None:
        """Does what has to be done before the request may leave. An error keeps it from leaving."""
        self._announced_at = boottime()
        if self._before_sending is not None:
            self._before_sending()

    def check(self) -> None:
        """Raises where the request may not leave now."""
        for _ in range(ANNOUNCEMENTS):
            if self._before_sending is None or boottime() - self._announced_at <= self._good_for:
                break
            self.announce()
        else:
            raise WireError("recording that it leaves took too long, several times")
        if not self._slot.may_begin():
            raise WireError("its turn in the rate limit ended before it could leave")


class Watch:
    """Ends the reading of an answer whose headers, or then whose body, come too slowly.

    The time-out of the socket begins anew with each byte. And bytes that decode to nothing return from no
    call, so that nothing else looks at the time. The thread is started before the first byte leaves: where
    the process can start no more, nothing is sent.

    Args:
        seconds: that each of the two may take.

    Attributes:
        is_late: set when an answer was ended.
    """

    def __init__(self, seconds: float) -> None:
        self.is_late = threading.Event()
        self._seconds = seconds
        self._left, self._headers, self._body = (threading.Event() for _ in range(3))

    def start(self, connection: socket.socket) -> None:
        """Prepares for an answer on this connection.

        Raises:
            WireError: no thread can be started.
        """
        try:
            started(lambda: self._run(connection), "smsverify-watch")
        except RuntimeError as error:
            raise WireError(f"its time-out cannot be watched: {error}") from None

    def request_leaves(self) -> None:
        """The time of the headers begins."""
        self._left.set()

    def headers_came(self) -> None:
        """The time of the body begins."""
        self._headers.set()

    def end(self) -> None:
        """There is nothing more to come."""
        for step in (self._body, self._headers, self._left):
            step.set()

    def _run(self, connection: socket.socket) -> None:
        self._left.wait()
        for step in (self._headers, self._body):
            if not step.wait(self._seconds):
                self.is_late.set()
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
                return
