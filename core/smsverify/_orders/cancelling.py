"""Cancelling orders: those that a user cancels, and those that no call needs any more.

The release is on record before it is tried, and stays there until the order is cancelled, over, or needed
again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from smsverify._messages.inbox import Inbox
from smsverify._orders.records import Records
from smsverify._orders.releases import Releases
from smsverify._orders.status import StatusReader
from smsverify._orders.wording import named, refund
from smsverify._service.endpoints import ServiceApi
from smsverify._service.rate_limit import Priority
from smsverify._service.transport import HASTE, CallOptions, OutcomeUnknown
from smsverify.errors import (
    AuthenticationError,
    InvalidRequestError,
    NotCancellableError,
    NotFoundError,
    ServiceError,
    ServiceUnavailableError,
    SmsVerifyError,
)
from smsverify.models import ALIVE, RENTALS, Order, OrderStatus
from smsverify.text import log_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

log = log_of(__name__)

# Seconds of the pause after a cancellation that failed, doubled with each further one, at time scale 1; and
# how many of them a purchase tries again.
RETRY_RELEASE = 30.0
RETRY_RELEASE_MAX = 3600.0
RELEASES_AT_ONCE = 3

_FOR_ONE_SMS = ("temporary", "best-temp", "global")  # the list shows when their SMS has come
_REFUSALS = frozenset({400, 403, 405, 406, 409, 410, 422})
ENDED = "Order %d is %s already: there is nothing to cancel"


class _StillNeeded(Exception):
    """The order is needed again, or has its code: it is not cancelled."""


class Cancelling:
    """Cancels orders of one account.

    Args:
        api: the service.
        status: asks the service for an order.
        records, releases, inbox: what is on record of the orders, which of them are to be cancelled, and the
            messages that have come.
        time_scale: how long the service's minute is in real minutes.
    """

    def __init__(
        self,
        api: ServiceApi,
        status: StatusReader,
        records: Records,
        releases: Releases,
        inbox: Inbox,
        *,
        time_scale: float,
    ) -> None:
        self._api = api
        self._status = status
        self._records = records
        self._releases = releases
        self._inbox = inbox
        self._pause = RETRY_RELEASE * time_scale
        self._longest_pause = RETRY_RELEASE_MAX * time_scale

    def cancel(self, order_id: int) -> OrderStatus:
        """Cancels an order because a user says so; see `SmsVerifyHook.cancel`."""
        known, message = self._records.get(order_id), self._inbox.newest([order_id]).get(order_id)
        if known is not None and (known.cancelled or (known.ended and message is not None)):
            self._close(order_id, is_cancelled=known.cancelled)
            log.info(ENDED, order_id, known.status)
            return OrderStatus(
                order_id=order_id,
                status=known.status,
                phone=known.phone,
                otp=message.otp if message else None,
                message=message.message if message else None,
                received_at=message.received_at if message else None,
            )
        was_asked_before = self._releases.of(order_id) is not None
        # An order that has ended may have a code to read, and the end on record may be wrong. A rental is
        # refunded only where it was not in use.
        must_be_seen = known is not None and (known.ended or known.product in RENTALS)
        self._releases.request(order_id, "cancel was called", scope="any", patience=self._pause)
        try:
            if must_be_seen or was_asked_before:
                status = self._look_before_cancelling(order_id, must_be_seen=must_be_seen)
                if status is not None and status.ended:
                    self._close(order_id, is_cancelled=status.cancelled)
                    log.info(ENDED, order_id, status.status)
                    return status
            return self._send_cancellation(order_id, "cancel was called")
        except NotFoundError:
            self._forget_unless_ours(order_id)
            raise

    def release(
        self,
        order_id: int,
        reason: str,
        *,
        waiter: str | None = None,
        holder: str | None = None,
        undo: bool = False,
        unless_since: tuple[float, float] | None = None,
        stop: threading.Event | None = None,
    ) -> bool:
        """Cancels an order if it has not ended and no other call needs it; see `SmsVerifyHook.release`, and
        `Releases.request` for `holder` and `unless_since`.
        """
        if not self._releases.request(
            order_id,
            reason,
            waiter=waiter,
            holder=holder,
            scope="unused" if undo else "pending",
            patience=self._pause,
            unless_since=unless_since,
        ):
            log.info(
                "Order %d is not cancelled, although %s: its code was used, or another call needs it",
                order_id,
                reason,
            )
            return False
        return self.try_release(order_id, stop=stop)

    def retry_releases(
        self,
        *,
        limit: int = RELEASES_AT_ONCE,
        even_early: bool = False,
        stop: threading.Event | None = None,
    ) -> list[int]:
        """Tries again to cancel orders whose cancellation was refused or interrupted. Of many callers, one
        tries each order.

        Args:
            limit: how many at the most, and fewer where the service is slow.
            even_early: also tries those whose time has not come.
            stop: ends it when it is set.

        Returns:
            the orders that are cancelled now.
        """
        cancelled: list[int] = []
        give_up_at = time.monotonic() + HASTE
        for _ in range(limit):
            due = self._releases.take_due(self._pause, self._longest_pause, limit=1, even_early=even_early)
            cancelled += [
                release.order_id for release in due if self.try_release(release.order_id, stop=stop)
            ]
            if not due or time.monotonic() > give_up_at or (stop is not None and stop.is_set()):
                break
        return cancelled

    def close_finished(self) -> None:
        """Closes the releases that need no request: of orders that are over, or whose code has come."""
        for release in self._releases.all():
            known = self._records.get(release.order_id)
            is_over = known is not None and known.ended and known.status != "completed"
            if is_over or (release.scope != "any" and self._inbox.newest([release.order_id])):
                self._close(release.order_id, is_cancelled=known is not None and known.cancelled)

    def try_release(self, order_id: int, *, stop: threading.Event | None = None) -> bool:
        """Cancels an order whose release is still on record. Returns whether it is cancelled."""
        release = self._releases.of(order_id)
        if release is None:
            log.info("Order %d is not cancelled: another call waits for it now", order_id)
            return False
        reason = release.reason
        try:
            # A callback may have brought the code already.
            self._raise_if_needed(order_id)
            status = self._look(order_id, stop=stop, patient=True, hasty=True)
            if not status.ended and self._may_be_cancelled(status, release.scope):
                status = self._send_cancellation(
                    order_id,
                    reason,
                    before_sending=partial(self._raise_if_needed, order_id),
                    stop=stop,
                    hasty=True,
                )
            elif not status.ended:
                log.info("Order %d is not cancelled, although %s: it is %s", order_id, reason, status.status)
        except _StillNeeded as needed:
            log.info("Order %d is not cancelled, although %s: %s", order_id, reason, needed)
            return False
        except NotFoundError as error:
            log.warning("Order %d cannot be cancelled, although %s: %s", order_id, reason, error)
            self._forget_unless_ours(order_id)
            return False
        except SmsVerifyError as error:
            log.warning(
                "Order %d could not be cancelled yet (%s); that is on record, and is tried again later: %s",
                order_id,
                reason,
                error,
            )
            return False
        self._close(order_id, is_cancelled=status.cancelled)
        return status.cancelled

    def _close(self, order_id: int, *, is_cancelled: bool) -> None:
        """Closes the release of an order that is over, as a look shows."""
        self._releases.close(
            order_id, cancelled=self._releases.last_alive(order_id) if is_cancelled else None
        )

    def _look_before_cancelling(self, order_id: int, *, must_be_seen: bool) -> OrderStatus | None:
        """The status of an order that may have been cancelled before; `None` if it cannot be read, and the
        cancellation is to be sent all the same.
        """
        try:
            return self._look(order_id, patient=True, hasty=not must_be_seen)
        except (AuthenticationError, NotFoundError):
            raise
        except (ServiceError, InvalidRequestError) as error:
            if must_be_seen:
                raise
            log.warning(
                "The status of order %d cannot be read, so its cancellation is sent without it: %s",
                order_id,
                error,
            )
            return None

    def _look(self, order_id: int, *, patient: bool = False, **options: Unpack[CallOptions]) -> OrderStatus:
        """The status of an order that is to be cancelled.

        Where the service refuses to show it, its list may say that the order is pending, or cancelled by now.
        If its SMS has come meanwhile, it is completed, and the service refuses to cancel it.
        """
        asked = self._releases.moment()
        try:
            status = self._status.read(order_id, priority=Priority.RELEASE, patient=patient, **options)
        except (ServiceError, InvalidRequestError) as error:
            row = self._listed(order_id, **options) if self._is_refused(order_id, error) else None
            if row is None or not (row.status == "pending" or row.cancelled):
                raise
            log.info(
                "The list shows order %d as %s, and its status is refused: %s", order_id, row.status, error
            )
            status = OrderStatus(order_id=order_id, status=row.status)
        if status.status in ALIVE:
            self._releases.note_alive(order_id, asked)
        return status

    def _is_refused(self, order_id: int, error: ServiceError | InvalidRequestError) -> bool:
        """Whether the service itself refuses to show the status of a number for one SMS."""
        known = self._records.get(order_id)
        is_for_one = known is not None and known.product in _FOR_ONE_SMS
        # A page of a proxy is a `ServiceUnavailableError`, whatever its status.
        is_answer = not isinstance(error, ServiceUnavailableError)
        return is_for_one and is_answer and error.status_code in _REFUSALS

    def _listed(self, order_id: int, **options: Unpack[CallOptions]) -> Order | None:
        """The order's row in the list of the newest orders."""
        rows = self._status.read_list(priority=Priority.RELEASE, **options).rows
        return next((row for row in rows if row.order_id == order_id), None)

    def _raise_if_needed(self, order_id: int) -> None:
        release = self._releases.of(order_id)
        if release is None:
            raise _StillNeeded("another call waits for it now")
        if release.scope != "any" and self._inbox.newest([order_id]):
            self._releases.close(order_id)
            raise _StillNeeded("its code has come")

    def _may_be_cancelled(self, status: OrderStatus, scope: str) -> bool:
        if scope == "any":
            return True
        known = self._records.get(status.order_id)
        product = None if known is None else known.product
        if product == "esim":
            return False
        # An active rental is in use, and so may be what is not known. Another number waits for its SMS.
        is_in_use = status.status == "active" and product in (None, *RENTALS)
        return not status.arrived and (scope == "unused" or not is_in_use)

    def _forget_unless_ours(self, order_id: int) -> None:
        """Takes a mistaken id off the record: there is nothing to try again."""
        known = self._records.get(order_id)
        if known is None or known.key is None:
            self._releases.close(order_id)

    def _send_cancellation(
        self,
        order_id: int,
        reason: str,
        *,
        before_sending: Callable[[], None] | None = None,
        stop: threading.Event | None = None,
        hasty: bool = False,
    ) -> OrderStatus:
        asked = self._releases.asked(order_id)
        try:
            answer = self._status.while_fresh(
                order_id,
                lambda: self._api.post_cancellation(
                    order_id, before_sending=before_sending, stop=stop, hasty=hasty
                ),
            )
        except OutcomeUnknown as unknown:
            self._releases.note_unanswered(order_id, asked)
            return self._status_after_refusal(order_id, unknown.cause, stop=stop, hasty=hasty)
        except (ServiceError, InvalidRequestError) as error:
            return self._status_after_refusal(order_id, error, stop=stop, hasty=hasty)
        if not answer.cancelled:
            text = f"the service answered the cancellation with {answer.status!r}"
            return self._status_after_refusal(order_id, ServiceError(text), stop=stop, hasty=hasty)
        known = self._records.get(order_id)
        status = OrderStatus(order_id=order_id, status=answer.status, phone=known.phone if known else None)
        self._releases.close(order_id, cancelled=asked)  # first: it looks whether the order was over before
        self._records.put_status(status)
        log.info("Cancelled %s%s: %s", named(order_id, known), refund(known), reason)
        return status

    def _status_after_refusal(
        self, order_id: int, error: ServiceError | InvalidRequestError, **options: Unpack[CallOptions]
    ) -> OrderStatus:
        """The status of an order that has ended, although its cancellation was refused or not answered."""
        if isinstance(error, (AuthenticationError, NotFoundError)):
            raise error
        status = self._look(order_id, **options)
        if status.ended:
            self._close(order_id, is_cancelled=status.cancelled)
            log.info(ENDED, order_id, status.status)
            return status
        raise NotCancellableError(
            f"order {order_id} is still {status.status}: {error}. The cancellation is on record and is tried "
            "again later; `smsverify reconcile` tries it now",
            status_code=error.status_code,
            service_message=error.service_message,
            endpoint=error.endpoint,
            retry_after=getattr(error, "retry_after", None),
        ) from error
