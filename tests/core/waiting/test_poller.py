"""One poll: in which order codes that are there are read, and how many of them at a time."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable
from functools import partial

import pytest
import sqlalchemy as sa
from rigs import eventually

from smsverify._store.tables import polls, waits
from smsverify._waiting import poller
from smsverify.hook import SmsVerifyHook
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


def awaited(hook: SmsVerifyHook) -> list[int]:
    """Orders that another process waits for."""
    bought = [hook.order("temporary", service="WhatsApp").order_id for _ in range(COUNT)]
    with hook._parts.store.write() as connection:
        now, account = hook._parts.store.now(connection), hook.settings.account_id
        hook._parts.waiter._poller.schedule.expect(connection)
        connection.execute(sa.update(polls).values(next_at=now + 1000))
        for order_id in bought:
            row = {"id": uuid.uuid4().hex, "account": account, "order_id": order_id}
            connection.execute(sa.insert(waits).values(**row, since=now, seen_at=now))
    return bought


def poll(hook: SmsVerifyHook, order_ids: list[int]) -> None:
    hook._parts.waiter._poller._poll(order_ids, 4, lambda: None)


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
    with hook._parts.store.read() as connection:
        assert connection.execute(sa.select(polls.c.list_misses)).scalar_one() == 0


def has_checked(simulator: Simulator, times: int) -> bool:
    paths = [request.path for request in simulator.requests()]
    return sum(path.endswith("/status/") for path in paths) >= times
