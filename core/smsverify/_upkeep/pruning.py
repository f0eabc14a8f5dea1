"""Removing old rows: messages whose text is purged already, and what waits and callbacks have left.

What was bought and spent stays, and so does every key: purchases, attempts, orders, the sums of days, wishes
to cancel. An order keeps the digest of its last message, so that an SMS which its status still shows is not
taken for a new one. The newest message stays: the next one gets a higher id, as cursors need it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import sqlalchemy as sa

from smsverify._messages.inbox import Inbox
from smsverify._messages.purging import REPEATED
from smsverify._store.store import Store
from smsverify._store.tables import READABLE, callbacks, handled, kept, looks, messages, queue, waits
from smsverify.reports import PruneReport

BATCH = 500  # rows that one transaction removes
PAUSE = 0.02  # seconds between two of them, in which others write

Which = sa.ColumnElement[bool]


class Pruning:
    """Removes old rows of one account.

    Args:
        store: where they are.
        inbox: the account's messages.
        account: whose they are.
        retention: seconds after which the text of a message is purged.
    """

    def __init__(self, store: Store, inbox: Inbox, account: str, *, retention: float) -> None:
        self._store = store
        self._inbox = inbox
        self._account = account
        self._retention = retention

    def run(
        self,
        age: float,
        *,
        dry_run: bool,
        stop: threading.Event | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> PruneReport:
        """See `SmsVerifyHook.prune_store`."""
        stop = stop or threading.Event()
        with self._store.read() as connection:
            now = self._store.now(connection)
            # By the calendar, for the report alone.
            before = self._store.wall(connection) - age
            doomed = list(self._doomed(now, age))
            found = {
                table.name: connection.execute(
                    sa.select(sa.func.count()).select_from(table).where(which)
                ).scalar_one()
                for table, which in doomed
            }
        removed = dict.fromkeys(found, 0)
        for table, which in doomed if not dry_run else ():
            for count in self._remove(table, which, stop):
                removed[table.name] += count
                if on_progress is not None:
                    on_progress(sum(removed.values()), sum(found.values()))
        return PruneReport.of(before, found if dry_run else removed, dry_run=dry_run, stopped=stop.is_set())

    def _doomed(self, now: float, age: float) -> Iterator[tuple[sa.Table, Which]]:
        """The rows of each table that go."""
        then, mine = now - age, self._account
        newest = sa.select(sa.func.max(messages.c.id)).where(messages.c.account == mine).scalar_subquery()
        yield (
            messages,
            sa.and_(
                messages.c.account == mine,
                messages.c.came_at < min(then, now - self._retention),
                sa.not_(READABLE),
                messages.c.id < newest,
            ),
        )
        is_repeated_no_more = callbacks.c.received_at < min(then, now - max(self._retention, REPEATED))
        yield callbacks, sa.and_(callbacks.c.account == mine, is_repeated_no_more)
        yield handled, sa.and_(handled.c.account == mine, handled.c.since < min(then, now - self._retention))
        yield waits, sa.and_(waits.c.account == mine, waits.c.seen_at < then)
        its_wait = sa.select(waits.c.id).where(
            waits.c.account == mine, waits.c.order_id == looks.c.order_id, waits.c.seen_at >= then
        )
        last_look = sa.func.coalesce(looks.c.status_at, looks.c.asked_at, 0.0)
        is_idle = sa.and_(looks.c.next_at.is_(None), sa.not_(its_wait.exists()))
        yield looks, sa.and_(looks.c.account == mine, is_idle, last_look < then)
        yield kept, sa.and_(kept.c.account == mine, kept.c.at < then)
        yield queue, queue.c.seen_at < then

    def _remove(self, table: sa.Table, which: Which, stop: threading.Event) -> Iterator[int]:
        """Removes these rows batch by batch; the number of rows of each."""
        names = list(table.primary_key)
        these = sa.select(*names).where(which).order_by(*names).limit(BATCH)
        while not stop.is_set():
            with self._store.read() as connection:
                batch = [tuple(row) for row in connection.execute(these)]
            if not batch:
                return
            # Once more, since others may have changed them.
            still = sa.and_(sa.tuple_(*names).in_(batch), which)
            with self._store.write() as connection:
                if table is messages:
                    self._inbox.remember_pruned(connection, still)
                yield connection.execute(sa.delete(table).where(still)).rowcount
            time.sleep(PAUSE)
