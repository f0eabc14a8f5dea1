"""Work that other threads do: waiting for it so that an interruption gets through, and sharing it out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import TypeVar

LOOK = 0.2  # seconds between two moments at which an interruption is seen

T = TypeVar("T")


def started(work: Callable[[], None], name: str) -> threading.Thread:
    """A new thread that works. Assign it to what is looked at later only now: one that cannot be started
    must not be taken for one that works.

    Raises:
        RuntimeError: it cannot be started. The process or the machine has too many, or Python is ending.
    """
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


def is_alive(thread: threading.Thread | None) -> bool:
    """Whether there is a thread, and it has not ended."""
    return thread is not None and thread.is_alive()


def result_of(future: Future[T]) -> T:
    """The result of a future, for a thread that may be interrupted.

    An exception that another thread sets, as frameworks do when a task's time is over, comes between two
    instructions of Python: a thread that blocks for as long as the result takes would not see it before.
    """
    while not future.done():
        wait([future], timeout=LOOK)
    return future.result()


def for_each(items: Iterable[T], do: Callable[[T], None], *, at_once: int, name: str) -> None:
    """Calls `do` with each of the items, in their order, and returns when that is done.

    After an error no further item is begun, and the first error is raised.

    Args:
        items: what is to be done.
        do: is called with each.
        at_once: so many calls are under way at the most, and fewer where no more threads can be started. All
            but one of them have a thread of their own.
        name: of the threads.
    """
    left = deque(items)
    errors: list[Exception] = []

    def work() -> None:
        while True:
            try:
                item = left.popleft()
            except IndexError:
                return
            try:
                do(item)
            except Exception as error:
                left.clear()
                errors.append(error)

    threads: list[threading.Thread] = []
    with suppress(RuntimeError):
        for _ in range(min(at_once, len(left)) - 1):
            threads.append(started(work, name))
    work()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
