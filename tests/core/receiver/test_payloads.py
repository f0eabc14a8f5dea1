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


SMS = {"order_id": 454303, "number": "16095170503", "sender": "8843", "sms": "Your PayPal OTP is 545"}


@pytest.mark.parametrize(
    "payload",
    [
        json.dumps({"event": "incoming_message", "message": SMS}),
        {"event": "incoming_message", "message": json.dumps(SMS)},
        json.dumps({"event": "incoming_message", "message": json.dumps(SMS)}),
        {"data": json.dumps([SMS])},
        [json.dumps(SMS)],
    ],
)
def test_json_that_was_written_as_a_text_names_its_order(payload: Any) -> None:
    body = json.dumps(payload).encode()
    (callback,) = payloads.read_sms(payloads.load(body), body, by_secret=True)
    assert (callback.kind, callback.order_id) == ("unknown", 454303)


@pytest.mark.parametrize("text", ['{"order_id": 5', "{" * 30_000, "[" * 30_000, '{"order_id": "5x"}'])
def test_a_text_that_only_looks_like_json_names_no_order(text: str) -> None:
    body = json.dumps({"message": text}).encode()
    (callback,) = payloads.read_sms(payloads.load(body), body, by_secret=True)
    assert callback.order_id is None


@pytest.mark.parametrize(
    "form", [lambda ids: {"order_id": ids}, lambda ids: [{"order_id": id_} for id_ in ids]]
)
def test_no_order_of_a_body_is_dropped(form: Any) -> None:
    body = json.dumps(form([*range(1, 21)])).encode()
    callbacks = payloads.read_sms(payloads.load(body), body, by_secret=True)
    assert [callback.order_id for callback in callbacks] == [*range(1, 21)]
    body = json.dumps(form([*range(1, 22)])).encode()
    with pytest.raises(payloads.TooManyOrders, match="more than 20 orders"):
        payloads.read_sms(payloads.load(body), body, by_secret=True)
