"""Reads the one-time code out of the text of an SMS, whatever its language.

A wrong code is worse than none, so the reader does not guess:

1. The text is folded: invisible marks dropped, digits of every script made ASCII, accents and capitals gone.
2. What is something else by its shape (links, phone numbers, dates, amounts, card tails, ...) is blanked out,
   and what is called something else ("order 48213") left aside.
3. Each number or alphanumeric token that remains gets a link: how firmly the words around it call it a code.
4. The firmest link wins, if all that have it agree on one code.

The words stand in `_otp/words.txt`; in an expression, `<<purpose>>` is any word of its table [purpose].
"""

from __future__ import annotations

import enum
import re
from bisect import bisect_left, bisect_right
from itertools import islice

from smsverify._input.patterns import as_pattern
from smsverify._otp.shapes import Candidate, blanked, candidates
from smsverify._otp.words import compiled, fold, lower, spelled
from smsverify.text import LONGEST_SMS, visible

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
_THEN = r"[ ,;.]{0,3}<<or>>[ ,:]?"
_OR_VISIT = rf"[ ,;][^0-9\n.!?]{{0,20}}?<<or>>(?:(?!{_STOP})[^0-9\n]){{0,40}}"
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


class _Link(enum.IntEnum):
    """How firmly the words around a number call it the code."""

    NONE = 0
    ALONE = 1  # alone on its line in a message about a code, or the only number in a word's sentence
    LOOSE = 2  # in the sentence of a word for it, or asked to be entered
    FAR = 3  # "the code for your account 4417 is 48213": said, but another number stands between
    FIRM = 4  # "code: 48213", "48213 is your code"


def extract_otp(text: str, *, pattern: str | re.Pattern[str] | None = None) -> str | None:
    """Reads the one-time code out of the text of an SMS, in any language.

    Digits of every script come back as ASCII digits, grouped ones joined (`123-456` as `123456`), without a
    prefix such as `G-`; leading zeros stay. Where nothing is clearly the code, or two are equally, there is
    none.

    Args:
        text: the message as it came.
        pattern: where the code stands, if you know it: a regular expression whose first group (without a
            group, the whole match) is the code. It is searched in the text without invisible marks and with
            ASCII digits, and it decides alone: no match, no code. A text in which looking for it takes longer
            than a tenth of a second counts as not matching.

    Returns:
        The code, 3 to 11 characters unless `pattern` says otherwise, or `None`; also for a text of more than
        4000 characters, which is no SMS.

    Raises:
        InvalidRequestError: `pattern` is no regular expression, or too large.
    """
    if len(text) > LONGEST_SMS:
        return None
    if pattern is not None:
        return as_pattern(pattern).find(visible(text))
    written = fold(visible(text))
    if bound := compiled(_DOMAIN_BOUND).search(written):
        code: str | None = bound[1] if re.search("[A-Za-z]", bound[1]) else bound[1].replace("-", "")
    else:
        code = _Reading(written).code()
    # Words are read without their accents, but a letter of a code with one is another letter.
    return code if code is None or code.isdigit() or code in spelled(visible(text)) else None


