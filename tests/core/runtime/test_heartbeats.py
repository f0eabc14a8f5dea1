"""Heartbeats: one write for all threads that wait, and none for those that do not."""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace

import pytest

from smsverify._runtime import heartbeats
from smsverify._runtime.heartbeats import Heartbeats


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(heartbeats, "time", SimpleNamespace(monotonic=lambda: self.now))


class Record:
    """What was written, and what is there."""

    def __init__(self, *names: str) -> None:
        self.there = set(names)
        self.written: list[set[str]] = []

    def write(self, names: Collection[str]) -> Collection[str]:
        self.written.append(set(names))
        return self.there & set(names)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def begun(record: Record) -> Heartbeats[str]:
    beats = Heartbeats(3.0, record.write)
    for name in sorted(record.there):
        beats.begin(name)
    return beats


def test_one_write_is_for_all_who_wait(clock: Clock) -> None:
    record = Record(*"abcdef")
    beats = begun(record)
    for _ in range(12):
        clock.now += 1.0
        assert all(beats.send(name) for name in "abcdef")
    assert record.written == [set("abcdef")] * 4


def test_those_that_are_due_soon_go_along_and_no_others(clock: Clock) -> None:
    record = Record("a")
    beats = begun(record)
    clock.now += 1.0
    beats.begin("b")
    clock.now += 1.0
    beats.begin("c")
    clock.now += 1.0
    beats.send("a")
    assert record.written == [{"a", "b"}]


def test_who_has_ended_gets_no_heartbeat(clock: Clock) -> None:
    record = Record(*"ab")
    beats = begun(record)
    clock.now += 3.0
    beats.end("b")
    beats.send("a")
    assert record.written == [{"a"}]


def test_who_was_not_found_by_another_looks_itself_and_learns_of_it(clock: Clock) -> None:
    record = Record(*"ab")
    beats = begun(record)
    record.there = {"a"}
    clock.now += 3.0
    assert beats.send("a")
    assert not beats.send("b")
    assert record.written == [{"a", "b"}, {"b"}]


def test_what_could_not_be_written_is_due_at_once(clock: Clock) -> None:
    def fail(_names: Collection[str]) -> Collection[str]:
        raise LookupError

    beats = Heartbeats(3.0, fail)
    for name in "ab":
        beats.begin(name)
    clock.now += 3.0
    for name in "ab":
        with pytest.raises(LookupError):
            beats.send(name)
