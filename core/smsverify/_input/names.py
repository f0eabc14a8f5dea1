"""Names as people type them and as the service's lists write them, and the one that is meant."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Sequence
from typing import TypeVar

from smsverify.errors import InvalidRequestError, NotAvailableError
from smsverify.text import printable, shown

Entry = TypeVar("Entry")


def plain(text: str) -> str:
    """A name without what cannot be seen: one space between its words, whatever is written there."""
    seen = "".join(char for char in unicodedata.normalize("NFKC", text) if unicodedata.category(char) != "Cf")
    return " ".join(seen.split())


def folded(text: str) -> str:
    """The same, whatever the case."""
    return plain(plain(text).casefold())


def bare(text: str) -> str:
    """The same, without accents, spaces and marks."""
    letters = unicodedata.normalize("NFKD", folded(text).replace("&", " and "))
    return "".join(char for char in letters if char.isalnum())


def pick(
    entries: Sequence[Entry],
    wanted: int | str,
    field: str,
    described: Callable[[Entry], tuple[int | str | None, str, str]],
    *,
    is_same: Callable[[str, str], bool] | None = None,
    unread: int = 0,
) -> Entry:
    """The one entry that is meant. A number is an id; a text is an id or a name.

    Of the names, the one that is written exactly like that is meant; otherwise the one that differs only in
    what cannot be seen, otherwise in the case, otherwise by `is_same`.

    Args:
        entries: to choose from.
        wanted: an id or a name.
        field: the parameter that it was given as, for errors.
        described: id, name and price of an entry, for people.
        is_same: whether two names mean the same.
        unread: how many more entries there are, at least: they cannot be read, or stand on another page.

    Raises:
        NotAvailableError: there is none; the message names what comes close.
        InvalidRequestError: there are several; the message says how to name one.
    """
    found = [
        entry
        for entry in entries
        if described(entry)[0] is not None and str(described(entry)[0]) == str(wanted)
    ]
    if isinstance(wanted, str):
        found += _by_name(entries, wanted, lambda entry: described(entry)[1], is_same)
    found = [entry for place, entry in enumerate(found) if entry not in found[:place]]
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidRequestError(
            _ambiguous(wanted, field, [described(entry) for entry in found]), field=field
        )
    names = [printable(described(entry)[1]) for entry in entries]
    close = difflib.get_close_matches(str(wanted), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"names in the catalogue: {len(names)}"
    if unread:
        hint += f". Entries that were not read: at least {unread}"
    raise NotAvailableError(
        f"{field} {shown(wanted)} is not in the catalogue (misspelt, or out of stock): {hint}"
    )


def _by_name(
    entries: Sequence[Entry],
    wanted: str,
    name_of: Callable[[Entry], str],
    is_same: Callable[[str, str], bool] | None,
) -> list[Entry]:
    for form in (str, plain, folded):
        if found := [entry for entry in entries if form(name_of(entry)) == form(wanted)]:
            return found
    if is_same is None:
        return []
    if found := [entry for entry in entries if bare(name_of(entry)) == bare(wanted)]:
        return found
    return [entry for entry in entries if is_same(name_of(entry), wanted)]


def _ambiguous(wanted: int | str, field: str, found: list[tuple[int | str | None, str, str]]) -> str:
    ids = [str(entry_id) for entry_id, _, _ in found]
    listed = "; ".join(
        f"{printable(name)!r}"
        + (f", id {entry_id}" if entry_id is not None else "")
        + f" ({price})" * bool(price)
        for entry_id, name, price in found
    )
    text = f"{field} {shown(wanted)} fits several entries of the catalogue ({listed}). Nothing was sent"
    if len(set(ids)) < len(ids):
        return (
            f"{text}, because no id tells these entries apart, and the service might sell any of them. "
            f"Choose another {field}, or ask the service why it lists this one several times"
        )
    if str(wanted) in ids:
        other = next(entry_id for entry_id in ids if entry_id != str(wanted))
        name = next(printable(name) for entry_id, name, _ in found if str(entry_id) == str(wanted))
        return (
            f"{text}, because it is the id of one and the name of another. Give {name!r} for the first or "
            f"{other} for the second. The number {wanted}, if it is not a text, is always an id"
        )
    return f"{text}. Choose one by its id ({', '.join(ids)})"
