"""What the tests about money need: a clock to put forward, processes that die, and an eye on the wire."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest

from smsverify._service.exchange import Exchange
from smsverify._service.wire import Wire as RealWire
from smsverify._store.steady import SharedTime
from smsverify._store.store import Store
from smsverify.simulator import Simulator, agenda


class Clock:
    """The time of the machine, the simulators, the database and the hook. Minutes can pass at once, and the
    machine's calendar can be set.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        self.saved = 0.0
        self.wrong = 0.0
        self._origin = agenda._ORIGIN
        self._monkeypatch = monkeypatch
        clock, wall, as_wall = self, SharedTime.wall, SharedTime.as_wall

        class Moved(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Any:
                return datetime.now(tz) + timedelta(seconds=clock.ahead + clock.wrong)

        for name, module in list(sys.modules.items()):
            if not name.startswith("smsverify.") or name.startswith("smsverify.simulator"):
                continue
            if getattr(module, "time", None) is time:
                monkeypatch.setattr(module, "time", _MovedTime(self))
            if getattr(module, "datetime", None) is datetime and name != _ASKS_NOT:
                monkeypatch.setattr(module, "datetime", Moved)
        # A database whose uptime goes on with the machine's notices that its own calendar does not.
        monkeypatch.setattr(SharedTime, "wall", lambda self, to: wall(self, to) + clock.ahead)
        monkeypatch.setattr(SharedTime, "as_wall", lambda self, moment: as_wall(self, moment) + clock.ahead)

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time() + self.ahead

    def pass_by(self, seconds: float) -> None:
        """Lets time pass, for everybody."""
        self.ahead += seconds
        self._monkeypatch.setattr(agenda, "_ORIGIN", self._origin + self.ahead)

    def be_saved(self, seconds: float) -> None:
        """Lets time pass that the machine's uptime does not count, as that of a virtual one that is saved."""
        self.saved += seconds
        self.pass_by(seconds)

    def step(self, seconds: float) -> None:
        """Somebody sets the machine's calendar by so much; no time passes."""
        self.wrong += seconds


class _MovedTime:
    """The module `time`, for a machine that is ahead of this one and whose calendar was set."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time(self) -> float:
        return time.time() + self._clock.ahead + self._clock.wrong

    def clock_gettime_ns(self, which: int) -> int:
        return time.clock_gettime_ns(which) + round((self._clock.ahead - self._clock.saved) * 1e9)


_ASKS_NOT = "smsverify.models"  # where times come from and go to, but not what time it is
_OF_NO_MONEY = ("_take", "free", "_cached")


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


class Stops:
    """Stops the process that it was made in right before the first byte of a request, while others go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._thread = threading.get_ident()
        self._meanwhile: Callable[[], None] | None = None
        check, stops = Exchange.check, self

        def stopped(exchange: Exchange) -> None:
            if threading.get_ident() == stops._thread and exchange.is_post:
                meanwhile, stops._meanwhile = stops._meanwhile, None
                if meanwhile is not None:
                    _in_another_thread(meanwhile)
            check(exchange)

        monkeypatch.setattr(Exchange, "check", stopped)

    @contextmanager
    def at_first_byte(self, meanwhile: Callable[[], None]) -> Iterator[None]:
        """The next request that spends or gives back is stopped, and this happens until it goes on."""
        self._meanwhile = meanwhile
        try:
            yield
        finally:
            self._meanwhile = None


def _in_another_thread(work: Callable[[], None]) -> None:
    """What a process keeps by thread is not that of another process."""
    with ThreadPoolExecutor(1) as other:
        other.submit(work).result()


class Wire:
    """Knows of the requests that a service is still to work off after their sender has gone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._changed = threading.Condition()
        self._posted = self._done = 0
        wire, send = self, RealWire.send

        def counted(real: RealWire, exchange: Exchange) -> Any:
            try:
                return send(real, exchange)
            finally:
                wire._posted += exchange.is_post and exchange.may_have_left

        monkeypatch.setattr(RealWire, "send", counted)

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
