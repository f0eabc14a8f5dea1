"""Orders after their purchase: looking at them, cancelling them, giving back those that nobody needs."""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime, timedelta, timezone

from smsverify.api import ServiceApi
from smsverify.budget import Priority
from smsverify.errors import (
    AuthenticationError,
    NotCancellableError,
    NotFoundError,
    ServiceError,
    SmsVerifyError,
)
from smsverify.inbox import Inbox
from smsverify.ledger import Ledger
from smsverify.models import Message, Order, OrderStatus
from smsverify.otp import extract_otp
from smsverify.transport import OutcomeUnknown

log = logging.getLogger(__name__)

# Seconds for which the service may not show a purchase of ours yet, scaled with its minute, and at least.
FRESH = 10.0
SHORTEST_FRESH = 2.0


class Orders:
    """The orders of an account.

    Args:
        api: the service.
        ledger, inbox: what is known of them.
        tempo: how long the service's minute is in real minutes.
    """

    def __init__(self, api: ServiceApi, ledger: Ledger, inbox: Inbox, *, tempo: float) -> None:
        self._api = api
        self._fresh_for = timedelta(seconds=max(FRESH * tempo, SHORTEST_FRESH))
        self._ledger = ledger
        self._inbox = inbox

    def look(
        self, order_id: int, *, priority: Priority = Priority.POLL, stop: threading.Event | None = None
    ) -> OrderStatus:
        """Asks the service for an order; what it says goes into ledger and inbox."""
        status = self._api.get_status(order_id, priority=priority, stop=stop)
        self._ledger.saw(status)
        if status.arrived:
            self._inbox.put(_message(status))
        return status

    def read_list(self) -> tuple[list[Order], float | None]:
        """The 50 newest orders, and when that was by the service's clock. Every row is kept as seen."""
        listed, date = self._api.list_orders()
        self._ledger.saw_list(listed)
        return listed, date

    def get(self, order_id: int) -> Order:
        """An order as the ledger knows it; the service is asked where that is not enough."""
        known = self._ledger.get(order_id)
        if known is None or (known.phone is None and known.product != "esim"):
            self.look(order_id)
            known = self._ledger.get(order_id)
        if known is None:
            raise NotFoundError(f"there is no order {order_id}")
        return known

    def is_fresh(self, order_id: int) -> bool:
        """Whether this is a purchase of our own that the service may not show yet."""
        known = self._ledger.get(order_id)
        if known is None or known.key is None or known.created_at is None:
            return False
        return abs(datetime.now(timezone.utc) - known.created_at) < self._fresh_for

    def cancel(self, order_id: int) -> OrderStatus:
        """Cancels an order, on record before it is tried; see `SmsVerifyHook.cancel`."""
        known = self._ledger.get(order_id)
        if known is not None and known.ended:
            self._ledger.release_done(order_id)
            message = self._inbox.newest([order_id]).get(order_id)
            return OrderStatus(
                order_id=order_id,
                status=known.status,
                phone=known.phone,
                otp=message.otp if message else None,
                message=message.message if message else None,
                received_at=message.received_at if message else None,
            )
        self._ledger.ask_release(order_id, "cancel was called")
        try:
            return self._cancel(order_id)
        except NotFoundError:
            known = self._ledger.get(order_id)
            if known is None or known.key is None:
                # Not one of ours: a mistaken id is nothing to come back to.
                self._ledger.release_done(order_id)
            raise

    def release(self, order_id: int, reason: str, *, waiter: str | None = None, grace: float = 0.0) -> bool:
        """Cancels an order if it is still pending and nobody else needs it; see `SmsVerifyHook.release`."""
        if not self._ledger.ask_release(order_id, reason, waiter=waiter):
            log.info(
                "Order %d is left alone (%s): it is used, or somebody else waits for it", order_id, reason
            )
            return False
        time.sleep(grace)
        if not self._ledger.wants_release(order_id):
            log.info("Order %d is left alone (%s): somebody else waits for it now", order_id, reason)
            return False
        try:
            status = self.look(order_id, priority=Priority.RELEASE)
            was_cancelled = status.cancelled
            is_in_use = status.arrived or status.status.strip().lower() == "active"
            if not status.ended and not is_in_use:
                status = self._cancel(order_id)
        except NotFoundError as error:
            log.warning("Order %d can not be cancelled (%s): %s", order_id, reason, error)
            return False
        except SmsVerifyError as error:
            log.warning("Order %d is still to be cancelled (%s): %s", order_id, reason, error)
            return False
        self._ledger.release_done(order_id)
        if not was_cancelled:
            log.info("Order %d is %s (%s)", order_id, status.status, reason)
        return status.cancelled

    def _cancel(self, order_id: int) -> OrderStatus:
        try:
            answer = self._api.cancel(order_id)
        except OutcomeUnknown as unknown:
            return self._after_refusal(order_id, unknown.cause)
        except ServiceError as error:
            return self._after_refusal(order_id, error)
        if not answer.cancelled:
            text = f"the service answered the cancellation with {answer.status!r}"
            return self._after_refusal(order_id, ServiceError(text))
        known = self._ledger.get(order_id)
        status = OrderStatus(order_id=order_id, status=answer.status, phone=known.phone if known else None)
        self._ledger.saw(status)
        self._ledger.release_done(order_id)
        return status

    def _after_refusal(self, order_id: int, error: SmsVerifyError) -> OrderStatus:
        """A cancellation was refused or not answered: the order tells whether it is still needed."""
        if not isinstance(error, ServiceError) or isinstance(error, (AuthenticationError, NotFoundError)):
            raise error
        status = self.look(order_id, priority=Priority.RELEASE)
        if status.ended:
            self._ledger.release_done(order_id)
            return status
        raise NotCancellableError(
            f"order {order_id} is still {status.status} and stays on record as to be cancelled: {error}",
            status_code=error.status_code,
            service_message=error.service_message,
            endpoint=error.endpoint,
            retry_after=error.retry_after,
        ) from error


def _message(status: OrderStatus) -> Message:
    return Message(
        order_id=status.order_id,
        otp=status.otp or extract_otp(status.message or ""),
        message=status.message,
        phone=status.phone,
        received_at=status.received_at,
    )
