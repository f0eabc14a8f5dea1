"""Heartbeats of callers that have planned a paid call, and wait for their turn to send it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import sqlalchemy as sa

from smsverify._purchases.calls import Intent
from smsverify._runtime.forking import PerProcess
from smsverify._runtime.heartbeats import Heartbeats
from smsverify._store.store import Store
from smsverify._store.tables import purchases

_HEARTBEATS: Final = PerProcess[Heartbeats[tuple[int, str]]]()


class PlanHeartbeats:
    """The heartbeats of the planned calls of this process.

    Args:
        store: where the calls are.
        patience: seconds after which a caller that sends none is dead.
        keep: writes the heartbeat of one call; raises `UnderWay` where its plan was taken over.
    """

    def __init__(self, store: Store, *, patience: float, keep: Callable[[Intent], None]) -> None:
        self._store = store
        self._patience = patience
        self._keep = keep

    @contextmanager
    def of(self, intent: Intent) -> Iterator[Callable[[], None]]:
        """Gives what has to be called while a call waits for its turn; it raises like `keep`."""
        this = (intent.id, intent.attempt)
        try:
            self._shared.begin(this)
            yield partial(self._send, intent, this)
        finally:
            self._shared.end(this)

    @property
    def _shared(self) -> Heartbeats[tuple[int, str]]:
        name = f"{self._store.name_here} {self._patience}"
        return _HEARTBEATS.get(name, lambda: Heartbeats(self._patience / 5, self._write))

    def _send(self, intent: Intent, this: tuple[int, str]) -> None:
        if not self._shared.send(this):
            self._keep(intent)
            self._shared.begin(this)

    def _write(self, calls: Collection[tuple[int, str]]) -> Collection[tuple[int, str]]:
        """Writes heartbeats; returns the calls that are still as their callers have planned them."""
        ids, attempts = zip(*calls, strict=True)
        planned = sa.select(purchases.c.id).where(
            purchases.c.id.in_(ids), purchases.c.attempt.in_(attempts), purchases.c.state == "planned"
        )
        # A row that another transaction has locked is left to the thread whose call it is.
        these = purchases.c.id.in_(planned.with_for_update(skip_locked=True))
        seen = sa.update(purchases).where(these).returning(purchases.c.id, purchases.c.attempt)
        with self._store.write() as connection:
            rows = connection.execute(seen.values(sent_at=self._store.now(connection)))
            return [(row.id, row.attempt) for row in rows]
