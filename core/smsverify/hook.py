"""`SmsVerifyHook`: the face that both wings, the command line and plain Python use."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from smsverify._messages.filters import MessageFilter
from smsverify._parts import Parts
from smsverify._purchases.run_context import RunContext
from smsverify._runtime.properties import cached_property
from smsverify._waiting.subscriptions import Subscription
from smsverify.account import AccountView
from smsverify.checks import (
    check_action,
    check_key,
    check_order_id,
    check_order_ids,
    check_reason,
    check_result,
    check_seconds,
    check_stop,
    check_switch,
    check_waiter,
)
from smsverify.errors import NotFoundError
from smsverify.models import Message, Order, OrderStatus, Rental
from smsverify.numbers import ATTEMPT_TIMEOUT, DEFAULT_TIMEOUT, Attempt, RentedNumber, attempts_in
from smsverify.options import (
    AttemptOptions,
    KeepOptions,
    MessageOptions,
    OrderIds,
    PurchaseOptions,
    RenewalOptions,
    WaitOptions,
)
from smsverify.settings import Settings
from smsverify.verification import Verification

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from smsverify.reports import Reconciliation, RentalsReport

__all__ = ["SmsVerifyHook", "Subscription"]


class SmsVerifyHook(AccountView):
    """The service, with authentication, the shared rate limit, retries and a ledger of what was bought.

    Nothing is connected before the first call. Safe to use from several threads, and after a fork.

    Args:
        api_key: the service's API key.
        base_url: the service's address.
        store_url: SQLAlchemy URL of the store, the same for all who use the account.
        rate_limit: requests that the service allows in `rate_period`.
        rate_period: seconds.
        run_context: the run that purchases are made in, which the integration with a framework gives.
        **settings: any other of `smsverify.settings.Settings`.

    What is not given comes from the environment (`SMSVERIFY_API_KEY`, …), otherwise it has its default. Every
    method raises `InvalidRequestError` for a setting or an argument that is not allowed, `StoreError` if
    the store cannot be used, and a `ServiceError` for what the service answers, such as `NotFoundError`.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        store_url: str | None = None,
        rate_limit: int | None = None,
        rate_period: float | None = None,
        run_context: RunContext | None = None,
        **settings: Any,
    ) -> None:
        self._run_context = run_context or RunContext()
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

    @cached_property
    def settings(self) -> Settings:
        """The settings, checked. Raises `InvalidRequestError`, which names the setting."""
        return Settings.load(self._given)

    @cached_property
    def _parts(self) -> Parts:
        return Parts(self.settings, self._run_context)

    def _named(self, order_id: int | str) -> int:
        """Checks the id of an order, and records that the caller has that order."""
        checked = check_order_id(order_id)
        self._parts.orders.handover.refer_to(checked)
        return checked

    # -------------------------------------------------------------- buying

    def order(self, product: str, **purchase: Unpack[PurchaseOptions]) -> Order:
        """Buys a number (or an eSIM), at most once for a key (`POST /api/v1/order/<product>/`).

        Args:
            product: `temporary`, `best-temp`, `rental`, `rent-1day`, `rent-30days`, `global` or `esim`.
            **purchase: `service`, `country`, `area_code`, `duration`, `plan`, `max_price`, `run_budget`,
                `key`, `stop`: see `smsverify.options.PurchaseOptions`.

        Returns:
            the order; an eSIM's `activation_code` is in it, and can be read again with `get_order`.

        Raises:
            InvalidRequestError: a parameter is wrong; `field` names it. Nothing was bought: the request was
                not sent, or the service refused it (`status_code`).
            NotAvailableError: no such service, country or plan is in stock.
            PriceLimitError: too expensive. Nothing was sent.
            SpendingLimitError: a budget would be exceeded. Nothing was sent.
            InsufficientBalanceError: the wallet does not hold enough.
            PurchaseUnknownError: the number may or may not have been bought. The same key is safe to use.
            OrderEndedError: it was bought, but the service shows it as failed. The same key buys another.
            StoreError: the store cannot be used, or not all who use the account share it. Nothing was sent.
            PurchaseConflictError: the key stands for another purchase.
        """
        return self._parts.checkout.order(product, **purchase)

    def renew(self, order_id: int | str, **renewal: Unpack[RenewalOptions]) -> Order:
        """Extends a rental by its period at the current price, once (`POST /api/v1/order/<order_id>/renew/`).

        Calls that run at the same time for one rental make one renewal between them.

        Args:
            order_id: a `rental`, `rent-1day` or `rent-30days` order.
            **renewal: `max_price`, `run_budget`, `key`, `stop`: see `smsverify.options.RenewalOptions`.

        Returns:
            the order with its new expiry; `expires_estimated` if the service does not show it.

        Raises:
            NotFoundError: there is no such order.
            InvalidRequestError: the order is no rental, or is to be cancelled. Nothing was paid.
            SmsVerifyError: as for `order`. After a `PurchaseUnknownError`, the rental may or may not have
                been renewed, here or by another call.
        """
        return self._parts.checkout.renew(self._named(order_id), **renewal)

    def rentals(self, order_ids: OrderIds = ()) -> list[Rental]:
        """The rentals that have not ended, with their time left, and what renewing each one costs.

        Costs a request for each `rent-1day` and `rent-30days` rental, whose status alone has a time left
        (`GET …/order/<order_id>/status/`), and one for each catalogue.

        Args:
            order_ids: rentals besides those that were bought through this store, such as some rented at the
                dashboard: one id, or several.

        Returns:
            the rentals, the one that ends soonest first and those whose end is unknown last.
        """
        return self._parts.rentals.overview(check_order_ids(order_ids, "order_ids"))

    def renew_expiring(
        self, within: float | timedelta | str, **selection: Unpack[KeepOptions]
    ) -> RentalsReport:
        """Renews the rentals that end soon, once for each period (`POST /api/v1/order/<order_id>/renew/`).

        Made to be run on a schedule, several times in `within`: what is not due is left alone, and runs that
        overlap renew nothing twice. However long `within` is, no more than one period is paid ahead. The
        rental that ends soonest comes first. One that cannot be renewed never stops the others: if the
        wallet or a budget is too small for it, a cheaper one that ends later is renewed. A rental whose end
        is unknown is only named: `renew` renews it, or `exclude` leaves it out. If the service says whole
        days only, a rental counts as if the last of them were over.

        Args:
            within: seconds or a `timedelta`; a rental that ends sooner is due.
            **selection: `max_price`, `run_budget`, `order_ids`, `only`, `exclude`, `dry_run`, `stop`: see
                `smsverify.options.KeepOptions`.

        Returns:
            an entry for each rental with what was done or why not, the cost, and the wallet; `failed` are the
            rentals that are not kept, and `raise_if_failed` raises for these.
        """
        return self._parts.checkout.renew_expiring(within, **selection)

    def resolve(self, key: str, *, order_id: int | str | None) -> None:
        """Records what a person found out about a paid call whose outcome is unknown.

        Args:
            key: the call's, as `PurchaseUnknownError` and `reconcile` name it.
            order_id: the order that it has bought or renewed; the service is asked for one that is not on
                record (`GET …/order/<order_id>/status/`). `None` if the call was not carried out: then its
                key may buy again.

        Raises:
            InvalidRequestError: no such call is open, or it cannot be that order. Nothing was recorded.
        """
        self._parts.decisions.resolve(check_key(key), None if order_id is None else check_order_id(order_id))

    def resolve_refund(self, order_id: int | str) -> None:
        """Records that a person has seen the refund of a cancelled order. The wallet cannot show one that
        came together with other money, such as a deposit. Sends no request.

        Args:
            order_id: the order, as `reconcile` names it in `missing_refunds`. It counts as refunded again.

        Raises:
            InvalidRequestError: no refund of this order is missing.
        """
        self._parts.decisions.resolve_refund(check_order_id(order_id))

    # -------------------------------------------------------------- setting right

    def reconcile(
        self, *, cancel_after: float | None = None, stop: threading.Event | None = None
    ) -> Reconciliation:
        """Compares the records with the service, and corrects what it can.

        It finds out what became of paid calls whose answer was lost (`GET /api/v1/orders/`, `GET …/status/`
        of renewed rentals), tries again to cancel orders (`POST …/cancel/`), reads the wallet
        (`GET /api/v1/balance/`), and reports the rest. It costs a handful of requests.

        Args:
            cancel_after: cancels numbers that were bought here, have no code, and that no call holds or has
                waited for in this many seconds; a rental only if it was never handed over. Default: reported.
            stop: ends it between two requests when it is set.

        Returns:
            what was found and done; `findings` is empty if nothing needs a person.

        Raises:
            WaitStoppedError: `stop` was set. What was done before is on record.
        """
        seconds = None if cancel_after is None else check_seconds(cancel_after, "cancel_after")
        return self._parts.reconciler.run(cancel_after=seconds, stop=check_stop(stop))

    # -------------------------------------------------------------- orders

    def get_order(self, order_id: int | str) -> Order:
        """An order: from the ledger, otherwise from the service (`GET …/order/<order_id>/status/`).

        Args:
            order_id: the order.

        Returns:
            the order as it is on record then.

        Raises:
            NotFoundError: there is no such order.
        """
        return self._parts.orders.status.get(self._named(order_id))

    def get_status(self, order_id: int | str) -> OrderStatus:
        """The status of an order now, with its SMS if one has come (`GET …/order/<order_id>/status/`).

        Args:
            order_id: the order.

        Returns:
            the status; `otp` and `message` are `None` while no SMS has come.

        Raises:
            NotFoundError: there is no such order.
        """
        order_id = self._named(order_id)
        self._parts.orders.handover.touch(order_id)
        return self._parts.orders.status.read(order_id, patient=True)

    def cancel(self, order_id: int | str) -> OrderStatus:
        """Cancels an order for a refund (`POST /api/v1/order/<order_id>/cancel/`); one that has ended stays.

        Args:
            order_id: the order.

        Returns:
            the status: cancelled, or the end that the order had before, with its code if one has come.

        Raises:
            NotFoundError: there is no such order.
            NotCancellableError: the service refuses now. It stays on record as to be cancelled.
        """
        return self._parts.orders.cancelling.cancel(self._named(order_id))

    def release(
        self, order_id: int | str, reason: str, *, waiter: str | None = None, undo: bool = False
    ) -> bool:
        """Cancels an order that is not needed any more, if it has not ended. Never raises for the service.

        What cannot be done now stays on record. A rental in use and an order with a code are left alone. So
        is one that another waiter has claimed meanwhile, or that a newer call has got by its key.

        Args:
            order_id: the order.
            reason: why, for people.
            waiter: as named to `wait_for_otp`; `name/` stands for all that begin so, too; `None` for all.
            undo: cancels an active rental too, as long as no SMS has come.

        Returns:
            whether the order is cancelled.
        """
        order_id, waiter, undo = check_order_id(order_id), check_waiter(waiter), check_switch(undo, "undo")
        return self._parts.orders.give_back(order_id, check_reason(reason), waiter=waiter, undo=undo)

    @contextmanager
    def rented_number(self, product: str, **purchase: Unpack[PurchaseOptions]) -> Iterator[RentedNumber]:
        """Orders a number as `order` does, for a `with` block that releases it unless its code was used.

        Args:
            product: as for `order`.
            **purchase: see `smsverify.options.PurchaseOptions`.

        Returns:
            the number, which waits for its code. Its waits raise `PurchaseConflictError` from when a newer
            call with the key has it.

        Raises:
            SmsVerifyError: as for `order`; the block then does not begin.
        """
        with self._parts.checkout.rented(product, **purchase) as (order, refuse_if_taken_over):
            yield RentedNumber(self, order, _before_wait=refuse_if_taken_over)

    def attempts(
        self,
        product: str,
        *,
        attempts: int = 3,
        timeout: float = ATTEMPT_TIMEOUT,
        **purchase: Unpack[AttemptOptions],
    ) -> Iterator[Attempt]:
        """Numbers to try one after the other, until one gets its code.

        ```python
        for attempt in hook.attempts("temporary", service="WhatsApp", max_price="0.50"):
            with attempt as number:
                form.submit(number.phone)
                code = number.wait_for_otp()
        ```

        A block without an error ends the attempts. A wait in it that brings no code gives the number back,
        and the next one follows. Any other error gives the number back and is raised. Called again with the
        same key, the attempts go on where they were, with the same number while that is alive.

        Args:
            product: as for `order`, except `esim`.
            attempts: how many numbers may be tried.
            timeout: seconds that a wait in the block waits, unless it is given others.
            **purchase: see `smsverify.options.AttemptOptions`.

        Returns:
            the attempts as they are needed, each a `with` block on a number.

        Raises:
            VerificationError: nothing is left to try; it lists the attempts.
            PurchaseConflictError: a call that asks for something else, or a newer one, has the key's number.
            SmsVerifyError: as for `order`, except what is not available or too expensive. The attempts stay
                on record, and an error of the block gives its number back.
        """
        seconds = check_seconds(timeout, "timeout")
        return attempts_in(self._parts.checkout.attempts(product, attempts, **purchase), self, seconds)

    def verify(
        self,
        action: Callable[[Order], Any],
        product: str,
        *,
        attempts: int = 3,
        timeout: float = ATTEMPT_TIMEOUT,
        sender: str | None = None,
        pattern: str | re.Pattern[str] | None = None,
        **purchase: Unpack[AttemptOptions],
    ) -> Verification:
        """Tries numbers until one receives a code.

        Args:
            action: called with each number that is tried, such as to type it into a form; not a coroutine
                function, which nothing awaits here. An error of its own gives the number back, and is raised.
            product: as for `order`, except `esim`.
            attempts: how many numbers may be tried.
            timeout: seconds to wait for the code of each, from the end of `action` on.
            sender, pattern: which SMS, see `smsverify.options.MessageOptions`.
            **purchase: see `smsverify.options.AttemptOptions`.

        Returns:
            the number, its code, what all attempts cost, and what `action` has returned.

        Raises:
            VerificationError: as for `attempts`; so are the others.
            InvalidRequestError: an argument is wrong, so nothing was bought; or `action` returned a
                coroutine, which does not run: its number is given back.
        """
        which: MessageOptions = {"sender": sender, "pattern": pattern}
        check_action(action)
        MessageFilter.check(**which)
        for attempt in self.attempts(product, attempts=attempts, timeout=timeout, **purchase):
            with attempt as number:
                result = check_result(action(number.order))
                message = number.wait_for_otp(stop=purchase.get("stop"), **which)
            if attempt.is_done:
                return attempt.verification(message, result)
        raise AssertionError("attempts end with a code or an error")

    # -------------------------------------------------------------- waiting

    def wait_for_otp(
        self, order_id: int | str, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[WaitOptions]
    ) -> Message:
        """Waits for an SMS of an order, the newest that fits. All who wait on the account share one poll.

        The poll sends `GET /api/v1/orders/` and `GET /api/v1/order/<order_id>/status/`.

        Args:
            order_id: the order.
            timeout: seconds.
            **options: `cancel_on_timeout` (by default it is), `after`, `sender`, `pattern`, `stop`, `waiter`:
                see `smsverify.options.WaitOptions`.

        Returns:
            the message; `otp` is `None` if its text holds no code that can be read with certainty.

        Raises:
            WaitTimeoutError: nothing that fits came in time; `cancelled` says whether the order was.
            OrderEndedError: the order was cancelled, expired or completed without a message that fits.
            WaitStoppedError: `stop` was set.
        """
        order_id, seconds = check_order_id(order_id), check_seconds(timeout, "timeout")
        return self._parts.otp_waits.wait(order_id, seconds, **options)

    async def await_otp(
        self, order_id: int | str, timeout: float = DEFAULT_TIMEOUT, **options: Unpack[WaitOptions]
    ) -> Message:
        """`wait_for_otp` for an event loop, which is never blocked; a wait holds no thread."""
        order_id, seconds = check_order_id(order_id), check_seconds(timeout, "timeout")
        return await self._parts.otp_waits.wait_in_loop(order_id, seconds, **options)

    def check_otp(
        self, order_id: int | str, *, ask: bool = True, **wanted: Unpack[MessageOptions]
    ) -> Message | None:
        """Looks once for an SMS of an order, without waiting: into the inbox, otherwise at the service
        (`GET …/order/<order_id>/status/`).

        Args:
            order_id: the order.
            ask: whether the service is asked if the inbox has nothing, which costs a request.
            **wanted: `after`, `sender`, `pattern`: see `smsverify.options.MessageOptions`.

        Returns:
            the message, or `None` while there is none that fits.

        Raises:
            OrderEndedError: the order was cancelled or has expired, or had another SMS and has ended.
        """
        return self._parts.otp_waits.look(self._named(order_id), MessageFilter.check(**wanted), ask=ask)

    # -------------------------------------------------------------- reading all messages

    def subscribe(
        self, consumer: str, *, order_ids: int | str | Iterable[int | str] | None = None
    ) -> Subscription:
        """Starts to read all messages as they come, each of them once.

        Callbacks bring them at once. Without callbacks, the service is asked for each rental about three
        times a minute (`GET …/order/<order_id>/status/`); a status shows only the newest SMS.

        Args:
            consumer: a name, within the namespace of the settings. The store keeps the cursor under it; a new
                one begins with what comes from now on. A second subscription of it waits for the first's end.
            order_ids: one order or several; default: all of the account.

        Returns:
            the subscription: `next()` is a future of the next messages, each with its id,
            `advance(message_id)` moves the cursor behind that one, `close()` ends it. After a restart,
            everything behind the cursor comes again. If the service refuses the key, `next()` ends with an
            `AuthenticationError`: subscribe again, with the key that there is by then.
        """
        name = check_key(f"{self.settings.namespace}:{check_key(consumer, 'consumer')}", "consumer")
        wanted = None if order_ids is None else check_order_ids(order_ids, "order_ids")
        for order_id in wanted or ():
            self._named(order_id)
        return self._parts.waiter.subscribe(name, None if wanted is None else frozenset(wanted))

    def get_message(self, message_id: int | str) -> Message:
        """A message by the id under which it was announced.

        Raises:
            NotFoundError: there is none, or its text has been purged.
        """
        message = self._parts.inbox.get(check_order_id(message_id, "message_id"))
        if message is None:
            raise NotFoundError(f"there is no message {message_id}, or its text has been purged")
        return message
