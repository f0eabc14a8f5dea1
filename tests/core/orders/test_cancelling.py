"""Cancelling orders, and giving back those that nobody needs: none is lost sight of."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from requests_mock import Mocker
from rigs import eventually
from rigs.purchases import buy_number
from rigs.rooms import going_back, rooms_of

from smsverify import errors
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Fault, Simulator
from smsverify.wings import claim, is_taken_from

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]
URL = "http://127.0.0.1:9/api/v1/order/7"


# ------------------------------------------------------------------ cancelling


def test_a_cancellation_refunds_and_is_harmless_the_second_time(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    order_id = buy_number(hook)
    assert [hook.cancel(order_id).status for _ in range(3)] == ["cancelled"] * 3
    assert simulator.balance() == Decimal(50)
    assert hook.get_order(order_id).status == "cancelled"
    assert going_back(hook) == []


@pytest.mark.parametrize("status", [200, 204])
def test_a_cancellation_that_is_answered_without_a_body_is_looked_up_and_not_sent_again(
    status: int, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = buy_number(hook)
    simulator.add_fault(Fault("error_after", path="order/*/cancel/", status=status, body=""))
    assert hook.cancel(order_id).cancelled
    asked = [request.path.rsplit("/", 2)[1] for request in simulator.requests()[-2:]]
    assert asked == ["cancel", "status"]
    assert [request.method for request in simulator.requests() if "/cancel/" in request.path] == ["POST"]
    assert (simulator.balance(), going_back(hook)) == (Decimal(50), [])


PAGE = "<!DOCTYPE html><html><title>Attention Required! | Cloudflare</title></html>"


@pytest.mark.slow
@pytest.mark.parametrize(
    "body", [PAGE, '{"message": "Forbidden"}', '{"title": "Error 1020", "detail": "no"}']
)
@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_page_before_the_service_ends_no_wait_and_gives_no_order_up(
    status: int, body: str, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = buy_number(hook)
    simulator.deliver_sms(order_id, otp="482913")
    simulator.add_fault(Fault("error_before", path="order/*/status/", status=status, body=body))
    assert hook.wait_for_otp(order_id, 20).otp == "482913"
    other = buy_number(hook)
    for path in ("order/*/cancel/", "order/*/status/"):
        simulator.add_fault(Fault("error_before", path=path, status=status, body=body, times=None))
    with pytest.raises(errors.ServiceError):
        hook.cancel(other)
    assert going_back(hook) == [other]
    simulator.clear_faults()
    assert hook.cancel(other).cancelled


REFUSED = '{"error": "SMS not received yet"}'


def test_a_number_whose_status_is_refused_is_cancelled_where_the_list_shows_it_as_pending(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_id, used = buy_number(hook), buy_number(hook)
    simulator.deliver_sms(used, otp="482913")
    refusal = Fault("error_before", path="order/*/status/", status=400, body=REFUSED, times=None)
    simulator.add_fault(refusal)
    assert hook.release(order_id, "it is not needed")
    assert not hook.release(used, "it is not needed")
    cancelled = [request.path for request in simulator.requests() if "/cancel/" in request.path]
    assert cancelled == [f"/api/v1/order/{order_id}/cancel/"]
    assert going_back(hook) == [used]


def test_an_order_that_is_completed_hands_over_its_code_instead(
    simulator: Simulator, hook: SmsVerifyHook, make_hook: MakeHook, store_url: str
) -> None:
    order_id = buy_number(hook)
    simulator.deliver_sms(order_id, otp="123456")
    for again in (hook, hook, make_hook(simulator, store_url)):
        status = again.cancel(order_id)
        assert (status.status, status.otp, status.cancelled) == ("completed", "123456", False)
    assert going_back(hook) == []


def test_an_order_that_somebody_else_has_cancelled_is_success(
    simulator: Simulator, hook: SmsVerifyHook, make_hook: MakeHook, store_url: str
) -> None:
    order_id = buy_number(hook)
    other = make_hook(simulator, store_url.replace("store.db", "other.db"))
    other.cancel(order_id)
    assert hook.cancel(order_id).cancelled


def test_an_order_of_another_store_is_cancelled_too(
    simulator: Simulator, hook: SmsVerifyHook, make_hook: MakeHook, store_url: str
) -> None:
    order_id = buy_number(hook)
    assert make_hook(simulator, store_url.replace("store.db", "other.db")).cancel(str(order_id)).cancelled
    assert simulator.order(order_id).status == "cancelled"


def test_a_refusal_stays_on_record_and_says_what_the_service_said(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = hook.order("rental", service="WhatsApp", duration=3).order_id
    with pytest.raises(errors.NotCancellableError, match="still active") as caught:
        hook.cancel(order_id)
    assert caught.value.status_code == 400
    assert caught.value.service_message == "Order cannot be cancelled"
    assert going_back(hook) == [order_id]
    simulator.configure(cancel_active="refund")
    assert hook.cancel(order_id).cancelled
    assert going_back(hook) == []
    assert simulator.balance() == Decimal(50)


def test_an_order_that_does_not_exist_is_not_found_and_nothing_to_come_back_to(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    with pytest.raises(errors.NotFoundError):
        hook.cancel(999)
    assert going_back(hook) == []
    for call in (hook.get_status, hook.get_order, hook.check_otp):
        with pytest.raises(errors.NotFoundError, match="Order not found") as caught:
            call(999)
        assert caught.value.status_code == 404


@pytest.mark.parametrize("kind", ["lost_answer", "reset", "error_before", "error_after", "cut_json", "html"])
def test_a_cancellation_that_is_not_answered_is_repeated(
    kind: str, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = buy_number(hook)
    simulator.add_fault(Fault(kind, path="order/*/cancel/"))
    assert hook.cancel(order_id).cancelled
    assert simulator.balance() == Decimal(50)
    assert going_back(hook) == []


def test_a_cancellation_that_fails_for_good_stays_on_record(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = buy_number(hook)
    simulator.add_fault(Fault("error_before", path="order/**", times=None))
    with pytest.raises(errors.ServiceError):
        hook.cancel(order_id)
    assert going_back(hook) == [order_id]
    simulator.clear_faults()
    simulator.add_fault(Fault("unauthorized", path="order/*/cancel/"))
    with pytest.raises(errors.AuthenticationError):
        hook.cancel(order_id)
    assert going_back(hook) == [order_id]


@pytest.mark.parametrize(
    "fault",
    [{"kind": "error_before"}, {"kind": "error_before", "status": 400, "body": REFUSED}, {"kind": "html"}],
)
def test_a_cancellation_is_sent_again_although_the_status_cannot_be_read(
    fault: dict[str, Any], simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = buy_number(hook)
    simulator.add_fault(Fault(path="order/*/status/", times=None, **fault))
    simulator.add_fault(Fault("error_before", path="orders/", times=None))
    assert not hook.release(order_id, "it is not needed")
    assert hook.cancel(order_id).cancelled
    assert (simulator.balance(), going_back(hook)) == (Decimal(50), [])


def test_a_rental_whose_status_cannot_be_read_is_not_cancelled(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = hook.order("rent-1day", service="Tinder").order_id
    simulator.add_fault(Fault("error_before", path="order/*/status/", times=None))
    for _ in range(2):
        with pytest.raises(errors.ServiceError):
            hook.cancel(order_id)
    assert not any("/cancel/" in request.path for request in simulator.requests())
    assert going_back(hook) == [order_id]


@pytest.mark.parametrize(
    ("body", "cancelled"),
    [
        ({"success": True, "data": {"order_id": 7, "status": "cancelled"}}, True),
        ({"order_id": 7, "status": "canceled"}, True),
        ({"success": True, "data": {"order_id": 7, "status": "refunded"}}, True),
        ({"success": True, "data": {"order_id": 7, "status": "pending"}}, False),
        ({"success": True, "data": {"order_id": 7, "status": "cancelling"}}, False),
        ({"success": True, "data": {"order_id": 8, "status": "cancelled"}}, False),
        ({"success": True}, False),
        ({"error": "Order cannot be cancelled"}, False),
        ({"success": False, "error": "Order cannot be cancelled"}, False),
        ([], False),
    ],
)
def test_only_an_answer_that_says_cancelled_counts_as_one(
    body: Any, cancelled: bool, requests_mock: Mocker, make_hook: MakeHook, store_url: str
) -> None:
    requests_mock.post(f"{URL}/cancel/", json=body)
    requests_mock.get(f"{URL}/status/", json={"order_id": 7, "status": "pending"})
    hook = make_hook("http://127.0.0.1:9", store_url)
    if cancelled:
        assert hook.cancel(7).cancelled
    else:
        with pytest.raises(errors.NotCancellableError):
            hook.cancel(7)
    assert going_back(hook) == ([] if cancelled else [7])
    known = rooms_of(hook).orders.records.get(7)
    assert known is not None
    assert known.ended is cancelled


# ------------------------------------------------------------------ giving back


def test_a_release_cancels_a_pending_order(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    order_id = buy_number(hook)
    assert hook.release(order_id, "not needed")
    assert simulator.order(order_id).status == "cancelled"
    assert hook.release(order_id, "not needed")  # harmless
    assert going_back(hook) == []


def test_a_release_leaves_alone_what_is_of_use(simulator: Simulator, hook: SmsVerifyHook) -> None:
    with_code, used = buy_number(hook), buy_number(hook)
    rental = hook.order("rental", service="WhatsApp", duration=3).order_id
    simulator.configure(cancel_active="no-refund")
    for order_id in (with_code, used):
        simulator.deliver_sms(order_id, otp="123456")
    hook.wait_for_otp(used, 20)
    cancels = simulator.stats().by_endpoint.get("POST order/{id}/cancel/", 0)
    assert [hook.release(order_id, "not needed") for order_id in (with_code, used, rental)] == [False] * 3
    assert simulator.stats().by_endpoint.get("POST order/{id}/cancel/", 0) == cancels
    assert simulator.order(rental).status == "active"
    assert going_back(hook) == []


def test_a_rental_that_is_still_pending_is_given_back(simulator: Simulator, hook: SmsVerifyHook) -> None:
    order = hook.order("rent-1day", service="Tinder")
    assert hook.release(order.order_id, "not needed")
    assert simulator.balance() == Decimal(50)


@pytest.mark.parametrize("status", ["active", "waiting_for_sms"])
def test_a_number_that_is_active_or_in_an_unknown_state_is_given_back_or_stays_on_record(
    status: str, simulate: Simulate, make_hook: MakeHook, store_url: str, tmp_path: Path
) -> None:
    simulator = simulate(products={"temporary": {"start_status": status}})
    hook = make_hook(simulator, store_url)
    order_id = buy_number(hook)
    if status == "active":
        elsewhere = make_hook(simulator, f"sqlite:///{tmp_path / 'elsewhere.db'}")
        assert not elsewhere.release(order_id, "not needed")  # there it may be a rental
        assert "POST order/{id}/cancel/" not in simulator.stats().by_endpoint
    assert not hook.release(order_id, "not needed")  # the simulator cancels what is pending only
    assert simulator.stats().by_endpoint["POST order/{id}/cancel/"] == 1
    assert going_back(hook) == [order_id]


def test_a_release_by_a_waiter_yields_to_a_newer_one(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    order_id = buy_number(hook)
    claim(hook, order_id, "first")
    claim(hook, order_id, "second")
    assert not hook.release(order_id, "killed", waiter="first")
    assert simulator.order(order_id).status == "pending"
    assert hook.release(order_id, "killed", waiter="second")


@pytest.mark.parametrize(
    ("waiter", "yields"),
    [
        ("task", True),
        ("task/", False),
        ("task/2", False),
        ("task/1", True),
        ("tas/", True),
        ("task/2/", False),
    ],
)
def test_a_name_with_a_slash_at_its_end_stands_for_what_begins_so(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str, waiter: str, yields: bool
) -> None:
    hook = make_hook(simulate(), any_store_url)
    order_id = buy_number(hook)
    claim(hook, order_id, "task/2")
    assert is_taken_from(hook, order_id, waiter) is yields
    assert hook.release(order_id, "killed", waiter=waiter) is not yields


@pytest.mark.slow
def test_a_new_waiter_takes_a_release_off_the_record_until_the_last_moment(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = buy_number(hook)
    claim(hook, order_id, "first")
    simulator.add_fault(Fault("slow_before", path=f"order/{order_id}/status/", seconds=1))
    results: list[bool] = []
    releasing = threading.Thread(
        target=lambda: results.append(hook.release(order_id, "killed", waiter="first"))
    )
    releasing.start()
    eventually(lambda: going_back(hook), "the record")
    claim(hook, order_id, "second")
    releasing.join(30)
    assert results == [False]
    assert simulator.order(order_id).status == "pending"
    assert going_back(hook) == []


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("error_before", path="order/*/status/", times=None)],
        [Fault("reset", path="order/**", times=None)],
        [Fault("unauthorized", path="order/*/cancel/", times=None)],
        [Fault("html", path="order/*/status/", times=None)],
        [Fault("error_before", path="order/*/cancel/", status=400, times=None)],
    ],
    ids=["status 503", "reset", "401", "HTML", "400"],
)
def test_a_release_never_raises_for_the_service_and_stays_on_record(
    faults: list[Fault], simulator: Simulator, hook: SmsVerifyHook, caplog: pytest.LogCaptureFixture
) -> None:
    order_id = buy_number(hook)
    for fault in faults:
        simulator.add_fault(fault)
    assert not hook.release(order_id, "nobody needs it")
    assert going_back(hook) == [order_id]
    assert [
        record.levelno for record in caplog.records if "could not be cancelled yet" in record.message
    ] == [logging.WARNING]
    simulator.clear_faults()
    assert hook.release(order_id, "nobody needs it")
    assert going_back(hook) == []


# ------------------------------------------------------------------ what an end is worth


def test_an_order_that_only_the_list_has_shown_completed_hands_over_its_code(
    simulator: Simulator, hook: SmsVerifyHook, make_hook: MakeHook, store_url: str
) -> None:
    order_id = buy_number(hook)
    simulator.deliver_sms(order_id, otp="123456")
    fresh = make_hook(simulator, store_url.replace("store.db", "other.db"))
    fresh.list_orders()
    assert (fresh.cancel(order_id).status, fresh.cancel(order_id).otp) == ("completed", "123456")


def test_an_end_that_was_none_is_looked_at_again(
    requests_mock: Mocker, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook("http://127.0.0.1:9", store_url)
    requests_mock.get(f"{URL}/status/", json={"order_id": 7, "status": "failed"})
    hook.get_status(7)
    requests_mock.get(f"{URL}/status/", json={"order_id": 7, "status": "pending"})
    requests_mock.post(f"{URL}/cancel/", json={"order_id": 7, "status": "cancelled"})
    assert hook.cancel(7).cancelled


@pytest.mark.parametrize(
    "body",
    [
        {"success": False, "error": "Refunds are not possible for this service"},
        {"error": "order_id is already completed"},
        {"order_id": ["Number was active for its whole duration"]},
    ],
)
def test_whatever_a_refusal_says_the_order_is_looked_at(
    body: Any, requests_mock: Mocker, make_hook: MakeHook, store_url: str
) -> None:
    requests_mock.post(f"{URL}/cancel/", json=body, status_code=400)
    requests_mock.get(f"{URL}/status/", json={"order_id": 7, "status": "completed", "otp": "123456"})
    assert make_hook("http://127.0.0.1:9", store_url).cancel(7).otp == "123456"


@pytest.mark.slow
def test_a_fresh_order_that_the_service_does_not_show_yet_is_given_back_all_the_same(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    for _ in range(2):
        simulator.add_fault(Fault("status_lag", path="order/temporary/", seconds=30))
    with hook.rented_number("temporary", service="WhatsApp"):
        pass
    assert simulator.orders()[0].status == "cancelled"
    order_id = buy_number(hook)
    assert hook.get_status(order_id).status == "pending"
    simulator.add_fault(Fault("status_lag", path="order/temporary/", seconds=30))
    assert hook.cancel(buy_number(hook)).cancelled


# ------------------------------------------------------------------ a service that answers badly


@pytest.mark.parametrize("refusal", [400, 503])
def test_a_release_sleeps_through_no_long_pause(
    refusal: int, simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    """Neither before the cancellation, nor in the look at the order after it was refused."""
    hook = make_hook(simulator, store_url, call_timeout=900)
    order_id = buy_number(hook)
    seen = 0 if refusal == 503 else 1
    simulator.add_fault(Fault("error_before", "order/*/cancel/", status=refusal, times=None))
    simulator.add_fault(
        Fault("error_before", "order/*/status/", status=503, retry_after=25, after=seen, times=None)
    )
    assert not hook.release(order_id, "not needed")
    asked = [request.path for request in simulator.requests() if "/status/" in request.path]
    assert len(asked) == seen + 1
    assert going_back(hook) == [order_id]


@pytest.mark.parametrize("why", ["it takes long", "it is stopped"])
def test_a_purchase_tries_no_further_release_where_the_service_is_slow_or_the_caller_ends(
    why: str, simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_ids = [buy_number(hook) for _ in range(3)]
    orders = rooms_of(hook).orders
    for order_id in order_ids:
        orders.releases.request(order_id, "not needed")
    stop = threading.Event()
    if why == "it is stopped":
        stop.set()
    else:
        monkeypatch.setattr("smsverify._orders.cancelling.HASTE", -1.0)
    assert orders.cancelling.retry_releases(stop=stop) == order_ids[:1]
    assert orders.cancelling.retry_releases(limit=1) == order_ids[1:2]
    assert going_back(hook) == order_ids[2:]
