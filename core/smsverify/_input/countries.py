"""Countries by the names and codes that people use; the service writes each in one way only."""

from __future__ import annotations

import functools
from pathlib import Path

from smsverify._input.names import bare


def same_country(one: str, other: str) -> bool:
    """Whether two names or codes stand for the same country; `False` where one of them is not known."""
    code = _codes().get(bare(one))
    return code is not None and code == _codes().get(bare(other))


def is_usa(text: str) -> bool:
    """Whether a name or code stands for the United States, which the service sells as other products."""
    return _codes().get(bare(text)) == "US"


def _lines() -> list[str]:
    """ISO 3166: the codes of two and three letters, then names."""
    return Path(__file__).with_name("countries.txt").read_text(encoding="utf-8").splitlines()


@functools.cache
def _codes() -> dict[str, str]:
    codes: dict[str, str] = {}
    for line in _lines():
        short, long, names = line.split(" ", 2)
        codes |= {bare(name): short for name in (short, long, *names.split("; "))}
    return codes
