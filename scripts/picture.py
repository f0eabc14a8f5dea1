"""Draws docs/run.svg: what a terminal shows of an order whose code comes, and of one whose code does not.

    .venv/core/bin/python scripts/picture.py

Everything in it is printed by the commands themselves, run against a simulator.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from smsverify.simulator import Simulator

PICTURE = Path(__file__).parents[1] / "docs" / "run.svg"
WIDTH = 92


def main() -> int:
    """Runs the commands and draws them."""
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))  # noqa: SIM115 (ends with the process)
    with tempfile.TemporaryDirectory() as directory, Simulator(speed=20, first_order_id=458731) as simulator:
        environment = os.environ | simulator.environment(f"sqlite:///{directory}/store.db")

        def run(*arguments: str) -> str:
            console.print(Text.assemble(("$ ", "bold green"), ("smsverify " + " ".join(arguments), "bold")))
            done = subprocess.run(
                [sys.executable, "-m", "smsverify", *arguments],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            console.print(Text(done.stdout.rstrip()))
            return done.stdout

        order_id = run("order", "temporary", "--service", "WhatsApp", "--max-price", "0.50").split()[1]
        run("wait", order_id, "--timeout", "300")
        simulator.configure(sms_delay="never")
        order_id = run("order", "temporary", "--service", "Telegram", "--max-price", "0.50").split()[1]
        run("wait", order_id, "--timeout", "3")
        run("balance")
    PICTURE.write_text(console.export_svg(title="smsverify"), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
