"""Ids of orders, as numbers or as their digits."""

from __future__ import annotations

import re
from typing import Any, Final

_LARGEST_ID: Final = 2**63 - 1  # what a database's column takes


def order_id_of(value: Any) -> int | None:
    """The id that a number or a text of digits is; `None` where it is no positive whole number."""
    text = str(value).strip()
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not re.fullmatch(r"[0-9]{1,19}", text):
        return None
    return int(text) if 0 < int(text) <= _LARGEST_ID else None
