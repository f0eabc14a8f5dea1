"""Reads the fields `otp` and `message` of an order's status, which are not documented for every case.

A wrong code is worse than none, and a wait that ends without a code is worse than a wait that goes on. So a
word that means "nothing yet" is nothing. A number is a code as it stands. A sentence is read like the text of
an SMS.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from smsverify._input.phones import phone_digits
from smsverify._service.bodies import Contradiction
from smsverify.models import known_status, with_leading_zeros
from smsverify.otp import extract_otp
from smsverify.text import LONGEST_SMS, visible

# Words that mean "nothing yet", in small letters and without what is neither letter nor digit.
_NOTHING = frozenset(
    [
        *("", "0", "00", "none", "null", "nil", "nan", "na", "n a", "undefined", "empty", "false", "waiting"),
        *("wait", "pending", "processing", "in progress", "in process", "queued", "not received", "not yet"),
        *("not available", "unavailable", "no code", "no otp", "no sms", "no message", "no data"),
    ]
)
# The same for the field for the code, which never holds an SMS of one word.
_NO_CODE = _NOTHING | frozenset(
    [
        *("true", "no", "yes", "ok", "unknown", "default", "string", "str", "active", "received", "created"),
        *("new", "completed", "cancelled", "canceled", "expired", "failed", "error", "timeout", "timed out"),
        *("refunded", "not found", "no result", "tbd", "todo"),
    ]
)
# Whole sentences that mean the same.
_WAITING = re.compile(
    r"(?:(?:still|please|currently|sms|codes?|otps?|messages?)\s+){0,3}"
    r"(?:wait(?:ing)?|await(?:ing)?|pending|processing|no|not|none)\b[^\W\d]*(?:\s+[^\W\d]+){0,5}?"
    r"\s+(?:yet|sms|codes?|otps?|messages?|received|arrived|available|found)"
    r"(?:\s+(?:on|to|for|order|number)\b){0,3}[\s#.…!]*",
    re.IGNORECASE,
)
# The same with any words of this vocabulary, as small letters with one space between the words.
_SMS = r"(?:sms|codes?|otps?|messages?|texts?)"
_NOT_YET = (
    r"(?:wait(?:ing)?|await(?:ing)?|listening|not|no|none|nothing|0|zero|(?:has|have|is|are|was|did|does)n t)"
)
_FILLING = (
    r"(?:you have|we|it|there|is|are|re|s|was|has|have|been|be|an?|any|the|your|our|new|incoming|this|that"
    r"|and|for|from|on|to|in|of|still|please|currently|now|just|yet|try|again|later|soon|number|phone|provider"
    r"|upstream|operator|verification|receiv(?:e|ed|ing)|arriv(?:e|ed|ing)|come|available|found)"
)
_NO_SMS = re.compile(
    rf"(?=.*\b(?:{_SMS}|wait(?:ing)?|await(?:ing)?|yet|received|arrived)\b)"
    rf"(?:(?:{_FILLING}|{_SMS}) )*{_NOT_YET}(?: (?:{_FILLING}|{_SMS}|{_NOT_YET}))*"
    rf"|(?:{_FILLING} )*ready to receive {_SMS}"
)
# Whole sentences of the service about an order, with # for a date, a time, an amount or a length.
_ITS_ORDER = r"(?:(?:the |your |this )?(?:order|rental|(?:phone )?number) )"
_OWN_SENTENCE = re.compile(
    rf"ok|success(?:ful(?:ly)?)?|queued|searching|hold on|{_SMS} (?:is )?pending"
    rf"|{_ITS_ORDER}?(?:is )?(?:now )?(?:active|in use|in queue)"
    r"|(?:the |your |this )?(?:phone )?number (?:is )?(?:now )?ready"
    rf"|{_ITS_ORDER}?status (?:has been |was )?(?:retrieved|fetched|found)(?: successfully)?"
    rf"|{_ITS_ORDER}?(?:is )?(?:active|valid|expires|ends) (?:until|till|for|in|at|on) #"
    rf"|(?:time |days |hours )?(?:left|remaining) #|# (?:left|remaining)"
)
# Words of a protocol that many such services speak: nothing yet, and what stands before a code.
_STATUS_NOTHING = re.compile(r"STATUS_(?:WAIT|CANCEL)\w*(?::.*)?", re.IGNORECASE)
_STATUS_CODE = re.compile(r"\ASTATUS_OK:\s*", re.IGNORECASE)
_WITHOUT_SMS = re.compile(r"pending\Z|cancel|refund|error|fail|expire|timeout|timed")
_MAY_BE_CODE = re.compile(r"[0-9]{3,}|[0-9]+(?:[ -][0-9]+)+")
# Numbers of the service's own words: dates and times, numbered errors and attempts, amounts and lengths.
_IS_NO_CODE = re.compile(
    r"(?<![0-9])(?:(?:19|20)[0-9]{2}-[0-9]{1,2}-[0-9]{1,2}(?![0-9])"
    r"|[0-9]{1,2}[./][0-9]{1,2}[./](?:19|20)?[0-9]{2}(?![0-9])"
    r"|[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(?![0-9])"
    r"|\b(?:error|http|status|attempt|try)(?:\s+code)?[\s:#]{0,3}[0-9]{1,4}(?![0-9])"
    r"|(?:\$|€|£|\bUSD|\bEUR)\s?[0-9]{1,9}(?:[.,][0-9]{1,9})?(?![0-9])"
    r"|[0-9]{1,9}(?:[.,][0-9]{1,9})?\s?(?:\$|€|£|%|(?:USD|EUR|s|secs?|seconds?|mins?|minutes?|hours?|days?)\b))",
    re.IGNORECASE,
)
# A pending rental may get an SMS with such numbers, so these words have to be there too, or begin the text.
_OF_THE_SERVICE = re.compile(
    r"\b(?:wait(?:s|ing)?|await(?:s|ing)?|pending|queued?|processing|yet)\b"
    r"|\A\W*(?:order|number|price|charged|expires|cancell?ed|upstream)\b",
    re.IGNORECASE,
)
# An SMS may be an object, as in a callback, and so may a code.
_NAMES_OF_TEXT = ("sms", "text", "message", "body")
# What such a code may be instead, where no text says that it is one.
_STATE = re.compile(r"[1-5][0-9]{2}")
_SHORTEST_PHONE = 7  # digits, without the country's
_DATE = re.compile(r"(?:19|20)[0-9]{2}-[0-9]{1,2}-[0-9]{1,2}")
# One piece: a code as it is, however long the service's are, perhaps with marks around it.
_PIECE = re.compile(r"[\W_]*(?P<code>(?=[A-Za-z-]*[0-9])[A-Za-z0-9]+(?:[ -][A-Za-z0-9]+){0,5})[\W_]*")
_FLOAT = re.compile(r"([0-9]{1,12})\.0{1,20}")
_LETTERS = re.compile(r"[A-Za-z]{4,12}")
_NO_WORD = re.compile(r"[B-DF-HJ-NP-TV-XZ]{5,8}")  # a word has a vowel, and this is in capitals
_SHORTEST, _LONGEST = 3, 12
_TOO_LARGE = 10**15


def read_fields(
    otp: Any,
    message: Any,
    *,
    status: Any = None,
    phone: Any = None,
    order_id: int | None = None,
    needs_code: bool = False,
) -> tuple[str | None, str | None]:
    """Code and text of a status.

    Args:
        otp, message: as the service gives them, of any type.
        status: of the order. Only a completed order shows that a word is an SMS. What is pending, has
            failed or has ended otherwise, has none without a code: such a text may be the service's own. Of
            any other, a text is an SMS unless it is a sentence that only the service says.
        phone, order_id: the order's own numbers, which are no code.
        needs_code: a text without a code is the service's own, whatever the status.

    Returns:
        The code, which may have been read from a sentence, and the text; `None` for what is not there.
    """
    word = known_status(status) or str(status).strip().lower()
    digits = phone_digits(_as_text(phone))
    own = _own_numbers(digits, order_id)
    code, text = _read(otp, message, digits, own, may_be_word=word == "completed")
    if code is not None or text is None:
        return code, text
    if word != "completed" and _is_own_sentence(text, own):
        return None, None
    if needs_code:
        is_sms = _code_in(text, own) is not None
    else:
        is_sms = not _WITHOUT_SMS.match(word) or _may_hold_code(text, own, is_pending=word == "pending")
    return None, text if is_sms else None


def code_of_text(text: str, *, phone: Any, order_id: int) -> str | None:
    """The code in the text of an order. The order's own numbers are no code."""
    return _code_in(text, _own_numbers(phone_digits(_as_text(phone)), order_id))


