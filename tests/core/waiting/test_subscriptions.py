"""Reading all messages: each once and in order, over restarts, with one consumer at a time."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from rigs import eventually
from rigs.clocks import ahead_of_the_calendar
from rigs.rooms import rooms_of, store_of
from rigs.waits import PATIENT

from smsverify import errors
from smsverify._runtime.clock import DAY
from smsverify._service.rate_limit import RateLimit
from smsverify._store.store import Store, open_store
from smsverify._store.tables import consumers, looks, messages, orders, polls
from smsverify._waiting import pace
from smsverify._waiting.schedule import Schedule
from smsverify._waiting.subscriptions import Consumers, Subscription
from smsverify.hook import SmsVerifyHook
from smsverify.models import Message
from smsverify.simulator import Simulator
from smsverify.wings import assign_messages

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]
NOWHERE = "http://127.0.0.1:9"  # a service that nobody asks


def put(hook: SmsVerifyHook, *numbers: int, order_id: int = 7) -> None:
    for number in numbers:
        assert rooms_of(hook).inbox.put(
            Message(order_id=order_id, otp=f"{number:06}", message=f"Your code is {number:06}")
        )


def rent(hook: SmsVerifyHook) -> int:
    return hook.order("rent-1day", service="Tinder").order_id


def codes(batch: list[tuple[int, Message]]) -> list[int]:
    return [int(message.otp or 0) for _, message in batch]


def read(subscription: Subscription, count: int) -> list[tuple[int, Message]]:
    """The next messages, so many that are there in all."""
    found: list[tuple[int, Message]] = []
    while len(found) < count:
        found += subscription.next().result(PATIENT)
    return found


def started(subscription: Subscription) -> Subscription:
    """Returns when it is the consumer's turn."""
    eventually(lambda: subscription.read_to is not None, "the consumer's turn")
    return subscription


@pytest.fixture
def hook(make_hook: MakeHook, any_store_url: str) -> Any:
    made = make_hook(NOWHERE, any_store_url)
    yield made
    for subscription in rooms_of(made).waiter._subscriptions.current():
        subscription.close()


def test_a_new_consumer_gets_what_comes_from_now_on_in_order(hook: SmsVerifyHook) -> None:
    put(hook, 1, 2)
    subscription = started(hook.subscribe("a"))
    put(hook, 3, 4, 5)
    found = read(subscription, 3)
    assert codes(found) == [3, 4, 5]
    assert [message_id for message_id, _ in found] == sorted(message_id for message_id, _ in found)


def test_it_goes_on_where_it_has_advanced_to(hook: SmsVerifyHook) -> None:
    first = started(hook.subscribe("a"))
    put(hook, 1, 2, 3)
    (one, _), _, _ = read(first, 3)
    first.advance(one)
    first.close()
    put(hook, 4)
    assert codes(read(hook.subscribe("a"), 3)) == [2, 3, 4]


def test_consumers_of_different_names_get_every_message_each(hook: SmsVerifyHook) -> None:
    all_of_them = [started(hook.subscribe(name)) for name in "ab"]
    put(hook, 1, 2)
    assert [codes(read(subscription, 2)) for subscription in all_of_them] == [[1, 2], [1, 2]]


def test_one_that_has_read_further_than_another_gets_nothing_twice(hook: SmsVerifyHook) -> None:
    ahead, behind = (started(hook.subscribe(name)) for name in "ab")
    put(hook, 1, 2)
    read(ahead, 2)
    coming = ahead.next()
    assert codes(read(behind, 2)) == [1, 2]
    put(hook, 3)
    assert codes(coming.result(PATIENT)) == [3]


def test_it_gets_the_messages_of_its_orders_only(hook: SmsVerifyHook) -> None:
    one = started(hook.subscribe("one", order_ids=8))
    two = started(hook.subscribe("two", order_ids=["8", 9]))
    put(hook, 1)
    put(hook, 2, order_id=8)
    put(hook, 3, order_id=9)
    assert codes(read(one, 1)) == [2]
    assert codes(read(two, 2)) == [2, 3]


