"""Several hosts on one machine: network namespaces on a bridge, each with an address, a name and a clock.

Needs Linux, root, and `ip` (Debian's iproute2), `unshare` (util-linux) and, for a wrong clock, `faketime`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from types import TracebackType

from stacks.processes import program_path

PREFIX = "smsv-"
BRIDGE = f"{PREFIX}bridge"
SUBNET = "10.73.0"
NEEDED = ("ip", "unshare", "faketime")


class Host:
    """One host; `Network.host` makes it.

    Attributes:
        name: its host name.
        address: its IP address.
        clock: seconds by which its clock is ahead.
    """

    def __init__(self, name: str, number: int, clock: float) -> None:
        self.name = name
        self.address = f"{SUBNET}.{number + 1}"
        self.clock = clock
        self._namespace = f"{PREFIX}{name}"
        self._link = f"{PREFIX}{number}"

    def command(self, command: Sequence[str]) -> list[str]:
        """The command line that runs a command on this host, as one process."""
        named = [program_path("unshare"), "--uts", "/bin/sh", "-c", 'hostname "$0" && exec "$@"', self.name]
        if self.clock:
            clock = [program_path("faketime"), "-f", f"{self.clock:+.0f}s"]
            named += ["/usr/bin/env", "FAKETIME_DONT_FAKE_MONOTONIC=1", *clock]
        return [program_path("ip"), "netns", "exec", self._namespace, *named, *command]

    def cut(self) -> None:
        """Nothing reaches the host any more, nor leaves it; its connections hang."""
        _ip("link", "set", self._link, "down")

    def mend(self) -> None:
        """Ends `cut`."""
        _ip("link", "set", self._link, "up")

    def _attach(self) -> None:
        inside = f"{self._link}-in"
        _ip("netns", "add", self._namespace)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", inside)
        _ip("link", "set", inside, "netns", self._namespace)
        _ip("link", "set", self._link, "master", BRIDGE, "up")
        within = ("-n", self._namespace)
        _ip(*within, "address", "add", f"{self.address}/24", "dev", inside)
        _ip(*within, "link", "set", inside, "up")
        _ip(*within, "link", "set", "lo", "up")


class Network:
    """A bridge and its hosts, gone at the end of the `with` block. This machine is on it as `address`."""

    address = f"{SUBNET}.1"

    def __init__(self) -> None:
        self._count = 0

    def __enter__(self) -> Network:
        if os.geteuid() != 0 or any(shutil.which(tool) is None for tool in NEEDED):
            raise RuntimeError(f"network namespaces need root and the programs {', '.join(NEEDED)}")
        self._remove()  # what a run that was killed has left
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("address", "add", f"{self.address}/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()

    def host(self, name: str, *, clock: float = 0.0) -> Host:
        """A new host.

        Args:
            name: its host name, at most ten letters.
            clock: seconds by which its clock is ahead.
        """
        self._count += 1
        host = Host(name, self._count, clock)
        host._attach()
        return host

    @staticmethod
    def _remove() -> None:
        for line in _ip("netns", "list").splitlines():
            if line.startswith(PREFIX):
                _ip("netns", "delete", line.split()[0])
        if BRIDGE in _ip("-brief", "link"):
            _ip("link", "delete", BRIDGE)


def _ip(*arguments: str) -> str:
    done = subprocess.run([program_path("ip"), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
