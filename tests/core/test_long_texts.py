"""Whatever comes from outside is read in a time that grows with its length, not with the square of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from smsverify._input.templates import is_left_over
from smsverify._input.times import as_datetime
from smsverify._purchases.matching import _plain
from smsverify._service.answers import Answer, as_error, redacted_excerpt
from smsverify._service.codes import read_fields
from smsverify._service.wire import _reason
from smsverify.models import as_amount, with_leading_zeros
from smsverify.text import masked

LONG = 60_000  # characters


def error_of(text: str) -> Any:
    return as_error(Answer(400, {}, json.dumps({"error": text}), "POST /x", "key"))


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (error_of, "insufficient" + "_" * LONG),
        (error_of, "not enough" + " a" * LONG),
        (error_of, "not enough " * LONG),
        (lambda text: redacted_excerpt(text, "key"), "<style>" * LONG),
        (lambda text: read_fields(text, text), "-" * 3990 + "a"),
        (lambda text: with_leading_zeros(1, text), "1 " * LONG),
        (as_datetime, "2026" + " " * LONG + "x"),
        (as_datetime, "2026-05-14T05:00:00" + "\n" * LONG + "x"),
        (as_amount, "$" + " " * LONG + "x"),
        (as_amount, "1" + ",000" * LONG),
        (_plain, "(" * LONG),
        (lambda text: _reason(Exception(text)), "<" * 3 * LONG),
        (lambda text: _reason(Exception(text)), "urllib3.x" * LONG),
        (is_left_over, "{%" * LONG),
        (masked, "A-" * LONG),
    ],
)
def test_a_long_text_takes_no_long_time(read: Callable[[str], Any], text: str) -> None:
    began = time.process_time()
    read(text)
    assert time.process_time() - began < 2.0
