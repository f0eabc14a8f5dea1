"""Which errors prove that nothing was bought: the service may have bought before it failed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from smsverify._service.answers import Answer, is_rejection


def answer(status: int, body: Any) -> Answer:
    text = body if isinstance(body, str) else json.dumps(body)
    return Answer(status, {}, text, "POST /api/v1/order/temporary/", "key")


@pytest.mark.parametrize(
    "text",
    [
        "Insufficient balance",
        "INSUFFICIENT_FUNDS",
        "Not enough credits in your wallet.",
        "No numbers available",
        "No numbers at the moment",
        "Numbers not available for this country right now",
        "Service not available",
        "Service not found",
        "Out of stock!",
        "Country not available",
        "Invalid API key",
        "Invalid or missing API key",
        "Rate limit exceeded. Maximum 60 requests per minute.",
    ],
)
def test_a_success_may_say_in_a_few_words_that_nothing_was_bought(text: str) -> None:
    for body in ({"success": False, "error": text, "data": None}, {"detail": [text], "success": "false"}):
        assert is_rejection(answer(201, body))


@pytest.mark.parametrize(
    "text",
    [
        "Provider failed, your order was cancelled, refund pending",
        "Provider unavailable, please check your order later",
        "Upstream: too many requests, order queued",
        "Too many requests",
        "Provider API key invalid",
        "Invalid API key of the provider",
        "Rate limit exceeded",
        "Rate limit exceeded. Maximum 60 requests per minute. Your order is queued.",
        "Order not found",
        "Order cannot be cancelled",
        "Service temporarily unavailable",
        "No numbers available, your order is queued",
        "Number not available, trying the next provider",
        "Insufficient balance at the provider",
        "Insufficient balance for order 458731",
        "Insufficient balance" + " " * 5000 + "your order is queued",
        "not available",
        "",
    ],
)
def test_a_success_with_any_other_error_may_be_a_purchase(text: str) -> None:
    assert not is_rejection(answer(201, {"success": False, "error": text}))


@pytest.mark.parametrize("empty", [None, "", 0, [], {}], ids=repr)
def test_an_empty_field_is_nothing_of_an_order(empty: Any) -> None:
    body = {"success": False, "error": "Insufficient balance", "order": empty, "data": {"phone": empty}}
    assert is_rejection(answer(201, body))


@pytest.mark.parametrize(
    "more",
    [
        {"order": {"order_id": 5}},
        {"order": 5},
        {"id": 5, "phone": "+1415"},
        {"data": {"number": "16095170503"}},
        {"data": [{"result": {"orderId": 5}}]},
        {"activation_code": "SIM-1"},
        {"data": '{"order_id": 5}'},
        {"message": "Your order is queued"},
        {"detail": {"message": "Refund pending"}},
    ],
    ids=str,
)
def test_a_success_that_refuses_and_speaks_of_an_order_may_be_a_purchase(more: dict[str, Any]) -> None:
    assert not is_rejection(answer(201, {"success": False, "error": "No numbers available", **more}))


def test_a_success_that_contradicts_itself_may_be_a_purchase() -> None:
    twice = '{"success": false, "error": "No numbers available", "data": {"id": 5, "id": null}}'
    assert not is_rejection(answer(201, twice))


@pytest.mark.parametrize("status", [400, 402])
@pytest.mark.parametrize(
    "more",
    [
        {"order_id": 9001},
        {"order_id": "9001"},
        {"data": {"order_id": 9001, "phone": "+1 415 555 0123", "status": "pending"}},
        {"data": {"phone": "+1 415 555 0123"}},
        {"data": [{"number": 14155550123}]},
        {"detail": {"orderId": 9001}},
        {"order": 9001},
        {"order": {"id": 9001}},
        {"order": [{"id": "9001"}]},
        {"data": '{"order_id": 9001}'},
        {"activation_code": "SIM-1234567890"},
    ],
    ids=str,
)
def test_a_refusal_that_names_an_order_may_be_a_purchase(status: int, more: dict[str, Any]) -> None:
    assert not is_rejection(answer(status, {"success": False, "error": "Provider timeout", **more}))


@pytest.mark.parametrize(
    "more",
    [
        {"phone": ["invalid"], "order_id": ["Must be 1 or more."]},
        {"order_id": None, "phone": "", "number": 1042, "activation_code": "unknown"},
        {"data": {"order_id": 0, "phone": "pending", "order": False}},
        {"order": {"service_id": ["No such service."]}},
        {"order_id": "Value 7 is no id", "data": "{0} is missing"},
    ],
    ids=str,
)
def test_a_refusal_of_a_field_of_an_order_names_none(more: dict[str, Any]) -> None:
    assert is_rejection(answer(400, {"success": False, "error": "Service not available", **more}))


def test_a_refused_renewal_may_name_its_rental() -> None:
    body = json.dumps({"success": False, "error": "Insufficient balance", "order_id": 9001})
    assert is_rejection(Answer(402, {}, body, "POST /api/v1/order/9001/renew/", "key"))


def test_a_refusal_that_contradicts_itself_may_be_a_purchase() -> None:
    assert not is_rejection(answer(400, '{"error": "No", "order_id": 9001, "order_id": null}'))
