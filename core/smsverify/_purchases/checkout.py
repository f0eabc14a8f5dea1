"""The way into every paid call: is this the place for it, under which key, and within which caps."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from smsverify._input.values import own_type
from smsverify._orders.holding import Held
from smsverify._orders.orders import Orders
from smsverify._purchases.attempt_records import AttemptRecords, base_of
from smsverify._purchases.attempts import Series, series_key
from smsverify._purchases.payers import note_account
from smsverify._purchases.purchasing import Purchases
from smsverify._purchases.run_context import RunContext
from smsverify._purchases.spending import Caps
from smsverify._store.store import Store
from smsverify.checks import (
    BEST,
    OrderRequest,
    check_count,
    check_key,
    check_order_ids,
    check_price_limit,
    check_seconds,
    check_stop,
    check_switch,
)
from smsverify.errors import PurchaseConflictError, StoreError
from smsverify.models import Order
from smsverify.numbers import errors_logged
from smsverify.options import OrderIds
from smsverify.settings import Settings

if TYPE_CHECKING:
    from smsverify._purchases.deliveries import Deliveries
    from smsverify._purchases.renewing import Renewals
    from smsverify._purchases.rentals import Rentals
    from smsverify.reports import RentalsReport


class Checkout:
    """Checks what a caller asks for, and passes it on to the room that pays.

    Args:
        store: where attempts are kept.
        settings: of the account.
        run: the run that the calls are made in.
        orders: of the account.
        purchases: buys.
        renewals: gives what renews one rental.
        rentals: gives what renews those that end soon.
        deliveries: gives what knows which numbers have delivered.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        run: RunContext,
        orders: Orders,
        *,
        purchases: Purchases,
        renewals: Callable[[], Renewals],
        rentals: Callable[[], Rentals],
        deliveries: Callable[[], Deliveries],
    ) -> None:
        self._store = store
        self._settings = settings
        self._run = run
        self._orders = orders
        self._purchases = purchases
        self._renewals = renewals
        self._rentals = rentals
        self._deliveries = deliveries

    def order(self, product: str, **purchase: Any) -> Order:
        """Buys a number, and hands it over; see `SmsVerifyHook.order`."""
        holder = uuid.uuid4().hex
        order = self._buy(holder, product, **purchase)
        self._run.hand_over(order.order_id, self._orders.handover, holder)
        return order

    def _buy(
        self,
        holder: str,
        /,
        product: str,
        *,
        run_budget: Any = None,
        key: int | str | None = None,
        stop: threading.Event | None = None,
        **wanted: Any,
    ) -> Order:
        """Buys a number that is not handed over yet.

        Args:
            holder: names the call.
            product, run_budget, key, stop, **wanted: see `SmsVerifyHook.order`.
        """
        request = OrderRequest.check(product=product, **wanted)
        caps, stop = self._caps(run_budget), check_stop(stop)
        with self._key(key, request.fingerprint) as known:
            key = known or f"random:{uuid.uuid4().hex}"
            return self._purchases.buy(request, key, caps=caps, holder=holder, stop=stop)

    @contextmanager
    def rented(self, product: str, **purchase: Any) -> Iterator[tuple[Order, Callable[[int], None]]]:
        """A number for a block, and a check for its waits; see `SmsVerifyHook.rented_number`."""
        holder = uuid.uuid4().hex
        order = self._buy(holder, product, **purchase)
        held = self._hold(order, holder)
        try:
            yield order, partial(self._refuse_if_taken_over, holder)
        except BaseException:
            with errors_logged(order.order_id):
                self._end_block(order, held)
            raise
        self._end_block(order, held)

    def _hold(self, order: Order, holder: str) -> Held:
        """Holds a number for a block. An error in here gives it back: its caller never gets it."""
        try:
            return self._orders.handover.hold(order.order_id, holder=holder, claims=True)
        except BaseException as error:
            self._orders.give_back_unseen(order, error, holder=holder, undo=order.product != "esim")
            raise

    def _refuse_if_taken_over(self, holder: str, order_id: int) -> None:
        """Raises where a newer call has the number: a wait of this one would give it back at its time-out.

        Raises:
            PurchaseConflictError: nothing was sent.
        """
        if self._orders.handover.is_taken_over(order_id, holder):
            known = self._orders.records.get(order_id)
            key = None if known is None else known.key
            raise PurchaseConflictError(
                f"a newer call with the key {key!r} has order {order_id} now, so this one does not wait for "
                "it. It did not cancel that order. The newer call goes on with the number; use another key "
                "for another purpose",
                key=key,
            )

    def _end_block(self, order: Order, held: Held) -> None:
        """Hands over a number whose code was used, and gives another back."""
        handover = self._orders.handover
        try:
            is_used = handover.was_used(order.order_id)
            if not is_used:
                undo = order.product != "esim"
                self._orders.cancelling.release(
                    order.order_id, "its code was not used", holder=held.holder, undo=undo
                )
        finally:
            held.let_go()
        if is_used or order.product == "esim":
            self._run.hand_over(order.order_id, handover, held.holder)

    def attempts(
        self,
        product: str,
        attempts: int,
        *,
        run_budget: Any = None,
        key: int | str | None = None,
        stop: threading.Event | None = None,
        alternatives: Any = (),
        max_cost: Any = None,
        **wanted: Any,
    ) -> AbstractContextManager[Series]:
        """The attempts to get a code under one key; see `SmsVerifyHook.attempts`. Checks its arguments."""
        alternatives = own_type(alternatives)
        requests = OrderRequest.check_all(product, alternatives, **wanted)
        caps, cost_limit = self._caps(run_budget), _price_limit(max_cost, "max_cost")
        limit, given = check_count(attempts, "attempts"), None if key is None else check_key(key)
        stop = check_stop(stop)

        def buy(request: OrderRequest, key: str, holder: str) -> Order:
            return self._purchases.buy(request, key, caps=caps, holder=holder, again=False, stop=stop)

        confirm_refund = partial(self._purchases.confirm_refund, stop=stop)
        is_limited = cost_limit is not None or caps.is_set

        @contextmanager
        def opened() -> Iterator[Series]:
            settings = self._settings
            with self._key(given, f"code of {requests[0].fingerprint}") as known:
                whose = (settings.account_id, settings.namespace)
                base = base_of(self._store, *whose, series_key(known))
                yield Series(
                    AttemptRecords(self._store, *whose, base, is_wanted=self._purchases.is_wanted),
                    self._orders,
                    self._run,
                    buy,
                    self._deliveries().best_first(requests) if alternatives == BEST else requests,
                    find=partial(self._purchases.find, stop=stop),
                    outlast=partial(self._purchases.outlast, stop=stop),
                    confirm_refund=confirm_refund if is_limited else None,
                    limit=limit,
                    max_cost=cost_limit,
                    key=base,
                )

        return opened()

    def renew(
        self,
        order_id: int,
        *,
        max_price: Any = None,
        run_budget: Any = None,
        key: int | str | None = None,
        stop: threading.Event | None = None,
    ) -> Order:
        """Renews a rental; see `SmsVerifyHook.renew`."""
        limit, caps, stop = _price_limit(max_price), self._caps(run_budget), check_stop(stop)
        with self._key(key, f"renewal of {order_id}") as known:
            return self._renewals().pay_on_request(order_id, limit=limit, key=known, caps=caps, stop=stop)

    def renew_expiring(
        self,
        within: float | timedelta | str,
        *,
        max_price: Any = None,
        run_budget: Any = None,
        order_ids: OrderIds = (),
        only: OrderIds | None = None,
        exclude: OrderIds = (),
        dry_run: bool = False,
        stop: threading.Event | None = None,
    ) -> RentalsReport:
        """Renews the rentals that end soon; see `SmsVerifyHook.renew_expiring`."""
        from smsverify._purchases.due import Selection

        selection = Selection(
            check_seconds(within, "within"),
            check_order_ids(order_ids, "order_ids"),
            None if only is None else check_order_ids(only, "only"),
            check_order_ids(exclude, "exclude"),
        )
        limit, caps, stop = _price_limit(max_price), self._caps(run_budget), check_stop(stop)
        if not check_switch(dry_run, "dry_run"):
            self._check_place()
            for order_id in selection.named:
                self._orders.handover.refer_to(order_id)
        return self._rentals().renew_expiring(selection, limit=limit, caps=caps, dry_run=dry_run, stop=stop)

    @contextmanager
    def _key(self, given: int | str | None, fingerprint: str) -> Iterator[str | None]:
        self._check_place()
        if given is not None:
            yield check_key(given)
            return
        key = self._run.default_key(fingerprint)
        try:
            yield key
        except BaseException:
            if key is not None:
                self._run.key_failed(key)
            raise

    def _caps(self, run_budget: Any) -> Caps:
        """What the account may spend in a day, and the run: the lower of the setting and the argument."""
        given = None if run_budget is None else check_price_limit(run_budget, "run_budget")
        limits = [limit for limit in (self._settings.run_budget, given) if limit is not None]
        return Caps(
            self._settings.daily_budget, min(limits, default=None), self._run.name(), self._run.task()
        )

    def _check_place(self) -> None:
        """Refuses a paid call where it would be repeated, or where other machines cannot see its record."""
        settings = self._settings
        self._run.check_place()
        is_alone = settings.store_is_a_file and not settings.allow_unshared_store
        why = self._run.why_unshared() if is_alone else None
        if why is not None:
            raise StoreError(
                f"nothing was sent: the store is a file, and {why}, which may not see this file. Use "
                "PostgreSQL (store_url), or set allow_unshared_store if all tasks share the file"
            )
        note_account(self._store, settings.key_id, settings.account_id)


def _price_limit(given: Any, field: str = "max_price") -> Decimal | None:
    return None if given is None else check_price_limit(given, field)