def _code_in(text: str, own: re.Pattern[str]) -> str | None:
    return extract_otp(own.sub("…", text))


def _own_numbers(digits: str | None, order_id: int | None) -> re.Pattern[str]:
    """Finds the order's phone, with or without its country's code, and its id."""
    phones = [digits[start:] for start in range(4)] if digits else []
    numbers = [phone for phone in phones if len(phone) >= _SHORTEST_PHONE]
    numbers += [] if order_id is None else [str(order_id)]
    written = "|".join(r"[\s().-]{0,2}".join(number) for number in numbers)
    return re.compile(rf"(?<![0-9])(?:\+|00?)?(?:{written})(?![0-9])" if numbers else "(?!)")


def _read(
    otp: Any, message: Any, phone: str | None, own: re.Pattern[str], *, may_be_word: bool
) -> tuple[str | None, str | None]:
    # Of several SMS, the last one.
    message = message[-1:] if isinstance(message, list) else message
    text = _as_text(_under(_NAMES_OF_TEXT, message))
    if text is not None and _is_nothing(text, _NOTHING, own):
        text = None
    given = _as_text(otp, text) if _object(otp) is None else _given(otp, text, is_message=False)
    if given is None:
        given = _given(message, text, is_message=True)
    if given is None or _is_nothing(given, _NO_CODE, own):
        return None, text
    plain = visible(given) if len(given) <= LONGEST_SMS else ""
    piece = _PIECE.fullmatch(plain)
    if piece is not None and (code := _as_code(piece["code"])) is not None:
        is_phone = code.isdigit() and len(code) >= 7 and phone_digits(code) == phone
        return (None, text) if is_phone else (code, text)
    if _LETTERS.fullmatch(plain):
        # A word. It is the code where the text has it, or where it cannot be a word of any language.
        is_in_text = text is not None and re.search(rf"\b{plain}\b", text) is not None
        if is_in_text or _NO_WORD.fullmatch(plain):
            return plain, text
    elif (code := _code_in(given, own)) is not None:
        return code, text or given
    is_sms = may_be_word or _MAY_BE_CODE.search(plain) is not None
    return None, text or (given if is_sms else None)


