"""How far each rental is paid: by the ledger's own count of its renewals, not by its status."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from smsverify._purchases.calls import renewal_of
from smsverify._purchases.expiry import ROUNDED, Expiry, Sight
from smsverify._purchases.moments import Moment
from smsverify._runtime.clock import DAY, MINUTE
from smsverify._service.service_clock import ServiceClock
from smsverify._store.store import Store
from smsverify._store.tables import RENEWAL, is_order, orders, purchases
from smsverify.models import Order, OrderStatus, period_of
from smsverify.text import log_of

log = log_of(__name__)

NAMED_DAYS: Final = {"rent-1day": 1, "rent-30days": 30}
LONGEST_DAYS: Final = 30


@dataclass(frozen=True)
class MadeRenewal:
    """A renewal that was carried out. All times are in seconds by the store's clock, as it goes now: what it
    has missed since then is taken off, see `Moment`.

    Attributes:
        id: of its row.
        sent_at: when it was sent.
        asked_at, expiry: when the order was looked at before it, and its end by that; `None` where that was
            unknown.
        grown: by how many seconds it has moved the end that the status shows; `None` where that was not seen.
        missed: what was taken off.
    """

    id: int
    sent_at: float
    asked_at: float
    expiry: Expiry | None
    grown: float | None
    missed: float = 0.0


class Periods:
    """The periods that were paid for the rentals of one account.

    Args:
        store: where the paid calls are.
        account: whose they are.
        service_clock: shows the service's time.
        time_scale: how long the service's minute is in real minutes.
    """

    def __init__(self, store: Store, account: str, service_clock: ServiceClock, *, time_scale: float) -> None:
        self._store = store
        self._account = account
        self._service_clock = service_clock
        self._time_scale = time_scale

    def expiry(self, when: datetime | None) -> Expiry | None:
        """The end at a date, by the service's clock; by the calendar where no answer has shown that."""
        if when is None:
            return None
        date = self._service_clock.now()
        with self._store.read() as connection:
            date = self._store.wall(connection) if date is None else date
            at = self._store.now(connection) + when.timestamp() - date
        return Expiry(at, at)

    def compare_calendars(self) -> None:
        """Warns where the calendar and the service's clock, as an answer has just shown it, do not agree."""
        date = self._service_clock.now()
        if date is None:
            return
        with self._store.read() as connection:
            ahead = self._store.wall(connection) - date
        if abs(ahead) > MINUTE:
            log.warning(
                "The calendar of this %s is %.0f s %s the service's clock, by which rentals end. Let NTP set "
                "the calendar",
                "machine" if self._store.is_sqlite else "database",
                abs(ahead),
                "ahead of" if ahead > 0 else "behind",
            )

    def last(self, order_id: int) -> MadeRenewal | None:
        """The last renewal of an order; `None` where it was never renewed here."""
        return max(self._renewals(order_id), key=lambda one: one.sent_at, default=None)

    def last_begins(self, order: Order) -> float | None:
        """When the period begins that was paid last, by the store's clock; `None` where it was never renewed.

        Until then, what is paid reaches farther than one period ahead. A renewal follows the period before
        it, or begins when it is made, where that one was over.
        """
        last = self._last_period(order)
        return None if last is None else last[0]

    def is_asked_for_again(self, order: Order) -> bool:
        """Whether a call that asks for a renewal now may mean the last one, if no caller knows of that: its
        period has not begun, or it was sent just now.
        """
        last = self._last_period(order)
        if last is None:
            return False
        begins, period, sent_at = last
        return self._store.read_now() < max(begins, sent_at + period / 10)

    def is_used_up(self, order: Order) -> bool:
        """Whether all periods that were paid here are over, those of open renewals included.

        A renewal that was made elsewhere is not among them.
        """
        days = order.duration or NAMED_DAYS.get(order.product or "")
        bought_at = self._bought_at(order.order_id)
        if days is None or bought_at is None:
            return False
        with self._store.read() as connection:
            renewals = connection.execute(
                sa.select(sa.func.count()).where(
                    purchases.c.account == self._account,
                    purchases.c.kind == RENEWAL,
                    purchases.c.fingerprint == renewal_of(order.order_id),
                    # One that is only planned is not paid, and its caller may have died.
                    purchases.c.state.in_(("sent", "unknown", "bought")),
                )
            ).scalar_one()
            return self._store.now(connection) > bought_at + (1 + renewals) * days * DAY + ROUNDED

    def saw(self, status: OrderStatus) -> Sight:
        """What a status of a rental says just now; notes what it shows of the last renewal."""
        with self._store.read() as connection:
            moment = self._moment(connection)
        sight = Sight(status, moment, Expiry.shown_by(status, moment.at, self._time_scale))
        self._note(status.order_id, sight.expiry)
        return sight

    # -------------------------------------------------------------- inside

    def _last_period(self, order: Order) -> tuple[float, float, float] | None:
        """When the period begins that was paid last, how long it is, and when its renewal was sent."""
        renewals = self._renewals(order.order_id)
        if not renewals:
            return None
        # What was missed since the purchase is not on record, but it is no less.
        missed = renewals[0].missed
        bought_at = self._bought_at(order.order_id)
        bought_at = None if bought_at is None else bought_at - missed
        period = self._period(order, bought_at, renewals)
        # A rental from elsewhere was bought before it was first seen: perhaps just before its end.
        seen_at = self._first_seen_at(order.order_id) - missed
        begins = seen_at - period / 10 if bought_at is None else bought_at
        for renewal in renewals:
            begins = max(begins + period, renewal.sent_at)
        return begins, period, renewals[-1].sent_at

    def _moment(self, connection: sa.Connection) -> Moment:
        return Moment(self._store.now(connection), self._store.wall(connection), self._service_clock.now())

    def _note(self, order_id: int, shown: Expiry | None) -> None:
        last = self.last(order_id)
        if shown is None or last is None or last.expiry is None or last.grown is not None:
            return
        if not shown.is_shown_like(last.expiry):
            return
        if not shown.has_grown(last.expiry, self._store.read_now() - last.asked_at):
            return
        grown = shown.latest - last.expiry.latest
        this = purchases.c.id == last.id
        with self._store.write() as connection:
            asked = json.loads(connection.execute(sa.select(purchases.c.request).where(this)).scalar_one())
            request = json.dumps(asked | {"grown": grown})
            connection.execute(sa.update(purchases).where(this).values(request=request))

    def _period(self, order: Order, bought_at: float | None, renewals: list[MadeRenewal]) -> float:
        """For how many seconds each renewal pays."""
        grown = [renewal.grown for renewal in renewals if renewal.grown is not None]
        days = order.duration or NAMED_DAYS.get(order.product or "")
        if days is None:
            return max(DAY, *grown) if grown else LONGEST_DAYS * DAY
        named = days * DAY
        if self._time_scale >= 1:
            return named
        # The days of a service whose minute is short may be short too.
        if order.duration is not None:
            shown = period_of(order, len(renewals), time_scale=self._time_scale)
            return named if shown is None else shown.total_seconds()
        first = renewals[0].expiry
        if not grown or bought_at is None or first is None or grown[0] >= named / 2:
            return named
        # Only where all of its ends agree: one that is stuck or jumps would be paid for again and again.
        lasted = [first.latest - bought_at, *grown]
        return grown[0] if all(abs(one - grown[0]) <= grown[0] / 4 for one in lasted) else named

    def _renewals(self, order_id: int) -> list[MadeRenewal]:
        with self._store.read() as connection:
            rows = connection.execute(
                sa.select(purchases).where(
                    purchases.c.account == self._account,
                    purchases.c.kind == RENEWAL,
                    purchases.c.fingerprint == renewal_of(order_id),
                    purchases.c.state == "bought",
                )
            ).all()
            now = self._moment(connection) if rows else Moment(0.0)
        made: list[MadeRenewal] = []
        for row in sorted(rows, key=lambda row: row.sent_at, reverse=True):
            made.append(_made(row, now, made[-1].missed if made else 0.0))
        return made[::-1]

    def _bought_at(self, order_id: int) -> float | None:
        with self._store.read() as connection:
            sent_at = sa.select(purchases.c.sent_at).where(
                purchases.c.account == self._account,
                purchases.c.kind == "order",
                purchases.c.state == "bought",
                purchases.c.order_id == order_id,
            )
            return min(connection.execute(sent_at).scalars(), default=None)

    def _first_seen_at(self, order_id: int) -> float:
        with self._store.read() as connection:
            seen_at = sa.select(orders.c.first_seen_at).where(is_order(self._account, order_id))
            found = connection.execute(seen_at).scalar()
            return self._store.now(connection) if found is None else float(found)


def _made(row: Any, now: Moment, least: float) -> MadeRenewal:
    """A renewal of the ledger.

    Args:
        row: of the renewal.
        now: the moment that it is looked at.
        least: what was missed since the renewal after it, and so since this one too.
    """
    asked = json.loads(row.request)
    moment = Moment.recorded_in(asked, row.sent_at)
    missed = max(now.missed_since(moment), least)
    expiry = Expiry.recorded_in(asked)
    return MadeRenewal(
        row.id,
        row.sent_at - missed,
        moment.at - missed,
        None if expiry is None else expiry.sooner(missed),
        asked.get("grown"),
        missed,
    )
