"""What the core's tests need beside the simulator: raw sockets, a private PostgreSQL, processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rigs.rooms import settings_of
from smsverify._orders import holding
from smsverify.hook import SmsVerifyHook

API_KEY = "key-TOPSECRET-4711"
"""A key that stands in no other text, so that a search for it finds leaks only."""


def eventually(condition: Callable[[], Any], what: str, timeout: float = 200.0) -> Any:
    """What `condition` returns as soon as that is true. A disk can take a minute to write a line."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} does not happen"
        time.sleep(0.01)


WAITING = frozenset(f"smsverify-{what}" for what in ("waiter", "poll", "read", "release"))


def await_end_of_waits() -> None:
    """Returns when no thread that waits or polls is left."""
    while threads := [thread for thread in threading.enumerate() if thread.name in WAITING]:
        for thread in threads:  # One that ends may have begun another.
            thread.join(60)
            assert not thread.is_alive(), f"{thread.name} does not end"


def let_go_of_all_numbers() -> None:
    """What the death of the process brings about: it sends heartbeats for no number any more."""
    for held in list(holding._hands._held.values()):
        held.drop()
    # It may be giving a last one.
    eventually(lambda: holding._hands._thread is None, "the end of the thread")


def in_a_day(hook: SmsVerifyHook, amount: Any) -> SmsVerifyHook:
    """The same hook for an account that may spend so many USD in a day."""
    return SmsVerifyHook(**{**settings_of(hook), "daily_budget": amount})
