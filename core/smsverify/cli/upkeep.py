"""The store: making it, and looking at it."""

from __future__ import annotations

import json

import typer

from smsverify.cli import output, verbs
from smsverify.cli.help import Group
from smsverify.cli.verbs import ERROR, Common

PANEL = "Upkeep"


def upgrade(common: Common) -> int:
    """Make the store's tables where they are missing."""
    common.hook().check_store()
    return check(common)


def check(common: Common) -> int:
    """Look at the store. Changes nothing; the exit code is 1 where it is missing, older or newer."""
    state = common.hook().inspect_store()
    code = 0 if state.is_ok else ERROR
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


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    store = typer.Typer(cls=Group, help="Make the store, or look at it.")
    for verb in (upgrade, check):
        verbs.add(store, "Commands", verb)
    app.add_typer(store, name="store", rich_help_panel=PANEL)
