"""Hints: callbacks that prove nothing by themselves, but say that an order's status may be worth reading.

Anybody who knows the documented address can send them, so they cost little: only orders that somebody waits
for or follows are asked for, each rarely, and what came without a secret takes a share of the limit and no
more.
"""

from __future__ import annotations

import sqlalchemy as sa

from smsverify._service.rate_limit import Priority
from smsverify._store.store import Store
from smsverify._store.tables import followed, looks, polls, waits

# In seconds of a service whose minute lasts a minute.
ALIVE = 15.0  # a wait that has not been seen for this long is dead
SHORTEST_ALIVE = 5.0  # seconds, however short the service's minute
PAUSE = 5.0  # between two looks at an order that further hints ask for
RETRY = 1.5  # after a look that found nothing, doubled with each

TRIES = 5  # looks for one hint; after that, the polls go on as always
AT_ONCE = 10  # hints that are followed in one go
SHARE = 0.25  # of the rate limit, that hints without a secret may take


def alive_for(time_scale: float) -> float:
    """Seconds after which a wait that gives no sign of life is taken for dead."""
    return max(ALIVE * time_scale, SHORTEST_ALIVE)


class Hints:
    """The hints of one account, followed by whichever process comes first.

    Args:
        store: where they are.
        account: whose they are.
        time_scale: how long the service's minute is in real minutes.
        rate_limit: requests that the service allows in its minute.
    """

    def __init__(self, store: Store, account: str, *, time_scale: float, rate_limit: int) -> None:
        self._store = store
        self._account = account
        self._time_scale = time_scale
        self._unsigned_pause = 60 * time_scale / (rate_limit * SHARE)

    def take_due(self) -> list[tuple[int, Priority]]:
        """Claims the orders to ask for now, each with the priority of the request."""
        with self._store.read() as connection:
            now = self._store.now(connection)
            rows = connection.execute(self._of_awaited(now)).all()
        due = [row for row in rows if self._due_at(row) <= now or self._due_at(row) > now + 60]
        return [
            (row.order_id, Priority.RELEASE if row.hint_by_secret else Priority.POLL)
            for row in due[:AT_ONCE]
            if self._claim(row)
        ]

    def _of_awaited(self, now: float) -> sa.Select[tuple[int, bool, int, float | None]]:
        alive = alive_for(self._time_scale)
        awaited = sa.select(waits.c.id).where(
            waits.c.account == looks.c.account,
            waits.c.order_id == looks.c.order_id,
            waits.c.seen_at.between(now - alive, now + alive),
        )
        is_followed = sa.select(followed.c.order_id).where(
            followed.c.account == looks.c.account,
            followed.c.order_id == looks.c.order_id,
            followed.c.seen_at.between(now - alive, now + alive),
        )
        return (
            sa.select(looks.c.order_id, looks.c.hint_by_secret, looks.c.hint_tries, looks.c.hint_followed_at)
            .where(
                looks.c.account == self._account,
                looks.c.hinted_at.is_not(None),
                sa.or_(awaited.exists(), is_followed.exists()),
            )
            .order_by(looks.c.hint_by_secret.desc(), looks.c.hinted_at)
        )

    def _due_at(self, row: sa.Row[tuple[int, bool, int, float | None]]) -> float:
        if row.hint_followed_at is None:
            return 0.0
        pause = RETRY * 2 ** (row.hint_tries - 1) if row.hint_tries else PAUSE
        return float(row.hint_followed_at + pause * self._time_scale)

    def _claim(self, row: sa.Row[tuple[int, bool, int, float | None]]) -> bool:
        with self._store.write() as connection:
            now = self._store.now(connection)
            if not row.hint_by_secret and not self._take_share(connection, now):
                return False
            is_last = row.hint_tries + 1 >= TRIES
            claimed = connection.execute(
                sa.update(looks)
                .where(
                    looks.c.account == self._account,
                    looks.c.order_id == row.order_id,
                    looks.c.hinted_at.is_not(None),
                    looks.c.hint_followed_at.is_not_distinct_from(row.hint_followed_at),
                )
                .values(
                    hint_followed_at=now,
                    hint_tries=row.hint_tries + 1,
                    hinted_at=None if is_last else looks.c.hinted_at,
                )
            )
            return bool(claimed.rowcount)

    def _take_share(self, connection: sa.Connection, now: float) -> bool:
        is_free = sa.or_(
            sa.func.coalesce(polls.c.hint_next_at, 0) <= now,
            polls.c.hint_next_at > now + max(60, self._unsigned_pause),  # set while nobody looked
        )
        taken = connection.execute(
            sa.update(polls)
            .where(polls.c.account == self._account, is_free)
            .values(hint_next_at=now + self._unsigned_pause)
        )
        return bool(taken.rowcount)
