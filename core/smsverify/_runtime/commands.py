"""Commands that a person can type, for all that names one."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from smsverify.text import amount


def command(*words: str, **options: Any) -> str:
    """A command as a person types it, with the options that are given."""
    parts = ["smsverify", *words]
    for name, value in options.items():
        parts += [] if value is None else [f"--{name.replace('_', '-')}", _typed(value)]
    return shlex.join(parts)


def quoted_command(*words: str, **options: Any) -> str:
    """The same inside of a sentence."""
    return f"`{command(*words, **options)}`"


def resolve_command(key: str, order_ids: Sequence[int]) -> str:
    """The command by which a person says which order an unknown call has bought or renewed."""
    return command("resolve", key, order=order_ids[0] if len(order_ids) == 1 else "ORDER_ID")


def how_to_resolve(key: str, order_ids: Sequence[int]) -> str:
    """What a person can do about a call whose outcome stays unknown.

    Args:
        key: of the call.
        order_ids: the orders that it may have bought or renewed, if any are known.
    """
    bought = f"`{resolve_command(key, order_ids)}`"
    return f"Look at the dashboard, then run {bought}, or {quoted_command('resolve', key, '--not-made')}"


def may_have_bought(order_ids: Sequence[int]) -> str:
    """That a purchase may be one of some orders."""
    return f"it may have bought order {' or '.join(map(str, order_ids))}"


def _typed(value: Any) -> str:
    return amount(value) if isinstance(value, Decimal) else str(value)
