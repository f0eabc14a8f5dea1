"""Sentences: which full stops, exclamation and question marks end one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from smsverify._otp.words import compiled

STOP = r"(?:[!?।॥。؟۔]|[.;](?=\s|\Z))"
STOP_OR_LINE = rf"{STOP}|\n"

_LONGEST_WORD = 25
_VOWELS = frozenset("aeiouyаеиоуыэюяєіαεηιουω")

_WORD_BEFORE = r"[^\W\d_]+\Z"
_COUNTED = r"[0-9] ?\Z"
_IS_NUMBER = r" <<is + is, before>>[:=]? ?[\s\"'(\[*]*[0-9]"
_COLON = " ?:"
_NUMBER = r" ?(?P<numbering>(?:n|no|nr|num)\b[.:]? ?)?[0-9\x00]"
_CUT_SHORT = "<<label, with a full stop + abbreviation>>"


@dataclass(frozen=True)
class Sentences:
    """Where the sentences of a text end.

    Attributes:
        text: the text in small letters.
        within: the marks in it that end none (`marks_within`).
        reach: at most so many characters of a sentence are looked at.
    """

    text: str
    within: frozenset[int]
    reach: int

    def stops(self, expression: str, start: int, end: int) -> Iterator[re.Match[str]]:
        """What ends a sentence between two places."""
        stops = compiled(expression).finditer(self.text, start, end)
        return (stop for stop in stops if stop.start() not in self.within)

    def before(self, at: int) -> str:
        """What stands before a place in its sentence and line."""
        since = max(0, at - self.reach)
        for stop in self.stops(STOP_OR_LINE, since, at):
            since = stop.end()
        return self.text[since:at]

    def after(self, at: int) -> str:
        """What stands behind a place in its sentence and line."""
        until = min(len(self.text), at + self.reach)
        return self.text[at : next((stop.start() for stop in self.stops(STOP_OR_LINE, at, until)), until)]


def marks_within(written: str, text: str, names_end: frozenset[int]) -> frozenset[int]:
    """Where a mark that looks like the end of a sentence is none: "Dr. Foo", "no. 12", "Wham! is", "f?r".

    Args:
        written: the text as it is written, with its capitals.
        text: the same in small letters, with `\\x00` for what is no code by its shape.
        names_end: where the words for a code end; a mark behind one is never part of a name.
    """
    return frozenset(
        mark.start()
        for mark in compiled(STOP).finditer(text)
        if mark[0] in ".!?" and mark.start() not in names_end and _goes_on(written, text, mark.start())
    )


def _goes_on(written: str, text: str, at: int) -> bool:
    if written[at] != "." and (written[at + 1 : at + 2].islower() or compiled(_COLON).match(text, at + 1)):
        return True  # inside a word, in the place of a letter that was lost, or of a name before a colon
    if compiled(_IS_NUMBER).match(text, at + 1) and not written[at + 2].isupper():
        return True
    before = compiled(_WORD_BEFORE).search(written, max(0, at - _LONGEST_WORD), at)
    if before is None or written[at + 1 : at + 2] != " ":
        return False
    goes_on_small = written[at + 2 : at + 3].islower()
    if written[at] == "!":
        return goes_on_small and before[0][0].isupper()
    return written[at] == "." and _is_cut_short(before[0], written, text, at, goes_on_small)


def _is_cut_short(word: str, written: str, text: str, at: int, goes_on_small: bool) -> bool:
    """Whether the full stop at a place belongs to an abbreviation, the word before it."""
    since = at - len(word)
    # "The code for 500 m. Order 7": a unit may well end a sentence.
    is_counted = compiled(_COUNTED).search(written, max(0, since - 2), since) is not None
    is_letter = len(word) == 1 and word.lower() != word.upper()
    is_title = word.istitle() and len(word) <= 4 and _has_no_vowel(word)
    is_known = compiled(_CUT_SHORT).fullmatch(word.lower()) is not None
    is_name_like = is_letter or is_title or is_known
    is_short = is_name_like or (len(word) == 2 and word.islower() and _has_no_vowel(word))
    if number := compiled(_NUMBER).match(text, at + 1):
        introduces = is_short or word.lower() in ("no", "num")
        return number["numbering"] is not None or (introduces and not is_counted)
    return is_short if goes_on_small else is_name_like and not is_counted


def _has_no_vowel(word: str) -> bool:
    return _VOWELS.isdisjoint(word.lower())
