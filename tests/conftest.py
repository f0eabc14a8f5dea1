"""What all tests share: a run leaves no process behind."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

MARK = "TEST_RUN_ID"  # what every process of a run inherits, also where its parent has died
PATIENCE = 30.0  # seconds in which what is ending may end


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left_behind() -> Iterator[None]:
    """Fails the run whose processes go on when its tests and fixtures have ended; where there is a /proc."""
    os.environ[MARK] = run = uuid.uuid4().hex
    yield
    deadline = time.monotonic() + PATIENCE
    while (left := _processes_of(run)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, "these processes of the tests go on:\n" + "\n".join(left)


def _processes_of(run: str) -> list[str]:
    """The other processes with this mark, by id and command line."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={run}".encode() not in (directory / "environ").read_bytes().split(b"\0"):
                continue
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended, or is another user's
        # It ends with this process, whose shared memory it cleans up.
        if int(directory.name) != os.getpid() and "multiprocessing.resource_tracker" not in command:
            found.append(f"{directory.name} {command}")
    return found
