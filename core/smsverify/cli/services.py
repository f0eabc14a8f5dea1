"""Commands that run until they are stopped: the receiver of callbacks, and the simulator."""

from __future__ import annotations

import argparse
import logging
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from smsverify.cli import output, verbs
from smsverify.cli.help import Group
from smsverify.cli.progress import progress
from smsverify.cli.verbs import EXIT_ERROR, Common

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from smsverify.simulator import Simulator

PANEL = "Services"


def serve(
    common: Common,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8080,
) -> int:
    """Receive the service's callbacks.

    SMSVERIFY_CALLBACK_SECRETS holds the secrets of the address that the service calls.
    """
    try:
        from smsverify.callback import serve as serve_callbacks
    except ModuleNotFoundError as error:
        text = f"the receiver needs {error.name}. Install it: pip install 'smsverify[server]'"
        return output.complain(text, EXIT_ERROR)
    logging.getLogger("smsverify").setLevel(logging.INFO)  # callbacks are all that it can show
    # The server handles SIGTERM, and raises it again when it has ended.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        serve_callbacks([common.hook()], host=host, port=port)
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def simulate(context: typer.Context) -> None:
    """Run a simulator of the service, to try everything without paying."""
    from smsverify.simulator import command

    parser = argparse.ArgumentParser(prog="smsverify simulate", description="Run a simulator of the service.")
    command.add_arguments(parser)
    raise typer.Exit(command.run(parser.parse_args(context.args), watched=_watched))


def _watched(simulator: Simulator) -> AbstractContextManager[None]:
    def facts() -> str:
        stats = simulator.stats()
        return f"{stats.requests} requests, {stats.refused} refused, {len(simulator.orders())} orders"

    return progress(f"simulator {simulator.url}", None, facts)


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    callbacks = typer.Typer(cls=Group, help="Receive callbacks.")
    verbs.add(callbacks, "Commands", serve)
    app.add_typer(callbacks, name="callbacks", rich_help_panel=PANEL)
    # The simulator stands alone and reads its options by itself.
    alone = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command("simulate", rich_help_panel=PANEL, context_settings=alone, add_help_option=False)(simulate)
