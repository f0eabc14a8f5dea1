"""What tests of purchases and renewals ask of a simulator, a server with one answer, and the store."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from rigs.rooms import settings_of, store_of
from smsverify._store.store import open_store
from smsverify._store.tables import purchases
from smsverify.errors import NotAvailableError
from smsverify.hook import SmsVerifyHook
from smsverify.models import Order
from smsverify.simulator import Simulator

BOUGHT = {"success": True, "data": {"order_id": 7, "status": "pending", "phone": "+1 415 555 0123"}}


def posts(simulator: Simulator, path: str = "order/") -> int:
    """How many POSTs have arrived at the service."""
    return len(
        [
            request
            for request in simulator.requests()
            if request.method == "POST" and request.path.startswith(f"/api/v1/{path}")
        ]
    )


def buy(hook: SmsVerifyHook, key: str | None = "k", **options: Any) -> Order:
    return hook.order("temporary", service="WhatsApp", key=key, **options)


def read_prices(hook: SmsVerifyHook, product: str = "temporary") -> None:
    """Has the list of a product read into the store, as each purchase does; this one finds nothing to buy."""
    with pytest.raises(NotAvailableError):
        hook.order(product, service="nothing that is sold")


def states(store_url: str) -> list[str]:
    with open_store(store_url).read() as connection:
        return list(connection.execute(sa.select(purchases.c.state).order_by(purchases.c.id)).scalars())


def make_again(hook: SmsVerifyHook) -> SmsVerifyHook:
    """The same hook, as a task that was started again makes it; the catalogue is forgotten."""
    with store_of(hook).write() as connection:
        connection.exec_driver_sql("DELETE FROM smsverify_catalogues")
    return SmsVerifyHook(**settings_of(hook))
