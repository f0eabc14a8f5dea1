"""Orders that somebody wants to be cancelled: a row exists exactly as long as the wish does."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from rigs.clocks import later

from smsverify._orders.handover import Handover
from smsverify._orders.records import Records
from smsverify._orders.releases import SCOPES, Releases
from smsverify._store.sequence import Asked
from smsverify._store.store import Store, open_store
from smsverify._store.tables import orders, releases
from smsverify.models import OrderStatus

PAUSE, LONGEST, HOUR = 10.0, 40.0, 3600.0
IDS = st.sampled_from([7, 8, 9])
WAITERS = st.sampled_from(["first", "second"])


@dataclass
class Wish:
    """What the machine expects of a wish that is on record."""

    reason: str
    scope: str
    is_planned: bool
    asked_at: float
    next_at: float
    tried_at: float
    tries: int = 0


@dataclass
class Known:
    """What the machine expects of an order."""

    waiter: str | None = None
    waiter_since: float = 0.0
    is_used: bool = False
    is_over: bool = False
    wish: Wish | None = None


class Wishes(RuleBasedStateMachine):
    """Orders that are given up, needed again, used, tried and cancelled, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.store: Store = open_store(f"sqlite:///{Path(self.folder.name) / 'store.db'}")
        self.time = 1000.0
        self.store.now = lambda connection: self.time
        self.records = Records(self.store, "account")
        self.releases = Releases(self.records)
        self.handover = Handover(self.records, self.releases)
        self.known = {order_id: Known() for order_id in (7, 8, 9)}
        self.requests = 0

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    @initialize()
    def other_account(self) -> None:
        """What others want is nothing to this account."""
        Releases(Records(self.store, "other")).request(7, "theirs")

    @rule(seconds=st.sampled_from([1.0, 15.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.time += seconds

    @rule(seconds=st.sampled_from([15.0, 1000.0]))
    def the_time_goes_back(self, seconds: float) -> None:
        self.time -= seconds

    @rule(
        order_id=IDS,
        waiter=st.none() | WAITERS,
        scope=st.sampled_from(SCOPES),
        patience=st.sampled_from([0.0, 30.0]),
        is_planned=st.booleans(),
        claimed_before=st.none() | st.sampled_from([0.0, 20.0]),
    )
    def somebody_gives_it_up(
        self,
        order_id: int,
        waiter: str | None,
        scope: str,
        patience: float,
        is_planned: bool,
        claimed_before: float | None,
    ) -> None:
        known = self.known[order_id]
        self.requests += 1
        reason = f"reason {self.requests}"
        limits = None if claimed_before is None else (self.time - claimed_before, self.time)
        is_on_record = self.releases.request(
            order_id,
            reason,
            waiter=waiter,
            scope=scope,
            patience=patience,
            is_planned=is_planned,
            unless_since=limits,
        )
        is_needed = (
            (known.is_used and scope != "any")
            or (waiter is not None and known.waiter not in (None, waiter))
            or (limits is not None and known.waiter_since > limits[0])
        )
        assert is_on_record is not is_needed
        if is_on_record:
            old = known.wish or Wish(reason, scope, is_planned, self.time, self.time, self.time)
            widest = max(old.scope, scope, key=SCOPES.index)
            next_at = self.time + patience
            known.wish = Wish(reason, widest, is_planned, old.asked_at, next_at, old.tried_at, old.tries)

    @rule(order_id=IDS, waiter=WAITERS)
    def somebody_waits_for_it(self, order_id: int, waiter: str) -> None:
        self.handover.claim(order_id, waiter)
        known = self.known[order_id]
        if known.waiter != waiter:
            known.wish = None
        known.waiter, known.waiter_since = waiter, self.time

    @rule(order_id=IDS)
    def its_key_gets_it_again(self, order_id: int) -> None:
        self.handover.hand_out_again(order_id, "again")
        known = self.known[order_id]
        if self.is_there(order_id):
            known.waiter_since = self.time
        if known.wish is not None and known.wish.scope != "any":
            known.wish = None

    @rule(order_id=IDS)
    def its_code_is_used(self, order_id: int) -> None:
        self.handover.note_use(order_id)
        known = self.known[order_id]
        if self.is_there(order_id) and not known.is_used:
            known.is_used, known.wish = True, None

    @rule(order_id=IDS)
    def there_is_nothing_to_cancel(self, order_id: int) -> None:
        before = self.cancelled_at(order_id)
        self.releases.close(order_id)
        assert self.cancelled_at(order_id) == before
        self.known[order_id].wish = None

    @rule(order_id=IDS, meanwhile=st.sampled_from(["", "it is seen", "it is seen, and closed"]))
    def it_is_cancelled(self, order_id: int, meanwhile: str) -> None:
        before, known = self.cancelled_at(order_id), self.known[order_id]
        asked = self.releases.asked(order_id)
        assert (None if asked is None else asked.at) == (known.wish and known.wish.asked_at)
        if meanwhile:
            self.records.put_status(OrderStatus(order_id=order_id, status="cancelled"))
        if meanwhile.endswith("closed"):
            self.releases.close(order_id)
        self.releases.close(order_id, cancelled=asked)
        is_known = asked is None or known.is_over
        assert self.cancelled_at(order_id) == (before if is_known else asked and asked.at)
        self.records.put_status(OrderStatus(order_id=order_id, status="cancelled"))
        known.wish, known.is_over = None, True

    @rule(order_id=IDS, ago=st.sampled_from([0.0, 20.0]))
    def the_service_shows_that_it_goes_on(self, order_id: int, ago: float) -> None:
        self.releases.note_alive(order_id, Asked(self.releases.moment().number, self.time - ago))
        if (wish := self.known[order_id].wish) is not None:
            wish.asked_at = self.time - ago

    @rule(limit=st.integers(1, 3), even_early=st.booleans())
    def somebody_tries_again(self, limit: int, even_early: bool) -> None:
        due = {
            order_id: wish
            for order_id, wish in self.wishes().items()
            if wish.next_at <= self.time
            or (not wish.is_planned and (even_early or wish.next_at > self.time + 2 * LONGEST))
        }
        places = {
            order_id: ((wish.tried_at,) if even_early else ()) + (wish.next_at, order_id)
            for order_id, wish in due.items()
        }
        expected = sorted(due, key=lambda order_id: places[order_id])[:limit]
        taken = self.releases.take_due(PAUSE, LONGEST, limit=limit, even_early=even_early)
        assert [one.order_id for one in taken] == expected
        for order_id in expected:
            wish = due[order_id]
            wish.next_at = self.time + min(PAUSE * 2**wish.tries, LONGEST)
            wish.tried_at, wish.is_planned = self.time, False
            wish.tries += 1

    def is_there(self, order_id: int) -> bool:
        return self.records.get(order_id) is not None

    def cancelled_at(self, order_id: int) -> float | None:
        this = sa.select(orders.c.cancelled_at).where(self.records.is_order(order_id))
        with self.store.read() as connection:
            return connection.execute(this).scalar()

    def wishes(self) -> dict[int, Wish]:
        return {order_id: known.wish for order_id, known in self.known.items() if known.wish is not None}

    @invariant()
    def rows_are_the_wishes(self) -> None:
        with self.store.read() as connection:
            rows = connection.execute(sa.select(releases).where(releases.c.account == "account")).all()
            others = connection.execute(sa.select(releases.c.reason).where(releases.c.account == "other"))
            assert others.scalars().all() == ["theirs"]
        assert {
            row.order_id: Wish(
                row.reason, row.scope, row.planned, row.asked_at, row.next_at, row.tried_at, row.tries
            )
            for row in rows
        } == self.wishes()
        for order_id, known in self.known.items():
            release = self.releases.of(order_id)
            assert (release is None) is (known.wish is None)
        assert {one.order_id for one in self.releases.all()} == set(self.wishes())


TestAWishIsOnRecordExactlyAsLongAsItExists = pytest.mark.slow(Wishes.TestCase)
TestAWishIsOnRecordExactlyAsLongAsItExists.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_many_who_give_one_order_up_and_need_it_again_never_wait_for_each_other(any_store_url: str) -> None:
    store = open_store(any_store_url)
    records = Records(store, "account")
    several = Releases(records)
    handover = Handover(records, several)
    steps: list[Callable[[], Any]] = [
        lambda: several.request(7, "not needed"),
        lambda: handover.claim(7, "first"),
        lambda: several.request(7, "killed", waiter="second", scope="any"),
        lambda: handover.claim(7, "second"),
        lambda: several.close(7, cancelled=several.asked(7)),
        lambda: several.note_alive(7, several.moment()),
        lambda: several.take_due(0.0, 0.0, limit=3, even_early=True),
        lambda: handover.hand_out_again(7, "again"),
        lambda: records.put_status(OrderStatus(order_id=7, status="pending")),
        lambda: handover.note_use(7),
    ]

    def go(first: int) -> None:
        for number in range(first, first + 3 * len(steps)):
            steps[number % len(steps)]()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(go, range(6)))  # which raises where two wait for each other
    several.close(7)
    assert several.all() == []


def test_a_cancellation_that_was_refused_is_tried_again_soon_though_the_time_has_gone_back(
    any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = Releases(Records(open_store(any_store_url), "account"))
    several.request(7, "not needed")
    several.request(8, "planned", patience=HOUR, is_planned=True)
    assert [one.order_id for one in several.take_due(PAUSE, LONGEST, limit=3)] == [7]
    later(monkeypatch, -HOUR)
    assert [one.order_id for one in several.take_due(PAUSE, LONGEST, limit=3)] == [7]
    assert several.take_due(PAUSE, LONGEST, limit=3) == []
