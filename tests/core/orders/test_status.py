"""Looking at orders: what they are, and whether a code has come."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from requests_mock import Mocker
from rigs.clocks import later
from rigs.offline import PHONE, address, mock_catalogue
from rigs.purchases import buy_number
from rigs.rooms import rooms_of, store_of

from smsverify import errors
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Fault, Simulator

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]
URL = "http://127.0.0.1:9/api/v1/order/7"


# ------------------------------------------------------------------ looking


def test_an_order_is_known_from_the_ledger_without_a_request(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order = hook.order("global", service="WhatsApp", country="Germany")
    before = len(simulator.requests())
    known = hook.get_order(order.order_id)
    assert (known.product, known.service, known.country, known.price, known.phone) == (
        "global",
        "WhatsApp",
        "Germany",
        Decimal("1.10"),
        order.phone,
    )
    assert len(simulator.requests()) == before


def test_an_order_of_another_store_is_asked_for_once(
    simulator: Simulator, hook: SmsVerifyHook, make_hook: MakeHook, store_url: str
) -> None:
    order = hook.order("temporary", service="WhatsApp")
    other = make_hook(simulator, store_url.replace("store.db", "other.db"))
    for _ in range(2):
        known = other.get_order(order.order_id)
        assert (known.phone, known.product, known.price) == (order.phone, None, None)
    assert simulator.order(order.order_id).status_requests == 1


@pytest.mark.parametrize(
    "less", ["+1 415 *** 0123", "***0123", "0", "4155550123", "+1 415 555 0124", "+1 415 555 01xx", None]
)
def test_a_phone_on_record_is_not_replaced_by_less_or_by_another(
    less: str | None, requests_mock: Mocker, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook("http://127.0.0.1:9", store_url)
    for phone in (PHONE, less):
        requests_mock.get(f"{URL}/status/", json={"order_id": 7, "status": "pending", "phone": phone})
        hook.get_status(7)
    assert hook.get_order(7).phone == PHONE


@pytest.mark.parametrize("code", ["LPA:1$smdp$SECRET", {"qr": "LPA:1$smdp$SECRET"}])
def test_an_activation_code_that_only_the_status_shows_is_on_record_and_stays_a_secret(
    code: Any, requests_mock: Mocker, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook("http://127.0.0.1:9", store_url)
    mock_catalogue(requests_mock)
    bought = {"order_id": 7, "activation_code": None, "status": "pending"}
    requests_mock.post(address("order/esim/"), json={"success": True, **bought})
    assert hook.order("esim", plan="X", key="k").activation_code is None
    shown = {**bought, "status": "active", "activation_code": code, "qr_code": "LPA:1$smdp$SECRET"}
    requests_mock.get(f"{URL}/status/", json=shown)
    status = hook.get_status(7)
    for order in (status, hook.get_order(7), hook.order("esim", plan="X", key="k")):
        assert "SECRET" in (order.activation_code or "")
    for text in (status.model_dump_json(), repr(status), str(status.as_dict())):
        assert "SECRET" not in text
    assert "SECRET" not in repr(pickle.loads(pickle.dumps(status)).__dict__)
    requests_mock.get(f"{URL}/status/", json={**bought, "status": "active"})
    hook.get_status(7)
    assert "SECRET" in (hook.get_order(7).activation_code or "")


@pytest.mark.parametrize("less", ["4155550123", "***0123", "pending", None])
def test_a_phone_on_record_is_completed(
    less: str | None, requests_mock: Mocker, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook("http://127.0.0.1:9", store_url)
    for phone in (less, PHONE):
        requests_mock.get(f"{URL}/status/", json={"order_id": 7, "status": "pending", "phone": phone})
        hook.get_status(7)
    assert hook.get_order(7).phone == PHONE


def test_what_is_seen_is_kept_and_a_later_look_does_not_lose_what_an_earlier_one_knew(
    requests_mock: Mocker, make_hook: MakeHook, any_store_url: str
) -> None:
    hook = make_hook("http://127.0.0.1:9", any_store_url)
    requests_mock.get(
        f"{URL}/status/",
        [
            {"json": {"order_id": 7, "status": "active", "phone": PHONE, "time_left_seconds": 3600}},
            {"json": {"order_id": 7, "status": "odd-" * 100}},
        ],
    )
    first = hook.get_status(7)
    hook.get_status(7)
    known = hook.get_order(7)
    assert (known.status, known.phone) == ("odd-" * 100, PHONE)
    assert known.expires_at is not None
    assert first.expires_at is not None
    assert abs((known.expires_at - first.expires_at).total_seconds()) < 1


def test_a_text_cut_inside_an_emoji_hands_over_its_code(
    requests_mock: Mocker, make_hook: MakeHook, any_store_url: str
) -> None:
    hook = make_hook("http://127.0.0.1:9", any_store_url)
    requests_mock.get(
        f"{URL}/status/",
        text='{"order_id": 7, "status": "complete\\u0000d", "otp": "123456", "message": "123456 \\ud83d"}',
    )
    message = hook.check_otp(7)
    assert message is not None
    assert message.otp == "123456"


# ------------------------------------------------------------------ looking once for a code


def test_a_look_for_a_code_asks_once_and_from_then_on_the_inbox_answers(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    order_id = buy_number(hook)
    assert hook.check_otp(order_id) is None
    simulator.deliver_sms(order_id, otp="123456")
    assert hook.check_otp(order_id, ask=False) is None
    for _ in range(2):
        message = hook.check_otp(order_id)
        assert message is not None
        assert (message.otp, message.message) == ("123456", "Your WhatsApp code is 123456")
    assert simulator.order(order_id).status_requests == 2
    assert not hook.release(order_id, "the code is used")


def test_a_code_is_read_from_the_text_where_the_service_finds_none(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = buy_number(hook)
    simulator.deliver_sms(order_id, text="Your WhatsApp code: 902-110")
    message = hook.check_otp(order_id)
    assert message is not None
    assert (message.otp, message.message) == ("902110", "Your WhatsApp code: 902-110")


@pytest.mark.parametrize("status", ["cancelled", "expired"])
def test_a_look_at_an_order_that_has_ended_says_so(
    status: str, simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(products={"temporary": {"end_status": status}})
    hook = make_hook(simulator, store_url)
    order_id = buy_number(hook)
    simulator.set_time_left(order_id, 0)
    with pytest.raises(errors.OrderEndedError, match=status) as caught:
        hook.check_otp(order_id)
    assert (caught.value.order_id, caught.value.status) == (order_id, status)


def test_a_fresh_order_that_the_service_does_not_show_yet_is_believed_in(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    simulator.add_fault(Fault("status_lag", path="order/temporary/", seconds=600))
    order_id = buy_number(hook)
    assert hook.check_otp(order_id) is None
    with pytest.raises(errors.NotFoundError):
        hook.check_otp(999)


def test_first_readings_that_began_before_the_time_went_back_keep_no_others_away(
    hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = rooms_of(hook).orders.listing

    def is_begun() -> bool:
        with store_of(hook).read() as connection:
            return listing.is_being_introduced(connection, 300.0)

    assert not is_begun()
    assert [listing.begin_introduction(300.0) for _ in range(2)] == [True, False]
    assert is_begun()
    later(monkeypatch, -86_400.0)
    assert not is_begun()
    assert [listing.begin_introduction(300.0) for _ in range(2)] == [True, False]
