"""A caller's regular expression for the text of an SMS, which can delay nothing else.

An expression may take for ever with a text that a stranger has written. So it is looked for with a time
limit, by a module that lets other threads go on meanwhile, and never in a thread that serves others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from smsverify._input.templates import is_left_over
from smsverify._input.values import own_type
from smsverify._runtime.job_thread import JobThread
from smsverify.errors import InvalidRequestError
from smsverify.text import log_of, printable

if TYPE_CHECKING:
    import regex

log = log_of(__name__)

LONGEST_PATTERN = 1000  # characters
DEEPEST = 8  # groups in groups: each more doubles the time that compiling may take
LONGEST_WRITTEN_OUT = 100_000  # characters; compiling repeats what stands before each {n}, n times
# Seconds for one text. All others go before one that needs more than the first.
TIME_LIMITS = (0.01, 0.1)

# What is escaped or in brackets is none: groups, and the least count of {n}, {n,} and {n,m}.
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|([()])|\{\s*([0-9]+)[\s0-9,]*\}", re.DOTALL)


def as_pattern(value: Any) -> Pattern:
    """A regular expression for texts, as text or compiled.

    Raises:
        InvalidRequestError: it is none, or so large that compiling it could take long.
    """
    value = own_type(value)
    if isinstance(value, Pattern):
        return value
    source, flags = (value.pattern, value.flags) if isinstance(value, re.Pattern) else (value, 0)
    if not isinstance(source, str) or is_left_over(source):
        raise _refused("it must be a regular expression for text")
    if len(source) > LONGEST_PATTERN:
        raise _refused(f"it has {len(source)} characters, and {LONGEST_PATTERN} are allowed")
    counts = _counts(source)
    if max(counts) > DEEPEST:
        raise _refused(f"it has groups in groups deeper than {DEEPEST}: write it flatter")
    if len(source) * math.prod(counts.values()) > LONGEST_WRITTEN_OUT:
        raise _refused("what it repeats in braces is too long when it is written out: give lower counts")
    return Pattern(source, flags)


def _refused(why: str) -> InvalidRequestError:
    return InvalidRequestError(f"pattern is no regular expression that can be used: {why}", field="pattern")


def _counts(source: str) -> dict[int, int]:
    """The highest count of a repetition in groups of each depth, 0 for outside of all groups."""
    counts, depth = {0: 1}, 0
    for token in _TOKEN.finditer(source):
        depth += {"(": 1, ")": -1}.get(token[1], 0)
        counts[depth] = max(counts.get(depth, 1), int(token[2] or 1))
    return counts


class Pattern:
    """A compiled expression, and what it has found in each text.

    Raises:
        InvalidRequestError: it is no regular expression.
    """

    def __init__(self, source: str, flags: int = 0) -> None:
        # It takes longer to load than all that most callers need.
        import regex

        names = ("IGNORECASE", "MULTILINE", "DOTALL", "VERBOSE", "ASCII")
        meant = sum(getattr(regex, name) for name in names if flags & getattr(re, name))
        self.pattern = source
        try:
            self._expression: regex.Pattern[str] = regex.compile(source, meant)
        except (regex.error, RecursionError, OverflowError, ValueError, MemoryError) as error:
            raise _refused(printable(str(error))) from None
        self._found: dict[str, str | None] = {}
        self._under_way: set[str] = set()
        self._has_run_out: set[str] = set()
        self._is_reported = False

    def __repr__(self) -> str:
        return f"Pattern({self.pattern!r})"

    def find(self, text: str) -> str | None:
        """The first group of the first match, without a group the whole match; `None` where there is none.

        A text in which looking takes too long counts as not matching.
        """
        if text not in self._found:
            for seconds in TIME_LIMITS:
                if self.look(text, seconds):
                    break
        return self._found.get(text)

    def knows(self, text: str) -> bool:
        """Whether it has been looked for in a text."""
        return text in self._found

    def look(self, text: str, seconds: float) -> bool:
        """Looks for it in a text for so long; whether that has come to an end."""
        try:
            match = self._expression.search(text, timeout=seconds, concurrent=True)
        except (TimeoutError, MemoryError, RecursionError):
            if seconds >= TIME_LIMITS[-1]:
                self._has_run_out.add(text)
                self._found[text] = None
            return False
        self._found[text] = (
            None if match is None else (match[1] if self._expression.groups else match[0]) or None
        )
        return True

    def report(self, text: str, order_id: int) -> None:
        """Says once that looking in a text took too long."""
        if text in self._has_run_out and not self._is_reported:
            self._is_reported = True
            log.warning(
                "The pattern %s takes too long with a message of order %d, which counts as not matching. "
                "Repetitions in repetitions, such as (\\w+\\s?)+, do that",
                printable(self.pattern),
                order_id,
            )

    def begin(self, text: str) -> bool:
        """Whether it is still to be looked for in a text; from now on it is under way."""
        if text in self._found or text in self._under_way:
            return False
        self._under_way.add(text)
        return True

    def put_off(self, text: str) -> None:
        """It is not under way in a text after all."""
        self._under_way.discard(text)


class Matching:
    """Looks for patterns in a thread of its own."""

    def __init__(self) -> None:
        self._thread = JobThread("smsverify-match")

    def look(self, pattern: Pattern, text: str, then: Callable[[], None]) -> None:
        """Has a pattern looked for in a text, unless that is under way; `then` is called when it is known."""
        if not pattern.begin(text):
            return
        try:
            self._try(pattern, text, then, tries=0)
        except RuntimeError as error:
            pattern.put_off(text)
            log.warning("No thread can be started to look for a pattern; it is tried again: %s", error)

    def _try(self, pattern: Pattern, text: str, then: Callable[[], None], tries: int) -> None:
        def look() -> None:
            if pattern.look(text, TIME_LIMITS[tries]) or tries + 1 == len(TIME_LIMITS):
                then()
            else:
                self._try(pattern, text, then, tries + 1)

        self._thread.submit(look, rank=tries)
