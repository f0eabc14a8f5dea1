"""How log lines name an order and what becomes of it: the same words in the core and in both wings."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from smsverify._runtime.clock import DAY
from smsverify.models import RENTALS, Message, Order
from smsverify.text import amount

LONGEST_AGE = 3600.0  # seconds; how old an order was says nothing of an SMS that comes later


def named(order_id: int, order: Order | None) -> str:
    """An order, such as `order 458731 (WhatsApp, +1 415 555 0123)`."""
    details = [text for text in (order.service, order.phone) if text] if order is not None else []
    return f"order {order_id} ({', '.join(details)})" if details else f"order {order_id}"


def no_such_order(order_id: int) -> str:
    """That the service does not know an order, and what to check."""
    return f"the service knows no order {order_id}. Check the id, and that it belongs to this account"


def end_of_wait(seconds: float) -> str:
    """When a wait that begins now ends, such as `14:05:10 UTC`."""
    try:
        end = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    except OverflowError:
        return "the end of time"
    return f"{end:%H:%M:%S} UTC" if seconds < DAY else f"{end:%Y-%m-%d %H:%M:%S} UTC"


def arrival(order: Order | None, message: Message) -> str:
    """That an SMS has arrived, such as `has arrived 11 s after the order`. Never what it says."""
    if order is not None and order.created_at is not None and message.received_at is not None:
        age = max(0.0, (message.received_at - order.created_at).total_seconds())
        if age < LONGEST_AGE:
            return f"has arrived {age:.0f} s after the order"
    return "has arrived"


def refund(order: Order | None) -> str:
    """What comes back of a cancelled order, such as ` for a refund of 0.40 USD`; empty where that is open."""
    if order is None or order.price is None or (order.product in RENTALS and order.status != "pending"):
        return ""
    return f" for a refund of {amount(order.price)} USD"
