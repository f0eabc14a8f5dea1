"""The errors of an order that has ended, in the same words for a single look and for a wait."""

from __future__ import annotations

from smsverify.errors import ORDER_ANOTHER, OrderEndedError


def ended_without_code(order_id: int, status: str) -> OrderEndedError:
    """The order has ended, and no SMS has come."""
    return _ended(order_id, status, f"has ended ({status}) without a code")


def ended_with_other_sms(order_id: int, status: str) -> OrderEndedError:
    """The order has ended, and an SMS has come that was not asked for."""
    what = f"has ended ({status}). An SMS has come, but none that this wait asks for"
    return _ended(order_id, status, what)


def _ended(order_id: int, status: str, what: str) -> OrderEndedError:
    text = f"order {order_id} {what}. {ORDER_ANOTHER}"
    return OrderEndedError(text, order_id=order_id, status=status, reason=f"it {what}")
