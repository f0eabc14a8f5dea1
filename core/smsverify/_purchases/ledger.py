"""The paid calls: what was bought, and what may have been bought.

A paid call has a key, and it has a row before it is sent:

```
planned ──► sent ──► bought      the answer named the order
                 ──► rejected    nothing was carried out; the key may try again
                 ──► unknown     the outcome is not known; the key does not send again
        ──► shared               a renewal that another call has made meanwhile
```
A row that stays at `sent` for longer than a call can take means the same as `unknown`: its process has died.
A row that stays at `planned` has cost nothing, and the next caller with its key takes it over. When the order
of a key has ended, its next purchase is a new generation of the key.
"""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from smsverify._orders import day_sums
from smsverify._orders.orders import Orders
from smsverify._orders.records import is_cut_off
from smsverify._purchases.calls import OPEN, Intent, OpenCall, Purchase, UnderWay
from smsverify._purchases.counting import Ends
from smsverify._purchases.lost_calls import LostCalls
from smsverify._purchases.owners import Owners
from smsverify._purchases.plan_heartbeats import PlanHeartbeats
from smsverify._purchases.precedence import RUN_AHEAD, Precedence
from smsverify._purchases.renewal_records import RenewalRecords
from smsverify._purchases.spending import Caps, Spending
from smsverify._purchases.totals import Totals
from smsverify._store import sequence
from smsverify._store.parameters import constants
from smsverify._store.store import Store
from smsverify._store.tables import purchases
from smsverify.errors import PurchaseConflictError, PurchaseUnknownError
from smsverify.metrics import Meter
from smsverify.models import Order
from smsverify.text import log_of

log = log_of(__name__)

P = ParamSpec("P")
T = TypeVar("T")


