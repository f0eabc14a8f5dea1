"""Callbacks: what comes is stored before it is answered, believed where there is no doubt, and never lost."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from rigs import await_end_of_waits, eventually
from rigs.callbacks import asked, of, rows, states
from rigs.receiver import SECRET, TEXT, Receiver, payload, receiving
from rigs.rooms import rooms_of, settings_of, store_of
from rigs.waits import PATIENT, Waiting

from smsverify import errors
from smsverify._messages.callbacks import KEPT, OPEN, UNVERIFIED, VERIFIED
from smsverify._orders.cancelling import Cancelling
from smsverify._orders.status import StatusReader
from smsverify._service.rate_limit import Priority
from smsverify._store.tables import messages, waits
from smsverify.hook import SmsVerifyHook
from smsverify.models import Order
from smsverify.simulator import Fault, Simulator

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]


# ------------------------------------------------------------------ a code without a request


def test_a_code_that_a_callback_brings_costs_no_request(
    receiver: Receiver, hook: SmsVerifyHook, simulator: Simulator, order: Order
) -> None:
    before = simulator.stats().requests
    assert receiver.post(of(order)) == 200
    message = hook.wait_for_otp(order.order_id, PATIENT)
    assert (message.otp, message.message, message.sender) == ("545123", TEXT, "8843")
    await_end_of_waits()
    assert hook.check_otp(order.order_id) == message
    assert hook.get_order(order.order_id).status == "completed"
    assert simulator.stats().requests == before


def test_the_simulators_callbacks_end_waits(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate(balance=100)
    hook = make_hook(simulator, any_store_url, callback_secrets=SECRET)
    with receiving([hook]) as receiver:
        simulator.configure(callback_url=receiver.secret_url, callback_duplicates=2)
        orders = [hook.order("temporary", service="WhatsApp") for _ in range(5)]
        waiting = Waiting(hook, [order.order_id for order in orders])
        for number, order in enumerate(orders):
            simulator.deliver_sms(order.order_id, otp=f"10000{number}")
        assert waiting.codes() == [f"10000{number}" for number in range(5)]
        eventually(lambda: len(rows(hook)) == 5, "all callbacks")
    assert len(rows(hook, messages)) == 5  # by callback and by status: one each


def test_what_callbacks_bring_while_a_poll_is_under_way_is_not_asked_for(
    receiver: Receiver, hook: SmsVerifyHook, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A poll for one alone would ask for its status, without the list.
    is_poll_due = "smsverify._waiting.schedule.Schedule.is_poll_due"
    monkeypatch.setattr(is_poll_due, lambda *_: len(rows(hook, waits)) == 5)
    orders = [hook.order("temporary", service="WhatsApp") for _ in range(5)]
    for order in orders:
        simulator.deliver_sms(order.order_id)
    simulator.add_fault(Fault("slow_after", path="orders/", seconds=8, times=None))
    waiting = Waiting(hook, [order.order_id for order in orders])
    eventually(lambda: asked(simulator) > 0, "the list to be asked for")
    for number, order in enumerate(orders):
        assert receiver.post(of(order, f"Your code is 10000{number}")) == 200
    assert waiting.codes() == [f"10000{number}" for number in range(5)]
    await_end_of_waits()
    assert not [endpoint for endpoint in simulator.stats().by_endpoint if "status" in endpoint]


def test_a_callback_may_overtake_the_answer_to_the_purchase(
    receiver: Receiver, hook: SmsVerifyHook, simulator: Simulator, make_hook: MakeHook
) -> None:
    bought = make_hook(simulator, f"{settings_of(hook)['store_url']}.other").order(
        "temporary", service="WhatsApp"
    )
    early = of(bought, "Your code is 111222")
    assert receiver.post(early) == 200
    assert states(hook) == [OPEN]
    hook.list_orders()  # the order becomes known
    before = asked(simulator)
    assert hook.wait_for_otp(bought.order_id, PATIENT).otp == "111222"
    await_end_of_waits()
    assert asked(simulator) == before
    assert receiver.post(early) == 200
    assert states(hook) == [VERIFIED]


def test_a_late_callback_of_a_cancelled_order_is_kept_and_cancels_nothing(
    receiver: Receiver, hook: SmsVerifyHook, order: Order
) -> None:
    hook.cancel(order.order_id)
    assert receiver.post(of(order)) == 200
    assert hook.get_order(order.order_id).status == "cancelled"
    assert states(hook) == [VERIFIED]


# ------------------------------------------------------------------ what is not believed


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("/api/callback", {}),
        ("/api/callback/", {}),
        (f"/callback/{SECRET}", {"number": "16095170599"}),
        (f"/callback/{SECRET}", {"sms": "Welcome to our service, dear customer"}),
    ],
    ids=["no secret", "no secret, with a slash", "another phone", "no certain code"],
)
def test_an_unverified_callback_makes_the_status_decide(
    receiver: Receiver,
    hook: SmsVerifyHook,
    simulator: Simulator,
    order: Order,
    path: str,
    change: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # No poll is due for an hour: only the callback makes anybody ask.
    monkeypatch.setattr("smsverify._waiting.schedule.Schedule.is_poll_due", lambda *_: False)
    waiting = Waiting(hook, [order.order_id])
    simulator.deliver_sms(order.order_id, otp="777888")
    forged = of(order, "Your PayPal code is 666666", **change)
    assert receiver.post(forged, path) == 200
    (message,) = waiting.messages()
    assert (message.otp, message.message) == ("777888", simulator.order(order.order_id).message)
    assert states(hook) == [UNVERIFIED]


@pytest.mark.slow
def test_what_a_callback_asks_for_never_waits_behind_a_poll(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    limits = {"rate_limit": 20, "rate_period": 20.0, "call_timeout": 60.0}
    hook = make_hook(simulator, store_url, callback_secrets=[SECRET], **limits)
    order, rate_limit = hook.order("temporary", service="WhatsApp"), rooms_of(hook).rate_limit
    while rate_limit.state().available > 1:  # the last one is for what is urgent
        with rate_limit.acquire(Priority.READ, deadline=time.monotonic() + PATIENT):
            pass
    waiting = Waiting(hook, [order.order_id])
    eventually(lambda: rate_limit.state().waiting == 1, "the poll to wait for its slot")
    simulator.deliver_sms(order.order_id, otp="777888")
    with receiving([hook]) as receiver:
        assert receiver.post(of(order, "Hello", number="16095170599")) == 200
        assert waiting.codes() == ["777888"]
    assert rate_limit.state().waiting == 1


@pytest.mark.slow
def test_a_forged_callback_ends_no_wait_and_costs_little(
    receiver: Receiver,
    hook: SmsVerifyHook,
    simulator: Simulator,
    order: Order,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("smsverify._waiting.schedule.Schedule.is_poll_due", lambda *_: False)
    stop = threading.Event()
    waiting = Waiting(hook, [order.order_id], stop=stop, cancel_on_timeout=False)
    eventually(lambda: rows(hook, waits), "the wait")
    began = time.monotonic()
    for number in range(60):
        assert receiver.post(of(order, f"Your code is {100000 + number}"), "/api/callback") == 200
    eventually(lambda: asked(simulator) >= 2, "looks")
    minutes = (time.monotonic() - began) / simulator.rate_period
    assert waiting.ends == [None]
    stop.set()
    assert [type(end) for end in waiting.join()] == [errors.WaitStoppedError]
    assert asked(simulator) <= 60 * 0.25 * minutes + 2  # a quarter of the budget
    assert hook.check_otp(order.order_id, ask=False) is None
    assert rows(hook, messages) == []


def test_unverified_callbacks_for_orders_that_nobody_waits_for_cost_nothing(
    receiver: Receiver, hook: SmsVerifyHook, simulator: Simulator, order: Order
) -> None:
    other = hook.order("temporary", service="WhatsApp")
    waiting = Waiting(hook, [other.order_id])
    for path in ("/api/callback", f"/callback/{SECRET}"):
        assert receiver.post(of(order, "Hello"), path) == 200
    simulator.deliver_sms(other.order_id, otp="123123")
    assert waiting.codes() == ["123123"]
    await_end_of_waits()
    with store_of(hook).read() as connection:
        asked_for = sa.text("SELECT order_id FROM smsverify_looks WHERE status_at IS NOT NULL")
        assert connection.execute(asked_for).scalars().all() == [other.order_id]


@pytest.mark.parametrize(
    ("body", "state"),
    [
        (payload(1, "16095170503"), OPEN),
        ({"event": "something_else", "order_id": "7"}, OPEN),
        ({"event": "incoming_message", "data": {"message": {"order_id": 7, "sms": "x"}}}, OPEN),
        ({"event": "incoming_message", "message": {"order_id": 7}}, OPEN),
        ({"event": "incoming_message", "message": "text"}, KEPT),
        (payload(None, None, None), KEPT),
        (payload(-1, "16095170503"), KEPT),
        (payload(10**30, "16095170503"), KEPT),
        (payload(True, ["16095170503"], {"a": 1}), KEPT),
        (payload(1, "16095170503", "nul \0 and half \ud800 a pair"), OPEN),
        (payload(1, "16095170503", TEXT, sender=None), OPEN),
        ([], KEPT),
        (None, KEPT),
        ("text", KEPT),
        (5, KEPT),
        (b'\xef\xbb\xbf{"event": "with a mark"}', KEPT),
        ('{"event": "sixteen bits"}'.encode("utf-16"), KEPT),
        (b'{"event": "nul \\u0000 escaped"}', KEPT),
        (b'{"order_id": NaN}', KEPT),
    ],
)
def test_whatever_is_json_is_stored_and_answered_200(
    any_store_url: str, simulator: Simulator, make_hook: MakeHook, body: Any, state: str
) -> None:
    hook = make_hook(simulator, any_store_url, callback_secrets=SECRET)
    with receiving([hook]) as receiver:
        assert receiver.post(body) == 200
        assert receiver.post(body) == 200  # once is enough
    assert states(hook) == [state]


@pytest.mark.parametrize(
    "order_id", [str, float, lambda number: f" {number} "], ids=["text", "float", "spaces"]
)
def test_an_id_may_be_written_differently(
    receiver: Receiver, hook: SmsVerifyHook, order: Order, order_id: Callable[[int], Any]
) -> None:
    assert (
        receiver.post(of(order) | {"message": of(order)["message"] | {"order_id": order_id(order.order_id)}})
        == 200
    )
    assert states(hook) == [VERIFIED]


def test_a_deposit_is_stored_and_logged_in_one_line_without_what_it_says(
    receiver: Receiver, hook: SmsVerifyHook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert receiver.post({"amount": 12.34}, f"/callback/{SECRET}/wallet") == 200
    assert receiver.post({"amount": 12.35}, "/api/wallet/callback") == 200
    assert [(row.kind, row.body, row.by_secret) for row in rows(hook)] == [
        ("wallet", '{"amount": 12.34}', True),
        ("wallet", '{"amount": 12.35}', False),
    ]
    ours = [record.message for record in caplog.records if record.name == "smsverify.callback"]
    assert ours == ["A callback about the wallet was stored"] * 2
    assert "12.3" not in caplog.text


# ------------------------------------------------------------------ bodies as nobody documented them


def twice(order: Order) -> bytes:
    """One object with two messages."""
    first, second = (
        json.dumps(of(order, text)["message"]) for text in ("Your code is 111222", "code 333444")
    )
    return f'{{"event": "incoming_message", "message": {first}, "message": {second}}}'.encode()


@pytest.mark.parametrize(
    ("change", "state"),
    [
        (lambda body, order: {**body, "message": [body["message"]]}, UNVERIFIED),
        (lambda body, order: {**body, "message": [{"order_id": 7}, body["message"]]}, UNVERIFIED),
        (lambda body, order: {"data": body}, UNVERIFIED),
        (lambda body, order: [body], UNVERIFIED),
        (lambda body, order: twice(order), UNVERIFIED),
        (lambda body, order: json.dumps(body).encode("utf-8-sig"), VERIFIED),
        (lambda body, order: json.dumps(body).encode("utf-16"), VERIFIED),
        (lambda body, order: json.dumps(body).encode("utf-32-le"), VERIFIED),
        (lambda body, order: json.dumps(body).replace("Your", "F\u00fcr").encode("latin-1"), UNVERIFIED),
        (lambda body, order: json.dumps(body).replace('"paypal"', "1" + "0" * 5000).encode(), VERIFIED),
        (
            lambda body, order: {**body, "message": {**body["message"], "number": float(order.phone_digits)}},
            VERIFIED,
        ),
    ],
    ids=[
        *("a list", "several", "nested", "in a list", "a name twice", "a mark", "16 bits", "32 bits"),
        *("8 bits", "a huge number", "a phone as a float"),
    ],
)
def test_a_genuine_callback_of_another_shape_is_not_lost(
    receiver: Receiver,
    hook: SmsVerifyHook,
    order: Order,
    change: Callable[[dict[str, Any], Order], Any],
    state: str,
) -> None:
    body = change(of(order), order)
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert receiver.post(body) == 200
    assert [row.state for row in rows(hook) if row.order_id == order.order_id] == [state]


@pytest.mark.slow
@pytest.mark.parametrize(
    "order_id",
    [
        "1e30",
        "1e400",
        "-5",
        "9223372036854775808",
        "1" + "0" * 5000,
        '"9e9"',
        "{}",
        "[[]]",
    ],
)
def test_an_id_that_is_none_is_kept(
    any_store_url: str, simulator: Simulator, make_hook: MakeHook, order_id: str
) -> None:
    hook = make_hook(simulator, any_store_url, callback_secrets=SECRET)
    with receiving([hook]) as receiver:
        body = json.dumps(payload("ID", "16095170503")).replace('"ID"', order_id)
        assert receiver.post(body.encode()) == 200
        assert receiver.post(body.encode(), "/api/callback") == 200
    assert states(hook) == [KEPT, KEPT]


def test_a_text_with_what_no_database_keeps_is_one_message_whichever_way_it_comes(
    simulator: Simulator, make_hook: MakeHook, any_store_url: str
) -> None:
    hook = make_hook(simulator, any_store_url, callback_secrets=SECRET)
    order = hook.order("temporary", service="WhatsApp")
    text = "Your code \0is 545123 \ud83d"
    simulator.deliver_sms(order.order_id, text=text, otp="545123")
    with receiving([hook]) as receiver:
        assert receiver.post(of(order, text)) == 200
    assert hook.get_status(order.order_id).otp == "545123"
    assert [row.otp for row in rows(hook, messages)] == ["545123"]


# ------------------------------------------------------------------ a code that nobody waits for any more


def test_a_code_that_came_by_callback_is_handed_out_after_the_time_out(
    receiver: Receiver,
    hook: SmsVerifyHook,
    simulator: Simulator,
    order: Order,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It comes when the wait has ended, and before its order is given back."""
    release = Cancelling.release

    def late(*args: Any, **options: Any) -> bool:
        assert receiver.post(of(order)) == 200
        return release(*args, **options)

    monkeypatch.setattr(Cancelling, "release", late)
    monkeypatch.setattr("smsverify._waiting.schedule.Schedule.is_poll_due", lambda *_: False)
    before = simulator.stats().requests
    assert hook.wait_for_otp(order.order_id, 0.1).otp == "545123"
    assert simulator.stats().requests == before
    assert simulator.order(order.order_id).status == "pending"  # the simulated SMS has not come
    assert hook.get_order(order.order_id).status == "completed"


