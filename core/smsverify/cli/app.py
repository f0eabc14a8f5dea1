"""The commands put together, in the groups that the help shows."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from smsverify._version import __version__
from smsverify.cli import account, numbers, orders, overview, rentals, services, upkeep
from smsverify.cli.help import Group

EPILOG = (
    "Settings come from the environment: SMSVERIFY_API_KEY, SMSVERIFY_BASE_URL, SMSVERIFY_STORE_URL, "
    "SMSVERIFY_DAILY_BUDGET and the others that the documentation lists."
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"smsverify {__version__}")
        raise typer.Exit


def _begin(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Rent phone numbers and receive the one-time codes sent to them."""


def make_app() -> typer.Typer:
    """The command line as Typer runs it."""
    app = typer.Typer(
        name="smsverify",
        cls=Group,
        no_args_is_help=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(epilog=EPILOG)(_begin)
    for commands in (numbers, orders, rentals, account, overview, upkeep, services):
        commands.add_to(app)
    return app


app = make_app()


def run(arguments: Sequence[str]) -> int:
    """Runs one command; returns the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # of a terminal that does not have all letters
    try:
        app(list(arguments), prog_name="smsverify")
    except SystemExit as end:
        return int(end.code or 0)
    return 0