def test_what_comes_when_its_caller_gives_up_is_there_for_the_next_question() -> None:
    no_consumers: Any = None
    subscription, batch = Subscription(no_consumers, "a consumer", None), [(1, Message(order_id=7))]
    subscription.read_to = 0
    subscription.next().cancel()
    subscription.take(batch)
    asked = subscription.next()
    subscription.take(batch)
    assert asked.result(timeout=0) == batch
    assert subscription.read_to == 1


def test_a_second_one_of_the_same_name_waits_until_the_first_has_ended(hook: SmsVerifyHook) -> None:
    first = started(hook.subscribe("a"))
    put(hook, 1)
    ((message_id, _),) = read(first, 1)
    second = hook.subscribe("a")
    coming = second.next()
    put(hook, 2)
    with pytest.raises(concurrent.futures.TimeoutError):
        coming.result(1.0)
    first.advance(message_id)
    first.close()
    assert codes(coming.result(PATIENT)) == [2]


def test_one_whose_place_was_taken_reads_and_advances_no_more(hook: SmsVerifyHook) -> None:
    subscription = started(hook.subscribe("a"))
    put(hook, 1)
    ((message_id, _),) = read(subscription, 1)
    coming = subscription.next()
    with store_of(hook).write() as connection:
        connection.execute(sa.update(consumers).values(holder="another"))
    with pytest.raises(errors.WaitStoppedError):
        subscription.advance(message_id)
    with pytest.raises(errors.WaitStoppedError):
        coming.result(PATIENT)


def test_the_place_of_one_that_was_killed_is_free_after_a_while(hook: SmsVerifyHook) -> None:
    first = started(hook.subscribe("a"))
    put(hook, 1, 2)
    (one, _), _ = read(first, 2)
    first.advance(one)
    first.close()
    eventually(lambda: not rooms_of(hook).waiter._subscriptions._all, "the end of the subscription")
    last_seen(hook, "killed", 0)
    subscription = hook.subscribe("a")
    with pytest.raises(concurrent.futures.TimeoutError):
        subscription.next().result(1.0)
    last_seen(hook, "killed", -3600)
    assert codes(read(subscription, 1)) == [2]


def last_seen(hook: SmsVerifyHook, holder: str, ago: float) -> None:
    with store_of(hook).write() as connection:
        seen_at = store_of(hook).now(connection) + ago
        connection.execute(sa.update(consumers).values(holder=holder, seen_at=seen_at))


def test_a_message_is_read_by_its_id_until_it_is_purged(hook: SmsVerifyHook) -> None:
    subscription = started(hook.subscribe("a"))
    put(hook, 1)
    ((message_id, message),) = read(subscription, 1)
    assert hook.get_message(message_id) == message
    with store_of(hook).write() as connection:
        connection.execute(sa.update(messages).values(otp=None, message=None))
    for unknown in (message_id, 999_999):
        with pytest.raises(errors.NotFoundError, match=str(unknown)):
            hook.get_message(unknown)
    with pytest.raises(errors.InvalidRequestError) as caught:
        hook.get_message("first")
    assert caught.value.field == "message_id"


def test_a_message_belongs_to_one_run_of_a_handler(hook: SmsVerifyHook) -> None:
    subscription = started(hook.subscribe("a"))
    put(hook, 1, 2, 3)
    ids = [message_id for message_id, _ in read(subscription, 3)]
    assert codes(assign_messages(hook, ids[:2], handler="h", run="one")) == [1, 2]
    assert codes(assign_messages(hook, ids, handler="h", run="two")) == [3]
    assert codes(assign_messages(hook, ids, handler="h", run="one")) == [1, 2]
    assert codes(assign_messages(hook, ids, handler="other", run="two")) == [1, 2, 3]


