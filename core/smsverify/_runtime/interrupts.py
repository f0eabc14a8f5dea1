"""Leaving a command in order when a signal comes: what was sent is finished, and it is said how to go on."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from smsverify.errors import WaitStoppedError

# Ctrl-C, a supervisor that ends the command, and a terminal that is closed.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
FIRST = "stopping after the current request. Press Ctrl-C again to stop now"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C has ended a command; what it has to say is its text."""


@contextmanager
def interrupts(how_to_go_on: str) -> Iterator[threading.Event]:
    """An event that the first signal sets, so that nothing more is begun. The second one leaves at once.

    Args:
        how_to_go_on: what is said when the command leaves before its end.

    Raises:
        Interrupted: Ctrl-C has ended the waiting, or a second signal has come.
    """
    stop = threading.Event()
    came: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:
            stop.set()
            _say(FIRST)
        else:
            raise Interrupted(f"stopped now, perhaps during a request. {how_to_go_on}")

    with _handled_by(handle):
        try:
            yield stop
        except WaitStoppedError as error:
            if came[:1] == [signal.SIGINT]:
                raise Interrupted(f"{error}. {how_to_go_on}") from error
            raise WaitStoppedError(f"{error}. {how_to_go_on}") from error


@contextmanager
def _handled_by(handle: Any) -> Iterator[None]:
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        # What is ignored, as by nohup, stays so.
        heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    # Not by print: the signal may have come in the middle of one.
    with contextlib.suppress(OSError):
        os.write(2, f"smsverify: {text}\n".encode())
