"""Words that matter in an SMS, in any spelling: the tables of `words.txt`, and expressions made of them."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path


@cache
def compiled(expression: str) -> re.Pattern[str]:
    """The expression with its tables put in, compiled when first used: importing this costs nothing."""
    return re.compile(re.sub("<<(.+?)>>", lambda tables: _any_of(*tables[1].split(" + ")), expression))


def _any_of(*tables: str) -> str:
    words = {word for table in tables for word in _tables()[table]}
    return f"(?:{'|'.join(sorted(map(_word, words), key=len, reverse=True))})"


@cache
def _tables() -> dict[str, list[str]]:
    tables: dict[str, list[str]] = {}
    for line in Path(__file__).with_name("words.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            words = tables.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            words.extend(line.split("|"))
    return tables


def _word(word: str) -> str:
    """The regular expression of one word of a table."""
    body = re.escape(lower(fold(word.strip("*_")))).replace(r"\ ", "[ -]?")
    if word[0] == "_" or (word[0] != "*" and word[0] < "\u0530"):
        body = f"(?<!{_letter(word[0])}){body}"
    if word[-1] == "*":
        return body + r"[^\W\d_]{0,20}"
    return f"{body}(?!{_letter(word[-1])})" if word[-1] < "\u0530" else body


def _letter(edge: str) -> str:
    """What would go on with a word. Other scripts do not go on with a Latin one: `OTP码`."""
    return "[a-z]" if fold(edge).isascii() and edge != "_" else r"[^\W\d_]"


# Accents of Latin, Greek and Cyrillic, points of Hebrew and Arabic, variation selectors, enclosing marks.
_ACCENTS = "[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\ufe00-\ufe0f\u20d0-\u20f0]"
# Latin letters in Cyrillic words, such as the \u00f4 that Serbian writes in \u043a\u00f4\u0434.
_LOOKALIKE = re.compile("(?<=[\u0400-\u04ff])[aeopcx](?=[\u0400-\u04ff])")
_CYRILLIC = dict(zip("aeopcx", "\u0430\u0435\u043e\u0440\u0441\u0445", strict=True))
_HYPHENS = str.maketrans("\u2010\u2011\u2012\u2013\u2212", "-----")
# Colons and the full stop of other scripts, and what looks like a colon.
_STOPS = str.maketrans("\u055d\u17d6\u1366\u2236\ua789\u0589", ":::::.")
# What would become letters of a name: Foo\u2122 is not FooTM.
_TRADE_MARKS = str.maketrans("\u2122\u2120", "  ")
# Tags of a text that was written for a browser: <b>48213</b>.
_TAGS = re.compile(r"</?(?:b|big|br|div|em|font|i|p|span|strong|u)(?: [^<>\n]{0,60})?/?>", re.IGNORECASE)
# Dashes that stand between words, never between the parts of a number.
_DASHES = re.compile(" ?[\u2014\u2015]+ ?")
# The sign for "number" before one; spelled out, it would be letters of the code: \u211612 is not No12.
_NUMBER_SIGN = re.compile(" ?(?:\u2116|(?<![^\\W\\d_])[Nn]\\.?[\u00ba\u00b0\u02da\u1d52])\\.? ?")
# Besides, letters that do not decompose to a plain form, and the Persian variants of two Arabic ones.
_PLAIN = _HYPHENS | _STOPS | str.maketrans("đĐłŁøØıəƏ\u06a9\u06cc", "dDlLoOieE\u0643\u064a")


def spelled(text: str) -> str:
    """The text with its letters as they are, accents included; full width and all hyphens made ASCII."""
    return unicodedata.normalize("NFKC", text).translate(_HYPHENS)


def fold(text: str) -> str:
    """One spelling for what reads alike: full width, forms, accents, dashes; without tags and emoji."""
    untagged = _TAGS.sub(" ", text.translate(_TRADE_MARKS))
    signs = _NUMBER_SIGN.sub(" no ", _DASHES.sub(" - ", untagged))
    apart = unicodedata.normalize("NFKD", signs)
    folded = unicodedata.normalize("NFC", re.sub(_ACCENTS, "", apart)).translate(_PLAIN)
    folded = _LOOKALIKE.sub(lambda letter: _CYRILLIC[letter[0]], folded)
    plain = "".join(" " if unicodedata.category(char) == "So" else char for char in folded)
    return re.sub(r"[^\S\n]|\x00", " ", plain.replace("\r\n", "\n").replace("\\n", "\n"))


def lower(text: str) -> str:
    """Small letters, each in the place of its capital."""
    return "".join(small if len(small := char.lower()) == 1 else char for char in text)
