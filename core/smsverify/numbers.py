"""A number while it is used: its phone, and the wait for its code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from smsverify._runtime.loop_threads import wait_threads
from smsverify.errors import InvalidRequestError, OrderEndedError, StoreError, WaitTimeoutError
from smsverify.models import Message, Order
from smsverify.options import WaitOptions
from smsverify.text import log_of
from smsverify.verification import Verification

if TYPE_CHECKING:
    from typing_extensions import Unpack

log = log_of(__name__)

DEFAULT_TIMEOUT = 600.0  # seconds to wait for a code; the service's short-term numbers live about as long
ATTEMPT_TIMEOUT = 120.0  # seconds for one of several attempts; most codes come within a minute


class _Waits(Protocol):
    """What a number needs of the hook."""

    def wait_for_otp(
        self, order_id: int | str, timeout: float = ..., **options: Unpack[WaitOptions]
    ) -> Message: ...

    async def await_otp(
        self, order_id: int | str, timeout: float = ..., **options: Unpack[WaitOptions]
    ) -> Message: ...


@dataclass
class RentedNumber:
    """A number inside `SmsVerifyHook.rented_number` or `SmsVerifyHook.attempts`.

    Attributes:
        order: the order.
        timeout: seconds to wait for its code if a wait is given none.
    """

    _hook: _Waits = field(repr=False)
    order: Order
    timeout: float = DEFAULT_TIMEOUT
    _before_wait: Callable[[int], None] | None = field(default=None, repr=False)

    @property
    def order_id(self) -> int:
        """The order's id."""
        return self.order.order_id

    @property
    def phone(self) -> str | None:
        """The number as the service writes it."""
        return self.order.phone

    def wait_for_otp(self, timeout: float | None = None, **options: Unpack[WaitOptions]) -> Message:
        """`SmsVerifyHook.wait_for_otp` for this number."""
        if self._before_wait is not None:
            self._before_wait(self.order_id)
        return self._hook.wait_for_otp(self.order_id, self._or_own(timeout), **options)

    async def await_otp(self, timeout: float | None = None, **options: Unpack[WaitOptions]) -> Message:
        """`SmsVerifyHook.await_otp` for this number."""
        if self._before_wait is not None:
            await wait_threads.run(partial(self._before_wait, self.order_id))
        return await self._hook.await_otp(self.order_id, self._or_own(timeout), **options)

    def _or_own(self, timeout: float | None) -> float:
        return self.timeout if timeout is None else timeout


class _Series(Protocol):
    """What an attempt needs of its series."""

    def next_number(self) -> Order: ...

    def refuse_if_taken_over(self, order_id: int) -> None: ...

    def succeed(self, order: Order) -> None: ...

    def fail(self, order: Order, outcome: str, why: str) -> None: ...

    def give_up(self, order: Order, why: str) -> None: ...

    def verification(self, order: Order, message: Message, result: Any) -> Verification: ...


@contextmanager
def errors_logged(order_id: int) -> Iterator[None]:
    """Lets the error that a block has raised through, if its number cannot be given back then."""
    try:
        yield
    except StoreError as error:
        log.error(
            "Order %d is not given back, because the store cannot be used: %s. `smsverify cancel %d` gives "
            "it back, and so does the next reconciliation with `cancel_after`",
            order_id,
            error,
            order_id,
        )


@dataclass
class Attempt:
    """One number of `SmsVerifyHook.attempts`.

    As a `with` block it gives the number. A wait in it that brings no code ends the attempt, and the next
    number follows. Any other error gives the number back and is raised.
    """

    number: RentedNumber
    _series: _Series = field(repr=False)
    is_over: bool = field(default=False, init=False, repr=False)
    is_done: bool = field(default=False, init=False, repr=False)

    def __enter__(self) -> RentedNumber:
        if self.is_over:
            raise InvalidRequestError(
                f"the attempt with order {self.number.order_id} is over, so its block does not begin. An "
                "attempt ends when the iterator of `attempts` goes on, or is closed because nothing keeps "
                "it. Keep the iterator: use a `for` loop"
            )
        return self.number

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self.end(error)

    def end(self, error: BaseException | None) -> bool:
        """Ends the attempt as its block has ended; returns whether the next number is to be tried."""
        order = self.number.order
        self.is_over = True
        if error is None:
            self.is_done = True
            self._series.succeed(order)
            return False
        if isinstance(error, (WaitTimeoutError, OrderEndedError)) and error.order_id == order.order_id:
            self._series.fail(order, "no_code", error.reason)
            return True
        with errors_logged(order.order_id):
            self._series.give_up(order, f"its block has raised {type(error).__name__}")
        return False

    def verification(self, message: Message, result: Any = None) -> Verification:
        """What this attempt has brought, after its block.

        Args:
            message: the SMS with the code.
            result: what the caller wants to keep beside it.
        """
        return self._series.verification(self.number.order, message, result)


def attempts_in(opening: AbstractContextManager[_Series], hook: _Waits, timeout: float) -> Iterator[Attempt]:
    """The attempts of a series, until one is done; `VerificationError` if nothing is left to try."""
    with opening as series:
        while True:
            number = RentedNumber(hook, series.next_number(), timeout, series.refuse_if_taken_over)
            attempt = Attempt(number, series)
            try:
                yield attempt
            except GeneratorExit:  # the loop was left
                if attempt.is_done:
                    return
                if not attempt.is_over:
                    attempt.is_over = True
                    with errors_logged(attempt.number.order_id):
                        series.give_up(attempt.number.order, "its block was never entered")
                raise
            if not attempt.is_over:
                attempt.end(None)  # its block was never entered
            if attempt.is_done:
                return
