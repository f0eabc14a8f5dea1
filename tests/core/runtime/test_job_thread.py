"""One thread does jobs in their order, outlives a job that fails, and ends when there is nothing to do."""

from __future__ import annotations

import queue
import threading

import pytest

from smsverify._runtime.job_thread import JobThread

PATIENCE = 30.0


def test_jobs_are_done_by_rank_and_then_in_the_order_in_which_they_came() -> None:
    thread, begun, go_on = JobThread("ranks"), threading.Event(), threading.Event()
    done: queue.Queue[str] = queue.Queue()

    def hold() -> None:
        begun.set()
        go_on.wait(PATIENCE)

    thread.submit(hold)
    assert begun.wait(PATIENCE)
    for rank, name in ((1, "third"), (0, "first"), (1, "fourth"), (0, "second")):
        thread.submit(lambda name=name: done.put(name), rank=rank)  # type: ignore[misc]
    go_on.set()
    assert [done.get(timeout=PATIENCE) for _ in range(4)] == ["first", "second", "third", "fourth"]


def test_a_job_that_fails_stops_no_other_and_its_text_is_in_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    thread, done = JobThread("failures"), threading.Event()

    def fail() -> None:
        raise ValueError("Your code is 123456")

    thread.submit(fail)
    thread.submit(done.set)
    assert done.wait(PATIENCE)
    assert "ValueError" in caplog.text
    assert "123456" not in caplog.text


def test_the_thread_ends_when_it_is_idle_and_the_next_job_starts_another() -> None:
    thread = JobThread("idle", idle=0.01)
    used: queue.Queue[threading.Thread] = queue.Queue()
    for _ in range(3):
        thread.submit(lambda: used.put(threading.current_thread()))
        one = used.get(timeout=PATIENCE)
        one.join(PATIENCE)
        assert not one.is_alive()
