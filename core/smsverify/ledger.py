"""What was bought, what may have been, and what has to be given back.

A paid call has a key, and a row before it is sent:

```
planned ──► sent ──► bought      the answer named the order
                 ──► rejected    nothing was carried out; the key may try again
                 ──► unknown     nobody knows; the key does not send again
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

from smsverify.errors import PurchaseConflictError, PurchaseUnknownError
from smsverify.models import Order, OrderStatus
from smsverify.store import Store, orders, purchases

log = logging.getLogger(__name__)

RUN_AHEAD = 40  # purchases after one that is not explained; the service lists no more than 50 orders


@dataclass(frozen=True)
class Intent:
    """The right to send one paid call, on record before it is used."""

    id: int
    key: str
    attempt: str


class UnderWay(Exception):
    """The key's call is being made by somebody else at this moment."""


@dataclass(frozen=True)
class Release:
    """An order that somebody wants to be cancelled."""

    order_id: int
    reason: str


@dataclass(frozen=True)
class Purchase:
    """A paid call by its key.

    Attributes:
        key: names it.
        kind: `order` or `renewal`.
        fingerprint: what the key stands for; the same key never stands for something else.
    """

    key: str
    kind: str
    fingerprint: str


class Ledger:
    """The purchases and orders of one account.

    Args:
        store: where they are kept.
        account: whose they are.
        namespace: keeps apart the keys of deployments that share the store.
        lease: seconds that one paid call may take.
    """

    def __init__(self, store: Store, account: str, *, namespace: str, lease: float) -> None:
        self._store = store
        self._account = account
        self._namespace = namespace
        self._lease = lease

    # -------------------------------------------------------------- paid calls

    def find(self, purchase: Purchase, *, after: int | None = None) -> Order | None:
        """The order that a key has bought, if it has; raises like `begin`."""
        with self._store.read() as connection:
            last = self._last(connection, purchase)
            return (
                self._order(connection, last.order_id)
                if self._stands(connection, last, purchase, after)
                else None
            )

    def begin(
        self,
        purchase: Purchase,
        request: Mapping[str, Any],
        price: Decimal | None,
        *,
        after: int | None = None,
    ) -> Intent | Order:
        """Puts the intent of a paid call on record, unless its key has one that still counts.

        Args:
            purchase: the key, and what it stands for.
            request: what is sent, in the catalogue's ids.
            price: USD that it is expected to cost.
            after: the order of this key that has ended, so that a new generation may begin.

        Returns:
            the intent to send with, or the order that this key has already bought.

        Raises:
            PurchaseConflictError: the key stands for something else.
            PurchaseUnknownError: the key's last call has an unknown outcome.
            UnderWay: the key's call is being made right now.
        """
        values: dict[str, Any] = {
            "attempt": uuid.uuid4().hex,
            "request": json.dumps(dict(request)),
            "price": str(price) if price is not None else None,
        }
        with self._store.write() as connection:
            self._store.lock(connection, self._account)
            last = self._last(connection, purchase)
            if self._stands(connection, last, purchase, after):
                return self._order(connection, last.order_id)
            self._refuse_to_run_ahead(connection)
            if last is not None and last.state == "planned":
                # Whoever planned it has sent nothing, and will find that it may not any more.
                connection.execute(sa.update(purchases).where(purchases.c.id == last.id).values(**values))
                return Intent(last.id, purchase.key, values["attempt"])
            intent_id = connection.execute(
                sa.insert(purchases)
                .values(
                    account=self._account,
                    namespace=self._namespace,
                    key=purchase.key,
                    generation=last.generation + 1 if last is not None else 1,
                    kind=purchase.kind,
                    fingerprint=purchase.fingerprint,
                    state="planned",
                    sent_at=self._store.now(connection),
                    **values,
                )
                .returning(purchases.c.id)
            ).scalar_one()
            return Intent(intent_id, purchase.key, values["attempt"])

    def _stands(self, connection: sa.Connection, last: Any, purchase: Purchase, after: int | None) -> bool:
        """Whether the key's last call has bought anything but `after`. Raises where nothing may be sent."""
        if last is None:
            return False
        if last.fingerprint != purchase.fingerprint:
            raise PurchaseConflictError(
                f"the key {purchase.key!r} stands for another purchase ({last.request}): use another key",
                key=purchase.key,
            )
        now = self._store.now(connection)
        if last.state == "sent" and now - self._lease < last.sent_at <= now:
            raise UnderWay
        if last.state in ("sent", "unknown"):
            raise self._unknown_error(last)
        return bool(last.state == "bought" and last.order_id != after)

    def _refuse_to_run_ahead(self, connection: sa.Connection) -> None:
        """The list shows so many orders: what is to be found in it must not fall off its end."""
        mine = sa.and_(purchases.c.account == self._account, purchases.c.kind == "order")
        settled = sa.or_(
            purchases.c.state.in_(("planned", "bought", "rejected")),
            sa.and_(
                purchases.c.state == "sent", purchases.c.sent_at > self._store.now(connection) - self._lease
            ),
        )
        oldest = connection.execute(
            sa.select(purchases).where(mine, sa.not_(settled)).order_by(purchases.c.sent_at).limit(1)
        ).one_or_none()
        if oldest is None:
            return
        since = connection.execute(
            sa.select(sa.func.count()).where(
                mine, purchases.c.sent_at > oldest.sent_at, purchases.c.state != "rejected"
            )
        ).scalar_one()
        if since >= RUN_AHEAD:
            raise self._unknown_error(oldest)

    def _unknown_error(self, last: Any) -> PurchaseUnknownError:
        candidates = tuple(json.loads(last.candidates or "[]"))
        hint = "the list of orders has not decided yet"
        if candidates:
            hint = (
                f"one of the orders {', '.join(map(str, candidates))} may be it, which a person has to tell"
            )
        when = f"{_utc(last.sent_at):%Y-%m-%d %H:%M:%S} UTC"
        return PurchaseUnknownError(
            f"{last.key!r} was sent at {when}, and whether it was carried out is unknown: {hint}",
            key=last.key,
            order_ids=candidates,
        )

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

    def sending(self, intent: Intent) -> None:
        """The call leaves now. Raises `UnderWay` where somebody else has taken the intent over."""
        with self._store.write() as connection:
            self._store.lock(connection, self._account)
            mine = sa.and_(purchases.c.id == intent.id, purchases.c.attempt == intent.attempt)
            values = {"state": "sent", "sent_at": self._store.now(connection)}
            may_send = purchases.c.state.in_(("planned", "sent"))
            if not connection.execute(sa.update(purchases).where(mine, may_send).values(**values)).rowcount:
                raise UnderWay

    def bought(self, intent: Intent, order: Order) -> Order:
        """Records the answer to a purchase, in one transaction with the order itself."""
        order = order.model_copy(update={"key": intent.key})
        with self._store.write() as connection:
            self._store.lock(connection, self._account)
            self._put(connection, order)
            self._settle(connection, intent, "bought", order_id=order.order_id)
        return order

    def renewed(self, intent: Intent, order: Order) -> None:
        """Records that a renewal was carried out, and what the order is now."""
        with self._store.write() as connection:
            self._store.lock(connection, self._account)
            self._put(connection, order)
            self._settle(connection, intent, "bought", order_id=order.order_id)

    def renewals(self, order_id: int) -> int:
        """How often an order was renewed here."""
        with self._store.read() as connection:
            return connection.execute(
                sa.select(sa.func.count()).where(
                    purchases.c.account == self._account,
                    purchases.c.kind == "renewal",
                    purchases.c.state == "bought",
                    purchases.c.order_id == order_id,
                )
            ).scalar_one()

    def rejected(self, intent: Intent, reason: str) -> None:
        """Records that a paid call was not carried out: its key may try again."""
        with self._store.write() as connection:
            self._store.lock(connection, self._account)
            self._settle(connection, intent, "rejected", note=reason)

    def unknown(self, intent: Intent, reason: str) -> None:
        """Records that nobody knows whether a paid call was carried out."""
        with self._store.write() as connection:
            self._store.lock(connection, self._account)
            self._settle(connection, intent, "unknown", note=reason)

    # -------------------------------------------------------------- orders

    def get(self, order_id: int) -> Order | None:
        """An order as last seen; `None` where it is not known here."""
        with self._store.read() as connection:
            row = connection.execute(sa.select(orders).where(self._is(order_id))).one_or_none()
        return _order(row) if row is not None else None

    def saw(self, status: OrderStatus) -> None:
        """Notes an order's status, also of an order that was not bought here."""
        values: dict[str, Any] = {"status": status.status}
        if status.phone is not None:
            values["phone"] = status.phone
        if status.expires_at is not None:
            values |= {
                "expires_at": status.expires_at.timestamp(),
                "expires_estimated": False,
            }
        with self._store.write() as connection:
            self._upsert(connection, status.order_id, values)

    def saw_list(self, listed: Sequence[Order]) -> None:
        """Keeps every order that the service has ever listed, with when it was first seen."""
        if not listed:
            return
        with self._store.write() as connection:
            now = self._store.now(connection)
            rows = [
                {
                    "account": self._account,
                    "order_id": order.order_id,
                    "service": order.service,
                    "phone": order.phone,
                    "price": str(order.price) if order.price is not None else None,
                    "status": order.status,
                    "created_at": order.created_at.timestamp() if order.created_at else None,
                    "first_seen_at": now,
                }
                for order in listed
            ]
            connection.execute(self._store.insert(orders).on_conflict_do_nothing(), rows)

    def used(self, order_id: int) -> None:
        """Notes that an order's code was handed out."""
        with self._store.write() as connection:
            connection.execute(
                sa.update(orders)
                .where(self._is(order_id), orders.c.used_at.is_(None))
                .values(
                    used_at=self._store.now(connection),
                    release_asked_at=None,
                    release_reason=None,
                )
            )

    def was_used(self, order_id: int) -> bool:
        """Whether an order's code was handed out."""
        with self._store.read() as connection:
            return (
                connection.execute(sa.select(orders.c.used_at).where(self._is(order_id))).scalar() is not None
            )

    # -------------------------------------------------------------- who waits, and what is to be given back

    def claim(self, order_id: int, waiter: str) -> None:
        """Notes who waits for an order now; a release that an earlier waiter asked for is off."""
        # The same waiter's own stays: it may have been killed before this claim of its got here.
        is_same = orders.c.waiter == waiter
        values = {
            "release_asked_at": sa.case((is_same, orders.c.release_asked_at), else_=None),
            "release_reason": sa.case((is_same, orders.c.release_reason), else_=None),
            "waiter": waiter,
        }
        first = {"status": "pending", "waiter": waiter}
        with self._store.write() as connection:
            self._upsert(connection, order_id, values, first)

    def ask_release(self, order_id: int, reason: str, *, waiter: str | None = None) -> bool:
        """Records that an order is to be cancelled; `False` where another waiter has it, or its code was
        handed out.

        Args:
            order_id: the order.
            reason: why, for people.
            waiter: who gives it up; `None` for somebody who decides for all.
        """
        this = sa.and_(self._is(order_id), orders.c.used_at.is_(None))
        if waiter is not None:
            this = sa.and_(this, sa.or_(orders.c.waiter.is_(None), orders.c.waiter == waiter))
        with self._store.write() as connection:
            values = {
                "release_asked_at": self._store.now(connection),
                "release_reason": reason,
            }
            self._upsert(connection, order_id, {})
            return bool(connection.execute(sa.update(orders).where(this).values(**values)).rowcount)

    def wants_release(self, order_id: int) -> bool:
        """Whether the order is to be cancelled."""
        with self._store.read() as connection:
            return (
                connection.execute(sa.select(orders.c.release_asked_at).where(self._is(order_id))).scalar()
                is not None
            )

    def release_done(self, order_id: int) -> None:
        """The order was cancelled, or there is nothing to give back."""
        with self._store.write() as connection:
            connection.execute(
                sa.update(orders).where(self._is(order_id)).values(release_asked_at=None, release_reason=None)
            )

    def open_releases(self) -> list[Release]:
        """The orders that are to be cancelled and have not been yet."""
        with self._store.read() as connection:
            rows = connection.execute(
                sa.select(orders.c.order_id, orders.c.release_reason)
                .where(
                    orders.c.account == self._account,
                    orders.c.release_asked_at.is_not(None),
                )
                .order_by(orders.c.release_asked_at)
            ).all()
        return [Release(row.order_id, row.release_reason) for row in rows]

    # -------------------------------------------------------------- inside

    def _is(self, order_id: int) -> sa.ColumnElement[bool]:
        return sa.and_(orders.c.account == self._account, orders.c.order_id == order_id)

    def _settle(self, connection: sa.Connection, intent: Intent, state: str, **values: Any) -> None:
        connection.execute(
            sa.update(purchases)
            .where(purchases.c.id == intent.id, purchases.c.attempt == intent.attempt)
            .values(state=state, settled_at=self._store.now(connection), **values)
        )

    def _put(self, connection: sa.Connection, order: Order) -> None:
        values = {
            "product": order.product,
            "service": order.service,
            "country": order.country,
            "duration": order.duration,
            "phone": order.phone,
            "price": str(order.price) if order.price is not None else None,
            "status": order.status,
            "created_at": order.created_at.timestamp() if order.created_at else self._store.now(connection),
            "expires_at": order.expires_at.timestamp() if order.expires_at else None,
            "expires_estimated": order.expires_estimated,
            "activation_code": order.activation_code,
            "key": order.key,
        }
        self._upsert(connection, order.order_id, values)

    def _upsert(
        self,
        connection: sa.Connection,
        order_id: int,
        values: Mapping[str, Any],
        first: Mapping[str, Any] | None = None,
    ) -> None:
        """Changes an order's row, or makes one, with `first`, for an order that nobody has seen."""
        made = {"status": "pending", "first_seen_at": self._store.now(connection)}
        made |= values if first is None else first
        insert = self._store.insert(orders).values(account=self._account, order_id=order_id, **made)
        this = [orders.c.account, orders.c.order_id]
        connection.execute(
            insert.on_conflict_do_update(index_elements=this, set_=dict(values))
            if values
            else insert.on_conflict_do_nothing(index_elements=this)
        )

    def _order(self, connection: sa.Connection, order_id: int) -> Order:
        return _order(connection.execute(sa.select(orders).where(self._is(order_id))).one())


def _order(row: Any) -> Order:
    values = {name: row._mapping[name] for name in Order.model_fields if name in row._mapping}
    return Order.model_validate(
        values | {"created_at": _utc(row.created_at), "expires_at": _utc(row.expires_at)}
    )


def _utc(when: float | None) -> Any:
    return None if when is None else datetime.fromtimestamp(when, timezone.utc)
