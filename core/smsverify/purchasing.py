"""Spending money: one order or renewal, with its price checked before and its outcome on record after."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from typing import Any

from smsverify.api import ServiceApi
from smsverify.catalogue import Catalogue
from smsverify.errors import (
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    OrderEndedError,
    PriceLimitError,
    PurchaseUnknownError,
    PurchaseUnverifiableError,
    ServiceError,
    SmsVerifyError,
    StoreError,
    WaitStoppedError,
)
from smsverify.ledger import Intent, Ledger, Purchase, UnderWay
from smsverify.models import (
    RENTALS,
    Order,
    OrderRequest,
    OrderStatus,
    Service,
    expiry_step,
    period_of,
    seconds_left,
)
from smsverify.orders import Orders
from smsverify.recovery import Recovery
from smsverify.spending import Caps
from smsverify.transport import OutcomeUnknown

log = logging.getLogger(__name__)

# Pauses before the looks for a purchase whose answer was lost, where the service's minute lasts a minute.
LOOKS = (0.5, 2.0, 5.0)
LOOK = 0.2  # seconds between two looks at a purchase that somebody else is making


@dataclass(frozen=True)
class _Begun:
    """A purchase that may be sent."""

    intent: Intent
    entry: Service


@dataclass(frozen=True)
class Sight:
    """What the status of a rental told.

    Attributes:
        status: of the order.
        ends_at: when it ends by that, as late as it may be, in seconds since 1970 by the store's clock;
            `None` where that is not told.
    """

    status: OrderStatus
    ends_at: float | None


@dataclass(frozen=True)
class Renewal:
    """What has come of a renewal.

    Attributes:
        order: with its new end.
        is_new: whether this call has paid; else it was renewed already, by this key or by somebody else.
        price: USD that was paid; `None` where nobody knows.
    """

    order: Order
    is_new: bool = False
    price: Decimal | None = None


class Purchases:
    """The paid calls of an account.

    Args:
        api, catalogue: the service and its prices.
        ledger: where every paid call is on record before it is sent.
        orders: the orders that were bought.
        recovery: finds out what became of calls whose outcome is unknown.
        grace: seconds for which an order of ours that the service does not show yet is believed in.
        tempo: how long the service's minute is in real minutes.
    """

    def __init__(
        self,
        api: ServiceApi,
        catalogue: Catalogue,
        ledger: Ledger,
        orders: Orders,
        recovery: Recovery,
        *,
        grace: float,
        tempo: float,
    ) -> None:
        self._api = api
        self._catalogue = catalogue
        self._ledger = ledger
        self._orders = orders
        self._recovery = recovery
        self._tempo = tempo
        self._grace = timedelta(seconds=grace)

    def order(
        self, request: OrderRequest, key: str, *, caps: Caps, stop: threading.Event | None = None
    ) -> Order:
        """Buys, or hands out what the key has bought already; see `SmsVerifyHook.order`."""
        self._orders.retry_releases()
        purchase = Purchase(key, "order", request.fingerprint, caps)
        ended: int | None = None
        while True:
            begun = self._begin(purchase, request, ended, stop)
            if isinstance(begun, _Begun):
                break
            if self._can_still_serve(begun, stop):
                log.info("%s has bought order %d, which still serves", key, begun.order_id)
                self._ledger.book.hand_out(begun.order_id)
                return self._orders.get(begun.order_id)
            ended = begun.order_id
        try:
            with self._settling(begun.intent):
                answer = self._api.order(
                    request,
                    begun.entry,
                    before_sending=partial(self._ledger.sending, begun.intent),
                    while_waiting=partial(self._ledger.alive, begun.intent),
                    stop=stop,
                )
        except UnderWay:
            # Somebody else took the intent over before it was sent.
            return self.order(request, key, caps=caps, stop=stop)
        except PurchaseUnknownError:
            found = self._find_out(purchase, stop)
            if found is None:
                raise
            if found.ended and found.status != "completed":
                raise OrderEndedError(
                    f"order {found.order_id} was made, but the service lists it as {found.status}; the same "
                    "key may buy again",
                    order_id=found.order_id,
                    status=found.status,
                ) from None
            return found
        order = _completed(answer, request, begun.entry)
        try:
            order = self._ledger.bought(begun.intent, order)
        except StoreError as error:
            raise PurchaseUnknownError(
                f"order {order.order_id} was bought, but could not be recorded: {error}",
                key=key,
                order_ids=(order.order_id,),
            ) from error
        price = "an unknown price" if order.price is None else f"{order.price:.2f} USD"
        log.info("Bought order %d: %s (%s) for %s", order.order_id, order.service, order.product, price)
        return order

    def renew(
        self,
        order_id: int,
        *,
        limit: Decimal | None,
        key: str | None,
        caps: Caps,
        stop: threading.Event | None = None,
    ) -> Order:
        """Renews a rental once for a key; see `SmsVerifyHook.renew`."""
        count = self._ledger.renewals(order_id)
        found = self._ledger.found_renewal(order_id) if key is None else None
        if found is not None:
            log.info("Order %d was renewed by a call whose answer was lost, nothing is paid again", order_id)
            return found
        return self.renew_from(order_id, count, limit=limit, key=key, caps=caps, stop=stop).order

    def sight(self, order_id: int, *, stop: threading.Event | None = None, hasty: bool = False) -> Sight:
        """Looks at a rental that may be renewed."""
        status = self._orders.look(order_id, stop=stop, patient=True, hasty=hasty)
        left = seconds_left(status)
        return Sight(status, None if left is None else self._ledger.now() + left)

    def renew_from(
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
            sight: what its status told after `count` was read. Default: it is asked for.
            stop: ends the waiting for the rate budget when it is set.
        """
        key = key or f"renew:{order_id}:{count}"
        purchase = Purchase(key, "renewal", f"renewal of {order_id}", caps, count)
        done = self._renewal_on_record(purchase, stop)
        if done is not None:
            log.info("Order %d was renewed already, nothing is paid again (%s)", order_id, key)
            return Renewal(done)
        sight = sight or self.sight(order_id, stop=stop)
        order = self._orders.get(order_id)
        if order.product is not None and order.product not in RENTALS:
            raise InvalidRequestError(
                f"order_id {order_id} is a {order.product} order: only rentals can be renewed",
                field="order_id",
            )
        price, highest = self.renewal_prices(order, stop)
        _check_price(highest, limit, f"renewing order {order_id}")
        # What shows afterwards, should the answer be lost, whether it was carried out.
        end = sight.ends_at
        if end is None and order.expires_at is not None:
            end = order.expires_at.timestamp()
        request = {
            "order_id": order_id,
            "end": end,
            "ends_at": sight.ends_at,
            "step": expiry_step(sight.status, self._tempo),
        }
        while True:
            try:
                begun = self._ledger.begin(purchase, request, price, charge=highest)
                if isinstance(begun, Order):
                    log.info("Order %d was renewed by somebody else meanwhile (%s)", order_id, key)
                    return Renewal(begun)
                with self._settling(begun):
                    answer = self._api.renew(
                        order_id,
                        before_sending=partial(self._ledger.sending, begun),
                        while_waiting=partial(self._ledger.alive, begun),
                        stop=stop,
                    )
                break
            except UnderWay:
                self._wait_for_others(key, stop)
            except PurchaseUnknownError as error:
                if error.key != key and self._recovery.settle_renewals(order_id):
                    continue  # Another renewal of this order was open, and is not any more.
                found = self._renewal_on_record(purchase, stop)
                if found is None:
                    raise
                return Renewal(found, is_new=error.key == key, price=price)
        renewed = _extended(order, sight.status, count)
        if answer.expires_at is not None and (end is None or answer.expires_at.timestamp() > end):
            renewed = renewed.model_copy(update={"expires_at": answer.expires_at, "expires_estimated": False})
        try:
            # At once: what follows may take long, or fail.
            self._ledger.renewed(begun, renewed)
        except StoreError as error:
            raise PurchaseUnknownError(
                f"order {order_id} was renewed, but that could not be recorded: {error}",
                key=begun.key,
                order_ids=(order_id,),
            ) from error
        renewed = self._with_shown_end(renewed)
        log.info("Renewed order %d until %s", order_id, renewed.expires_at or "an unknown time")
        return Renewal(renewed, is_new=True, price=price)

    def renewal_prices(
        self, order: Order, stop: threading.Event | None = None
    ) -> tuple[Decimal | None, Decimal | None]:
        """What a renewal costs, and the price that a limit is checked against; `None` where nobody knows."""
        service = self._ledger.service_of(order.order_id) or order.service
        if order.product is None or service is None:
            return None, None
        request = OrderRequest(product=order.product, service=service, duration=order.duration)
        try:
            entry = self._catalogue.find(request, stop=stop)
        except AuthenticationError:
            raise
        except (ServiceError, InvalidRequestError) as error:
            log.warning("The price of renewing order %d is unknown: %s", order.order_id, error)
            return None, None
        return entry.price_of(order.duration), entry.highest_price_of(order.duration)

    # -------------------------------------------------------------- inside

    def _wait_for_others(self, key: str, stop: threading.Event | None) -> None:
        """Somebody else makes this purchase at the moment: how it ends is on record soon."""
        log.debug("%s is being bought by somebody else", key)
        if (stop or threading.Event()).wait(LOOK):
            raise WaitStoppedError(f"stopped while somebody else was buying {key}; nothing was sent")

    def _begin(
        self, purchase: Purchase, request: OrderRequest, ended: int | None, stop: threading.Event | None
    ) -> _Begun | Order:
        """What the key has bought, else the intent on record, with its price found and checked."""
        has_looked = False
        while True:
            try:
                # The key comes first: what it has bought is handed out whatever became of the catalogue.
                bought = self._ledger.find(purchase, after=ended)
                if bought is not None:
                    return bought
                entry = self._catalogue.find(request, stop=stop)
                highest = entry.highest_price_of(request.duration)
                _check_price(highest, request.max_price, f"{entry.name} ({request.product})")
                price = entry.price_of(request.duration)
                begun = self._ledger.begin(
                    purchase, _in_ids(request, entry), price, charge=highest, after=ended
                )
                return _Begun(begun, entry) if isinstance(begun, Intent) else begun
            except UnderWay:
                self._wait_for_others(purchase.key, stop)
            except PurchaseUnknownError:
                if has_looked:
                    raise
                has_looked = True
                self._look_for(purchase.key)

    def _look_for(self, key: str) -> None:
        """Lets the list of orders decide what it can."""
        try:
            self._recovery.settle()
        except AuthenticationError:
            raise
        except ServiceError as error:
            raise PurchaseUnverifiableError(
                f"whether {key!r} was carried out can not be found out now, because the list of orders can "
                f"not be read ({error}); nothing was sent",
                key=key,
            ) from error

    def _find_out(self, purchase: Purchase, stop: threading.Event | None) -> Order | None:
        """Looks for a purchase whose answer was lost; `None` where the list does not decide yet."""
        for pause in LOOKS:
            if (stop or threading.Event()).wait(pause * self._tempo):
                return None
            try:
                self._recovery.settle()
                return self._ledger.find(purchase)
            except UnderWay:
                continue  # Its end could not be recorded; the row says that it is under way for a while.
            except PurchaseUnknownError as error:
                if error.order_ids:
                    raise
            except SmsVerifyError as error:
                log.warning("Whether %s was bought can not be found out now: %s", purchase.key, error)
                return None
        return None

    def _renewal_on_record(self, purchase: Purchase, stop: threading.Event | None) -> Order | None:
        """The order that a key has renewed already; `None` where it has not.

        Where its answer was lost, the order's time left may decide. Raises where it does not.
        """
        pauses = iter(LOOKS)
        while True:
            try:
                return self._ledger.find(purchase)
            except UnderWay:
                self._wait_for_others(purchase.key, stop)
            except PurchaseUnknownError:
                pause = next(pauses, None)
                if pause is None or (stop or threading.Event()).wait(pause * self._tempo):
                    raise
                self._recovery.settle_renewals(int(purchase.fingerprint.rpartition(" ")[2]))

    def _can_still_serve(self, order: Order, stop: threading.Event | None) -> bool:
        """Whether an order that a key has bought can be handed out again."""
        if order.product == "esim":
            return not order.ended
        now = datetime.now(timezone.utc)
        is_new = now - (order.created_at or now) < self._grace
        try:
            status = self._orders.look(order.order_id, stop=stop)
        except NotFoundError:
            # One answer of that kind is not enough to buy another.
            return is_new or any(one.order_id == order.order_id for one in self._orders.read_list()[0])
        if order.product in RENTALS:
            return not status.ended
        if status.status == "completed" and not status.arrived and is_new:
            return True  # its code shows a little later
        return (status.arrived or not status.ended) and not self._ledger.book.was_used(order.order_id)

    @contextmanager
    def _settling(self, intent: Intent) -> Iterator[None]:
        """Records how a paid call went wrong. What does not prove the contrary may have been carried out."""
        try:
            yield
        except OutcomeUnknown as unknown:
            self._note(self._ledger.unknown, intent, unknown.cause)
            raise PurchaseUnknownError(
                f"{unknown.cause}. Whether that was carried out is unknown: it is on record as {intent.key}, "
                "and is not sent again",
                key=intent.key,
            ) from unknown.cause
        except SmsVerifyError as error:
            self._note(self._ledger.rejected, intent, error)
            raise

    def _note(self, note: Callable[[Intent, str], None], intent: Intent, error: SmsVerifyError) -> None:
        try:
            note(intent, str(error))
        except StoreError as failure:
            # The row stays at `sent`, which means unknown; what the caller has to know is the outcome.
            log.error("How %s ended could not be recorded: %s", intent.key, failure)

    def _with_shown_end(self, renewed: Order) -> Order:
        """A renewed order with the end that its status shows, where it does."""
        try:
            after = self._orders.look(renewed.order_id)
        except SmsVerifyError as error:
            log.warning("Order %d was renewed, but can not be looked at: %s", renewed.order_id, error)
            return renewed
        values: dict[str, Any] = {"status": after.status}
        if after.expires_at is not None:
            values |= {"expires_at": after.expires_at, "expires_estimated": False}
        return renewed.model_copy(update=values)


