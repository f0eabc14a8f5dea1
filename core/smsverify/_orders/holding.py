"""Orders that this process has bought and not handed over yet.

While a process holds an unclaimed order, it sends heartbeats for it. Without a heartbeat, the order
counts as forgotten.
"""

from __future__ import annotations

import math
import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from smsverify._runtime.clock import boottime
from smsverify._runtime.threads import is_alive, started
from smsverify.errors import StoreError
from smsverify.text import log_of

log = log_of(__name__)

# Seconds without a heartbeat after which a number counts as forgotten, where a minute lasts a minute.
FORGOTTEN = 900.0


@dataclass(eq=False)
class Held:
    """An order that this process holds until it is handed over or let go.

    Attributes:
        account: names the account among those of this process.
        order_id: the order.
        pause: seconds between two heartbeats.
        keep_alive: sends a heartbeat for an order.
        has_owner: records for an order and its holder that a caller has the order.
        is_free: records for them that no process holds the order any more, and that no caller has it.
        holder: names the call that holds it.
        at_end: called when the order is handed over or let go, but not when this process dies before.
        beaten_at: the `boottime` of the last heartbeat that is on record.
    """

    account: str
    order_id: int
    pause: float
    keep_alive: Callable[[int], None] = field(repr=False)
    has_owner: Callable[[int, str], None] = field(repr=False)
    is_free: Callable[[int, str], None] = field(repr=False)
    holder: str = field(default_factory=lambda: uuid.uuid4().hex)
    at_end: Callable[[], object] = field(default=lambda: None, repr=False)
    beaten_at: float = -math.inf

    @property
    def is_due(self) -> bool:
        """Whether it is time for a heartbeat."""
        return boottime() - self.beaten_at > self.pause

    def beat(self) -> None:
        """Sends a heartbeat."""
        now = boottime()
        self.keep_alive(self.order_id)
        self.beaten_at = now

    def hand_over(self) -> None:
        """A caller has the order from now on."""
        self._end()
        self.has_owner(self.order_id, self.holder)

    def let_go(self) -> None:
        """The process no longer holds the order, and no caller has it."""
        self._end()
        self.is_free(self.order_id, self.holder)

    def _end(self) -> None:
        self.drop()
        self.at_end()

    def drop(self) -> None:
        """A newer call, or the next try of the task, has the order from now on."""
        _hands.drop(self)


class _Hands:
    """The orders that the process holds, and the thread that sends heartbeats for them."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """After a fork: the child has neither the parent's orders nor its thread."""
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._held: dict[tuple[str, int], Held] = {}
        self._thread: threading.Thread | None = None

    def take(self, held: Held) -> None:
        with self._lock:
            self._held[held.account, held.order_id] = held
            if not is_alive(self._thread):
                self._start(held.order_id)
        self._changed.set()

    def _start(self, order_id: int) -> None:
        try:
            self._thread = started(self._beat, "smsverify-holding")
        except RuntimeError as error:
            # Its buyer must have the order all the same. The next order starts the thread.
            log.warning("No thread can be started for the heartbeats of order %d: %s", order_id, error)

    def drop(self, held: Held) -> None:
        with self._lock:
            if self._held.get((held.account, held.order_id)) is held:
                del self._held[held.account, held.order_id]
        self._changed.set()

    def get(self, account: str, order_id: int) -> Held | None:
        with self._lock:
            return self._held.get((account, order_id))

    def _beat(self) -> None:
        beaten_at = boottime()
        while True:
            with self._lock:
                held = list(self._held.values())
                if not held:
                    self._thread = None
                    return
                self._changed.clear()
            next_at = beaten_at + min(one.pause for one in held)
            if self._changed.wait(max(0.0, next_at - boottime())):
                continue
            beaten_at = boottime()
            for one in held:
                try:
                    one.beat()
                except StoreError as error:
                    log.warning("No heartbeat can be recorded for order %d: %s", one.order_id, error)
                except Exception:
                    # After any error: the thread has all orders of the process.
                    log.exception("A heartbeat for order %d failed unexpectedly", one.order_id)


_hands = _Hands()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_hands.forget)
hold = _hands.take
held = _hands.get
