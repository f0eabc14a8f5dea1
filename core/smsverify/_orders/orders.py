"""The orders of an account: the rooms of this folder, put together for those who use them."""

from __future__ import annotations

from smsverify._messages.inbox import Inbox
from smsverify._orders.cancelling import Cancelling
from smsverify._orders.handover import Handover
from smsverify._orders.listing import OrderList
from smsverify._orders.records import Records
from smsverify._orders.releases import Releases
from smsverify._orders.status import StatusReader
from smsverify._service.endpoints import ServiceApi
from smsverify.metrics import Meter
from smsverify.models import LIST_LENGTH, Order
from smsverify.numbers import errors_logged


class Orders:
    """The orders of an account.

    Args:
        api: the service.
        records: what is known of each order.
        inbox: the messages that have come.
        time_scale: how long the service's minute is in real minutes.
        list_length: how many orders the service lists.
        meter: counts the refunds.
    """

    def __init__(
        self,
        api: ServiceApi,
        records: Records,
        inbox: Inbox,
        *,
        time_scale: float,
        list_length: int = LIST_LENGTH,
        meter: Meter | None = None,
    ) -> None:
        self.records = records
        self.listing = OrderList(records, length=list_length, meter=meter)
        self.releases = Releases(records)
        self.handover = Handover(records, self.releases, time_scale=time_scale)
        self.status = StatusReader(api, records, self.listing, inbox, time_scale=time_scale)
        self.cancelling = Cancelling(api, self.status, records, self.releases, inbox, time_scale=time_scale)

    def give_back(self, order_id: int, reason: str, *, waiter: str | None, undo: bool) -> bool:
        """Cancels an order for a call of this process; see `SmsVerifyHook.release`."""
        holder = self.handover.holder_here(order_id)
        return self.cancelling.release(order_id, reason, waiter=waiter, holder=holder, undo=undo)

    def give_back_unseen(
        self, order: Order, error: BaseException, *, holder: str, undo: bool = False
    ) -> None:
        """Cancels an order whose caller gets an error instead of it."""
        why = f"{type(error).__name__} was raised right after its purchase"
        with errors_logged(order.order_id):
            self.cancelling.release(order.order_id, why, holder=holder, undo=undo)
