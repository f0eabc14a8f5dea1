"""What becomes of text from outside before anybody sees it."""

from __future__ import annotations

import ast
import logging
import random
import re
import sys
import unicodedata
from decimal import Decimal
from pathlib import Path

import pytest

from smsverify.errors import SmsVerifyError
from smsverify.text import LONGEST, amount, log_of, masked, printable

ROOT = Path(__file__).parents[2]
HARMFUL = ["\n", "\r", "\0", "\x1b[31m", "\x7f", "\x9b", "\x85", "\u2028", "\u2029", "\u202e", "\u2066"]
HARMFUL += ["\u200b", "\u200f", "\ufeff", "\u00ad", "\ud83d", "\U000e0041"]


@pytest.mark.parametrize("harmful", HARMFUL)
def test_nothing_begins_a_line_or_acts_on_a_terminal(harmful: str) -> None:
    for shown in (printable(f"a{harmful}b"), masked(f"a{harmful}b")):
        assert shown.isprintable()
        assert (shown[0], shown[-1]) == ("a", "b")


CODES = [
    "482913",
    "482 913",
    "482-913",
    "4 8 2 9 1 3",
    "4\u200b8\u200b2\u200b9",
    "482\u00a0913",
    "4\x008\x002",
]
CODES += ["G-482913", "A7K2Q9", "a7k2q9", "A7K-2Q9", "ABC-DE1", "BKJPQ", "٤٨٢٩١٣", "４８２", "SIM-1234567890"]
CODES += ["LPA:1$smdp.example$ABCDEF", "4829\n13", "验证码482913"]


@pytest.mark.parametrize("code", CODES)
def test_a_code_in_any_shape_cannot_be_read(code: str) -> None:
    shown = masked(f"Your code: {code} is secret")
    assert "***" in shown
    assert (shown.startswith("Your code: "), shown.endswith(" is secret")) == (True, True)
    for part in re.findall(r"\w{4,}", code):
        assert part not in shown


@pytest.mark.parametrize(
    "words",
    [
        "Insufficient balance",
        "Rate limit exceeded. Maximum 60 requests per minute.",
        "duration must be 3 or 30",
        "service_id is required",
        "rent-30days: not available, 0.40 USD, USA 5GB / 30 days (UK)",
        "Недостаточно средств на счёте",
        "余额不足",
    ],
)
def test_words_can_still_be_read(words: str) -> None:
    assert masked(words) == printable(words) == words


@pytest.mark.slow
def test_whatever_comes_is_shown_on_one_short_line_without_a_code() -> None:
    chance = random.Random(7)
    alphabet = [*"aZé中0123456789٤४ -_.$", *HARMFUL]
    for _ in range(3000):
        text = "".join(chance.choices(alphabet, k=chance.randrange(60)))
        for shown in (printable(text), masked(text)):
            assert shown.isprintable()
            shown.encode("utf-8")
        assert not re.search(r"\d{3}", masked(text))
    for char in map(chr, range(sys.maxunicode + 1)):
        if unicodedata.category(char)[0] in "CZ":
            assert printable(char).isprintable()
            assert masked(char).isprintable()


@pytest.mark.parametrize("text", ["x" * 10**6, "1a" * 10**6, "A-" * 10**6, "AB-" * 10**6, "1 " * 10**6])
def test_a_long_text_is_cut_and_its_end_shows_no_half_of_a_code(text: str) -> None:
    assert len(printable(text)) <= LONGEST
    assert len(masked(text)) <= LONGEST
    assert not re.search(r"\d{3}", masked("x" * (LONGEST - 5) + " 482913" * 9))


def test_an_error_is_one_line_whatever_it_quotes() -> None:
    error = SmsVerifyError("refused: no\n2026-01-01 INFO all is well\x1b[2J")
    assert str(error) == "refused: no 2026-01-01 INFO all is well\\x1b[2J"
    assert "\n" not in repr(error)


def test_what_a_log_quotes_forges_no_line(caplog: pytest.LogCaptureFixture) -> None:
    log = log_of("smsverify.test_text")
    log_of("smsverify.test_text")
    with caplog.at_level(logging.INFO):
        log.info("%s (%d, %r): %s", "WhatsApp\nINFO forged", 7, "a\nb", ValueError("no\x1b[31m"))
        log.info("nothing is quoted")
    assert caplog.messages == ["WhatsApp INFO forged (7, 'a b'): no\\x1b[31m", "nothing is quoted"]


def test_every_log_of_ours_escapes_what_it_quotes() -> None:
    sources = [*(ROOT / "core").rglob("*.py"), *(ROOT / "provider").rglob("*.py")]
    sources += (ROOT / "prefect_tasks" / "prefect_smsverify").rglob("*.py")
    for path in sources:
        if "simulator" in path.parts or path.name == "text.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node) == "logging.getLogger(__name__)":
                pytest.fail(f"{path}:{node.lineno} makes a log that does not escape; log_of makes one")


@pytest.mark.parametrize(
    ("usd", "shown"),
    [("0.4", "0.40"), ("12", "12.00"), ("1.2E+2", "120.00"), ("0.005", "0.005"), ("-0.4", "-0.40")],
)
def test_an_amount_has_its_cents_and_no_fraction_of_them_is_rounded_away(usd: str, shown: str) -> None:
    assert amount(Decimal(usd)) == shown
