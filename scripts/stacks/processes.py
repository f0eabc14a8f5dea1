"""Processes that end when the program does, however it ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, TypeVar

from stacks import sessions
from stacks.rest import HttpError, Unreachable

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 15.0  # seconds between asking a process to end and killing it
POLL = 0.2
TAIL = 40  # lines of a log that are shown when something fails
# What the caller's environment says about these is not meant for the stacks.
_NOT_INHERITED = ("AIRFLOW", "_AIRFLOW", "PREFECT", "SMSVERIFY", "PYTEST", "PYTHON", "VIRTUAL_ENV")


class ProcessFailed(RuntimeError):
    """A process ended by itself, or what was waited for did not come. The text holds the ends of the logs."""


class Interrupted(KeyboardInterrupt):
    """A signal asked the program to end.

    Attributes:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Managed:
    """A process with a session of its own, whose output goes to a file.

    Attributes:
        name: for people.
        log: takes its output.
        started_at: seconds since 1970.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        lasting: bool,
        guard: int,
    ) -> None:
        self.name = name
        self.log = log
        self.lasting = lasting
        self.started_at = time.time()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                sessions.announced(guard, command),
                pass_fds=[guard],
                env=environment,
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The id of the process and of its session."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; `None` while it runs."""
        return self._process.poll()

    def output(self) -> str:
        """All that it has written."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def tail(self) -> str:
        """The last lines that it has written, under a heading."""
        return "\n".join([f"---- the end of {self.log.name}", *self.output().splitlines()[-TAIL:]])


class Processes:
    """Starts processes, waits for what they do, and leaves none running at the end of its `with` block.

    SIGINT, SIGTERM and SIGHUP never interrupt the code in between: inside the block they make the next
    `spawn`, `check` or `wait_until` raise `Interrupted`. Should the program be killed, a guard ends the
    processes.

    Args:
        directory: takes the logs; made where it is missing.
        grace: seconds between asking a process to end and killing it.
    """

    def __init__(self, directory: Path, grace: float = GRACE) -> None:
        self.directory = directory
        self._grace = grace
        self._managed: list[Managed] = []
        self._signals: list[int] = []
        self._signalled = threading.Event()
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Processes:
        self.directory.mkdir(parents=True, exist_ok=True)
        for number in SIGNALS:
            self._handlers[number] = signal.signal(number, self._note_signal)
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", sessions.__file__],
            stdin=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop(self._managed)
        self._guard.communicate()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)
        self._signalled.set()

    def spawn(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], *, lasting: bool = True
    ) -> Managed:
        """Starts a process.

        Args:
            name: for people, and of its log file, which is appended to.
            command: the command line.
            environment: its whole environment.
            lasting: whether it is a failure when it ends by itself.
        """
        self.check()
        log = self.directory / f"{name}.log"
        guard = self._guard_input.fileno()
        managed = Managed(name, command, environment, log, lasting=lasting, guard=guard)
        self._managed.append(managed)
        return managed

    def run(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], *, timeout: float
    ) -> Managed:
        """Runs a process to its end, which has to be a success within `timeout` seconds."""
        managed = self.spawn(name, command, environment, lasting=False)
        self.wait_until(lambda: managed.exit_code is not None, timeout, f"the end of {name}", [managed])
        if managed.exit_code != 0:
            raise ProcessFailed(f"{name} ended with {managed.exit_code}\n{managed.tail()}")
        self.stop([managed])
        return managed

    def check(self) -> None:
        """Raises `Interrupted` after a signal, `ProcessFailed` for a process that should not have ended."""
        if self._signals:
            raise Interrupted(self._signals[0])
        for managed in self._managed:
            if managed.lasting and managed.exit_code is not None:
                raise ProcessFailed(f"{managed.name} ended with {managed.exit_code}\n{managed.tail()}")

    def wait_until(
        self,
        condition: Callable[[], T | None],
        timeout: float,
        what: str,
        concerned: Iterable[Managed] = (),
    ) -> T:
        """Waits until a condition holds, looking a few times a second.

        Args:
            condition: anything true ends the wait. A server that does not answer, or answers with a failure
                of its own, counts as not true.
            timeout: seconds.
            what: what is waited for, for the error.
            concerned: processes whose logs the error shows.

        Returns:
            what the condition returned.

        Raises:
            ProcessFailed: it did not hold in time, or a process ended.
            Interrupted: a signal came.
        """
        deadline = time.monotonic() + timeout
        trouble = ""
        while True:
            self.check()
            try:
                if value := condition():
                    return value
            except (Unreachable, HttpError) as error:
                if isinstance(error, HttpError) and error.status < 500:
                    raise
                trouble = f": {error}"
            if time.monotonic() > deadline:
                tails = [managed.tail() for managed in concerned]
                raise ProcessFailed(
                    "\n".join([f"waited {timeout:.0f} s in vain for {what}{trouble}", *tails])
                )
            self._signalled.wait(POLL)

    def stop(self, some: Iterable[Managed], *, kill: bool = False) -> None:
        """Ends processes with all that they have started. Another signal to us cuts the grace short.

        Args:
            some: the processes; those that have ended may have left others behind.
            kill: ends them without a chance to clean up.
        """
        some = list(some)
        signals = len(self._signals)
        grace = 0 if kill else self._grace
        sessions.end([managed.pid for managed in some], grace, lambda: len(self._signals) > signals)
        for managed in some:
            managed.exit_code  # noqa: B018 - collects the process, so that its id is free
            self._managed.remove(managed)
            self._guard_input.write(f"-{managed.pid}\n".encode())

    @property
    def _guard_input(self) -> IO[bytes]:
        assert self._guard.stdin is not None
        return self._guard.stdin


def free_port() -> int:
    """A port of this machine that no process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def inherited_environment() -> dict[str, str]:
    """The caller's environment without what concerns Airflow, Prefect, smsverify and Python itself."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    return {**kept, "NO_PROXY": "*", "PYTHONUNBUFFERED": "1"}


def python_of(environment: Path) -> Path:
    """The interpreter of a virtual environment.

    Raises:
        FileNotFoundError: there is none.
    """
    python = environment.absolute() / "bin" / "python"
    if not python.exists():
        raise FileNotFoundError(f"{environment} is no virtual environment: {python} does not exist")
    return python


def program_path(name: str) -> str:
    """The path of a program of this machine.

    Raises:
        RuntimeError: it is not installed.
    """
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"the program {name} is not installed")
    return found
