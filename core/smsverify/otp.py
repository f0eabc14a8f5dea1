"""Reads the one-time code out of the text of an SMS, whatever its language.

A wrong code is worse than none, so the reader does not guess:

1. The text is folded: invisible marks dropped, digits of every script made ASCII, accents and capitals gone.
2. What is something else by its shape (links, phone numbers, dates, amounts, card tails, ...) is blanked out,
   and what is called something else ("order 48213") left aside.
3. Each number or alphanumeric token that remains gets a link: how firmly the words around it call it a code.
4. The firmest link wins, if all that have it agree on one code.

The words stand in `otp_words.txt`; in the expressions below `<<purpose>>` is any word of its table [purpose].
"""

from __future__ import annotations

import enum
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path

# --- What is no code by its shape. Blanked out in this order.

_MONEY = "(?:<<currency>>|[$€£¥₹₽₸₴₺₩₫₪฿₦₱])"
_AMOUNT = r"(?:[0-9]{1,3}(?:[ .,'][0-9]{3}){1,4}|[0-9]{1,12})(?:[.,][0-9]{1,2})?(?![0-9])"
_HOST = r"(?<![a-z0-9@.-])(?![0-9]+\.)(?:[a-z0-9-]{1,63}\.){1,4}"
_TOP = "(?:com|net|org|io|app|me|ru|co|in|info|biz|de|fr|uk|xyz|online|bet|win|gg|tv|to|kz|ua|cn|jp|br)"
_NO_CODES = (
    # Links, with or without their scheme, hosts, e-mail addresses.
    r"(?:https?://|www\.)[!-~]+",
    rf"{_HOST}(?:[a-z]{{2,12}}/[!-~]*|{_TOP}(?![a-z0-9]))",
    r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}",
    # The hash by which an Android app recognises its message.
    r"(?<!\S)[a-z0-9+/]{11}\s*\Z",
    # Dates and times.
    r"(?<![0-9])[0-9]{4}([-/.])[0-9]{1,2}\1[0-9]{1,2}(?![0-9])",
    r"(?<![0-9])[0-9]{1,2}([/.])[0-9]{1,2}\1(?:[0-9]{4}|[0-9]{2})(?![0-9])",
    r"(?<![0-9])[0-9]{1,2}-(?:[0-9]{1,2}-(?:19|20)|[a-z]{3,9}-(?:19|20)?)[0-9]{2}(?![0-9])",
    r"(?<![0-9])(?:[0-9]{1,2}/[0-9]{1,2}(?![0-9])|(?:[0-9]{4}年)?[0-9]{1,2}月(?:[0-9]{1,2}日)?)",
    r"(?<![0-9])(?:[0-9]{1,2}\.? (?:de )?)?<<month>>\.?,? (?:del? )?"
    r"(?:[0-9]{1,2}(?:st|nd|rd|th)?,? )?(?:19|20)[0-9]{2}(?![0-9])",
    r"(?<![0-9])[0-9]{1,2}[:h][0-9]{2}(?::[0-9]{2})?(?![0-9a-z])",
    # Phone numbers with full stops, which would else be taken for an amount and a rest.
    r"(?<![0-9.])(?:[0-9]{1,3}\.)?[0-9]{3}\.[0-9]{3}\.[0-9]{4}(?![0-9])",
    # Durations, counts, percentages, amounts.
    r"(?<![0-9])[0-9]{1,4}(?: ?[-~] ?[0-9]{1,4})?(?:[ -]?<<unit>>|<<glued unit>>)",
    r"(?<![0-9a-z])[0-9]{1,3} ?[hsmd](?![a-z0-9])|(?<![0-9])[0-9]{1,4}(?:[.,][0-9]{1,2})? ?%",
    rf"{_MONEY}\.? ?{_AMOUNT}|(?<![0-9]){_AMOUNT} ?{_MONEY}(?!\.? ?[0-9])",
    r"(?<![0-9])[0-9]{1,3}(?:[.,][0-9]{3}){1,4}(?:[.,][0-9]{1,2})?(?![0-9])",
    r"(?<![0-9])[0-9]{1,9}(?:\.[0-9]{1,2}|,[0-9]{2})(?![0-9])|(?<![0-9.])[0-9]{1,5}(?:\.[0-9]{1,5}){2,4}(?![0-9])",
    # Phone numbers, dial strings, the tails of cards and accounts.
    r"\+ ?[0-9][0-9 ()./-]{5,20}[0-9]|\([0-9]{2,5}\) ?[0-9][0-9 -]{4,12}[0-9]",
    r"[*#][0-9*]{2,12}#",
    r"[0-9]{0,6}[x*•·]{2,8}[ -]?[0-9]{2,6}(?![0-9*])|(?<![0-9*])\*[0-9]{4}(?![0-9*])",
    r"\.{2,3}[0-9]{4}(?![0-9])",
)

