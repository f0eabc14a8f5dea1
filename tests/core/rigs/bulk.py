"""A store with a very long history, written by SQL alone: a million orders take half a minute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from smsverify._runtime.clock import DAY
from smsverify._store import tables
from smsverify._store.store import Store
from smsverify.hook import SmsVerifyHook

FIRST = 1_000_000_000  # the id of the oldest order
RETENTION = 7 * DAY
AT_ONCE = 50_000
OPTIONS = {"name": "WhatsApp", **dict.fromkeys(("country", "country_name", "area_code", "duration"))}
REQUEST = json.dumps({"product": "temporary", "service": "1012", **OPTIONS})
RENTAL_REQUEST = json.dumps({"product": "rental", "service": "WhatsApp", **OPTIONS, "duration": 3})


def fill_history(hook: SmsVerifyHook, orders: int, *, days: float = 365.0) -> None:
    """Puts orders on record whose story is over, spread evenly over so many days before yesterday.

    Of twenty orders, one has expired and was not refunded, the others were used or refunded in equal parts.
    One in fifty is a rental, renewed once. Each has two messages and a look; of the last week there are
    texts, two callbacks for each order, and messages that a run has handled. One order in a hundred was
    bought elsewhere, and one in ten waits was left by a process that has died.
    """
    store, account = hook._parts.store, hook.settings.account_id
    store.upgrade()
    with store.read() as connection:
        now, wall = store.now(connection), store.wall(connection)
    for first in range(0, orders, AT_ONCE):
        last = min(first + AT_ONCE, orders) - 1
        _fill_part(store, account, (first, last), orders, days * DAY, now, wall)
    with store.write() as connection:
        connection.execute(
            store.insert(tables.accounts)
            .values(account=account, number=orders, listed_number=orders, asked_number=orders, asked_at=now)
            .on_conflict_do_update(index_elements=["account"], set_={"number": orders})
        )
    if not store.is_sqlite:
        with store.write() as connection:
            connection.execute(sa.text("ANALYZE"))


def _fill_part(
    store: Store, account: str, part: tuple[int, int], of: int, spread: float, now: float, wall: float
) -> None:
    start = sa.select(sa.cast(sa.literal(part[0]), sa.BigInteger).label("i")).cte("n", recursive=True)
    numbers = start.union_all(sa.select(start.c.i + 1).where(start.c.i < part[1]))
    i = numbers.c.i
    whose = {"account": sa.literal(account)}
    order_id = i + FIRST
    age = now % DAY + DAY + spread * sa.cast(of - i - 1, sa.Double) / of
    at = now - age
    is_rental, is_expired, is_foreign = i % 50 == 11, i % 20 == 7, i % 100 == 33
    is_used = sa.and_(sa.not_(is_expired), i % 2 == 0)
    is_refunded = sa.and_(sa.not_(is_expired), i % 2 == 1, sa.not_(is_rental))
    word = sa.case(
        (sa.and_(is_rental, i % 3 == 0), "active"),
        (sa.and_(is_rental, i % 3 == 1), "expired"),
        (is_expired, "expired"),
        (is_refunded, "cancelled"),
        else_="completed",
    )
    text = sa.String()
    key = sa.literal("key ").concat(sa.cast(i, text))
    is_young = age < RETENTION
    with store.write() as connection:

        def put(table: sa.Table, values: Mapping[str, Any], *which: Any) -> None:
            named = {name: sa.type_coerce(sa.literal(value) if not isinstance(value, sa.ClauseElement)
                     else value, table.c[name].type) for name, value in values.items()}  # fmt: skip
            rows = sa.select(*(column.label(name) for name, column in named.items())).where(*which)
            connection.execute(sa.insert(table).from_select(list(named), rows))

        put(
            tables.orders,
            {
                **whose,
                "order_id": order_id,
                "product": sa.case((is_foreign, None), (is_rental, "rental"), else_="temporary"),
                "service": "WhatsApp",
                "phone": "+1 415 555 0100",
                "price": "0.40",
                "status": word,
                "created_at": wall - age,
                "first_seen_at": at,
                "seen_number": i,
                "ended_number": sa.case((word == "active", None), else_=i),
                "expires_at": sa.case((is_rental, wall - age + 600), else_=None),
                "expires_estimated": False,
                "rental_since": sa.null(),  # each of them was over at its last survey
                "key": sa.case((is_foreign, None), else_=key),
                "used_at": sa.case((sa.and_(is_used, sa.not_(is_rental)), at), else_=None),
                "refunded_at": sa.case((is_refunded, at + 60), else_=None),
            },
        )
        call = {
            **whose,
            "namespace": "",
            "generation": 1,
            "request": REQUEST,
            "price": "0.40",
            "charge": "0.40",
            "run": sa.literal("run ").concat(sa.cast(i / 100, text)),
            "unclaimed": False,
            "state": "bought",
            "attempt": "a",
            "sent_at": at,
            "resolved_at": at,
            "sent_number": i,
            "resolved_number": i,
            "order_id": order_id,
        }
        order_call = {"key": key, "kind": "order", "fingerprint": "a temporary number for WhatsApp"}
        put(tables.purchases, call | order_call, sa.not_(is_foreign))
        renewal = {
            "key": sa.literal("renewal ").concat(sa.cast(i, text)),
            "kind": "renewal",
            "fingerprint": sa.literal("renewal of ").concat(sa.cast(order_id, text)),
        }
        put(tables.purchases, call | renewal, is_rental, sa.not_(is_foreign))
        for later in (5, 10):
            readable = sa.case((is_young, "123456"), else_=None)
            digest = sa.literal(f"digest {later} ").concat(sa.cast(i, text))
            came = {"otp": readable, "message": readable, "shown_as": digest, "called_as": digest}
            times = {"received_at": wall - age + later, "called_at": at + later, "came_at": at + later}
            put(tables.messages, {**whose, "order_id": order_id} | came | times)
            called = {"kind": "sms", "by_secret": True, "is_documented": True, "state": "verified"}
            put(
                tables.callbacks,
                {**whose, "digest": digest, "order_id": order_id, "received_at": at + later, **called},
                is_young,
            )
        put(tables.looks, {**whose, "order_id": order_id, "status": word, "status_at": at, "empty_ends": 0,
                           "tries": 0})  # fmt: skip
        handled = {"handler": "dag", "message_id": i, "run": "r", "since": at}
        put(tables.handled, whose | handled, is_young)
        wait_id = sa.literal("dead ").concat(sa.cast(i, text))
        put(tables.waits, {**whose, "id": wait_id, "order_id": order_id, "since": at, "seen_at": at,
                           "cancels": False}, i % 10 == 5)  # fmt: skip


def fill_unfinished(hook: SmsVerifyHook, *, waits: int, rentals: int) -> list[int]:
    """Puts orders on record that are waited for, and rentals that run; returns those that are waited for."""
    store, account = hook._parts.store, hook.settings.account_id
    store.upgrade()
    with store.read() as connection:
        now, wall = store.now(connection), store.wall(connection)
    ids = [FIRST + 50_000_000 + number for number in range(waits + rentals)]
    known = {"account": account, "service": "WhatsApp", "price": "0.40", "first_seen_at": now,
             "created_at": wall, "seen_number": 1, "rental_since": None}  # fmt: skip
    rows = [
        known | {"order_id": order_id, "key": f"open {order_id}", "phone": f"+1415{order_id % 10**7:07}"}
        | ({"product": "temporary", "status": "pending", "expires_at": None} if number < waits
           else {"product": "rental", "status": "active", "expires_at": wall + 3600 + number,
              "rental_since": now})
        for number, order_id in enumerate(ids)
    ]  # fmt: skip
    calls = [
        {"account": account, "namespace": "", "key": row["key"], "generation": 1, "kind": "order",
         "fingerprint": "f", "request": REQUEST if row["product"] == "temporary" else RENTAL_REQUEST,
         "price": "0.40", "charge": "0.40", "state": "bought", "attempt": "a", "sent_at": now,
         "resolved_at": now, "sent_number": 1, "resolved_number": 1, "order_id": row["order_id"]}
        for row in rows
    ]  # fmt: skip
    going_on = [
        {"id": f"w{order_id}", "account": account, "order_id": order_id, "since": now, "seen_at": now,
         "until": now + 600, "cancels": True}
        for order_id in ids[:waits]
    ]  # fmt: skip
    looks = [{"account": account, "order_id": order_id, "status": "pending", "status_at": now}
             for order_id in ids[:waits]]  # fmt: skip
    with store.write() as connection:
        connection.execute(sa.insert(tables.orders), rows)
        connection.execute(sa.insert(tables.purchases), calls)
        connection.execute(sa.insert(tables.waits), going_on)
        connection.execute(sa.insert(tables.looks), looks)
        connection.execute(
            store.insert(tables.polls).values(account=account, next_at=0).on_conflict_do_nothing()
        )
    if not store.is_sqlite:
        with store.write() as connection:
            connection.execute(sa.text("ANALYZE"))
    return ids[:waits]


def keep_waits_alive(hook: SmsVerifyHook) -> None:
    """Lets all waits that go on send a heartbeat."""
    store = hook._parts.store
    going_on = tables.waits.c.until.is_not(None)
    with store.write() as connection:
        connection.execute(sa.update(tables.waits).where(going_on).values(seen_at=store.now(connection)))
