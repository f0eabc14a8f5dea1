"""Buying numbers and eSIMs: once for a key, with the price checked before and the outcome on record after."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa

from smsverify._orders.listing import warn_if_overcharged
from smsverify._orders.orders import Orders
from smsverify._orders.records import is_cut_off
from smsverify._orders.wording import named
from smsverify._purchases.calls import Intent, Purchase, UnderWay
from smsverify._purchases.ledger import Ledger
from smsverify._purchases.periods import Periods
from smsverify._purchases.recovery import Recovery
from smsverify._purchases.sending import LOOKS, PlannedCall, Sender, check_price, prices, recording
from smsverify._purchases.spending import Caps
from smsverify._service.catalogue import Catalogue, Quote
from smsverify._service.endpoints import ServiceApi
from smsverify._service.service_clock import shown_or_now
from smsverify.checks import OrderRequest
from smsverify.errors import (
    ORDER_ANOTHER,
    AuthenticationError,
    NotFoundError,
    OrderEndedError,
    PurchaseConflictError,
    PurchaseUnknownError,
    PurchaseUnverifiableError,
    ServiceError,
    SmsVerifyError,
)
from smsverify.models import RENTALS, Order, OrderStatus, Service
from smsverify.text import log_of, usd

log = log_of(__name__)

T = TypeVar("T")


class Purchases:
    """The purchases of an account.

    Args:
        api, catalogue: the service and its prices.
        ledger: where every paid call is on record before it is sent.
        orders: the orders that were bought.
        recovery: finds out what became of calls whose outcome is unknown.
        sender: sends what is on record.
        periods: how long each rental is paid.
        grace: seconds for which an order of ours that the service does not show yet is believed in.
    """

    def __init__(
        self,
        api: ServiceApi,
        catalogue: Catalogue,
        ledger: Ledger,
        orders: Orders,
        recovery: Recovery,
        *,
        sender: Sender,
        periods: Periods,
        grace: float,
    ) -> None:
        self._api = api
        self._catalogue = catalogue
        self._ledger = ledger
        self._orders = orders
        self._recovery = recovery
        self._sender = sender
        self._periods = periods
        self._grace = grace

    def buy(
        self,
        request: OrderRequest,
        key: str,
        *,
        caps: Caps,
        holder: str,
        again: bool = True,
        stop: threading.Event | None = None,
    ) -> Order:
        """Buys, or returns what the key has bought already; see `SmsVerifyHook.order`.

        Args:
            request: what is bought.
            key: names the purchase.
            caps: what may be spent.
            holder: names the call. An order that the key has already is this call's from then on.
            again: whether the key buys another one where its order has ended or its code was returned.
                Otherwise an order with a code is returned again, and one that has ended without any is an
                `OrderEndedError`.
            stop: ends the waiting for the rate limit when it is set.
        """
        self._orders.cancelling.retry_releases(stop=stop)
        purchase = Purchase(key, "order", request.fingerprint, replace(caps, price=request.max_price))
        while True:
            planned = self._plan_unless_bought(purchase, request, holder, again=again, stop=stop)
            if isinstance(planned, Order):
                return planned
            try:
                order = self._send(planned, request, stop)
                break
            except UnderWay:
                continue  # Another process took the plan over before it was sent.
            except PurchaseUnknownError:
                found = self._find_out(purchase, stop)
                if found is None:
                    raise
                _refuse_ended(found)
                return found
        order = self._with_phone(order, holder)
        log.info("Bought %s for %s", named(order.order_id, order), usd(order.price))
        warn_if_overcharged(order.order_id, order.price, request.max_price)
        _refuse_ended(order)
        return order

    def find(self, key: str, fingerprint: str, *, stop: threading.Event | None = None) -> Order | None:
        """What a key has bought, if it has; buys nothing.

        Args:
            key: names the purchase.
            fingerprint: what it stands for.
            stop: ends the waiting for another process that buys under the key.

        Raises:
            PurchaseUnknownError: whether it has bought anything cannot be found out yet.
        """
        purchase = Purchase(key, "order", fingerprint, Caps())
        return self._when_known(key, lambda: self._ledger.find(purchase), stop)

    def is_wanted(self, connection: sa.Connection, key: str) -> bool:
        """See `Ledger.is_wanted`."""
        return self._ledger.is_wanted(connection, key)

    def outlast(self, key: str, stop: threading.Event | None) -> None:
        """Waits until a caller that has planned a call under a key sends a heartbeat, or counts as dead."""
        heartbeat = self._ledger.heartbeat(key)
        while heartbeat is not None and self._ledger.heartbeat(key) == heartbeat:
            self._sender.wait_for_another(key, stop)

    def confirm_refund(self, order_id: int, stop: threading.Event | None) -> None:
        """Looks for a while whether the price of a cancelled order has come back, so that it can be spent."""
        for _ in self._sender.pauses(stop, (0.0, *LOOKS)):
            try:
                self._recovery.note_refunds(stop)
            except SmsVerifyError as error:
                log.warning("Whether order %d was refunded cannot be read now: %s", order_id, error)
                return
            if self._orders.records.refund_of(order_id):
                return

    # -------------------------------------------------------------- inside

    def _plan_unless_bought(
        self,
        purchase: Purchase,
        request: OrderRequest,
        holder: str,
        *,
        again: bool,
        stop: threading.Event | None,
    ) -> PlannedCall[Quote] | Order:
        """The plan of a purchase, or what its key has bought already where that can be returned again."""
        ended: int | None = None
        while True:
            planned = self._plan(purchase, request, ended, stop)
            if isinstance(planned, PlannedCall):
                return planned
            self._refuse_another_service(request, planned, purchase.key)
            if self._can_still_serve(planned, stop, even_used=not again):
                what = named(planned.order_id, planned)
                log.info("Nothing is paid again: the key %s has bought %s", purchase.key, what)
                self._orders.handover.hand_out_again(planned.order_id, holder)
                return self._orders.status.get(planned.order_id)
            if not again:
                raise OrderEndedError(
                    f"order {planned.order_id} has ended ({planned.status}). {ORDER_ANOTHER}",
                    order_id=planned.order_id,
                    status=planned.status,
                    reason=f"it has ended ({planned.status})",
                )
            ended = planned.order_id

    def _plan(
        self, purchase: Purchase, request: OrderRequest, ended: int | None, stop: threading.Event | None
    ) -> PlannedCall[Quote] | Order:
        """What the key has bought, otherwise the plan on record, with its price found and checked."""

        def plan() -> PlannedCall[Quote] | Order:
            # The key comes first: what it has bought is returned, even if the catalogue has changed.
            bought = self._ledger.find(purchase, after=ended)
            if bought is not None:
                return bought
            quote = self._catalogue.quote(request, is_strict=purchase.caps.is_set, stop=stop)
            entry, what = quote.entry, f"{quote.entry.name} ({request.product})"
            price, highest = prices(entry, request.duration)
            check_price(highest, request.max_price, what)
            self._recovery.introduce(stop)
            intent = self._ledger.plan(purchase, _in_ids(request, entry), price, charge=highest, after=ended)
            if not isinstance(intent, Intent):
                return intent
            return PlannedCall(intent, quote, request.duration, what)

        return self._when_known(purchase.key, plan, stop)

    def _when_known(self, key: str, read: Callable[[], T], stop: threading.Event | None) -> T:
        """What `read` says of a key as soon as its last call is over; a lost answer is looked for once."""
        has_looked = False
        while True:
            try:
                return read()
            except UnderWay:
                self._sender.wait_for_another(key, stop)
            except PurchaseUnknownError:
                if has_looked:
                    raise
                has_looked = True
                self._look_for(key)

    def _send(self, call: PlannedCall[Quote], request: OrderRequest, stop: threading.Event | None) -> Order:
        """Sends a purchase, and returns the order that its key has."""
        answer = self._sender.send(call, partial(self._api.post_order, request, call.quote.entry), stop)
        order = _completed(answer, request, call.quote.entry, shown_or_now(self._api.clock.now()))
        otherwise = f"use order {order.order_id} by its id"
        with recording(call.intent, order.order_id, "bought", purpose="get it", otherwise=otherwise):
            return self._ledger.record_bought(call.intent, order)

    def _refuse_another_service(self, request: OrderRequest, order: Order, key: str) -> None:
        """A number is an id: it does not stand for what was bought when the same digits were a name."""
        bought_as = self._ledger.owners.service_of(order.order_id)
        if isinstance(request.service, int) and bought_as not in (None, str(request.service)):
            raise PurchaseConflictError(
                f"the key {key!r} stands for another purchase, order {order.order_id} of {order.service}; "
                "nothing was sent. Use another key",
                key=key,
            )

    def _with_phone(self, order: Order, holder: str) -> Order:
        """An order with its phone number, which the answer may have left out. An interrupt gives it back: its
        caller never gets it.
        """
        if order.phone is not None or order.product == "esim":
            return order
        try:
            self._orders.status.read(order.order_id, patient=True, hasty=True)
            return self._orders.records.get(order.order_id) or order
        except Exception as error:  # the order is bought, so nothing here may fail
            log.warning("The phone number of order %d cannot be read yet: %s", order.order_id, error)
            return order
        except BaseException as error:
            self._orders.give_back_unseen(order, error, holder=holder)
            raise

    def _look_for(self, key: str) -> None:
        """Lets the list of orders decide what it can."""
        try:
            self._recovery.resolve_orders()
        except AuthenticationError:
            raise
        except ServiceError as error:
            raise PurchaseUnverifiableError(
                f"whether {key!r} was carried out cannot be found out now, because the list of orders "
                f"cannot be read ({error}). Nothing was sent: call again later with the same key",
                key=key,
            ) from error

    def _find_out(self, purchase: Purchase, stop: threading.Event | None) -> Order | None:
        """Looks for a purchase whose answer was lost; `None` where the list does not decide yet."""
        for _ in self._sender.pauses(stop):
            try:
                self._recovery.resolve_orders()
                return self._ledger.find(purchase)
            except UnderWay:
                continue  # Its end could not be recorded; the row says that it is under way for a while.
            except PurchaseUnknownError as error:
                if error.order_ids:
                    raise
            except SmsVerifyError as error:
                log.warning("Whether %s was bought cannot be found out now: %s", purchase.key, error)
                return None
        return None

    def _can_still_serve(
        self, order: Order, stop: threading.Event | None, *, even_used: bool = False
    ) -> bool:
        """Whether an order that a key has bought can be returned again.

        Args:
            order: the order.
            stop: ends the waiting for the rate limit when it is set.
            even_used: whether it can where its code was returned to a caller.
        """
        if order.product == "esim":
            return not order.ended or order.status == "completed"  # it was delivered
        is_new = (self._orders.records.age(order.order_id) or 0.0) < self._grace
        try:
            status = self._orders.status.read(order.order_id, stop=stop)
        except NotFoundError:
            # One answer of that kind is not enough to buy another.
            return is_new or any(
                one.order_id == order.order_id for one in self._orders.status.read_list().rows
            )
        if order.product in RENTALS:
            return not self._is_over(order, status)
        if status.status == "completed" and not status.arrived and is_new:
            return True  # its code shows a little later
        if not status.arrived and status.ended:
            return False
        return even_used or not self._orders.handover.was_used(order.order_id)

    def _is_over(self, order: Order, status: OrderStatus) -> bool:
        """Whether a rental is over. A code completes it too, but not the time that it is rented for."""
        if status.status != "completed":
            return status.ended
        if status.time_left_seconds is not None:
            return status.time_left_seconds <= 0
        if status.days_left is not None and status.days_left > 0:
            return False
        # Of whole days, the last one may still run. Where the status shows no time, what was paid for counts.
        return self._periods.is_used_up(order)


def _refuse_ended(order: Order) -> None:
    """Raises `OrderEndedError` where an order that was bought just now has ended."""
    if order.ended and order.status != "completed":
        raise OrderEndedError(
            f"order {order.order_id} was bought, and the service shows it as {order.status}. Its price "
            "counts as spent until its refund shows. Call again with the same key to buy another",
            order_id=order.order_id,
            status=order.status,
            reason=f"the service shows it as {order.status}",
        ) from None


def _in_ids(request: OrderRequest, entry: Service) -> dict[str, Any]:
    """The purchase as it stands in the catalogue."""
    return {
        "product": request.product,
        "service": entry.name if entry.service_id is None else str(entry.service_id),
        "name": entry.name,
        "country": None if entry.country_id is None else str(entry.country_id),
        "country_name": entry.country_name,
        "area_code": request.area_code,
        "duration": request.duration,
    }


def _completed(answer: Order, request: OrderRequest, entry: Service, answered_at: datetime) -> Order:
    """The service's answer, completed from the request, the catalogue and the service's clock."""
    price = entry.price_of(request.duration)
    if answer.price is not None and not is_cut_off(answer.price, price):
        price = answer.price
    return answer.model_copy(
        update={
            "product": request.product,
            "service": entry.name,
            "country": entry.country_name,
            "duration": request.duration,
            "price": price,
            "created_at": answer.created_at or answered_at,
        }
    )