# --- What has the shape of a code.

_PIECE = r"(?<![a-z0-9])[a-z0-9]+(?:-[a-z0-9]+)*"
# As it is written, capitals and all. Also 48213Do (not share) and 48213is (your code), for want of a space.
_NUMBER = (
    r"(?P<word>[A-Za-z]*|(?:[A-Za-z]+-)*)(?P<digits>[0-9]+(?:-[0-9]+)*)"
    r"(?:(?:-[A-Za-z]+)*|(?<=[0-9]{4})(?:[A-Z][a-z]+|<<is + is, after>>))"
)
# Neither the tail XX4417 nor the name Bet365 nor what lost its space (48213is). Letters alone only where they
# cannot be a word.
_ALPHANUMERIC = (
    r"(?![xX]{2}|[A-Za-z]{4,9}[0-9]{1,3}\Z|[a-z]{3,}[0-9]{4}|[0-9]{4,}[a-z]{2}|[0-9]+[A-Z][a-z]+\Z)"
    r"(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{4,10}"
    r"|(?=[^0-9]*[0-9])[A-Z0-9]{3,5}-[A-Z0-9]{3,5}|[B-DF-HJ-NP-TV-XZ]{5,8}"
)
# The last line of a message bound to a web site: "@example.com #48213".
_DOMAIN_BOUND = (
    r"(?<!\S)@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8} #((?=[A-Za-z-]*[0-9])[A-Za-z0-9-]{3,12})"
    r"(?:\s{1,9}[@%][!-~]{1,253}){0,3}\s*\Z"
)

# A text with more numbers than that is no message about a code, and not worth the work.
_MOST_NUMBERS = 60

# --- What ties a number to a word. At most so many characters lie between them.

_FAR = 80
_NEAR = 40
_BESIDE = 12

