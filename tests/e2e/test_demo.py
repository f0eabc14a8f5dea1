"""`make demo`'s program as a user meets it: as a process, in a terminal, interrupted at different moments."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(1200)  # real Airflow, real Prefect, on a busy machine perhaps

ROOT = Path(__file__).parents[2]
PATIENCE = 600.0
WIDTH = 80


class Demo:
    """The demo as a process whose children can be distinguished from all others.

    Args:
        scratch: where it and its children put temporary files.
        terminal: whether it runs in a terminal of its own, instead of into a pipe.
    """

    def __init__(self, scratch: Path, *, terminal: bool) -> None:
        self.mark = f"DEMO_UNDER_TEST={uuid.uuid4().hex}"
        self.output = ""
        # Airflow writes the titles of its processes over their environment, unless a setting forbids it.
        extra = {"TMPDIR": str(scratch), "SPT_NOENV": "1", **dict([self.mark.split("=")])}
        inside, outside = self._terminal() if terminal else os.pipe()[::-1]
        self._outside = outside
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "scripts" / "demo.py")],
            env=os.environ | extra,
            stdin=inside if terminal else subprocess.DEVNULL,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
            preexec_fn=(lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) if terminal else None,  # noqa: PLW1509
        )
        os.close(inside)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @staticmethod
    def _terminal() -> tuple[int, int]:
        outside, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, WIDTH, 0, 0))
        return inside, outside

    def _read(self) -> None:
        with suppress(OSError):  # a terminal whose other side is closed
            while data := os.read(self._outside, 65536):
                self.output += data.decode(errors="replace")

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.output or self.process.poll() is not None, self)
        assert self.process.poll() is None, self.output

    def press_ctrl_c(self) -> None:
        os.write(self._outside, b"\x03")

    def wait(self) -> int:
        code = self.process.wait(PATIENCE)
        self._reader.join()
        return code

    def left_running(self) -> list[str]:
        """The command lines of the demo and of what it has started, at first or second hand."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and self.mark.encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found

    def close(self) -> None:
        self.process.kill()  # its guard ends the rest
        self.process.wait()
        os.close(self._outside)


def wait_until(condition: Callable[[], bool], demo: Demo, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, demo.output
        time.sleep(0.1)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []

    def start(*, terminal: bool = True) -> Demo:
        started.append(Demo(tmp_path, terminal=terminal))
        return started[-1]

    yield start
    for demo in started:
        demo.close()


def test_the_demo_ends_with_a_table_of_its_numbers_and_leaves_nothing(
    start: Callable[..., Demo], tmp_path: Path
) -> None:
    demo = start(terminal=False)
    wait_until(lambda: len(demo.left_running()) > 4, demo)
    assert demo.wait() == 0, demo.output
    assert demo.left_running() == []
    assert list(tmp_path.iterdir()) == []
    assert "sim-key" not in demo.output

    table = demo.output.partition("wallet before")[2]
    rows = [re.split(r"\s{2,}", line) for line in table.splitlines() if re.match(r"\d+ ", line)]
    assert [(by, status) for _order, by, _phone, _code, _price, status, *_ in rows] == [
        ("Airflow", "completed"),
        ("Airflow", "cancelled, refunded"),
        ("Airflow", "completed"),
        ("Prefect", "completed"),
        ("Prefect", "cancelled, refunded"),
        ("Prefect", "completed"),
    ]
    balance = Decimal("50.00")
    for order, _by, phone, code, price, status, requests, before, after in rows:
        assert f"order {order}: pending, {phone}, {price} USD" in demo.output.replace(" 415 555 ", "415555")
        if status != "completed":
            assert (code, requests, before, after) == ("-",) * 4
            continue
        assert re.fullmatch(r"\d{6}", code)
        assert int(requests) > 2
        assert Decimal(before) == balance
        balance -= Decimal(price)
        assert Decimal(after) == balance
    for step in ("sign_up: deferred", "sign_up: success", "confirm: success"):
        assert step in demo.output


@pytest.mark.parametrize("moment", ["simulator at", "database made", "sign_up: deferred"])
def test_ctrl_c_ends_the_demo_and_all_that_it_has_started(
    start: Callable[..., Demo], tmp_path: Path, moment: str
) -> None:
    demo = start()
    demo.wait_for(moment)
    demo.press_ctrl_c()
    assert demo.wait() == 128 + signal.SIGINT, demo.output
    assert demo.left_running() == []
    assert list(tmp_path.iterdir()) == []
    assert "Traceback" not in demo.output
    lines = re.split(r"[\r\n]+", demo.output.replace("\x1b[K", ""))
    shown = [line for line in lines if "waiting for" in line]
    assert shown
    assert max(map(len, shown)) < WIDTH


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_demo_itself_is_ended_or_killed(
    start: Callable[..., Demo], number: signal.Signals
) -> None:
    demo = start(terminal=False)
    demo.wait_for("database made")
    demo.process.send_signal(number)
    assert demo.wait() == (-number if number == signal.SIGKILL else 128 + number), demo.output
    wait_until(lambda: demo.left_running() == [], demo, patience=60)
