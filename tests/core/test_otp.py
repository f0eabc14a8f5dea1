"""Reading the code out of a message. `otp_messages.jsonl` has the messages: language, code or null, text."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smsverify.otp import extract_otp

LINES = Path(__file__).with_name("otp_messages.jsonl").read_text(encoding="utf-8").splitlines()
MESSAGES: list[tuple[str, str | None, str]] = [tuple(json.loads(line)) for line in LINES]
WITH_CODE = [(code, text) for _, code, text in MESSAGES if code is not None]
# Left out: a code that stands there a second time in another form, 293-847 beside a link with 293847.
NUMERIC = [
    (code, text)
    for code, text in WITH_CODE
    if code.isdigit()
    and code in text
    and code not in re.sub(r"(?<=\d)[ -](?=\d)", "", text.replace(code, ""))
]
# A number that stands for what the code is for, or is a part of its name: "TAN 123 is 482913".
NAMES_ANOTHER = r"\d{{3}}\D{{1,12}}{code}|{code}\D*[:：] ?\d{{4}}"
# Messages that a person can read and the reader cannot. It must not guess.
BEYOND_IT = [
    "You requested 3 codes. The latest is 304918. Earlier codes no longer work. Verification team",
    "Hello Anna! For verification please tell the courier 7720",
    "Online shopping code VISA *4417 551903 ACME 49,90 EUR",
    "Absa: RVN 7708 for R1250.00 to beneficiary. Call 0860 557 557 if not you",
    "登录验证 660318 ，请勿告诉别人",
    "Your code is QWERTY",
    "Your code is ABCD12",
    "Your code is WRITTEN",
    "User 482913, your code is on its way. The other is 771204, pick one.",
]


def test_the_messages_are_many_and_of_many_languages() -> None:
    assert len(WITH_CODE) >= 230
    assert len({language.partition("-")[0] for language, code, _ in MESSAGES if code}) >= 25
    assert len(MESSAGES) - len(WITH_CODE) >= 50
    assert len({text for _, _, text in MESSAGES}) == len(MESSAGES)


@pytest.mark.parametrize("part", range(4))
def test_every_message_gives_its_code_or_none(part: int) -> None:
    messages = MESSAGES[part::4]
    wrong = [(code, found, text) for _, code, text in messages if (found := extract_otp(text)) != code]
    assert wrong == []


@pytest.mark.parametrize("text", BEYOND_IT)
def test_what_it_cannot_read_gives_none_rather_than_a_guess(text: str) -> None:
    assert extract_otp(text) is None


@pytest.mark.slow
@pytest.mark.parametrize("instead", ["", "in the app"])
def test_without_its_code_a_message_gives_none(instead: str) -> None:
    # Left out: a sender's name that is a number, and what names another number: that would be left.
    texts = [
        text.replace(code, instead)
        for code, text in NUMERIC
        if "12306" not in text and not re.search(NAMES_ANOTHER.format(code=code), text)
    ]
    assert len(texts) > 650
    assert [(found, text) for text in texts if (found := extract_otp(text)) is not None] == []


@pytest.mark.parametrize(
    "other",
    [
        "Ref 88120.",
        "Order #771204.",
        "Valid till 12/05/2026 14:30.",
        pytest.param("Call 0800 482 917.", marks=pytest.mark.slow),
        pytest.param("(c) 2026 Foo Ltd.", marks=pytest.mark.slow),
        pytest.param("Reply STOP to 12345.", marks=pytest.mark.slow),
        pytest.param("You pay USD 49.99 with card *4417.", marks=pytest.mark.slow),
        pytest.param("https://foo.example/88120", marks=pytest.mark.slow),
    ],
)
def test_other_numbers_beside_it_never_become_the_code(other: str) -> None:
    alone = [(code, text) for code, text in WITH_CODE[::8] if "@" not in text]
    after = [(code, extract_otp(f"{text.rstrip('.')}. {other}")) for code, text in alone]
    before = [(code, extract_otp(f"{other}\n{text}")) for code, text in alone]
    assert [pair for pair in after + before if pair[1] not in (pair[0], None)] == []
    assert sum(pair[1] is None for pair in after + before) < len(after + before) * 0.03


@pytest.mark.slow
@pytest.mark.parametrize("zero", "٠۰०০๐０𝟎", ids=lambda zero: unicodedata.name(zero).replace(" ", "-"))
def test_digits_of_every_script_are_read_and_come_back_as_ascii(zero: str) -> None:
    digits = {ord("0") + value: chr(ord(zero) + value) for value in range(10)}
    plain = [(code, text) for code, text in NUMERIC[::4] if "http" not in text and "@" not in text]
    assert [text for code, text in plain if extract_otp(text.translate(digits)) != code] == []


@settings(deadline=None)
@given(st.sampled_from(NUMERIC), st.sampled_from("\u200b\u200e\u200f\u202b\u202c\u2068\u2069\u061c\ufeff"))
def test_invisible_marks_in_and_around_the_code_change_nothing(message: tuple[str, str], mark: str) -> None:
    code, text = message
    assert extract_otp(text.replace(code, mark + mark.join(code) + mark)) == code


@settings(deadline=None)
@given(st.sampled_from(NUMERIC), st.integers(1, 3))
def test_leading_zeros_stay(message: tuple[str, str], zeros: int) -> None:
    code, text = message
    with_zeros = "0" * zeros + code[zeros:]
    assert extract_otp(text.replace(code, with_zeros)) == with_zeros


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Your code: 123-456", "123456"),
        ("Your code: 12 34 56", "123456"),
        ("Your code: 1 2 3 4", "1234"),
        ("Your code: 481 2077", "4812077"),
        ("4812 077 is your code", "4812077"),
        ("Your code: 4412 88", None),  # and no part of it
        ("29384 7 is your code", None),
        ("Your code: 48213 08001234567", "48213"),
        ("Your code: 482910 5550123", "482910"),
        ("12306 482910 is your code", "482910"),
        ("482910 2 factor code", "482910"),
        ("Your code is 482910 1 800 258 6161", "482910"),
        ("7788 code 482910 1234", "482910"),
        ("7788 code 4412 88", None),  # and not another number
        ("Your code: 448_120", None),
        ("Your code: 448·120", None),
        ("Your code: 4481...20", None),
        ("Your code: id_448120", None),
        ("Your code: otp_448120", "448120"),
        ("Your code: %20548921", None),
        ("Your code: &#53;48921", None),
        ("Your code is 10.0.0.1:8080", None),
        ("Код: АВ4412", None),  # Cyrillic letters
        ("Код4412", "4412"),
        ("Code 250.000d", None),
        ("COD 125000", None),  # cash on delivery
        ("COD DE VERIFICARE 125000", "125000"),
        ("Your code: 123", "123"),
        ("Your code: 1234567890", "1234567890"),
        ("Your code: 12", None),
        ("Your code: 12345678901", None),
        ("XY-12345 is your code", "12345"),
        ("Code 48213, again: 48213", "48213"),
        ("Code: 48213. Code: 55012.", None),
        ("Codes: 48213, 55012", None),
        ("Code: 48213 or 55012", None),
        ("Code: 48213\n55012", None),
        ("Your old code 48213 has expired. Your new code is 55012", "55012"),
        ("The code for your account 4417 is 48213", "48213"),
        ("The code for docket: 4417 is 48213", "48213"),
        ("The code for docket: 4417 is", None),  # cut off
        ("The code for docket: 4417 blir 48213", None),  # a verb that it does not know
        ("The code for docket: 4417 - 48213", None),
        ("The code for docket: 4417\n48213", None),
        ("The code for docket: 4417.\n\n48213", None),
        ("The code for Foo: 48213", "48213"),
        ("The code for Foo: 48213 (attempt 4417)", "48213"),
        ("Code: 48213: 4417", "48213"),
        ("The code is 48213: 4417", "48213"),
        ("Code: WRITTEN. Booth 4417", None),  # the code cannot be read, and another number is none
        ("Your verification code is ABCD12. #4417", None),
        ("Your code: 662.031 (4417)", None),
        ("Reply 1 to 62031 Your code: 662.031", None),
        ("Your code: https://foo.example/x1 or enter 4417", "4417"),
        ("Code: 48213 - order code 4417", "48213"),
        ("Your PIN is 48213 for the code 4417", "48213"),
        ("Your code is A7K", "A7K"),
        ("Your code is 2ND", None),
        ("48213 - order code", None),
        ("<b>48213</b> is your code", "48213"),
        ("<p>Code for Foo: <span class='x'>48213</span></p>", "48213"),
        ("TAN 4417: 48213", "48213"),
        ("TAN 4417 - 48213", None),
        ("TAN no. 4417 - 48213", "48213"),
        ("4417: 48213 is your code", "48213"),
        ("Your code (area code 4417) is 48213", "48213"),
        ("Your code (PIN: 48213) is valid for docket: 4417", "48213"),
        ("Your code for airport code FOO12 is 48213", "48213"),
        ("Your airport code FOO12 is 48213", None),
        ("验证码48213", "48213"),
        ("48213是你的验证码", "48213"),
        ("Sign in.\n\n@example.com #48213", "48213"),
        ("Code 55012\n\n@example.com #48213 @frame.example", "48213"),
        ("Write to us @example.com", None),
        ("48213", "48213"),
        ("[Foo] 48213", "48213"),
        ("2026", None),
        ("Your code is A7K2Q9", "A7K2Q9"),
        ("Your code is A7K2Ø9", None),  # and not A7K2O9
        ("Your code is A7K2É9", None),
        ("Your code is Ａ７Ｋ２Ｑ９", "A7K2Q9"),  # full width
        ("Your code is A7K\u20112Q9", "A7K-2Q9"),
        ("Your code is X3GB4821", "X3GB4821"),  # and not what follows a unit, a currency, a time in it
        ("Your code is K8HF6AM", "K8HF6AM"),
        ("Your code is RM9A9PY", "RM9A9PY"),
        ("Your code is 9MIN4T", "9MIN4T"),
        ("Your code is 4NAP-D3JQ", "4NAP-D3JQ"),
        ("Your code is 7KD-92M", "7KD-92M"),
        ("Your code is 3GB-4821", None),
        ("Your code is A4821-3GB", None),
        ("Your code is TRX25MIN4418", None),
        ("Your code is valid for: 1h30m", None),
        ("Your code is valid: 9am-6pm", None),
        ("Your code is for: 12nov26", None),
        ("Your code is for: 14h22", None),
        ("Your code is for: Rs500only", None),
        ("Your code is for card: xx44-17xx", None),
        ("Your code is 738-YPH", "738-YPH"),
        ("GGC-575 is your code", "GGC-575"),
        ("Your code is 50035e", "50035e"),
        ("50035e is your code", "50035e"),
        ("662031 er din engangskode", "662031"),  # the last word is no hash
        ("662031 ist Ihr Zugangscode", "662031"),
        ("662031 är din KONTROLLKOD", "662031"),
        ("Your code is\nAbCdEfGhIjK", None),
        ("Your code for Foo 48213 AbCdEfGhIjK", "48213"),
        ("code code0Ø", None),
        ("", None),
    ],
)
def test_forms_and_ties(text: str, code: str | None) -> None:
    assert extract_otp(text) == code


@pytest.mark.parametrize(
    ("text", "pattern", "code"),
    [
        ("Code 48213, room 4012", r"room (\d+)", "4012"),
        ("Code 48213, room 4012", re.compile(r"ROOM \d+", re.IGNORECASE), "room 4012"),
        ("Code 48213", r"PIN (\d+)", None),
        ("Code 48213", r"(PIN)?\d+", None),
        ("Code 48213", r"(?:Code|PIN) (\d+)", "48213"),
        ("Code \u2068٤٨\u200b٢١٣\u2069", r"Code ([0-9]{5})", "48213"),
        ("Código: abc-12/z", r"Código: (\S+)", "abc-12/z"),
    ],
)
def test_the_callers_pattern_wins(text: str, pattern: str | re.Pattern[str], code: str | None) -> None:
    assert extract_otp(text, pattern=pattern) == code


WORDS = ["code", "OTP", "is", "your", "код", "验证码", "是", "รหัส", "رمز", "order", "call", "use", "verify"]
MARKS = [*" .,:;-()[]<#>@*?\n\x00%€/x", "【", "】", "\u200f", "https://", "a.example/"]
NUMBERS = st.from_regex(r"[0-9]{1,12}|[A-Z0-9]{5}|[0-9]{3}[ -][0-9]{3}|[0-9]{2}[:.][0-9]{2}", fullmatch=True)
PIECES = st.one_of(st.sampled_from(WORDS), st.sampled_from(MARKS), st.just(" "), NUMBERS, st.text(max_size=4))


@settings(deadline=None)
@given(st.lists(PIECES, max_size=40).map("".join))
def test_any_text_gives_what_stands_in_it_or_none(text: str) -> None:
    code = extract_otp(text)
    if code is not None:
        visible = "".join(char for char in text if unicodedata.category(char) != "Cf")
        plain = unicodedata.normalize("NFKC", visible)
        ascii_digits = "".join(str(unicodedata.decimal(char, char)) for char in plain)
        assert re.sub("[^A-Za-z0-9]", "", code) in re.sub("[^A-Za-z0-9]", "", ascii_digits)
        assert re.fullmatch("[A-Za-z0-9-]{3,12}", code)
        assert re.search("[0-9]", code) or not re.search("[AEIOUYa-z]", code)


BAIT = [
    "1 234 ",
    "[a:] 1234 ",
    "code 1234 ",
    "verify ",
    "1234\n",
    "a-1-",
    "[]",
    "@a.bc #1 ",
    "12345 or ",
    "9",
]


def calls_to_read(text: str) -> int:
    """How many functions, C functions among them, are called to read a text."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        extract_otp(text)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("bait", BAIT)
def test_four_times_the_text_is_four_times_the_work(bait: str) -> None:
    extract_otp(bait)
    assert calls_to_read((bait * 4_000)[:4_000]) < 4.5 * calls_to_read((bait * 1_000)[:1_000])


def test_a_long_hostile_text_comes_to_an_end() -> None:
    # An expression that tries every way to split its text would not end within the suite's time limit.
    assert extract_otp("\n".join((bait * 10_000)[:10_000] for bait in BAIT)) is None


def test_a_text_of_nothing_but_numbers_is_not_worth_the_work() -> None:
    listed = " ".join(f"Code: 48213 room {room}." for room in range(1000, 1100))
    assert extract_otp(listed[: len(listed) // 4]) == "48213"
    assert extract_otp(listed) is None


@pytest.mark.parametrize("bait", [*BAIT, "x", "a a ", "код ", "a.", "1-", "\u0660", "https://", "+1 ", "( "])
@pytest.mark.parametrize("length", [10_000, 1_000_000])
def test_what_is_too_long_for_an_sms_is_not_read_at_all(bait: str, length: int) -> None:
    assert calls_to_read((bait * length)[:length]) < 50
