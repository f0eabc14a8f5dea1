"""Requests, waits, callbacks, and what is to be given back."""

from __future__ import annotations

import sqlalchemy as sa

from smsverify._messages.inbox import came_at
from smsverify._overview.view import DAY, TOTAL, View
from smsverify._service.rate_limit import RateLimit
from smsverify._store.tables import callbacks, messages, orders, polls, releases, waits
from smsverify.overview import Callbacks, ReleaseRow, Requests, Section, Task, WaitRow, Waits


def requests_of(view: View, rate_limit: RateLimit) -> Requests:
    """The requests of the last period."""
    seen = rate_limit.traffic(view.connection)
    return Requests(
        sent=seen.sent,
        limit=rate_limit.limit,
        period=rate_limit.period,
        waiting=seen.waiting,
        refusals=seen.refusals,
        blocked_until=seen.blocked_until,
    )


def waits_of(view: View) -> Waits:
    """The waits that go on."""
    is_alive = waits.c.seen_at.between(view.now - view.alive, view.now + view.alive)
    first = (
        sa.select(waits, TOTAL, sa.func.min(waits.c.since).over().label("longest_since"))
        .where(waits.c.account == view.account, is_alive)
        .order_by(waits.c.until, waits.c.since)
    )
    rows, more = view.first(first)
    known = _phones(view, [row.order_id for row in rows])
    poll = sa.select(polls.c.next_at).where(polls.c.account == view.account)
    next_poll_at = view.connection.execute(poll).scalar() if rows else None
    return Waits(
        rows=[
            WaitRow(
                order_id=row.order_id,
                **known.get(row.order_id, _UNKNOWN),
                since=view.utc(row.since),
                until=view.utc_or_none(row.until),
                cancels=row.cancels,
                task=Task.read(row.task),
            )
            for row in rows
        ],
        more=more,
        longest_since=view.utc(rows[0].longest_since) if rows else None,
        next_poll_at=view.utc(next_poll_at) if next_poll_at else None,
    )


def callbacks_of(view: View, secrets: int) -> Callbacks:
    """The callbacks that have come."""
    last_at = view.connection.execute(
        sa.select(polls.c.callback_at).where(polls.c.account == view.account)
    ).scalar()
    by_secret = sa.func.coalesce(sa.func.sum(sa.case((callbacks.c.by_secret, 1), else_=0)), 0)
    all_of_them, with_secret = view.connection.execute(
        sa.select(sa.func.count(), by_secret).where(
            callbacks.c.account == view.account, callbacks.c.received_at >= view.now - DAY
        )
    ).one()
    newest = view.connection.execute(
        sa.select(messages.c.called_at, came_at.label("came_at"))
        .where(messages.c.account == view.account)
        .order_by(messages.c.id.desc())
        .limit(1)
    ).one_or_none()
    if last_at is None:
        state = "none_yet" if secrets else "off"
    else:
        is_silent = newest is not None and newest.called_at is None and newest.came_at > last_at
        state = "silent" if is_silent else "healthy"
    return Callbacks(
        state=state,
        last_at=view.utc_or_none(last_at),
        secrets=secrets,
        by_secret=with_secret,
        without_secret=all_of_them - with_secret,
    )


def releases_of(view: View) -> Section[ReleaseRow]:
    """The orders that are to be given back."""
    mine = sa.select(releases, TOTAL).where(releases.c.account == view.account)
    rows, more = view.first(mine.order_by(releases.c.next_at, releases.c.order_id))
    known = _phones(view, [row.order_id for row in rows])
    return Section[ReleaseRow](
        rows=[
            ReleaseRow(
                order_id=row.order_id,
                **known.get(row.order_id, _UNKNOWN),
                reason=row.reason,
                tries=row.tries,
                next_at=view.utc(row.next_at),
                planned=row.planned,
            )
            for row in rows
        ],
        more=more,
    )


_UNKNOWN: dict[str, str | None] = {"phone": None, "service": None}


def _phones(view: View, order_ids: list[int]) -> dict[int, dict[str, str | None]]:
    """The numbers and services of some orders."""
    if not order_ids:
        return {}
    rows = view.connection.execute(
        sa.select(orders.c.order_id, orders.c.phone, orders.c.service).where(
            orders.c.account == view.account, orders.c.order_id.in_(order_ids)
        )
    )
    return {row.order_id: {"phone": row.phone, "service": row.service} for row in rows}
