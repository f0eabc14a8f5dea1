"""The simulator as a process of its own."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from stacks.account import Account
from stacks.processes import Managed, Processes, inherited_environment, python_of

if TYPE_CHECKING:
    from smsverify.simulator import Control

READY = 60.0


class SimulatorProcess:
    """`smsverify simulate` on a free port.

    Args:
        processes: starts and ends it.
        environment: a virtual environment with smsverify.
        address: where it listens.
        **settings: of `smsverify.simulator.Settings`, as JSON values.

    Attributes:
        url: where it serves, once it has been started.
    """

    def __init__(
        self, processes: Processes, environment: Path, *, address: str = "127.0.0.1", **settings: Any
    ) -> None:
        self._processes = processes
        self._python = python_of(environment)
        self._address = address
        self._settings = settings
        self._managed: Managed | None = None

    def __enter__(self) -> SimulatorProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it and waits until it serves."""
        config = self._processes.directory / "simulator.json"
        config.write_text(json.dumps(self._settings))
        command = [str(self._python), "-m", "smsverify", "simulate"]
        command += ["--host", self._address, "--port", "0", "--json", "--config", str(config)]
        self._managed = managed = self._processes.spawn("simulator", command, inherited_environment())
        ready = self._processes.wait_until(lambda: _ready_line(managed), READY, "the simulator", [managed])
        self.url: str = ready["url"]
        self._ready = ready

    def stop(self) -> None:
        """Ends it."""
        if self._managed is not None:
            self._processes.stop([self._managed])
            self._managed = None

    def account(self, store: Path) -> Account:
        """The simulator's account, for use with a store in that SQLite file."""
        return Account(
            {
                "api_key": self._ready["api_key"],
                "base_url": self.url,
                "store_url": f"sqlite:///{store}",
                "rate_period": str(self._ready["rate_period"]),
            }
        )

    def control(self) -> Control:
        """The verbs of the simulator; needs `smsverify` on the import path."""
        from smsverify.simulator import Control

        return Control(self.url)


def _ready_line(managed: Managed) -> dict[str, Any] | None:
    for line in managed.output().splitlines(keepends=True):
        if line.startswith("{") and line.endswith("\n"):
            return json.loads(line)  # type: ignore[no-any-return]
    return None