@pytest.mark.parametrize("wrong", [{"consumer": " "}, {"consumer": "a", "order_ids": ["x"]}])
def test_wrong_arguments_are_refused(hook: SmsVerifyHook, wrong: Any) -> None:
    with pytest.raises(errors.InvalidRequestError):
        hook.subscribe(**wrong)


# ------------------------------------------------------------------ without callbacks


def test_without_callbacks_a_rental_is_asked_for_its_messages(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, store_url)
    order_id = rent(hook)
    subscription = started(hook.subscribe("a"))
    for code in ("111111", "222222"):
        simulator.deliver_sms(order_id, otp=code)
        assert codes(read(subscription, 1)) == [int(code)]
    subscription.close()


@pytest.mark.slow
def test_an_order_of_a_subscription_costs_few_requests_and_one_that_has_ended_none(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, store_url)
    order_ids = [rent(hook) for _ in range(3)]
    short = hook.order("temporary", service="WhatsApp").order_id
    hook.cancel(short)
    subscription = started(hook.subscribe("a", order_ids=[*order_ids, short]))
    eventually(lambda: all(_looks(simulator, order_id) >= 3 for order_id in order_ids), "three looks at each")
    took = time.monotonic()
    first = simulator.stats().requests
    eventually(lambda: all(_looks(simulator, order_id) >= 9 for order_id in order_ids), "nine looks at each")
    minutes = (time.monotonic() - took) / simulator.rate_period
    assert simulator.stats().requests - first <= 3 * len(order_ids) * minutes + 3
    assert _looks(simulator, short) <= 1
    subscription.close()


@pytest.mark.slow
def test_an_order_that_is_not_there_is_logged_once_and_asked_for_once(
    simulate: Simulate, make_hook: MakeHook, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, store_url)
    subscription = started(hook.subscribe("a", order_ids=999))
    eventually(lambda: "999" in caplog.text, "the complaint")
    time.sleep(2 * simulator.rate_period)
    assert caplog.text.count("the service does not know it") == 1
    assert [request.path for request in simulator.requests()] == ["/api/v1/order/999/status/"]
    subscription.close()


def test_a_rental_that_is_long_over_is_not_asked_for(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, store_url)
    over, running = rent(hook), rent(hook)
    with open_store(store_url).write() as connection:
        is_over = orders.c.order_id == over
        connection.execute(sa.update(orders).where(is_over).values(expires_at=time.time() - 100_000))
    subscription = started(hook.subscribe("a"))
    eventually(lambda: _looks(simulator, running) >= 2, "two looks at the other")
    assert _looks(simulator, over) == 0
    subscription.close()


