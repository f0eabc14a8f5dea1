"""What the tests about money need: a clock to put forward, processes that die, and an eye on the wire."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest

from smsverify.simulator import Simulator, agenda
from smsverify.store import Store
from smsverify.transport import Transport, _was_sent


class Clock:
    """The time of the store, of the simulators and of the hook, in which minutes can pass at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        self._origin = agenda._ORIGIN
        self._monkeypatch = monkeypatch
        clock, store_now = self, Store.now

        class Moved(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Any:
                return datetime.now(tz) + timedelta(seconds=clock.ahead)

        for name, module in list(sys.modules.items()):
            asks = name.startswith("smsverify.") and not name.startswith(("smsverify.simulator", _ASKS_NOT))
            if asks and getattr(module, "datetime", None) is datetime:
                monkeypatch.setattr(module, "datetime", Moved)
        monkeypatch.setattr(Store, "now", lambda self, connection: store_now(self, connection) + clock.ahead)

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time() + self.ahead

    def pass_by(self, seconds: float) -> None:
        """Lets time pass, for everybody."""
        self.ahead += seconds
        self._monkeypatch.setattr(agenda, "_ORIGIN", self._origin + self.ahead)


_ASKS_NOT = "smsverify.models"  # where times come from and go to, but not what time it is
_OF_NO_MONEY = ("_take", "_free_in", "_cached")


class Died(BaseException):
    """The process is dead: nothing that it would do next happens."""


class Deaths:
    """Lets the thread that it was made in die like a process, before or after a transaction that writes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.places: Counter[str] = Counter()
        self._thread = threading.get_ident()
        self._left: int | None = None
        self._is_dead = self._everywhere = False
        write = Store.write
        deaths = self

        @contextmanager
        def mortal(store: Store) -> Iterator[Any]:
            deaths._pass("before")
            with write(store) as connection:
                yield connection
            deaths._pass("after")

        monkeypatch.setattr(Store, "write", mortal)

    def arm(self, places: int | None) -> None:
        """A new process begins, and dies when so many places were passed; `None` for never.

        Each transaction has a place before and one after it. Those of the budget and of the catalogue, which
        are many and know nothing of money, count for every fifth number of places only.
        """
        self._left, self._is_dead = places, False
        self._everywhere = places is not None and places % 5 == 0

    def _pass(self, side: str) -> None:
        if threading.get_ident() != self._thread:
            return
        if self._is_dead:
            raise Died
        writer = _writer()
        if self._left is None or (writer in _OF_NO_MONEY and not self._everywhere):
            return
        self._left -= 1
        if self._left < 0:
            self._left, self._is_dead = None, True
            self.places[f"{side} {writer}"] += 1
            raise Died


def _writer() -> str:
    """The function of ours whose transaction it is."""
    frame = sys._getframe(2)
    while frame.f_back is not None and (
        "/smsverify/" not in frame.f_code.co_filename or frame.f_code.co_filename.endswith("store.py")
    ):
        frame = frame.f_back
    return frame.f_code.co_name


class Wire:
    """Knows of the requests that a service is still to work off after their sender has gone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._changed = threading.Condition()
        self._posted = self._done = 0
        wire, send = self, Transport._send

        def counted(transport: Transport, session: Any, call: Any, endpoint: str) -> Any:
            try:
                answer = send(transport, session, call, endpoint)
            except Exception as error:
                wire._posted += call.is_post and _was_sent(error)
                raise
            wire._posted += call.is_post
            return answer

        monkeypatch.setattr(Transport, "_send", counted)

    def watch(self, service: Simulator) -> None:
        """Counts what this service has worked off."""
        handle = service._gateway.handle

        def counted(method: str, *arguments: Any) -> Any:
            try:
                return handle(method, *arguments)
            finally:
                if method == "POST":
                    with self._changed:
                        self._done += 1
                        self._changed.notify_all()

        service._gateway.handle = counted  # type: ignore[method-assign]

    def await_silence(self) -> None:
        """Returns when every request that was sent has had its effect."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._done >= self._posted, 30), "a request never arrived"
