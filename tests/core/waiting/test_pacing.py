"""Who gets the account's requests when they are scarce: money back, codes, polls, purchases; none starves."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial

import pytest
import sqlalchemy as sa
from rigs import eventually
from rigs.clocks import later
from rigs.rate_limits import LONGER
from rigs.rooms import rooms_of, store_of

from smsverify import RateLimitedError, SmsVerifyHook
from smsverify._orders.records import Records
from smsverify._service.rate_limit import Priority, RateLimit
from smsverify._service.turns import HEAD_START, Sharing
from smsverify._store.store import Store, open_store
from smsverify._store.tables import messages, polls, waits
from smsverify._waiting.schedule import Awaited, Schedule, by_turn
from smsverify.models import Order, Product

LIMIT = 15
SHARE = 6  # of purchases, while codes are polled for


@pytest.fixture
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the store, but what `later` lets pass."""
    monkeypatch.setattr(Store, "now", lambda self, connection: 1_800_000_000.0)


@pytest.fixture
def rate_limit(any_store_url: str, no_time_passes: None) -> RateLimit:
    return RateLimit(open_store(any_store_url), "key", limit=LIMIT, period=60.0, lease=5.0)


def take(rate_limit: RateLimit, priority: Priority, count: int = 1) -> None:
    for _ in range(count):
        with rate_limit.acquire(priority, deadline=time.monotonic() + 30):
            pass


def refusal(rate_limit: RateLimit, priority: Priority) -> float:
    """For how long the rate limit says that nothing of this class may be sent."""
    with pytest.raises(RateLimitedError) as caught, rate_limit.acquire(priority, deadline=time.monotonic()):
        pass
    assert caught.value.retry_after is not None
    return caught.value.retry_after


def polled(rate_limit: RateLimit, is_polled: bool = True) -> None:
    with rate_limit.store.write() as connection:
        rate_limit.codes_are_polled_for(connection, is_polled)


# ------------------------------------------------------------------ purchases and the reads of their codes


def test_purchases_leave_the_slots_that_reading_their_codes_takes(rate_limit: RateLimit) -> None:
    take(rate_limit, Priority.PURCHASE, SHARE)
    polled(rate_limit)
    assert 50 < refusal(rate_limit, Priority.PURCHASE) <= 60
    take(rate_limit, Priority.RELEASE, LIMIT - SHARE)


