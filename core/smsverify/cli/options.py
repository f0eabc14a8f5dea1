"""Options and arguments that several commands have."""

from __future__ import annotations

from typing import Annotated, Any

import typer

PRODUCTS = "temporary, best-temp, rental, rent-1day, rent-30days, global or esim"


def flag(name: str, help: str, *, short: str = "", panel: str | None = None) -> Any:
    """An option without a value.

    Args:
        name: such as `--json`.
        help: one sentence.
        short: a second name of one letter.
        panel: the group in which the help shows it; by default that of the command's own options.
    """
    names = [name, short] if short else [name]
    return typer.Option(*names, help=help, show_default=False, rich_help_panel=panel)


def _products() -> list[str]:
    from smsverify.models import PRODUCTS as ALL

    return list(ALL)


Product = Annotated[
    str,
    typer.Argument(
        help=f"What is rented: {PRODUCTS}.", metavar="PRODUCT", autocompletion=_products, show_default=False
    ),
]
OrderId = Annotated[str, typer.Argument(help="The order's id.", metavar="ORDER_ID", show_default=False)]
MaxPrice = Annotated[
    str | None, typer.Option(help="The most that may be paid, in USD.", metavar="USD", show_default=False)
]
Key = Annotated[
    str | None, typer.Option(help="Names the call. Calls with the same key pay once.", show_default=False)
]
