"""The paid calls: what was bought, and what may have been.

A paid call has a key, and a row before it is sent:

```
planned ──► sent ──► bought      the answer named the order
                 ──► rejected    nothing was carried out; the key may try again
                 ──► unknown     nobody knows; the key does not send again
        ──► shared               a renewal that somebody else has made meanwhile
```
A row that stays at `sent` for longer than a call can take means the same as `unknown`: its process has died.
One that stays at `planned` cost nothing, and the next to come with its key takes it over. Each further
purchase of a key whose last one has ended is a new generation of it.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from smsverify.errors import (
    InvalidRequestError,
    PurchaseAmbiguousError,
    PurchaseConflictError,
    PurchaseUnknownError,
)
from smsverify.models import Order
from smsverify.orderbook import OrderBook
from smsverify.spending import Caps, Spending
from smsverify.store import Store, orders, purchases

log = logging.getLogger(__name__)

RUN_AHEAD = 40  # purchases after one that is not explained; the service lists no more than 50 orders


@dataclass(frozen=True)
class Purchase:
    """A paid call by its key.

    Attributes:
        key: names it.
        kind: `order` or `renewal`.
        fingerprint: what the key stands for; the same key never stands for something else.
        caps: what may be spent with it.
        count: of a renewal, how often the order had been renewed when this one was decided on.
    """

    key: str
    kind: str
    fingerprint: str
    caps: Caps
    count: int = 0


@dataclass(frozen=True)
class Intent:
    """The right to send one paid call, on record before it is used.

    Attributes:
        charge: USD that it may cost at the most; `None` where nobody knows.
    """

    id: int
    purchase: Purchase
    attempt: str
    charge: Decimal | None

    @property
    def key(self) -> str:
        """The call's key."""
        return self.purchase.key


@dataclass(frozen=True)
class OpenCall:
    """A paid call whose outcome is unknown.

    Attributes:
        id, attempt: of its row.
        namespace, key, kind, price: as above.
        request: what was sent.
        sent_at: seconds since 1970 by the store's clock.
        candidates: the orders that may be it, where a person has to tell.
        under_way: whether its answer may still come.
    """

    id: int
    attempt: str
    namespace: str
    key: str
    kind: str
    request: dict[str, Any]
    price: Decimal | None
    sent_at: float
    candidates: tuple[int, ...]
    under_way: bool


@dataclass(frozen=True)
class LastRenewal:
    """A renewal that was carried out.

    Attributes:
        id: of its row.
        end: the order's end before it, in seconds since 1970; `None` where nobody knew.
        step: by how many seconds that may be wrong; `None` where the status did not tell it.
        settled_at: when it was carried out, or found to be.
        has_shown: whether the status was seen to show it.
    """

    id: int
    end: float | None
    step: float | None
    settled_at: float
    has_shown: bool


class UnderWay(Exception):
    """The key's call is being made by somebody else at this moment."""


