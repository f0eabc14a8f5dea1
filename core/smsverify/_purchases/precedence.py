"""What keeps a paid call from being sent: other calls of the same key or rental, or of unknown outcome, and
that its rental is to be cancelled.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from smsverify._orders.orders import Orders
from smsverify._purchases.attempt_records import attempt_of
from smsverify._purchases.calls import OPEN, WALLET_KEEPS, AnswerAwaited, Purchase, UnderWay
from smsverify._purchases.spending import MAY_HAVE_COST
from smsverify._runtime.commands import how_to_resolve, may_have_bought
from smsverify._store.store import Store
from smsverify._store.tables import RENEWAL, purchases
from smsverify.errors import (
    InvalidRequestError,
    PurchaseAmbiguousError,
    PurchaseConflictError,
    PurchaseUnknownError,
    PurchaseUnverifiableError,
)

RUN_AHEAD = 40  # purchases after one that is not explained; the service lists no more than 50 orders


class Precedence:
    """What is on record of an account against a call that is to be sent. Works inside a transaction.

    Args:
        store: where the calls are.
        orders: the account's orders.
        account, namespace: whose calls are to be sent.
        patience: seconds after which a caller that has planned a call and sends no heartbeat is dead.
        grace: seconds after which the list shows what a call has bought.
        run_ahead: how many purchases may follow one that is not explained.
    """

    def __init__(
        self,
        store: Store,
        orders: Orders,
        account: str,
        namespace: str,
        *,
        patience: float,
        grace: float,
        run_ahead: int = RUN_AHEAD,
    ) -> None:
        self._store = store
        self._orders = orders
        self._account = account
        self._namespace = namespace
        self._patience = patience
        self._grace = grace
        self._run_ahead = run_ahead

    def last(self, connection: sa.Connection, key: str) -> Any:
        """The row of a key's newest call; `None` where it has none."""
        return connection.execute(
            sa.select(purchases)
            .where(
                purchases.c.account == self._account,
                purchases.c.namespace == self._namespace,
                purchases.c.key == key,
            )
            .order_by(purchases.c.generation.desc())
            .limit(1)
        ).one_or_none()

    def is_wanted(self, connection: sa.Connection, key: str) -> bool:
        """Whether a key has bought, or a caller is about to buy with it."""
        last, now = self.last(connection, key), self._store.now(connection)
        return last is not None and (last.state in MAY_HAVE_COST or self.is_waiting(last, now))

    def is_under_way(self, row: Any, now: float) -> bool:
        """Whether the answer to a call may still come."""
        return bool(row.state == "sent" and now - row.lease < row.sent_at <= now)

    def is_waiting(self, row: Any, now: float) -> bool:
        """Whether the caller that has planned a call waits for its turn to send it."""
        return bool(row.state == "planned" and now - self._patience < row.sent_at <= now)

    def refuse_while_open(self, connection: sa.Connection, row: Any) -> None:
        """Raises for a call whose outcome is not known.

        Raises:
            UnderWay: its answer may still come.
            PurchaseUnknownError: it does not come any more.
        """
        if self.is_under_way(row, self._store.now(connection)):
            raise UnderWay
        raise self._unknown_error(row)

    def refuse_beside_another(self, connection: sa.Connection, purchase: Purchase) -> None:
        """Raises like `refuse_while_open` where another renewal of the same order is open."""
        another = self.another(connection, purchase)
        if another is not None:
            self.refuse_while_open(connection, another)

    def await_another(self, connection: sa.Connection, purchase: Purchase) -> None:
        """Raises where another renewal of the same order is open, before one that is planned is sent.

        Raises:
            AnswerAwaited: its answer may still come.
            UnderWay: it does not come any more.
        """
        another = self.another(connection, purchase)
        if another is not None:
            raise AnswerAwaited if self.is_under_way(another, self._store.now(connection)) else UnderWay

    def another(self, connection: sa.Connection, purchase: Purchase) -> Any:
        """Another renewal of the same order that is under way or whose outcome is unknown."""
        is_own = sa.and_(purchases.c.namespace == self._namespace, purchases.c.key == purchase.key)
        found = connection.execute(
            sa.select(purchases).where(
                purchases.c.account == self._account,
                purchases.c.kind == RENEWAL,
                purchases.c.fingerprint == purchase.fingerprint,
                purchases.c.state.in_(OPEN),
                sa.not_(is_own),
            )
        )
        return min(found, key=lambda call: call.sent_number or 0, default=None)

    def refuse_given_up(self, connection: sa.Connection, order_id: int) -> None:
        """Raises where a rental is to be cancelled: what its renewal costs would be lost."""
        release = self._orders.releases.of_in(connection, order_id)
        if release is None or release.is_planned:
            return
        if release.scope == "pending" and self._orders.records.row(connection, order_id).status == "active":
            return  # It is in use, and stays.
        raise InvalidRequestError(
            f"order {order_id} is to be cancelled ({release.reason}), so it is not renewed, and nothing was "
            "paid. To keep it, call `wait_for_otp` with cancel_on_timeout=False, or `smsverify wait "
            f"{order_id} --keep`: that withdraws the cancellation. Then renew it",
            field="order_id",
        )

    def refuse_decided(self, connection: sa.Connection, key: str) -> None:
        """Raises where another call has ended the attempt that a purchase is for: that call tries another
        number.
        """
        attempt = attempt_of(connection, self._account, self._namespace, key)
        if attempt is not None and attempt.outcome is not None:
            raise PurchaseConflictError(
                f"another call with the key {attempt.key!r} has ended this attempt: {attempt.why}. Nothing "
                "was sent. That call goes on with other numbers; use another key for another purpose",
                key=attempt.key,
            )

    def refuse_to_run_ahead(self, connection: sa.Connection, key: str, without: int | None = None) -> None:
        """Raises where too many purchases have followed one that is not explained.

        The service lists 50 orders, and the one that is looked for must not fall off the end of its list. So
        nothing more is bought until the list was read late enough to show that order. A purchase that has
        candidates on record does not count: they are found already.

        Raises:
            AnswerAwaited: the answer to that purchase may still come.
            PurchaseUnverifiableError: it does not come any more.
        """
        mine = sa.and_(purchases.c.account == self._account, purchases.c.kind == "order")
        if without is not None:
            mine = sa.and_(mine, purchases.c.id != without)
        is_open = sa.and_(purchases.c.state.in_(OPEN), purchases.c.candidates.is_(None))
        found = connection.execute(sa.select(purchases).where(mine, is_open))
        for call in sorted(found, key=lambda call: call.sent_number or 0):
            number, over = call.sent_number or 0, call.sent_at + self._grace
            if self._orders.listing.was_asked_after(connection, number, over):
                continue
            since = connection.execute(
                sa.select(sa.func.count()).where(
                    mine,
                    purchases.c.sent_number > number,
                    purchases.c.state.not_in(("planned", "rejected")),
                )
            ).scalar_one()
            if since < self._run_ahead:
                return  # The later ones have fewer after them.
            now = self._store.now(connection)
            if self.is_under_way(call, now):
                raise AnswerAwaited
            raise PurchaseUnverifiableError(
                f"nothing was sent for {key!r}: the outcome of an earlier purchase is unknown, {since} "
                "purchases have followed it, and after more of them the list of orders would no longer show "
                f"it. Call again in {max(over - now, 0.0):.0f} s: then the list decides",
                key=key,
            )

    def _unknown_error(self, row: Any) -> PurchaseUnknownError:
        candidates = tuple(json.loads(row.candidates or "[]"))
        sent_at = self._store.utc(row.sent_at)
        text = (
            f"{row.key!r} was sent at {sent_at:%Y-%m-%d %H:%M:%S} UTC, and whether it was carried out is "
            "unknown; it is not sent again, and nothing else was sent. "
        )
        if candidates:
            return PurchaseAmbiguousError(
                f"{text}But {may_have_bought(candidates)}. {how_to_resolve(row.key, candidates)}",
                key=row.key,
                order_ids=candidates,
            )
        if row.note in WALLET_KEEPS:
            renewed = (json.loads(row.request)["order_id"],) if row.kind == "renewal" else ()
            why = f"It stays unknown, because {row.note}. {how_to_resolve(row.key, renewed)}"
        else:
            source = "The list of orders" if row.kind == "order" else "The status of its order"
            why = f"{source} does not show it yet: call again later with the same key"
        return PurchaseUnknownError(f"{text}{why}", key=row.key)
