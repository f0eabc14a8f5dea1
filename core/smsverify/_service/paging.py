"""Whether an answer says that its list goes on. The documentation has no pages, and no other one is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

DEEPEST = 2  # levels of objects about the pages, such as `{"meta": {"pagination": {}}}`
# Names of fields, in small letters and without what is between their words.
_ABOUT_PAGES = frozenset({"meta", "metadata", "pagination", "paging", "pageinfo", "links"})
_IN_ALL = frozenset({"count", "total", "totalcount", "totalitems", "totalresults"})
_GOES_ON = frozenset(
    [
        *("next", "nextpage", "nextpageurl", "nexturl", "nextlink", "nextcursor"),
        *("hasmore", "hasnext", "hasnextpage"),
    ]
)
_PAGES = frozenset({"pages", "totalpages", "pagecount", "numpages", "lastpage"})
_PAGE = frozenset({"page", "currentpage", "pagenumber"})
_COUNT = re.compile(r"[0-9]{1,9}")
_NO = frozenset({"", "0", "false", "no", "none", "null"})


def rows_left_out(envelopes: Sequence[Mapping[str, Any]], shown: int) -> int:
    """How many rows a list has, at least, that its answer does not show; 0 if it says nothing of any.

    Args:
        envelopes: the objects that the list stands in.
        shown: rows that it shows.
    """
    said = [named for envelope in envelopes for named in _about_pages(envelope)]
    in_all = max(_numbers(said, _IN_ALL), default=shown)
    is_last = max(_numbers(said, _PAGES), default=1) <= max(_numbers(said, _PAGE), default=1)
    goes_on = not is_last or any(_is_yes(one.get(name)) for one in said for name in _GOES_ON)
    return max(in_all - shown, int(goes_on))


def _about_pages(envelope: Mapping[str, Any], depth: int = 0) -> Iterator[dict[str, Any]]:
    """What an object says of its pages, itself and in objects for them, by plain names."""
    named = {name.lower().replace("_", "").replace("-", ""): value for name, value in envelope.items()}
    yield named
    for name in _ABOUT_PAGES & named.keys():
        if isinstance(named[name], Mapping) and depth < DEEPEST:
            yield from _about_pages(named[name], depth + 1)


def _numbers(said: Sequence[Mapping[str, Any]], names: frozenset[str]) -> Iterator[int]:
    for value in (one[name] for one in said for name in names & one.keys()):
        if _COUNT.fullmatch(str(value)):
            yield int(value)


def _is_yes(value: Any) -> bool:
    return bool(value) and str(value).strip().lower() not in _NO
