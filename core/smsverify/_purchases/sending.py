"""How a paid call leaves: at a price that is still right, and on record as sent. Failures are recorded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, Final, Generic, TypeVar

from smsverify._purchases.calls import AnswerAwaited, Intent, UnderWay
from smsverify._purchases.ledger import Ledger
from smsverify._service.catalogue import Catalogue, Quote
from smsverify._service.places import TurnIsFar
from smsverify._service.transport import NotReady, OutcomeUnknown
from smsverify.errors import (
    PriceLimitError,
    PurchaseUnknownError,
    SmsVerifyError,
    StoreError,
    WaitStoppedError,
)
from smsverify.models import Service
from smsverify.text import amount, log_of

log = log_of(__name__)

T = TypeVar("T")
Q = TypeVar("Q", bound="Quote | None")

# Seconds of the pauses before the looks for a paid call whose answer was lost, at time scale 1.
LOOKS: Final = (0.5, 2.0, 5.0)
LOOK: Final = 0.2  # seconds between two looks at a paid call that another process makes


@dataclass
class PlannedCall(Generic[Q]):
    """A paid call that may be sent.

    Attributes:
        intent: to send it, as it is on record.
        quote: what it is to cost; `None` where that is unknown and does not matter.
        duration: of a rental, in days.
        what: is paid for, for people.
    """

    intent: Intent
    quote: Q
    duration: int | None
    what: str


class Sender:
    """Sends the paid calls of an account.

    Args:
        catalogue: the prices.
        ledger: where every paid call is on record before it is sent.
        time_scale: how long the service's minute is in real minutes.
    """

    def __init__(self, catalogue: Catalogue, ledger: Ledger, *, time_scale: float) -> None:
        self._catalogue = catalogue
        self._ledger = ledger
        self._time_scale = time_scale

    def send(self, call: PlannedCall[Any], post: Callable[..., T], stop: threading.Event | None) -> T:
        """Sends a call once. If it fails, records how.

        Args:
            call: with its price, which may be another one afterwards.
            post: the request; it takes `before_sending`, `while_waiting` and `stop`.
            stop: ends the waiting for the rate limit and for the price when it is set.

        Raises:
            UnderWay: another process makes the call.
            PurchaseUnknownError: the call may have been carried out.
            SmsVerifyError: it was not.
            TurnIsFar: it was not, and comes back to its place in the queue.
        """
        with self._recording_failure(call), self._ledger.heartbeats.of(call.intent) as send_heartbeat:
            return post(
                before_sending=partial(self._before_sending, call, stop),
                while_waiting=send_heartbeat,
                stop=stop,
            )

    def wait_for_another(self, key: str, stop: threading.Event | None) -> None:
        """Waits a moment for a call that another process makes: how it ends is on record soon."""
        log.debug("%s is being sent by another process", key)
        if (stop or threading.Event()).wait(LOOK):
            raise WaitStoppedError(
                f"this call was stopped while another process was sending {key}. This call sent nothing. "
                "Call again with the same key to get the outcome"
            )

    def pauses(self, stop: threading.Event | None, seconds: Sequence[float] = LOOKS) -> Iterator[float]:
        """The pauses before the looks for what has become of a call, each after it is over.

        Args:
            stop: ends them when it is set.
            seconds: how long each one is, at time scale 1.
        """
        for pause in seconds:
            if (stop or threading.Event()).wait(pause * self._time_scale):
                return
            yield pause

    # -------------------------------------------------------------- inside

    def _before_sending(self, call: PlannedCall[Any], stop: threading.Event | None) -> None:
        """Raises where the call may not leave.

        It may have waited long for its turn. So where its price matters, the price is checked again: if the
        list is too old, the slot goes back, one waiting caller reads the list for all, and the call has its
        turn again at its old place in the queue. Then the ledger records that it leaves.
        """
        if stop is not None and stop.is_set():
            raise WaitStoppedError("the call was stopped before it was sent. Nothing was sent: call it again")
        if call.quote is not None and call.intent.purchase.caps.is_set:
            now = self._catalogue.kept(call.quote)
            if now is None:
                read_anew = partial(self._read_anew, call, call.quote, stop)
                raise NotReady(read_anew, "its price was too old and had to be read again")
            self._reprice(call, call.quote, now)
        try:
            call.intent = self._ledger.mark_sent(call.intent)
        except AnswerAwaited:
            raise NotReady(partial(_let_pass, stop), "the answer to an earlier call was awaited") from None

    def _read_anew(self, call: PlannedCall[Any], quote: Quote, stop: threading.Event | None) -> None:
        self._ledger.keep_planned(call.intent)
        self._catalogue.refresh(quote, stop=stop)
        self._ledger.keep_planned(call.intent)

    def _reprice(self, call: PlannedCall[Any], before: Quote, now: Quote) -> None:
        price, highest = prices(now.entry, call.duration)
        check_price(highest, call.intent.purchase.caps.price, call.what)
        if (price, highest) != prices(before.entry, call.duration):
            log.info("The price of %s has changed: %s USD", call.what, price)
            call.intent = self._ledger.reprice(call.intent, price, highest)
        call.quote = now

    @contextmanager
    def _recording_failure(self, call: PlannedCall[Any]) -> Iterator[None]:
        """Records how a paid call failed. Without proof that it was not carried out, it may have been."""
        try:
            yield
        except OutcomeUnknown as unknown:
            key = call.intent.key
            failure = self._record(self._ledger.record_unknown, call.intent, unknown.cause)
            what_next = (
                f"It is on record as {key} and is not sent again. Call again with the same key to find out"
                if failure is None
                else f"This could not be recorded: {failure}. "
                + after_trouble("find out", "look for it in the dashboard first")
            )
            raise PurchaseUnknownError(
                f"{unknown.cause}. Whether the call was carried out is unknown. {what_next}", key=key
            ) from unknown.cause
        except (SmsVerifyError, TurnIsFar, UnderWay) as error:
            self._record(self._ledger.record_rejected, call.intent, error)
            raise

    def _record(
        self, record: Callable[[Intent, str], None], intent: Intent, error: Exception
    ) -> StoreError | None:
        """Records how a call failed; returns why that could not be done."""
        try:
            record(intent, str(error))
        except StoreError as failure:
            # The row stays at `sent`, which means unknown; the caller has to get the outcome.
            log.error("The outcome of %s could not be recorded: %s", intent.key, failure)
            return failure
        return None


def _let_pass(stop: threading.Event | None) -> None:
    (stop or threading.Event()).wait(LOOK)


@contextmanager
def recording(intent: Intent, order_id: int, done: str, *, purpose: str, otherwise: str) -> Iterator[None]:
    """Says what to do where a `with` block cannot record a paid call that was carried out.

    Args:
        intent: of the call.
        order_id: what it has bought or renewed.
        done: `bought` or `renewed`.
        purpose, otherwise: as in `after_trouble`.

    Raises:
        PurchaseUnknownError: the store has not taken it.
    """
    try:
        yield
    except StoreError as error:
        raise PurchaseUnknownError(
            f"order {order_id} was {done}, but that could not be recorded: {error}. "
            + after_trouble(purpose, otherwise),
            key=intent.key,
            order_ids=(order_id,),
        ) from error


def after_trouble(purpose: str, otherwise: str) -> str:
    """What to do after a call whose outcome could not be recorded, for people.

    Args:
        purpose: why to call again.
        otherwise: what to do where its key is lost.
    """
    return (
        f"It is not sent again. As soon as the store works again, call again with the same key to {purpose}. "
        "But if the store has lost this call (a replica took over, a backup was put back, or its file was "
        f"replaced), the same key would pay a second time: {otherwise}"
    )


def prices(entry: Service, duration: int | None) -> tuple[Decimal | None, Decimal | None]:
    """What a line of the catalogue costs, and the larger of two stated prices, which limits hold for."""
    return entry.price_of(duration), entry.highest_price_of(duration)


def check_price(price: Decimal | None, limit: Decimal | None, what: str) -> None:
    """Raises `PriceLimitError` where a price is higher than a limit, or unknown."""
    if limit is None:
        return
    if price is None:
        raise PriceLimitError(
            f"the price of {what} is unknown, so max_price={amount(limit)} cannot be checked. "
            "Nothing was sent"
        )
    if price > limit:
        raise PriceLimitError(
            f"{what} costs {amount(price)} USD, more than max_price={amount(limit)}. Nothing was sent"
        )
