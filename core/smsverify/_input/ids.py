"""Ids of orders, as numbers or as their digits."""

from __future__ import annotations

import re
from typing import Any, Final

_LARGEST_ID: Final = 2**63 - 1  # what a database's column takes


def order_id_of(value: Any) -> int | None:
    """The id that a number or a text of digits is; `None` where it is no positive whole number."""
    if isinstance(value, str):
        digits = re.fullmatch(r"\s*([0-9]{1,19})\s*", value)
        value = int(digits[1]) if digits else None
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return int(value) if 0 < value <= _LARGEST_ID else None
