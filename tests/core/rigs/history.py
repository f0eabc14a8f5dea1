"""A store with a long history, for what must not take longer with it."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from rigs.rooms import store_of
from smsverify._runtime.clock import DAY
from smsverify._store import tables
from smsverify.hook import SmsVerifyHook
from smsverify.overview import Task

SPREAD = 90 * DAY  # seconds over which the orders are spread
AT_ONCE = 5_000
TASKS = [
    Task(
        framework="airflow",
        workflow=f"provision_{number}",
        name="order_number",
        ids={"dag_id": f"provision_{number}", "run_id": "r", "task_id": "order_number", "map_index": -1},
    )
    for number in range(5)
]


def fill(hook: SmsVerifyHook, *, orders: int, messages: int, waits: int, rentals: int, releases: int) -> None:
    """Puts so many rows of each kind on record, the orders spread evenly over 90 days, and the slots."""
    store, account = store_of(hook), hook.settings.account_id
    store.upgrade()
    with store.read() as connection:
        now, wall = store.now(connection), store.wall(connection)
    rows = [_order(account, number, orders, rentals, now, wall) for number in range(orders)]
    calls = [_call(account, row, number) for number, row in enumerate(rows)]
    every = max(orders // max(messages, 1), 1)
    came = [
        {"account": account, "order_id": row["order_id"], "otp": "123456", "message": "123456",
         "received_at": row["first_seen_at"] + 10, "called_at": row["first_seen_at"] + 10,
         "came_at": row["first_seen_at"] + 10}
        for row in rows[::every][:messages]
    ]  # fmt: skip
    _insert(hook, tables.orders, rows)
    _insert(hook, tables.purchases, calls)
    _insert(hook, tables.messages, came)
    with store.read() as connection:
        now = store.now(connection)
    newest = [row["order_id"] for row in rows[-max(waits, releases, 1) :]]
    going_on = [
        {"id": f"w{number}", "account": account, "order_id": order_id, "since": now - number / 2,
         "seen_at": now, "until": now + 600 - number, "cancels": True,
         "task": TASKS[0].model_dump_json()}
        for number, order_id in enumerate(newest[:waits])
    ]  # fmt: skip
    back = [
        {"account": account, "order_id": order_id, "asked_at": now, "reason": "no code", "scope": "pending",
         "planned": True, "next_at": now + number, "tries": 1, "tried_at": now}
        for number, order_id in enumerate(newest[:releases])
    ]  # fmt: skip
    _insert(hook, tables.waits, going_on)
    _insert(hook, tables.releases, back)
    _insert(hook, tables.polls, [{"account": account, "next_at": now + 5, "callback_at": now}])
    hook.rate_limit()
    if not store.is_sqlite:
        with store.write() as connection:
            connection.execute(sa.text("ANALYZE"))


def _order(account: str, number: int, of: int, rentals: int, now: float, wall: float) -> dict[str, Any]:
    is_rental = number >= of - rentals
    is_expired = number % 20 == 7
    age = SPREAD * (of - number - 1) / of
    is_used = not is_expired and number % 3 > 0
    is_refunded = not is_expired and not is_used
    status = "expired" if is_expired else "completed" if is_used else "cancelled"
    return {
        "account": account,
        "order_id": 17_000_000_000 + number,
        "product": "rent-1day" if is_rental else "temporary",
        "service": "WhatsApp",
        "phone": f"+1 415 555 {number % 10_000:04}",
        "price": "0.40",
        "status": "active" if is_rental else status,
        "created_at": wall - age,
        "first_seen_at": now - age,
        "seen_number": number,
        "expires_at": wall + 3600 + number % 1000 if is_rental else None,
        "key": f"key {number}",
        "rental_since": now - age if is_rental else None,
        "used_at": now - age if is_used and not is_rental else None,
        "refunded_at": now - age + 60 if is_refunded and not is_rental else None,
    }


def _call(account: str, row: dict[str, Any], number: int) -> dict[str, Any]:
    task = TASKS[number % len(TASKS)]
    return {
        "account": account,
        "namespace": "",
        "key": row["key"],
        "generation": 1,
        "kind": "order",
        "fingerprint": "f",
        "request": json.dumps(
            {
                "product": row["product"],
                "service": str(number % 30),
                "name": f"Service {number % 30}",
                "country": None,
                "country_name": None,
                "area_code": None,
                "duration": None,
            }
        ),
        "price": "0.40",
        "charge": "0.40",
        "workflow": task.workflow,
        "task": task.model_dump_json(),
        "state": "bought",
        "attempt": "a",
        "sent_at": row["first_seen_at"],
        "resolved_at": row["first_seen_at"],
        "sent_number": number,
        "resolved_number": number,
        "order_id": row["order_id"],
    }


def _insert(hook: SmsVerifyHook, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    for first in range(0, len(rows), AT_ONCE):
        with store_of(hook).write() as connection:
            connection.execute(sa.insert(table), rows[first : first + AT_ONCE])
