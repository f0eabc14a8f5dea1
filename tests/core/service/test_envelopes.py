"""An order that stands inside of an answer, and what stands beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from requests_mock import Mocker
from rigs.offline import PHONE, UNSEEN, address, mock_catalogue

from smsverify import SmsVerifyHook, UnexpectedResponseError


@pytest.mark.parametrize(
    "form",
    [
        lambda row: {"success": True, "order": row},
        lambda row: {"status": "success", "message": "Done", "order": row},
        lambda row: {"success": True, "data": {"order": row}},
        lambda row: {"status": "active", "message": "Done", "data": [{"order": [row]}]},
        lambda row: {"success": True, "data": json.dumps({"order": row})},
    ],
)
def test_an_order_is_read_where_it_stands_under_its_name(
    form: Callable[[dict[str, Any]], Any], offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    mock_catalogue(requests_mock)
    order_id = next(UNSEEN)
    row = {"order_id": order_id, "status": "pending", "phone": PHONE}
    requests_mock.post(address("order/temporary/"), json=form(row))
    assert offline.order("temporary", service="X").order_id == order_id
    url = address(f"order/{order_id}/status/")
    requests_mock.get(url, json=form(row))
    assert (offline.get_status(order_id).status, offline.get_status(order_id).message) == ("pending", None)
    requests_mock.get(url, json=form({**row, "status": "completed", "otp": ["548921"]}))
    assert offline.get_status(order_id).otp == "548921"
    requests_mock.get(url, json=form({**row, "order_id": order_id + 1}))
    with pytest.raises(UnexpectedResponseError):
        offline.get_status(order_id)


TEXT = "Your WhatsApp code is 048921"


@pytest.mark.parametrize(
    ("body", "read"),
    [
        ({"status": "completed", "otp": "548921", "order": {"service": "W"}}, ("completed", "548921", None)),
        ({"status": "completed", "otp": "548921", "order": {}}, ("completed", "548921", None)),
        (
            {"status": "completed", "otp": 48921, "message": TEXT, "order": {"order_id": 7}},
            ("completed", "048921", TEXT),
        ),
        (
            {"otp": "548921", "order": {"order_id": 7, "status": "completed", "otp": None, "message": ""}},
            ("completed", "548921", None),
        ),
        (
            {"order_id": None, "otp": "", "order": {"order_id": 7, "status": "active", "otp": "548921"}},
            ("active", "548921", None),
        ),
        ({"message": "Done", "order": {"order_id": 7, "status": "active"}}, ("active", None, None)),
    ],
    ids=str,
)
def test_what_stands_beside_an_order_counts_too(
    body: dict[str, Any], read: tuple[Any, ...], offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    for form in (body, {"success": True, **body}, {"success": True, "data": body}):
        requests_mock.get(address("order/7/status/"), json=form)
        status = offline.get_status(7)
        assert (status.status, status.otp, status.message) == read


def test_an_empty_field_of_data_hides_nothing_of_its_envelope(
    offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    body = {"status": "completed", "otp": "548921", "data": {"otp": None, "phone": PHONE}}
    requests_mock.get(address("order/7/status/"), json=body)
    assert offline.get_status(7).otp == "548921"


def test_what_changes_something_is_read_beside_an_order_too(
    offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    mock_catalogue(requests_mock)
    for form in (lambda row: row, lambda row: {"success": True, "data": row}):
        order_id = next(UNSEEN)
        body = form({"phone": PHONE, "status": "pending", "order": {"order_id": order_id, "phone": None}})
        requests_mock.post(address("order/temporary/"), json=body)
        order = offline.order("temporary", service="X")
        assert (order.order_id, order.phone, order.status) == (order_id, PHONE, "pending")
        body = form({"status": "cancelled", "order": {"service": "X"}})
        requests_mock.post(address(f"order/{order_id}/cancel/"), json=body)
        assert offline.cancel(order_id).cancelled
        requests_mock.get(address("balance/"), json=form({"balance": "50.00", "order": {}}))
        assert offline.get_balance().amount == Decimal("50.00")


@pytest.mark.parametrize("word", ["success", "ok", None])
def test_a_word_of_an_envelope_is_no_status_of_its_order(
    word: str | None, offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    body = {"status": word, "message": "Done", "order": {"order_id": 7}}
    requests_mock.get(address("order/7/status/"), json=body)
    with pytest.raises(UnexpectedResponseError):
        offline.get_status(7)
