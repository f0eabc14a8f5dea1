"""Finding out what became of paid calls whose outcome is unknown. The list of orders decides on purchases,
the time left on renewals, and the wallet on both.

The store's sequence, never a clock, says what was known before a call. `matching` says which orders of the
list may belong to which purchases. A purchase was not made when its grace is over, the list reaches back to
it and shows no order that could be it, except the one that was bought last before it, and the wallet does
not speak against it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from smsverify._orders.listing import Listing
from smsverify._orders.orders import Orders
from smsverify._purchases.calls import WALLET_IS_SHORT, WALLET_IS_UNCLEAR, OpenCall
from smsverify._purchases.expiry import Expiry
from smsverify._purchases.ledger import Ledger
from smsverify._purchases.matching import Open, Verdict, judge
from smsverify._purchases.wallet import Comparison, Reading, Wallet
from smsverify._runtime.clock import MINUTE
from smsverify._runtime.commands import how_to_resolve, may_have_bought
from smsverify._store.store import Store
from smsverify.errors import AuthenticationError, InvalidRequestError, ServiceError, WaitStoppedError
from smsverify.models import RENTALS, Order, gets_no_more
from smsverify.text import log_of

log = log_of(__name__)

# Seconds for which no other process makes the first readings, at time scale 1.
INTRODUCTION: Final = 300.0


@dataclass(frozen=True)
class Resolved:
    """A paid call whose outcome was unknown, and what became of it.

    Attributes:
        key, kind: of the call; `order` or `renewal`.
        outcome: `bought`, `not made`, or `ambiguous`, which a person has to decide.
        order_ids: the order that it has bought or renewed, or those that it may have bought.
    """

    key: str
    kind: str
    outcome: str
    order_ids: tuple[int, ...] = ()


class Recovery:
    """Resolves the paid calls of an account whose outcome is unknown.

    Args:
        store: where they are.
        ledger: the account's paid calls and orders.
        orders: reads the service's list, and the status of an order.
        wallet: reads the balance.
        grace: seconds after which a call that does not show was not made.
        is_exclusive: whether all purchases on this account go through the store. Otherwise no order is
            adopted, only named.
        time_scale: how long the service's minute is in real minutes.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        orders: Orders,
        wallet: Wallet,
        *,
        grace: float,
        is_exclusive: bool,
        time_scale: float,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._orders = orders
        self._wallet = wallet
        self._grace = grace
        self._is_exclusive = is_exclusive
        self._time_scale = time_scale
        self._is_introduced = False

    def introduce(self, stop: threading.Event | None = None) -> None:
        """Reads the list and the balance before the first paid call of an account, once in a store.

        An order that was there before is no purchase of ours, and the first balance shows later whether the
        wallet was touched. Where the service does not answer, the call is made: if its outcome is unknown
        later, more orders may be it.
        """
        if self._is_introduced:
            return
        patience = INTRODUCTION * self._time_scale
        with self._store.read() as connection:
            has_list = self._orders.listing.was_read(connection)
            has_balance = self._wallet.last(connection) is not None
            is_begun = self._orders.listing.is_being_introduced(connection, patience)
        self._is_introduced = has_list and has_balance
        if self._is_introduced or is_begun or not self._orders.listing.begin_introduction(patience):
            return
        # Each may decide something without the other.
        if not has_list:
            _try_to_read(self._orders.status.read_list, stop)
        # Also where it was read before that: the orders that the list has just shown may be newer.
        _try_to_read(self._wallet.read, stop)

    def introduce_rental(self, order: Order, stop: threading.Event | None = None) -> None:
        """The same before a renewal. Where the rental is from elsewhere, and was first seen after the last
        reading of the balance, it may have been bought since then: the balance is read again.
        """
        self.introduce(stop)
        if order.key is not None:
            return
        with self._store.read() as connection:
            seen = self._orders.records.number_of(connection, order.order_id)
            last = self._wallet.last(connection)
        if seen is not None and last is not None and last.asked.number < seen:
            _try_to_read(self._wallet.read, stop)

    def note_refunds(self, stop: threading.Event | None = None) -> None:
        """Reads the list and then the balance, which together say what has come back."""
        self._orders.status.read_list(stop=stop)
        self._wallet.read(stop=stop)

    # -------------------------------------------------------------- purchases

    def resolve_orders(self) -> list[Resolved]:
        """Reads the list of orders and resolves the purchases that it decides; the others stay unknown.

        The balance is read too, where a purchase would count as not made and balances can be compared.

        Raises:
            ServiceError: the list cannot be read, so nothing can be decided.
        """
        listing = self._orders.status.read_list()
        resolved, is_wallet_needed = self._decide(listing, None)
        if is_wallet_needed and (reading := self._read_wallet()) is not None:
            resolved += [one for one in self._decide(listing, reading)[0] if one not in resolved]
        return resolved

    def _decide(self, listing: Listing, reading: Reading | None) -> tuple[list[Resolved], bool]:
        """What a list decides, and whether the wallet has a say in the rest."""
        resolved: list[Resolved] = []
        is_wallet_needed = False
        with self._store.write() as connection:
            self._ledger.lock(connection)
            self._ledger.owners.lock(connection)
            for call, verdict in self._verdicts(connection, listing):
                if verdict.what == "bought":
                    resolved.append(self._adopt(connection, call, verdict.order_ids[0]))
                elif verdict.what == "doubtful":
                    resolved.append(self._doubt(connection, call, verdict.order_ids))
                elif verdict.what == "absent" and not self._orders.listing.is_late(
                    connection, listing, call.number
                ):
                    first = self._wallet.before(connection, call.number)
                    if first is not None and reading is None:
                        is_wallet_needed = True
                    elif why := _why_kept(call, self._compare(connection, first, reading)):
                        self._keep(connection, call, why)
                    else:
                        why = "the list of orders does not show it"
                        resolved.append(self._give_up(connection, call, why))
        return resolved, is_wallet_needed

    def _verdicts(self, connection: sa.Connection, listing: Listing) -> list[tuple[OpenCall, Verdict]]:
        """The purchases whose answer cannot arrive any more, and what the list says of each."""
        calls = [call for call in self._ledger.open_calls(connection) if call.kind == "order"]
        opens = {call.id: call for call in calls if not call.under_way}
        if not opens:
            return []
        verdicts = judge(
            [
                Open(call.id, call.key, call.request, call.price, call.number, call.sent_at)
                for call in opens.values()
            ],
            # The records, not the list alone: they keep what the list has shown once.
            self._ledger.owners.unowned(connection, min(call.number for call in opens.values())),
            listing.skew,
            first_under_way=min((call.number for call in calls if call.under_way), default=None),
            is_exclusive=self._is_exclusive,
            should_show=lambda purchase: self._should_show(connection, listing, opens[purchase.id]),
        )
        return [(opens[purchase.id], verdict) for purchase, verdict in verdicts]

    def _should_show(self, connection: sa.Connection, listing: Listing, call: OpenCall) -> bool:
        """Whether a list is late enough to show what a call has bought."""
        # It counts when the list was asked for, not when it is looked at.
        if listing.asked.number < call.number or listing.asked.at <= call.sent_at + self._grace:
            return False
        if listing.unreadable:
            return False
        if listing.is_whole or self._orders.listing.has_shown_all_since(connection, call.number):
            return True
        first = self._orders.listing.first_number(connection, listing)
        return first is not None and first < call.number

    def _read_wallet(self) -> Reading | None:
        try:
            return self._wallet.read()[1]
        except AuthenticationError:
            raise
        except ServiceError as error:
            log.warning("The balance cannot be read, so calls that it would decide stay unknown: %s", error)
            return None

    def _compare(
        self, connection: sa.Connection, first: Reading | None, then: Reading | None
    ) -> Comparison | None:
        return None if first is None or then is None else self._wallet.since(connection, first, then)

    def _keep(self, connection: sa.Connection, call: OpenCall, why: str) -> None:
        self._ledger.note_why_open(connection, call, why)
        log.error("%s may have been carried out: %s", call.key, why)

    def _doubt(self, connection: sa.Connection, call: OpenCall, ids: Sequence[int]) -> Resolved:
        order_ids = tuple(sorted(ids))
        self._ledger.mark_ambiguous(connection, call, order_ids)
        if order_ids != call.candidates:
            log.error(
                "The outcome of %s is unknown, but %s. %s",
                call.key,
                may_have_bought(order_ids),
                how_to_resolve(call.key, order_ids),
            )
        return Resolved(call.key, call.kind, "ambiguous", order_ids)

    def _give_up(self, connection: sa.Connection, call: OpenCall, why: str) -> Resolved:
        self._ledger.close(connection, call, "rejected", self._store.now(connection), why)
        log.warning("%s was not made: %s", call.key, why)
        return Resolved(call.key, call.kind, "not made")

    def _adopt(self, connection: sa.Connection, call: OpenCall, order_id: int) -> Resolved:
        now, note = self._store.now(connection), "found in the list of orders"
        self._ledger.close(connection, call, "bought", now, note, order_id=order_id)
        self._orders.records.assign(connection, order_id, call.key, call.request, call.price)
        log.warning("%s has bought order %d, as the list of orders shows", call.key, order_id)
        if call.request["product"] == "esim":
            log.warning("The activation code of order %d is lost; the dashboard has it", order_id)
        return Resolved(call.key, call.kind, "bought", (order_id,))

    # -------------------------------------------------------------- renewals

    def resolve_renewals(self, only: int | None = None) -> list[Resolved]:
        """Resolves renewals by the time left that their order's status shows, before and after. Where that
        decides nothing, the wallet may.

        Args:
            only: looks at the renewals of this order alone.
        """
        with self._store.read() as connection:
            calls = [
                call
                for call in self._ledger.open_calls(connection)
                if call.kind == "renewal" and not call.under_way
                if only in (None, call.request["order_id"])
            ]
        resolved = []
        for call in calls:
            asked_at = self._ledger.now()
            was_made = self._was_renewed(call)
            reading = None
            if not was_made and asked_at > call.sent_at + self._grace:
                reading = self._reading_for(call)
            elif not was_made:
                continue
            with self._store.write() as connection:
                self._ledger.lock(connection)
                if all(
                    call.id != still.id or still.under_way for still in self._ledger.open_calls(connection)
                ):
                    continue  # Another process was quicker.
                resolved += self._decide_renewal(connection, call, was_made, reading)
        return resolved

    def _decide_renewal(
        self, connection: sa.Connection, call: OpenCall, was_made: bool | None, reading: Reading | None
    ) -> list[Resolved]:
        """What the status of its order, and the wallet after its grace, say of a renewal."""
        first = self._wallet.before(connection, call.number)
        wallet = self._compare(connection, first, reading)
        why_kept = _why_kept(call, wallet)
        if was_made:
            return [self._renewed(connection, call, "the order's time left shows it")]
        if was_made is False and (first is None or (wallet is not None and why_kept is None)):
            return [self._give_up(connection, call, "the order's time left has not grown")]
        # The wallet alone does not prove that nothing was paid: a top-up may have been just as much.
        if was_made is None and wallet is not None and self._is_paid(connection, call, wallet):
            self._ledger.renewals.note_one_more(connection, call.request["order_id"])
            return [self._renewed(connection, call, "the wallet shows that it was paid")]
        if why_kept:
            self._keep(connection, call, why_kept)
        return []

    def _is_paid(self, connection: sa.Connection, call: OpenCall, wallet: Comparison) -> bool:
        """Whether the wallet lacks what a renewal costs, and nothing else can have taken it."""
        is_alone = self._is_exclusive and wallet.is_settled and len(self._ledger.open_calls(connection)) == 1
        return (
            is_alone
            and wallet.is_short_by(call.price)
            and call.price is not None
            and wallet.lacks(call.price)
        )

    def _renewed(self, connection: sa.Connection, call: OpenCall, note: str) -> Resolved:
        order_id = call.request["order_id"]
        now = self._store.now(connection)
        self._ledger.close(connection, call, "bought", now, note, order_id=order_id)
        log.warning("%s has renewed order %d: %s", call.key, order_id, note)
        return Resolved(call.key, call.kind, "bought", (order_id,))

    def _reading_for(self, call: OpenCall) -> Reading | None:
        """A reading of the wallet that shows whether a call has touched it; `None` where none can."""
        with self._store.read() as connection:
            if self._wallet.before(connection, call.number) is None:
                return None
            last, now = self._wallet.last(connection), self._store.now(connection)
        if (
            last is not None
            and last.asked.number >= call.number
            and now - MINUTE * self._time_scale < last.asked.at <= now
            and last.asked.at > call.sent_at + self._grace
        ):
            return last  # of a look that was just made
        try:
            self._orders.status.read_list()  # which shows what has come back
        except AuthenticationError:
            raise
        except ServiceError as error:
            log.warning("What the wallet should hold cannot be found out now: %s", error)
            return None
        return self._read_wallet()

    def _was_renewed(self, call: OpenCall) -> bool | None:
        """Whether a renewal was carried out; `None` where the status does not show it."""
        before = Expiry.recorded_in(call.request)
        if before is None or not before.is_shown:
            return None
        asked_at = self._ledger.now()
        try:
            status = self._orders.status.read(call.request["order_id"])
        except (ServiceError, InvalidRequestError) as error:
            log.warning("Whether %s was renewed cannot be found out now: %s", call.key, error)
            return None
        after = Expiry.shown_by(status, asked_at, self._time_scale)
        # What is renewed is a rental, also where its product is not known.
        is_over = gets_no_more(status.status, RENTALS[0])
        if after is None or not after.is_shown_like(before) or is_over:
            return None
        # By the clock that all share, the end before was reckoned at the answer's arrival, and so is never
        # too early; this one is never too late. However slow both were, an end beyond both was moved.
        if after.is_later_than(before):
            passed = asked_at - call.request.get("asked_at", call.sent_at)
            return True if after.has_grown(before, passed) else None
        # Days left are whole ones: that they have not grown says nothing of a rental of one day.
        return None if after.in_days else False


def _why_kept(call: OpenCall, wallet: Comparison | None) -> str | None:
    """Why a call that does not show may have been paid; `None` where the wallet does not say so."""
    if wallet is None:
        return None
    if wallet.is_short_by(call.price):
        return WALLET_IS_SHORT
    return WALLET_IS_UNCLEAR if wallet.may_lack(call.price) else None


def _try_to_read(read: Callable[..., object], stop: threading.Event | None) -> None:
    try:
        read(stop=stop)
    except AuthenticationError:
        raise
    except (ServiceError, WaitStoppedError) as error:
        log.warning("What the account had before its first paid call cannot be read: %s", error)