def _under(names: Sequence[str], value: Any) -> Any:
    """What an object has under the first of some names that says anything; what is no object, as it is."""
    inner = _object(value)
    if inner is None:
        return value
    if isinstance(inner, Contradiction):
        return None
    return next((inner[name] for name in names if inner.get(name) not in (None, "")), None)


def _given(value: Any, text: str | None, *, is_message: bool) -> str | None:
    """The code that an object gives: under `otp`, under `code`, or in its text where it stands for a code.

    A `code` may be the number of a state or of an error. So the object's own text has to have it, if there is
    one, and there has to be one where the object stands for a message.
    """
    inner = _object(value)
    if inner is None or isinstance(inner, Contradiction):
        return None
    own = _as_text(_under(_NAMES_OF_TEXT, value))
    otp, code = (_as_text(inner.get(name), own or text) for name in ("otp", "code"))
    if otp is not None:
        return otp
    if code is not None and (_has(own, code) if own else not is_message and not _STATE.fullmatch(code)):
        return code
    return None if is_message else own


def _has(text: str, code: str) -> bool:
    """Whether a text has a code by itself, perhaps in groups."""
    written = r"[\s.-]?".join(re.escape(sign) for sign in re.findall(r"[^\W_]", visible(code)))
    found = rf"(?<![0-9A-Za-z]){written}(?![0-9A-Za-z])"
    is_code = written != "" and len(code) <= LONGEST_SMS
    return is_code and re.search(found, visible(text[:LONGEST_SMS])) is not None


