"""Which regular expressions are taken: those that are compiled in no time."""

from __future__ import annotations

import time

import pytest

from smsverify._input.patterns import as_pattern
from smsverify.errors import InvalidRequestError


@pytest.mark.parametrize(
    "source",
    [
        "(?:(?:a{2}){2}){9999999}",
        "a{9999999}",
        "(?:a|b){200000,}",
        "(?:(?:(?:a{50}){50}){50}b){50}",
        "[](]{2}(?:[)]a{3000}){3000,4000}",
        "((((((((((a))))))))))",
    ],
)
def test_what_would_be_compiled_for_long_is_refused_at_once(source: str) -> None:
    began = time.process_time()
    with pytest.raises(InvalidRequestError) as caught:
        as_pattern(source)
    assert caught.value.field == "pattern"
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("source", "text", "code"),
    [
        (r"([0-9]{3}-?[0-9]{3})\b.{0,4000}", "Your code is 482-913", "482-913"),
        ("(?:[A-Z0-9]{4}-){3}[A-Z0-9]{4}", "It is A1B2-C3D4-E5F6-G7H8.", "A1B2-C3D4-E5F6-G7H8"),
        (r"\{99999999\}=(\d+)", "{99999999}=4711", "4711"),
        ("[{99999999}]+x", "99x", "99x"),
        ("(?:a?){0,9999999}(4711)", "aa4711", "4711"),
        ("(((((((([0-9]{4}))))))))", "4711", "4711"),
        ("a{2}b{2}c{2}(?:d{2}|e{2}){2}" * 9 + "|(4711)", "4711", "4711"),
    ],
)
def test_what_people_write_is_taken(source: str, text: str, code: str) -> None:
    assert as_pattern(source).find(text) == code
