"""Reads the one-time code out of the text of an SMS, whatever its language.

A wrong code is worse than none, so the reader does not guess:

1. The text is folded: invisible marks dropped, digits of every script made ASCII, accents and capitals gone.
2. What is something else by its shape (links, phone numbers, dates, amounts, card tails, ...) is blanked out,
   and what is called something else ("order 48213") left aside.
3. Each number or alphanumeric token that remains gets a link: how firmly the words around it call it a code.
   One that only stands for the next has none ("the code for docket: 4417 is 48213").
4. The firmest link wins, if all that have it agree on one code.

The words stand in `_otp/words.txt`; in an expression, `<<purpose>>` is any word of its table [purpose].
"""

from __future__ import annotations

import enum
import re
from bisect import bisect_left, bisect_right
from itertools import islice

from smsverify._input.patterns import as_pattern
from smsverify._otp import ties
from smsverify._otp.sentences import STOP, STOP_OR_LINE, Sentences, marks_within
from smsverify._otp.shapes import Candidate, blanked, candidates
from smsverify._otp.void import is_void
from smsverify._otp.words import compiled, fold, lower, spelled
from smsverify.text import LONGEST_SMS, visible

# The last line of a message bound to a web site: "@example.com #48213".
_DOMAIN_BOUND = (
    r"(?<!\S)@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8} #((?=[A-Za-z-]*[0-9])[A-Za-z0-9-]{3,12})"
    r"(?:\s{1,9}[@%][!-~]{1,253}){0,3}\s*\Z"
)

# A text with more numbers than that is no message about a code, and not worth the work.
_MOST_NUMBERS = 60


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
    prefix such as `G-`; leading zeros stay. If nothing is clearly the code, or two are equally, there is
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
    if len(written) > LONGEST_SMS:  # one character may stand for eighteen
        return None
    if bound := compiled(_DOMAIN_BOUND).search(written):
        code: str | None = bound[1] if re.search("[A-Za-z]", bound[1]) else bound[1].replace("-", "")
    else:
        code = _Reading(written).code()
    # Words are read without their accents, but a letter of a code with one is another letter.
    return code if code is None or code.isdigit() or code in spelled(visible(text)) else None


