"""`SmsVerifyHook`: the face that both wings, the command line and plain Python use."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from smsverify.assembly import Assembly
from smsverify.budget import BudgetState, Priority
from smsverify.errors import (
    InvalidRequestError,
    NotFoundError,
    OrderEndedError,
    SmsVerifyError,
    StoreError,
    WaitTimeoutError,
)
from smsverify.filters import MessageFilter
from smsverify.following import Follow
from smsverify.inbox import Inbox
from smsverify.models import (
    Balance,
    Country,
    EsimPlan,
    Message,
    Order,
    OrderRequest,
    OrderStatus,
    Rental,
    Service,
    check_key,
    check_order_id,
    check_order_ids,
    check_price_limit,
    check_product,
    check_seconds,
)
from smsverify.reconciling import Reconciliation
from smsverify.rentals import RentalsReport, Selection
from smsverify.spending import Caps
from smsverify.waiting import Wait

log = logging.getLogger(__name__)

OrderIds = Iterable[int | str] | int | str
DEFAULT_TIMEOUT = 600.0  # seconds to wait for a code; the service's short-term numbers live about as long

_PROGRAM = f"program:{uuid.uuid4().hex}"  # the run of those who are in no framework's; forks belong to it


class SmsVerifyHook(Assembly):
    """The service, with authentication, the shared rate budget, retries and a ledger of what was bought.

    Nothing is connected before the first call. Safe to use from several threads, and after a fork.

    Args:
        api_key: the service's API key.
        base_url: the service's address.
        store_url: SQLAlchemy URL of the store that everybody who uses the account shares.
        rate_limit: requests that the service allows in `rate_period`.
        rate_period: seconds.
        **settings: any other of `smsverify.settings.Settings`.

    Whatever is not given comes from the environment (`SMSVERIFY_API_KEY`, `SMSVERIFY_BASE_URL`, …), else the
    default. Every method raises `InvalidRequestError` for a setting or an argument that is not allowed,
    `StoreError` where the store can not be used, and a `ServiceError` for what the service answers.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        store_url: str | None = None,
        rate_limit: int | None = None,
        rate_period: float | None = None,
        **settings: Any,
    ) -> None:
        self._given: dict[str, Any] = {
            "api_key": api_key,
            "base_url": base_url,
            "store_url": store_url,
            "rate_limit": rate_limit,
            "rate_period": rate_period,
            **settings,
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    def _default_key(self, fingerprint: str) -> str | None:
        """The key of a purchase that was given none; a wing derives it from the task that runs."""
        return None

    def _run_name(self) -> str:
        """Names the run that `run_budget` is about; a wing names its framework's."""
        return _PROGRAM

    def _why_unshared(self) -> str | None:
        """Why not everybody who uses the account may see a store in a file; a wing knows where it runs."""
        return None

    def _key_failed(self, key: str) -> None:
        """A purchase under a key of `_default_key` has failed: the next equal call is the same one again."""

    @contextmanager
    def _key(self, given: int | str | None, fingerprint: str) -> Iterator[str | None]:
        key = self._default_key(fingerprint) if given is None else check_key(given)
        self._refuse_unshared_store()
        try:
            yield key
        except BaseException:
            if given is None and key is not None:
                self._key_failed(key)
            raise

    # -------------------------------------------------------------- what the account has, and what there is
    # to buy

    def get_balance(self) -> Balance:
        """The wallet's balance in USD (`GET /api/v1/balance/`)."""
        return self._api.get_balance()

    def get_wallet_balance(self) -> Balance:
        """The same from the alias (`GET /api/v1/wallet/balance/`)."""
        return self._api.get_wallet_balance()

    def list_services(self, product: str) -> list[Service]:
        """The services of a product with their prices, fresh.

        Args:
            product: `temporary`, `best-temp`, `rental`, `rent-1day` or `rent-30days`
                (`GET /api/v1/services/<product>/`).
        """
        checked = check_product(product)
        if checked in ("global", "esim"):
            other = "list_global_services(country)" if checked == "global" else "list_esim_plans()"
            raise InvalidRequestError(
                f"product {checked!r} has a list of its own: use {other}",
                field="product",
            )
        return self._api.list_services(checked)

    def list_esim_plans(self) -> list[EsimPlan]:
        """The eSIM data plans with their prices (`GET /api/v1/services/esim/`)."""
        return self._api.list_esim_plans()

    def list_countries(self) -> list[Country]:
        """The countries outside the USA with a service in stock (`GET /api/v1/global/countries/`)."""
        return self._api.list_countries()

    def list_global_services(self, country: int | str) -> list[Service]:
        """The services of a country with their prices (`GET /api/v1/global/services/`).

        Args:
            country: id or name.

        Raises:
            NotAvailableError: no such country is in stock.
        """
        return self._api.list_global_services(self._catalogue.find_country(str(country).strip()).country_id)

    def list_orders(self) -> list[Order]:
        """The 50 newest orders, newest first, without product and expiry (`GET /api/v1/orders/`)."""
        return self._orders.read_list()[0]

    def budget(self) -> BudgetState:
        """What is left of the requests per minute that all users of the key share. Costs no request."""
        return self._budget.state()

    @property
    def inbox(self) -> Inbox:
        """The messages of the account that have come, by polls and by callbacks."""
        return self._inbox

    def check_store(self) -> int:
        """Makes sure that the store can be used, with its tables; returns the schema's version."""
        return self._store.upgrade()

    # -------------------------------------------------------------- buying

    def order(
        self,
        product: str,
        *,
        service: int | str | None = None,
        country: int | str | None = None,
        area_code: str | int | None = None,
        duration: int | None = None,
        plan: str | None = None,
        max_price: Decimal | float | str | None = None,
        daily_budget: Decimal | float | str | None = None,
        run_budget: Decimal | float | str | None = None,
        key: int | str | None = None,
        stop: threading.Event | None = None,
    ) -> Order:
        """Buys a number (or an eSIM), at most once for a key (`POST /api/v1/order/<product>/`).

        Args:
            product: `temporary`, `best-temp`, `rental`, `rent-1day`, `rent-30days`, `global` or `esim`.
            service: id or name from the product's list; not for `esim`.
            country: id or name, for `global`.
            area_code: three digits of the USA, for `temporary`.
            duration: 3 or 30 days, for `rental`.
            plan: the plan's name, for `esim`.
            max_price: most that may be paid, in USD. Nothing is sent where the price is higher or unknown.
            daily_budget: most that the account may spend in a day (UTC), in USD, this purchase included. The
                setting of that name holds besides. Refunds count back when the service's list shows them.
            run_budget: the same for the run that this call is a part of: a DAG run, a flow run with its
                subflows, else this program.
            key: names this purchase. Called again with the same key, the order is handed out that it has
                bought, unless that has ended. Default: derived from the task that runs, else random.
            stop: ends the waiting for the rate budget when it is set.

        Returns:
            the order; an eSIM's `activation_code` is in it, and can be read again with `get_order`.

        Raises:
            InvalidRequestError: a parameter is wrong; `field` names it. Nothing was sent.
            NotAvailableError: no such service, country or plan is in stock.
            PriceLimitError: too expensive. Nothing was sent.
            SpendingLimitError: a budget would be passed. Nothing was sent.
            InsufficientBalanceError: the wallet does not hold enough.
            PurchaseUnknownError: the number may or may not have been bought. The same key never buys again
                blindly.
            StoreError: the store can not be used, or not all who use the account share it. Nothing was sent.
            PurchaseConflictError: the key stands for another purchase.
        """
        request = OrderRequest.check(
            product=product,
            service=service,
            country=country,
            area_code=area_code,
            duration=duration,
            plan=plan,
            max_price=max_price,
        )
        caps = self._caps(daily_budget, run_budget)
        with self._key(key, request.fingerprint) as known_key:
            key = known_key or f"random:{uuid.uuid4().hex}"
            return self._purchases.order(request, key, caps=caps, stop=stop)

    def renew(
        self,
        order_id: int | str,
        *,
        max_price: Decimal | float | str | None = None,
        daily_budget: Decimal | float | str | None = None,
        run_budget: Decimal | float | str | None = None,
        key: int | str | None = None,
        stop: threading.Event | None = None,
    ) -> Order:
        """Extends a rental by its period at the current price, once (`POST /api/v1/order/<order_id>/renew/`).

        Calls that run at the same time for one rental make one renewal between them.

        Args:
            order_id: a `rental`, `rent-1day` or `rent-30days` order.
            max_price: most that may be paid, in USD. Nothing is sent where the price is higher or unknown, as
                it is for an order that was not bought through this store.
            daily_budget, run_budget: most that may be spent in all, in USD, as for `order`.
            key: names this renewal. Default: derived from the task that runs, else the order and the count of
                its renewals.
            stop: ends the waiting for the rate budget when it is set.

        Returns:
            the order with its new expiry; `expires_estimated` where the service does not tell it.

        Raises:
            NotFoundError: there is no such order.
            PriceLimitError: too expensive, or the price is unknown. Nothing was sent.
            SpendingLimitError: a budget would be passed. Nothing was sent.
            InsufficientBalanceError: the wallet does not hold enough.
            PurchaseUnknownError: the rental may or may not have been renewed, here or by another call.
            StoreError: as for `order`.
        """
        order_id = check_order_id(order_id)
        limit = check_price_limit(max_price) if max_price is not None else None
        caps = self._caps(daily_budget, run_budget)
        with self._key(key, f"renewal of {order_id}") as known_key:
            return self._purchases.renew(order_id, limit=limit, key=known_key, caps=caps, stop=stop)

    def rentals(self, order_ids: OrderIds = ()) -> list[Rental]:
        """The rentals that have not ended, with their time left, and what renewing each one costs.

        Costs a request for each `rent-1day` and `rent-30days` rental (`GET
        …/order/<order_id>/status/`), which alone are told their time left, and one for each catalogue.

        Args:
            order_ids: rentals besides those that were bought through this store, such as some rented at the
                dashboard: one id, or several.

        Returns:
            the rentals, the one that ends soonest first and those whose end is unknown last.
        """
        return self._rentals.overview(check_order_ids(order_ids, "order_ids"))

    def renew_expiring(
        self,
        within: float | timedelta | str,
        *,
        max_price: Decimal | float | str | None = None,
        daily_budget: Decimal | float | str | None = None,
        run_budget: Decimal | float | str | None = None,
        order_ids: OrderIds = (),
        only: OrderIds | None = None,
        exclude: OrderIds = (),
        dry_run: bool = False,
        stop: threading.Event | None = None,
    ) -> RentalsReport:
        """Renews the rentals that end soon, once for each period (`POST /api/v1/order/<order_id>/renew/`).

        Made to be run on a schedule, several times in `within`: what is not due is left alone, and runs that
        overlap, are repeated or know nothing of each other renew nothing twice. However long `within` is, no
        more than one period is paid ahead. The rental that ends soonest
        comes first. One that can not be renewed never stops the others, nor does it hold money back for
        itself: where the wallet or a budget is too small for it, a cheaper one that ends later is renewed. A
        rental whose end is unknown is never renewed, only named: `renew` does it, or `exclude` leaves it out.

        Where the service tells whole days only, a rental counts as if the last of them were over.

        Args:
            within: seconds or a `timedelta`; a rental that ends sooner is due.
            max_price: most that one renewal may cost, in USD. A rental whose price is higher or unknown is
                not renewed.
            daily_budget, run_budget: most that may be spent in all, in USD, as for `order`.
            order_ids: rentals besides those that were bought through this store: one id, or several. Their
                price is not known.
            only: renews none but these, which may have been rented elsewhere.
            exclude: leaves these alone.
            dry_run: tells what would be done, and pays nothing.
            stop: ends it between two renewals when it is set.

        Returns:
            an entry for each rental with what was done or why not, the cost, and the wallet; `failed` are the
            rentals that are not kept, and `raise_if_failed` raises for these.

        Raises:
            InvalidRequestError: a parameter is wrong; `field` names it. Nothing was paid.
            AuthenticationError: the service refuses the key.
            StoreError: as for `order`.
        """
        selection = Selection(
            check_seconds(within, "within"),
            check_order_ids(order_ids, "order_ids"),
            None if only is None else check_order_ids(only, "only"),
            check_order_ids(exclude, "exclude"),
        )
        limit = check_price_limit(max_price) if max_price is not None else None
        caps = self._caps(daily_budget, run_budget)
        if not dry_run:
            self._refuse_unshared_store()
        return self._rentals.renew_expiring(selection, limit=limit, caps=caps, dry_run=dry_run, stop=stop)

    def settle(self, key: str, *, order_id: int | str | None) -> None:
        """Takes a person's decision on a paid call whose outcome could not be found out.

        Args:
            key: the call's, as `PurchaseUnknownError` and `reconcile` name it.
            order_id: the order that it has bought or renewed; `None` where it was not carried out: then its
                key may try again.

        Raises:
            InvalidRequestError: no such call is open, or it can not be that order.
        """
        told = None if order_id is None else check_order_id(order_id)
        if told is not None and self._book.get(told) is None:
            with contextlib.suppress(NotFoundError):
                self._orders.look(told)
        self._ledger.decide(check_key(key), told)

    def _caps(self, daily_budget: Any, run_budget: Any) -> Caps:
        """The stricter of what is set and what is given."""
        strictest: dict[str, Decimal | None] = {}
        for name, given in (("daily_budget", daily_budget), ("run_budget", run_budget)):
            limits = [limit for limit in (getattr(self.settings, name),) if limit is not None]
            if given is not None:
                limits.append(check_price_limit(given, name))
            strictest[name] = min(limits, default=None)
        return Caps(strictest["daily_budget"], strictest["run_budget"], self._run_name())

    def _refuse_unshared_store(self) -> None:
        """A store that others do not see can not keep them from buying the same twice."""
        settings = self.settings
        if not settings.store_is_a_file or settings.allow_unshared_store:
            return
        why = self._why_unshared()
        if why is not None:
            raise StoreError(
                f"nothing is bought with a store in a file where {why}: use PostgreSQL (store_url), or set "
                "allow_unshared_store if all tasks do see that one file"
            )

    # -------------------------------------------------------------- setting right

    def reconcile(
        self, *, cancel_after: float | None = None, stop: threading.Event | None = None
    ) -> Reconciliation:
        """Compares what is on record with the service, and sets right what can be.

        Finds out what became of paid calls whose answer was lost (`GET /api/v1/orders/`, and the status of
        renewed rentals), tries again to cancel what could not be, and reports the rest. Costs a handful of
        requests, however much was bought.

        Args:
            cancel_after: cancels numbers that were bought here, have no code, and that nobody has waited for
                in this many seconds; rentals are left alone. Default: they are only reported.
            stop: ends it between two requests when it is set.

        Returns:
            what was found and done; `findings` is empty where nothing needs a person.

        Raises:
            ServiceError: the list of orders can not be read.
        """
        seconds = None if cancel_after is None else check_seconds(cancel_after, "cancel_after")
        return self._reconciler.run(cancel_after=seconds, stop=stop)

    # -------------------------------------------------------------- orders

    def get_order(self, order_id: int | str) -> Order:
        """An order: what the ledger knows of it, else what the service says now (`GET
        …/order/<order_id>/status/`).

        Raises:
            NotFoundError: there is no such order.
        """
        return self._orders.get(check_order_id(order_id))

    def get_status(self, order_id: int | str) -> OrderStatus:
        """The status of an order now, with the SMS if one has come (`GET /api/v1/order/<order_id>/status/`).

        Raises:
            NotFoundError: there is no such order.
        """
        order_id = check_order_id(order_id)
        self._book.touch(order_id)
        return self._orders.look(order_id, patient=True)

    def cancel(self, order_id: int | str) -> OrderStatus:
        """Cancels an order for a refund (`POST /api/v1/order/<order_id>/cancel/`). Harmless where it has
        ended already.

        Returns:
            the status: cancelled, or completed with the code, which has come before.

        Raises:
            NotFoundError: there is no such order.
            NotCancellableError: the service refuses now. It stays on record as to be cancelled.
        """
        return self._orders.cancel(check_order_id(order_id))

    def release(
        self,
        order_id: int | str,
        reason: str,
        *,
        waiter: str | None = None,
        grace: float = 0.0,
        undo: bool = False,
    ) -> bool:
        """Gives an order back that nobody needs any more: cancels it if it is still pending. Never raises for
        the service.

        What can not be done now stays on record. A rental in use, an order with a code or one that another
        waiter has claimed meanwhile is left alone.

        Args:
            order_id: the order.
            reason: why, for people.
            waiter: who gives it up, as named to `wait_for_otp`; `None` for somebody who decides for all.
            grace: seconds between putting it on record and looking, for a new waiter to come forward.
            undo: whether the purchase itself is undone: then an active rental is cancelled too, as long as no
                SMS has come.

        Returns:
            whether the order is cancelled.
        """
        return self._orders.release(check_order_id(order_id), reason, waiter=waiter, grace=grace, undo=undo)

    def plan_release(
        self, order_id: int | str, reason: str, *, waiter: str | None = None, patience: float
    ) -> bool:
        """Puts on record that an order is to be cancelled in a while, unless somebody claims it until then.

        Args:
            order_id: the order.
            reason: why, for people.
            waiter: who gives it up; `None` for somebody who decides for all.
            patience: seconds.

        Returns:
            whether it is on record: `False` where another waiter has the order, or its code was handed out.
        """
        order_id = check_order_id(order_id)
        return self._book.ask_release(
            order_id, reason, waiter=waiter, patience=check_seconds(patience, "patience"), is_planned=True
        )

    @contextmanager
    def rented_number(
        self,
        product: str,
        *,
        service: int | str | None = None,
        country: int | str | None = None,
        area_code: str | int | None = None,
        duration: int | None = None,
        plan: str | None = None,
        max_price: Decimal | float | str | None = None,
        daily_budget: Decimal | float | str | None = None,
        run_budget: Decimal | float | str | None = None,
        key: int | str | None = None,
    ) -> Iterator[RentedNumber]:
        """Orders a number for a `with` block and releases it at the end unless its code was used; takes what
        `order` takes.

        Yields:
            the number: `phone`, `order`, and `wait_for_otp`.
        """
        order = self.order(
            product,
            service=service,
            country=country,
            area_code=area_code,
            duration=duration,
            plan=plan,
            max_price=max_price,
            daily_budget=daily_budget,
            run_budget=run_budget,
            key=key,
        )
        try:
            yield RentedNumber(self, order)
        finally:
            if not self._book.was_used(order.order_id):
                self.release(order.order_id, "its code was not used", undo=order.product != "esim")

    # -------------------------------------------------------------- waiting

    def wait_for_otp(
        self,
        order_id: int | str,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        cancel_on_timeout: bool = True,
        after: Message | datetime | str | None = None,
        sender: str | None = None,
        pattern: str | re.Pattern[str] | None = None,
        stop: threading.Event | None = None,
        waiter: str | None = None,
    ) -> Message:
        """Waits for an SMS of an order, the newest that fits. All who wait on the account share one poll.

        Args:
            order_id: the order.
            timeout: seconds.
            cancel_on_timeout: whether an order that is still pending then is cancelled for a refund. One for
                which any SMS has come is not, also where that was not the one waited for: nothing comes back.
            after: waits for an SMS that comes later than this one (a `Message`), or than a time: an aware
                datetime, or that in ISO 8601, such as a message's `received_at`. Without it, a rental that
                has had an SMS before gives that one again.
            sender: waits for an SMS from this sender: a name, whatever its capitals, or a number, however it
                is written. Only callbacks tell the sender: a message that is known from the order's status
                alone never passes.
            pattern: waits for an SMS whose text this regular expression finds something in: its first group,
                else the whole match, is the code. It is searched in the text without invisible marks and with
                ASCII digits; in the code, where the service shows no text.
            stop: ends the wait when it is set.
            waiter: names who waits, for `release`; random by default.

        Returns:
            the message; `otp` is `None` where its text holds no code that can be read with certainty.

        Raises:
            InvalidRequestError: a parameter is malformed; `field` names it.
            WaitTimeoutError: nothing that fits came in time; `cancelled` says whether the order was
                cancelled.
            OrderEndedError: the order was cancelled, expired or completed without a message that fits.
            WaitStoppedError: `stop` was set.
            AuthenticationError: the service refuses the key.
            NotFoundError: there is no such order.
        """
        wanted = MessageFilter.check(after=after, sender=sender, pattern=pattern)
        wait = self._start_waiting(order_id, timeout, wanted, stop, waiter)
        try:
            message = wait.future.result()
        except WaitTimeoutError as error:
            return self._after_timeout(wait, error, cancel_on_timeout=cancel_on_timeout)
        finally:
            wait.future.cancel()
        self._book.used(wait.order_id)
        return message

    async def await_otp(
        self,
        order_id: int | str,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        cancel_on_timeout: bool = True,
        after: Message | datetime | str | None = None,
        sender: str | None = None,
        pattern: str | re.Pattern[str] | None = None,
        stop: threading.Event | None = None,
        waiter: str | None = None,
    ) -> Message:
        """`wait_for_otp` for an event loop, which is never blocked; a wait holds no thread."""
        wanted = MessageFilter.check(after=after, sender=sender, pattern=pattern)
        wait = await asyncio.to_thread(self._start_waiting, order_id, timeout, wanted, stop, waiter)
        try:
            message = await asyncio.wrap_future(wait.future)
        except WaitTimeoutError as error:
            return await asyncio.to_thread(
                self._after_timeout, wait, error, cancel_on_timeout=cancel_on_timeout
            )
        finally:
            wait.future.cancel()
        await asyncio.to_thread(self._book.used, wait.order_id)
        return message

    def check_otp(
        self,
        order_id: int | str,
        *,
        ask: bool = True,
        after: Message | datetime | str | None = None,
        sender: str | None = None,
        pattern: str | re.Pattern[str] | None = None,
    ) -> Message | None:
        """Looks once for an SMS of an order, without waiting: into the inbox, else at the service.

        Args:
            order_id: the order.
            ask: whether the service is asked where the inbox has nothing, which costs a request.
            after, sender, pattern: which SMS, as for `wait_for_otp`.

        Returns:
            the message, or `None` while there is none that fits.

        Raises:
            InvalidRequestError: a parameter is malformed; `field` names it.
            OrderEndedError: the order was cancelled or has expired, or had another SMS and has ended.
            NotFoundError: there is no such order.
        """
        order_id = check_order_id(order_id)
        wanted = MessageFilter.check(after=after, sender=sender, pattern=pattern)
        message = self._inbox.find(order_id, wanted)
        if message is None and ask:
            self._book.touch(order_id)
            message = self._ask_for_otp(order_id, wanted)
        if message is not None:
            self._book.used(order_id)
        return message

    def _ask_for_otp(self, order_id: int, wanted: MessageFilter) -> Message | None:
        try:
            status = self._orders.look(order_id)
        except NotFoundError:
            if self._orders.is_fresh(order_id):
                return None
            raise
        there = self._inbox.all_of([order_id]).get(order_id, [])
        message = wanted.first(there)
        if message is not None or not status.ended:
            return message
        if there and not wanted.may_still_pass(there):
            raise OrderEndedError(
                f"order {order_id} is {status.status}, and not the message that was asked for has come, but "
                "another",
                order_id=order_id,
                status=status.status,
            )
        # A completed order without its code may show it at the next look.
        if not status.arrived and status.status.strip().lower() != "completed":
            raise OrderEndedError(
                f"order {order_id} is {status.status}, and no code has come",
                order_id=order_id,
                status=status.status,
            )
        return None

    # -------------------------------------------------------------- reading all messages

    def follow_messages(
        self, reader: str, *, order_ids: int | str | Iterable[int | str] | None = None
    ) -> Follow:
        """Starts to read all messages as they come, each of them once, whoever learns of them.

        Callbacks bring them at once. Without any, the service is asked for the rentals that are followed
        (`GET …/order/<order_id>/status/`), for each about three times a minute; a status shows only the
        newest SMS.

        Args:
            reader: names who reads, within the namespace of the settings. Under this name is kept how far; a
                new one begins with what comes from now on. One at a time reads: a second one waits until the
                first has ended.
            order_ids: one order or several; default: all of the account.

        Returns:
            what the messages are read from: `next()` is a future of the next ones, each with its id,
            `advance(message_id)` says that all up to one are dealt with, `close()` ends it. After a restart
            everything comes again that `advance` was not called for.
        """
        name = check_key(f"{self.settings.namespace}:{check_key(reader, 'reader')}", "reader")
        if order_ids is None:
            return self._watch.follow(name, None)
        several = [order_ids] if isinstance(order_ids, (int, str)) else order_ids
        return self._watch.follow(name, frozenset(check_order_id(order_id) for order_id in several))

    def get_message(self, message_id: int | str) -> Message:
        """A message by the id under which it was announced.

        Raises:
            NotFoundError: there is none, or its text has been purged.
        """
        message = self._inbox.get(check_order_id(message_id, "message_id"))
        if message is None:
            raise NotFoundError(f"there is no message {message_id}, or its text has been purged")
        return message

    def assign_messages(
        self, message_ids: Iterable[int | str], *, handler: str, run: str
    ) -> list[tuple[int, Message]]:
        """Gives messages to one run of what handles them: for who may be told of a message more than once.

        Args:
            message_ids: the messages that the run was told of.
            handler: names what handles them, the same in all of its runs.
            run: names the run; called again for the same run, it gets the same messages again.

        Returns:
            those of them that no other run of the handler has, each with its id, the oldest first; those
            whose text has been purged are left out.
        """
        return self._inbox.assign(
            [check_order_id(message_id, "message_id") for message_id in message_ids],
            handler=check_key(handler, "handler"),
            run=check_key(run, "run"),
        )

    # -------------------------------------------------------------- waiting, inside

    def claim(self, order_id: int | str, waiter: str) -> None:
        """Says who waits for an order from now on, so that an earlier waiter does not give it back."""
        self._book.claim(check_order_id(order_id), waiter)

    def _start_waiting(
        self,
        order_id: int | str,
        timeout: float,
        wanted: MessageFilter,
        stop: threading.Event | None,
        waiter: str | None,
    ) -> Wait:
        order_id = check_order_id(order_id)
        seconds = check_seconds(timeout, "timeout")
        log.info("Waiting up to %.0f s for the code of order %d", seconds, order_id)
        if wanted.sender is not None and not self._inbox.has_callbacks():
            log.warning(
                "Order %d is waited for by its sender, which only callbacks tell, and none has come for this "
                "account yet",
                order_id,
            )
        return self._watch.add(order_id, seconds, wanted=wanted, stop=stop, waiter=waiter)

    def _after_timeout(self, wait: Wait, error: WaitTimeoutError, *, cancel_on_timeout: bool) -> Message:
        """Gives the order back. A code that came at the last moment is handed out after all."""
        if cancel_on_timeout:
            error.cancelled = self._orders.release(
                wait.order_id, "no code came in time", waiter=wait.waiter, stop=wait.stop
            )
        late = self._inbox.find(wait.order_id, wait.wanted)
        if late is None and not error.cancelled:
            # Left to somebody else, or to nobody: it may have come since it was last asked for.
            with contextlib.suppress(SmsVerifyError):
                self._orders.look(wait.order_id, priority=Priority.RELEASE, stop=wait.stop, hasty=True)
            late = self._inbox.find(wait.order_id, wait.wanted)
        if late is None:
            raise self._with_what_came(error, wait)
        self._book.used(wait.order_id)
        return late

    def _with_what_came(self, error: WaitTimeoutError, wait: Wait) -> WaitTimeoutError:
        """The time-out of a wait, which says so where an SMS has come that was not asked for."""
        others = [] if wait.wanted.is_open else self._inbox.all_of([wait.order_id]).get(wait.order_id, [])
        if not others:
            return error
        text = f"the message that was asked for did not arrive for order {wait.order_id} in time, but another"
        if wait.wanted.sender is not None and any(other.sender is None for other in others):
            text += ", whose sender is not known: only callbacks tell it"
        return WaitTimeoutError(text, order_id=wait.order_id, cancelled=error.cancelled)


@dataclass
class RentedNumber:
    """A number inside `SmsVerifyHook.rented_number`.

    Attributes:
        order: the order.
    """

    _hook: SmsVerifyHook = field(repr=False)
    order: Order

    @property
    def order_id(self) -> int:
        """The order's id."""
        return self.order.order_id

    @property
    def phone(self) -> str | None:
        """The number as the service writes it."""
        return self.order.phone

    def wait_for_otp(self, timeout: float = DEFAULT_TIMEOUT, **options: Any) -> Message:
        """`SmsVerifyHook.wait_for_otp` for this number."""
        return self._hook.wait_for_otp(self.order.order_id, timeout, **options)

    async def await_otp(
        self,
        timeout: float = DEFAULT_TIMEOUT,
        **options: Any,
    ) -> Message:
        """`SmsVerifyHook.await_otp` for this number."""
        return await self._hook.await_otp(self.order.order_id, timeout, **options)
