"""A fork while a thread of the parent makes what all threads share: the child makes its own at once."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from smsverify import metrics
from smsverify._runtime.forking import PerProcess, ProcessLock
from smsverify.hook import SmsVerifyHook

PATIENCE = 20.0
_lock = ProcessLock()


def ends_in_a_child(do: Callable[[], Any]) -> bool:
    """Whether a child that is forked now comes to the end of this."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # what Python says of a fork beside threads
        child = os.fork()
    if child == 0:
        try:
            do()
        except BaseException:
            os._exit(1)
        os._exit(0)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


class Holding:
    """Makes something: in this process when the test lets it, in another one at once."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self._process = os.getpid()

    def __call__(self, *_: Any) -> Any:
        if os.getpid() == self._process:
            self.begun.set()
            self.go_on.wait(PATIENCE * 2)
        return metrics  # anything


@contextmanager
def in_a_thread(holding: Holding, do: Callable[[], Any]) -> Iterator[None]:
    """While a thread is in the middle of this."""
    thread = threading.Thread(target=do)
    thread.start()
    try:
        assert holding.begun.wait(PATIENCE)
        yield
    finally:
        holding.go_on.set()
        thread.join()


def under_a_lock(_name: str, make: Callable[[], Any]) -> Any:
    with _lock:
        return make()


@pytest.mark.parametrize("use", [under_a_lock, PerProcess[Any]().get])
def test_what_all_threads_of_a_process_share(use: Callable[[str, Callable[[], Any]], Any]) -> None:
    holding = Holding()
    with in_a_thread(holding, lambda: use("a fork", holding)):
        assert ends_in_a_child(lambda: use("a fork", holding))


def test_a_part_of_another_hook(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first part notes its address in the store, and a fork waits for just that."""
    holding = Holding()
    monkeypatch.setattr("smsverify._parts.note_address", holding)
    first, second = (SmsVerifyHook(api_key=key, store_url=store_url) for key in ("one", "two"))
    with in_a_thread(holding, lambda: first._parts.api):
        assert ends_in_a_child(lambda: second._parts.api)


def test_a_metric_that_is_reported_for_the_first_time(monkeypatch: pytest.MonkeyPatch) -> None:
    holding, reported = Holding(), metrics.OpenTelemetry()
    monkeypatch.setattr(metrics, "_instrument", holding)
    with in_a_thread(holding, lambda: reported._of(metrics.BOUGHT)):
        assert ends_in_a_child(lambda: reported._of(metrics.BOUGHT))
