"""What tests of purchases and renewals ask of a simulator, a server with one answer, and the store."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from rigs.rooms import settings_of, store_of
from smsverify._store.store import open_store
from smsverify._store.tables import purchases
from smsverify.errors import NotAvailableError, PurchaseUnknownError
from smsverify.hook import SmsVerifyHook
from smsverify.models import Order
from smsverify.simulator import Fault, Simulator

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
    return hook.order(**{"product": "temporary", "service": "WhatsApp", "key": key, **options})


def buy_number(hook: SmsVerifyHook, **options: Any) -> int:
    """The order of one more number, for WhatsApp 0.40; without a key it is a new one every time."""
    return hook.order("temporary", **{"service": "WhatsApp", **options}).order_id


def lose(simulator: Simulator, kind: str = "lost_answer", **more: Any) -> None:
    """The answer to a purchase of a temporary number is lost."""
    simulator.add_fault(Fault(kind, path="order/temporary/", **more))


def unknown(hook: SmsVerifyHook, key: str = "k", **options: Any) -> PurchaseUnknownError:
    """What a purchase says of which nobody knows whether it was made."""
    with pytest.raises(PurchaseUnknownError) as caught:
        buy(hook, key, **options)
    return caught.value


def leave_unknown(simulator: Simulator, hook: SmsVerifyHook, key: str, kind: str = "lost_answer") -> None:
    """A purchase whose answer is lost, while the list cannot be read either."""
    lose(simulator, kind)
    simulator.add_fault(Fault("error_before", path="orders/", times=None))
    unknown(hook, key)
    simulator.clear_faults()


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
