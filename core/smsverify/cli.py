"""`smsverify` on the command line: the hook's verbs for people, and the simulator.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 the service or the
store refused, 2 bad input, 3 no code came, 4 a reconciliation found something to look at, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel

from smsverify.errors import InvalidRequestError, OrderEndedError, SmsVerifyError, WaitTimeoutError
from smsverify.hook import DEFAULT_TIMEOUT, SmsVerifyHook
from smsverify.models import PRODUCTS, Rental, check_seconds
from smsverify.simulator import command as simulate
from smsverify.version import __version__

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_NO_CODE = 3
EXIT_FINDINGS = 4
EXIT_INTERRUPTED = 128 + signal.SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    args = _parser().parse_args(argv)
    if args.run is not simulate.run:  # which tells what happens in its own way
        level = logging.INFO if args.verbose else logging.WARNING
        logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    try:
        return int(args.run(args))
    except InvalidRequestError as error:
        return _complain(error, EXIT_USAGE)
    except (WaitTimeoutError, OrderEndedError) as error:
        return _complain(error, EXIT_NO_CODE)
    except SmsVerifyError as error:
        return _complain(error, EXIT_ERROR)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output (head, less) has gone; the interpreter must not trip over it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR


_AMOUNTS = ("max_price", "daily_budget", "run_budget")


# ------------------------------------------------------------------ commands


def _balance(args: argparse.Namespace) -> int:
    balance = _hook(args).get_balance()
    _show(args, balance, f"{balance.amount:.2f} {balance.currency}")
    return 0


def _services(args: argparse.Namespace) -> int:
    hook = _hook(args)
    if args.product == "global":
        rows: Sequence[BaseModel] = (
            hook.list_global_services(args.country) if args.country else hook.list_countries()
        )
    elif args.product == "esim":
        rows = hook.list_esim_plans()
    else:
        rows = hook.list_services(args.product)
    _show_table(args, rows)
    return 0


def _order(args: argparse.Namespace) -> int:
    names = ("service", "country", "area_code", "duration", "plan", *_AMOUNTS, "key")
    with _interrupts() as stop:
        order = _hook(args).order(args.product, **{name: getattr(args, name) for name in names}, stop=stop)
    price = "-" if order.price is None else f"{order.price:.2f} USD"
    _show(args, order, f"order {order.order_id}  {order.phone or '-'}  {order.status}  {price}")
    if args.reveal and order.activation_code is not None:
        print(order.activation_code)
    return 0


def _wait(args: argparse.Namespace) -> int:
    with _interrupts() as stop, _progress(f"order {args.order_id}", args.timeout):
        message = _hook(args).wait_for_otp(
            args.order_id,
            args.timeout,
            cancel_on_timeout=not args.keep,
            after=args.after,
            sender=args.sender,
            pattern=args.pattern,
            stop=stop,
        )
    _show(args, message, message.otp or message.message or "")
    return 0


def _status(args: argparse.Namespace) -> int:
    status = _hook(args).get_status(args.order_id)
    _show(args, status, f"order {status.order_id}  {status.phone or '-'}  {status.status}")
    return 0


def _cancel(args: argparse.Namespace) -> int:
    status = _hook(args).cancel(args.order_id)
    _show(args, status, f"order {status.order_id}  {status.status}")
    return 0


def _renew(args: argparse.Namespace) -> int:
    with _interrupts() as stop:
        amounts = {name: getattr(args, name) for name in _AMOUNTS}
        order = _hook(args).renew(args.order_id, **amounts, key=args.key, stop=stop)
    _show(args, order, f"order {order.order_id}  until {order.expires_at or 'unknown'}")
    return 0


def _orders(args: argparse.Namespace) -> int:
    _show_table(args, _hook(args).list_orders())
    return 0


def _rentals(args: argparse.Namespace) -> int:
    within = check_seconds(args.within, "within")
    rentals = _hook(args).rentals(args.order_ids)
    if args.json:
        print(json.dumps([_as_dict(rental) for rental in rentals]))
        return 0
    head = (
        "order_id",
        "time left",
        "expires_at",
        "price",
        "renewals",
        "product",
        "service",
        "phone",
        "status",
    )
    rows = [
        (
            str(rental.order_id),
            _time_left(rental),
            "unknown" if rental.expires_at is None else f"{rental.expires_at:%Y-%m-%d %H:%M} UTC",
            "unknown" if rental.price is None else f"{rental.price:.2f}",
            str(rental.renewals),
            _product_of(rental),
            rental.service or "-",
            rental.phone or "-",
            rental.status + (f" ({rental.note})" if rental.note else ""),
        )
        for rental in rentals
    ]
    lefts = [rental.time_left_seconds for rental in rentals]
    _print_table([head, *rows], ["", *(_colour(left, within) for left in lefts)])
    return 0


def _time_left(rental: Rental) -> str:
    """As people say it; `~` where it is reckoned."""
    if rental.time_left_seconds is None:
        return "unknown"
    minutes = int(rental.time_left_seconds // 60)
    days, hours = divmod(minutes // 60, 24)
    text = f"{days} d {hours} h" if days else f"{hours} h {minutes % 60} min"
    return f"~{text}" if rental.expires_estimated else text


def _product_of(rental: Rental) -> str:
    duration = f" {rental.duration} days" if rental.duration is not None else ""
    return f"{rental.product or '-'}{duration}"


def _colour(left: float | None, within: float) -> str:
    """Red where a rental has ended or nobody knows when it does, yellow where it is due."""
    if left is None or left <= 0:
        return "31"
    return "33" if left <= within else ""


def _reconcile(args: argparse.Namespace) -> int:
    with _interrupts() as stop:
        report = _hook(args).reconcile(cancel_after=args.cancel_after, stop=stop)
    print(json.dumps(report.as_dict()) if args.json else report.as_text())
    return EXIT_FINDINGS if report.findings else 0


def _settle(args: argparse.Namespace) -> int:
    _hook(args).settle(args.key, order_id=args.order_id)
    outcome = "was not carried out" if args.order_id is None else f"is order {args.order_id}"
    print(json.dumps({"key": args.key, "order_id": args.order_id}) if args.json else f"{args.key} {outcome}")
    return 0


def _budget(args: argparse.Namespace) -> int:
    state = _hook(args).budget()
    if args.json:
        print(json.dumps(asdict(state), default=str))
        return 0
    blocked = f", blocked until {state.blocked_until:%H:%M:%S} UTC" if state.blocked_until else ""
    print(
        f"{state.available} of {state.limit} requests per {state.period:g} s free, "
        f"{state.waiting} waiting, {state.refusals} times refused so far{blocked}"
    )
    return 0


def _store(args: argparse.Namespace) -> int:
    version = _hook(args).check_store()
    text = f"the store is reachable and has schema {version}"
    print(json.dumps({"schema": version}) if args.json else text)
    return 0


def _callbacks(args: argparse.Namespace) -> int:
    try:
        from smsverify.callback import serve
    except ModuleNotFoundError as error:
        print(f"smsverify: this needs {error.name}: pip install 'smsverify[server]'", file=sys.stderr)
        return EXIT_ERROR
    logging.getLogger("smsverify").setLevel(logging.INFO)  # what comes is all that there is to see
    with _interrupts():
        serve([_hook(args)], host=args.host, port=args.port)
    return 0


# ------------------------------------------------------------------ parser


class _Commands:
    """Adds commands to the parser, with the options that all or many of them have."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(self, name: str, run: Any, text: str) -> argparse.ArgumentParser:
        """A command of the hook's."""
        text = f"{text} (settings come from SMSVERIFY_API_KEY, SMSVERIFY_BASE_URL, …)"
        command = self._commands.add_parser(name, help=text, description=text)
        command.add_argument("-v", "--verbose", action="store_true", help="tell each change of state")
        command.add_argument("--json", action="store_true", help="print JSON")
        command.add_argument("--base-url", help="the service's address")
        command.add_argument("--store-url", help="SQLAlchemy URL of the store")
        command.set_defaults(run=run)
        return command

    def add_paid(self, name: str, run: Any, text: str) -> argparse.ArgumentParser:
        """A command that costs money."""
        command = self.add(name, run, text)
        command.add_argument("--max-price", help="most that may be paid, in USD")
        command.add_argument("--daily-budget", help="most that the account may spend in a day (UTC), in USD")
        command.add_argument("--key", help="names the call: the same key never pays twice")
        command.set_defaults(run_budget=None)  # a command is a run of one call
        return command

    def add_simulate(self) -> None:
        """The simulator, which has options of its own."""
        simulator = self._commands.add_parser(
            "simulate", help="run a simulator of the service", description="Run a simulator of the service."
        )
        simulate.add_arguments(simulator)
        simulator.set_defaults(run=simulate.run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="smsverify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"smsverify {__version__}")
    commands = _Commands(parser)
    commands.add("balance", _balance, "the wallet's balance")
    _add_purchases(commands)
    _add_orders(commands)
    _add_housekeeping(commands)
    commands.add_simulate()
    return parser


def _add_purchases(commands: _Commands) -> None:
    services = commands.add("services", _services, "what can be ordered, with prices")
    services.add_argument("product", choices=PRODUCTS)
    services.add_argument("--country", help="for global: id or name; without it the countries are listed")
    order = commands.add_paid("order", _order, "order a number or an eSIM")
    order.add_argument("product", choices=PRODUCTS)
    order.add_argument("--service", help="id or name")
    order.add_argument("--country", help="id or name, for global")
    order.add_argument("--area-code", help="three digits, for temporary")
    order.add_argument("--duration", help="3 or 30 days, for rental")
    order.add_argument("--plan", help="name, for esim")
    order.add_argument("--reveal", action="store_true", help="print an eSIM's activation code")
    commands.add_paid("renew", _renew, "extend a rental").add_argument("order_id")


def _add_orders(commands: _Commands) -> None:
    wait = commands.add("wait", _wait, "wait for the code of an order and print it")
    wait.add_argument("order_id")
    wait.add_argument("--timeout", type=float, default=DEFAULT_TIMEOUT, help="seconds (%(default)s)")
    wait.add_argument(
        "--keep", action="store_true", help="do not cancel the order when no code comes in time"
    )
    wait.add_argument("--after", help="only an SMS later than this (ISO 8601, such as a received_at)")
    wait.add_argument("--sender", help="only an SMS from this name or number, which callbacks tell")
    wait.add_argument(
        "--pattern", help="only an SMS with this regular expression; its first group is the code"
    )
    commands.add("status", _status, "the status of an order").add_argument("order_id")
    commands.add("cancel", _cancel, "cancel an order for a refund").add_argument("order_id")
    commands.add("orders", _orders, "the account's 50 newest orders")
    rentals = commands.add("rentals", _rentals, "the rented numbers, and how long they last")
    rentals.add_argument("order_ids", nargs="*", metavar="order_id", help="rented elsewhere, besides")
    rentals.add_argument(
        "--within",
        default=str(86_400),
        metavar="SECONDS",
        help="what ends sooner is coloured, on a terminal (%(default)s)",
    )


def _add_housekeeping(commands: _Commands) -> None:
    commands.add("budget", _budget, "what is left of the requests per minute")
    reconcile = commands.add("reconcile", _reconcile, "compare what is on record with the service")
    reconcile.add_argument(
        "--cancel-after",
        type=float,
        metavar="SECONDS",
        help="cancel numbers that nobody has waited for in so long; without it they are only reported",
    )
    settle = commands.add("settle", _settle, "tell what became of a paid call whose outcome is unknown")
    settle.add_argument("key", help="as `reconcile` names it")
    outcome = settle.add_mutually_exclusive_group(required=True)
    outcome.add_argument("--order", dest="order_id", help="the order that it has bought or renewed")
    outcome.add_argument("--not-made", action="store_true", help="it was not carried out")
    callbacks = commands.add("callbacks", _callbacks, "receive the callbacks of SMSVERIFY_CALLBACK_SECRETS")
    callbacks.add_argument("action", choices=("serve",))
    callbacks.add_argument("--host", default="127.0.0.1", help="where to listen (%(default)s)")
    callbacks.add_argument("--port", type=int, default=8080, help="(%(default)s); 0 takes a free one")
    store = commands.add("store", _store, "create, upgrade or check the store")
    store.add_argument("action", choices=("upgrade", "check"))


def _hook(args: argparse.Namespace) -> SmsVerifyHook:
    return SmsVerifyHook(base_url=args.base_url, store_url=args.store_url)


# ------------------------------------------------------------------ what people see


def _show(args: argparse.Namespace, model: BaseModel, text: str) -> None:
    print(json.dumps(_as_dict(model)) if args.json else text)


def _show_table(args: argparse.Namespace, models: Sequence[BaseModel]) -> None:
    rows = [_as_dict(model) for model in models]
    if args.json:
        print(json.dumps(rows))
        return
    names = [name for name in (rows[0] if rows else ()) if any(row[name] not in (None, {}) for row in rows)]
    lines = [names, *([_cell(row[name]) for name in names] for row in rows)]
    _print_table(lines, [""] * len(lines))


def _print_table(lines: Sequence[Sequence[str]], colours: Sequence[str]) -> None:
    """Prints lines of cells in columns, coloured where people see it and want it."""
    may_colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line, colour in zip(lines, colours, strict=True):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        print(f"\033[{colour}m{text}\033[0m" if colour and may_colour else text)


def _as_dict(model: Any) -> dict[str, Any]:
    shown: dict[str, Any] = model.as_dict()
    return {name: value for name, value in shown.items() if not name.startswith("highest_")}


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{days} days {price}" for days, price in value.items())
    return "-" if value is None else str(value)


def _complain(error: SmsVerifyError, code: int) -> int:
    print(f"smsverify: {error}", file=sys.stderr)
    return code


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, so that whoever waits can leave the store in order."""
    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(what: str, seconds: float) -> Iterator[None]:
    """A bar on a terminal that shows how much of the time is over."""
    done = threading.Event()
    started = time.monotonic()

    def draw() -> None:
        while not done.wait(0.5):
            share = min((time.monotonic() - started) / seconds, 1.0) if seconds else 1.0
            bar = "#" * round(30 * share)
            print(f"\r{what} [{bar:<30}] {share * seconds:.0f} of {seconds:.0f} s ", end="", file=sys.stderr)
        print("\r\033[K", end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=draw, daemon=True)
    if sys.stderr.isatty():
        thread.start()
    try:
        yield
    finally:
        done.set()
        if thread.is_alive():
            thread.join()


if __name__ == "__main__":
    sys.exit(main())
