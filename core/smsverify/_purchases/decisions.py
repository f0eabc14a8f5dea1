"""What a person decides where the service's answers do not: on paid calls, and on refunds."""

from __future__ import annotations

import contextlib

import sqlalchemy as sa

from smsverify._orders.orders import Orders
from smsverify._purchases.calls import OpenCall
from smsverify._purchases.ledger import Ledger
from smsverify._purchases.refunds import Refunds
from smsverify._store.store import Store
from smsverify.errors import InvalidRequestError, NotFoundError


class Decisions:
    """The decisions that persons make about the open calls and the missing refunds of one account.

    Args:
        store: where the calls are.
        ledger: the account's paid calls.
        orders: the account's orders.
        refunds: which of its refunds are missing.
    """

    def __init__(self, store: Store, ledger: Ledger, orders: Orders, refunds: Refunds) -> None:
        self._store = store
        self._ledger = ledger
        self._orders = orders
        self._refunds = refunds

    def resolve_refund(self, order_id: int) -> None:
        """Records a person's word that a refund has come; see `SmsVerifyHook.resolve_refund`.

        Raises:
            InvalidRequestError: the refund of that order is not missing.
        """
        with self._store.write() as connection:
            self._ledger.lock(connection)
            if not self._refunds.settle(connection, order_id):
                raise InvalidRequestError(
                    f"no refund of order {order_id} is missing: `smsverify reconcile` names those that are",
                    field="order_id",
                )

    def resolve(self, key: str, order_id: int | None) -> None:
        """Records what a person says of a call whose outcome is unknown; see `SmsVerifyHook.resolve`.

        Args:
            key: the call's.
            order_id: what it has bought or renewed; `None` where it was not carried out.

        Raises:
            InvalidRequestError: no such call is open, or it cannot be that order.
        """
        if order_id is not None and self._orders.records.get(order_id) is None:
            with contextlib.suppress(NotFoundError):
                self._orders.status.read(order_id)
        with self._store.write() as connection:
            self._ledger.lock(connection)
            self._ledger.owners.lock(connection)
            now = self._store.now(connection)
            for call in self._ledger.open_calls(connection):
                if (call.namespace, call.key) != (self._ledger.namespace, key) or call.under_way:
                    continue
                if order_id is not None:
                    self._refuse_impossible(connection, call, order_id)
                    if call.kind == "renewal":
                        self._ledger.renewals.note_one_more(connection, order_id)
                state = "rejected" if order_id is None else "bought"
                self._ledger.close(connection, call, state, now, "decided by a person", order_id=order_id)
                if order_id is not None and call.kind == "order":
                    self._orders.records.assign(connection, order_id, key, call.request, call.price)
                return
        raise InvalidRequestError(
            f"the call {key!r} needs no decision: there is no such call, its outcome is known, or it is "
            "still running",
            field="key",
        )

    def _refuse_impossible(self, connection: sa.Connection, call: OpenCall, order_id: int) -> None:
        """Raises where an order cannot be what a call has bought or renewed."""
        number, why = self._orders.records.number_of(connection, order_id), None
        if number is None:
            why = "is unknown to this store and to the service"
        elif call.kind == "renewal":
            if call.request["order_id"] != order_id:
                why = f"is the wrong order: {call.key!r} renews order {call.request['order_id']}"
        elif (owner := self._ledger.owners.key_of(connection, order_id)) is not None:
            why = f"belongs to {owner!r}"
        elif number < call.number:
            why = f"existed before the call {call.key!r} was sent, so {call.key!r} cannot have bought it"
        if why is not None:
            raise InvalidRequestError(f"order_id {order_id} {why}", field="order_id")