_STOP = r"(?:[!?।॥。؟۔]|[.;](?=\s|\Z))"
_STOP_OR_LINE = rf"{_STOP}|\n"
_OPEN = r"[\s\"'`“”„‘’«»「」『』〈〉《》【】\[\](){}<>*_#~|]"
_ARTICLE = "(?: (?:the|le|la|el|il|o|den|die|das|de|sie))?"
# Words that say it in one language and mean something else in others.
_IS_OF_ITS_LANGUAGE = (
    r"(?:kod|haslo)[a-z ]{0,40} to|(?:kood|salasana|tunnusluku|parool)[a-z ]{0,40} on"
    r"|(?<![a-z])(?:ma [a-z ]{1,40} la|(?:otp|code|pin|password)[a-z ]{0,40} ay|msimbo[a-z ]{0,40} ni)"
)
_KEYWORD = (
    rf"(?P<other><<other code>>)|(?:{_IS_OF_ITS_LANGUAGE})(?=:? ?[0-9])"
    r"|<<code>>(?: ?(?:de |di |da |do |of |for |d'|ال|لل)?<<purpose + one time>>[^\W\d_]{0,12})?"
)
_GLUED = r"(?:(?i:<<code>>)|is|ist|est)-?"
_EARNEST = "<<purpose + one time>>"
_PROMOTING = r"<<promotion>>|\x00 off(?![a-z])"
_SAID_BEFORE = (
    rf"(?s:.*)(?P<said>[:=→]|(?<![^\W\d_])-|<<is + is, before>>|(?<!, )(?<![a-z])(?:ar|ir)){_ARTICLE}{_OPEN}*"
    rf"|(?:[\u0530-\u139f]{{0,6}}|{_OPEN}*(?:number|numero|nummer|nr|no)\.?| <<this>>){_OPEN}*"
)
_SAID_AFTER = rf"{_OPEN}*<<is + is, after>>|,? c'est | to \Z"
_VOID = rf"{_OPEN}*<<void>>"
_ASIDE = r"\([^()]{0,40}\)|\x00+"
_CLAUSE_END = rf"\s*(?:[^\w\s'*]|\x00|\Z|\n)|{_OPEN}*<<for + is + is, after>>"
_BETWEEN = r"[,\n]|<<between>>"
_LISTED = r"\s*(?:(?P<or>[/|&+]|<<or>>)|[,;、،，])?\s*(?:[0-9]{1,2}[.):]|-)?\s*"
_ENTERED = rf"<<enter>>(?: <<please>>)?{_ARTICLE}{_OPEN}*\Z"
_TO_ENTER = r"[^0-9\n.,!?]{0,6}<<enter, after>>"
_NAMED = rf"<<verification>>(?:(?!{_STOP})[^0-9\n]){{0,30}}(?:[:=#-]|<<is + is, before + with>>){_OPEN}*\Z"
_SERVES = rf" (?:is|to|for|zu|zum|um|pour|para|per|om|для|чтобы)(?:(?!{_STOP})[^0-9\n,])*?<<verification>>"
_FILLER = (
    r"(?: |:\s*|[はが는은是为]|[#(*\"'=-]|\.(?! )"
    r"|(?:no|nr|num|number|numero|nummer|is|are|es|est|ist|in|with|at|to|on|id|mit|auf|en)\b\.?){0,8}"
)
_LABELLED = rf"(?:<<label>>|(?P<owned><<owned label>>)|<<label, with a full stop>>\.){_FILLER}\Z"
_SPAN = rf"(?:(?!{_STOP})[^0-9\n]){{0,30}}"
_REACHED = (
    rf"(?:<<reaching label>>{_SPAN}|<<until>>(?:(?!{_STOP})[^0-9\n:]){{0,30}}"
    rf"|(?:<<messaging>>|text|sms){_SPAN}<<to>>[ :]*|<<messaging>>[ :]*)\Z"
)
_BRACKETED = (
    r"(?:<#>|\x00:|[ \"'`“”„«»「」(){}<>*#|\x00-]"
    r"|\[[^\[\]\n]{0,30}\]|【[^【】\n]{0,30}】|[\[【](?=\s*\Z))*"
)
_SENDER = rf"{_BRACKETED}(?:[^\W\d]{{1,20}}(?: [^\W\d]{{1,20}}){{0,2}} ?[:-]{_BRACKETED})*"
_WORDLESS = rf"{_BRACKETED}(?:[a-z]{{1,3}}-)?[0-9 -]{{4,30}}[\s.\x00]*"
_CLOSED = rf"[.,\x00-]*{_OPEN}*"


@cache
def _re(expression: str) -> re.Pattern[str]:
    """The expression with its tables put in, compiled when first used: importing this costs nothing."""
    return re.compile(re.sub("<<(.+?)>>", lambda tables: _any_of(*tables[1].split(" + ")), expression))


def _any_of(*tables: str) -> str:
    words = {word for table in tables for word in _tables()[table]}
    return f"(?:{'|'.join(sorted(map(_word, words), key=len, reverse=True))})"


