"""What templates and missing results leave where a value should stand.

A template that renders nothing leaves a word for nothing, as a text. As the name of a purchase it would be
the same for every task: so such a text is refused wherever a value is expected.
"""

from __future__ import annotations

from typing import Any, Final

# As Jinja, Python, JSON, pandas and shells write nothing.
_NOTHING: Final = frozenset(
    {"", "none", "null", "nil", "nan", "nat", "<na>", "undefined", "[]", "{}", "()", "set()", "''", '""'}
)
_UNRENDERED: Final = (("{{", "}}"), ("{%", "%}"), ("${", "}"))


def is_left_over(value: Any) -> bool:
    """Whether a text is what an empty template or a missing result leaves, or an unrendered template."""
    if not isinstance(value, str):
        return False
    text = value.strip()
    return text.casefold() in _NOTHING or any(
        closing in _after(text, begin) for begin, closing in _UNRENDERED
    )


def _after(text: str, begin: str) -> str:
    return text.partition(begin)[2]
