"""An order that stands inside of an answer, and what stands beside it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from requests_mock import Mocker
from rigs.offline import PHONE, UNSEEN, address, mock_catalogue
from rigs.rooms import settings_of

from smsverify import (
    InsufficientBalanceError,
    NotCancellableError,
    PurchaseUnknownError,
    ServiceError,
    SmsVerifyHook,
    UnexpectedResponseError,
)

pytestmark = pytest.mark.slow


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


ENVELOPES_OF_A_FAILURE: list[dict[str, Any]] = [
    {"status": "error", "message": "Upstream timeout"},
    {"status": " FAIL ", "message": "Upstream timeout", "data": None},
    {"status": "failed", "detail": "Upstream timeout", "data": {}},
    {"status": 500, "message": "Upstream timeout"},
    {"code": "502", "message": "Upstream timeout"},
    {"status": "success", "status_code": 404, "message": "Upstream timeout"},
]


@pytest.mark.parametrize("body", ENVELOPES_OF_A_FAILURE, ids=str)
def test_an_envelope_of_a_failure_is_an_error_with_its_text(
    body: dict[str, Any], offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    order_id = next(UNSEEN)
    requests_mock.get(address(f"order/{order_id}/status/"), json=body)
    with pytest.raises(ServiceError, match="answered 200: Upstream timeout"):
        offline.get_status(order_id)
    requests_mock.get(address(f"order/{order_id}/status/"), json={"order_id": order_id, "status": "pending"})
    requests_mock.post(address(f"order/{order_id}/cancel/"), json=body)
    with pytest.raises(NotCancellableError, match=r"still pending: .* answered 200: Upstream timeout"):
        offline.cancel(order_id)


@pytest.mark.parametrize("body", ENVELOPES_OF_A_FAILURE, ids=str)
def test_a_purchase_that_answers_an_envelope_of_a_failure_may_have_been_made(
    body: dict[str, Any], offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    mock_catalogue(requests_mock)
    hook = SmsVerifyHook(**settings_of(offline) | {"account": str(body)})
    post = requests_mock.post(address("order/temporary/"), json=body)
    for _ in range(2):
        with pytest.raises(PurchaseUnknownError):
            hook.order("temporary", service="X", key="a")
    assert post.call_count == 1
    refused = {**body, "message": "Insufficient balance", "detail": None}
    requests_mock.post(address("order/temporary/"), json=refused)
    with pytest.raises(InsufficientBalanceError):
        hook.order("temporary", service="X", key="b")


@pytest.mark.parametrize(("status", "text"), [(400, "Provider timeout"), (402, "Insufficient balance")])
def test_a_refused_purchase_that_names_its_order_is_sent_once(
    status: int, text: str, offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    mock_catalogue(requests_mock)
    row = {"order_id": next(UNSEEN), "phone": PHONE, "status": "pending"}
    body = {"success": False, "error": text, "data": row}
    post = requests_mock.post(address("order/temporary/"), status_code=status, json=body)
    hook = SmsVerifyHook(**settings_of(offline) | {"account": f"names its order {status}"})
    with pytest.raises(PurchaseUnknownError, match=f"{text}. But the answer names an order. Whether"):
        hook.order("temporary", service="X", key="a")
    requests_mock.get(address("orders/"), json=[row | {"service": "X", "price": 0.4}])
    requests_mock.get(address(f"order/{row['order_id']}/status/"), json=row)
    assert hook.order("temporary", service="X", key="a").order_id == row["order_id"]
    assert post.call_count == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"order_id": 7, "status": "failed", "message": "Upstream timeout"}, "failed"),
        ({"order_id": 7, "status": "error", "message": "Upstream timeout"}, "error"),
        ({"status": "failed", "otp": None, "message": None}, "failed"),
        ({"status": "failed", "otp": None, "message": "Upstream timeout"}, "failed"),
        ({"status": "failed"}, "failed"),
        ({"status": "pending", "code": 545, "message": None}, "pending"),
        ({"success": True, "data": {"status": "failed", "message": "Upstream timeout"}}, "failed"),
        ({"status": "success", "code": 200, "data": {"order_id": 7, "status": "active"}}, "active"),
    ],
    ids=str,
)
def test_a_status_of_a_failure_beside_an_order_is_the_order_s(
    body: dict[str, Any], status: str, offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    requests_mock.get(address("order/7/status/"), json=body)
    seen = offline.get_status(7)
    assert (seen.status, seen.arrived) == (status, False)


@pytest.mark.parametrize(
    "body",
    [
        {"success": True, "message": "No new messages for this number"},
        {"success": True, "data": {"message": "No new messages for this number"}},
        {"status": "ok", "message": "Still looking for your SMS", "data": None},
    ],
    ids=str,
)
def test_a_text_beside_nothing_of_an_order_is_no_sms(
    body: dict[str, Any], offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    requests_mock.get(address("order/7/status/"), json=body)
    with contextlib.suppress(UnexpectedResponseError):
        assert not offline.get_status(7).arrived


@pytest.mark.parametrize(
    "body",
    [
        {"success": True, "data": {"status": "received", "message": "Your Foo code is 412"}},
        {"success": True, "data": {"message": "Your Foo code is 412"}},
        {"code": "412", "message": "Your Foo code is 412"},
    ],
    ids=str,
)
def test_a_text_with_a_code_is_an_sms_beside_nothing_of_an_order(
    body: dict[str, Any], offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    requests_mock.get(address("order/7/status/"), json=body)
    assert offline.get_status(7).message == "Your Foo code is 412"


@pytest.mark.parametrize("text", ["Your verification number 4155550123", "Use otp of order ({})"])
def test_the_own_numbers_of_an_order_in_its_text_are_no_code(
    text: str, offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    order_id = next(UNSEEN)
    text = text.format(order_id)
    body = {"order_id": order_id, "status": "active", "message": text, "phone": "+1 415 555 0123"}
    requests_mock.get(address(f"order/{order_id}/status/"), json=body)
    requests_mock.get(address("orders/"), json=[])
    message = offline.wait_for_otp(order_id, timeout=30, cancel_on_timeout=False)
    assert (message.otp, message.message) == (None, text)


def test_an_empty_field_of_an_order_beside_a_failure_is_no_order(
    offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    mock_catalogue(requests_mock)
    body = {"status": "error", "message": "Insufficient balance", "order_id": None, "phone": ""}
    requests_mock.post(address("order/temporary/"), json=body)
    with pytest.raises(InsufficientBalanceError):
        SmsVerifyHook(**settings_of(offline) | {"account": "empty fields"}).order("temporary", service="X")


def test_a_text_that_names_its_own_order_and_phone_is_no_sms(
    offline: SmsVerifyHook, requests_mock: Mocker
) -> None:
    text = f"Order 458731 waits on {PHONE}"
    body = {"order_id": 458731, "status": "pending", "otp": None, "message": text, "phone": PHONE}
    requests_mock.get(address("order/458731/status/"), json={"success": True, "data": body})
    assert not offline.get_status(458731).arrived
