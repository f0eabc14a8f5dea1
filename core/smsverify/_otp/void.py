"""What makes a number void, whatever calls it the code."""

from __future__ import annotations

import re

from smsverify._otp import ties
from smsverify._otp.shapes import Candidate
from smsverify._otp.words import compiled


def is_void(
    candidate: Candidate, keyword: re.Match[str] | None, text: str, written: str, is_lone: bool
) -> bool:
    """Whether it reads "48213 has expired", "48213 is wrong", "wrong code: 48213".

    Args:
        candidate: the number.
        keyword: the word for a code before it.
        text: the message, folded, in small letters.
        written: the same with its capitals.
        is_lone: there is no other candidate.
    """
    if compiled(ties.VOID).match(text, candidate.end):
        return True
    stated = compiled(ties.VOID_STATED).match(text, candidate.end)
    if stated and not _begins_anew(written, candidate.end):
        return True
    if keyword is None or compiled(r"[,\n]").search(text, keyword.end(), candidate.start):
        return False
    since = max(0, keyword.start() - ties.NEAR)
    if not is_lone and compiled(ties.IGNORED).search(text, since, keyword.start()):
        return True  # the other is to be used; a lone one is good, and to be ignored if not asked for
    return bool(
        compiled(ties.WRONG_BEFORE).search(text, since, keyword.start())
        or compiled(ties.WRONG_BEHIND).match(text, keyword.end(), candidate.start)
        or compiled(ties.WRONG_TO_MARK).search(text, keyword.end(), candidate.start)
    )


def _begins_anew(written: str, at: int) -> bool:
    """Whether another sentence begins there, for want of a full stop: "48213 The old one is wrong"."""
    goes_on = compiled(ties.GOES_ON).match(written, at)
    return goes_on is not None and written[goes_on.end() : goes_on.end() + 2].istitle()
