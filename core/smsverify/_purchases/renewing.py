"""Renewing a rental: once for each count of its renewals. Its end before goes on record with the intent."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any, TypeAlias

from smsverify._orders.orders import Orders
from smsverify._orders.wording import named
from smsverify._purchases.calls import Intent, Purchase, UnderWay, renewal_of
from smsverify._purchases.expiry import Expiry, Sight
from smsverify._purchases.ledger import Ledger
from smsverify._purchases.periods import Periods
from smsverify._purchases.recovery import Recovery
from smsverify._purchases.sending import PlannedCall, Sender, check_price, prices, recording
from smsverify._purchases.spending import Caps
from smsverify._service.catalogue import Catalogue, Quote
from smsverify._service.endpoints import ServiceApi
from smsverify.errors import (
    AuthenticationError,
    InvalidRequestError,
    PurchaseUnknownError,
    ServiceError,
    SmsVerifyError,
    StoreError,
)
from smsverify.models import RENTALS, Order, OrderStatus
from smsverify.text import log_of, usd

log = log_of(__name__)


@dataclass(frozen=True)
class Renewal:
    """The result of a renewal.

    Attributes:
        order: with its new end.
        is_new: whether this call has paid; otherwise it was renewed already, by this key or by another.
        price: USD that was paid; `None` where that is unknown.
    """

    order: Order
    is_new: bool = False
    price: Decimal | None = None


@dataclass(frozen=True)
class _Due:
    """A renewal that is to be paid.

    Attributes:
        purchase: its key, and what may be spent.
        order: the rental.
        sight: what its status said before.
        before: its end before; `None` where that is unknown.
        quote: the line of the catalogue; `None` where that is unknown.
        price: USD that it costs; `None` where that is unknown.
        highest: the same, which limits hold for.
        what: is paid for, for people.
    """

    purchase: Purchase
    order: Order
    sight: Sight
    before: Expiry | None
    quote: Quote | None
    price: Decimal | None
    highest: Decimal | None
    what: str


_Call: TypeAlias = PlannedCall[Quote | None]


class Renewals:
    """The renewals of an account.

    Args:
        api, catalogue: the service and its prices.
        ledger: where every paid call is on record before it is sent.
        orders: the orders that were bought.
        recovery: finds out what became of calls whose outcome is unknown.
        sender: sends what is on record.
        periods: how far rentals are paid.
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
    ) -> None:
        self._api = api
        self._catalogue = catalogue
        self._ledger = ledger
        self._orders = orders
        self._recovery = recovery
        self._sender = sender
        self._periods = periods

    def pay_on_request(
        self,
        order_id: int,
        *,
        limit: Decimal | None,
        key: str | None,
        caps: Caps,
        stop: threading.Event | None = None,
    ) -> Order:
        """Renews a rental once for a key; see `SmsVerifyHook.renew`."""
        count = self._ledger.renewals.count(order_id)
        # Before anything is decided: a renewal whose answer was lost counts too, if it was made.
        self._recovery.resolve_renewals(order_id)
        order = self._orders.records.get(order_id) or Order(order_id=order_id)
        is_again = self._periods.is_asked_for_again(order)
        if not is_again:
            count = self._ledger.renewals.count(order_id)
        found = self._ledger.renewals.take_unclaimed(order_id) if key is None and is_again else None
        if found is not None:
            log.info("Order %d was renewed by a call whose answer was lost; it is not paid again", order_id)
            return found
        begins = self._periods.last_begins(order)
        if begins is not None and self._ledger.now() < begins:
            log.warning(
                "Order %d is already paid for more than one period ahead; it is renewed because the caller "
                "asks for it",
                order_id,
            )
        renewed = self.pay_once(order_id, count, limit=limit, key=key, caps=caps, stop=stop).order
        self.note_handed_out(order_id)
        return renewed

    def note_handed_out(self, order_id: int) -> None:
        """Notes that the caller that has renewed an order knows of it, so no other call gets that renewal."""
        try:
            self._ledger.renewals.claim_all(order_id)
        except StoreError as error:
            log.warning(
                "It cannot be recorded that the renewal of order %d has its caller: %s", order_id, error
            )

    def sight(self, order_id: int, *, stop: threading.Event | None = None, hasty: bool = False) -> Sight:
        """Looks at a rental that may be renewed."""
        return self._periods.saw(self._orders.status.read(order_id, stop=stop, patient=True, hasty=hasty))

    def pay_once(
        self,
        order_id: int,
        count: int,
        *,
        limit: Decimal | None,
        key: str | None = None,
        caps: Caps,
        sight: Sight | None = None,
        stop: threading.Event | None = None,
    ) -> Renewal:
        """Renews a rental, unless that was done since it had been renewed so often.

        Args:
            order_id: the rental.
            count: how often it had been renewed when that was decided on.
            limit: most that may be paid, in USD.
            key: names the renewal. Default: the order and the count.
            caps: what may be spent.
            sight: what its status said after `count` was read. Default: the status is read.
            stop: ends the waiting for the rate limit when it is set.
        """
        key = key or f"renew:{order_id}:{count}"
        purchase = Purchase(key, "renewal", renewal_of(order_id), replace(caps, price=limit), count)
        done = self._renewal_on_record(order_id, purchase, stop)
        if done is not None:
            log.info("Nothing is paid again: the key %s has renewed order %d", key, order_id)
            return Renewal(done)
        due = self._priced(order_id, purchase, sight or self.sight(order_id, stop=stop), stop)
        sent = self._sent_once(due, stop)
        if isinstance(sent, Renewal):
            return sent
        call, answer = sent
        renewed = self._with_shown_end(self._recorded(due, call.intent, answer))
        log.info(
            "Renewed %s until %s for %s",
            named(order_id, renewed),
            "an unknown time" if renewed.expires_at is None else f"{renewed.expires_at:%Y-%m-%d %H:%M} UTC",
            usd(_price_of(call)),
        )
        return Renewal(renewed, is_new=True, price=_price_of(call))

    def prices(
        self, order: Order, stop: threading.Event | None = None
    ) -> tuple[Decimal | None, Decimal | None]:
        """What a renewal costs, and the price that limits hold for; `None` where they are unknown."""
        quote = self._quote(order, stop)
        return (None, None) if quote is None else prices(quote.entry, order.duration)

    # -------------------------------------------------------------- inside

    def _priced(self, order_id: int, purchase: Purchase, sight: Sight, stop: threading.Event | None) -> _Due:
        """A renewal with its price. Raises where that is too high, or where its order is no rental."""
        order = self._orders.status.get(order_id)
        refuse_other_products(order)
        quote = self._quote(order, stop, is_strict=purchase.caps.is_set)
        price, highest = (None, None) if quote is None else prices(quote.entry, order.duration)
        what = f"renewing order {order_id}"
        check_price(highest, purchase.caps.price, what)
        self._recovery.introduce_rental(order, stop)
        # If the answer is lost, this shows afterwards whether the renewal was carried out.
        before = sight.expiry or self._periods.expiry(order.expires_at)
        return _Due(purchase, order, sight, before, quote, price, highest, what)

    def _sent_once(self, due: _Due, stop: threading.Event | None) -> tuple[_Call, OrderStatus] | Renewal:
        """Sends a renewal; returns it with its answer, or the renewal that was made without one."""
        key = due.purchase.key
        while True:
            try:
                planned = self._planned(due, stop)
                if isinstance(planned, Order):
                    log.info(
                        "Nothing is paid again: another call with the key %s has renewed order %d",
                        key,
                        planned.order_id,
                    )
                    return Renewal(planned)
                return self._sent(planned, due, stop)
            except UnderWay:
                self._sender.wait_for_another(key, stop)

    def _planned(self, due: _Due, stop: threading.Event | None) -> _Call | Order:
        """The plan of a renewal, or the order that was renewed meanwhile."""
        order_id = due.order.order_id
        while True:
            try:
                intent = self._ledger.plan(due.purchase, _request_of(due), due.price, charge=due.highest)
            except PurchaseUnknownError as error:
                # A renewal of this order is open, perhaps under another key.
                if self._recovery.resolve_renewals(order_id):
                    continue
                found = self._find_out(order_id, due.purchase, error, stop)
                if found is None:
                    raise
                return found
            if not isinstance(intent, Intent):
                return intent
            return PlannedCall(intent, due.quote, due.order.duration, due.what)

    def _sent(
        self, call: _Call, due: _Due, stop: threading.Event | None
    ) -> tuple[_Call, OrderStatus] | Renewal:
        order_id = due.order.order_id
        try:
            return call, self._sender.send(call, partial(self._api.post_renewal, order_id), stop)
        except PurchaseUnknownError as error:
            found = self._find_out(order_id, due.purchase, error, stop)
            if found is None:
                raise
            return Renewal(found, is_new=True, price=_price_of(call))

    def _recorded(self, due: _Due, intent: Intent, answer: OrderStatus) -> Order:
        """The order with its new end, which is on record. What follows may take long or fail."""
        renewed = self._extended(due.order, due.sight.status, due.purchase.count)
        answered = self._periods.expiry(answer.expires_at)
        if answered is not None and (due.before is None or answered.latest > due.before.latest):
            renewed = renewed.model_copy(update={"expires_at": answer.expires_at, "expires_estimated": False})
        otherwise = "do not renew it again for this period"
        with recording(intent, renewed.order_id, "renewed", purpose="find out", otherwise=otherwise):
            self._ledger.record_renewed(intent, renewed)
        return renewed

    def _extended(self, order: Order, before: OrderStatus, renewals: int) -> Order:
        """A renewed order with its calculated end, where that is possible: the old end plus its period."""
        known = order.model_copy(update={"expires_at": order.expires_at or before.expires_at})
        period = self._orders.records.period_of(known, renewals)
        if known.expires_at is None or period is None:
            return order.model_copy(update={"expires_at": None, "expires_estimated": False})
        return order.model_copy(update={"expires_at": known.expires_at + period, "expires_estimated": True})

    def _quote(self, order: Order, stop: threading.Event | None, *, is_strict: bool = False) -> Quote | None:
        """The line that a rental is renewed by; `None` where that is unknown."""
        service = self._ledger.owners.service_of(order.order_id) or order.service
        if order.product is None or service is None:
            return None
        try:
            return self._catalogue.quote_again(order.product, service, is_strict=is_strict, stop=stop)
        except AuthenticationError:
            raise
        except (ServiceError, InvalidRequestError) as error:
            log.warning("The price of renewing order %d is unknown: %s", order.order_id, error)
            return None

    def _renewal_on_record(
        self, order_id: int, purchase: Purchase, stop: threading.Event | None
    ) -> Order | None:
        """The order that a key has renewed already; `None` where it has not.

        Where its answer was lost, the order's time left may decide. Raises where it does not.
        """
        pauses = self._sender.pauses(stop)
        while True:
            try:
                return self._ledger.find(purchase)
            except UnderWay:
                self._sender.wait_for_another(purchase.key, stop)
            except PurchaseUnknownError:
                if next(pauses, None) is None:
                    raise
                self._recovery.resolve_renewals(order_id)

    def _find_out(
        self, order_id: int, purchase: Purchase, error: PurchaseUnknownError, stop: threading.Event | None
    ) -> Order | None:
        """The same after the outcome of a call has become unknown: no other error may hide that."""
        try:
            return self._renewal_on_record(order_id, purchase, stop)
        except PurchaseUnknownError:
            raise
        except SmsVerifyError as trouble:
            log.warning("Whether %s was carried out cannot be found out now: %s", purchase.key, trouble)
            raise error from trouble

    def _with_shown_end(self, renewed: Order) -> Order:
        """A renewed order with the end that its status shows, where it does."""
        try:
            after = self._periods.saw(self._orders.status.read(renewed.order_id)).status
        except SmsVerifyError as error:
            log.warning("Order %d was renewed, but cannot be looked at: %s", renewed.order_id, error)
            return renewed
        values: dict[str, Any] = {"status": after.status}
        if after.expires_at is not None:
            values |= {"expires_at": after.expires_at, "expires_estimated": False}
        return renewed.model_copy(update=values)


def _price_of(call: _Call) -> Decimal | None:
    """What a renewal costs by now: its price may have changed while it waited for its turn."""
    return None if call.quote is None else prices(call.quote.entry, call.duration)[0]


def _request_of(due: _Due) -> dict[str, Any]:
    """What is on record of a renewal before it is sent."""
    return {
        "order_id": due.order.order_id,
        "product": due.order.product,
        "name": due.order.service,
        **due.sight.moment.for_record(),
        "expiry": None if due.before is None else due.before.for_record(),
    }


def refuse_other_products(order: Order) -> None:
    """Raises `InvalidRequestError` where an order is known to be no rental."""
    if order.product is not None and order.product not in RENTALS:
        raise InvalidRequestError(
            f"order_id {order.order_id} is a {order.product} order, and only rentals can be renewed. Nothing "
            "was sent",
            field="order_id",
        )
