"""Orders after their purchase: looking at them, cancelling them, giving back those that nobody needs."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from smsverify.api import ServiceApi
from smsverify.budget import Priority
from smsverify.errors import (
    AuthenticationError,
    InvalidRequestError,
    NotCancellableError,
    NotFoundError,
    ServiceError,
    SmsVerifyError,
)
from smsverify.inbox import Inbox
from smsverify.models import RENTALS, Message, Order, OrderStatus
from smsverify.orderbook import OrderBook
from smsverify.otp import extract_otp
from smsverify.transport import OutcomeUnknown

log = logging.getLogger(__name__)

# Seconds for which the service may not show a purchase of ours yet, scaled with its minute, and at least.
FRESH = 10.0
SHORTEST_FRESH = 2.0
FRESH_PAUSE = 0.5  # before it is asked for again, doubled each time
SHORTEST_FRESH_PAUSE = 0.05
# Pause after a cancellation that could not be made, doubled with each further one, where the service's minute
# lasts a minute; and how many are tried again by one who comes along.
RETRY_RELEASE = 30.0
RETRY_RELEASE_MAX = 3600.0
RELEASES_AT_ONCE = 3


class _Needed(Exception):
    """An order that was to be cancelled is not to be any more."""


class Orders:
    """The orders of an account.

    Args:
        api: the service.
        book, inbox: what is known of them.
        tempo: how long the service's minute is in real minutes.
    """

    def __init__(self, api: ServiceApi, book: OrderBook, inbox: Inbox, *, tempo: float) -> None:
        self._api = api
        self._tempo = tempo
        self._fresh_for = max(FRESH * tempo, SHORTEST_FRESH)
        self._book = book
        self._inbox = inbox

    def look(
        self,
        order_id: int,
        *,
        priority: Priority = Priority.READ,
        stop: threading.Event | None = None,
        patient: bool = False,
        hasty: bool = False,
    ) -> OrderStatus:
        """Asks the service for an order; what it says goes into book and inbox.

        Args:
            order_id: the order.
            priority: of the request.
            stop: ends the waiting for the rate budget when it is set.
            patient: asks again where the service does not know a fresh purchase of ours yet.
            hasty: gives up sooner where the service does not answer.
        """

        def ask() -> OrderStatus:
            return self._api.get_status(order_id, priority=priority, stop=stop, hasty=hasty)

        status = self._despite_freshness(order_id, ask) if patient else ask()
        self._book.saw(status)
        if status.arrived:
            self._inbox.put(_message(status))
        return status

    def _despite_freshness(self, order_id: int, ask: Callable[[], OrderStatus]) -> OrderStatus:
        for pause in itertools.count():
            try:
                return ask()
            except NotFoundError:
                if not self.is_fresh(order_id):
                    raise
                time.sleep(max(FRESH_PAUSE * self._tempo * 2**pause, SHORTEST_FRESH_PAUSE))
        raise AssertionError("unreachable")

    def read_list(self, *, priority: Priority = Priority.READ) -> tuple[list[Order], float | None]:
        """The 50 newest orders, and when that was by the service's clock. Every row is kept as seen."""
        listed, date = self._api.list_orders(priority=priority)
        self._book.saw_list(listed)
        return listed, date

    def get(self, order_id: int) -> Order:
        """An order as the book knows it; the service is asked where that is not enough."""
        known = self._book.get(order_id)
        if known is None or (known.phone is None and known.product != "esim"):
            self.look(order_id)
            known = self._book.get(order_id)
        if known is None:
            raise NotFoundError(f"there is no order {order_id}")
        return known

    def is_fresh(self, order_id: int) -> bool:
        """Whether this is a purchase of our own that the service may not show yet."""
        since = self._book.bought_since(order_id)
        return since is not None and abs(since) < self._fresh_for

    def cancel(self, order_id: int) -> OrderStatus:
        """Cancels an order, on record before it is tried; see `SmsVerifyHook.cancel`."""
        known, message = self._book.get(order_id), self._inbox.newest([order_id]).get(order_id)
        if known is not None and (known.cancelled or (known.ended and message is not None)):
            self._book.release_done(order_id)
            return OrderStatus(
                order_id=order_id,
                status=known.status,
                phone=known.phone,
                otp=message.otp if message else None,
                message=message.message if message else None,
                received_at=message.received_at if message else None,
            )
        self._book.ask_release(
            order_id, "cancel was called", scope="any", patience=RETRY_RELEASE * self._tempo
        )
        try:
            if known is not None and (known.ended or known.product in RENTALS):
                # How it has ended is known, its code is not; and an end may have been none. Of a rental,
                # whether it is in use tells whether its price comes back.
                status = self.look(order_id, priority=Priority.RELEASE, patient=True)
                if status.ended:
                    self._book.release_done(order_id)
                    return status
            return self._cancel(order_id)
        except NotFoundError:
            self._forget_unless_ours(order_id)
            raise

    def release(
        self,
        order_id: int,
        reason: str,
        *,
        waiter: str | None = None,
        grace: float = 0.0,
        undo: bool = False,
        unless_since: tuple[float, float] | None = None,
        stop: threading.Event | None = None,
    ) -> bool:
        """Cancels an order if it is still pending and nobody else needs it; see `SmsVerifyHook.release`."""
        patience = grace + RETRY_RELEASE * self._tempo
        scope = "unused" if undo else "pending"
        if not self._book.ask_release(
            order_id, reason, waiter=waiter, scope=scope, patience=patience, unless_since=unless_since
        ):
            log.info(
                "Order %d is left alone (%s): it is used, or somebody else waits for it", order_id, reason
            )
            return False
        time.sleep(grace)
        return self.carry_out(order_id, stop=stop)

    def retry_releases(self, *, limit: int = RELEASES_AT_ONCE, even_early: bool = False) -> list[int]:
        """Tries again to cancel orders whose cancellation was refused or cut off, for whoever asks first.

        Args:
            limit: how many at the most.
            even_early: tries those too whose time has not come.

        Returns:
            the orders that are cancelled now.
        """
        due = self._book.take_due_releases(
            RETRY_RELEASE * self._tempo,
            RETRY_RELEASE_MAX * self._tempo,
            limit=limit,
            even_early=even_early,
        )
        return [release.order_id for release in due if self.carry_out(release.order_id)]

    def carry_out(self, order_id: int, *, stop: threading.Event | None = None) -> bool:
        """Cancels an order that is on record as to be cancelled, if it still is; whether it is cancelled."""
        release = self._book.release_of(order_id)
        if release is None:
            log.info("Order %d is left alone: somebody else waits for it now", order_id)
            return False
        reason = release.reason
        try:
            # A callback may have brought what the service is asked for here.
            self._refuse_if_needed(order_id)
            status = self.look(order_id, priority=Priority.RELEASE, stop=stop, patient=True, hasty=True)
            was_cancelled = status.cancelled
            if not status.ended and self._may_be_cancelled(status, release.scope):
                status = self._cancel(
                    order_id, unless=partial(self._refuse_if_needed, order_id), stop=stop, hasty=True
                )
        except _Needed as needed:
            log.info("Order %d is left alone (%s): %s", order_id, reason, needed)
            return False
        except NotFoundError as error:
            log.warning("Order %d can not be cancelled (%s): %s", order_id, reason, error)
            self._forget_unless_ours(order_id)
            return False
        except SmsVerifyError as error:
            log.warning("Order %d is still to be cancelled (%s): %s", order_id, reason, error)
            return False
        self._book.release_done(order_id)
        if not was_cancelled:
            log.info("Order %d is %s (%s)", order_id, status.status, reason)
        return status.cancelled

    def _refuse_if_needed(self, order_id: int) -> None:
        release = self._book.release_of(order_id)
        if release is None:
            raise _Needed("somebody else waits for it now")
        if release.scope != "any" and self._inbox.newest([order_id]):
            self._book.release_done(order_id)
            raise _Needed("its code has come")

    def _may_be_cancelled(self, status: OrderStatus, scope: str) -> bool:
        known = self._book.get(status.order_id)
        if scope == "any":
            return True
        if known is not None and known.product == "esim":
            return False
        is_active = status.status.strip().lower() == "active"
        return not status.arrived and (scope == "unused" or not is_active)

    def _forget_unless_ours(self, order_id: int) -> None:
        """A mistaken id is nothing to come back to."""
        known = self._book.get(order_id)
        if known is None or known.key is None:
            self._book.release_done(order_id)

    def _cancel(
        self,
        order_id: int,
        *,
        unless: Callable[[], None] | None = None,
        stop: threading.Event | None = None,
        hasty: bool = False,
    ) -> OrderStatus:
        try:
            answer = self._despite_freshness(
                order_id,
                lambda: self._api.cancel(order_id, before_sending=unless, stop=stop, hasty=hasty),
            )
        except OutcomeUnknown as unknown:
            return self._after_refusal(order_id, unknown.cause)
        except (ServiceError, InvalidRequestError) as error:
            return self._after_refusal(order_id, error)
        if not answer.cancelled:
            text = f"the service answered the cancellation with {answer.status!r}"
            return self._after_refusal(order_id, ServiceError(text))
        known = self._book.get(order_id)
        status = OrderStatus(order_id=order_id, status=answer.status, phone=known.phone if known else None)
        self._book.saw(status)
        self._book.release_done(order_id)
        return status

    def _after_refusal(self, order_id: int, error: ServiceError | InvalidRequestError) -> OrderStatus:
        """A cancellation was refused or not answered: the order tells whether it is still needed."""
        if isinstance(error, (AuthenticationError, NotFoundError)):
            raise error
        status = self.look(order_id, priority=Priority.RELEASE)
        if status.ended:
            self._book.release_done(order_id)
            return status
        raise NotCancellableError(
            f"order {order_id} is still {status.status} and stays on record as to be cancelled: {error}",
            status_code=error.status_code,
            service_message=error.service_message,
            endpoint=error.endpoint,
            retry_after=getattr(error, "retry_after", None),
        ) from error


def _message(status: OrderStatus) -> Message:
    return Message(
        order_id=status.order_id,
        otp=status.otp or extract_otp(status.message or ""),
        message=status.message,
        phone=status.phone,
        received_at=status.received_at,
    )
