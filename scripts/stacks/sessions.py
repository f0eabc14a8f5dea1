"""Ends sessions of processes; run as a program, ends those of a parent that died without doing so itself.

A session rather than a process group, because Airflow gives each task a process group of its own. Descendants
that have opened a session of their own, as Prefect's runner does for flow runs, are ended as well.

As a program without arguments it is the guard: it reads lines from standard input, `+<pid>` for a session to
watch and `-<pid>` for one that has been ended, and at the end of the input ends all that are left. With the
descriptor of the guard's input and a command as arguments it announces itself to the guard and becomes the
command: announced by its parent, it would be overlooked where that is killed in between.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

POLL = 0.05
AFTER_KILL = 10.0  # seconds that a process may take to be gone after SIGKILL


def end(leaders: Iterable[int], grace: float, hurry: Callable[[], bool] = lambda: False) -> None:
    """Asks sessions to end, and kills what is left after a while.

    Args:
        leaders: the process ids of the sessions' leaders.
        grace: seconds between SIGTERM and SIGKILL; 0 kills at once.
        hurry: cuts the grace short when it returns true.
    """
    sessions = set(leaders)
    if grace > 0:
        _signal(_members(sessions), signal.SIGTERM)
        _wait_until_gone(sessions, grace, hurry)
    deadline = time.monotonic() + AFTER_KILL
    while (members := _members(sessions)) and time.monotonic() < deadline:
        _signal(members, signal.SIGKILL)
        time.sleep(POLL)


def _wait_until_gone(sessions: set[int], grace: float, hurry: Callable[[], bool]) -> None:
    deadline = time.monotonic() + grace
    while _members(sessions) and time.monotonic() < deadline and not hurry():
        time.sleep(POLL)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _members(sessions: set[int]) -> list[int]:
    """The living processes of some sessions and their descendants, whose sessions are added to `sessions`."""
    processes = {pid: (parent, session) for pid, parent, session in _living()}
    members: set[int] = set()
    while True:
        more = {
            pid
            for pid, (parent, session) in processes.items()
            if pid not in members and (session in sessions or parent in members)
        }
        if not more:
            return sorted(members)
        members |= more
        sessions |= {processes[pid][1] for pid in more}


def _living() -> Iterator[tuple[int, int, int]]:
    """Process id, parent and session of every process that runs, zombies left out."""
    if Path("/proc/self/stat").exists():
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    # The name, in parentheses, may hold anything.
                    state, parent, _group, session = (
                        Path("/proc", entry, "stat")
                        .read_text(errors="replace")
                        .rpartition(")")[2]
                        .split()[:4]
                    )
                    if state not in "ZX":
                        yield int(entry), int(parent), int(session)
        return
    listing = subprocess.run(
        ["ps", "-axo", "pid=,ppid=,state="], capture_output=True, text=True, check=True
    ).stdout
    for pid, parent, state in (line.split()[:3] for line in listing.splitlines()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if not state.startswith("Z"):
                yield int(pid), int(parent), os.getsid(int(pid))


def announced(guard: int, command: Sequence[str]) -> list[str]:
    """The command line that runs a command as a session that the guard knows of from its first moment."""
    return [sys.executable, "-I", "-S", __file__, str(guard), *command]


def _announce_and_become(guard: int, command: list[str]) -> None:
    os.write(guard, f"+{os.getpid()}\n".encode())
    os.set_inheritable(guard, False)
    os.execv(command[0], command)


def _watch() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched: set[int] = set()
    for line in sys.stdin:
        pid = int(line[1:])
        if line.startswith("+"):
            watched.add(pid)
        else:
            watched.discard(pid)
    end(watched, grace=5.0)


if __name__ == "__main__":
    if sys.argv[1:]:
        _announce_and_become(int(sys.argv[1]), sys.argv[2:])
    else:
        _watch()
