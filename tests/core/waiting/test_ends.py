"""A wait whose order ends, or has no code to give."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from requests_mock import Mocker
from rigs import eventually
from rigs.waits import PATIENT, Waiting, buy

from smsverify import errors
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Simulator

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "status",
    [
        "expired",
        "Canceled",
        "Time-Out",
        *(pytest.param(one, marks=SLOW) for one in ("cancelled", "failed", "refunded")),
    ],
)
def test_an_order_that_ends_without_a_code_ends_the_wait(
    status: str, simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate(products={"temporary": {"end_status": status}})
    hook = make_hook(simulator, any_store_url)
    order_ids = buy(hook, 4)
    waiting = Waiting(hook, order_ids)
    for order_id in order_ids:
        simulator.set_time_left(order_id, 0)
    for order_id, end in zip(order_ids, waiting.join(), strict=True):
        assert isinstance(end, errors.OrderEndedError)
        assert (end.order_id, end.status) == (order_id, status.lower().replace("-", ""))


def test_an_order_that_was_completed_without_a_code_is_looked_at_again_before_that_is_believed(
    requests_mock: Mocker, make_hook: MakeHook, store_url: str
) -> None:
    url = "http://127.0.0.1:9/api/v1/order/{}/status/"
    empty = {"order_id": 7, "status": "completed", "otp": "", "message": None}
    hook = make_hook("http://127.0.0.1:9", store_url)
    requests_mock.get(url.format(7), [{"json": empty}, {"json": empty}, {"json": {**empty, "otp": "123456"}}])
    assert hook.wait_for_otp(7, PATIENT).otp == "123456"
    requests_mock.get(url.format(8), json={**empty, "order_id": 8})
    with pytest.raises(errors.OrderEndedError, match="completed"):
        hook.wait_for_otp(8, PATIENT)


def test_an_unknown_status_is_logged_once_and_never_ends_or_hangs_a_wait(
    simulate: Simulate, make_hook: MakeHook, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    simulator = simulate(products={"temporary": {"start_status": "Verifying", "sms_status": "Verified"}})
    hook = make_hook(simulator, store_url)
    (order_id,) = buy(hook)
    stop = threading.Event()
    waiting = Waiting(hook, [order_id], stop=stop)
    eventually(lambda: simulator.order(order_id).status_requests > 3, "polling")
    assert waiting.ends == [None]
    stop.set()
    waiting.join()
    with pytest.raises(errors.WaitTimeoutError):
        hook.wait_for_otp(order_id, 0.2, cancel_on_timeout=False)
    lines = [record.message for record in caplog.records if "verifying" in record.message.lower()]
    assert len(lines) == 1
    assert str(order_id) in lines[0]


@pytest.mark.parametrize("status", ["Not Found", " not found "])
def test_a_status_that_says_not_found_ends_no_wait(
    status: str, requests_mock: Mocker, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook("http://127.0.0.1:9", store_url)
    said = {"order_id": 7, "status": status}
    requests_mock.get(
        "http://127.0.0.1:9/api/v1/order/7/status/",
        [{"json": said}, {"json": said}, {"json": {**said, "otp": "123456"}}],
    )
    assert hook.wait_for_otp(7, PATIENT).otp == "123456"


def test_a_code_is_handed_out_whatever_the_status_says(
    requests_mock: Mocker, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook("http://127.0.0.1:9", store_url)
    for number, status in enumerate(("pending", "active", "cancelled", "expired", "Verified"), 1):
        url = f"http://127.0.0.1:9/api/v1/order/{number}/status/"
        requests_mock.get(url, json={"order_id": number, "status": status, "otp": 4711, "message": "0-04711"})
        assert hook.wait_for_otp(number, PATIENT).otp == "004711"
