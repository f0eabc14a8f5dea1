"""Old rows go; what was bought, what is unfinished and what readers count on stays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from rigs.bulk import fill_history

from smsverify._messages.callbacks import VERIFIED, Callback
from smsverify._store import tables
from smsverify._store.tables import metadata
from smsverify._upkeep import pruning
from smsverify.errors import InvalidRequestError
from smsverify.hook import SmsVerifyHook
from smsverify.models import Message
from smsverify.simulator import Simulator

DAY = 86_400.0
MONEY = ("purchases", "orders", "attempts", "days", "releases", "accounts", "locks", "consumers", "balances")


@pytest.fixture
def hook(simulator: Simulator, make_hook: Callable[..., SmsVerifyHook], any_store_url: str) -> SmsVerifyHook:
    return make_hook(simulator, any_store_url)


def counts(hook: SmsVerifyHook) -> dict[str, int]:
    return {name.removeprefix("smsverify_"): count for name, count in hook.check_store().rows.items()}


def age(hook: SmsVerifyHook, days: float) -> None:
    """Makes all that may be pruned so many days older, and purges the texts."""
    times = {
        tables.messages: ("came_at",),
        tables.callbacks: ("received_at",),
        tables.handled: ("since",),
        tables.waits: ("seen_at",),
        tables.looks: ("status_at", "asked_at"),
        tables.kept: ("at",),
        tables.queue: ("seen_at",),
    }
    with hook._parts.store.write() as connection:
        for table, names in times.items():
            connection.execute(sa.update(table).values({name: table.c[name] - days * DAY for name in names}))
        connection.execute(sa.update(tables.messages).values(otp=None, message=None))


def last_id(hook: SmsVerifyHook) -> int:
    with hook._parts.store.read() as connection:
        return int(connection.execute(sa.select(sa.func.max(tables.messages.c.id))).scalar_one())


def count_seen_since(hook: SmsVerifyHook, ago: float) -> int:
    store = hook._parts.store
    with store.read() as connection:
        is_younger = tables.orders.c.first_seen_at >= store.now(connection) - ago
        counting = sa.select(sa.func.count()).select_from(tables.orders).where(is_younger)
        return int(connection.execute(counting).scalar_one())


def shown(order_id: int, text: str) -> Message:
    return Message(order_id=order_id, otp=text[-6:], message=text)


def test_it_counts_first_and_removes_only_old_rows_and_none_of_money(hook: SmsVerifyHook) -> None:
    fill_history(hook, 400, days=200.0)
    before = counts(hook)
    younger = count_seen_since(hook, 100 * DAY)
    report = hook.prune_store(timedelta(days=100))
    assert (report.dry_run, counts(hook)) == (True, before)
    seen: list[tuple[int, int]] = []
    done = hook.prune_store(timedelta(days=100), dry_run=False, on_progress=lambda *now: seen.append(now))
    assert (done.dry_run, done.rows) == (False, report.rows)
    after = counts(hook)
    assert {name: after[name] for name in MONEY if name != "locks"} == {
        name: before[name] for name in MONEY if name != "locks"
    }
    # How many orders of these 200 days are older than 100 depends on the time of day.
    assert (after["messages"], after["looks"]) == (2 * younger, younger)
    assert 0.9 * before["looks"] / 2 < younger < before["looks"] / 2
    assert seen[-1] == (sum(report.rows.values()),) * 2
    assert not any(hook.prune_store(timedelta(days=100)).rows.values())
    assert set(report.rows) <= {table.name for table in metadata.sorted_tables}


@pytest.mark.parametrize("given", [0, DAY - 1, timedelta(hours=23), 1e12])
def test_what_is_younger_than_a_day_is_never_removed(given: Any, hook: SmsVerifyHook) -> None:
    with pytest.raises(InvalidRequestError, match="a day at least"):
        hook.prune_store(given, dry_run=False)


def test_an_sms_that_its_status_still_shows_is_not_taken_for_a_new_one(hook: SmsVerifyHook) -> None:
    rental = hook.order("rent-1day", service="WhatsApp").order_id
    other = hook.order("temporary", service="WhatsApp").order_id
    inbox = hook._parts.inbox
    for order_id, text in ((rental, "first 111111"), (rental, "second 222222"), (other, "other 333333")):
        assert inbox.put(shown(order_id, text))
    age(hook, 50)
    hook.prune_store(30 * DAY, dry_run=False)
    assert counts(hook)["messages"] == 1  # the newest one
    assert not inbox.put(shown(rental, "second 222222"))
    assert not inbox.put(shown(other, "other 333333"))
    phone = hook.get_order(rental).phone
    repeat = Callback(by_secret=True, kind="sms", is_documented=True, order_id=rental, phone=phone,
                      message="second 222222")  # fmt: skip
    assert inbox.take(repeat) == VERIFIED
    assert counts(hook)["messages"] == 1
    assert inbox.put(shown(rental, "third 444444"))


def test_readers_go_on_where_they_were(hook: SmsVerifyHook) -> None:
    order_id = hook.order("rent-1day", service="WhatsApp").order_id
    inbox = hook._parts.inbox
    for number in range(5):
        inbox.put(shown(order_id, f"old {100_000 + number}"))
    cursor = last_id(hook)
    age(hook, 50)
    hook.prune_store(30 * DAY, dry_run=False)
    assert last_id(hook) == cursor
    inbox.put(shown(order_id, "new 222222"))
    ((newest, message),) = inbox.since(cursor)
    assert (newest > cursor, message.otp) == (True, "222222")


def test_texts_that_can_be_read_stay(hook: SmsVerifyHook) -> None:
    order_id = hook.order("temporary", service="WhatsApp").order_id
    inbox = hook._parts.inbox
    for number in range(3):
        inbox.put(shown(order_id, f"code {100_000 + number}"))
    with hook._parts.store.write() as connection:
        connection.execute(sa.update(tables.messages).values(came_at=tables.messages.c.came_at - 3 * DAY))
    hook.prune_store(2 * DAY, dry_run=False)
    assert len(inbox.all_of([order_id])[order_id]) == 3


def test_a_key_buys_nothing_twice_afterwards(hook: SmsVerifyHook, simulator: Simulator) -> None:
    bought = hook.order("temporary", service="WhatsApp", key="k")
    age(hook, 50)
    hook.prune_store(30 * DAY, dry_run=False)
    assert hook.order("temporary", service="WhatsApp", key="k").order_id == bought.order_id
    assert len(simulator.orders()) == 1


def test_an_order_that_is_waited_for_keeps_what_was_seen_of_it(hook: SmsVerifyHook) -> None:
    order_id = hook.order("temporary", service="WhatsApp").order_id
    account = hook.settings.account_id
    with hook._parts.store.write() as connection:
        now = hook._parts.store.now(connection)
        connection.execute(
            sa.insert(tables.looks).values(account=account, order_id=order_id, status_at=now - 50 * DAY)
        )
        connection.execute(
            sa.insert(tables.waits).values(
                id="w", account=account, order_id=order_id, since=now - 50 * DAY, seen_at=now
            )
        )
    hook.prune_store(30 * DAY, dry_run=False)
    assert (counts(hook)["looks"], counts(hook)["waits"]) == (1, 1)


def test_a_run_that_is_stopped_says_so_and_the_next_one_goes_on(
    hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "BATCH", 10)
    fill_history(hook, 100, days=200.0)
    stop = threading.Event()
    report = hook.prune_store(100 * DAY, dry_run=False, stop=stop, on_progress=lambda *_: stop.set())
    assert (report.stopped, sum(report.rows.values())) == (True, 10)
    assert "goes on where it was" in report.as_text()
    rest = hook.prune_store(100 * DAY, dry_run=False)
    assert not rest.stopped
    assert not any(hook.prune_store(100 * DAY).rows.values())


def test_messages_come_in_while_old_ones_go(hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "BATCH", 10)
    fill_history(hook, 300, days=200.0)
    order_id = hook.order("rent-1day", service="WhatsApp").order_id
    cursor, numbers = last_id(hook), range(30)
    pruner = threading.Thread(target=lambda: hook.prune_store(100 * DAY, dry_run=False))
    pruner.start()
    for number in numbers:
        hook._parts.inbox.put(shown(order_id, f"code {100_000 + number}"))
    pruner.join(60)
    assert [message.otp for _, message in hook._parts.inbox.since(cursor)] == [
        str(100_000 + number) for number in numbers
    ]
