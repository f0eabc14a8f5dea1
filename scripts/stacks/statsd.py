"""A listener of StatsD that keeps what it gets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from types import TracebackType


class StatsdListener:
    """Takes datagrams on a free port of this machine for the time of its `with` block."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # A burst waits in here until it is read.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.2)
        self._lines: list[str] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="statsd", daemon=True)

    def __enter__(self) -> StatsdListener:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()
        self._socket.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._socket.getsockname()[1])

    def airflow_settings(self) -> dict[str, str]:
        """The environment variables that let Airflow report to it, with tags in the names."""
        return {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(self.port),
            "AIRFLOW__METRICS__STATSD_PREFIX": "airflow",
            "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
        }

    def lines(self, name: str = "") -> list[str]:
        """What has come for the metric with this name, or for all, such as `name,tag=value:1|c`."""
        found = list(self._lines)
        return [line for line in found if not name or line.split(":")[0].split(",")[0] == name]

    def values(self, names: Sequence[str]) -> list[float]:
        """The sum of what has come for each of these metrics."""
        return [round(sum(value_of(line) for line in self.lines(name)), 6) for name in names]

    def _listen(self) -> None:
        while not self._is_over.is_set():
            try:
                datagram = self._socket.recv(65_536)
            except TimeoutError:
                continue
            self._lines += datagram.decode().splitlines()


def value_of(line: str) -> float:
    """The value in a line of StatsD."""
    return float(line.rpartition(":")[2].partition("|")[0])


def tags_of(line: str) -> dict[str, str]:
    """The tags in a line, as Airflow puts them into the name."""
    return dict(tag.split("=") for tag in line.rpartition(":")[0].split(",")[1:])
