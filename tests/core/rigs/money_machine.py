"""A machine that buys, renews and gives back in any order, with all going wrong, and checks the money."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import hypothesis
import hypothesis.strategies as st
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from rigs import API_KEY
from rigs.money import Died
from rigs.money_world import (
    CALM,
    CALM_LEASE,
    DAY,
    GRACE,
    HURRIED,
    LAG,
    LEASE,
    LIST_LENGTH,
    LONG_LAG,
    OFFERS,
    PRICES,
    SERVICE_IDS,
    SLOW,
    START,
    Hook,
    Row,
    Run,
    User,
    Wallet,
    World,
    candidates_of,
    identity_of,
    is_alive,
    is_open,
    limits,
    orders_by_id,
    renewals_of,
    serves,
    spent_on,
)
from smsverify._purchases.calls import WALLET_IS_SHORT
from smsverify._store.store import open_store
from smsverify._store.tables import orders, purchases
from smsverify.errors import SmsVerifyError
from smsverify.reports import Reconciliation
from smsverify.simulator import Fault, Simulator
from smsverify.simulator.settings import LIST_DEFECTS

# Seconds from the beginning of an example to midnight, when the budget of another day begins.
BEFORE_MIDNIGHT = 600.0
BETWEEN = 1.0  # seconds from one purchase to the next, since 60 a minute are allowed
# Seconds by which a clock is set.
STEPS = [5.0, -5.0, 61.0, -61.0, 3600.0, -3600.0, DAY, -DAY]
PATHS = [
    *["order/temporary/", "order/best-temp/", "order/global/", "order/rental/", "order/rent-1day/"],
    *["order/esim/", "order/*/renew/", "order/*/cancel/", "order/*/status/", "orders/", "order/**", "**"],
]
FAULTS = {
    **{kind: Fault(kind) for kind in ("reset", "lost_answer", "cut_headers", "truncated_body", "cut_json")},
    **{kind: Fault(kind) for kind in ("html", "empty_body", "wrong_content_type", "success_false")},
    **{kind: Fault(kind) for kind in ("provider_failure", "rate_limited", "out_of_stock", "unauthorized")},
    "503 before": Fault("error_before"),
    "500 before": Fault("error_before", status=500),
    "500 after": Fault("error_after"),
    "503 after": Fault("error_after", status=503),
    "402": Fault("out_of_stock", status=402, body='{"error": "Insufficient balance"}'),
    "slow_before": Fault("slow_before", seconds=SLOW),
    "slow_after": Fault("slow_after", seconds=SLOW),
    "list_lag": Fault("list_lag", seconds=LAG),
    "long list_lag": Fault("list_lag", seconds=LONG_LAG),
    "status_lag": Fault("status_lag", seconds=LAG),
}
rarely = st.sampled_from([False] * 9 + [True])
PLACES = st.integers(0, 12)
LIMITS: dict[str, st.SearchStrategy[Any]] = {
    "max_price": st.sampled_from([None, None, None, "0.40", "4"]),
    "daily_budget": st.sampled_from([None, None, None, "1.20", "6"]),
    "run_budget": st.sampled_from([None, None, None, "0.80", "5"]),
    "run": st.sampled_from(["run-1", "run-2"]),
}
ORDERS: dict[str, st.SearchStrategy[Any]] = {
    **LIMITS,
    "user": st.sampled_from([0, 0, 0, 1, 2]),
    "offer": st.sampled_from(sorted(OFFERS)),
    "number": st.integers(0, 1),
    "is_mistaken": rarely,
    "is_refused": rarely,
}
RENEWALS = {**LIMITS, "place": st.integers(0, 30), "key": st.sampled_from([None, None, None, "mine"])}


class Money(RuleBasedStateMachine):
    """Orders under a few keys that get codes, are renewed, are given back and end, with faults and deaths.

    No rule has a precondition: what is drawn would depend on what came of the steps before, and that on how
    fast the computer was. A rule that finds nothing to do does nothing.
    """

    world: World

    def __init__(self) -> None:
        super().__init__()
        wallets = []
        # Where the list shows no times, an order is the one with its id that another account has bought.
        first_order_id = next(self.world.order_ids)
        self.world.clock.wrong = 0.0
        self.world.clock.pass_by((-BEFORE_MIDNIGHT - self.world.clock.now()) % DAY)
        for service in self.world.services:
            service.configure(clock_skew=0.0, list_defects=())
            service.reset()
            service._gateway.state._order_ids = itertools.count(first_order_id)
            wallets.append(Wallet(service, next(self.world.accounts)))
        self.wallets = wallets
        self.users = [User(wallets[0], ""), User(wallets[0], "other"), User(wallets[1], "")]
        self.has_doubts, self.is_resolved = False, True
        self.is_dated_right = True

    # -------------------------------------------------------------- what can go wrong

    @rule(fault=st.sampled_from(sorted(FAULTS)), path=st.sampled_from(PATHS), after=st.integers(0, 1))
    def something_goes_wrong(self, fault: str, path: str, after: int) -> None:
        self.step("fault")
        self.add_fault(fault, path, after)

    @rule(
        seconds=st.sampled_from([1.0, LAG + 1, LEASE + 1, LEASE + 1, GRACE + 1, 1300.0]),
        price=st.none() | st.tuples(st.sampled_from(sorted(PRICES)), st.integers(0, 1)),
    )
    def time_passes(self, seconds: float, price: tuple[str, int] | None) -> None:
        self.step("time")
        if price is not None:
            self.set_price(*price)
        self.world.clock.pass_by(seconds)  # and the catalogue is read anew

    @rule(seconds=st.sampled_from(STEPS), whose=st.sampled_from(["ours", "ours", "the service's"]))
    def a_clock_is_set(self, seconds: float, whose: str) -> None:
        self.step("clock")
        if whose == "ours":
            self.world.clock.step(seconds)
            return
        self.is_dated_right = False
        for service in self.world.services:
            service.configure(clock_skew=seconds)

    @rule(defects=st.sets(st.sampled_from(LIST_DEFECTS), max_size=2))
    def the_list_is_not_as_documented(self, defects: set[str]) -> None:
        self.step("defect")
        self.is_dated_right = self.is_dated_right and "other_time" not in defects
        for service in self.world.services:
            service.configure(list_defects=sorted(defects))

    # -------------------------------------------------------------- what users do

    @rule(**ORDERS)
    def order(
        self,
        user: int,
        offer: str,
        number: int,
        is_mistaken: bool = False,
        fault: str | None = None,
        places: int | None = None,
        **options: Any,
    ) -> None:
        self.step("order")
        key = f"{'temporary' if is_mistaken else offer}-{number}"
        if fault is not None:
            self.add_fault(fault, f"order/{OFFERS[offer]['product']}/")
        self.pay(
            self.users[user],
            lambda hook: hook.order(**OFFERS[offer], **limits(options), key=key),
            key=key,
            places=places,
            **options,
        )

    @rule(**ORDERS, fault=st.sampled_from(sorted(FAULTS)))
    def order_with_a_fault(self, **options: Any) -> None:
        self.order(**options)

    @rule(**ORDERS, places=PLACES)
    def order_and_die(self, **options: Any) -> None:
        self.order(**options)

    @rule(
        **ORDERS,
        seconds=st.sampled_from([0.0, 1.0, LEASE + 1, LEASE + GRACE + 2]),
        meanwhile=st.sampled_from(["nothing", "the same", "the same", "a reconciliation", "a price"]),
    )
    def order_and_be_stopped(
        self, offer: str, user: int, seconds: float, meanwhile: str, **options: Any
    ) -> None:
        """Right before the first byte, for so long; and meanwhile others go on."""
        others: dict[str, Callable[[], Any]] = {
            "nothing": lambda: None,
            "the same": lambda: self.order(offer=offer, user=user, **options),
            "a reconciliation": lambda: self.act(self.users[user], lambda hook: hook.reconcile()),
            "a price": lambda: self.set_price(offer, 1),
        }

        def go_on() -> None:
            # A price that is read as the call leaves may be a third of the service's minute old.
            self.world.clock.pass_by(max(seconds, LEASE + 1) if meanwhile == "a price" else seconds)
            others[meanwhile]()

        with self.world.stops.at_first_byte(go_on):
            self.order(offer=offer, user=user, **options)

    @rule(**RENEWALS, fault=st.none() | st.sampled_from(sorted(FAULTS)), places=st.none() | PLACES)
    def renew(
        self, place: int, key: str | None, fault: str | None, places: int | None, **options: Any
    ) -> None:
        user, order_id = self.pick(place, ("rental", "rent-1day"))
        if order_id is None:
            return
        self.step("renew")
        if fault is not None:
            self.add_fault(fault, "order/*/renew/")
        key = None if key is None else f"{key}-{order_id}"
        count = len(renewals_of(self.rows(user.wallet), order_id, ("bought",)))
        self.pay(
            user,
            lambda hook: hook.renew(order_id, **limits(options), key=key),
            key=key or f"renew:{order_id}:{count}",
            places=places,
            **options,
        )

    @rule(
        place=st.integers(0, 30),
        how=st.sampled_from(["cancel", "release", "undo", "look", "look"]),
        places=st.none() | PLACES,
    )
    def use_or_give_back(self, place: int, how: str, places: int | None) -> None:
        user, order_id = self.pick(place)
        if order_id is None:
            return
        self.step(how)
        call: Callable[[Hook], Any] = {
            "cancel": lambda hook: hook.cancel(order_id).cancelled,
            "release": lambda hook: hook.release(order_id, "not needed"),
            "undo": lambda hook: hook.release(order_id, "not needed", undo=True),
            "look": lambda hook: hook.check_otp(order_id) and False,
        }[how]
        if self.act(user, call, places=places):
            assert user.wallet.service.order(order_id).status == "cancelled"

    @rule(user=st.integers(0, 2), cancel_after=st.sampled_from([None, None, 0]), places=st.none() | PLACES)
    def reconcile(self, user: int, cancel_after: float | None, places: int | None) -> None:
        self.step("reconcile")
        self.act(self.users[user], lambda hook: hook.reconcile(cancel_after=cancel_after), places=places)

    @rule(user=st.integers(0, 2))
    def prune(self, user: int) -> None:
        self.step("prune")
        self.act(self.users[user], lambda hook: hook._parts.pruning.run(0.0, dry_run=False))

    @rule()
    def a_person_decides(self) -> None:
        if not self.has_doubts:
            return
        self.step("resolve")
        for wallet in self.wallets:
            self.resolve(wallet, "order")

    # -------------------------------------------------------------- what happens at the service

    @rule(what=st.sampled_from(["code", "code", "end"]), place=st.integers(0, 30))
    def the_service_moves(self, what: str, place: int) -> None:
        alive = [
            (wallet.service, order)
            for wallet in self.wallets
            for order in wallet.orders
            if is_alive(order) and (order.phone or what == "end")
        ]
        if not alive:
            return
        self.step(what)
        service, order = alive[place % len(alive)]
        if what == "code":
            service.deliver_sms(order.order_id, otp="123456")
        else:
            service.set_time_left(order.order_id, 0)

    @rule()
    def a_person_buys_at_the_dashboard(self) -> None:
        """Which is distinguished from a purchase of ours if it was seen before that was sent."""
        if not self.is_resolved or len(self.wallets[0].foreign) > 1:
            return
        self.step("foreign")
        self.world.clock.pass_by(BETWEEN)
        wallet = self.wallets[0]
        state = wallet.service._gateway.state
        offer = state.catalogue.find("temporary", 1012)
        if state.balance < offer.price:
            return
        wallet.foreign.add(state.buy("temporary", offer).order_id)
        wallet.service.clear_faults()
        wallet.service.configure(list_defects=())  # a row that cannot be read is not seen
        self.hook(User(wallet, ""), read_timeout=10.0).list_orders()

    # -------------------------------------------------------------- what always holds

    @invariant()
    def the_wallet_is_what_was_paid_and_refunded(self) -> None:
        for wallet in self.wallets:
            assert wallet.service.balance() == START - spent_on(wallet.all_orders)

    @invariant()
    def every_paid_order_is_on_record(self) -> None:
        self.has_doubts, self.is_resolved = False, True
        for wallet in self.wallets:
            rows, known = self.rows(wallet), orders_by_id(wallet)
            self.has_doubts = self.has_doubts or any(candidates_of(row) for row in rows)
            self.is_resolved = self.is_resolved and not any(is_open(row) for row in rows)
            bought = [row for row in rows if row.kind == "order" and row.state == "bought"]
            owned = [row.order_id for row in bought]
            assert len(owned) == len(set(owned)), "an order has two owners"
            assert set(owned) <= set(known), "an order that was never made is on record"
            for row in bought:
                assert row.identity == identity_of(known[row.order_id]), row
            lost = Counter(
                identity_of(order)
                for order_id, order in known.items()
                if order_id not in owned and not wallet.may_be_forgotten(order)
            )
            still_open = Counter(row.identity for row in rows if row.kind == "order" and is_open(row))
            assert not lost - still_open, "a paid order is on no record"

    @invariant()
    def no_key_has_two_unfinished_orders(self) -> None:
        for wallet in self.wallets:
            known, used = orders_by_id(wallet), self.used(wallet)
            unfinished: Counter[tuple[str, str]] = Counter()
            for row in self.rows(wallet):
                if row.kind != "order":
                    continue
                if is_open(row) or (row.state == "bought" and serves(known[row.order_id], used)):
                    unfinished[row.namespace, row.key] += 1
            assert not +(unfinished - Counter(set(unfinished))), "a key has two unfinished orders"

    @invariant()
    def nothing_is_renewed_twice_for_one_count(self) -> None:
        for wallet in self.wallets:
            assert max(wallet.renewed.values(), default=0) <= 1, wallet.renewed
            rows = self.rows(wallet)
            for order in wallet.orders:
                done = renewals_of(rows, order.order_id, ("bought",))
                not_known = renewals_of(rows, order.order_id, ("sent", "unknown"))
                assert len(not_known) <= 1
                assert len(done) <= order.renewals <= len(done) + len(not_known)

    # -------------------------------------------------------------- the end

    def teardown(self) -> None:
        if sys.exc_info()[0] is not None:
            return  # Something has failed already.
        for service in self.world.services:
            service.clear_faults()
            service.configure(list_defects=(), clock_skew=0.0)
        self.world.clock.wrong = 0.0
        self.world.clock.pass_by(CALM_LEASE + LAG + 1)
        for wallet in self.wallets:
            self.reconcile_calmly(wallet)
        self.world.clock.pass_by(LONG_LAG + 1)
        for wallet in self.wallets:
            self.account_for_everything(wallet)
        self.every_paid_order_is_on_record()
        self.world.steps["example"] += 1

    def account_for_everything(self, wallet: Wallet) -> None:
        # What one pass adopts may have been in the way of something else.
        self.reconcile_calmly(wallet)
        report = self.reconcile_calmly(wallet)
        known, rows = orders_by_id(wallet), self.rows(wallet)
        owned = {row.order_id for row in rows if row.kind == "order" and row.state == "bought"}
        unowned = {
            order_id
            for order_id, order in known.items()
            if order_id not in owned and not wallet.may_be_forgotten(order)
        }
        for call in report.unknown:
            if call.kind == "renewal":
                (renewed,) = (known[order_id] for order_id in call.order_ids)
                assert renewed.product == "rental" or not is_alive(renewed), "its status shows it"
            else:
                (row,) = (
                    row
                    for row in rows
                    if (row.namespace, row.key) == (call.namespace, call.key) and is_open(row)
                )
                is_explained = call.order_ids or row.note == WALLET_IS_SHORT
                assert is_explained, f"{call.key} is unknown, and nobody says why"
        reported = {order_id for call in report.unknown for order_id in call.order_ids}
        assert unowned <= reported, "a paid order is in no report"
        self.resolve(wallet, "order")
        self.resolve(wallet, "renewal")
        report = self.reconcile_calmly(wallet)
        assert not report.unknown
        pending = {order.order_id for order in wallet.all_orders if order.status == "pending"}
        foreign = {order.order_id for order in report.foreign}
        assert foreign <= wallet.foreign & pending
        # Of the last day, by the service's calendar.
        assert foreign == wallet.foreign & pending or not self.is_dated_right
        rows = self.rows(wallet)
        bought = [row.order_id for row in rows if row.kind == "order" and row.state == "bought"]
        forgotten = {
            order_id
            for order_id, order in known.items()
            if order_id not in bought and wallet.may_be_forgotten(order)
        }
        assert sorted(bought) == sorted(known.keys() - forgotten)
        for order in known.values():
            assert order.renewals == len(renewals_of(rows, order.order_id, ("bought",)))
        if len(known) <= LIST_LENGTH:
            assert report.spent == spent_on(wallet.orders)
        assert report.balance == wallet.service.balance()

    def reconcile_calmly(self, wallet: Wallet) -> Reconciliation:
        """Without faults and in no hurry."""
        return self.hook(User(wallet, ""), **CALM).reconcile()

    # -------------------------------------------------------------- helps

    def add_fault(self, fault: str, path: str, after: int = 0) -> None:
        for service in self.world.services:
            service.add_fault(replace(FAULTS[fault], path=path, after=after))

    def set_price(self, offer: str, which: int) -> None:
        for service in self.world.services if offer in PRICES else ():
            service.set_offer(OFFERS[offer]["product"], SERVICE_IDS[offer], price=PRICES[offer][which])

    def step(self, name: str) -> None:
        self.world.steps[name] += 1

    def hook(self, user: User, *, base_url: str | None = None, run: str = "run-1", **options: Any) -> Hook:
        """A new process's hook."""
        defaults = {
            "account": user.wallet.account,
            "namespace": user.namespace,
            "rate_limit": 200,
            "rate_period": 0.5,
            **HURRIED,
            "call_timeout": 5.0,
            "purchase_grace": GRACE,
        }
        return Hook(
            API_KEY,
            base_url=base_url or user.wallet.service.url,
            store_url=self.world.store_url,
            run_context=Run(run),
            **{**defaults, **options},
        )

    def act(
        self, user: User, call: Callable[[Hook], Any], *, places: int | None = None, **options: Any
    ) -> Any:
        """What a process's call returns; `None` where it fails or the process dies."""
        self.world.deaths.arm(places)
        try:
            return call(self.hook(user, **options))
        except SmsVerifyError as error:
            self.world.outcomes[type(error).__name__] += 1
        except Died:
            self.world.outcomes["Died"] += 1
        finally:
            self.world.deaths.arm(None)
            self.world.wire.await_silence()
        return None

    def pay(
        self,
        user: User,
        call: Callable[[Hook], Any],
        *,
        key: str,
        run: str,
        places: int | None,
        is_refused: bool = False,
        **options: Any,
    ) -> None:
        """A paid call, with its truth written down, and its limits checked against what was really paid."""
        if not is_refused:  # which is refused where it matters only if the catalogue is at hand
            self.world.clock.pass_by(BETWEEN)
        wallet, before = user.wallet, len(user.wallet.movements)
        self.act(
            user,
            call,
            places=places,
            run=run,
            base_url=self.world.nobody if is_refused else None,
            daily_budget=options.get("daily_budget"),
        )
        # What others did while this process was stopped is written down already.
        numbers = set(range(before, len(wallet.movements))) - wallet.explained
        wallet.explained |= numbers
        news = [wallet.movements[number] for number in sorted(numbers)]
        returned = {move.order_id for move in news if move.kind == "refund"}
        paid = [move for move in news if move.kind in ("order", "renewal") and move.order_id not in returned]
        assert len(paid) <= 1, "one call was paid twice"
        for move in paid:
            assert move.order_id is not None
            if move.kind == "order":
                wallet.made[move.order_id] = (user.namespace, key)
            else:
                wallet.renewed[user.namespace, key, move.order_id] += 1
            self.world.outcomes["paid"] += 1
            if options.get("max_price"):
                assert -move.amount <= Decimal(options["max_price"])
            if options.get("daily_budget"):
                midnight = self.store_time() // DAY * DAY
                assert self.spent(wallet, since=midnight) <= Decimal(options["daily_budget"])
            if options.get("run_budget"):
                assert self.spent(wallet, run=run) <= Decimal(options["run_budget"])

    def store_time(self) -> float:
        """What begins and ends a day: not the clock that is set here, which goes on a little faster."""
        store = open_store(self.world.store_url)
        with store.read() as connection:
            return store.now(connection)

    def spent(self, wallet: Wallet, *, run: str | None = None, since: float = 0.0) -> Decimal:
        """USD that the calls of a run or of a day have cost, what is open with what it may have cost.

        A price that rose while a call without a limit was stopped counts as in the catalogue: where its
        answer was lost and the list shows no prices, the next call knew nothing else.
        """
        known = orders_by_id(wallet)
        total = Decimal(0)
        for row in self.rows(wallet):
            if run not in (None, row.run) or row.sent_at < since:
                continue
            if not (is_open(row) or row.state == "bought"):
                continue
            if row.kind == "order" and row.state == "bought":
                order = known[row.order_id]
                on_record = max(Decimal(row.price), Decimal(row.charge))
                total += Decimal(0) if order.refunded else min(order.price, on_record)
            else:
                total += Decimal(row.charge)
        return total

    def rows(self, wallet: Wallet) -> list[Any]:
        """The paid calls that the ledger has of an account."""
        with open_store(self.world.store_url).read() as connection:
            found = connection.execute(
                sa.select(purchases).where(purchases.c.account == wallet.account).order_by(purchases.c.id)
            ).all()
        return [Row(row) for row in found]

    def used(self, wallet: Wallet) -> set[int]:
        """The orders whose code was handed out."""
        with open_store(self.world.store_url).read() as connection:
            is_used = sa.and_(orders.c.account == wallet.account, orders.c.used_at.is_not(None))
            return set(connection.execute(sa.select(orders.c.order_id).where(is_used)).scalars())

    def pick(self, place: int, products: Iterable[str] = ()) -> tuple[User, int | None]:
        """One of the orders that users know, and one of those who may use it."""
        choices = []
        for user in self.users:
            known = orders_by_id(user.wallet)
            for row in self.rows(user.wallet):
                is_mine = row.kind == "order" and row.state == "bought" and row.namespace == user.namespace
                if is_mine and (not products or known[row.order_id].product in products):
                    choices.append((user, row.order_id))
        return choices[place % len(choices)] if choices else (self.users[0], None)

    def resolve(self, wallet: Wallet, kind: str) -> None:
        """A person who knows everything decides what the ledger cannot."""
        for row in self.rows(wallet):
            is_decidable = row.candidates or row.note == WALLET_IS_SHORT
            if row.kind != kind or not is_open(row) or (kind == "order" and not is_decidable):
                continue
            truth = (
                self.truth_of_order(wallet, row) if kind == "order" else self.truth_of_renewal(wallet, row)
            )
            self.world.outcomes["resolved"] += 1
            self.hook(User(wallet, row.namespace)).resolve(row.key, order_id=truth)
            assert not any(is_open(other) for other in self.rows(wallet) if other.id == row.id)

    def truth_of_order(self, wallet: Wallet, row: Any) -> int | None:
        """The order that a call has bought; another one where that was taken for a call's of the same."""
        owned = {other.order_id for other in self.rows(wallet) if other.kind == "order"}
        mine = [order_id for order_id, maker in wallet.made.items() if maker == (row.namespace, row.key)]
        # A person who sees the dashboard names what the list never showed.
        for order_id in mine:
            if order_id not in owned and identity_of(orders_by_id(wallet)[order_id]) == row.identity:
                return order_id
        return next(
            (
                order_id
                for order_id, order in orders_by_id(wallet).items()
                if order_id not in owned
                and identity_of(order) == row.identity
                and order_id in candidates_of(row)
            ),
            None,
        )

    def truth_of_renewal(self, wallet: Wallet, row: Any) -> int | None:
        order_id = int(row.fingerprint.rpartition(" ")[2])
        done = renewals_of(self.rows(wallet), order_id, ("bought",))
        return order_id if wallet.service.order(order_id).renewals > len(done) else None


# ------------------------------------------------------------------ running it


@contextmanager
def two_services() -> Iterator[list[Simulator]]:
    """Of two accounts, whose orders have the same ids."""
    services = [
        Simulator(
            api_key=API_KEY, sms_delay="never", rate_limit=None, balance=START, list_length=LIST_LENGTH
        ).start()
        for _ in range(2)
    ]
    yield services
    for service in services:
        service.stop()


def run(world: World, *, seed: int | None = None, **options: Any) -> None:
    """Runs examples, the same for the same seed; `options` are of hypothesis' `settings`."""
    machine = type("Money", (Money,), {"world": world})
    if seed is not None:
        machine = hypothesis.seed(seed)(machine)
    defaults = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
    run_state_machine_as_test(machine, settings=settings(**{**defaults, **options}))
