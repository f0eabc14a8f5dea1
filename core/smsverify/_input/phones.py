"""Phone numbers, however they are written: the service writes one number in several ways."""

from __future__ import annotations

import re

_SHORTEST = 7  # digits of a number without its country, at the least

# What is behind the number: an extension, which leads to the same line, or the parameters of a `tel:` URI.
_EXTENSION = re.compile(
    r"(?:[\s,;]{0,3}(?:ext(?:ension)?\.?|x)\s{0,3}:?\s{0,3}[0-9]|\s{0,3}#|;).*\Z", re.IGNORECASE | re.DOTALL
)
# The zero that is dialled inside of a country only: +44 (0)20 7946 0017.
_TRUNK_ZERO = re.compile(r"(?<=[0-9])(\s*)[(\[]\s*0\s*[)\]]")
_ABROAD = re.compile(r"(?:00|011)(?=[1-9])")  # what is dialled to leave Europe, and the USA
# What stands for digits that are not shown.
_HIDDEN = re.compile(r"[*\u2217\u2022\u25cf\u2026?]|[.-]{3}|(?<![a-wyz])x+(?![a-wyz])", re.IGNORECASE)


def phone_digits(phone: str | None) -> str | None:
    """The digits of a phone number, country code first: ten bare digits are a number of the USA."""
    written, has_plus = _written(phone)
    if not written:
        return None
    if has_plus:
        return written
    if len(written) == 10 and written[0] != "0":
        return f"1{written}"
    return _ABROAD.sub("", written, count=1) if _ABROAD.match(written) and len(written) > 10 else written


def is_same_phone(one: str | None, other: str | None) -> bool:
    """Whether two ways to write a phone number mean the same; the country code of the USA may be missing, and
    of a number that is written as inside its country (a zero in front) the other gives the country.
    """
    digits, others = phone_digits(one), phone_digits(other)
    if digits is None or others is None:
        return False
    bare, others_bare = _written(one)[0], _written(other)[0]
    return digits == others or bare == others_bare or _is_national(one, others) or _is_national(other, digits)


def is_whole_phone(phone: str | None) -> bool:
    """Whether this is a phone number with all its digits: none is hidden, as in `+1 415 *** 0123`."""
    return len(_written(phone)[0]) >= _SHORTEST and _HIDDEN.search(_without_extension(phone)) is None


def fuller_phone(known: str | None, shown: str | None) -> str | None:
    """The known number, unless the shown one is the same with more digits, such as the country code."""
    if known is None or shown is None:
        return known or shown
    is_fuller = len(_written(shown)[0]) > len(_written(known)[0]) and is_same_phone(known, shown)
    return shown if is_fuller else known


def _is_national(phone: str | None, international: str) -> bool:
    """Whether a number with a zero in front is the other without its country code, of up to three digits."""
    written, has_plus = _written(phone)
    rest = written.removeprefix("0")
    if has_plus or rest == written or rest.startswith("0") or len(rest) < _SHORTEST:
        return False
    return international.endswith(rest) and 1 <= len(international) - len(rest) <= 3


def _written(phone: str | None) -> tuple[str, bool]:
    """The number's digits in ASCII as they are written, and whether a plus is in front."""
    number = _TRUNK_ZERO.sub(r"\1", _without_extension(phone))
    digits = "".join(char for char in number if char.isdecimal())
    return digits, number.lstrip("([ \u200e\u202a\u2068").startswith(("+", "\uff0b"))


def _without_extension(phone: str | None) -> str:
    """A number with its digits in ASCII, and without what is behind it."""
    text = (phone or "").strip()
    text = re.sub(r"\Atel:", "", text[:100], flags=re.IGNORECASE).strip()
    return _EXTENSION.sub("", "".join(str(int(char)) if char.isdecimal() else char for char in text))
