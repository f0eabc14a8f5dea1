"""What the newest run of `renew_expiring` has done for each rental: for people, nothing is decided by it."""

from __future__ import annotations

from collections.abc import Sequence

from smsverify._runtime.tasks import Task
from smsverify._store.store import Store
from smsverify._store.tables import kept
from smsverify.errors import StoreError
from smsverify.reports import KeptRental
from smsverify.text import log_of

log = log_of(__name__)


class KeptRecords:
    """What was done for the rentals of one account.

    Args:
        store: where that is kept.
        account: whose they are.
    """

    def __init__(self, store: Store, account: str) -> None:
        self._store = store
        self._account = account

    def note(self, rentals: Sequence[KeptRental], task: Task | None) -> None:
        """Puts a run's report on record. What the run has paid counts also where that is not possible."""
        if not rentals:
            return
        made_by = None if task is None else task.model_dump_json()
        try:
            with self._store.write() as connection:
                now = self._store.now(connection)
                insert = self._store.insert(kept)
                values = {
                    name: insert.excluded[name] for name in ("at", "outcome", "reason", "price", "task")
                }
                connection.execute(
                    insert.on_conflict_do_update(index_elements=list(kept.primary_key), set_=values),
                    [
                        {
                            "account": self._account,
                            "order_id": rental.order_id,
                            "at": now,
                            "outcome": rental.outcome,
                            "reason": rental.reason,
                            "price": None if rental.price is None else str(rental.price),
                            "task": made_by,
                        }
                        for rental in rentals
                    ],
                )
        except StoreError as error:
            log.warning("What was done for the rentals cannot be noted for `smsverify overview`: %s", error)
