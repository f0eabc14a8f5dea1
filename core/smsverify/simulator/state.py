"""The service behind the endpoints: wallet, stock, orders and their SMS. Every operation is atomic."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal

from smsverify.simulator.agenda import Agenda, logger, moment, now
from smsverify.simulator.catalogue import Catalogue, Offer, Plan
from smsverify.simulator.lives import DAY, Delay
from smsverify.simulator.phones import Phones
from smsverify.simulator.records import Movement, SimulatedOrder, SimulatorError
from smsverify.simulator.settings import Settings
from smsverify.simulator.wallet import Wallet

RENEWABLE = ("rental", "rent-1day", "rent-30days")
PROVIDER_ERROR = "Provider error, please try again"


class Refused(Exception):
    """The service says no; the endpoint gives the answer its shape."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass
class Entry:
    """An order and what is known of it beside its record."""

    order: SimulatedOrder
    listed_from: float
    answered_from: float
    status_before_sms: str
    asked_since_sms: bool = True


class State:
    """The wallet and the orders of the one account."""

    def __init__(self, settings: Settings, agenda: Agenda, on_sms: Callable[[SimulatedOrder], None]) -> None:
        self.lock = threading.RLock()
        self.settings = settings
        self.catalogue: Catalogue = settings.catalogue.copy()
        self._agenda = agenda
        self._on_sms = on_sms
        self._random = random.Random(settings.seed)
        self._entries: dict[int, Entry] = {}
        self._wallet = Wallet(settings.balance)
        self._phones = Phones()
        self._due: list[tuple[float, int, str, int]] = []
        self._ticket = itertools.count()
        self._order_ids = itertools.count(settings.first_order_id)

    # The wallet

    @property
    def balance(self) -> Decimal:
        with self.lock:
            self.settle()
            return self._wallet.balance

    def movements(self) -> list[Movement]:
        with self.lock:
            self.settle()
            return list(self._wallet.movements)

    def deposit(self, amount: Decimal) -> None:
        with self.lock:
            self._wallet.move("deposit", amount)

    def set_balance(self, amount: Decimal) -> None:
        with self.lock:
            self._wallet.move("adjustment", amount - self.balance)

    def _afford(self, price: Decimal) -> None:
        if self._wallet.balance < price:
            raise Refused(402, "Insufficient balance")

    def _refund(self, order: SimulatedOrder) -> Decimal:
        amount = order.paid - order.refunded
        if amount:
            order.refunded += amount
            self._wallet.move("refund", amount, order.order_id)
        return amount

    # Orders

    def buy(
        self,
        product: str,
        offer: Offer,
        *,
        duration: int | None = None,
        area_code: str | None = None,
        lags: tuple[float, float] = (0.0, 0.0),
        provider_failure: int | None = None,
    ) -> SimulatedOrder:
        """Sell `offer`.

        Args:
            product: The API's word.
            offer: Of this state's catalogue.
            duration: Of a rental: 3 or 30.
            area_code: Of a temporary number.
            lags: For how long the order is missing from the list, and from its status, beyond the settings'
                lags.
            provider_failure: Roll the debit back and refuse with this status.
        """
        with self.lock:
            self.settle()
            settings, own = self.settings, self.settings.products[product]
            if offer.stock == 0:
                raise Refused(400, "Service not available")
            price = offer.sell_price(duration)
            self._afford(price)
            order_id = next(self._order_ids)
            self._wallet.move("order", -price, order_id)
            if provider_failure:
                self._wallet.move("refund", price, order_id)
                raise Refused(provider_failure, PROVIDER_ERROR)
            if offer.stock is not None:
                offer.stock -= 1
            at = now()
            order = SimulatedOrder(
                order_id=order_id,
                product=product,
                service=offer.name,
                service_id=None if offer.service_id is None else str(offer.service_id),
                label=self._label(offer),
                country_id=offer.country_id,
                duration=duration,
                area_code=area_code,
                phone=self._phone(product, offer, area_code),
                status=own.start_status,
                price=price,
                paid=price,
                created_at=moment(at),
                expires_at=moment(at) + self._validity(product, offer, duration),
                activation_code=f"SIM-{self._random.randrange(10**10):010d}" if product == "esim" else None,
            )
            listed_from = at + settings.real(max(settings.list_lag, lags[0]))
            answered_from = at + settings.real(max(settings.status_lag, lags[1]))
            self._entries[order_id] = Entry(order, listed_from, answered_from, own.start_status)
            what = f"{product} {order.label}, {order.phone or 'no phone'}"
            logger.info("order %d: %s, %s USD, balance %s", order_id, what, price, self.balance)
            self._schedule(order.expires_at.timestamp(), "end", order_id)
            as_bought = replace(order)
            if product != "esim":
                self._expect_sms(order, at)
            return as_bought

    def newest(self) -> list[tuple[SimulatedOrder, str]]:
        """The orders that the list shows, newest first, each with the status that the list shows."""
        with self.lock:
            self.settle()
            at = now()
            visible = [entry for entry in reversed(self._entries.values()) if entry.listed_from <= at]
            listed = visible[: self.settings.list_length]
            return [(replace(entry.order), self._listed_status(entry)) for entry in listed]

    def ask_status(self, order_id: int) -> SimulatedOrder:
        with self.lock:
            entry = self._answering(order_id)
            entry.order.status_requests += 1
            entry.asked_since_sms = True
            return replace(entry.order)

    def cancel(self, order_id: int) -> SimulatedOrder:
        with self.lock:
            order = self._answering(order_id).order
            unused, policy = order.sms_count == 0, self.settings.cancel_active
            active_rental = order.product in RENEWABLE and order.status == "active"
            refundable = unused and (order.status == "pending" or (active_rental and policy == "refund"))
            if not refundable and not (active_rental and policy == "no-refund"):
                raise Refused(400, "Order cannot be cancelled")
            order.status = "cancelled"
            refund = self._refund(order) if refundable else Decimal(0)
            logger.info("order %d: cancelled, %s USD refunded, balance %s", order_id, refund, self.balance)
            return replace(order)

    def renew(self, order_id: int) -> SimulatedOrder:
        with self.lock:
            order = self._answering(order_id).order
            is_completed = order.status == "completed"
            is_running = order.status in ("pending", "active") or (
                is_completed and self.settings.renew_completed
            )
            if order.product not in RENEWABLE or not is_running:
                raise Refused(400, "Order cannot be renewed")
            offer = self.catalogue.find(order.product, order.service_id or order.service, order.country_id)
            if offer is None:
                raise Refused(404, "Service not available")
            price = offer.sell_price(order.duration)
            self._afford(price)
            self._wallet.move("renewal", -price, order_id)
            order.paid += price
            order.renewals += 1
            order.status = "completed" if is_completed else "active"
            order.expires_at += self._validity(order.product, offer, order.duration)
            self._schedule(order.expires_at.timestamp(), "end", order_id)
            until = order.expires_at.isoformat(" ", "seconds")
            logger.info("order %d: renewed to %s, %s USD, balance %s", order_id, until, price, self.balance)
            return replace(order)

    def orders(self) -> list[SimulatedOrder]:
        """All orders, oldest first."""
        with self.lock:
            self.settle()
            return [replace(entry.order) for entry in self._entries.values()]

    def order(self, order_id: int) -> SimulatedOrder:
        with self.lock:
            self.settle()
            return replace(self._entry(order_id).order)

    def set_time_left(self, order_id: int, seconds: float) -> None:
        """Let the validity end in `seconds` of real time."""
        with self.lock:
            self._entry(order_id).order.expires_at = moment(now() + seconds)
            self._schedule(now() + seconds, "end", order_id)
            self.settle()

    # SMS

    def deliver_sms(self, order_id: int, otp: str | None, text: str | None, sender: str | None) -> None:
        """Let an SMS arrive now: a made-up code, or `otp`, or a `text` without a code to be found."""
        with self.lock:
            self.settle()
            order = self._entry(order_id).order
            if order.phone is None or order.status not in ("pending", "active", "completed"):
                raise SimulatorError(f"order_id: order {order_id} is {order.status} and receives no SMS")
            self._arrive(order_id, otp, text, sender)

    def _expect_sms(self, order: SimulatedOrder, bought_at: float) -> None:
        delay = self.draw(self.settings.sms_delay_for(order.product, order.service_id, order.service))
        if delay is None:
            return
        if self.settings.callback_before_answer:
            self._arrive(order.order_id, announce=False)  # the gateway posts it before it answers
        else:
            self._schedule(bought_at + self.settings.real(delay), "sms", order.order_id)

    def _arrive(
        self,
        order_id: int,
        otp: str | None = None,
        text: str | None = None,
        sender: str | None = None,
        announce: bool = True,
    ) -> None:
        entry = self._entries[order_id]
        order, looks = entry.order, self.settings.service(entry.order.service_id, entry.order.service)
        if otp is None and text is None:
            otp = "".join(self._random.choices("0123456789", k=looks.digits))
        order.otp = otp
        order.message = looks.text.format(service=order.service, otp=otp) if text is None else text
        order.sender = sender or looks.sender
        order.sms_at = moment(now())
        order.sms_count += 1
        entry.status_before_sms, entry.asked_since_sms = order.status, False
        if order.status != "completed":
            order.status = self.settings.products[order.product].sms_status
        logger.info("order %d: SMS from %s arrived, now %s", order_id, order.sender, order.status)
        if announce:
            self._on_sms(replace(order))

    # Time

    def settle(self) -> None:
        """Let everything happen whose time has come."""
        with self.lock:
            while self._due and self._due[0][0] <= now():
                _, _, event, order_id = heapq.heappop(self._due)
                order = self._entries[order_id].order
                if order.status not in ("pending", "active"):
                    continue
                if event == "sms":
                    self._arrive(order_id)
                elif order.expires_at.timestamp() <= now():
                    self._end(order)

    def retire(self) -> None:
        """Let nothing more happen: another state takes over."""
        with self.lock:
            self._due.clear()

    def draw(self, delay: Delay) -> float | None:
        """Seconds for a delay; None for never."""
        if isinstance(delay, str):
            return None
        with self.lock:
            return self._random.uniform(*delay) if isinstance(delay, tuple) else delay

    def _end(self, order: SimulatedOrder) -> None:
        own = self.settings.products[order.product]
        order.status = own.end_status
        refund = self._refund(order) if own.end_refund and order.sms_count == 0 else Decimal(0)
        logger.info("order %d: validity over, now %s, %s USD refunded", order.order_id, order.status, refund)

    def _schedule(self, when: float, event: str, order_id: int) -> None:
        heapq.heappush(self._due, (when, next(self._ticket), event, order_id))
        self._agenda.at(when, self.settle)

    # Small helps

    def _entry(self, order_id: int) -> Entry:
        if order_id not in self._entries:
            raise SimulatorError(f"order_id: there is no order {order_id}")
        return self._entries[order_id]

    def _answering(self, order_id: int) -> Entry:
        self.settle()
        entry = self._entries.get(order_id)
        if entry is None or entry.answered_from > now():
            raise Refused(404, "Order not found")
        return entry

    def _listed_status(self, entry: Entry) -> str:
        hidden = not self.settings.list_shows_completion and not entry.asked_since_sms
        return entry.status_before_sms if hidden and entry.order.status == "completed" else entry.order.status

    def _label(self, offer: Offer) -> str:
        country = None if offer.country_id is None else self.catalogue.country(offer.country_id)
        return f"{offer.name} ({country.label})" if country else offer.name

    def _phone(self, product: str, offer: Offer, area_code: str | None) -> str | None:
        if product == "esim":
            return None
        country_id = offer.country_id
        return self._phones.usa(area_code) if country_id is None else self._phones.abroad(country_id)

    def _validity(self, product: str, offer: Offer, duration: int | None) -> timedelta:
        seconds = self.settings.products[product].validity
        if seconds is None:
            seconds = (offer.validity_days if isinstance(offer, Plan) else duration or 0) * DAY
        return timedelta(seconds=self.settings.real(seconds))
