"""Requests, waits, callbacks, and what is to be given back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from smsverify._messages.callbacks import name_of_secret
from smsverify._overview.view import ALIVE, DAY_AGO, View, first, more_than
from smsverify._runtime.clock import HOUR
from smsverify._runtime.tasks import Task
from smsverify._service.rate_limit import RateLimit
from smsverify._store.parameters import ACCOUNT, NOW
from smsverify._store.tables import (
    callbacks,
    is_order,
    messages,
    orders,
    polls,
    refusals,
    releases,
    waits,
    was_seen_lately,
)
from smsverify.overview import Callbacks, ReleaseRow, Requests, Section, WaitRow, Waits


def _with_order(rows: sa.Subquery, *order_by: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """These rows with the number and the service of their orders."""
    its_order = is_order(ACCOUNT, rows.c.order_id)
    return sa.select(rows, orders.c.phone, orders.c.service).outerjoin(orders, its_order).order_by(*order_by)


_first_waits = first(
    sa.select(
        waits.c.order_id,
        waits.c.since,
        waits.c.until,
        waits.c.cancels,
        waits.c.task,
        sa.func.min(waits.c.since).over().label("longest_since"),
        sa.select(polls.c.next_at).where(polls.c.account == ACCOUNT).scalar_subquery().label("next_poll_at"),
    )
    .where(waits.c.account == ACCOUNT, was_seen_lately(waits.c.seen_at, NOW, ALIVE))
    .order_by(waits.c.until, waits.c.since)
)
_WAITS = _with_order(_first_waits, _first_waits.c.until, _first_waits.c.since)

_first_releases = first(
    sa.select(
        releases.c.order_id, releases.c.reason, releases.c.tries, releases.c.next_at, releases.c.planned
    )
    .where(releases.c.account == ACCOUNT)
    .order_by(releases.c.next_at, releases.c.order_id)
)
_RELEASES = _with_order(_first_releases, _first_releases.c.next_at, _first_releases.c.order_id)


def _callbacks() -> sa.Select[Any]:
    """One row: when the last callback came, how many came and were refused, and the newest SMS."""
    last = (
        sa.select(polls.c.callback_at, polls.c.callback_secret).where(polls.c.account == ACCOUNT).subquery()
    )
    by_secret = sa.func.coalesce(sa.func.sum(sa.case((callbacks.c.by_secret, 1), else_=0)), 0)
    came = (
        sa.select(sa.func.count().label("in_all"), by_secret.label("by_secret"))
        .where(callbacks.c.account == ACCOUNT, callbacks.c.received_at >= DAY_AGO)
        .subquery()
    )
    refused = (
        sa.select(
            sa.func.coalesce(sa.func.sum(refusals.c.times), 0).label("refused"),
            sa.func.max(refusals.c.last_at).label("refused_at"),
        )
        .where(refusals.c.account == ACCOUNT, refusals.c.hour >= DAY_AGO / HOUR - 1)
        .subquery()
    )
    why = (
        sa.select(refusals.c.why)
        .where(refusals.c.account == ACCOUNT)
        .order_by(refusals.c.hour.desc())
        .limit(1)
        .scalar_subquery()
    )
    newest = (
        sa.select(messages.c.called_at.label("sms_called_at"), messages.c.came_at.label("sms_came_at"))
        .where(messages.c.account == ACCOUNT)
        .order_by(messages.c.id.desc())
        .limit(1)
        .subquery()
    )
    always = sa.true()
    return sa.select(came, refused, why.label("refused_why"), last, newest).select_from(
        came.join(refused, always).outerjoin(last, always).outerjoin(newest, always)
    )


_CALLBACKS = _callbacks()


def requests_of(view: View, rate_limit: RateLimit) -> Requests:
    """The requests of the last period."""
    seen = rate_limit.traffic(view.connection, view.now)
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
    rows = view.rows(_WAITS)
    one = rows[0] if rows else None
    return Waits(
        rows=[
            WaitRow(
                order_id=row.order_id,
                phone=row.phone,
                service=row.service,
                since=view.utc(row.since),
                until=view.utc_or_none(row.until),
                cancels=row.cancels,
                task=Task.read(row.task),
            )
            for row in rows
        ],
        more=more_than(rows),
        longest_since=None if one is None else view.utc(one.longest_since),
        next_poll_at=view.utc(one.next_poll_at) if one is not None and one.next_poll_at else None,
    )


def callbacks_of(view: View, secrets: Sequence[str]) -> Callbacks:
    """The callbacks that have come.

    Args:
        view: of the account.
        secrets: that are valid at the moment.
    """
    (seen,) = view.rows(_CALLBACKS)
    names = [name_of_secret(secret) for secret in secrets]
    if seen.callback_at is None:
        state = "none_yet" if secrets else "off"
    else:
        came_without = seen.sms_came_at is not None and seen.sms_called_at is None
        state = "silent" if came_without and seen.sms_came_at > seen.callback_at else "healthy"
    return Callbacks(
        state=state,
        last_at=view.utc_or_none(seen.callback_at),
        last_secret=names.index(seen.callback_secret) + 1 if seen.callback_secret in names else None,
        secrets=len(secrets),
        by_secret=seen.by_secret,
        without_secret=seen.in_all - seen.by_secret,
        refused=seen.refused,
        refused_at=view.utc_or_none(seen.refused_at),
        refused_why=None if seen.refused_at is None else seen.refused_why,
    )


def releases_of(view: View) -> Section[ReleaseRow]:
    """The orders that are to be given back."""
    rows = view.rows(_RELEASES)
    return Section[ReleaseRow](
        rows=[
            ReleaseRow(
                order_id=row.order_id,
                phone=row.phone,
                service=row.service,
                reason=row.reason,
                tries=row.tries,
                next_at=view.utc(row.next_at),
                planned=row.planned,
            )
            for row in rows
        ],
        more=more_than(rows),
    )
