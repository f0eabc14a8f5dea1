"""What tests of callbacks ask of the store and the service, and waits in threads of their own."""

from __future__ import annotations

import threading
from typing import Any

import sqlalchemy as sa

from rigs.receiver import TEXT, payload
from smsverify import errors
from smsverify._store.store import open_store
from smsverify._store.tables import callbacks
from smsverify.hook import SmsVerifyHook
from smsverify.models import Order
from smsverify.simulator import Simulator

PATIENT = 60.0


def rows(hook: SmsVerifyHook, table: sa.Table = callbacks) -> list[Any]:
    with open_store(hook.settings.store_url.get_secret_value()).read() as connection:
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


class Waiting(threading.Thread):
    """A wait in a thread of its own."""

    def __init__(self, hook: SmsVerifyHook, order_id: int, timeout: float = PATIENT, **options: Any) -> None:
        super().__init__(daemon=True)
        self.end: Any = None
        self._wait = lambda: hook.wait_for_otp(order_id, timeout, **options)
        self.start()

    def run(self) -> None:
        try:
            self.end = self._wait()
        except errors.SmsVerifyError as error:
            self.end = error

    def code(self) -> str | None:
        self.join(PATIENT + 30)
        assert self.end is not None, "a wait hangs"
        assert not isinstance(self.end, BaseException), self.end
        code: str | None = self.end.otp
        return code
