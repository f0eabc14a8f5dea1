"""``smsverify simulate``: the simulator as a process of its own."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from smsverify.simulator.settings import Settings
from smsverify.simulator.simulator import Simulator

ORDER_IDS_PER_SECOND = 10  # more than any test orders in the long run

_FLAGS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("--api-key", "api_key", {"help": "the key to accept"}),
    ("--balance", "balance", {"metavar": "USD", "help": "the wallet at the start"}),
    ("--speed", "speed", {"type": float, "help": "divide every duration: 60 makes a minute last a second"}),
    ("--sms-delay", "sms_delay", {"metavar": "SECONDS", "help": 'purchase to SMS: "7", "5-20" or "never"'}),
    ("--callback-url", "callback_url", {"metavar": "URL", "help": "where to post incoming SMS"}),
    ("--rate-limit", "rate_limit", {"type": int, "metavar": "N", "help": "requests that any window may see"}),
    ("--rate-period", "rate_period", {"type": float, "metavar": "SECONDS", "help": "the window's length"}),
    ("--seed", "seed", {"type": int, "help": "of delays, codes and fault probabilities"}),
)

_STOP = {signal.SIGINT, signal.SIGTERM}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the command's options. What has none can be set in the ``--config`` file."""
    parser.add_argument("--host", default="127.0.0.1", help="interface to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=8900, help="port; 0 picks a free one (default: %(default)s)"
    )
    defaults = Settings()
    for flag, name, options in _FLAGS:
        default = getattr(defaults, name)
        shown = "-".join(f"{part:g}" for part in default) if isinstance(default, tuple) else default
        help_ = options["help"] + (f" (default: {shown})" if shown is not None else "")
        parser.add_argument(flag, dest=name, **{**options, "help": help_})
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="JSON object of settings; options override it"
    )
    parser.add_argument("--json", action="store_true", help="print the line that says it is ready as JSON")
    parser.add_argument("--quiet", action="store_true", help="no line per order, SMS, cancellation, …")


def run(
    args: argparse.Namespace,
    watched: Callable[[Simulator], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> int:
    """Serve until SIGINT or SIGTERM.

    One line on standard output says where, once it is ready; a line per event follows on standard error. No
    line ever holds a code or a text.

    Args:
        args: Parsed by a parser that `add_arguments` has prepared.
        watched: What shows people how it goes on, while it runs.

    Returns:
        The process's exit code: 0 after a signal, 2 for settings that make no sense, 1 if the port cannot be
        had.
    """
    try:
        simulator = Simulator(_settings(args), host=args.host, port=args.port)
    except (OSError, ValueError) as error:
        print(f"smsverify simulate: {error}", file=sys.stderr)
        return 2
    # Blocked before any thread exists, so that sigwait alone gets them: a handler that sets an event is now
    # and then not run while the main thread is about to wait. The handlers undo an inherited "ignore".
    for number in _STOP:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    try:
        simulator.start()
    except (OSError, OverflowError) as error:
        print(f"smsverify simulate: cannot listen on {args.host}:{args.port}: {error}", file=sys.stderr)
        return 1
    try:
        with nullcontext() if args.quiet else watched(simulator):
            if not args.quiet:
                _log_to_stderr()
            # Last, so that no event of who waits for this line is missed.
            print(_ready(simulator, args.json), flush=True)
            signal.sigwait(_STOP)
    finally:
        simulator.stop()
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    values = json.loads(args.config.read_text(encoding="utf-8")) if args.config else {}
    settings = Settings.from_json(values)
    if "first_order_id" not in values:
        # A client's store outlives this process: no later run may name its orders as this one did.
        settings = settings.changed({"first_order_id": int(time.time()) * ORDER_IDS_PER_SECOND})
    given = {name: getattr(args, name) for _, name, _ in _FLAGS if getattr(args, name) is not None}
    return settings.changed(given)


def _ready(simulator: Simulator, as_json: bool) -> str:
    if as_json:
        period = simulator.rate_period
        return json.dumps({"url": simulator.url, "api_key": simulator.api_key, "rate_period": period})
    return f"smsverify simulator ready: url={simulator.url} api_key={simulator.api_key}"


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("smsverify.simulator")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
