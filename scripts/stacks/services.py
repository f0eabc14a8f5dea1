"""The services beside a stack of several hosts: PostgreSQL and Redis, from the programs of this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from stacks.processes import Managed, Processes, free_port, inherited_environment, program_path

START = 60.0
USER = "stacks"


class PostgreSQL:
    """A server of its own. PostgreSQL refuses root, so root runs it as nobody.

    Args:
        processes: starts and ends it.
        directory: takes its files; made anew.
        address: where it listens.
    """

    def __init__(self, processes: Processes, directory: Path, address: str) -> None:
        self._processes = processes
        self._directory = directory
        self._address = address
        self._port = free_port()
        binaries = find_postgres()
        if binaries is None:
            raise RuntimeError(
                "PostgreSQL is not installed: no initdb on the PATH, nor in /usr/lib/postgresql"
            )
        self._binaries = binaries
        self._server: Managed | None = None

    def start(self, databases: Sequence[str]) -> None:
        """Makes the server and its databases."""
        self._directory.mkdir(parents=True)
        if os.geteuid() == 0:
            shutil.chown(self._directory, "nobody")
        initdb = ["initdb", "-D", str(self._data), "-U", USER, "-A", "trust", "--no-sync", "--encoding=UTF8"]
        self._run("initdb", initdb)
        with (self._data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet trust\n")
        self._serve()
        for name in databases:
            self._run(f"createdb-{name}", ["createdb", *self._reach, name])

    def restart(self) -> None:
        """Ends the server, which breaks all connections, and starts it again."""
        assert self._server is not None
        self._processes.stop([self._server], kill=True)
        self._serve()

    def address(self, database: str) -> str:
        """`<user>@<host>:<port>/<database>`, as URLs have it."""
        return f"{USER}@{self._address}:{self._port}/{database}"

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    @property
    def _reach(self) -> list[str]:
        return ["-h", self._address, "-p", str(self._port), "-U", USER]

    def _serve(self) -> None:
        options = {
            "listen_addresses": self._address,
            "port": self._port,
            "unix_socket_directories": self._directory,
            "max_connections": 500,
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        command = self._command(["postgres", "-D", str(self._data), *settings])
        self._server = self._processes.spawn("postgres", command, inherited_environment())
        self._run("pg_isready", ["/bin/sh", "-c", 'until "$0" "$@"; do sleep 0.1; done', *self._is_ready()])

    def _is_ready(self) -> list[str]:
        return [str(self._binaries / "pg_isready"), "-q", *self._reach]

    def _run(self, name: str, command: Sequence[str]) -> None:
        self._processes.run(name, self._command(command), inherited_environment(), timeout=START)

    def _command(self, command: Sequence[str]) -> list[str]:
        program = command[0] if command[0].startswith("/") else str(self._binaries / command[0])
        as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        if os.geteuid() == 0:
            return [*(shutil.which(as_nobody[0]) or "setpriv", *as_nobody[1:]), program, *command[1:]]
        return [program, *command[1:]]


class Redis:
    """A server of its own that keeps nothing.

    Args:
        processes: starts and ends it.
        address: where it listens.
    """

    def __init__(self, processes: Processes, address: str) -> None:
        self._processes = processes
        self._address = address
        self._port = free_port()

    def start(self) -> None:
        """Starts it and waits until it answers."""
        where = ["--bind", self._address, "--port", str(self._port)]
        command = [program_path("redis-server"), *where, "--protected-mode", "no", "--save", ""]
        self._processes.spawn("redis", command, inherited_environment())
        ping = [program_path("redis-cli"), "-h", self._address, "-p", str(self._port), "ping"]
        until = ["/bin/sh", "-c", 'until "$0" "$@" | grep -q PONG; do sleep 0.1; done', *ping]
        self._processes.run("redis-ping", until, inherited_environment(), timeout=START)

    @property
    def url(self) -> str:
        """As Celery takes it."""
        return f"redis://{self._address}:{self._port}/0"


def find_postgres() -> Path | None:
    """The directory with `initdb` and `postgres`: on the PATH, otherwise where Debian puts it."""
    on_path = shutil.which("initdb")
    candidates = [Path(on_path).resolve().parent] if on_path else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in candidates if (place / "postgres").exists()), None)