def _surely(record: Callable[Concatenate[Ledger, P], T]) -> Callable[Concatenate[Ledger, P], T]:
    """Tries to record until the call no longer counts as under way, also while the database is away: this
    process alone knows what the service has done.
    """

    @functools.wraps(record)
    def until_it_is_on_record(self: Ledger, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._store.surely(lambda: record(self, *args, **kwargs), patience=self._lease)

    return until_it_is_on_record


_OPEN_CALLS = sa.select(purchases).where(
    purchases.c.account == sa.bindparam("account"), purchases.c.state.in_(constants(OPEN))
)


class Ledger:
    """The paid calls of one account.

    Args:
        store: where they are kept.
        orders: the account's orders.
        account: whose they are.
        namespace: keeps apart the keys of deployments that share the store.
        lease: seconds that one paid call may take.
        patience: seconds after which a caller that has planned a call and sends no heartbeat is dead.
        grace: seconds after which the list shows what a call has bought.
        run_ahead: how many purchases may follow one that is not explained.
        meter: counts the calls.
    """

    def __init__(
        self,
        store: Store,
        orders: Orders,
        account: str,
        *,
        namespace: str,
        lease: float,
        patience: float,
        grace: float,
        run_ahead: int = RUN_AHEAD,
        meter: Meter | None = None,
    ) -> None:
        self._store = store
        self._records = orders.records
        self.spending = Spending(store, account)
        self.totals = Totals(store, account, self.spending)
        self.owners = Owners(store, orders.records, account)
        self.renewals = RenewalRecords(store, orders.records, account)
        self._ends = Ends(store, meter or Meter())
        self.heartbeats = PlanHeartbeats(store, patience=patience, keep=self.keep_planned)
        self._lost_calls = LostCalls(store, account)
        self._precedence = Precedence(
            store, orders, account, namespace, patience=patience, grace=grace, run_ahead=run_ahead
        )
        self._account = account
        self.namespace = namespace
        self._lease = lease

    def now(self) -> float:
        """Seconds since 1970 by the clock that all users of the store share."""
        return self._store.read_now()

    def lock(self, connection: sa.Connection, *, even_older: bool = False) -> None:
        """Lets one transaction at a time decide on the account's paid calls; see `Store.lock`."""
        self._store.lock(connection, self._account, even_older=even_older)
        # A call that records a list takes a number first, and locks the orders then.
        sequence.hold(connection, self._account)

    # -------------------------------------------------------------- before it is sent

    def find(self, purchase: Purchase, *, after: int | None = None) -> Order | None:
        """The order that a key has bought, if it has; raises like `plan`."""
        with self._store.read() as connection:
            last = self._precedence.last(connection, purchase.key)
            if not self._stands(connection, last, purchase, after):
                return None
            order = self._records.row(connection, last.order_id)
        if last.unclaimed:
            self.renewals.claim(last.id)
        return order

    def is_wanted(self, connection: sa.Connection, key: str) -> bool:
        """Whether a key has bought, or a caller is about to buy with it: under the lock, which this takes."""
        self.lock(connection)
        return self._precedence.is_wanted(connection, key)

    def heartbeat(self, key: str) -> float | None:
        """When the caller that has planned a key's call sent a heartbeat; `None` where none waits with it."""
        with self._store.read() as connection:
            last = self._precedence.last(connection, key)
            is_waiting = last is not None and self._precedence.is_waiting(last, self._store.now(connection))
            return last.sent_at if is_waiting else None

    def plan(
        self,
        purchase: Purchase,
        request: Mapping[str, Any],
        price: Decimal | None,
        *,
        charge: Decimal | None = None,
        after: int | None = None,
    ) -> Intent | Order:
        """Puts the intent of a paid call on record, unless its key has one that still counts.

        Args:
            purchase: the key, and what it stands for.
            request: what is sent, in the catalogue's ids.
            price: USD that it is expected to cost.
            charge: USD that it may cost at the most.
            after: the order of this key that has ended, so that a new generation may begin.

        Returns:
            the intent to send with, or the order that this key has already bought.

        Raises:
            InvalidRequestError: a rental is to be cancelled, so it is not renewed.
            PurchaseConflictError: the key stands for something else, or for an attempt that is over.
            PurchaseUnknownError: the key's last call has an unknown outcome.
            PurchaseUnverifiableError: the list of orders has to be read before more is bought.
            SpendingLimitError: more would be spent than may be.
            UnderWay: the key's call is being made right now.
        """
        values: dict[str, Any] = {
            "attempt": uuid.uuid4().hex,
            "request": json.dumps(dict(request)),
            "price": _as_text(price),
            "charge": _as_text(charge),
            **purchase.caps.as_row(),
            "state": "planned",
        }
        with self._store.write() as connection:
            self.lock(connection)
            last = self._precedence.last(connection, purchase.key)
            if self._stands(connection, last, purchase, after):
                return self._records.row(connection, last.order_id)
            if purchase.kind == "order":
                self._precedence.refuse_decided(connection, purchase.key)
                self._precedence.refuse_to_run_ahead(connection, purchase.key)
            elif self._is_renewed_meanwhile(connection, purchase):
                values |= {"state": "shared", "order_id": request["order_id"], "charge": "0"}
            else:
                self._precedence.refuse_beside_another(connection, purchase)
                self._precedence.refuse_given_up(connection, request["order_id"])
            now = self._store.now(connection)
            row: dict[str, Any] = {
                "account": self._account,
                "namespace": self.namespace,
                "key": purchase.key,
                "generation": last.generation + 1 if last is not None else 1,
                "kind": purchase.kind,
                "fingerprint": purchase.fingerprint,
                "sent_at": now,
                **values,
            }
            if last is not None and last.state == "planned":
                if values["state"] == "planned" and self._precedence.is_waiting(last, now):
                    raise UnderWay
                # The caller that planned it has sent nothing, and cannot any more.
                row["generation"] = last.generation
                connection.execute(sa.update(purchases).where(purchases.c.id == last.id).values(**row))
                intent_id = last.id
            else:
                insert = sa.insert(purchases).values(**row)
                intent_id = connection.execute(insert.returning(purchases.c.id)).scalar_one()
            if values["state"] == "shared":
                return self._records.row(connection, request["order_id"])
            intent = Intent(intent_id, purchase, values["attempt"], charge, row)
            self._refuse_beyond_caps(connection, intent)
            return intent

    def keep_planned(self, intent: Intent) -> None:
        """Shows that the caller still waits for its turn. Raises `UnderWay` where its plan was taken over."""
        with self._store.write() as connection:
            self._update_own(connection, intent, sent_at=self._store.now(connection))

    def reprice(self, intent: Intent, price: Decimal | None, charge: Decimal | None) -> Intent:
        """Notes what a planned call costs by now. Raises `UnderWay` where it was taken over."""
        values = {"price": _as_text(price), "charge": _as_text(charge)}
        with self._store.write() as connection:
            self._update_own(connection, intent, **values)
        return replace(intent, charge=charge, row={**intent.row, **values})

    def mark_sent(self, intent: Intent) -> Intent:
        """The call leaves now. What it may cost counts as spent from here on.

        Raises:
            AnswerAwaited: an earlier call has to be over first. This one is still planned.
            UnderWay: another caller has taken the plan over, or has renewed the same order.
            InvalidRequestError: as for `plan`.
            PurchaseConflictError, PurchaseUnverifiableError: as for `plan`.
            SpendingLimitError: others have spent meanwhile what may be spent.
        """
        with self._store.write() as connection:
            self.lock(connection)
            values = {
                "state": "sent",
                "sent_at": self._store.now(connection),
                "lease": self._lease,
                "sent_number": sequence.advance(self._store, connection, self._account),
                "address": self._records.address,
            }
            self._update_own(connection, intent, **values)
            purchase = intent.purchase
            if purchase.kind == "order":
                self._precedence.refuse_decided(connection, intent.key)
                self._precedence.refuse_to_run_ahead(connection, intent.key, without=intent.id)
            else:
                self._precedence.await_another(connection, purchase)
                if self._is_renewed_meanwhile(connection, purchase):
                    raise UnderWay
                order_id = json.loads(intent.row["request"])["order_id"]
                self._precedence.refuse_given_up(connection, order_id)
            self._refuse_beyond_caps(connection, intent)
        return replace(intent, row={**intent.row, **values})

    def _update_own(self, connection: sa.Connection, intent: Intent, **values: Any) -> None:
        """Changes a call that is still the caller's to send; raises `UnderWay` where it is not."""
        may_send = purchases.c.state.in_(("planned", "sent"))
        own = sa.update(purchases).where(_is_of(intent), may_send).values(**values)
        if not connection.execute(own).rowcount:
            raise UnderWay

    # -------------------------------------------------------------- after it was sent

    @_surely
    def record_bought(self, intent: Intent, order: Order) -> Order:
        """Records the answer to a purchase, in one transaction with the order itself.

        Returns:
            the order that the key has: another one where the answer came so late that the list of orders has
            decided meanwhile. Then this one has no owner yet.

        Raises:
            PurchaseUnknownError: the answer cannot be true, as it names an order that another key has, or
                that was there before. What was bought instead is unknown.
        """
        order = order.model_copy(update={"key": intent.key})
        with self._store.write() as connection:
            self.lock(connection, even_older=True)
            self.owners.lock(connection, even_older=True)
            row = self._lost_calls.find(connection, intent)
            impossible = self.owners.why_impossible(connection, row, order.order_id)
            if row.state == "bought" and row.order_id != order.order_id:
                if impossible is None:
                    log.warning(
                        "The answer to %s came late: the call has another order by now, and no call owns "
                        "order %d. `smsverify reconcile` will name it",
                        intent.key,
                        order.order_id,
                    )
                    self._records.put(connection, order.model_copy(update={"key": None}))
                return self._records.row(connection, row.order_id)
            if impossible is None:
                self._records.put(connection, order, is_unclaimed=True)
                values = {} if order.price is None else {"charge": str(order.price)}
                self._end(connection, row, "bought", order_id=order.order_id, **values)
                return order
            note = f"the service answered with order {order.order_id}, which {impossible}"
            self._end(connection, row, "unknown", note=note)
        raise PurchaseUnknownError(
            f"{note}, so it is not the order of {intent.key!r}. Whether that call bought anything is "
            "unknown. It is on record and is not sent again. Call again with the same key to find out",
            key=intent.key,
        )

    @_surely
    def record_renewed(self, intent: Intent, order: Order) -> None:
        """Records that a renewal was carried out, and when the order ends now."""
        with self._store.write() as connection:
            self.lock(connection, even_older=True)
            row = self._lost_calls.find(connection, intent)
            self._records.put_renewed(connection, order)
            # Until its caller knows of it, another call may return it.
            self._end(connection, row, "bought", order_id=order.order_id, unclaimed=True)

    @_surely
    def record_rejected(self, intent: Intent, reason: str) -> None:
        """Records that a paid call was not carried out: its key may try again."""
        with self._store.write() as connection:
            self.lock(connection, even_older=True)
            row = connection.execute(sa.select(purchases).where(_is_of(intent))).one_or_none()
            if row is not None and row.state != "bought":
                self._end(connection, row, "rejected", note=reason)

    @_surely
    def record_unknown(self, intent: Intent, reason: str) -> None:
        """Records that a call's outcome is unknown, unless that was found out meanwhile."""
        with self._store.write() as connection:
            self.lock(connection, even_older=True)
            row = self._lost_calls.find(connection, intent)
            if row.state == "sent":
                self._end(connection, row, "unknown", note=reason)

    # -------------------------------------------------------------- what is on record

    def refuse_beyond_caps(self, caps: Caps, *, charge: Decimal | None, what: str) -> None:
        """Raises where a call that is not on record would pass a cap; see `Spending.refuse_beyond`."""
        with self._store.read() as connection:
            self.spending.refuse_beyond(connection, caps, key=what, charge=charge, call_id=None)

    def open_renewals(self) -> list[OpenCall]:
        """The renewals whose outcome is unknown, the earliest first."""
        with self._store.read() as connection:
            return [call for call in self.open_calls(connection) if call.kind == "renewal"]

    def open_calls(self, connection: sa.Connection, now: float | None = None) -> list[OpenCall]:
        """The calls whose outcome is unknown, the earliest first; as of `now`, or of the store's time."""
        now = self._store.now(connection) if now is None else now
        found = connection.execute(_OPEN_CALLS, {"account": self._account})
        # Sorted here: a database might take its order from an index of all calls that were ever made.
        rows = sorted(found, key=lambda row: (row.sent_number or 0, row.id))
        return [
            OpenCall(
                row.id,
                row.namespace,
                row.key,
                row.kind,
                json.loads(row.request),
                Decimal(row.price) if row.price else None,
                row.sent_at,
                row.sent_number or 0,
                tuple(json.loads(row.candidates or "[]")),
                self._precedence.is_under_way(row, now),
                row.task,
                row.charge,
            )
            for row in rows
        ]

    def close(
        self,
        connection: sa.Connection,
        call: OpenCall,
        state: str,
        now: float,
        note: str,
        *,
        order_id: int | None = None,
    ) -> None:
        """Records how an open call has ended."""
        values: dict[str, Any] = {}
        if order_id is not None and call.kind == "order":
            price = self._records.row(connection, order_id).price
            values = {} if price is None or is_cut_off(price, call.price) else {"charge": str(price)}
        connection.execute(
            sa.update(purchases)
            .where(purchases.c.id == call.id)
            .values(
                state=state,
                order_id=order_id,
                resolved_at=now,
                resolved_number=sequence.advance(self._store, connection, self._account),
                note=note,
                candidates=None,
                unclaimed=state == "bought" and call.kind == "renewal",
                **values,
            )
        )
        day_sums.forget(connection, self._account, purchases.c.id == call.id)
        charge = values.get("charge", call.charge)
        self._ends.note(
            connection,
            state,
            kind=call.kind,
            namespace=call.namespace,
            request=call.request,
            charge=charge,
        )

    def mark_ambiguous(self, connection: sa.Connection, call: OpenCall, order_ids: Sequence[int]) -> None:
        """Records that a person has to decide which order an open call has bought."""
        connection.execute(
            sa.update(purchases)
            .where(purchases.c.id == call.id)
            .values(state="unknown", candidates=json.dumps(list(order_ids)))
        )

    def note_why_open(self, connection: sa.Connection, call: OpenCall, why: str) -> None:
        """Records why an open call cannot be resolved."""
        connection.execute(
            sa.update(purchases).where(purchases.c.id == call.id).values(note=why, candidates=None)
        )

    # -------------------------------------------------------------- inside

    def _stands(self, connection: sa.Connection, last: Any, purchase: Purchase, after: int | None) -> bool:
        """Whether the key's last call bought anything except `after`. Raises where nothing may be sent."""
        if last is None:
            return False
        if last.fingerprint != purchase.fingerprint:
            raise PurchaseConflictError(
                f"the key {purchase.key!r} stands for another purchase ({last.request}). Nothing was "
                "sent. Use another key",
                key=purchase.key,
            )
        if last.state in OPEN:
            self._precedence.refuse_while_open(connection, last)
        return bool(last.state in ("bought", "shared") and last.order_id != after)

    def _refuse_beyond_caps(self, connection: sa.Connection, intent: Intent) -> None:
        self.spending.refuse_beyond(
            connection, intent.purchase.caps, key=intent.key, charge=intent.charge, call_id=intent.id
        )

    def _is_renewed_meanwhile(self, connection: sa.Connection, purchase: Purchase) -> bool:
        return self.renewals.count_of(connection, purchase.fingerprint) > purchase.count

    def _end(self, connection: sa.Connection, row: Any, state: str, **values: Any) -> None:
        """Records how a call ended; `row` is what it was before."""
        this = purchases.c.id == row.id
        connection.execute(
            sa.update(purchases)
            .where(this)
            .values(
                state=state,
                resolved_at=self._store.now(connection),
                resolved_number=sequence.advance(self._store, connection, self._account),
                **values,
            )
        )
        day_sums.forget(connection, self._account, this)
        # What was never sent is no rejection, and what is recorded again has been counted.
        if row.state != state and (state, row.state) != ("rejected", "planned"):
            charge = values.get("charge", row.charge)
            self._ends.note(
                connection,
                state,
                kind=row.kind,
                namespace=row.namespace,
                request=json.loads(row.request),
                charge=charge,
            )


def _is_of(intent: Intent) -> sa.ColumnElement[bool]:
    """The row of an intent, as long as no other caller has taken it over."""
    return sa.and_(purchases.c.id == intent.id, purchases.c.attempt == intent.attempt)


def _as_text(amount: Decimal | None) -> str | None:
    return None if amount is None else str(amount)