def test_a_rental_is_asked_for_until_its_end_by_the_calendar(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    ahead_of_the_calendar(store_url, 3 * DAY)
    simulator = simulate()
    hook = make_hook(simulator, store_url)
    order_id = rent(hook)
    with open_store(store_url).write() as connection:
        connection.execute(sa.update(orders).values(expires_at=time.time() + 3600))
    subscription = started(hook.subscribe("a"))
    eventually(lambda: _looks(simulator, order_id) >= 2, "two looks", timeout=20)
    simulator.deliver_sms(order_id, otp="111111")
    assert codes(read(subscription, 1)) == [111111]
    subscription.close()


def test_a_calendar_that_is_ahead_ends_no_rental_of_a_subscription(
    simulate: Simulate, make_hook: MakeHook, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, store_url)
    order_id = hook.order("rental", service="WhatsApp", duration=3).order_id
    right = Store.wall
    monkeypatch.setattr(Store, "wall", lambda self, connection: right(self, connection) + 400 * DAY)
    subscription = started(hook.subscribe("a"))
    eventually(lambda: _looks(simulator, order_id) >= 2, "two looks", timeout=20)
    subscription.close()


@pytest.mark.parametrize(("is_called", "pause"), [(False, 20), (True, 600)])
def test_each_order_of_a_subscription_is_asked_for_now_and_then(
    store_url: str, is_called: bool, pause: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(store_url)
    times = [1_800_000_000.0]
    monkeypatch.setattr(Store, "now", lambda self, connection: times[-1])
    schedule = Schedule(store, RateLimit(store, "key", limit=60, period=60.0, lease=5.0), "mine")
    reading = Consumers(store, schedule, "mine", time_scale=1.0)
    assert reading.take("a", "me") == 0

    def due_after(seconds: float) -> list[int]:
        times.append(times[-1] + seconds)
        assert reading.keep("a", "me", [1, 2])
        with store.write() as connection:
            connection.execute(sa.update(polls).values(callback_at=times[-1] if is_called else None))
        due = schedule.claim_due(urgent=False, looks=True, poll=False)
        return [order_id for look in due for order_id in look.order_ids]

    assert due_after(0) == [1]
    assert due_after(2) == []  # the other one has to wait a little, too
    assert due_after(2) == [2]
    assert due_after(pause - 5) == []
    assert due_after(2) == [1]
    assert due_after(4) == [2]


def _looks(simulator: Simulator, order_id: int) -> int:
    return simulator.order(order_id).status_requests


def test_a_callback_that_proves_nothing_lets_an_order_of_a_subscription_be_looked_at(
    simulate: Simulate, make_hook: MakeHook, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "CALLED_SUBSCRIPTION", 60_000.0)  # without it, nobody would look for long
    simulator = simulate()
    hook = make_hook(simulator, store_url)
    order_id = rent(hook)
    subscription = started(hook.subscribe("a"))

    def receive() -> bool:
        with open_store(store_url).write() as connection:
            connection.execute(sa.update(polls).values(callback_at=time.time()))
            seen = sa.update(looks).where(looks.c.status_at.is_not(None))
            called = seen.values(next_at=time.time(), by_secret=True, tries=0)
            return bool(connection.execute(called).rowcount)

    eventually(receive, "the first look")
    simulator.deliver_sms(order_id, text="We are open again")
    ((_, message),) = read(subscription, 1)
    assert (message.otp, message.message) == (None, "We are open again")
    subscription.close()


def with_a_refused_key(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> tuple[SmsVerifyHook, int]:
    """A hook whose key the service refuses, and a rental, whose messages consumer "a" has begun to read."""
    accepted = make_hook(simulator, store_url, account="mine")
    order_id = rent(accepted)
    started(accepted.subscribe("a", order_ids=order_id)).close()
    return make_hook(simulator, store_url, account="mine", api_key="wrong"), order_id


def test_a_refused_key_ends_it_once_what_it_has_delivered_is_dealt_with(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    hook, order_id = with_a_refused_key(simulate(), make_hook, store_url)
    put(hook, 1, order_id=order_id)
    subscription = started(hook.subscribe("a", order_ids=order_id))
    eventually(lambda: subscription.refusal, "the refusal")
    ((message_id, _),) = read(subscription, 1)
    subscription.advance(message_id)
    with pytest.raises(errors.AuthenticationError):
        subscription.next().result(PATIENT)
    put(hook, 2, order_id=order_id)
    again = started(hook.subscribe("a", order_ids=order_id))
    assert codes(read(again, 1)) == [2]
    again.close()


@pytest.mark.slow
def test_a_refused_key_is_not_tried_again_and_again(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate()
    hook, order_id = with_a_refused_key(simulator, make_hook, store_url)
    subscription = started(hook.subscribe("a", order_ids=order_id))
    with pytest.raises(errors.AuthenticationError):
        subscription.next().result(PATIENT)
    again = started(hook.subscribe("a", order_ids=order_id))
    time.sleep(2 * simulator.rate_period)
    assert refusals(simulator) == 1
    again.close()


def refusals(simulator: Simulator) -> int:
    return sum(request.status == 401 for request in simulator.requests())