@cache
def _tables() -> dict[str, list[str]]:
    tables: dict[str, list[str]] = {}
    for line in Path(__file__).with_name("otp_words.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            words = tables.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            words.extend(line.split("|"))
    return tables


def _word(word: str) -> str:
    """The regular expression of one word of a table."""
    body = re.escape(_lower(_fold(word.strip("*_")))).replace(r"\ ", "[ -]?")
    if word[0] == "_" or (word[0] != "*" and word[0] < "\u0530"):
        body = f"(?<!{_letter(word[0])}){body}"
    if word[-1] == "*":
        return body + r"[^\W\d_]{0,20}"
    return f"{body}(?!{_letter(word[-1])})" if word[-1] < "\u0530" else body


def _letter(edge: str) -> str:
    """What would go on with a word. Other scripts do not go on with a Latin one: `OTP码`."""
    return "[a-z]" if _fold(edge).isascii() and edge != "_" else r"[^\W\d_]"


# Accents of Latin, Greek and Cyrillic, points of Hebrew and Arabic, variation selectors, enclosing marks.
_ACCENTS = "[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\ufe00-\ufe0f\u20d0-\u20f0]"
# Latin letters in Cyrillic words, such as the \u00f4 that Serbian writes in \u043a\u00f4\u0434.
_LOOKALIKE = re.compile("(?<=[\u0400-\u04ff])[aeopcx](?=[\u0400-\u04ff])")
_CYRILLIC = dict(zip("aeopcx", "\u0430\u0435\u043e\u0440\u0441\u0445", strict=True))
# Letters that do not decompose to a plain form, the Persian variants of two Arabic ones, all hyphens.
_PLAIN = str.maketrans("đĐłŁøØıəƏ\u06a9\u06cc\u2010\u2011\u2012\u2013\u2212", "dDlLoOieE\u0643\u064a-----")


def _visible(text: str) -> str:
    """Drops bidi marks and whatever else has no width; makes the digits of every script ASCII."""
    return "".join(
        str(unicodedata.decimal(char)) if char.isdecimal() else char
        for char in text
        if unicodedata.category(char) != "Cf"
    )


def _fold(text: str) -> str:
    """One spelling for what reads the same: full width, presentation forms, accents, dashes; no emoji."""
    apart = unicodedata.normalize("NFKD", text)
    folded = unicodedata.normalize("NFC", re.sub(_ACCENTS, "", apart)).translate(_PLAIN)
    folded = _LOOKALIKE.sub(lambda letter: _CYRILLIC[letter[0]], folded)
    plain = "".join(" " if unicodedata.category(char) == "So" else char for char in folded)
    return re.sub(r"[^\S\n]|\x00", " ", plain.replace("\r\n", "\n").replace("\\n", "\n"))


def _lower(text: str) -> str:
    """Small letters, each in the place of its capital."""
    return "".join(small if len(small := char.lower()) == 1 else char for char in text)


class _Link(enum.IntEnum):
    """How firmly the words around a number call it the code."""

    NONE = 0
    ALONE = 1  # alone on its line in a message about a code, or the only number in a word's sentence
    LOOSE = 2  # in the sentence of a word for it, or asked to be entered
    FAR = 3  # "the code for your account 4417 is 48213": said, but another number stands between
    FIRM = 4  # "code: 48213", "48213 is your code"


@dataclass(frozen=True)
class _Candidate:
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


def extract_otp(text: str, *, pattern: str | re.Pattern[str] | None = None) -> str | None:
    """Reads the one-time code out of the text of an SMS, in any language.

    Digits of every script come back as ASCII digits, grouped ones joined (`123-456` as `123456`), without a
    prefix such as `G-`; leading zeros stay. Where nothing is clearly the code, or two are equally, there is
    none.

    Args:
        text: the message as it came.
        pattern: where the code stands, if you know it: a regular expression whose first group (without a
            group, the whole match) is the code. It is searched in the text without invisible marks and with
            ASCII digits, and it decides alone: no match, no code.

    Returns:
        The code, 3 to 11 characters unless `pattern` says otherwise, or `None`.
    """
    visible = _visible(text)
    if pattern is not None:
        return _matched(visible, re.compile(pattern))
    written = _fold(visible)
    if bound := _re(_DOMAIN_BOUND).search(written):
        return bound[1] if re.search("[A-Za-z]", bound[1]) else bound[1].replace("-", "")
    return _Reading(written).code()


def _matched(text: str, pattern: re.Pattern[str]) -> str | None:
    match = pattern.search(text)
    if match is None:
        return None
    return (match[1] if pattern.groups else match[0]) or None


class _Reading:
    """One message, folded, in small letters, with everything blanked out that is no code by its shape."""

    def __init__(self, written: str) -> None:
        text = _lower(written)
        for no_code in _NO_CODES:
            text = _re(no_code).sub(lambda match: "\x00" * len(match[0]), text)
        self.text = text
        self.keywords = list(_re(_KEYWORD).finditer(text))
        self.keyword_starts = [keyword.start() for keyword in self.keywords]
        self.keyword_ends = [keyword.end() for keyword in self.keywords]
        self.earnest = _re(_EARNEST).search(text) is not None
        self.speaks_of_code = self.earnest or any(not keyword["other"] for keyword in self.keywords)
        shaped = list(islice(_candidates(text, written), _MOST_NUMBERS + 1))
        self.too_many = len(shaped) > _MOST_NUMBERS
        self.candidates = [candidate for candidate in shaped if not self._is_something_else(candidate)]
        self.starts = [candidate.start for candidate in self.candidates]

    def code(self) -> str | None:
        """The value of the firmest link, unless two candidates share it."""
        if self.too_many or (not self.earnest and _re(_PROMOTING).search(self.text)):
            return None
        links = {candidate: self._link(candidate) for candidate in self.candidates}
        firmest = max(links.values(), default=_Link.NONE)
        values = {
            candidate.value
            for listed in self._lists()
            if any(links[candidate] is firmest for candidate in listed)
            for candidate in listed
        }
        return values.pop() if firmest > _Link.NONE and len(values) == 1 else None

    def _lists(self) -> list[list[_Candidate]]:
        """The candidates, those together that are listed side by side: "48213 or 55012"."""
        lists: list[list[_Candidate]] = []
        for candidate in self.candidates:
            if lists and self._side_by_side(lists[-1][-1], candidate):
                lists[-1].append(candidate)
            else:
                lists.append([candidate])
        return lists

    def _side_by_side(self, one: _Candidate, other: _Candidate) -> bool:
        if other.start - one.end > _BESIDE:
            return False
        listed = _re(_LISTED).fullmatch(self.text, one.end, other.start)
        return listed is not None and (listed["or"] is not None or len(one.value) == len(other.value))

    def _link(self, candidate: _Candidate) -> _Link:
        before, after = self._keyword_before(candidate), self._keyword_after(candidate)
        called = self._link_before(candidate, before) if before else _Link.NONE
        if (before and before["other"]) or self._is_void(candidate):
            return _Link.NONE
        if after and after["other"] and (called < _Link.FIRM or self._is_said_after(candidate, after)):
            return _Link.NONE
        link = max(
            called,
            self._link_after(candidate, after) if after else _Link.NONE,
            _Link.LOOSE if self._asked_for(candidate) else _Link.NONE,
            _Link.ALONE if self._alone(candidate) else _Link.NONE,
        )
        return _Link.NONE if candidate.doubtful and link <= _Link.LOOSE else link

    def _keyword_before(self, candidate: _Candidate) -> re.Match[str] | None:
        """The last keyword before the candidate, in the same sentence and near enough."""
        index = bisect_right(self.keyword_ends, candidate.start) - 1
        if index < 0 or candidate.start - self.keyword_ends[index] > _FAR:
            return None
        # One character more, for the full stop that is one only before a space.
        stop = _re(_STOP).search(self.text, self.keyword_ends[index], candidate.start + 1)
        return None if stop else self.keywords[index]

    def _keyword_after(self, candidate: _Candidate) -> re.Match[str] | None:
        """The first keyword after the candidate, in the same sentence and line and near enough."""
        index = bisect_left(self.keyword_starts, candidate.end)
        if index == len(self.keywords) or self.keyword_starts[index] - candidate.end > _FAR:
            return None
        stop = _re(_STOP_OR_LINE).search(self.text, candidate.end, self.keyword_starts[index] + 1)
        return None if stop else self.keywords[index]

    def _link_before(self, candidate: _Candidate, keyword: re.Match[str]) -> _Link:
        gap = _re(_ASIDE).sub(" ", self.text[keyword.end() : candidate.start])
        crossed = self._number_between(keyword.end(), candidate.start)
        if _re(_SAID_BEFORE).fullmatch(gap):
            return _Link.FAR if crossed else _Link.FIRM
        if crossed or _re(_BETWEEN).search(gap) or not _re(_CLAUSE_END).match(self.text, candidate.end):
            return _Link.NONE
        if len(gap) <= (_NEAR if self.earnest else _BESIDE):
            return _Link.LOOSE
        return _Link.ALONE if len(self.candidates) == 1 else _Link.NONE

    def _link_after(self, candidate: _Candidate, keyword: re.Match[str]) -> _Link:
        gap = self.text[candidate.end : keyword.start()]
        crossed = self._number_between(candidate.end, keyword.start())
        if self._is_said_after(candidate, keyword):
            return _Link.FAR if crossed else _Link.FIRM
        if crossed:
            return _Link.NONE
        if _re(_BETWEEN).search(gap) or not (self.earnest or len(gap) <= _BESIDE):
            return _Link.NONE
        if self._opens(candidate) or (gap.startswith((" (", "(")) and ")" not in gap):
            return _Link.LOOSE
        return _Link.ALONE if len(gap) <= _BESIDE and len(self.candidates) == 1 else _Link.NONE

    def _is_said_after(self, candidate: _Candidate, keyword: re.Match[str]) -> bool:
        """Whether it reads "48213 is your code" or, where a sentence begins, "48213 - your code"."""
        gap = self.text[candidate.end : keyword.start()]
        if _re(_SAID_AFTER).match(gap):
            return True
        return len(gap) <= _NEAR and gap.startswith(" - ") and self._opens(candidate)

    def _number_between(self, start: int, end: int) -> bool:
        return bisect_left(self.starts, start) < bisect_left(self.starts, end)

    def _asked_for(self, candidate: _Candidate) -> bool:
        """Whether it reads "enter 48213 to verify your phone", "phone verification: 48213"."""
        since = max(0, candidate.start - _FAR)
        if self._opens(candidate) and _re(_SERVES).match(self.text, candidate.end, candidate.end + _FAR):
            return True
        if _re(_NAMED).search(self.text, since, candidate.start):
            return True
        if self.speaks_of_code and _re(_TO_ENTER).match(self.text, candidate.end):
            return True
        asked = self.speaks_of_code or _re(" <<for>>").match(self.text, candidate.end)
        return bool(asked) and _re(_ENTERED).search(self.text, since, candidate.start) is not None

    def _alone(self, candidate: _Candidate) -> bool:
        """Whether it is alone on its line or in its sentence, of a message about a code or without a word."""
        if not self._opens(candidate) or not _re(_CLOSED).fullmatch(self._sentence_after(candidate)):
            return False
        return self.speaks_of_code or _re(_WORDLESS).fullmatch(self.text) is not None

    def _opens(self, candidate: _Candidate) -> bool:
        """Whether it opens a sentence that answers no question, or a message after the sender's name."""
        before = self._sentence_before(candidate)
        since = candidate.start - len(before)
        names = _SENDER if since == 0 else _BRACKETED
        return self.text[since - 1 : since] != "?" and _re(names).fullmatch(before) is not None

    def _sentence_before(self, candidate: _Candidate) -> str:
        return _re(_STOP_OR_LINE).split(self.text[max(0, candidate.start - _FAR) : candidate.start])[-1]

    def _sentence_after(self, candidate: _Candidate) -> str:
        return _re(_STOP_OR_LINE).split(self.text[candidate.end : candidate.end + _FAR], maxsplit=1)[0]

    def _is_void(self, candidate: _Candidate) -> bool:
        return _re(_VOID).match(self.text, candidate.end) is not None

    def _is_something_else(self, candidate: _Candidate) -> bool:
        """Whether the nearest word that names the number is not a word for a code."""
        index = bisect_right(self.keyword_ends, candidate.start)
        named_since = max(self.keyword_ends[index - 1] if index else 0, candidate.value_at - _NEAR, 0)
        if _re(_REACHED).search(self.text, named_since, candidate.value_at):
            return not self._said_of(candidate, anything=True)
        if label := _re(_LABELLED).search(self.text, named_since, candidate.value_at):
            return not self._named_and_said(candidate, label) and not self._said_of(
                candidate, anything=not label["owned"]
            )
        sentence = self._sentence_before(candidate) + self._sentence_after(candidate)
        return _re(_PROMOTING).search(sentence) is not None and not _re(_EARNEST).search(sentence)

    def _named_and_said(self, candidate: _Candidate, label: re.Match[str]) -> bool:
        """Whether it reads "Foo account: 48213 is your code": the sender's name, and then the code."""
        after = self._keyword_after(candidate)
        return after is not None and label[0].rstrip().endswith(":") and self._is_said_after(candidate, after)

    def _said_of(self, candidate: _Candidate, anything: bool) -> bool:
        """Whether the word for the code reaches over a label: "the code for your account: 48213".

        With `anything`, over labels of every kind; then it must say so: "the code for order 7 is 48213".
        """
        if not anything and _re(_NAMED).search(self.text, max(0, candidate.start - _FAR), candidate.start):
            return True
        keyword = self._keyword_before(candidate)
        if keyword is None:
            return False
        said = _re(_SAID_BEFORE).fullmatch(self.text, keyword.end(), candidate.start)
        if said is None or said["said"] is None or "," in said[0]:
            return False
        return not anything or (said["said"].isalpha() and _re("<<for>>").search(said[0]) is not None)


def _candidates(text: str, written: str) -> Iterator[_Candidate]:
    """Every number and alphanumeric token that could be a code by its shape; numbers in a row together."""
    row: list[re.Match[str]] = []
    for piece in _re(_PIECE).finditer(text):
        numbers = bool(row) and row[-1][0].isdigit() and piece[0].isdigit()
        if not numbers or text[row[-1].end() : piece.start()] != " ":
            yield from _read_row(row, written)
            row = []
        row.append(piece)
    yield from _read_row(row, written)


def _read_row(row: list[re.Match[str]], written: str) -> Iterator[_Candidate]:
    """Numbers with single spaces between them: one code in groups, several numbers, or a phone number."""
    groups = [token[0] for token in row]
    if len(row) > 1 and (joined := _joined(groups)):
        yield _Candidate(joined, row[0].start(), row[0].start(), row[-1].end(), _is_doubtful(groups))
    elif len(row) < 3 or any(len(group) == 1 for group in groups):
        found = [candidate for token in row if (candidate := _read_token(token, written))]
        like_phone = [len(group) for group in groups] == [3, 4]
        yield from (replace(candidate, doubtful=True) if like_phone else candidate for candidate in found)


def _read_token(token: re.Match[str], written: str) -> _Candidate | None:
    spelled = written[token.start() : token.end()]
    number = _re(_NUMBER).fullmatch(spelled)
    if number and (candidate := _read_number(token.start(), number)):
        return candidate
    if _re(_ALPHANUMERIC).fullmatch(spelled):
        return _Candidate(spelled, token.start(), token.start(), token.end(), doubtful=True)
    return None


def _read_number(start: int, number: re.Match[str]) -> _Candidate | None:
    """A number bare (`48213`), with a prefix (`G-48213`) or with a word glued to it (`PIN48213`)."""
    groups = number["digits"].split("-")
    pair = len(groups) == 2 and min(map(len, groups)) > 1 and abs(len(groups[0]) - len(groups[1])) < 2
    value = "".join(groups) if len(groups) == 1 or pair else _joined(groups)
    if value is None or not 3 <= len(value) <= 10:
        return None
    word = number["word"]
    says_so = _re(_GLUED).fullmatch(word) is not None
    if word and not word.endswith("-") and not says_so:
        return None
    value_at, end = start + number.start("digits"), start + number.end("digits")
    has_prefix = not says_so and len(word) <= 6
    return _Candidate(value, start if has_prefix else value_at, value_at, end, _is_doubtful(groups))


def _joined(groups: list[str]) -> str | None:
    """The digits of a grouped number, where all groups are alike: 123 456, 12 34 56, 1-2-3-4."""
    digits = "".join(groups)
    alike = len(set(map(len, groups))) == 1 and len(groups[0]) <= 4
    return digits if alike and 4 <= len(digits) <= 10 else None


def _is_doubtful(groups: list[str]) -> bool:
    digits = "".join(groups)
    lengths = [len(group) for group in groups]
    year = re.fullmatch("199[0-9]|20[0-3][0-9]", digits)
    dated = lengths == [2, 2, 2] or (lengths == [8] and digits.startswith("20"))
    length = not 4 <= len(digits) <= 8 or lengths == [3, 4]
    return bool(year or length or (dated and _is_date(digits[-6:])))


def _is_date(digits: str) -> bool:
    first, second, third = int(digits[:2]), int(digits[2:4]), int(digits[4:])
    days, months = range(1, 32), range(1, 13)
    return (
        (first in days and second in months)
        or (first in months and second in days)
        or (second in months and third in days)
    )
