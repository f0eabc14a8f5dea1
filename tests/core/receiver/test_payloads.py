"""What can be read of a callback's body."""

from __future__ import annotations

import json
from typing import Any

import pytest

from smsverify._receiver import payloads


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (2**63 - 1, 2**63 - 1),  # as many digits as an order of the service may have, and the store keeps
        (str(2**63 - 1), 2**63 - 1),
        (10.0**18, 10**18),
        (2**63, None),
        (0, None),
        (True, None),
        ("1e18", None),
    ],
)
def test_an_id_is_read_as_everywhere_else(given: Any, read: int | None) -> None:
    body = json.dumps({"order_id": given}).encode()
    (callback,) = payloads.read_sms(payloads.load(body), body, by_secret=True)
    assert callback.order_id == read
