"""What tests of callbacks ask of the store and the service."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from rigs.receiver import TEXT, payload
from rigs.rooms import store_of
from smsverify._store.tables import callbacks
from smsverify.hook import SmsVerifyHook
from smsverify.models import Order
from smsverify.simulator import Simulator


def rows(hook: SmsVerifyHook, table: sa.Table = callbacks) -> list[Any]:
    with store_of(hook).read() as connection:
        return list(connection.execute(sa.select(table).order_by(table.c.id)).all())


def states(hook: SmsVerifyHook) -> list[str]:
    return [row.state for row in rows(hook)]


def of(order: Order, text: Any = TEXT, **message: Any) -> dict[str, Any]:
    """The documented payload for an order."""
    return payload(order.order_id, order.phone_digits, text, **message)


def asked(simulator: Simulator) -> int:
    """How many requests about orders the service has got, beside their purchase."""
    return sum(
        count for endpoint, count in simulator.stats().by_endpoint.items() if endpoint.startswith("GET order")
    )
