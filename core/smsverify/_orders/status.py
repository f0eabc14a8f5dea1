"""Asking the service for orders. Its answer goes on record before it is returned."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from smsverify._messages.inbox import Inbox
from smsverify._orders.listing import Listing, OrderList
from smsverify._orders.records import Records
from smsverify._orders.wording import no_such_order
from smsverify._runtime.clock import boottime
from smsverify._service.codes import code_of_text
from smsverify._service.endpoints import ServiceApi
from smsverify._service.rate_limit import Priority
from smsverify._service.transport import CallOptions
from smsverify.errors import (
    AuthenticationError,
    NotFoundError,
    RateLimitedError,
    ServiceError,
    ServiceUnavailableError,
)
from smsverify.models import Message, Order, OrderStatus, gets_no_more
from smsverify.text import log_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

log = log_of(__name__)

# Seconds for which the service may not show a purchase of ours yet, scaled with its minute, and at least.
FRESH = 10.0
SHORTEST_FRESH = 2.0
# Seconds, scaled like these, for which an answer shows that the key is accepted: until an order is refused,
# and while it stays refused.
PROVEN = 1.0
PROVEN_WHILE_REFUSED = 30.0
FRESH_PAUSE = 0.5  # before it is asked for again, doubled each time
SHORTEST_FRESH_PAUSE = 0.05


class StatusReader:
    """Reads the status of the orders of one account, and their list.

    Args:
        api: the service.
        records, listing, inbox: where its answers go on record.
        time_scale: how long the service's minute is in real minutes.
    """

    def __init__(
        self, api: ServiceApi, records: Records, listing: OrderList, inbox: Inbox, *, time_scale: float
    ) -> None:
        self._api = api
        self._records = records
        self._listing = listing
        self._inbox = inbox
        self._time_scale = time_scale
        self._fresh_for = max(FRESH * time_scale, SHORTEST_FRESH)
        self._accepted_at = -math.inf  # by time.monotonic()
        self._refused: set[int] = set()  # orders that the service has refused (403) to show last

    def read(
        self,
        order_id: int,
        *,
        priority: Priority = Priority.READ,
        patient: bool = False,
        **options: Unpack[CallOptions],
    ) -> OrderStatus:
        """Asks the service for the status of an order.

        Args:
            order_id: the order.
            priority: of the request.
            patient: asks again where the service does not know a fresh purchase of ours yet.
            options: how the request is sent.
        """

        def ask() -> OrderStatus:
            return self._api.get_status(order_id, priority=priority, **options)

        asked_at = boottime()
        try:
            status = self.while_fresh(order_id, ask) if patient else ask()
        except ServiceError as error:
            if _is_forbidden(error):
                self._refuse_refused_key(order_id, priority=priority, **options)
            raise
        self._accepted_at = time.monotonic()
        self._refused.discard(order_id)
        self._records.put_status(status)
        if status.arrived:
            self._inbox.put(_message(status), asked_at=asked_at)
        return status

    def read_list(self, *, priority: Priority = Priority.READ, **options: Unpack[CallOptions]) -> Listing:
        """Asks the service for the list of the newest orders."""
        asked = self._listing.asked()
        listed = self._api.list_orders(priority=priority, **options)
        self._accepted_at = time.monotonic()
        return self._listing.note(listed, asked)

    def _refuse_refused_key(
        self, order_id: int, *, priority: Priority, **options: Unpack[CallOptions]
    ) -> None:
        """Raises `AuthenticationError` where the service refuses more than this order.

        Every key may read the list, so what refuses that as well refuses the key.
        """
        proven_for = PROVEN_WHILE_REFUSED if order_id in self._refused else PROVEN
        self._refused.add(order_id)
        if time.monotonic() - self._accepted_at < proven_for * self._time_scale:
            return
        try:
            self.read_list(priority=priority, **options)
        except AuthenticationError:
            raise
        except ServiceError as error:
            log.info("Whether the service refuses only order %d or the key is unknown: %s", order_id, error)

    def get(self, order_id: int) -> Order:
        """An order as it is on record. Where the record says too little, the service is asked."""
        known = self._records.get(order_id)
        if known is None or (known.phone is None and known.product != "esim"):
            self.read(order_id)
            known = self._records.get(order_id)
        if known is None:
            raise NotFoundError(no_such_order(order_id))
        return known

    def gets_no_more(self, status: OrderStatus) -> bool:
        """Whether the order of this answer gets no SMS any more."""
        if not status.ended:
            return False
        known = self._records.get(status.order_id)
        return gets_no_more(status.status, None if known is None else known.product)

    def is_fresh(self, order_id: int) -> bool:
        """Whether this is a purchase of ours that the service may not show yet."""
        age = self._records.age(order_id)
        return age is not None and abs(age) < self._fresh_for

    def while_fresh(self, order_id: int, ask: Callable[[], OrderStatus]) -> OrderStatus:
        """Asks again as long as the service may not show a purchase of ours yet."""
        for tries in itertools.count():
            try:
                return ask()
            except NotFoundError:
                if not self.is_fresh(order_id):
                    raise
                time.sleep(max(FRESH_PAUSE * self._time_scale * 2**tries, SHORTEST_FRESH_PAUSE))
        raise AssertionError("unreachable")


def _is_forbidden(error: ServiceError) -> bool:
    """Whether the service itself refuses (403) to show an order, and does not name the key or the rate."""
    # A page of a proxy is a `ServiceUnavailableError`, whatever its status.
    others = (AuthenticationError, RateLimitedError, ServiceUnavailableError)
    return error.status_code == 403 and not isinstance(error, others)


def _message(status: OrderStatus) -> Message:
    code = code_of_text(status.message or "", phone=status.phone, order_id=status.order_id)
    return Message(
        order_id=status.order_id,
        otp=status.otp or code,
        message=status.message,
        phone=status.phone,
        received_at=status.received_at,
    )
