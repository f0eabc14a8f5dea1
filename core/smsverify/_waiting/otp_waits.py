"""The code of one order, for one caller: looked for once, or waited for until a time-out gives it back."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from smsverify._messages.filters import MessageFilter
from smsverify._messages.inbox import Inbox
from smsverify._orders.orders import Orders
from smsverify._orders.wording import arrival, end_of_wait, named, refund
from smsverify._runtime.loop_threads import LoopThreads, wait_threads
from smsverify._runtime.tasks import Task
from smsverify._runtime.threads import result_of
from smsverify._service.rate_limit import Priority
from smsverify._waiting.ends import ended_with_other_sms, ended_without_code
from smsverify.checks import check_stop, check_switch, check_waiter
from smsverify.errors import NO_CODE, ORDER_ANOTHER, NotFoundError, SmsVerifyError, WaitTimeoutError
from smsverify.metrics import TIMEOUTS, Meter
from smsverify.models import Message
from smsverify.options import MessageOptions
from smsverify.text import log_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from smsverify._waiting.waiter import Wait, Waiter

log = log_of(__name__)

# Apart from the threads of waits, because a release asks the service, and takes long.
_releases = LoopThreads(8, "smsverify-loop-release")


class OtpWaits:
    """Looks for codes, and waits for them.

    Args:
        orders: of the account.
        inbox: the messages that have come.
        waiter: gives the waiter that all waits of this process share; another one after a fork.
        task: gives the task that waits, for people.
        meter: counts the waits that end without a code.
    """

    def __init__(
        self,
        orders: Orders,
        inbox: Inbox,
        waiter: Callable[[], Waiter],
        task: Callable[[], Task | None] = lambda: None,
        *,
        meter: Meter | None = None,
    ) -> None:
        self._meter = meter or Meter()
        self._task = task
        self._orders = orders
        self._inbox = inbox
        self._waiter = waiter

    def look(self, order_id: int, wanted: MessageFilter, *, ask: bool) -> Message | None:
        """Looks once; see `SmsVerifyHook.check_otp`."""
        message = self._inbox.find(order_id, wanted)
        if message is None and check_switch(ask, "ask"):
            self._orders.handover.touch(order_id)
            message = self._ask(order_id, wanted)
        if message is not None and not self._orders.handover.was_used(order_id):
            return self._handed_out(order_id, message)
        return message

    def wait(
        self,
        order_id: int,
        seconds: float,
        *,
        cancel_on_timeout: bool = True,
        stop: threading.Event | None = None,
        waiter: str | None = None,
        **wanted: Unpack[MessageOptions],
    ) -> Message:
        """Waits in this thread; see `SmsVerifyHook.wait_for_otp`."""
        wanted_message, stop, waiter = MessageFilter.check(**wanted), check_stop(stop), check_waiter(waiter)
        check_switch(cancel_on_timeout, "cancel_on_timeout")
        wait = self._begin(order_id, seconds, wanted_message, stop, waiter, cancels=cancel_on_timeout)
        try:
            message = result_of(wait.future)
        except WaitTimeoutError as error:
            return self._after_timeout(wait, error.__cause__, cancels=cancel_on_timeout)
        finally:
            wait.future.cancel()
        return self._handed_out(order_id, message)

    async def wait_in_loop(
        self,
        order_id: int,
        seconds: float,
        *,
        cancel_on_timeout: bool = True,
        stop: threading.Event | None = None,
        waiter: str | None = None,
        **wanted: Unpack[MessageOptions],
    ) -> Message:
        """Waits in an event loop, which is never blocked; the wait holds no thread."""
        wanted_message, stop, waiter = MessageFilter.check(**wanted), check_stop(stop), check_waiter(waiter)
        check_switch(cancel_on_timeout, "cancel_on_timeout")
        begun: list[Wait] = []
        is_left = threading.Event()

        def begin() -> None:
            begun.append(
                self._begin(order_id, seconds, wanted_message, stop, waiter, cancels=cancel_on_timeout)
            )
            if is_left.is_set():
                begun[0].future.cancel()

        try:
            await wait_threads.run(begin)
        except asyncio.CancelledError:
            # The thread goes on, and what it begins would last until the deadline.
            is_left.set()
            for wait in begun:
                wait.future.cancel()
            raise
        (wait,) = begun
        try:
            message = await asyncio.wrap_future(wait.future)
        except WaitTimeoutError as error:
            after = partial(self._after_timeout, wait, error.__cause__, cancels=cancel_on_timeout)
            return await _releases.run_to_end(after)
        finally:
            wait.future.cancel()
        return await wait_threads.run(partial(self._handed_out, order_id, message))

    def _begin(
        self,
        order_id: int,
        seconds: float,
        wanted: MessageFilter,
        stop: threading.Event | None,
        waiter: str | None,
        *,
        cancels: bool,
    ) -> Wait:
        self._orders.handover.refer_to(order_id)
        self.log_wait(order_id, seconds)
        if wanted.sender is not None and not self._inbox.has_callbacks():
            log.warning(
                "The wait for order %d filters by sender. Only callbacks carry the sender, and this account "
                "has received none yet",
                order_id,
            )
        task = self._task()
        return self._waiter().add(
            order_id, seconds, wanted=wanted, stop=stop, waiter=waiter, cancels=cancels, task=task
        )

    def _ask(self, order_id: int, wanted: MessageFilter) -> Message | None:
        try:
            status = self._orders.status.read(order_id)
        except NotFoundError:
            if self._orders.status.is_fresh(order_id):
                return None
            raise
        there = self._inbox.all_of([order_id]).get(order_id, [])
        message = wanted.first(there)
        if message is not None or not self._orders.status.gets_no_more(status):
            return message
        if there and not wanted.may_still_pass(there):
            raise ended_with_other_sms(order_id, status.status)
        # A completed order without its code may show it at the next look.
        if not status.arrived and status.status != "completed":
            raise ended_without_code(order_id, status.status)
        return None

    def log_wait(self, order_id: int, seconds: float) -> None:
        """Logs that a wait begins, for which number, and until when."""
        order = self._orders.records.get(order_id)
        log.info("Waiting for %s until %s", named(order_id, order), end_of_wait(seconds))

    def missing_code(self, order_id: int, *, is_cancelled: bool, wanted: MessageFilter) -> str:
        """Counts a wait that got no SMS in time, and says whether another one came, and what became of the
        order.
        """
        order = self._orders.records.get(order_id)
        self._meter.count(
            TIMEOUTS, product=order.product if order else None, service=order.service if order else None
        )
        what, but = self._what_came(order_id, wanted)
        end = f"it is cancelled{refund(order)}. {ORDER_ANOTHER}"
        if not is_cancelled:
            end = "it is not cancelled. Wait again, or cancel it"
        return f"{what} for {named(order_id, order)}{but}: {end}"

    def _what_came(self, order_id: int, wanted: MessageFilter) -> tuple[str, str]:
        """What came of a wait that got no SMS in time, and what there is to say besides; may be empty."""
        others = [] if wanted.is_open else self._inbox.all_of([order_id]).get(order_id, [])
        if not others:
            return NO_CODE, ""
        but = ", but not the message that was asked for"
        if wanted.sender is not None and any(other.sender is None for other in others):
            but += " (its sender is not known: only callbacks carry it)"
        return "another SMS came", but

    def _handed_out(self, order_id: int, message: Message) -> Message:
        """Notes that a caller has the message."""
        what = "The code" if message.otp is not None else "An SMS without a code that can be read"
        order = self._orders.records.get(order_id)
        log.info("%s for order %d %s", what, order_id, arrival(order, message))
        self._orders.handover.note_use(order_id)
        return message

    def _after_timeout(self, wait: Wait, trouble: BaseException | None, *, cancels: bool) -> Message:
        """Releases the order. A code that came at the last moment is handed out after all.

        Args:
            wait: which is over.
            trouble: why the order's status could not be read at last; `None` where it could.
            cancels: whether the order is cancelled.
        """
        # A block of this process may have the number, and a newer call elsewhere may have got it since.
        holder = self._orders.handover.holder_here(wait.order_id)
        is_cancelled = cancels and self._orders.cancelling.release(
            wait.order_id, NO_CODE, waiter=wait.waiter, holder=holder, stop=wait.stop
        )
        late = self._inbox.find(wait.order_id, wait.wanted)
        if late is None and not is_cancelled:
            # The order stays, and its code may have come since the last request.
            with contextlib.suppress(SmsVerifyError):
                self._orders.status.read(wait.order_id, priority=Priority.RELEASE, stop=wait.stop, hasty=True)
            late = self._inbox.find(wait.order_id, wait.wanted)
        if late is not None:
            return self._handed_out(wait.order_id, late)
        why = "" if trouble is None else f". Its status could not be read at last: {trouble}"
        raise WaitTimeoutError(
            self.missing_code(wait.order_id, is_cancelled=is_cancelled, wanted=wait.wanted) + why,
            order_id=wait.order_id,
            cancelled=is_cancelled,
            reason="".join(self._what_came(wait.order_id, wait.wanted)) + why,
        ) from trouble
