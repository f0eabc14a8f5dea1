"""A PgBouncer of our own in front of a private PostgreSQL, from the program that this machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from rigs.postgres import PASSWORD, PrivatePostgres
from rigs.wire import closed_port

POOL_SIZE = 6  # connections to the server
_START_TIMEOUT = 30.0


def find_pgbouncer() -> Path | None:
    """The program: on the PATH, otherwise where Debian puts it."""
    candidates = [Path(found) for found in (shutil.which("pgbouncer"),) if found]
    candidates.append(Path("/usr/sbin/pgbouncer"))
    return next((place for place in candidates if place.exists()), None)


class PrivatePgBouncer:
    """A pooler in transaction mode: each transaction may have another connection to the server."""

    def __init__(self, program: Path, server: PrivatePostgres) -> None:
        self._user = "nobody" if os.geteuid() == 0 else None  # it refuses root
        self._directory = Path(tempfile.mkdtemp(prefix="smsverify-pgbouncer-"))
        self.port = closed_port()
        users, configuration = self._directory / "users", self._directory / "ini"
        users.write_text(f'"tester" "{PASSWORD}"\n')
        configuration.write_text(
            "[databases]\n"
            f"* = host=127.0.0.1 port={server.port}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {users}\n"
            f"pool_mode = transaction\ndefault_pool_size = {POOL_SIZE}\nmax_client_conn = 500\n"
        )
        if self._user:
            for path in (self._directory, users, configuration):
                shutil.chown(path, self._user)
        self._log = (self._directory / "log").open("ab")
        self._process = subprocess.Popen(
            [program, configuration], user=self._user, stdout=self._log, stderr=self._log
        )

    def url_of(self, url: str) -> str:
        """The URL of a database of the server, through the pooler."""
        parts = urlsplit(url)
        pooled = parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{self.port}")).geturl()
        self._await_start(pooled.replace("postgresql+psycopg://", "postgresql://"))
        return pooled

    def stop(self) -> None:
        """Ends it at once and removes its files."""
        self._process.terminate()
        self._process.wait(30)
        self._log.close()
        shutil.rmtree(self._directory)

    def _await_start(self, address: str) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            try:
                psycopg.connect(address, prepare_threshold=None).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self._directory / "log").read_text()
                assert time.monotonic() < deadline, (self._directory / "log").read_text()
                time.sleep(0.05)
            else:
                return
