"""The store: making it, looking at it, and removing what is old."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Annotated

import typer

from smsverify._runtime.interrupts import interrupts
from smsverify.cli import output, verbs
from smsverify.cli.help import Group
from smsverify.cli.options import flag
from smsverify.cli.progress import progress
from smsverify.cli.verbs import EXIT_ERROR, Common

PANEL = "Upkeep"


def upgrade(common: Common) -> int:
    """Make the store's tables if they are missing."""
    common.hook().upgrade_store()
    return check(common)


def check(common: Common) -> int:
    """Look at the store. Changes nothing; the exit code is 1 if it is missing, older or newer."""
    state = common.hook().check_store()
    code = 0 if state.is_ok else EXIT_ERROR
    if common.json:
        output.say(json.dumps(state.as_dict()))
        return code
    if state.is_ok:
        output.say(state.as_text())
    else:
        output.complain(state.as_text(), code)
    for line in state.details():
        output.say(line)
    return code


def prune(
    common: Common,
    older_than: Annotated[
        int,
        typer.Option(
            help="Remove only what is older than this many days.",
            metavar="DAYS",
            min=1,
            max=36_500,
            show_default=False,
        ),
    ],
    yes: Annotated[bool, flag("--yes", "Remove the rows. Without it, they are only counted.")] = False,
) -> int:
    """Remove old messages, and what ended waits have left behind.

    What was bought and spent stays, with every key.
    """
    done, total = 0, 1

    def note(removed: int, of: int) -> None:
        nonlocal done, total
        done, total = removed, max(of, 1)

    hook = common.hook()
    with (
        interrupts("The rows that were removed stay removed. Run the same command again to go on") as stop,
        progress("prune", None, lambda: f"{done:,} of {total:,} rows", lambda: done / total),
    ):
        report = hook.prune_store(timedelta(days=older_than), dry_run=not yes, stop=stop, on_progress=note)
    output.say(json.dumps(report.as_dict()) if common.json else report.as_text())
    return 0


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    store = typer.Typer(cls=Group, help="Make the store, look at it, or remove what is old.")
    for verb in (upgrade, check, prune):
        verbs.add(store, "Commands", verb)
    app.add_typer(store, name="store", rich_help_panel=PANEL)