def test_purchases_leave_one_slot_of_twenty_free(
    any_store_url: str, no_time_passes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate_limit = RateLimit(open_store(any_store_url), "key", limit=20, period=60.0, lease=5.0)
    take(rate_limit, Priority.POLL, 17)
    later(monkeypatch, 57)  # so many come back soon that none has to be kept for what gives money back
    polled(rate_limit)
    take(rate_limit, Priority.PURCHASE, 2)
    assert 2 < refusal(rate_limit, Priority.PURCHASE) <= 4
    take(rate_limit, Priority.RELEASE)


def test_a_purchase_takes_the_place_of_one_that_is_a_period_old(
    rate_limit: RateLimit, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(rate_limit, Priority.PURCHASE, SHARE)
    later(monkeypatch, 40)
    polled(rate_limit)
    assert 10 < refusal(rate_limit, Priority.PURCHASE) <= 21
    later(monkeypatch, 21)
    take(rate_limit, Priority.PURCHASE, SHARE)
    assert refusal(rate_limit, Priority.PURCHASE) > 30


def test_who_only_buys_is_held_up_for_a_moment_and_then_has_all_there_is(
    rate_limit: RateLimit, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(rate_limit, Priority.PURCHASE, SHARE)
    assert 5 < refusal(rate_limit, Priority.PURCHASE) <= 10
    later(monkeypatch, 11)
    take(rate_limit, Priority.PURCHASE, LIMIT - SHARE)
    assert 40 < refusal(rate_limit, Priority.PURCHASE) <= 50


@pytest.mark.parametrize("how", ["the polls end", "callbacks take their place"])
def test_purchases_have_all_there_is_when_codes_are_not_polled_for_any_more(
    how: str, rate_limit: RateLimit, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(rate_limit, Priority.PURCHASE, SHARE)
    polled(rate_limit)
    later(monkeypatch, 11)
    assert refusal(rate_limit, Priority.PURCHASE) > 30
    if how == "the polls end":
        take(rate_limit, Priority.RELEASE)
        later(monkeypatch, 50)
        take(rate_limit, Priority.PURCHASE, SHARE)
        later(monkeypatch, 11)
    else:
        polled(rate_limit, False)
    take(rate_limit, Priority.PURCHASE)


def sharing(store_url: str, *, code_latency: float = 5.0, expects_polls: bool = True) -> RateLimit:
    how = Sharing(code_latency, expects_polls)
    return RateLimit(open_store(store_url), "key", limit=LIMIT, period=60.0, lease=5.0, sharing=how)


@pytest.mark.usefixtures("no_time_passes")
def test_the_longer_a_code_may_lie_the_more_numbers_are_ordered_ahead(any_store_url: str) -> None:
    take(sharing(any_store_url), Priority.PURCHASE, SHARE)
    polled(sharing(any_store_url))
    for code_latency, more in [(2.0, 0), (20.0, 1), (40.0, 5)]:
        rate_limit = sharing(any_store_url, code_latency=code_latency)
        take(rate_limit, Priority.PURCHASE, more)
        assert refusal(rate_limit, Priority.PURCHASE) > 30


@pytest.mark.usefixtures("no_time_passes")
def test_numbers_are_ordered_ahead_on_idle_slots_alone(
    any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate_limit = sharing(any_store_url, code_latency=40.0)
    take(rate_limit, Priority.PURCHASE, 12)
    polled(rate_limit)
    assert refusal(rate_limit, Priority.PURCHASE) > 30
    for seconds, more in [(62, 7), (62, 7), (130, 12)]:  # the slots that came back are for codes, too
        later(monkeypatch, seconds)
        polled(rate_limit)
        take(rate_limit, Priority.PURCHASE, more)
        assert refusal(rate_limit, Priority.PURCHASE) > 30


@pytest.mark.usefixtures("no_time_passes")
def test_a_slot_whose_request_was_not_sent_stays_idle(
    any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate_limit = sharing(any_store_url, code_latency=40.0)
    with rate_limit.acquire(Priority.PURCHASE, deadline=time.monotonic() + 30) as slot:
        slot.release_unused()
    later(monkeypatch, 1)
    polled(rate_limit)
    take(rate_limit, Priority.PURCHASE, 12)


@pytest.mark.usefixtures("no_time_passes")
def test_a_slot_that_has_come_back_is_for_codes_first_where_numbers_are_ordered_ahead(
    any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate_limit, period = sharing(any_store_url, code_latency=40.0), 60.0
    take(rate_limit, Priority.PURCHASE, 12)
    take(rate_limit, Priority.READ, LIMIT - 12)
    later(monkeypatch, period * LONGER)
    polled(rate_limit)
    take(rate_limit, Priority.PURCHASE)  # nobody starves
    assert 0 < refusal(rate_limit, Priority.PURCHASE) <= HEAD_START
    take(rate_limit, Priority.RELEASE, 10)
    later(monkeypatch, HEAD_START)
    take(rate_limit, Priority.PURCHASE, 2)


@pytest.mark.usefixtures("no_time_passes")
def test_where_callbacks_are_configured_purchases_are_held_back_by_polls_alone(any_store_url: str) -> None:
    rate_limit = sharing(any_store_url, expects_polls=False)
    take(rate_limit, Priority.PURCHASE, SHARE + 2)
    polled(rate_limit)
    assert refusal(rate_limit, Priority.PURCHASE) > 30
    polled(rate_limit, False)
    take(rate_limit, Priority.PURCHASE, LIMIT - SHARE - 2)


def test_those_far_behind_learn_how_long_the_share_of_the_purchases_will_take(
    rate_limit: RateLimit,
) -> None:
    take(rate_limit, Priority.READ)
    polled(rate_limit)
    take(rate_limit, Priority.PURCHASE, SHARE)
    stop = threading.Event()

    def wait() -> None:
        with (
            contextlib.suppress(Exception),
            rate_limit.acquire(Priority.PURCHASE, deadline=time.monotonic() + 300, stop=stop),
        ):
            pass

    waiting = [threading.Thread(target=wait) for _ in range(SHARE)]
    for number, thread in enumerate(waiting, 1):
        thread.start()
        eventually(partial(_is_waiting, rate_limit, number), "standing in the queue")
    # Those in the queue have the next period; they may not be polled for any more by then.
    assert 50 < refusal(rate_limit, Priority.PURCHASE) <= 60
    stop.set()
    for thread in waiting:
        thread.join()


def _is_waiting(rate_limit: RateLimit, count: int) -> bool:
    return rate_limit.state().waiting == count


# ------------------------------------------------------------------ none starves


def served(store_url: str, taken: list[Priority], waiting: list[Priority]) -> list[Priority]:
    """Takes all slots for these, lets others come, gives one slot back; returns who was served when."""
    rate_limit = RateLimit(open_store(store_url), "key", limit=LIMIT, period=2.0, lease=60.0)
    order: list[Priority] = []

    def wait(priority: Priority) -> None:
        with rate_limit.acquire(priority, deadline=time.monotonic() + 300) as slot:
            order.append(priority)
            slot.release_unused()

    with contextlib.ExitStack() as stack:
        for priority in taken:
            slot = stack.enter_context(rate_limit.acquire(priority, deadline=time.monotonic() + 30))
        threads = [threading.Thread(target=wait, args=(priority,), daemon=True) for priority in waiting]
        for number, thread in enumerate(threads, 1):
            thread.start()
            eventually(partial(_is_waiting, rate_limit, number), "standing in the queue")
        slot.release_unused()
        for thread in threads:
            thread.join(60)
    return order


@pytest.mark.slow
def test_no_flood_of_one_class_keeps_the_others_out(any_store_url: str) -> None:
    """The first slot of a class goes before all that other classes have had enough of."""
    come = [Priority.RELEASE, Priority.PURCHASE, Priority.RELEASE, Priority.READ, Priority.POLL]
    order = served(any_store_url, [Priority.RELEASE] * LIMIT, come)
    assert order == [Priority.POLL, Priority.READ, Priority.PURCHASE, Priority.RELEASE, Priority.RELEASE]


@pytest.mark.slow
def test_who_has_had_a_share_waits_for_those_before(any_store_url: str) -> None:
    taken = [Priority.POLL, Priority.READ, Priority.PURCHASE, *[Priority.RELEASE] * (LIMIT - 3)]
    come = [Priority.PURCHASE, Priority.READ, Priority.POLL, Priority.RELEASE]
    order = served(any_store_url, taken, come)
    assert order == [Priority.RELEASE, Priority.POLL, Priority.READ, Priority.PURCHASE]


# ------------------------------------------------------------------ telling


def test_a_tight_rate_limit_is_logged_once_and_again_when_it_was_easy_meanwhile(
    rate_limit: RateLimit, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "smsverify.service.rate_limit")
    stop = threading.Event()
    stop.set()

    def wait_in_vain() -> None:
        with (
            contextlib.suppress(Exception),
            rate_limit.acquire(Priority.POLL, deadline=time.monotonic() + 300, stop=stop),
        ):
            pass

    for round_ in (1, 2):
        take(rate_limit, Priority.POLL, LIMIT)
        for _ in range(3):
            wait_in_vain()
        assert caplog.text.count("are used up") == round_
        later(monkeypatch, 61)


# ------------------------------------------------------------------ polls


class Account:
    """An account whose waits and requests are as a test says; nothing is sent."""

    def __init__(self, hook: SmsVerifyHook) -> None:
        self.hook = hook
        self.store, self.name = store_of(hook), hook.settings.account_id
        self.rate_limit = rooms_of(hook).rate_limit
        self.schedule = Schedule(self.store, self.rate_limit, self.name)
        with self.store.write() as connection:
            self.schedule.expect(connection)

    def wait(self, *ages: float, product: Product | None = "temporary", status: str = "pending") -> None:
        """Somebody has waited for so many seconds, for an order of his own each."""
        records = Records(self.store, self.name)
        with self.store.write() as connection:
            now = self.store.now(connection)
            for age in ages:
                order_id = uuid.uuid4().int % 10**9
                records.put(connection, Order(order_id=order_id, product=product, status=status))
                row = {"id": uuid.uuid4().hex, "account": self.name, "order_id": order_id}
                connection.execute(sa.insert(waits).values(**row, since=now - age, seen_at=now))

    def wait_no_more(self) -> None:
        with self.store.write() as connection:
            connection.execute(sa.delete(waits))

    def poll(self) -> tuple[int, float]:
        """For how many orders a poll that is due is made, and seconds until the next one."""
        with self.store.write() as connection:
            connection.execute(sa.update(polls).values(next_at=0))
        claimed = self.schedule.claim_due(urgent=False, looks=False, poll=True)
        self.one_by_one = claimed[0].one_by_one if claimed else None
        return sum(len(look.order_ids) for look in claimed), self.next_poll()

    def next_poll(self) -> float:
        with self.store.read() as connection:
            next_at = connection.execute(sa.select(polls.c.next_at)).scalar_one()
            return round(next_at - self.store.now(connection), 1)

    def take(self, priority: Priority, count: int) -> None:
        take(self.rate_limit, priority, count)

    def receive(self, *, ago: float, called: bool) -> None:
        """A code has come so long ago, by a callback or by a poll."""
        with self.store.write() as connection:
            at = self.store.now(connection) - ago
            row = {"account": self.name, "order_id": 1, "otp": "123456"}
            insert = sa.insert(messages).values(
                **row, received_at=at, came_at=at, called_at=at if called else None
            )
            connection.execute(insert)
            if called:
                connection.execute(sa.update(polls).values(callback_at=at))


@pytest.fixture
def account(make_hook: Callable[..., SmsVerifyHook], any_store_url: str, no_time_passes: None) -> Account:
    return Account(make_hook("http://127.0.0.1:9", any_store_url, rate_limit=60, rate_period=60.0))


def test_one_who_waits_is_served_every_second_and_a_half(account: Account) -> None:
    account.wait(3)
    assert account.poll() == (1, 1.5)


def test_many_who_wait_are_served_as_fast_as_one_while_the_rate_limit_is_idle(account: Account) -> None:
    account.wait(*range(15))
    assert account.poll() == (15, 1.5)


def test_polls_take_what_purchases_and_codes_yet_to_come_leave(account: Account) -> None:
    account.wait(*range(10))
    account.take(Priority.PURCHASE, 18)
    assert account.poll() == (10, 2.0)  # 60 - 2 - 18 - 10 = 30 in a minute
    account.take(Priority.READ, 10)
    assert account.poll() == (10, 3.0)
    account.take(Priority.RELEASE, 18)  # more than there are fresh orders: so it will go on
    assert account.poll() == (10, 5.0)
    account.take(Priority.READ, 10)
    assert account.poll() == (10, 10.0)


def test_long_waits_leave_no_room_for_codes_that_hardly_come(account: Account) -> None:
    account.take(Priority.PURCHASE, 17)
    account.wait(*range(100, 110))
    assert account.poll() == (10, 1.5)


def test_orders_that_are_asked_for_one_by_one_share_what_is_left(account: Account) -> None:
    with account.store.write() as connection:
        connection.execute(sa.update(polls).values(list_misses=2))  # the list is blind
    account.wait(*range(20))
    account.take(Priority.PURCHASE, 18)
    assert account.poll() == (20, 6.0)  # four at a time, 40 in a minute
    assert account.one_by_one == 4
    account.take(Priority.READ, 34)
    assert account.poll() == (20, 10.0)
    assert account.one_by_one == 1


@pytest.mark.parametrize("product", ["rental", "rent-1day", None])
def test_orders_that_may_get_several_sms_are_asked_for_one_by_one(
    product: Product | None, account: Account
) -> None:
    account.wait(*range(100, 120), product=product, status="active")
    account.wait(100, product=product)
    assert account.poll() == (21, 4.1)  # four at a time, and no list: 58 in a minute
    assert account.one_by_one == 4
    account.wait(100)
    account.schedule.unlisted = 21
    assert account.poll() == (22, 5.2)  # the list for the two that are pending, and four at a time


def test_fresh_orders_are_asked_for_more_often_than_old_ones() -> None:
    fresh, old, never = Awaited(1, 20, 10), Awaited(2, 600, 100), Awaited(3, 300, 300)
    assert by_turn([old, fresh, never]) == [3, 1, 2]
    assert by_turn([fresh, Awaited(2, 600, 400)]) == [2, 1]  # but no old one is forgotten
    assert by_turn([Awaited(4, 90, 90), Awaited(5, 2, 2)]) == [5, 4]


# ------------------------------------------------------------------ polls while callbacks come


def test_while_callbacks_come_a_wait_is_polled_for_late_and_ever_more_rarely(account: Account) -> None:
    account.receive(ago=50, called=True)
    for age, orders, pause in [(0, 0, 15), (5, 0, 10), (15, 1, 15), (40, 1, 40), (3000, 1, 120)]:
        account.wait_no_more()
        account.wait(age)
        assert account.poll() == (orders, pause)
    account.wait(*[5] * 30)
    assert account.poll() == (31, 15)


def test_callbacks_that_have_brought_all_of_late_are_trusted_for_a_minute(account: Account) -> None:
    for number in range(10):
        account.wait_no_more()
        account.wait(20)
        assert account.poll() == ((1, 20) if number else (1, 1.5))
        account.receive(ago=59 - number, called=True)
    for age, orders, pause in [(0, 0, 60), (20, 0, 40), (60, 1, 60), (100, 1, 100)]:
        account.wait_no_more()
        account.wait(age)
        assert account.poll() == (orders, pause)
    account.poll()
    with account.store.write() as connection:
        account.schedule.expect(connection)
    assert account.next_poll() == 60
    account.receive(ago=2, called=False)
    account.wait(20)
    assert account.poll() == (2, 20)


def test_callbacks_that_have_brought_all_but_a_while_ago_are_not(account: Account) -> None:
    for _ in range(10):
        account.receive(ago=61, called=True)
    account.wait(20)
    assert account.poll() == (1, 20)


def test_a_new_wait_is_polled_for_in_time_though_the_long_ones_are_not(account: Account) -> None:
    account.receive(ago=50, called=True)
    account.wait(3000)
    assert account.poll() == (1, 120)
    with account.store.write() as connection:
        account.schedule.expect(connection)
    assert account.next_poll() == 15


def test_when_callbacks_stop_polls_are_fast_again_until_they_come_back(account: Account) -> None:
    account.wait(20)
    account.receive(ago=50, called=True)
    account.receive(ago=40, called=True)
    account.receive(ago=2, called=False)  # its callback may be on its way
    assert account.poll() == (1, 20)
    account.receive(ago=10, called=False)
    assert account.poll() == (1, 1.5)
    account.receive(ago=0, called=True)
    assert account.poll() == (1, 20)


def test_a_poll_that_finds_what_no_callback_has_brought_is_followed_as_soon_as_that_is_late(
    account: Account,
) -> None:
    account.receive(ago=50, called=True)
    account.wait(60, 70)
    assert account.poll() == (2, 60)
    account.schedule.has_polled(0.1)
    assert account.next_poll() == 60
    account.receive(ago=1, called=False)
    account.schedule.has_polled(0.1)
    assert account.next_poll() == 4


def test_purchases_leave_nothing_for_reads_while_callbacks_come(account: Account) -> None:
    account.wait(5)
    account.take(Priority.PURCHASE, 27)
    account.poll()
    assert refusal(account.rate_limit, Priority.PURCHASE) > 30
    account.receive(ago=0, called=True)
    account.poll()
    assert refusal(account.rate_limit, Priority.PURCHASE) <= 10  # until it shows that nobody polls
