"""An event loop whose threads a caller has filled."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def full_loop() -> Iterator[None]:
    """All threads of the running event loop are busy in the block."""
    over, loop = threading.Event(), asyncio.get_running_loop()
    for _ in range(min(32, (os.cpu_count() or 1) + 4)):
        loop.run_in_executor(None, over.wait, 60)
    try:
        yield
    finally:
        over.set()
