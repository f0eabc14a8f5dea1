"""A machine that buys, renews and gives back in any order, with all going wrong, and checks the money."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import hypothesis
import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from rigs.money_audit import Audit
from rigs.money_draws import FAULTS, ORDERS, PATHS, PLACES, RENEWALS, STEPS
from rigs.money_truth import Truth
from rigs.money_world import (
    DAY,
    GRACE,
    LAG,
    LEASE,
    OFFERS,
    PRICES,
    START,
    Hook,
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
from smsverify.simulator.settings import LIST_DEFECTS

# Seconds from the beginning of an example to midnight, when the budget of another day begins.
BEFORE_MIDNIGHT = 600.0
BETWEEN = 1.0  # seconds from one purchase to the next, since 60 a minute are allowed


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
        self.truth = Truth(self.world)
        self.audit = Audit(self.world, self.truth)
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
            self.world.set_price(*price)
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
            "a reconciliation": lambda: self.world.act(self.users[user], lambda hook: hook.reconcile()),
            "a price": lambda: self.world.set_price(offer, 1),
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
        count = len(renewals_of(self.truth.rows(user.wallet), order_id, ("bought",)))
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
        if self.world.act(user, call, places=places):
            assert user.wallet.service.order(order_id).status == "cancelled"

    @rule(user=st.integers(0, 2), cancel_after=st.sampled_from([None, None, 0]), places=st.none() | PLACES)
    def reconcile(self, user: int, cancel_after: float | None, places: int | None) -> None:
        self.step("reconcile")
        self.world.act(
            self.users[user], lambda hook: hook.reconcile(cancel_after=cancel_after), places=places
        )

    @rule(user=st.integers(0, 2))
    def prune(self, user: int) -> None:
        self.step("prune")
        self.world.act(self.users[user], lambda hook: hook._parts.pruning.run(0.0, dry_run=False))

    @rule()
    def a_person_decides(self) -> None:
        if not self.has_doubts:
            return
        self.step("resolve")
        for wallet in self.wallets:
            self.truth.resolve(wallet, "order")

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
        self.world.hook(User(wallet, ""), read_timeout=10.0).list_orders()

    # -------------------------------------------------------------- what always holds

    @invariant()
    def the_wallet_is_what_was_paid_and_refunded(self) -> None:
        for wallet in self.wallets:
            assert wallet.service.balance() == START - spent_on(wallet.all_orders)

    @invariant()
    def every_paid_order_is_on_record(self) -> None:
        self.has_doubts, self.is_resolved = False, True
        for wallet in self.wallets:
            rows, known = self.truth.rows(wallet), orders_by_id(wallet)
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
            known, used = orders_by_id(wallet), self.truth.used(wallet)
            unfinished: Counter[tuple[str, str]] = Counter()
            for row in self.truth.rows(wallet):
                if row.kind != "order":
                    continue
                if is_open(row) or (row.state == "bought" and serves(known[row.order_id], used)):
                    unfinished[row.namespace, row.key] += 1
            assert not +(unfinished - Counter(set(unfinished))), "a key has two unfinished orders"

    @invariant()
    def nothing_is_renewed_twice_for_one_count(self) -> None:
        for wallet in self.wallets:
            assert max(wallet.renewed.values(), default=0) <= 1, wallet.renewed
            rows = self.truth.rows(wallet)
            for order in wallet.orders:
                done = renewals_of(rows, order.order_id, ("bought",))
                not_known = renewals_of(rows, order.order_id, ("sent", "unknown"))
                assert len(not_known) <= 1
                assert len(done) <= order.renewals <= len(done) + len(not_known)

    # -------------------------------------------------------------- the end

    def teardown(self) -> None:
        if sys.exc_info()[0] is not None:
            return  # Something has failed already.
        self.audit.account_for_all(self.wallets, is_dated_right=self.is_dated_right)
        self.every_paid_order_is_on_record()
        self.world.steps["example"] += 1

    # -------------------------------------------------------------- helps

    def add_fault(self, fault: str, path: str, after: int = 0) -> None:
        for service in self.world.services:
            service.add_fault(replace(FAULTS[fault], path=path, after=after))

    def step(self, name: str) -> None:
        self.world.steps[name] += 1

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
        before = len(user.wallet.movements)
        self.world.act(
            user,
            call,
            places=places,
            run=run,
            base_url=self.world.nobody if is_refused else None,
            daily_budget=options.get("daily_budget"),
        )
        self.truth.write_down(user, key, run, before, options)

    def pick(self, place: int, products: Iterable[str] = ()) -> tuple[User, int | None]:
        """One of the orders that users know, and one of those who may use it."""
        choices = []
        for user in self.users:
            known = orders_by_id(user.wallet)
            for row in self.truth.rows(user.wallet):
                is_mine = row.kind == "order" and row.state == "bought" and row.namespace == user.namespace
                if is_mine and (not products or known[row.order_id].product in products):
                    choices.append((user, row.order_id))
        return choices[place % len(choices)] if choices else (self.users[0], None)


# ------------------------------------------------------------------ running it


def run(world: World, *, seed: int | None = None, **options: Any) -> None:
    """Runs examples, the same for the same seed; `options` are of hypothesis' `settings`."""
    machine = type("Money", (Money,), {"world": world})
    if seed is not None:
        machine = hypothesis.seed(seed)(machine)
    defaults = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
    run_state_machine_as_test(machine, settings=settings(**{**defaults, **options}))
