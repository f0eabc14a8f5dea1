"""The account as its records show it: once, or again and again until Ctrl-C."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from smsverify.cli import output, verbs
from smsverify.cli.verbs import EXIT_USAGE, Common
from smsverify.errors import StoreError
from smsverify.overview_tables import FIRST_STEPS, facts, tables
from smsverify.text import printable

if TYPE_CHECKING:
    from smsverify.overview import Overview
    from smsverify.overview_tables import Table as Rows

PANEL = "Account"
STYLES = {"bad": "red", "warn": "yellow", "ok": "green", "": ""}


def overview(common: Common) -> None:
    """Show the account at a glance, as its records have it. Sends no request."""
    seen = common.hook().overview()
    if common.json:
        output.say(json.dumps(seen.as_dict()))
        return
    output.say(printable(_head(seen)))
    figures = facts(seen)
    width = max(len(fact.name) for fact in figures)
    for fact in figures:
        output.say(printable(f"{fact.name:<{width}}  {fact.text:<20}  {fact.note}".rstrip()))
    if seen.is_empty:
        output.say("")
        for line in FIRST_STEPS:
            output.say(line)
        return
    for rows in tables(seen):
        output.say("")
        output.say(printable(_title(rows)))
        output.table(rows.head, rows.rows, [STYLES[level] for level in rows.levels])


def top(
    common: Common,
    every: Annotated[
        float,
        typer.Option(help="How long to wait between two looks.", metavar="SECONDS", min=0.2, max=86_400),
    ] = 2.0,
) -> int:
    """Watch the overview in the terminal. Ctrl-C ends it. Sends no request."""
    if not sys.stdout.isatty():
        text = "top needs a terminal: `smsverify overview` prints the same once"
        return output.complain(text, EXIT_USAGE)
    from smsverify.checks import check_seconds

    hook, pause = common.hook(), check_seconds(every, "every")
    console = Console(markup=False, highlight=False, emoji=False)
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                try:
                    shown = screen(hook.overview(), console.height)
                except StoreError as error:  # it may come back
                    shown = Text(str(error), style="red")
                live.update(shown, refresh=True)
                time.sleep(pause)
    except KeyboardInterrupt:
        return 0


def screen(seen: Overview, height: int) -> RenderableType:
    """An overview that fits on so many lines: of each table, the first rows."""
    cards = Table.grid(padding=(0, 3, 0, 0), expand=True)
    figures = facts(seen)
    for _ in figures:
        cards.add_column(ratio=1)
    cards.add_row(*(Text(printable(fact.name), style="dim") for fact in figures))
    cards.add_row(*(Text(printable(fact.text), style="bold") for fact in figures))
    cards.add_row(*(Text(printable(fact.note), style="dim") for fact in figures))
    parts: list[RenderableType] = [Text(printable(_head(seen)), style="dim"), Text(), cards]
    if seen.is_empty:
        return Group(*parts, Text(), *map(Text, FIRST_STEPS))
    shown = list(tables(seen))
    each_has = max((height - 10) // len(shown) - 3, 1)
    for rows in shown:
        parts += [Text(), Text(printable(_title(rows)), style="bold"), _grid(rows, each_has)]
    return Group(*parts)


def _grid(rows: Rows, most: int) -> Table:
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in rows.head:
        grid.add_column(name, no_wrap=True)
    for cells, level in list(zip(rows.rows, rows.levels, strict=True))[:most]:
        grid.add_row(*(Text(printable(cell)) for cell in cells), style=STYLES[level] or None)
    return grid


def _head(seen: Overview) -> str:
    store = f"store {seen.store} · schema {seen.schema_version}"
    return f"account {seen.account} · {store} · from the records, {seen.at:%H:%M:%S} UTC"


def _title(rows: Rows) -> str:
    return f"{rows.title}: {rows.note}" if rows.note else rows.title


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    for verb in (overview, top):
        verbs.add(app, PANEL, verb)