def _extended(order: Order, before: OrderStatus, renewals: int) -> Order:
    """A renewed order with its end as far as that can be reckoned: the old one, and its period."""
    known = order.model_copy(update={"expires_at": order.expires_at or before.expires_at})
    period = period_of(known, renewals)
    if known.expires_at is None or period is None:
        return order.model_copy(update={"expires_at": None, "expires_estimated": False})
    return order.model_copy(update={"expires_at": known.expires_at + period, "expires_estimated": True})


def _check_price(price: Decimal | None, limit: Decimal | None, what: str) -> None:
    if limit is None:
        return
    if price is None:
        raise PriceLimitError(
            f"the price of {what} is unknown, so max_price={limit} can not be kept: nothing was sent"
        )
    if price > limit:
        raise PriceLimitError(f"{what} costs {price} USD, more than max_price={limit}: nothing was sent")


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


def _completed(answer: Order, request: OrderRequest, entry: Service) -> Order:
    """The service's answer with what the request and the catalogue tell besides."""
    return answer.model_copy(
        update={
            "product": request.product,
            "service": entry.name,
            "country": entry.country_name,
            "duration": request.duration,
            "price": entry.price_of(request.duration) if answer.price is None else answer.price,
            "created_at": answer.created_at or datetime.now(timezone.utc),
        }
    )