class _Reading:
    """One message, folded, in small letters, with everything blanked out that is no code by its shape."""

    def __init__(self, written: str) -> None:
        text, self.links = blanked(lower(written), written)
        self.written = written
        self.text = text
        self.earnest = compiled(ties.EARNEST).search(text) is not None
        self.keywords = [
            keyword
            for keyword in compiled(ties.KEYWORD).finditer(text)
            # Cash on delivery.
            if self.earnest or written[keyword.start() : keyword.end()] != "COD"
        ]
        if self._is_of_a_queue():
            self.keywords, self.earnest = [], False
        self.keyword_starts = [keyword.start() for keyword in self.keywords]
        self.keyword_ends = [keyword.end() for keyword in self.keywords]
        within = marks_within(written, text, frozenset(self.keyword_ends))
        self.sentences = Sentences(text, within, reach=ties.FAR)
        self.brackets = [match.span() for match in compiled(ties.BRACKETS).finditer(text)]
        self.speaks_of_code = self.earnest or any(not keyword["other"] for keyword in self.keywords)
        shaped = list(islice(candidates(text, written), _MOST_NUMBERS + 1))
        self.too_many = len(shaped) > _MOST_NUMBERS
        self.candidates = [candidate for candidate in shaped if not self._is_something_else(candidate)]
        self.starts = [candidate.start for candidate in self.candidates]

    def _is_of_a_queue(self) -> bool:
        """Whether it speaks of a code only as a token that one waits with: "token 48, counter 7"."""
        if not compiled(ties.QUEUE).search(self.text):
            return False
        earnest = {match[0] for match in compiled(ties.EARNEST).finditer(self.text)}
        words = {compiled("<<code>>").match(keyword[0]) for keyword in self.keywords}
        return earnest | {word and word[0] for word in words} <= {"token", "tokens"}

    def code(self) -> str | None:
        """The value of the firmest link, unless two candidates share it."""
        if self.too_many or (not self.earnest and compiled(ties.PROMOTING).search(self.text)):
            return None
        links = {candidate: self._link(candidate) for candidate in self.candidates}
        firmest = max(links.values(), default=_Link.NONE)
        if firmest <= _Link.LOOSE and self._names_unread():
            return None
        values = {
            candidate.value
            for listed in self._lists()
            if any(links[candidate] is firmest for candidate in listed)
            for candidate in listed
        }
        return (values.pop() or None) if firmest > _Link.NONE and len(values) == 1 else None

    def _names_unread(self) -> bool:
        """Whether what is called the code cannot be read: "the code is 662.031. Booth 4417"."""
        return any(not keyword["other"] and self._unread(keyword) for keyword in self.keywords)

    def _is_taken(self, keyword: re.Match[str]) -> bool:
        """Whether what it calls the code has been blanked: "the code: 662.031 (4417)"."""
        unread = self._unread(keyword)
        return unread is not None and self.text[unread.start()] == "\x00"

    def _unread(self, keyword: re.Match[str]) -> re.Match[str] | None:
        """What a word calls the code directly, if it is none by its shape."""
        named = compiled(ties.IS_UNREAD).match(self.text, keyword.end())
        if named is None or named.end() in self.starts:
            return None
        return compiled(ties.UNREAD).match(self.written, named.end())

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
        if other.start - one.end <= ties.BESIDE:
            listed = compiled(ties.LISTED).fullmatch(self.text, one.end, other.start)
            if listed is not None and (listed["or"] is not None or len(one.value) == len(other.value)):
                return True
        return self._stands_for(one, other) is None

    def _link(self, candidate: Candidate) -> _Link:
        before, after = self._keyword_before(candidate), self._keyword_after(candidate)
        called = self._link_before(candidate, before) if before and not self._is_taken(before) else _Link.NONE
        is_lone = len(self.candidates) == 1
        if (before and before["other"]) or is_void(candidate, before, self.text, self.written, is_lone):
            return _Link.NONE
        if self._stands_for_next(candidate):
            return _Link.NONE
        if after and after["other"] and (called < _Link.FIRM or self._is_stated(candidate, after)):
            return _Link.NONE
        link = max(
            called,
            self._link_after(candidate, after) if after else _Link.NONE,
            _Link.LOOSE if self._asked_for(candidate) else _Link.NONE,
            _Link.ALONE if self._alone(candidate) else _Link.NONE,
        )
        return _Link.NONE if candidate.doubtful and link <= _Link.LOOSE else link

    def _keyword_before(self, candidate: Candidate) -> re.Match[str] | None:
        """The last keyword before the candidate, in the same sentence and near enough.

        One that has got its number, in brackets or for another code, counts only if no other is there:
        "your OTP (ref code 4417) is 48213", "the OTP for employee code 4417 is 48213".
        """
        last: re.Match[str] | None = None
        for index in range(bisect_right(self.keyword_ends, candidate.start) - 1, -1, -1):
            since = self.keyword_ends[index]
            # One character more, for the full stop that is one only before a space.
            distance = candidate.start - since
            if distance > ties.FARTHEST or any(self.sentences.stops(STOP, since, candidate.start + 1)):
                break
            keyword = self.keywords[index]
            if distance > ties.FAR and not self._is_said_from_afar(keyword, candidate):
                break
            if not (last and keyword["other"]) and not self._is_spent(keyword, candidate):
                return keyword
            last = last or keyword
        return last

    def _is_spent(self, keyword: re.Match[str], candidate: Candidate) -> bool:
        """Whether the keyword is said of a number before the candidate, and of that only."""
        if keyword["other"] and compiled(ties.SPENT).fullmatch(self.text, keyword.end(), candidate.start):
            return True
        index = bisect_right(self.brackets, keyword.span()) - 1
        end = self.brackets[index][1] if index >= 0 else 0
        if not keyword.end() < end <= candidate.start:
            return False
        return compiled(r"[0-9\x00]").search(self.text, keyword.end(), end) is not None

    def _keyword_after(self, candidate: Candidate) -> re.Match[str] | None:
        """The first keyword after the candidate, in the same sentence and line and near enough."""
        index = bisect_left(self.keyword_starts, candidate.end)
        if index == len(self.keywords) or self.keyword_starts[index] - candidate.end > ties.FAR:
            return None
        stops = self.sentences.stops(STOP_OR_LINE, candidate.end, self.keyword_starts[index] + 1)
        return None if any(stops) else self.keywords[index]

    def _link_before(self, candidate: Candidate, keyword: re.Match[str]) -> _Link:
        gap = self._gap(keyword, candidate)
        crossed = self._number_between(keyword.end(), candidate.start)
        if said := self._said(keyword, candidate):
            glued = compiled(ties.NUMBERING_GLUED).fullmatch(self.text, candidate.start, candidate.end)
            if (glued and not (said["is"] or said["mark"])) or self._is_of_what_for(keyword):
                return _Link.NONE
            is_sent = compiled(ties.SENT).match(self.text, candidate.end) is not None
            if self._is_loose(said) and (is_sent or self._is_said_already(keyword)):
                return _Link.NONE
            # Right behind the word, it crosses only what stands in brackets.
            is_far = crossed and not self._is_direct(said) and not self._is_stood_for(candidate)
            return _Link.FAR if is_far else _Link.FIRM
        if (
            crossed
            or not self._is_near_in_words(candidate, keyword)
            or not compiled(ties.CLAUSE_END).match(self.text, candidate.end)
        ):
            return _Link.NONE
        if len(gap) <= (ties.NEAR if self.earnest else ties.BESIDE):
            return _Link.LOOSE
        return _Link.ALONE if len(self.candidates) == 1 else _Link.NONE

    def _is_near_in_words(self, candidate: Candidate, keyword: re.Match[str]) -> bool:
        """Whether so little stands in between that the number may be what the word means: "Foo code 48213".

        Not "the code was changed, request 48213", nor "never share your code, hotline 4417".
        """
        gap = self._gap(keyword, candidate)
        if compiled(ties.BETWEEN).search(gap):
            return False
        free_words = len(compiled(ties.FREE_WORD).findall(compiled(ties.EXPLAINED).sub(" ", gap)))
        since = max(0, keyword.start() - ties.NEAR)
        if (free_words or "," in gap) and compiled(ties.FORBIDDEN).search(self.text, since, keyword.start()):
            return False
        if compiled(ties.HAPPENED).search(self.text, since, keyword.start()):
            return free_words <= 1
        if compiled(ties.WHERE).match(gap):
            return free_words <= 4
        return free_words <= (2 if compiled(ties.WARNS).match(self.text, candidate.end) else 1)

    def _link_after(self, candidate: Candidate, keyword: re.Match[str]) -> _Link:
        gap = self.text[candidate.end : keyword.start()]
        crossed = self._number_between(candidate.end, keyword.start())
        if self._is_said_after(candidate, keyword):
            return _Link.FAR if crossed else _Link.FIRM
        if crossed:
            return _Link.NONE
        if compiled(ties.BETWEEN).search(gap) or not (self.earnest or len(gap) <= ties.BESIDE):
            return _Link.NONE
        if self._opens(candidate) or (gap.startswith((" (", "(")) and ")" not in gap):
            return _Link.LOOSE
        if len(gap) > ties.BESIDE or len(self.candidates) > 1:
            return _Link.NONE
        has_happened = compiled(ties.HAPPENED_BEHIND).match(self.text, keyword.end())
        return _Link.NONE if has_happened else _Link.ALONE

    def _is_said_after(self, candidate: Candidate, keyword: re.Match[str]) -> bool:
        """Whether it reads "48213 is your code" or, where a sentence begins, "48213 - your code"."""
        gap = self.text[candidate.end : keyword.start()]
        if self._is_stated(candidate, keyword):
            return True
        return len(gap) <= ties.NEAR and gap.startswith(" - ") and self._opens(candidate)

    def _is_stated(self, candidate: Candidate, keyword: re.Match[str]) -> bool:
        """Whether it reads "48213 is your code"."""
        return compiled(ties.SAID_AFTER).match(self.text, candidate.end, keyword.start()) is not None

    def _gap(self, keyword: re.Match[str], candidate: Candidate) -> str:
        return compiled(ties.ASIDE).sub(" ", self.text[keyword.end() : candidate.start])

    def _said(self, keyword: re.Match[str], candidate: Candidate) -> re.Match[str] | None:
        return compiled(ties.SAID_BEFORE).fullmatch(self._gap(keyword, candidate))

    def _is_said_from_afar(self, keyword: re.Match[str], candidate: Candidate) -> bool:
        """Whether it reads "the code for a purchase of ... at Foo is 48213"."""
        said = self._said(keyword, candidate)
        return bool(said and said["is"] and not compiled(ties.TURNS).search(said[0]))

    def _is_direct(self, said: re.Match[str]) -> bool:
        """Whether what says it stands right behind the word: "code: 48213", not "code for Foo: 48213"."""
        return said["over"] is not None and compiled(ties.OPENED).fullmatch(said["over"]) is not None

    def _is_loose(self, said: re.Match[str]) -> bool:
        """Whether a mark says it that may belong to another word: "code for Foo: 48213"."""
        return said["mark"] is not None and not self._is_direct(said)

    def _is_said_already(self, keyword: re.Match[str]) -> bool:
        """Whether the word has its number before it: "48213 is the code for order: 4417"."""
        index = bisect_left(self.starts, keyword.start()) - 1
        if index < 0 or self._keyword_after(candidate := self.candidates[index]) is not keyword:
            return False
        is_called = compiled(ties.CALLED).fullmatch(self.text, candidate.end, keyword.start())
        return is_called is not None and self._is_said_after(candidate, keyword)

    def _is_of_what_for(self, keyword: re.Match[str]) -> bool:
        """Whether the word only says what another number is for: "the PIN is 48213 for the code 4417"."""
        index = bisect_left(self.starts, keyword.start()) - 1
        if index < 0 or self._keyword_before(candidate := self.candidates[index]) is None:
            return False
        return compiled(ties.FOR_THE).fullmatch(self.text, candidate.end, keyword.start()) is not None

    def _stands_for_next(self, candidate: Candidate) -> bool:
        index = bisect_right(self.starts, candidate.start)
        if index < len(self.candidates):
            return self._stands_for(candidate, self.candidates[index]) is True
        # Cut off before what it stands for: "the code for order: 4417 is".
        keyword = self._keyword_before(candidate)
        said = self._said(keyword, candidate) if keyword else None
        means = compiled(ties.MEANS).fullmatch(self.text, candidate.end)
        return bool(means and said and not means["dash"] and (said["numbered"] or self._is_loose(said)))

    def _is_stood_for(self, candidate: Candidate) -> bool:
        index = bisect_left(self.starts, candidate.start)
        return index > 0 and self._stands_for(self.candidates[index - 1], candidate) is True

    def _stands_for(self, one: Candidate, other: Candidate) -> bool | None:
        """Whether a number only names the next: "the code for order: 4417 is 48213", "TAN 123: 48213".

        Not if it is itself called the code, right behind the word ("code: 48213: 4417") or by a verb.
        `None` if either could be the code: "the code for order: 4417 - 48213".
        """
        keyword = self._keyword_before(one)
        said = self._said(keyword, one) if keyword else None
        is_firm = said is not None and (said["is"] is not None or self._is_direct(said))
        means = compiled(ties.MEANS).fullmatch(self.text, one.end, other.start)
        if means is None:
            return None if keyword and said and self._may_stand_for(one, other, keyword, said) else False
        if said is None and self._is_called_after(one):
            return False  # "48213 is 12306 login code": part of a name
        if means["is"]:
            return None if said and said["is"] else True
        if is_firm or (means["dash"] and said is None):
            return False
        return None if means["dash"] and said and not said["numbered"] else True

    def _is_called_after(self, candidate: Candidate) -> bool:
        after = self._keyword_after(candidate)
        return after is not None and self._is_said_after(candidate, after)

    def _may_stand_for(
        self, one: Candidate, other: Candidate, keyword: re.Match[str], said: re.Match[str]
    ) -> bool:
        """Whether it may do so unsaid: "... order: 4417 at Foo is 48213", "... order: 4417 blir 48213"."""
        between = self.text[one.end : other.start]
        if not self._is_loose(said) and said["numbered"] is None:
            return False
        if compiled(ties.NEW_LINE).fullmatch(between) and self._alone(other):
            return True
        if self._keyword_before(other) is not keyword:
            return False
        said_of_other = self._said(keyword, other)
        if said_of_other is not None and said_of_other["is"]:
            return True
        is_near = len(between) <= (ties.NEAR if ":" in between else ties.BESIDE)
        return is_near and other.value.isdigit() and compiled(ties.MAY_MEAN).fullmatch(between) is not None

    def _number_between(self, start: int, end: int) -> bool:
        return bisect_left(self.starts, start) < bisect_left(self.starts, end)

    def _asked_for(self, candidate: Candidate) -> bool:
        """Whether it reads "enter 48213 to verify your phone", "phone verification: 48213"."""
        since = max(0, candidate.start - ties.FAR)
        if self._opens(candidate) and compiled(ties.SERVES).match(
            self.text, candidate.end, candidate.end + ties.FAR
        ):
            return True
        if compiled(ties.NAMED).search(self.text, since, candidate.start):
            return True
        if self.speaks_of_code and compiled(ties.TO_ENTER).match(self.text, candidate.end):
            return True
        entered = compiled(ties.ENTERED).search(self.text, since, candidate.start)
        if entered is None:
            return False
        asked = self.speaks_of_code or compiled(ties.SERVES_AS_CODE).match(self.text, candidate.end)
        return bool(asked) or self._replaces_link(entered.start(), candidate)

    def _replaces_link(self, start: int, candidate: Candidate) -> bool:
        """Whether it reads "visit <link> or enter 48213", "enter 48213 or visit <link>", and has no other."""
        if len(self.candidates) != 1:
            return False
        return any(
            (end <= start and compiled(ties.THEN).fullmatch(self.text, end, start))
            or (begin >= candidate.end and compiled(ties.OR_VISIT).fullmatch(self.text, candidate.end, begin))
            for begin, end in self.links
        )

    def _alone(self, candidate: Candidate) -> bool:
        """Whether it is alone on its line or in its sentence, of a message about a code or without a word."""
        if not self._opens(candidate) or not self._closes(candidate):
            return False
        if compiled(ties.WORDLESS).fullmatch(self.text):
            return True
        name = compiled(ties.TAG).sub(" ", self.sentences.before(candidate.start))
        if not compiled(r"[^\W\d_]").search(name):
            return self.speaks_of_code
        return not compiled(ties.NO_SENDER).search(name) and self._speaks_of_code_behind(candidate)

    def _speaks_of_code_behind(self, candidate: Candidate) -> bool:
        """Whether more than the sender's name does: "Payment confirmed: 48213" is no message about a code."""
        if any(not keyword["other"] and keyword.start() >= candidate.end for keyword in self.keywords):
            return True
        return compiled(ties.EARNEST).search(self.text, candidate.end) is not None

    def _opens(self, candidate: Candidate) -> bool:
        """Whether it opens a sentence that answers no question, or a message after the sender's name."""
        before = self.sentences.before(candidate.start)
        since = candidate.start - len(before)
        names = ties.SENDER if since == 0 else ties.BRACKETED
        return self.text[since - 1 : since] != "?" and compiled(names).fullmatch(before) is not None

    def _closes(self, candidate: Candidate) -> bool:
        """Whether its sentence ends there, or goes on with how long it is good, behind a warning."""
        after = self.sentences.after(candidate.end)
        if compiled(ties.CLOSED).fullmatch(after):
            return True
        is_warned = compiled(ties.WARNED).search(self.text, 0, candidate.start) is not None
        return is_warned and compiled(ties.LASTS).fullmatch(after) is not None

    def _is_something_else(self, candidate: Candidate) -> bool:
        """Whether the nearest word that names the number is not a word for a code."""
        index = bisect_right(self.keyword_ends, candidate.start)
        named_since = max(self.keyword_ends[index - 1] if index else 0, candidate.value_at - ties.NEAR, 0)
        if reached := compiled(ties.REACHED).search(self.text, named_since, candidate.value_at):
            return not self._named_and_said(candidate, reached) and not self._said_of(
                candidate, anything=True
            )
        if compiled(ties.NUMBERED).search(
            self.text, named_since, candidate.value_at
        ) and not self._is_numbered_code(candidate):
            return True
        if label := compiled(ties.LABELLED).search(self.text, named_since, candidate.value_at):
            return not self._named_and_said(candidate, label) and not self._said_of(
                candidate, anything=not label["owned"]
            )
        sentence = self.sentences.before(candidate.start) + self.sentences.after(candidate.end)
        return compiled(ties.PROMOTING).search(sentence) is not None and not compiled(ties.EARNEST).search(
            sentence
        )

    def _is_numbered_code(self, candidate: Candidate) -> bool:
        """Whether it reads "code no. 48213", "no. 48213 is your code": the number of a code is the code."""
        keyword = self._keyword_before(candidate)
        said = self._said(keyword, candidate) if keyword else None
        is_numbered = said is not None and (said["numbered"] is not None or self._is_direct(said))
        return is_numbered or self._is_called_after(candidate)

    def _named_and_said(self, candidate: Candidate, label: re.Match[str]) -> bool:
        """Whether it reads "Foo account: 48213 is your code": the sender's name, and then the code."""
        return label[0].rstrip().endswith((":", "]", "-")) and self._is_called_after(candidate)

    def _said_of(self, candidate: Candidate, anything: bool) -> bool:
        """Whether the word for the code reaches over a label: "the code for your account: 48213".

        With `anything`, over labels of every kind; then it must say so: "the code for order 7 is 48213".
        """
        names = f"{ties.NAMED}|{ties.FIGURE}" if self.speaks_of_code else ties.NAMED
        since = max(0, candidate.start - ties.FAR)
        if not anything and compiled(names).search(self.text, since, candidate.start):
            return True
        keyword = self._keyword_before(candidate)
        if keyword is None:
            return False
        said = compiled(ties.SAID_BEFORE).fullmatch(self.text, keyword.end(), candidate.start)
        if said is not None and said["numbered"]:
            return not anything
        if said is None or said["over"] is None or "," in said[0]:
            return False
        return not anything or (said["is"] is not None and compiled("<<for>>").search(said[0]) is not None)
