"""A PostgreSQL of our own for one run of the tests, from the binaries that this machine has."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from rigs.wire import closed_port

PASSWORD = "pg-geheim"
_START_TIMEOUT = 60.0


class PrivatePostgres:
    """One server on a port of its own. PostgreSQL refuses root, so root runs it as nobody."""

    def __init__(self, binaries: Path) -> None:
        self._user = "nobody" if os.geteuid() == 0 else None
        self._directory = Path(tempfile.mkdtemp(prefix="smsverify-pg-"))
        self._names = (f"test{number}" for number in itertools.count())
        if self._user:
            shutil.chown(self._directory, self._user)
        data, password = self._directory / "data", self._directory / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        initdb: list[str | Path] = ["-D", data, "-U", "tester", "-A", "scram-sha-256", f"--pwfile={password}"]
        self._run(binaries, "initdb", *initdb, "--no-sync", "--encoding=UTF8", "--locale=C")
        self.port = closed_port()
        self._binaries, self._data = binaries, data
        self._log = (self._directory / "log").open("ab")
        self._start()

    def _start(self) -> None:
        self._server = self._serve(self._data, self.port)
        self._await_start(self._server, self._address("postgres"))

    def _serve(self, data: Path, port: int) -> subprocess.Popen[bytes]:
        options = {
            "port": port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self._directory,
            "fsync": "off",
            "max_connections": 200,
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return subprocess.Popen(
            [self._binaries / "postgres", "-D", data, *settings],
            user=self._user,
            cwd=self._directory,
            stdout=self._log,
            stderr=self._log,
        )

    @contextmanager
    def replica_of(self, url: str) -> Iterator[str]:
        """A server that follows this one, for the duration of a block; the URL of the same database there."""
        data, port = self._directory / "replica", closed_port()
        source = self._address("postgres")
        self._run(self._binaries, "pg_basebackup", "-D", data, "-d", source, "-R", "-c", "fast", "--no-sync")
        replica = self._serve(data, port)
        try:
            there = url.replace(f":{self.port}/", f":{port}/")
            self._await_start(replica, there.replace("+psycopg", ""))
            yield there
        finally:
            replica.send_signal(signal.SIGINT)
            replica.wait(30)
            shutil.rmtree(data)

    @contextmanager
    def gone(self) -> Iterator[None]:
        """Nobody can reach the server for the duration of a block; connections to it break."""
        self._halt()
        try:
            yield
        finally:
            self._start()

    def create_database(self, *, encoding: str = "UTF8", **settings: str) -> str:
        """An empty database, with these settings for all who connect; returns its URL for SQLAlchemy."""
        name = next(self._names)
        self.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0")
        for setting, value in settings.items():
            self.execute(f"ALTER DATABASE {name} SET {setting} TO {value}")
        return self._address(name).replace("postgresql://", "postgresql+psycopg://")

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Does something as the administrator; returns the rows."""
        with psycopg.connect(self._address(database), autocommit=True) as connection:
            done = connection.execute(statement.encode())
            return done.fetchall() if done.description else []

    def stop(self) -> None:
        """Ends the server at once and removes its files."""
        self._halt()
        self._log.close()
        shutil.rmtree(self._directory)

    def _halt(self) -> None:
        self._server.send_signal(signal.SIGINT)  # SIGTERM would wait for clients
        self._server.wait(30)

    def _address(self, database: str) -> str:
        return f"postgresql://tester:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def _run(self, binaries: Path, name: str, *arguments: str | Path) -> None:
        command = [binaries / name, *arguments]
        done = subprocess.run(
            command, user=self._user, cwd=self._directory, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _await_start(self, server: subprocess.Popen[bytes], address: str) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            try:
                psycopg.connect(address).close()
            except psycopg.OperationalError:
                assert server.poll() is None, (self._directory / "log").read_text()
                assert time.monotonic() < deadline, "PostgreSQL does not start"
                time.sleep(0.05)
            else:
                return
