"""Numbers that are tried one after the other, until one gets its code. Each decision is on record first.

A series holds the attempts that belong together: as many numbers as one call may try. After a process has
died, the series goes on: with the same number while that is alive, otherwise with the next. When a series is
over (a code has come, or nothing is left to try), a new one follows.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

from smsverify._input.amounts import exactly
from smsverify._orders.holding import Held
from smsverify._orders.orders import Orders
from smsverify._purchases.attempt_records import AttemptRecords
from smsverify._purchases.run_context import RunContext
from smsverify.checks import OrderRequest
from smsverify.errors import (
    NotAvailableError,
    OrderEndedError,
    PriceLimitError,
    PurchaseConflictError,
    StoreError,
    VerificationError,
)
from smsverify.models import RENTALS, Message, Order
from smsverify.numbers import errors_logged
from smsverify.text import amount, log_of
from smsverify.verification import TriedNumber, Verification, summary_of

log = log_of(__name__)

LONGEST_BASE = 440  # characters of a key that leave room for the numbers of the series and of the attempt

Buy = Callable[[OrderRequest, str, str], Order]
Find = Callable[[str, str], "Order | None"]


class Series:
    """The attempts of one call.

    Args:
        records: of the attempts.
        orders: of the account.
        run: the run that the call is made in.
        buy: buys under a key, for the call with a name; buys nothing more where that key's order has ended.
        requests: what may be bought, in the order of preference.
        find: what a key has bought of something with this fingerprint; buys nothing.
        outlast: waits until a caller that is about to buy with a key shows that it lives, or counts as dead.
        confirm_refund: finds out whether an order was refunded; `None` where no limit depends on it.
        limit: how many numbers may be tried.
        max_cost: USD that all may cost together without refunds.
        key: what the keys of the purchases begin with; with it, another process goes on.
    """

    def __init__(
        self,
        records: AttemptRecords,
        orders: Orders,
        run: RunContext,
        buy: Buy,
        requests: Sequence[OrderRequest],
        *,
        find: Find,
        outlast: Callable[[str], None],
        confirm_refund: Callable[[int], None] | None,
        limit: int,
        max_cost: Decimal | None,
        key: str,
    ) -> None:
        self._records = records
        self._orders = orders
        self._run = run
        self._buy = buy
        self._find = find
        self._outlast = outlast
        self._confirm_refund = confirm_refund
        # Of equal ones, the first counts.
        self._requests = {request.fingerprint: request for request in reversed(requests)}
        self._preferred = list(dict.fromkeys(request.fingerprint for request in requests))
        self._limit = limit
        self._max_cost = max_cost
        self.key = key
        self.holder = uuid.uuid4().hex  # names this call; the newest call that has the number has the attempt
        self._row: Any = None
        self._has_tried = False  # whether this call has tried a number, or resumed an attempt
        self._held: Held | None = None

    # -------------------------------------------------------------- one number after the other

    def next_number(self) -> Order:
        """The number to try now: the one that is still tried, otherwise a new one.

        Returns:
            its order, which this process holds until the attempt is decided.

        Raises:
            VerificationError: nothing is left to try.
        """
        while True:
            self._confirm_refunds()
            row = self._row = self._open_row()
            request = self._requests.get(row.fingerprint)
            if request is None:
                self._give_up(row, "the call no longer asks for it")
                continue
            left = self._left_of_max_cost(row)
            try:
                order = self._buy(_within(request, left), row.purchase_key, self.holder)
            except OrderEndedError as error:
                self._records.decide(row, "no_code", error.reason)
            except (NotAvailableError, PriceLimitError) as error:
                if self._has_bought(row):
                    raise  # That says something of its order: nothing was to be bought.
                self._has_tried = True
                is_too_dear = isinstance(error, PriceLimitError)
                why = f"{self._about_max_cost(left, request) if is_too_dear else ''}{error}"
                log.info("Attempt %d is not possible with %s: %s", row.number, row.product, why)
                self._decide_unbought(row, "unavailable", why)
            else:
                self._has_tried = True
                self._hold(order)
                return order

    def resume(self, order_id: int, holder: str | None = None) -> Order | None:
        """The number that another process has tried, if its attempt is undecided. Sends no request.

        Args:
            order_id: the number's order.
            holder: of the call's series in that process. By default this one goes on as the newest.
        """
        rows = self._records.last_series()
        self.holder = holder or self._orders.handover.holder_of(order_id) or self.holder
        self._row = next((row for row in rows if row.order_id == order_id and row.outcome is None), None)
        self._has_tried = self._row is not None
        return None if self._row is None else self._orders.records.get(order_id)

    def refuse_if_taken_over(self, order_id: int) -> None:
        """Raises where a newer call has the number: a wait of this one would give it back at its time-out.

        Raises:
            PurchaseConflictError: nothing was sent.
        """
        if self._is_taken_over(order_id):
            raise self._taken_over(order_id)

    def has_bought(self, order_id: int) -> bool:
        """Whether an attempt under this key has bought this order. If none has, another account or namespace
        was used, or another store.
        """
        return self._records.has_bought(order_id)

    def succeed(self, order: Order, *, is_whole_task: bool = False) -> None:
        """The attempt is over: its code has come, or its number is not needed.

        In a framework, a code that has come counts when the task has ended. If its process dies before, the
        next try has the same number and code.

        Args:
            order: the number's.
            is_whole_task: nothing of the user's follows in the task, so if that fails, only the framework has
                failed. Then too, the next try has the same number and code.
        """
        handover, order_id, row = self._orders.handover, order.order_id, self._row
        try:
            is_used = handover.was_used(order_id)
            if not is_used:
                self._orders.cancelling.release(
                    order_id, "its code was not used", holder=self.holder, undo=True
                )
                if not self._is_taken_over(order_id):
                    self._records.decide(row, "code", "it was not used")
        finally:
            self.let_go()
        if is_used:
            self._run.hand_over(
                order_id,
                handover,
                self.holder,
                then=lambda: self._note_code(row, order_id),
                then_if_failed=not is_whole_task,
            )

    def give_up(self, order: Order, why: str) -> None:
        """The caller has failed. The number is given back, but kept for a further try of the run, unless its
        code was read, or it hardly lives so long: then the next number is for the further try. One that a
        newer call has stays with that.
        """
        try:
            is_used_up = order.product not in RENTALS and self._orders.handover.was_used(order.order_id)
            patience = None if is_used_up else self._run.next_try_within()
            if patience is None or not self._orders.handover.is_worth_keeping(order.order_id, patience):
                self._end(order, "given_up", why)
                return
            holder, release = self.holder, self._orders.cancelling.release
            is_kept = self._orders.releases.request(
                order.order_id, why, holder=holder, scope="unused", patience=patience, is_planned=True
            )
        finally:
            self.let_go()
        if is_kept:
            self._run.at_final_failure(lambda: release(order.order_id, why, holder=holder, undo=True))
            log.info(
                "Order %d is kept for the next try of its task, for at most %.0f s", order.order_id, patience
            )

    def fail(self, order: Order, outcome: str, why: str) -> None:
        """The attempt is over without a code: its number is given back, and stays on record until it is.

        Raises:
            PurchaseConflictError: a newer call has the number. It is not given back.
        """
        if not self._end(order, outcome, why):
            raise self._taken_over(order.order_id)

    def let_go(self) -> None:
        """This process no longer holds the number that is tried: the call that waits for its code has it."""
        if self._held is not None:
            self._held.let_go()
            self._held = None

    def verification(self, order: Order, message: Message, result: Any) -> Verification:
        """What the attempt with this order has brought."""
        tried = self.tried()
        return Verification(
            order_id=order.order_id,
            phone=order.phone,
            otp=message.otp,
            message=message.message,
            attempts=sum(one.order_id is not None for one in tried),
            cost=_cost(tried),
            result=result,
        )

    def tried(self) -> list[TriedNumber]:
        """The attempts so far, in their order."""
        return [self._as_tried(row) for row in self._records.last_series()]

    # -------------------------------------------------------------- inside

    def _note_code(self, row: Any, order_id: int) -> None:
        try:
            self._records.decide(row, "code", "its code has come")
        except StoreError as error:
            log.warning(
                "It cannot be recorded that the code of order %d has come, so the next call with its key "
                "gets the same number: %s",
                order_id,
                error,
            )

    def _hold(self, order: Order) -> None:
        """Holds the number that is tried now. An error in here gives it back: its caller never gets it."""
        try:
            self._held = self._orders.handover.hold(order.order_id, holder=self.holder, claims=True)
            tried = sum(one.order_id is not None for one in self._records.last_series())
        except BaseException as error:
            with errors_logged(order.order_id):
                self.give_up(order, f"{type(error).__name__} was raised right after its purchase")
            raise
        log.info("Attempt %d of %d: order %d, %s", tried, self._limit, order.order_id, order.phone)

    def _end(self, order: Order, outcome: str, why: str) -> bool:
        """Gives the number back and decides its attempt. Returns `False` where a newer call has both."""
        # First, so that no next number is bought before it is at least on record that this one goes back.
        try:
            is_cancelled = self._cancel(order.order_id, why)
            if not is_cancelled and self._is_taken_over(order.order_id):
                log.info("Order %d is not given back, although %s: a newer call has it", order.order_id, why)
                return False
            self._records.decide(self._row, outcome, why)
        finally:
            self.let_go()
        if not is_cancelled:  # Otherwise the cancellation has said so.
            log.info("Order %d is not refunded: %s", order.order_id, why)
        return True

    def _is_taken_over(self, order_id: int) -> bool:
        """Whether a newer call with the key has got the number of this one."""
        return self._orders.handover.is_taken_over(order_id, self.holder)

    def _taken_over(self, order_id: int) -> PurchaseConflictError:
        return PurchaseConflictError(
            f"a newer call with the key {self.key!r} tries order {order_id} now, so this one has ended. It "
            "did not cancel that order, and bought nothing more. The newer call goes on with the number; use "
            "another key for another purpose",
            key=self.key,
        )

    def _cancel(self, order_id: int, why: str) -> bool:
        """Cancels an order, unless the wait for its code has done so, or has left that on record."""
        known, release = self._orders.records.get(order_id), self._orders.releases.of(order_id)
        if known is not None and known.cancelled:
            return True
        if release is not None and not release.is_planned:
            return False
        return self._orders.cancelling.release(order_id, why, holder=self.holder, undo=True)

    def _open_row(self) -> Any:
        """The attempt that is not decided; begins one, and a series for it, where there is none."""
        rows = self._last_rows()
        if not self._has_tried and rows and self._is_over(rows):
            rows, series = [], rows[-1].series + 1
        else:
            series = rows[-1].series if rows else 1
        undecided = next((row for row in rows if row.outcome is None), None)
        if undecided is not None:
            return undecided
        if sum(row.order_id is not None for row in rows) >= self._limit:
            raise self._nothing_left("the last attempt is over: another call tries new numbers")
        left = self._still_possible(rows)
        if not left:
            raise self._nothing_left(
                "nothing else can be bought: allow a higher price, or give other alternatives"
            )
        if self._max_cost is not None and self._max_cost <= self._spent(rows):
            raise self._nothing_left(f"max_cost={amount(self._max_cost)} leaves nothing to spend: raise it")
        self._has_tried = True
        self._records.begin(series, len(rows) + 1, left[0])
        return self._records.last_series()[-1]

    def _last_rows(self) -> list[Any]:
        """The newest series. An attempt whose code has come is decided now if no further try can go on with
        it: this call is in the same task, or the code came long ago.
        """
        rows, handover = self._records.last_series(), self._orders.handover
        undecided = next((row for row in rows if row.outcome is None and row.order_id), None)
        if undecided is None or self._has_tried or not handover.was_used(undecided.order_id):
            return rows
        handover.end_here(undecided.order_id)
        if handover.was_used_long_ago(undecided.order_id):
            self._note_code(undecided, undecided.order_id)
        return self._records.last_series()

    def _is_over(self, rows: Sequence[Any]) -> bool:
        """Whether an earlier call has ended a series."""
        if any(row.outcome is None for row in rows):
            return False
        is_exhausted = sum(row.order_id is not None for row in rows) >= self._limit
        # Of what is still possible, a call that has died was about to buy the next.
        return is_exhausted or rows[-1].outcome == "code" or not self._still_possible(rows)

    def _has_bought(self, row: Any) -> bool:
        """Whether an attempt has an order by now."""
        return any(one.number == row.number and one.order_id for one in self._records.last_series())

    def _still_possible(self, rows: Sequence[Any]) -> list[OrderRequest]:
        """What may be bought next, in the order of preference."""
        unavailable = {row.fingerprint for row in rows if row.outcome == "unavailable"}
        return [self._requests[one] for one in self._preferred if one not in unavailable]

    def _confirm_refunds(self) -> None:
        """Finds out what has come back of cancelled orders, where a limit depends on it."""
        rows = self._records.last_series()
        if self._confirm_refund is None or not rows or (not self._has_tried and self._is_over(rows)):
            return
        for tried in map(self._as_tried, rows):
            if tried.order_id is None or not tried.refunded:
                continue
            if self._orders.records.refund_of(tried.order_id) is None:
                self._confirm_refund(tried.order_id)

    def _give_up(self, row: Any, why: str) -> None:
        """Ends an attempt whose alternative has gone. What it has bought is found out first."""
        order = self._find(row.purchase_key, row.fingerprint)
        if order is None:
            self._decide_unbought(row, "given_up", why)
            return
        self._refuse_to_interfere(order.order_id)
        self._orders.cancelling.release(order.order_id, why, undo=True)
        self._records.decide(row, "given_up", why)

    def _decide_unbought(self, row: Any, outcome: str, why: str) -> None:
        """Ends an attempt that has no number. Raises where another call is about to buy one for it."""
        if self._records.decide_unbought(row, outcome, why):
            return
        self._outlast(row.purchase_key)
        if not self._records.decide_unbought(row, outcome, why):
            raise PurchaseConflictError(
                f"another call with the key {self.key!r} buys a number at this moment, and this one would "
                f"try another number: {why}. This one has bought and cancelled nothing. Use another key, or "
                "call again when that call has ended",
                key=self.key,
            )

    def _refuse_to_interfere(self, order_id: int) -> None:
        """Raises where another call, which asks for something else, still tries a number of this key."""
        handover, release = self._orders.handover, self._orders.releases.of(order_id)
        if release is None and not handover.was_used(order_id) and handover.is_in_hand(order_id):
            raise PurchaseConflictError(
                f"the key {self.key!r} stands for another purchase: a call that asks for something else "
                f"still tries its number, order {order_id}. Nothing was bought or cancelled. Use another "
                "key, or call again when that call has ended. A killed one counts as ended 15 minutes later",
                key=self.key,
            )

    def _about_max_cost(self, left: Decimal | None, request: OrderRequest) -> str:
        """Says so where `max_cost` limits the price of an attempt more than its own `max_price`."""
        if self._max_cost is None or left is None:
            return ""
        if request.max_price is not None and request.max_price <= left:
            return ""
        return f"max_cost={amount(self._max_cost)} leaves {amount(left)} USD, so that is its max_price. "

    @exactly
    def _left_of_max_cost(self, now: Any) -> Decimal | None:
        """USD that the attempt that is made now may cost."""
        if self._max_cost is None:
            return None
        return self._max_cost - self._spent(
            row for row in self._records.last_series() if row.number != now.number
        )

    @exactly
    def _spent(self, rows: Iterable[Any]) -> Decimal:
        """USD that these attempts cost, without what has surely come back."""
        tried = [self._as_tried(row) for row in rows if row.order_id is not None]
        refund_of = self._orders.records.refund_of
        return sum((one.price or Decimal(0) for one in tried if not refund_of(one.order_id or 0)), Decimal(0))

    def _nothing_left(self, reason: str) -> VerificationError:
        tried = self.tried()
        cost = _cost(tried)
        return VerificationError(
            f"no number got its code, and {reason}. {summary_of(tried, not_refunded=cost)}",
            attempts=tried,
            cost=cost,
        )

    def _as_tried(self, row: Any) -> TriedNumber:
        order = None if row.order_id is None else self._orders.records.get(row.order_id)
        is_refunded = order is not None and order.cancelled
        is_refunded = is_refunded and self._orders.records.refund_of(row.order_id) is not False
        return TriedNumber(
            order_id=row.order_id,
            phone=None if order is None else order.phone,
            product=row.product,
            service=row.service if order is None else order.service,
            price=None if order is None else order.price,
            refunded=is_refunded,
            why=row.why or "it is being tried",
        )


def series_key(given: str | None) -> str:
    """What the keys of a series begin with: the key that was given or derived, where it is short enough."""
    if given is None:
        return f"random:{uuid.uuid4().hex}"
    if len(given) <= LONGEST_BASE:
        return given
    return hashlib.sha256(given.encode()).hexdigest()


def _within(request: OrderRequest, left: Decimal | None) -> OrderRequest:
    limits = [limit for limit in (left, request.max_price) if limit is not None]
    return request.model_copy(update={"max_price": min(limits, default=None)})


@exactly
def _cost(tried: Any) -> Decimal:
    return sum((one.price or Decimal(0) for one in tried if not one.refunded), Decimal(0))
