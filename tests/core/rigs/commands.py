"""The command line, in this process and in one of its own."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from rigs import API_KEY
from smsverify.cli import main

COMMAND = [sys.executable, "-m", "smsverify"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    captured = capsys.readouterr()
    assert API_KEY not in captured.out + captured.err
    return code, captured.out, captured.err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    code, out, err = run(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)