class Ledger:
    """The paid calls of one account.

    Args:
        store: where they are kept.
        book: the account's orders.
        account: whose they are.
        namespace: keeps apart the keys of deployments that share the store.
        lease: seconds that one paid call may take.
        patience: seconds after which one that has planned a call and shows no sign of life is dead.
    """

    def __init__(
        self,
        store: Store,
        book: OrderBook,
        account: str,
        *,
        namespace: str,
        lease: float,
        patience: float,
    ) -> None:
        self._store = store
        self.book = book
        self.spending = Spending(store, account)
        self._account = account
        self._namespace = namespace
        self._lease = lease
        self._patience = patience

    def now(self) -> float:
        """Seconds since 1970 by the clock that all users of the store share."""
        with self._store.read() as connection:
            return self._store.now(connection)

    def lock(self, connection: sa.Connection) -> None:
        """Lets one transaction at a time decide on the account's paid calls."""
        self._store.lock(connection, self._account)

    # -------------------------------------------------------------- before it is sent

    def find(self, purchase: Purchase, *, after: int | None = None) -> Order | None:
        """The order that a key has bought, if it has; raises like `begin`."""
        with self._store.read() as connection:
            last = self._last(connection, purchase)
            if not self._stands(connection, last, purchase, after):
                return None
            order = self.book.row(connection, last.order_id)
        if last.unclaimed:
            self._claim(last.id)
        return order

    def found_renewal(self, order_id: int) -> Order | None:
        """An order whose last renewal was found to be made, and has not been handed out to anybody."""
        with self._store.read() as connection:
            row = connection.execute(
                sa.select(purchases)
                .where(
                    purchases.c.account == self._account,
                    purchases.c.fingerprint == f"renewal of {order_id}",
                    purchases.c.state == "bought",
                )
                .order_by(purchases.c.settled_at.desc())
                .limit(1)
            ).one_or_none()
        if row is None or not row.unclaimed or not self._claim(row.id):
            return None
        return self.book.get(order_id)

    def unclaimed(self) -> list[int]:
        """The orders that were found to be bought, and have not been handed out to anybody."""
        with self._store.read() as connection:
            return list(
                connection.execute(
                    sa.select(purchases.c.order_id)
                    .where(
                        purchases.c.account == self._account,
                        purchases.c.kind == "order",
                        purchases.c.state == "bought",
                        purchases.c.unclaimed,
                    )
                    .order_by(purchases.c.order_id)
                ).scalars()
            )

    def _claim(self, call_id: int) -> bool:
        """Notes that somebody has been handed out what a call was found to have bought."""
        with self._store.write() as connection:
            this = sa.and_(purchases.c.id == call_id, purchases.c.unclaimed)
            return bool(connection.execute(sa.update(purchases).where(this).values(unclaimed=False)).rowcount)

    def begin(
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
            PurchaseConflictError: the key stands for something else.
            PurchaseUnknownError: the key's last call has an unknown outcome.
            SpendingLimitError: more would be spent than may be.
            UnderWay: the key's call is being made right now.
        """
        values: dict[str, Any] = {
            "attempt": uuid.uuid4().hex,
            "request": json.dumps(dict(request)),
            "price": str(price) if price is not None else None,
            "charge": str(charge) if charge is not None else None,
            "run": purchase.caps.run_name,
            "state": "planned",
        }
        with self._store.write() as connection:
            self.lock(connection)
            last = self._last(connection, purchase)
            if self._stands(connection, last, purchase, after):
                return self.book.row(connection, last.order_id)
            if purchase.kind == "order":
                self._refuse_to_run_ahead(connection)
            elif self._is_renewed_meanwhile(connection, purchase):
                values |= {"state": "shared", "order_id": request["order_id"], "charge": "0"}
            else:
                self._refuse_beside_another(connection, purchase)
            if last is not None and last.state == "planned":
                now = self._store.now(connection)
                if values["state"] == "planned" and now - self._patience < last.sent_at <= now:
                    raise UnderWay
                # Whoever planned it has sent nothing, and would find that it may not any more.
                values["sent_at"] = now
                connection.execute(sa.update(purchases).where(purchases.c.id == last.id).values(**values))
                intent_id = last.id
            else:
                intent_id = connection.execute(
                    sa.insert(purchases)
                    .values(
                        account=self._account,
                        namespace=self._namespace,
                        key=purchase.key,
                        generation=last.generation + 1 if last is not None else 1,
                        kind=purchase.kind,
                        fingerprint=purchase.fingerprint,
                        sent_at=self._store.now(connection),
                        **values,
                    )
                    .returning(purchases.c.id)
                ).scalar_one()
            if values["state"] == "shared":
                return self.book.row(connection, request["order_id"])
            intent = Intent(intent_id, purchase, values["attempt"], charge)
            self._refuse_beyond_caps(connection, intent)
            return intent

    def alive(self, intent: Intent) -> None:
        """Whoever has planned a call still waits for its turn. Raises `UnderWay` where it was taken over."""
        with self._store.write() as connection:
            mine = sa.and_(purchases.c.id == intent.id, purchases.c.attempt == intent.attempt)
            values = {"sent_at": self._store.now(connection)}
            is_waiting = purchases.c.state.in_(("planned", "sent"))
            if not connection.execute(sa.update(purchases).where(mine, is_waiting).values(**values)).rowcount:
                raise UnderWay

    def sending(self, intent: Intent) -> None:
        """The call leaves now. What it may cost counts as spent from here on.

        Raises:
            UnderWay: somebody else has taken the intent over, or renews the same order.
            SpendingLimitError: others have spent meanwhile what may be spent.
        """
        with self._store.write() as connection:
            self.lock(connection)
            mine = sa.and_(purchases.c.id == intent.id, purchases.c.attempt == intent.attempt)
            values = {"state": "sent", "sent_at": self._store.now(connection)}
            may_send = purchases.c.state.in_(("planned", "sent"))
            if not connection.execute(sa.update(purchases).where(mine, may_send).values(**values)).rowcount:
                raise UnderWay
            if intent.purchase.kind == "order":
                self._refuse_to_run_ahead(connection, without=intent.id)
            elif self._another(connection, intent.purchase) is not None or self._is_renewed_meanwhile(
                connection, intent.purchase
            ):
                raise UnderWay
            self._refuse_beyond_caps(connection, intent)

    # -------------------------------------------------------------- after it was sent

    def bought(self, intent: Intent, order: Order) -> Order:
        """Records the answer to a purchase, in one transaction with the order itself.

        Returns:
            the order that the key has: another one where the answer came so late that the list of orders has
            decided meanwhile. Then this one belongs to nobody yet.
        """
        order = order.model_copy(update={"key": intent.key})
        with self._store.write() as connection:
            self.lock(connection)
            row = self._row(connection, intent)
            if row.state == "bought" and row.order_id != order.order_id:
                log.warning("%s was answered late: order %d is nobody's yet", intent.key, order.order_id)
                self.book.put(connection, order.model_copy(update={"key": None}))
                return self.book.row(connection, row.order_id)
            self.book.put(connection, order)
            values = {} if order.price is None else {"charge": str(order.price)}
            self._settle(connection, intent, "bought", order_id=order.order_id, **values)
        return order

    def renewed(self, intent: Intent, order: Order) -> None:
        """Records that a renewal was carried out, and what the order is now."""
        with self._store.write() as connection:
            self.lock(connection)
            self.book.put(connection, order)
            self._settle(connection, intent, "bought", order_id=order.order_id)

    def rejected(self, intent: Intent, reason: str) -> None:
        """Records that a paid call was not carried out: its key may try again."""
        with self._store.write() as connection:
            self.lock(connection)
            if self._row(connection, intent).state != "bought":
                self._settle(connection, intent, "rejected", note=reason)

    def unknown(self, intent: Intent, reason: str) -> None:
        """Records that nobody knows whether a call was carried out, unless that was found out meanwhile."""
        with self._store.write() as connection:
            self.lock(connection)
            if self._row(connection, intent).state == "sent":
                self._settle(connection, intent, "unknown", note=reason)

    def decide(self, key: str, order_id: int | None) -> None:
        """Records what a person tells of a call whose outcome is unknown.

        Args:
            key: the call's.
            order_id: what it has bought or renewed; `None` where it was not made.

        Raises:
            InvalidRequestError: no such call is open, or it can not be that order.
        """
        with self._store.write() as connection:
            self.lock(connection)
            now = self._store.now(connection)
            for call in self.open_calls(connection):
                if (call.namespace, call.key) != (self._namespace, key) or call.under_way:
                    continue
                if order_id is not None:
                    self._refuse_as_outcome(connection, call, order_id)
                    if call.kind == "order":
                        self.book.assign(connection, order_id, key, call.request)
                    else:
                        self.book.extend(
                            connection, order_id, self._renewals(connection, f"renewal of {order_id}")
                        )
                self.close(
                    connection,
                    call,
                    "rejected" if order_id is None else "bought",
                    now,
                    "told by a person",
                    order_id=order_id,
                )
                return
        raise InvalidRequestError(f"key {key!r} has no call whose outcome is unknown", field="key")

    def _refuse_as_outcome(self, connection: sa.Connection, call: OpenCall, order_id: int) -> None:
        this = sa.and_(orders.c.account == self._account, orders.c.order_id == order_id)
        row = connection.execute(sa.select(orders).where(this)).one_or_none()
        if row is None:
            raise InvalidRequestError(f"order_id {order_id} has never been seen", field="order_id")
        if call.kind == "order" and row.key is not None:
            raise InvalidRequestError(f"order_id {order_id} belongs to {row.key!r}", field="order_id")
        if call.kind == "order" and (
            order_id not in call.candidates if call.candidates else row.first_seen_at < call.sent_at
        ):
            hint = f"it is one of {call.candidates}" if call.candidates else "that was there before"
            raise InvalidRequestError(
                f"order_id {order_id} can not be {call.key!r}: {hint}", field="order_id"
            )
        if call.kind == "renewal" and call.request["order_id"] != order_id:
            raise InvalidRequestError(
                f"order_id {order_id} is not what {call.key!r} was to renew: {call.request['order_id']} is",
                field="order_id",
            )

    # -------------------------------------------------------------- what it all comes to

    def renewals(self, order_id: int) -> int:
        """How often an order was renewed here."""
        with self._store.read() as connection:
            return self._renewals(connection, f"renewal of {order_id}")

    def last_renewal(self, order_id: int) -> LastRenewal | None:
        """The last renewal of an order that was carried out; `None` where there is none."""
        with self._store.read() as connection:
            row = connection.execute(
                sa.select(purchases)
                .where(
                    purchases.c.account == self._account,
                    purchases.c.kind == "renewal",
                    purchases.c.fingerprint == f"renewal of {order_id}",
                    purchases.c.state == "bought",
                )
                .order_by(purchases.c.settled_at.desc())
                .limit(1)
            ).one_or_none()
        if row is None:
            return None
        asked = json.loads(row.request)
        has_shown = bool(asked.get("has_shown"))
        return LastRenewal(row.id, asked.get("end"), asked.get("step"), row.settled_at, has_shown)

    def shows(self, renewal: LastRenewal) -> None:
        """Notes that the status of an order was seen to show its renewal."""
        this = purchases.c.id == renewal.id
        with self._store.write() as connection:
            asked = json.loads(connection.execute(sa.select(purchases.c.request).where(this)).scalar_one())
            request = json.dumps(asked | {"has_shown": True})
            connection.execute(sa.update(purchases).where(this).values(request=request))

    def open_renewals(self) -> list[OpenCall]:
        """The renewals whose outcome is unknown, the earliest first."""
        with self._store.read() as connection:
            return [call for call in self.open_calls(connection) if call.kind == "renewal"]

    def service_of(self, order_id: int) -> str | None:
        """What an order was bought as: the service's id in its catalogue, its name where it goes by name."""
        with self._store.read() as connection:
            request = connection.execute(
                sa.select(purchases.c.request)
                .where(
                    purchases.c.account == self._account,
                    purchases.c.kind == "order",
                    purchases.c.state == "bought",
                    purchases.c.order_id == order_id,
                )
                .limit(1)
            ).scalar()
        return None if request is None else str(json.loads(request)["service"])

    def refuse_beyond_caps(self, caps: Caps, *, charge: Decimal | None, what: str) -> None:
        """Raises where a call that is not on record would pass a cap; see `Spending.refuse_beyond`."""
        with self._store.read() as connection:
            self.spending.refuse_beyond(connection, caps, key=what, charge=charge, call_id=None)

    def open_calls(self, connection: sa.Connection) -> list[OpenCall]:
        """The calls whose outcome is unknown, the earliest first."""
        now = self._store.now(connection)
        rows = connection.execute(
            sa.select(purchases)
            .where(purchases.c.account == self._account, purchases.c.state.in_(("sent", "unknown")))
            .order_by(purchases.c.sent_at)
        )
        return [
            OpenCall(
                row.id,
                row.attempt,
                row.namespace,
                row.key,
                row.kind,
                json.loads(row.request),
                Decimal(row.price) if row.price else None,
                row.sent_at,
                tuple(json.loads(row.candidates or "[]")),
                self._is_under_way(row, now),
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
            price = self.book.row(connection, order_id).price
            values = {} if price is None else {"charge": str(price)}
        connection.execute(
            sa.update(purchases)
            .where(purchases.c.id == call.id)
            .values(
                state=state,
                order_id=order_id,
                settled_at=now,
                note=note,
                candidates=None,
                unclaimed=state == "bought",
                **values,
            )
        )

    def doubt(self, connection: sa.Connection, call: OpenCall, order_ids: Sequence[int]) -> None:
        """Records that a person has to tell which order an open call has bought."""
        connection.execute(
            sa.update(purchases)
            .where(purchases.c.id == call.id)
            .values(state="unknown", candidates=json.dumps(list(order_ids)))
        )

    # -------------------------------------------------------------- inside

    def _last(self, connection: sa.Connection, purchase: Purchase) -> Any:
        return connection.execute(
            sa.select(purchases)
            .where(
                purchases.c.account == self._account,
                purchases.c.namespace == self._namespace,
                purchases.c.key == purchase.key,
            )
            .order_by(purchases.c.generation.desc())
            .limit(1)
        ).one_or_none()

    def _stands(self, connection: sa.Connection, last: Any, purchase: Purchase, after: int | None) -> bool:
        """Whether the key's last call has bought anything but `after`. Raises where nothing may be sent."""
        if last is None:
            return False
        if last.fingerprint != purchase.fingerprint:
            raise PurchaseConflictError(
                f"the key {purchase.key!r} stands for another purchase ({last.request}): use another key",
                key=purchase.key,
            )
        if last.state in ("sent", "unknown"):
            self._refuse_while_open(connection, last)
        return bool(last.state in ("bought", "shared") and last.order_id != after)

    def _refuse_while_open(self, connection: sa.Connection, row: Any) -> None:
        if self._is_under_way(row, self._store.now(connection)):
            raise UnderWay
        raise self._unknown_error(row)

    def _is_under_way(self, row: Any, now: float) -> bool:
        return bool(row.state == "sent" and now - self._lease < row.sent_at <= now)

    def _refuse_beyond_caps(self, connection: sa.Connection, intent: Intent) -> None:
        self.spending.refuse_beyond(
            connection, intent.purchase.caps, key=intent.key, charge=intent.charge, call_id=intent.id
        )

    def _refuse_to_run_ahead(self, connection: sa.Connection, without: int | None = None) -> None:
        """The list shows so many orders: what is to be found in it must not fall off its end."""
        mine = sa.and_(purchases.c.account == self._account, purchases.c.kind == "order")
        if without is not None:
            mine = sa.and_(mine, purchases.c.id != without)
        is_open = purchases.c.state.in_(("sent", "unknown"))
        oldest = connection.execute(
            sa.select(purchases).where(mine, is_open).order_by(purchases.c.sent_at).limit(1)
        ).one_or_none()
        if oldest is None:
            return
        since = connection.execute(
            sa.select(sa.func.count()).where(
                mine,
                purchases.c.sent_at > oldest.sent_at,
                purchases.c.state.not_in(("planned", "rejected")),
            )
        ).scalar_one()
        if since >= RUN_AHEAD:
            self._refuse_while_open(connection, oldest)

    # -------------------------------------------------------------- renewals

    def _renewals(self, connection: sa.Connection, fingerprint: str) -> int:
        return connection.execute(
            sa.select(sa.func.count()).where(
                purchases.c.account == self._account,
                purchases.c.kind == "renewal",
                purchases.c.fingerprint == fingerprint,
                purchases.c.state == "bought",
            )
        ).scalar_one()

    def _is_renewed_meanwhile(self, connection: sa.Connection, purchase: Purchase) -> bool:
        return self._renewals(connection, purchase.fingerprint) > purchase.count

    def _another(self, connection: sa.Connection, purchase: Purchase) -> Any:
        """Another renewal of the same order that is under way or whose outcome is unknown."""
        is_own = sa.and_(purchases.c.namespace == self._namespace, purchases.c.key == purchase.key)
        return connection.execute(
            sa.select(purchases)
            .where(
                purchases.c.account == self._account,
                purchases.c.kind == "renewal",
                purchases.c.fingerprint == purchase.fingerprint,
                purchases.c.state.in_(("sent", "unknown")),
                sa.not_(is_own),
            )
            .order_by(purchases.c.sent_at)
            .limit(1)
        ).one_or_none()

    def _refuse_beside_another(self, connection: sa.Connection, purchase: Purchase) -> None:
        another = self._another(connection, purchase)
        if another is not None:
            self._refuse_while_open(connection, another)

    def _unknown_error(self, row: Any) -> PurchaseUnknownError:
        candidates = tuple(json.loads(row.candidates or "[]"))
        when = f"{datetime.fromtimestamp(row.sent_at, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
        text = f"{row.key!r} was sent at {when}, and whether it was carried out is unknown: "
        if candidates:
            named = ", ".join(map(str, candidates))
            return PurchaseAmbiguousError(
                f"{text}one of the orders {named} may be it, which a person has to tell (`smsverify settle`)",
                key=row.key,
                order_ids=candidates,
            )
        what = "the list of orders" if row.kind == "order" else "the order's status"
        return PurchaseUnknownError(f"{text}{what} has not decided yet", key=row.key)

    def _row(self, connection: sa.Connection, intent: Intent) -> Any:
        return connection.execute(sa.select(purchases).where(purchases.c.id == intent.id)).one()

    def _settle(self, connection: sa.Connection, intent: Intent, state: str, **values: Any) -> None:
        connection.execute(
            sa.update(purchases)
            .where(purchases.c.id == intent.id, purchases.c.attempt == intent.attempt)
            .values(state=state, settled_at=self._store.now(connection), **values)
        )