class _Reading:
    """One message, folded, in small letters, with everything blanked out that is no code by its shape."""

    def __init__(self, written: str) -> None:
        text, self.links = blanked(lower(written))
        self.text = text
        self.keywords = list(compiled(_KEYWORD).finditer(text))
        self.keyword_starts = [keyword.start() for keyword in self.keywords]
        self.keyword_ends = [keyword.end() for keyword in self.keywords]
        self.earnest = compiled(_EARNEST).search(text) is not None
        self.speaks_of_code = self.earnest or any(not keyword["other"] for keyword in self.keywords)
        shaped = list(islice(candidates(text, written), _MOST_NUMBERS + 1))
        self.too_many = len(shaped) > _MOST_NUMBERS
        self.candidates = [candidate for candidate in shaped if not self._is_something_else(candidate)]
        self.starts = [candidate.start for candidate in self.candidates]

    def code(self) -> str | None:
        """The value of the firmest link, unless two candidates share it."""
        if self.too_many or (not self.earnest and compiled(_PROMOTING).search(self.text)):
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

    def _lists(self) -> list[list[Candidate]]:
        """The candidates, those together that are listed side by side: "48213 or 55012"."""
        lists: list[list[Candidate]] = []
        for candidate in self.candidates:
            if lists and self._side_by_side(lists[-1][-1], candidate):
                lists[-1].append(candidate)
            else:
                lists.append([candidate])
        return lists

    def _side_by_side(self, one: Candidate, other: Candidate) -> bool:
        if other.start - one.end > _BESIDE:
            return False
        listed = compiled(_LISTED).fullmatch(self.text, one.end, other.start)
        return listed is not None and (listed["or"] is not None or len(one.value) == len(other.value))

    def _link(self, candidate: Candidate) -> _Link:
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

    def _keyword_before(self, candidate: Candidate) -> re.Match[str] | None:
        """The last keyword before the candidate, in the same sentence and near enough."""
        index = bisect_right(self.keyword_ends, candidate.start) - 1
        if index < 0 or candidate.start - self.keyword_ends[index] > _FAR:
            return None
        # One character more, for the full stop that is one only before a space.
        stop = compiled(_STOP).search(self.text, self.keyword_ends[index], candidate.start + 1)
        return None if stop else self.keywords[index]

    def _keyword_after(self, candidate: Candidate) -> re.Match[str] | None:
        """The first keyword after the candidate, in the same sentence and line and near enough."""
        index = bisect_left(self.keyword_starts, candidate.end)
        if index == len(self.keywords) or self.keyword_starts[index] - candidate.end > _FAR:
            return None
        stop = compiled(_STOP_OR_LINE).search(self.text, candidate.end, self.keyword_starts[index] + 1)
        return None if stop else self.keywords[index]

    def _link_before(self, candidate: Candidate, keyword: re.Match[str]) -> _Link:
        gap = compiled(_ASIDE).sub(" ", self.text[keyword.end() : candidate.start])
        crossed = self._number_between(keyword.end(), candidate.start)
        if compiled(_SAID_BEFORE).fullmatch(gap):
            return _Link.FAR if crossed else _Link.FIRM
        if (
            crossed
            or compiled(_BETWEEN).search(gap)
            or not compiled(_CLAUSE_END).match(self.text, candidate.end)
        ):
            return _Link.NONE
        if len(gap) <= (_NEAR if self.earnest else _BESIDE):
            return _Link.LOOSE
        return _Link.ALONE if len(self.candidates) == 1 else _Link.NONE

    def _link_after(self, candidate: Candidate, keyword: re.Match[str]) -> _Link:
        gap = self.text[candidate.end : keyword.start()]
        crossed = self._number_between(candidate.end, keyword.start())
        if self._is_said_after(candidate, keyword):
            return _Link.FAR if crossed else _Link.FIRM
        if crossed:
            return _Link.NONE
        if compiled(_BETWEEN).search(gap) or not (self.earnest or len(gap) <= _BESIDE):
            return _Link.NONE
        if self._opens(candidate) or (gap.startswith((" (", "(")) and ")" not in gap):
            return _Link.LOOSE
        return _Link.ALONE if len(gap) <= _BESIDE and len(self.candidates) == 1 else _Link.NONE

    def _is_said_after(self, candidate: Candidate, keyword: re.Match[str]) -> bool:
        """Whether it reads "48213 is your code" or, where a sentence begins, "48213 - your code"."""
        gap = self.text[candidate.end : keyword.start()]
        if compiled(_SAID_AFTER).match(gap):
            return True
        return len(gap) <= _NEAR and gap.startswith(" - ") and self._opens(candidate)

    def _number_between(self, start: int, end: int) -> bool:
        return bisect_left(self.starts, start) < bisect_left(self.starts, end)

    def _asked_for(self, candidate: Candidate) -> bool:
        """Whether it reads "enter 48213 to verify your phone", "phone verification: 48213"."""
        since = max(0, candidate.start - _FAR)
        if self._opens(candidate) and compiled(_SERVES).match(self.text, candidate.end, candidate.end + _FAR):
            return True
        if compiled(_NAMED).search(self.text, since, candidate.start):
            return True
        if self.speaks_of_code and compiled(_TO_ENTER).match(self.text, candidate.end):
            return True
        entered = compiled(_ENTERED).search(self.text, since, candidate.start)
        if entered is None:
            return False
        asked = self.speaks_of_code or compiled(" <<for>>").match(self.text, candidate.end)
        return bool(asked) or self._replaces_link(entered.start(), candidate)

    def _replaces_link(self, start: int, candidate: Candidate) -> bool:
        """Whether it reads "visit <link> or enter 48213", "enter 48213 or visit <link>", and has no other."""
        if len(self.candidates) != 1:
            return False
        return any(
            (end <= start and compiled(_THEN).fullmatch(self.text, end, start))
            or (begin >= candidate.end and compiled(_OR_VISIT).fullmatch(self.text, candidate.end, begin))
            for begin, end in self.links
        )

    def _alone(self, candidate: Candidate) -> bool:
        """Whether it is alone on its line or in its sentence, of a message about a code or without a word."""
        if not self._opens(candidate) or not compiled(_CLOSED).fullmatch(self._sentence_after(candidate)):
            return False
        return self.speaks_of_code or compiled(_WORDLESS).fullmatch(self.text) is not None

    def _opens(self, candidate: Candidate) -> bool:
        """Whether it opens a sentence that answers no question, or a message after the sender's name."""
        before = self._sentence_before(candidate)
        since = candidate.start - len(before)
        names = _SENDER if since == 0 else _BRACKETED
        return self.text[since - 1 : since] != "?" and compiled(names).fullmatch(before) is not None

    def _sentence_before(self, candidate: Candidate) -> str:
        return compiled(_STOP_OR_LINE).split(self.text[max(0, candidate.start - _FAR) : candidate.start])[-1]

    def _sentence_after(self, candidate: Candidate) -> str:
        return compiled(_STOP_OR_LINE).split(self.text[candidate.end : candidate.end + _FAR], maxsplit=1)[0]

    def _is_void(self, candidate: Candidate) -> bool:
        return compiled(_VOID).match(self.text, candidate.end) is not None

    def _is_something_else(self, candidate: Candidate) -> bool:
        """Whether the nearest word that names the number is not a word for a code."""
        index = bisect_right(self.keyword_ends, candidate.start)
        named_since = max(self.keyword_ends[index - 1] if index else 0, candidate.value_at - _NEAR, 0)
        if compiled(_REACHED).search(self.text, named_since, candidate.value_at):
            return not self._said_of(candidate, anything=True)
        if label := compiled(_LABELLED).search(self.text, named_since, candidate.value_at):
            return not self._named_and_said(candidate, label) and not self._said_of(
                candidate, anything=not label["owned"]
            )
        sentence = self._sentence_before(candidate) + self._sentence_after(candidate)
        return compiled(_PROMOTING).search(sentence) is not None and not compiled(_EARNEST).search(sentence)

    def _named_and_said(self, candidate: Candidate, label: re.Match[str]) -> bool:
        """Whether it reads "Foo account: 48213 is your code": the sender's name, and then the code."""
        after = self._keyword_after(candidate)
        return after is not None and label[0].rstrip().endswith(":") and self._is_said_after(candidate, after)

    def _said_of(self, candidate: Candidate, anything: bool) -> bool:
        """Whether the word for the code reaches over a label: "the code for your account: 48213".

        With `anything`, over labels of every kind; then it must say so: "the code for order 7 is 48213".
        """
        if not anything and compiled(_NAMED).search(
            self.text, max(0, candidate.start - _FAR), candidate.start
        ):
            return True
        keyword = self._keyword_before(candidate)
        if keyword is None:
            return False
        said = compiled(_SAID_BEFORE).fullmatch(self.text, keyword.end(), candidate.start)
        if said is None or said["said"] is None or "," in said[0]:
            return False
        return not anything or (said["said"].isalpha() and compiled("<<for>>").search(said[0]) is not None)
