"""The account's requests per minute, shared by every process and host that uses the same store.

The budget of a key is `rate_limit` permits. A permit is taken just before a request leaves and given back
when the reply is there, free again one period later: the service has counted the request no later than its
reply, so no window of the service's ever holds more requests than there are permits, whatever the network did
in between. A holder that dies costs its permit for one lease.

Who waits stands in a queue in the store, by priority and then by arrival, and a permit goes to whoever is
first when it becomes free. Nothing is booked ahead: a cancellation never waits behind purchases that came
earlier.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone

import sqlalchemy as sa

from smsverify.errors import RateLimitedError, StoreError, WaitStoppedError
from smsverify.store import Store, budgets, permits, queue

log = logging.getLogger(__name__)

# Shortest and longest time between two looks at the queue, in seconds of a service whose minute lasts a
# minute.
SHORTEST_LOOK = 0.01
LONGEST_LOOK = 2.0
# Seconds that a request without a reply may still need to reach the service.
LATE = 2.0
# Seconds that no pause of the service's exceeds; what lies beyond is a clock that was set back.
LONGEST_BLOCK = 3600.0
# One who waits and has not looked for this long is dead and out of the queue.
ABANDONED_AFTER = 10.0


class Priority(enum.IntEnum):
    """Who goes first when requests wait for the budget."""

    RELEASE = 0
    """What gives money back, and reads of codes known to be there."""
    POLL = 1
    """The poll that is due, and other reads."""
    PURCHASE = 2
    """What spends money."""


@dataclass(frozen=True)
class BudgetState:
    """What is left of the account's requests per minute.

    Attributes:
        limit: requests allowed in `period` seconds.
        period: seconds.
        available: requests that could be sent right now.
        waiting: requests that wait for their turn, of all processes.
        blocked_until: UTC; the service asked for silence until then (429), else `None`.
        refusals: how often the service answered 429 so far.
    """

    limit: int
    period: float
    available: int
    waiting: int
    blocked_until: datetime | None
    refusals: int


class Permit:
    """The right to send one request; `settle` it when the reply is there."""

    def __init__(self, budget: Budget, slot: int, holder: str) -> None:
        self._budget = budget
        self._slot = slot
        self._holder = holder

    def settle(self, *, is_answered: bool) -> None:
        """The service has counted the request by now if it has answered, else a little later."""
        self._free(self._budget.period + (0.0 if is_answered else self._budget.late))

    def give_back(self) -> None:
        """Nothing was sent: free again at once."""
        self._free(0.0)

    def _free(self, after: float) -> None:
        store = self._budget.store
        try:
            self._free_in(store, after)
        except StoreError as error:
            # The reply matters more than the permit, which comes back by itself when its lease is over.
            log.warning(
                "A request's permit stays taken for up to %.0f s: %s",
                self._budget.lease,
                error,
            )

    def _free_in(self, store: Store, after: float) -> None:
        with store.write() as connection:
            connection.execute(
                sa.update(permits)
                .where(
                    permits.c.key_id == self._budget.key_id,
                    permits.c.slot == self._slot,
                    permits.c.holder == self._holder,
                )
                .values(free_at=store.now(connection) + after, holder=None)
            )


class Budget:
    """The shared budget of one API key.

    Args:
        store: where everybody who uses the key meets.
        key_id: names the key without giving it away.
        limit: requests in `period`.
        period: seconds.
        lease: seconds that a request may be under way at the most.
    """

    def __init__(self, store: Store, key_id: str, *, limit: int, period: float, lease: float) -> None:
        self.store = store
        self.key_id = key_id
        self.limit = limit
        self.period = period
        self.lease = lease
        self._tempo = period / 60
        self.late = LATE * self._tempo

    @contextmanager
    def permit(
        self,
        priority: Priority,
        *,
        deadline: float,
        stop: threading.Event | None = None,
        while_waiting: Callable[[], None] | None = None,
    ) -> Iterator[Permit]:
        """Waits for the turn, hands out a permit, and settles it at the end.

        Args:
            priority: goes before arrival.
            deadline: `time.monotonic()` by which the request must have its turn.
            stop: ends the waiting when it is set.
            while_waiting: called at each look at the queue; what it raises ends the waiting.

        Raises:
            RateLimitedError: the turn can not come before the deadline; nothing was sent.
            WaitStoppedError: `stop` was set.
            StoreError: the store can not be used; nothing was sent.
        """
        permit = self._wait_for_turn(priority, deadline, stop, while_waiting)
        try:
            yield permit
        except BaseException:
            permit.settle(is_answered=False)
            raise
        permit.settle(is_answered=True)

    def block(self, seconds: float) -> None:
        """Nobody sends for this long: the service said so to one of us."""
        with self.store.write() as connection:
            self._make_permits(connection)
            until = self.store.now(connection) + seconds
            row = budgets.c.key_id == self.key_id
            connection.execute(sa.update(budgets).where(row).values(refusals=budgets.c.refusals + 1))
            connection.execute(
                sa.update(budgets).where(row, budgets.c.blocked_until < until).values(blocked_until=until)
            )
        log.warning(
            "The service answered 429: nobody who shares this key sends for %.1f s",
            seconds,
        )

    def state(self) -> BudgetState:
        """What is left, as of now."""
        with self.store.write() as connection:
            self._make_permits(connection)
            now = self.store.now(connection)
            self._drop_abandoned(connection, now)
            blocked_until, refusals = self._block(connection)
            mine = permits.c.key_id == self.key_id
            free = sa.select(sa.func.count()).where(
                mine, permits.c.slot < self.limit, permits.c.free_at <= now
            )
            waiting = sa.select(sa.func.count()).where(queue.c.key_id == self.key_id)
            is_blocked = blocked_until > now
            return BudgetState(
                limit=self.limit,
                period=self.period,
                available=0 if is_blocked else connection.execute(free).scalar_one(),
                waiting=connection.execute(waiting).scalar_one(),
                blocked_until=datetime.fromtimestamp(blocked_until, timezone.utc) if is_blocked else None,
                refusals=refusals,
            )

    # -------------------------------------------------------------- the turn

    def _wait_for_turn(
        self,
        priority: Priority,
        deadline: float,
        stop: threading.Event | None,
        while_waiting: Callable[[], None] | None,
    ) -> Permit:
        ticket = uuid.uuid4().hex
        stop = stop or threading.Event()
        has_told = False
        try:
            while True:
                taken = self._take(ticket, priority)
                if isinstance(taken, Permit):
                    return taken
                if time.monotonic() + taken > deadline:
                    raise RateLimitedError(
                        f"no request may be sent for another {taken:.1f} s: the {self.limit} requests per "
                        f"{self.period:g} s are used up",
                        retry_after=taken,
                    )
                if taken > 5 * self._tempo and not has_told:
                    has_told = True
                    log.info("Waiting about %.0f s for the request budget", taken)
                if while_waiting is not None:
                    while_waiting()
                if stop.wait(max(min(taken, LONGEST_LOOK * self._tempo), SHORTEST_LOOK)):
                    raise WaitStoppedError("stopped while waiting for the request budget; nothing was sent")
        except BaseException:
            # Whoever can not leave the queue is dropped from it as abandoned.
            with contextlib.suppress(StoreError):
                self._leave(ticket)
            raise

    def _take(self, ticket: str, priority: Priority) -> Permit | float:
        """A permit, or the seconds until it may be this ticket's turn."""
        with self.store.write() as connection:
            now = self.store.now(connection)
            self._make_permits(connection)
            self._drop_abandoned(connection, now)
            arrived_at = self._queue_up(connection, ticket, priority, now)
            blocked_until, _ = self._block(connection)
            ahead = connection.execute(
                sa.select(sa.func.count()).where(
                    queue.c.key_id == self.key_id,
                    queue.c.ticket != ticket,
                    sa.or_(
                        queue.c.priority < priority,
                        sa.and_(
                            queue.c.priority == priority,
                            queue.c.arrived_at < arrived_at,
                        ),
                    ),
                )
            ).scalar_one()
            row = connection.execute(
                sa.select(permits.c.slot, permits.c.free_at, permits.c.holder)
                .where(permits.c.key_id == self.key_id, permits.c.slot < self.limit)
                .order_by(permits.c.free_at, permits.c.slot)
                .offset(ahead % self.limit)
                .limit(1)
            ).one()
            # A permit in use comes back with its reply, and is free one period later: no sooner, and rarely
            # as late as its lease would have it. Whoever is far behind waits whole periods first.
            free_at = row.free_at if row.holder is None else min(row.free_at, now + self.period)
            turn_at = max(free_at, blocked_until) + (ahead // self.limit) * self.period
            if turn_at > now:
                return float(turn_at - now)
            connection.execute(
                sa.update(permits)
                .where(permits.c.key_id == self.key_id, permits.c.slot == row.slot)
                .values(free_at=now + self.lease + self.period, holder=ticket)
            )
            connection.execute(sa.delete(queue).where(queue.c.ticket == ticket))
            return Permit(self, row.slot, ticket)

    def _queue_up(self, connection: sa.Connection, ticket: str, priority: Priority, now: float) -> float:
        mine = queue.c.ticket == ticket
        arrived_at = connection.execute(sa.select(queue.c.arrived_at).where(mine)).scalar()
        if arrived_at is None:
            connection.execute(
                sa.insert(queue).values(
                    ticket=ticket,
                    key_id=self.key_id,
                    priority=int(priority),
                    arrived_at=now,
                    seen_at=now,
                )
            )
            return now
        connection.execute(sa.update(queue).where(mine).values(seen_at=now))
        return float(arrived_at)

    def _leave(self, ticket: str) -> None:
        with self.store.write() as connection:
            connection.execute(sa.delete(queue).where(queue.c.ticket == ticket))

    def _drop_abandoned(self, connection: sa.Connection, now: float) -> None:
        patience = ABANDONED_AFTER * max(self._tempo, 1)
        connection.execute(
            sa.delete(queue).where(
                queue.c.key_id == self.key_id,
                sa.not_(queue.c.seen_at.between(now - patience, now + patience)),
            )
        )

    def _block(self, connection: sa.Connection) -> tuple[float, int]:
        row = connection.execute(
            sa.select(budgets.c.blocked_until, budgets.c.refusals).where(budgets.c.key_id == self.key_id)
        ).one()
        is_real = row.blocked_until <= self.store.now(connection) + LONGEST_BLOCK
        return float(row.blocked_until) if is_real else 0.0, int(row.refusals)

    def _make_permits(self, connection: sa.Connection) -> None:
        """Creates the key's permits, once; and serialises everybody who takes one."""
        insert = self.store.insert(budgets).values(key_id=self.key_id, blocked_until=0, refusals=0)
        connection.execute(insert.on_conflict_do_nothing())
        connection.execute(
            sa.select(budgets.c.key_id).where(budgets.c.key_id == self.key_id).with_for_update()
        )
        have = connection.execute(
            sa.select(sa.func.count()).where(permits.c.key_id == self.key_id, permits.c.slot < self.limit)
        ).scalar_one()
        if have < self.limit:
            rows = [{"key_id": self.key_id, "slot": slot, "free_at": 0.0} for slot in range(have, self.limit)]
            connection.execute(sa.insert(permits), rows)
        # A clock that was set back must not park a permit.
        farthest = self.store.now(connection) + self.period + self.lease
        connection.execute(
            sa.update(permits)
            .where(
                permits.c.key_id == self.key_id,
                permits.c.free_at > farthest + self.period,
            )
            .values(free_at=farthest, holder=None)
        )