def test_an_order_is_not_given_back_when_a_callback_has_brought_its_code(
    receiver: Receiver, hook: SmsVerifyHook, simulator: Simulator, order: Order
) -> None:
    assert receiver.post(of(order)) == 200
    before = simulator.stats().requests
    assert hook.release(order.order_id, "nobody needs it") is False
    assert hook.release(order.order_id, "the purchase is undone", undo=True) is False
    assert hook.cancel(order.order_id).otp == "545123"
    assert simulator.stats().requests == before
    report = hook.reconcile(cancel_after=0)
    assert report.cancelled == []
    assert report.to_cancel == []
    assert simulator.order(order.order_id).status == "pending"
    assert hook.check_otp(order.order_id) is not None
    assert hook.reconcile().leaks == []


def test_a_block_with_a_number_keeps_it_when_its_code_came_by_callback(
    receiver: Receiver, hook: SmsVerifyHook, simulator: Simulator
) -> None:
    with hook.rented_number("temporary", service="WhatsApp") as number:
        assert receiver.post(of(number.order)) == 200
        before = simulator.stats().requests
        assert number.wait_for_otp(PATIENT).otp == "545123"
    assert simulator.stats().requests == before


def test_a_code_that_comes_between_the_look_and_the_cancellation_keeps_the_order(
    receiver: Receiver,
    hook: SmsVerifyHook,
    simulator: Simulator,
    order: Order,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look = StatusReader.read

    def late(*args: Any, **options: Any) -> Any:
        status = look(*args, **options)
        assert receiver.post(of(order)) == 200
        return status

    monkeypatch.setattr(StatusReader, "read", late)
    assert hook.release(order.order_id, "nobody needs it") is False
    assert simulator.stats().by_endpoint.get("POST order/{id}/cancel/", 0) == 0
    assert rooms_of(hook).inbox.newest([order.order_id])[order.order_id].otp == "545123"


# ------------------------------------------------------------------ a store that fails


def test_a_locked_store_is_answered_in_time_and_the_repeat_is_taken(
    receiver: Receiver,
    hook: SmsVerifyHook,
    order: Order,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = sqlite3.connect(store_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with monkeypatch.context() as hasty:
        hasty.setattr("smsverify._receiver.receiver.STORE_TIMEOUT", 0.3)
        assert [receiver.post(of(order, f"code {number}")) for number in (100001, 100002)] == [503, 503]
    assert "could not be stored in 0 s" in caplog.text  # so not for what the store says much later
    other.execute("ROLLBACK")
    other.close()
    assert [receiver.post(of(order, f"code {number}")) for number in (100001, 100002)] == [200, 200]
    assert sorted(row.message for row in rows(hook)) == ["code 100001", "code 100002"]


@pytest.mark.slow
def test_a_store_that_is_gone_for_a_while_loses_nothing(
    simulate: Simulate, make_hook: MakeHook, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate(callback_backoff=1.0)
    url = postgres.create_database()
    hook = make_hook(simulator, url, callback_secrets=SECRET)
    order = hook.order("temporary", service="WhatsApp")
    from smsverify._store.store import Store

    is_gone = threading.Event()
    is_gone.set()
    prepare = Store._make_ready

    def gone(store: Store) -> None:
        if is_gone.is_set():
            raise errors.StoreError("the store is gone")
        prepare(store)

    with receiving([hook]) as receiver:
        monkeypatch.setattr(Store, "_make_ready", gone)
        simulator.configure(callback_url=receiver.secret_url)
        simulator.deliver_sms(order.order_id, otp="424242")
        eventually(lambda: any(record.status == 503 for record in simulator.callbacks()), "a refusal")
        is_gone.clear()
        eventually(lambda: any(record.delivered for record in simulator.callbacks()), "the repeat")
    before = asked(simulator)
    assert hook.wait_for_otp(order.order_id, PATIENT).otp == "424242"
    await_end_of_waits()
    assert asked(simulator) == before
