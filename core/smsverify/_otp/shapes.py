"""Shapes: what is no code by its shape, and what could be one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from smsverify._otp.words import compiled

# --- What is no code by its shape. Blanked out in this order.

_MONEY = "(?:<<currency>>|[$€£¥₹₽₸₴₺₩₫₪฿₦₱])"
_AMOUNT = r"(?:[0-9]{1,3}(?:[ .,'][0-9]{3}){1,4}|[0-9]{1,12})(?:[.,][0-9]{1,2})?(?![0-9])"
_HOST = r"(?<![a-z0-9@.-])(?![0-9]+\.)(?:[a-z0-9-]{1,63}\.){1,4}"
_TOP = "(?:com|net|org|io|app|me|ru|co|in|info|biz|de|fr|uk|xyz|online|bet|win|gg|tv|to|kz|ua|cn|jp|br)"
# Not the end of an amount: 250.000 d, 150,000 kg.
_NO_REST = "(?!(?<=[0-9][.,])[0-9]{3}(?![0-9]))"
_NO_CODES = (
    # Links, with or without their scheme, hosts, e-mail addresses.
    r"(?:https?://|www\.)[!-~]+",
    rf"{_HOST}(?:[a-z]{{2,12}}/[!-~]*|{_TOP}(?![a-z0-9]))",
    r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}",
    # Dates and times.
    r"(?<![0-9])[0-9]{4}([-/.])[0-9]{1,2}\1[0-9]{1,2}(?![0-9])",
    r"(?<![0-9])[0-9]{1,2}([/.])[0-9]{1,2}\1(?:[0-9]{4}|[0-9]{2})(?![0-9])",
    r"(?<![0-9])[0-9]{1,2}-(?:[0-9]{1,2}-(?:19|20)|[a-z]{3,9}-(?:19|20)?)[0-9]{2}(?![0-9])",
    r"(?<![0-9])(?:[0-9]{1,2}/[0-9]{1,2}(?![0-9])|(?:[0-9]{4}年)?[0-9]{1,2}月(?:[0-9]{1,2}日)?)",
    r"(?<![0-9])(?:[0-9]{1,2}\.? (?:de )?)?<<month>>\.?,? (?:del? )?"
    r"(?:[0-9]{1,2}(?:st|nd|rd|th)?,? )?(?:19|20)[0-9]{2}(?![0-9])",
    r"(?<![0-9a-z])[0-9]{1,2}(?=[a-z]{3}[0-9])<<month>>(?:20)?[0-9]{2}(?![0-9a-z])",
    r"(?<![0-9])[0-9]{1,2}[:h][0-9]{2}(?::[0-9]{2}|m|min)?(?![0-9a-z])",
    # Phone numbers with full stops, which would else be taken for an amount and a rest.
    r"(?<![0-9.])(?:[0-9]{1,3}\.)?[0-9]{3}\.[0-9]{3}\.[0-9]{4}(?![0-9])",
    # Durations, counts, percentages, amounts.
    rf"(?<![0-9]){_NO_REST}[0-9]{{1,4}}(?: ?[-~] ?[0-9]{{1,4}})?(?:[ -]?<<unit>>|<<glued unit>>)",
    rf"(?<![0-9a-z]){_NO_REST}[0-9]{{1,3}} ?[hsmd](?![a-z0-9])"
    r"|(?<![0-9])[0-9]{1,4}(?:[.,][0-9]{1,2})? ?%(?![0-9])",
    rf"{_MONEY}\.? ?{_AMOUNT}|(?<![0-9]){_AMOUNT} ?{_MONEY}(?!\.? ?[0-9])",
    r"(?<![0-9])[0-9]{1,3}(?:[.,][0-9]{3}){1,4}(?:[.,][0-9]{1,2})?(?![0-9])",
    r"(?<![0-9])[0-9]{1,9}(?:\.[0-9]{1,2}|,[0-9]{2})(?![0-9])|(?<![0-9.])[0-9]{1,5}(?:\.[0-9]{1,5}){2,4}(?![0-9])",
    # Phone numbers, dial strings, the tails of cards and accounts.
    r"\+ ?[0-9][0-9 ()./-]{5,20}[0-9]|\([0-9]{2,5}\) ?[0-9][0-9 -]{4,12}[0-9]",
    r"[*#][0-9*]{2,12}#",
    r"[0-9]{0,6}[x*•·]{2,8}[ -]?[0-9]{2,6}(?![0-9*])|(?<![0-9*])\*[0-9]{4}(?![0-9*])",
    r"\.{2,3}[0-9]{4}(?![0-9])|<<owned label>> -[0-9]{4}(?![0-9-])",
)

_LINKS = 2  # of them are links

# The hash by which an Android app recognises its message, as it is written. A word of 11 letters is none.
_HASH = r"(?<!\S)(?!(?:[A-Z]?[a-z]+|[A-Z]+)\s*\Z)[A-Za-z0-9+/]{11}\s*\Z"

# Codes whose letters and digits change twice or stand in two halves. What looks like a unit, a currency or a
# time in them is a part of the code: X3GB4821, RM9A9PY, 4NAP-D3JQ.
_IN_TURN = "(?:[a-z]+[0-9]+[a-z]|[0-9]+[a-z]+[0-9])[a-z0-9]*"
_HALVES = "(?=[a-z-]*[0-9])(?=[0-9-]*[a-z])(?:[a-z0-9]{3}-[a-z0-9]{3}|[a-z0-9]{4}-[a-z0-9]{4})"
# But not 10min30s, 9am-6pm, Rs10-Rs20, 12nov26, 14h22, Rs500only, nor the tail xx44-17xx.
_QUANTITY = "(?:<<currency>>[0-9]+|[0-9]+(?:<<currency + unit>>|[hsmd]))"
_NO_MIXED = (
    rf"[a-z0-9-]*xx|(?:{_QUANTITY}-?)+(?![a-z0-9-])"
    r"|(?:[0-9]+(?:<<month>>|h)[0-9]+m?|<<currency>>[0-9]+[a-z]{2,})(?![a-z0-9-])"
)
_MIXED = (
    rf"(?<![a-z0-9*-])(?=[a-z0-9-]{{5,9}}(?![a-z0-9*-]))(?!{_NO_MIXED})(?:{_IN_TURN}|{_HALVES})(?![a-z0-9-])"
)

_LONGEST = 10  # digits of a code

# The value of what may be the code, but in which groups it is written is not clear: 4412 88.
UNREADABLE = ""

# --- What has the shape of a code.

_PIECE = r"(?<![a-z0-9])[a-z0-9]+(?:-[a-z0-9]+)*"
# As it is written, capitals and all. Also 48213Do (not share) and 48213is (your code), for want of a space.
# Not the half of 738-YPH, nor 50035 of 50035e.
_NUMBER = (
    r"(?![0-9]{3}-[A-Z]{3}\Z|[A-Z]{3}-[0-9]{3}\Z)"
    r"(?P<word>[A-Za-z]*|(?:[A-Za-z]+-)*)(?P<digits>[0-9]+(?:-[0-9]+)*)"
    r"(?:(?:-[A-Za-z]+)*|(?<=[0-9]{4})(?:[A-Z][a-z]+|(?=[a-z]{2})<<is + is, after>>))"
)
# Neither the tail XX4417 nor the name Bet365 nor a numbering (N123) nor what lost its space (48213is).
# Letters alone only where they cannot be a word.
_ALPHANUMERIC = (
    r"(?![xX]{2}|(?i:n|no|nr|num)[0-9]{1,3}\Z|[A-Za-z]{4,9}[0-9]{1,3}\Z"
    r"|[a-z]{3,}[0-9]{4}|[0-9]{4,}[a-z]{2}|[0-9]+[A-Z][a-z]+\Z)"
    r"(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{4,10}"
    r"|(?!NO?[0-9]|[0-9](?:ST|ND|RD|TH))(?=[A-Z]*[0-9])(?=[0-9]*[A-Z])[A-Z0-9]{3}"
    r"|(?=[^0-9]*[0-9])[A-Z0-9]{3,5}-[A-Z0-9]{3,5}|[B-DF-HJ-NP-TV-XZ]{5,8}"
)
# What is glued to a number and says that it is a code.
_GLUED = r"(?:(?i:<<code>>)|is|ist|est)-?"


# What goes on directly before or behind a piece, so that the piece is only a part: 448_120, 4481...20, AB4412
# in Cyrillic letters, %20548921, &#53;48921, and 4821 of a token whose other half was blanked.
_GOES_ON_BEFORE = (
    r"(?:[0-9]['_·•*~:=%]|\x00[-_·•*~:=%]?|%|&#x?[0-9a-f]{1,6};|[0-9]\.{2,3}"
    r"|(?<![a-z])(?P<word>[a-z]{1,20})_|(?<![^\W\d_])(?P<letters>[\u00c0-\u052f]{1,2}))\Z"
)
_GOES_ON_BEHIND = r"(?<=[a-z])-?\x00|['_·•*~:=%][0-9]|\.{2,3}[0-9]|[\u00c0-\u052f]{1,2}(?![^\W\d_])"
_LONGEST_BEFORE = 24


@dataclass(frozen=True)
class Candidate:
    """A number or an alphanumeric token that could be a code by its shape.

    Attributes:
        value: the code that it would be.
        start: where it begins in the text, with its prefix if it has one.
        value_at: where it begins without the prefix.
        end: where it ends.
        doubtful: it looks like a year, a date, a phone number or a name: it must be called the code firmly.
    """

    value: str
    start: int
    value_at: int
    end: int
    doubtful: bool


def blanked(text: str, written: str) -> tuple[str, list[tuple[int, int]]]:
    """The text with `\\x00` for everything that is no code by its shape, and where its links are.

    Args:
        text: folded, in small letters.
        written: the same as it is written, with its capitals.
    """
    links = [match.span() for link in _NO_CODES[:_LINKS] for match in compiled(link).finditer(text)]
    if app_hash := compiled(_HASH).search(written):
        text = text[: app_hash.start()] + "\x00" * len(app_hash[0])
    in_mixed = {at for code in compiled(_MIXED).finditer(text) for at in range(*code.span())}

    def blank(match: re.Match[str]) -> str:
        return match[0] if in_mixed.issuperset(range(*match.span())) else "\x00" * len(match[0])

    for no_code in _NO_CODES:
        text = compiled(no_code).sub(blank, text)
    return text, links


def candidates(text: str, written: str) -> Iterator[Candidate]:
    """Every number and alphanumeric token that could be a code by its shape; numbers in a row together."""
    row: list[re.Match[str]] = []
    for piece in compiled(_PIECE).finditer(text):
        if _is_part(piece, text):
            continue
        numbers = bool(row) and row[-1][0].isdigit() and piece[0].isdigit()
        if (
            not numbers
            or text[row[-1].end() : piece.start()] != " "
            or text[piece.end() : piece.end() + 1] == ")"
        ):
            yield from _read_row(row, written)
            row = []
        row.append(piece)
    yield from _read_row(row, written)


def _is_part(piece: re.Match[str], text: str) -> bool:
    start, end = piece.span()
    if compiled(_GOES_ON_BEHIND).match(text, end):
        return True
    if start == 0 or text[start - 1].isspace():
        return False
    before = compiled(_GOES_ON_BEFORE).search(text, max(0, start - _LONGEST_BEFORE), start)
    if before is None:
        return False
    word = before["word"] or before["letters"]
    return word is None or compiled("<<code>>").fullmatch(word) is None


def _read_row(row: list[re.Match[str]], written: str) -> Iterator[Candidate]:
    """Numbers with single spaces between them: one code in groups, several numbers, or a phone number."""
    groups = [token[0] for token in row]
    lengths = [len(group) for group in groups]
    span = row[0].start() if row else 0, row[-1].end() if row else 0
    if len(row) > 1 and (joined := _joined(groups)):
        yield Candidate(joined, span[0], *span, _is_doubtful(groups))
    elif len(row) == 2 and max(lengths) <= 4 and (joined := _as_pair(groups)):
        yield Candidate(joined, span[0], *span, doubtful=True)
    elif len(row) == 2 and sum(lengths) <= 6:
        yield Candidate(UNREADABLE, span[0], *span, doubtful=True)
    elif len(row) < 3 or min(lengths) == 1:
        yield from filter(None, (_read_token(token, written) for token in row))


def _read_token(token: re.Match[str], written: str) -> Candidate | None:
    spelled = written[token.start() : token.end()]
    number = compiled(_NUMBER).fullmatch(spelled)
    if number and (candidate := _read_number(token.start(), number)):
        return candidate
    if compiled(_ALPHANUMERIC).fullmatch(spelled):
        return Candidate(spelled, token.start(), token.start(), token.end(), doubtful=True)
    return None


def _read_number(start: int, number: re.Match[str]) -> Candidate | None:
    """A number bare (`48213`), with a prefix (`G-48213`) or with a word glued to it (`PIN48213`)."""
    groups = number["digits"].split("-")
    value = "".join(groups) if len(groups) == 1 else _as_pair(groups) or _joined(groups)
    if value is None or not 3 <= len(value) <= _LONGEST:
        return None
    word = number["word"]
    says_so = compiled(_GLUED).fullmatch(word) is not None
    if word and not word.endswith("-") and not says_so:
        return None
    value_at, end = start + number.start("digits"), start + number.end("digits")
    has_prefix = not says_so and len(word) <= 6
    return Candidate(value, start if has_prefix else value_at, value_at, end, _is_doubtful(groups))


def _joined(groups: list[str]) -> str | None:
    """The digits of a grouped number, where all groups are alike: 123 456, 12 34 56, 1-2-3-4."""
    digits = "".join(groups)
    alike = len(set(map(len, groups))) == 1 and len(groups[0]) <= 4
    return digits if alike and 4 <= len(digits) <= _LONGEST else None


def _as_pair(groups: list[str]) -> str | None:
    """The digits of a number in two groups that are nearly alike: 123-4567, 4812 077."""
    lengths = [len(group) for group in groups]
    is_pair = len(groups) == 2 and min(lengths) > 1 and max(lengths) - min(lengths) < 2
    return "".join(groups) if is_pair else None


def _is_doubtful(groups: list[str]) -> bool:
    digits = "".join(groups)
    lengths = [len(group) for group in groups]
    year = re.fullmatch("199[0-9]|20[0-3][0-9]", digits)
    dated = lengths == [2, 2, 2] or (lengths == [8] and digits.startswith("20"))
    length = not 4 <= len(digits) <= 8 or lengths in ([3, 4], [4, 3])
    return bool(year or length or (dated and _is_date(digits[-6:])))


def _is_date(digits: str) -> bool:
    first, second, third = int(digits[:2]), int(digits[2:4]), int(digits[4:])
    days, months = range(1, 32), range(1, 13)
    return (
        (first in days and second in months)
        or (first in months and second in days)
        or (second in months and third in days)
    )
