"""One poll: in which order codes that are there are read, and how many of them at a time."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from rigs import eventually
from rigs.waits import Waiting, buy

from smsverify import errors
from smsverify._service.rate_limit import Priority
from smsverify._store.tables import polls, waits
from smsverify._waiting import pace, poller, unanswered
from smsverify._waiting.schedule import Look
from smsverify._waiting.unanswered import Requests
from smsverify.hook import SmsVerifyHook
from smsverify.models import Message, Product
from smsverify.simulator import Fault, Simulator

COUNT = 6


@pytest.fixture
def simulator(simulate: Callable[..., Simulator]) -> Simulator:
    return simulate(balance="100", rate_limit=None)


@pytest.fixture
def hook(simulator: Simulator, make_hook: Callable[..., SmsVerifyHook], store_url: str) -> SmsVerifyHook:
    return make_hook(simulator, store_url, rate_limit=1000)


@pytest.fixture
def order_ids(simulator: Simulator, hook: SmsVerifyHook) -> list[int]:
    """Orders whose codes are there, and for which another process waits. The oldest is the first."""
    bought = awaited(hook)
    for order_id in bought:
        simulator.deliver_sms(order_id, otp="424242")
    return bought


def awaited(hook: SmsVerifyHook, product: Product = "temporary", count: int = COUNT) -> list[int]:
    """Orders that another process waits for."""
    what: Any = {"service": "WhatsApp"} | ({"duration": 3} if product == "rental" else {})
    bought = [hook.order(product, **what).order_id for _ in range(count)]
    schedule = hook._parts.waiter._poller.schedule
    with hook._parts.store.write() as connection:
        now, account = hook._parts.store.now(connection), hook.settings.account_id
        schedule.expect(connection)
        connection.execute(sa.update(polls).values(next_at=now + 1000))
        for order_id in bought:
            row = {"id": uuid.uuid4().hex, "account": account, "order_id": order_id}
            connection.execute(sa.insert(waits).values(**row, since=now, seen_at=now))
    return bought


def poll(hook: SmsVerifyHook, order_ids: list[int]) -> None:
    look = Look(order_ids, Priority.POLL, 4)
    hook._parts.waiter._poller._ask_for([look], lambda: None, Requests())


def poll_for_all(hook: SmsVerifyHook) -> None:
    """The poll as it is when it is due."""
    with hook._parts.store.write() as connection:
        connection.execute(sa.update(polls).values(next_at=0))
    asking = hook._parts.waiter._poller
    due = asking.schedule.claim_due(urgent=False, looks=False, poll=True)
    asking._ask_for(due, lambda: None, Requests())


def with_codes(hook: SmsVerifyHook, order_ids: list[int]) -> set[int]:
    return set(hook._parts.inbox.newest(order_ids))


def test_the_oldest_code_is_read_first(
    simulator: Simulator, hook: SmsVerifyHook, order_ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the schedule ranks the orders: what the list shows does not stay there for ever."""
    monkeypatch.setattr(poller, "READERS", 1)
    poll(hook, random.sample(order_ids, COUNT))
    paths = [request.path for request in simulator.requests() if request.path.endswith("/status/")]
    assert paths == [f"/api/v1/order/{order_id}/status/" for order_id in order_ids]


@pytest.mark.slow
def test_a_read_that_takes_long_does_not_keep_the_others_waiting(
    simulator: Simulator, hook: SmsVerifyHook, order_ids: list[int]
) -> None:
    slow, *others = order_ids
    simulator.add_fault(Fault("slow_after", path=f"order/{slow}/status/", seconds=8))
    polling = threading.Thread(target=poll, args=(hook, order_ids))
    polling.start()
    eventually(lambda: with_codes(hook, order_ids) >= set(others), "reading the other codes")
    assert slow not in with_codes(hook, order_ids)
    polling.join()
    assert with_codes(hook, order_ids) == set(order_ids)


def test_the_next_poll_is_reckoned_from_what_this_one_has_left(
    hook: SmsVerifyHook, order_ids: list[int]
) -> None:
    poll(hook, order_ids)
    with hook._parts.store.read() as connection:
        next_at = connection.execute(sa.select(polls.c.next_at)).scalar_one()
        assert next_at - hook._parts.store.now(connection) < 100


@pytest.mark.slow
def test_an_sms_that_comes_while_a_check_waits_for_its_turn_says_nothing_of_the_list(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller, "CHECKS", 1)
    pending = awaited(hook)
    for rounds in (1, 2):
        simulator.add_fault(Fault("slow_before", "order/*/status/", seconds=poller.CHECKED_WITHIN + 0.5))
        polling = threading.Thread(target=poll, args=(hook, pending))
        polling.start()
        eventually(partial(has_checked, simulator, rounds), "a check")
        checked = pending.pop(0)
        simulator.deliver_sms(checked, otp="424242")
        polling.join()
        assert with_codes(hook, [checked]) == {checked}
    assert misses(hook) == 0


