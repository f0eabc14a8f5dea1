"""Phone numbers as the service formats them, from ranges kept for fiction where there are such."""

from __future__ import annotations

from collections import Counter

_AREA_CODES = ("415", "212", "646", "312", "213", "305", "702", "512", "206", "617")
_FICTION = 100  # 555-0100 to 555-0199


class Phones:
    """Hands out numbers. Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._given: Counter[str] = Counter()

    def usa(self, area_code: str | None) -> str:
        """The next number of the USA, the first being the documentation's own ``+1 415 555 0123``."""
        if area_code is None:
            area_code = min(_AREA_CODES, key=lambda code: self._given[code] // _FICTION)
        n = self._next(area_code)
        exchange, line = 555 + n // _FICTION, 100 + (n + 23) % _FICTION
        return f"+1 {area_code} {exchange} {line:04d}"

    def abroad(self, country_id: int) -> str:
        """The next number of a country; the United Kingdom's first is the documentation's own."""
        n = self._next(f"country {country_id}")
        block, line = divmod(n + 17, 1000)
        if country_id == 4:  # the documentation's United Kingdom
            return f"+44 20 {7946 + block} {line:04d}"
        if country_id == 17:  # its Germany
            return f"+49 30 {23125 + block} {line:03d}"
        if country_id == 9:  # its India
            return f"+91 {98765 + block} {line:05d}"
        return f"+{800 + country_id} {100 + block} {line:05d}"

    def _next(self, range_: str) -> int:
        self._given[range_] += 1
        return self._given[range_] - 1
