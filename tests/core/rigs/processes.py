"""Runs what `rigs.workers` has in several processes at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rigs import eventually

_WORKERS = Path(__file__).with_name("workers.py")
_TIMEOUT = 120


def start_in_processes(function: str, count: int, **arguments: Any) -> subprocess.Popen[str]:
    """Starts `function(index, **arguments)` of `rigs.workers` in `count` processes that begin together."""
    path = os.pathsep.join([str(_WORKERS.parent.parent), *filter(None, sys.path)])
    process = subprocess.Popen(
        [sys.executable, str(_WORKERS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"function": function, "count": count, "arguments": arguments}))
    process.stdin.close()
    return process


def results_of(process: subprocess.Popen[str]) -> list[Any]:
    """What the processes returned, by index; `None` for one that was killed."""
    assert process.stdout is not None
    with process.stdout:
        output = process.stdout.read()
    assert process.wait(_TIMEOUT) == 0, output
    results: list[Any] = json.loads(output.splitlines()[-1])
    return results


def in_processes(function: str, count: int, **arguments: Any) -> list[Any]:
    """`start_in_processes` and `results_of` in one."""
    return results_of(start_in_processes(function, count, **arguments))


@contextmanager
def stopped(
    worker: str, place: str, directory: Path, *, calls: int = 1, skip: int = 0, **arguments: Any
) -> Iterator[list[Any]]:
    """A worker that is stopped at a place while the block runs, and goes on after it.

    Args:
        worker, arguments: a function of `rigs.workers`.
        place, calls, skip: as `rigs.workers.with_a_stop` has them.
        directory: an empty one.

    Yields:
        a list that holds what the worker has returned as soon as the block is over.
    """
    note = directory / "stopped"
    results: list[Any] = []
    given = {"worker": worker, "place": place, "calls": calls, "skip": skip, "note": str(note)}
    process = start_in_processes("with_a_stop", 1, **given, arguments=arguments)
    pid = int(eventually(lambda: note.exists() and note.read_text(), "passing the place"))
    try:
        eventually(lambda: _state_of(pid).startswith("T"), "stopping")
        yield results
    finally:
        os.kill(pid, signal.SIGCONT)
        results += results_of(process)


def _state_of(pid: int) -> str:
    command = ["ps", "-o", "state=", "-p", str(pid)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def beside(function: str, count: int = 1, **arguments: Any) -> Iterator[subprocess.Popen[str]]:
    """`start_in_processes` for a block; waits for their end."""
    process = start_in_processes(function, count, **arguments)
    try:
        yield process
    finally:
        if process.stdout is not None and not process.stdout.closed:
            results_of(process)
