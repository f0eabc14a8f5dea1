"""Work that is shared out among threads."""

from __future__ import annotations

import threading

import pytest

from smsverify._runtime.threads import for_each

PATIENCE = 60.0


def test_each_item_is_done_once_and_in_order() -> None:
    for at_once in (1, 3, 50):
        begun: list[int] = []
        for_each(range(20), begun.append, at_once=at_once, name="test")
        assert sorted(begun) == list(range(20))
        if at_once == 1:
            assert begun == list(range(20))
    for_each([], begun.append, at_once=3, name="test")
    assert len(begun) == 20


def test_so_many_are_under_way_at_once_and_no_more() -> None:
    together, lock = threading.Barrier(3, timeout=PATIENCE), threading.Lock()
    now, most = 0, 0

    def do(_: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait()  # breaks unless three are under way
        with lock:
            now -= 1

    for_each(range(9), do, at_once=3, name="test")
    assert most == 3


def test_after_an_error_no_further_item_is_begun() -> None:
    begun: list[int] = []

    def do(item: int) -> None:
        begun.append(item)
        if item == 3:
            raise ValueError("the first")

    with pytest.raises(ValueError, match="the first"):
        for_each(range(9), do, at_once=1, name="test")
    assert begun == [0, 1, 2, 3]


def test_an_error_is_raised_when_what_is_under_way_is_done() -> None:
    both, done = threading.Barrier(2, timeout=PATIENCE), []

    def do(item: int) -> None:
        both.wait()
        if item == 0:
            raise ValueError("the first")
        done.append(item)

    with pytest.raises(ValueError, match="the first"):
        for_each(range(2), do, at_once=2, name="test")
    assert done == [1]
