"""Values as callers give them, in Python's own types and as they are written."""

from __future__ import annotations

from enum import Enum
from numbers import Number
from typing import Any


def own_type(value: Any) -> Any:
    """A value in Python's own type: what an enum's member stands for, and a text or number of a subclass.

    Such a member is equal to its value, and yet Python may write it by its name.
    """
    while isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__int__(value)
    return value


def written(value: Any) -> str:
    """A text, or a number as it is written; empty for all else."""
    if isinstance(value, bool) or not isinstance(value, (str, Number)):
        return ""
    try:
        return str(value)
    except ValueError:  # Python writes no number that has thousands of digits
        return ""


def number_text(value: Any) -> str:
    """A number as people write it, or a text that may be one; empty for what only Python reads as one."""
    text = written(value).strip()
    # Python reads 1_000 as a thousand, and the digits of other scripts.
    return text if text.isascii() and "_" not in text else ""
