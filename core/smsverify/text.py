"""Text from outside (the service, an SMS, a name, a setting) on its way into a log, an error or a terminal.

Nothing of it may begin a line, act on a terminal or turn the direction of what stands beside it, and a code
may not be readable in it. Errors and the core's logs escape by themselves (`SmsVerifyError`, `log_of`). A
caller that quotes what the service has written masks it too.
"""

from __future__ import annotations

import contextlib
import logging
import re
import unicodedata
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

LONGEST_SMS = 4000  # characters; what is longer is no SMS, and nothing is read out of it
LONGEST = 500  # characters of one text that are shown
LONGEST_WORD = 100  # of a name, a number or a time: what is longer may be an SMS

_WORDS = (int, float, Decimal, date, timedelta)
_CONTAINERS = (list, tuple, dict, set, frozenset, bytes)  # shown where nothing is in them

# Between the digits of a code may stand what looks like nothing or like a gap.
_GAP = r"[^\w\x21-\x2c\x2e-\x7e]{0,3}"
_CODE = re.compile(
    r"(?i:\bLPA:\S+)"
    # A7K-2Q9, also where one part has letters only.
    r"|(?<![\w-])(?=[A-Z0-9-]{5})(?=[A-Z-]*[0-9])(?=[0-9-]*[A-Z])[A-Z0-9]+(?:-[A-Z0-9]+)+\b"
    # A7K2Q9, not a number with its unit such as 30days.
    r"|(?<![A-Za-z0-9_])(?![0-9]{1,2}[a-z]+\b)(?=[A-Za-z_]*[0-9])(?=[0-9_]*[A-Za-z])[A-Za-z0-9_]{4,}"
    # Letters that cannot be a word.
    r"|\b[B-DF-HJ-NP-TV-XZ]{5,8}\b"
    rf"|\d(?:{_GAP}\d){{2,}}"
)


def printable(text: object, longest: int = LONGEST) -> str:
    """The text on one line, with everything escaped that a terminal or a log would act on.

    Args:
        text: a text, or what is written as one, such as an exception.
        longest: characters after which it is cut.
    """
    begin = str(text)[: longest + 1]
    return _cut(begin if begin.isprintable() else "".join(map(_escaped, begin)), longest)


def masked(text: object, longest: int = LONGEST) -> str:
    """The text on one line, without all that may be a code, and with `?` for what a terminal would act on.

    Args:
        text: a text, or what is written as one, such as an exception.
        longest: characters after which it is cut.
    """
    # Not cut before: the rest of a code that was cut in two would have no shape.
    without_codes = _CODE.sub("***", str(text)[: 100 * longest])
    # An escape would have digits of its own.
    return _cut("".join(char if char.isprintable() else _blank(char, "?") for char in without_codes), longest)


def shown(value: object) -> str:
    """What a caller has given, for an error. A result, or the text of one, may hold a code: it is hidden."""
    if isinstance(value, str):
        text = str.__str__(value)
        is_plain = len(text) <= LONGEST_WORD and not any(char in "{[(\n" for char in text)
        return repr(text) if is_plain else repr(masked(text))
    # Such as a number with thousands of digits, which Python does not write.
    with contextlib.suppress(Exception):
        if value is None or isinstance(value, _WORDS) or (isinstance(value, _CONTAINERS) and not len(value)):
            return _cut(repr(value), LONGEST_WORD)
    return f"({type(value).__name__})"


def amount(usd: Decimal) -> str:
    """An amount of USD with its cents, and with the fractions of them that it has."""
    cents = f"{usd:.2f}"
    return cents if Decimal(cents) == usd else f"{usd:f}"


def usd(given: Decimal | None, unknown: str = "an unknown price") -> str:
    """An amount with its currency, such as `0.40 USD`; other words where it is not known."""
    return unknown if given is None else f"{amount(given)} USD"


def visible(text: str) -> str:
    """Drops bidi marks and whatever else has no width; makes the digits of every script ASCII."""
    return "".join(
        str(unicodedata.decimal(char)) if char.isdecimal() else char
        for char in text
        if unicodedata.category(char) != "Cf"
    )


def log_of(name: str) -> logging.Logger:
    """The log of a module; what it is given to quote is escaped. People see `smsverify.waiting.poller`."""
    log = logging.getLogger(name.replace("._", "."))
    log.addFilter(_escape_arguments)
    return log


def _escape_arguments(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(_quoted(argument) for argument in record.args)
    return True


def _quoted(argument: Any) -> Any:
    return printable(argument) if isinstance(argument, (str, BaseException)) else argument


def _escaped(char: str) -> str:
    return char if char.isprintable() else _blank(char, char.encode("unicode_escape").decode())


def _blank(char: str, otherwise: str) -> str:
    return " " if char.isspace() else otherwise


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