def misses(hook: SmsVerifyHook) -> int:
    with hook._parts.store.read() as connection:
        return int(connection.execute(sa.select(polls.c.list_misses)).scalar_one())


def has_checked(simulator: Simulator, times: int) -> bool:
    return len(status_requests(simulator)) >= times


@pytest.mark.parametrize("lost", ["its read fails", "the poller dies"])
def test_news_of_the_list_stay_news_until_they_were_read(
    lost: str,
    simulate: Callable[..., Simulator],
    make_hook: Callable[..., SmsVerifyHook],
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(poller, "CHECKS", 1000)
    simulator = simulate(balance="100", rate_limit=None, products={"temporary": {"sms_status": "active"}})
    hook = make_hook(simulator, store_url, rate_limit=1000)
    order_ids = awaited(hook)
    poll_for_all(hook)
    simulator.deliver_sms(order_ids[3], otp="424242")
    if lost == "its read fails":
        simulator.add_fault(Fault("error_before", path="order/*/status/", times=None))
        poll_for_all(hook)
        simulator.clear_faults()
    else:
        with monkeypatch.context() as patched:
            patched.setattr(poller, "for_each", lambda *_, **__: None)
            poll_for_all(hook)
    assert with_codes(hook, order_ids) == set()
    for _ in range(2):
        before = len(status_requests(simulator))
        poll_for_all(hook)
    assert with_codes(hook, order_ids) == {order_ids[3]}
    assert len(status_requests(simulator)) == before


# ------------------------------------------------------------------ what the list says nothing of


def status_requests(simulator: Simulator) -> list[str]:
    return [request.path for request in simulator.requests() if request.path.endswith("/status/")]


@pytest.mark.slow
@pytest.mark.parametrize("others", [0, 2], ids=["rentals alone", "beside others"])
def test_a_rental_whose_status_stays_as_it_is_has_its_turn(
    others: int, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    awaited(hook, count=others)
    rentals = awaited(hook, "rental")
    for _ in range(2):
        poll_for_all(hook)
    for order_id in rentals:
        simulator.deliver_sms(order_id, otp="424242")
    for _ in range(2):
        poll_for_all(hook)
    assert with_codes(hook, rentals) == set(rentals)


@pytest.mark.slow
def test_rentals_that_a_code_has_completed_are_asked_for_a_few_at_a_time(
    simulate: Callable[..., Simulator], make_hook: Callable[..., SmsVerifyHook], store_url: str
) -> None:
    """They go on, so they are neither news nor a proof that the list shows completions."""
    simulator = simulate(balance="100", rate_limit=None, products={"rental": {"sms_status": "completed"}})
    hook = make_hook(simulator, store_url, rate_limit=1000)
    awaited(hook, count=2)
    rentals = awaited(hook, "rental")
    for order_id in rentals:
        simulator.deliver_sms(order_id, otp="424242")
        hook.check_otp(order_id)
    for _ in range(3):
        before = len(status_requests(simulator))
        poll_for_all(hook)
        assert len(status_requests(simulator)) - before <= 5  # with one that checks the list
    assert misses(hook) == 0


def test_an_sms_under_a_status_that_stays_as_it_is_speaks_against_the_list(
    simulate: Callable[..., Simulator], make_hook: Callable[..., SmsVerifyHook], store_url: str
) -> None:
    simulator = simulate(balance="100", rate_limit=None, products={"temporary": {"sms_status": "pending"}})
    hook = make_hook(simulator, store_url, rate_limit=1000)
    order_ids = awaited(hook)
    for order_id in order_ids:
        simulator.deliver_sms(order_id, otp="424242")
    for _ in range(2 * poller.CHECKS):
        poll_for_all(hook)
    assert misses(hook) == 2
    for _ in range(2):
        poll_for_all(hook)
    assert with_codes(hook, order_ids) == set(order_ids)


# ------------------------------------------------------------------ what has no answer, or fails


@pytest.mark.slow
@pytest.mark.parametrize("hung", ["orders/", "order/{}/status/", "order/{}/cancel/"])
def test_a_request_that_hangs_keeps_no_other_order_waiting(
    hung: str, simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unanswered, "PATIENCE", 0.2)
    first, *others = buy(hook, 3)
    simulator.add_fault(Fault("slow_before", hung.format(first), seconds=60, times=None))
    if "cancel" in hung:
        hook._parts.orders.releases.request(first, "nobody needs it")
    else:
        Waiting(hook, [first])
        simulator.deliver_sms(first, otp="424242")
    waiting = Waiting(hook, others)
    eventually(lambda: simulator.stats().faults, "the request that hangs")
    for order_id in others:
        simulator.deliver_sms(order_id, otp="424242")
    assert waiting.codes() == ["424242"] * 2
    assert simulator.stats().faults == {"slow_before": 1}
    simulator.stop()  # which ends what hangs
    if "cancel" not in hung:
        hook._parts.inbox.put(Message(order_id=first, otp="424242"))


@pytest.mark.slow
@pytest.mark.parametrize(("broken", "most"), [("orders/", 1), ("order/*/status/", COUNT)])
def test_what_fails_is_asked_for_once_and_then_left_alone_for_a_while(
    broken: str,
    most: int,
    simulator: Simulator,
    hook: SmsVerifyHook,
    order_ids: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("FIRST_PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(unanswered, name, 1e6)
    simulator.add_fault(Fault("error_before", broken, status=503, retry_after=30, times=None))
    for _ in range(3):
        poll_for_all(hook)
    assert simulator.stats().faults == {"error_before": most}


def test_news_that_could_not_be_read_go_first_no_more(hook: SmsVerifyHook, order_ids: list[int]) -> None:
    """Another failure, perhaps a long time ago, says nothing of news."""
    asking = hook._parts.waiter._poller
    failed, *others = order_ids
    asking.troubles.note(failed, errors.ServiceError("refused"), is_of_news=True)
    for order_id in order_ids:
        asking.troubles.note(order_id, errors.ServiceError("refused"))
    questions = asking._worth_asking(Look(order_ids, Priority.POLL, 1), 1, Requests())
    expected = [(order_id, Priority.RELEASE) for order_id in others] + [(failed, Priority.POLL)]
    assert [(one.order_id, one.priority) for one in questions] == expected


@pytest.mark.slow
def test_a_poll_that_a_newer_one_has_overtaken_sends_nothing_more(
    simulator: Simulator, hook: SmsVerifyHook, order_ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newer poll asks for what is left: asked for by both, codes would take twice the requests."""
    monkeypatch.setattr(unanswered, "PATIENCE", 0.2)
    monkeypatch.setattr(poller, "READERS", 1)
    simulator.add_fault(Fault("slow_before", "order/*/status/", seconds=3))
    asking, schedule = hook._parts.waiter._poller, hook._parts.waiter._poller.schedule
    due = [[Look(order_ids, Priority.POLL, 4)], [Look(order_ids[-1:], Priority.POLL)]]
    due.append([Look(order_ids, Priority.POLL, 4)])
    monkeypatch.setattr(schedule, "claim_due", lambda urgent, **_: [] if urgent or not due else due.pop(0))

    def has_begun_all() -> bool:
        asking.ask(lambda: None, looks=True, poll=True)
        return not due

    eventually(has_begun_all, "beginning the newer poll")
    eventually(lambda: not asking._all_requests, "the end of both polls")
    assert with_codes(hook, order_ids) == set(order_ids)
    assert len(status_requests(simulator)) == COUNT + 1  # with the look at one order


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["orders/", "order/*/status/"])
def test_a_poll_that_fails_is_repeated_soon_though_callbacks_bring_the_codes(
    broken: str, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_ids = awaited(hook)
    if "status" in broken:  # which are read where there is news
        for order_id in order_ids:
            simulator.deliver_sms(order_id, otp="424242")
    be_called(hook)
    simulator.add_fault(Fault("error_before", broken, status=503, times=None))
    poll(hook, order_ids)
    store = hook._parts.store
    with store.read() as connection:
        next_at = connection.execute(sa.select(polls.c.next_at)).scalar_one()
        assert next_at - store.now(connection) <= unanswered.LONGEST_PAUSE


def test_a_look_of_a_subscription_that_fails_is_repeated_soon_though_callbacks_come(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "CALLED_SUBSCRIPTION", 60_000.0)
    (order_id,) = awaited(hook, "rental", count=1)
    asking, schedule = hook._parts.waiter._poller, hook._parts.waiter._poller.schedule
    with hook._parts.store.write() as connection:
        schedule.follow(connection, [order_id])
    be_called(hook)
    simulator.add_fault(Fault("error_before", "order/*/status/", status=503))

    def claimed() -> list[Look]:
        return schedule.claim_due(urgent=False, looks=True, poll=False)

    asking._ask_for(claimed(), lambda: None, Requests())
    assert simulator.stats().faults == {"error_before": 1}
    eventually(claimed, "the repetition")


def be_called(hook: SmsVerifyHook) -> None:
    """A callback has come just now."""
    with hook._parts.store.write() as connection:
        connection.execute(sa.update(polls).values(callback_at=hook._parts.store.now(connection)))