def _object(value: Any) -> Mapping[str, Any] | None:
    """A value, or the only one of a list, where it is an object."""
    inner = value[0] if isinstance(value, list) and len(value) == 1 else value
    return inner if isinstance(inner, Mapping) else None


def _as_text(value: Any, message: str | None = None) -> str | None:
    """A value, or the only one of a list, as text. A number loses the fraction of a float, and gets back the
    zeros that it has lost."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, (float, Decimal)):
        is_whole = 0 <= value < _TOO_LARGE and value == int(value)
        return _with_zeros(int(value), message) if is_whole else None
    if isinstance(value, int) and not isinstance(value, bool):
        return _with_zeros(value, message) if 0 <= value < _TOO_LARGE else None
    if not isinstance(value, str):
        return None
    # A text that was cut inside an emoji holds half of it. No database takes that, nor a NUL.
    text = value.replace("\0", "").encode("utf-8", "replace").decode().strip()
    if _STATUS_NOTHING.fullmatch(text):
        return None
    text = _STATUS_CODE.sub("", text)
    number = _FLOAT.fullmatch(text)
    return number[1] if number else text or None


def _with_zeros(number: int, message: str | None) -> str:
    """The number as the text has it: what the text calls the code, before another number that is alike."""
    code = extract_otp(message) if message else None
    if code is not None and code.isdigit() and int(code) == number:
        return code
    return with_leading_zeros(number, message)


def _is_nothing(text: str, words_for_it: frozenset[str], own: re.Pattern[str]) -> bool:
    if len(text) > LONGEST_SMS:
        return False
    words = " ".join(re.findall(r"[^\W_]+", text.casefold()))
    has_none = (not words and text.isascii()) or set(text) <= set("…–—- .")
    if has_none or (words != "" and words in words_for_it):
        return True
    rest = own.sub("…", text)
    return _WAITING.fullmatch(rest) is not None or _NO_SMS.fullmatch(_words(rest)) is not None


def _is_own_sentence(text: str, own: re.Pattern[str]) -> bool:
    """Whether a text is a sentence that the service says about an order itself."""
    if len(text) > LONGEST_SMS:
        return False
    plain = _words(_IS_NO_CODE.sub(" # ", own.sub("…", text)))
    return _OWN_SENTENCE.fullmatch(re.sub("#(?: (?:t )?#)*(?: z)?", "#", plain)) is not None


def _words(text: str) -> str:
    """The words of a text in small letters, and each #, with one space between them."""
    return " ".join(re.findall(r"[^\W_]+|#", text.casefold()))


def _may_hold_code(text: str, own: re.Pattern[str], *, is_pending: bool) -> bool:
    """Whether a text of an order that has no SMS by its status is one all the same."""
    if _code_in(text, own) is not None:
        return True
    rest = own.sub("…", visible(text[:LONGEST_SMS]))
    if _WAITING.match(rest):
        return False
    if not is_pending or _OF_THE_SERVICE.search(rest):
        rest = _IS_NO_CODE.sub("…", rest)
    return _MAY_BE_CODE.search(rest) is not None


def _as_code(piece: str) -> str | None:
    groups = re.split("[ -]", piece)
    is_one = all(group.isdigit() for group in groups) or " " not in piece
    is_long_enough = _SHORTEST <= len("".join(groups)) <= _LONGEST
    return piece if is_one and is_long_enough and not _DATE.fullmatch(piece) else None
