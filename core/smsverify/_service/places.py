"""A place in the queue that a task keeps while it is away: it holds no worker meanwhile.

A caller that buys inside of `leaving_queue` does not wait long for its turn. Its place stays in the queue,
and `TurnIsFar` ends the call before anything is sent. The caller that has the place sends heartbeats for
it; with it, the call goes on where it was when its turn is near. A place without a heartbeat is dropped
like the entry of any request whose process has died, and the next one has the turn.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from smsverify._runtime.clock import boottime
from smsverify._runtime.threads import is_alive, started
from smsverify.errors import StoreError
from smsverify.text import log_of

log = log_of(__name__)

SOON = 0.05  # seconds between two looks for those whose turn is about to come, at the least
PAUSE = 1.5  # seconds between two looks: half of the time in which a place needs a heartbeat
TROUBLE = 1.0  # seconds until a store that could not be used is tried again


@dataclass(frozen=True)
class Place:
    """A place in the queue of those that wait to spend money.

    Attributes:
        id: names it.
        arrived_at: the store's time at which its holder came, which says who is before it.
    """

    id: str
    arrived_at: float


class TurnIsFar(Exception):
    """Nothing was sent: the turn is not near, and the place in the queue is kept for a while.

    Attributes:
        place: the place.
        seconds: in which its turn comes, at the earliest.
    """

    def __init__(self, place: Place, seconds: float) -> None:
        super().__init__(f"the turn comes in {seconds:.0f} s; nothing was sent")
        self.place = place
        self.seconds = seconds


@dataclass
class Leaving:
    """How a caller leaves the queue.

    Attributes:
        place: that it comes back to, until a request has taken it.
        beyond: seconds; it waits itself for a turn that is nearer.
        is_first_only: whether it stays as soon as one request had its turn.
    """

    place: Place | None
    beyond: float
    is_first_only: bool

    def had_turn(self) -> None:
        """A request had its turn at the place."""
        self.place = None
        if self.is_first_only:
            self.beyond = float("inf")


_leaving: ContextVar[Leaving | None] = ContextVar("smsverify_leaving", default=None)


@contextmanager
def leaving_queue(
    place: Place | None = None, *, beyond: float, is_first_only: bool = False
) -> Iterator[None]:
    """Inside, this thread's purchases and renewals raise `TurnIsFar` rather than wait long for their turn.

    Args:
        place: where the call was that goes on.
        beyond: seconds that it waits itself.
        is_first_only: whether it waits for all turns after the first one.
    """
    token = _leaving.set(Leaving(place, beyond, is_first_only))
    try:
        yield
    finally:
        _leaving.reset(token)


def leaving() -> Leaving | None:
    """How this thread's caller leaves the queue; `None` where it waits."""
    return _leaving.get()


class Keeper:
    """Keeps the places of all who have left the queue of one key, with one thread for the process.

    Args:
        look: sends heartbeats for places, and says in how many seconds each has its turn.
    """

    def __init__(self, look: Callable[[list[Place]], dict[str, float]]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._kept: dict[str, tuple[Place, float, Future[None]]] = {}
        self._thread: threading.Thread | None = None
        self._complaint = ""

    def keep(self, place: Place, lead: float) -> Future[None]:
        """Keeps a place until its turn is near, or the future is cancelled.

        Args:
            place: the place.
            lead: seconds before its turn at which the future is done.

        Raises:
            RuntimeError: no thread can be started, so the place is not kept.
        """
        future: Future[None] = Future()
        with self._lock:
            if not is_alive(self._thread):
                self._thread = started(self._run, "smsverify-places")
            self._kept[place.id] = (place, lead, future)
        self._changed.set()
        return future

    def _run(self) -> None:
        while True:
            with self._lock:
                self._changed.clear()
                self._kept = {name: kept for name, kept in self._kept.items() if not kept[2].done()}
                kept = list(self._kept.values())
                if not kept:
                    self._thread = None
                    return
            pause = TROUBLE
            try:
                pause = self._look_for(kept)
                self._complaint = ""
            except Exception as error:
                # After any error: those whose places are kept would wait for ever without this thread.
                self._complain(error)
            self._changed.wait(pause)

    def _complain(self, error: Exception) -> None:
        """Logs an error, unless the look before ended with the same."""
        if repr(error) == self._complaint:
            return
        self._complaint = repr(error)
        if isinstance(error, StoreError):
            log.warning("Places in the queue cannot be kept at the moment: %s", error)
        else:
            log.error("Keeping places in the queue failed unexpectedly; it is tried again", exc_info=error)

    def _look_for(self, kept: list[tuple[Place, float, Future[None]]]) -> float:
        """One look for these places, which ends those whose turn is near; returns the seconds to the next."""
        looked_at = boottime()
        turns = self._look([place for place, _, _ in kept])
        left = {place.id: turns[place.id] - lead for place, lead, _ in kept}
        for place, _, future in kept:
            if left[place.id] <= 0:
                with contextlib.suppress(InvalidStateError):
                    future.set_result(None)
        nearest = min((seconds for seconds in left.values() if seconds > 0), default=SOON)
        return max(SOON, min(nearest, PAUSE) - (boottime() - looked_at))
