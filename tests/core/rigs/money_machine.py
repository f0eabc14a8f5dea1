"""A machine that buys, renews and gives back in any order, with all going wrong, and checks the money."""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rigs import API_KEY
from rigs.money import Clock, Deaths, Died, Wire
from rigs.wire import closed_port
from smsverify import ledger, purchasing, recovery
from smsverify.errors import SmsVerifyError
from smsverify.hook import SmsVerifyHook
from smsverify.reconciling import Reconciliation
from smsverify.simulator import Fault, Movement, SimulatedOrder, Simulator, endpoints_orders
from smsverify.store import open_store, orders, purchases

DAY = 86_400.0
START = Decimal(40)
READ_TIMEOUT = 0.15
SLOW = 0.2  # seconds, longer than a client waits
LAG = 8.0  # seconds for which the service does not show what was bought
GRACE = 30.0  # seconds; the service is never that slow
LEASE = 10.0  # seconds that one call may take
CALM_LEASE = 30.0  # the same where nothing goes wrong, and nothing may seem to
BETWEEN = 1.0  # seconds from one purchase to the next, since 60 a minute are allowed
# The service lists 50 orders, and 40 purchases may run ahead. Smaller, the same comes about in fewer steps.
LIST_LENGTH = 10
RUN_AHEAD = 6

OFFERS: dict[str, dict[str, Any]] = {
    "temporary": {"product": "temporary", "service": "WhatsApp"},
    "area": {"product": "temporary", "service": "WhatsApp", "area_code": "212"},
    "telegram": {"product": "temporary", "service": "Telegram"},
    "best": {"product": "best-temp", "service": "WhatsApp"},  # the same name at the same price
    "global": {"product": "global", "service": "WhatsApp", "country": "United Kingdom"},
    "rental": {"product": "rental", "service": "WhatsApp", "duration": 3},
    "day": {"product": "rent-1day", "service": "WhatsApp"},
    "esim": {"product": "esim", "plan": "USA 1GB / 7 days"},
}
PRICES = {"temporary": ("0.40", "0.50"), "best": ("0.40", "0.65"), "day": ("1.60", "1.30")}
SERVICE_IDS = {"temporary": 1012, "best": 1012, "day": 4423}

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
    "status_lag": Fault("status_lag", seconds=LAG),
}


class Hook(SmsVerifyHook):
    """A new process's hook, in a run of a name."""

    run = "run-1"

    def _run_name(self) -> str:
        return self.run


@dataclass
class Wallet:
    """A wallet at the service, and what has really been bought with it by whom.

    Attributes:
        service: the simulator.
        account: its name in the store.
        made: who has bought an order, by its id.
        renewed: how often which key has renewed an order.
        foreign: the orders that were not bought through the store.
    """

    service: Simulator
    account: str
    made: dict[int, tuple[str, str]] = field(default_factory=dict)
    renewed: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    foreign: set[int] = field(default_factory=set)

    @property
    def all_orders(self) -> list[SimulatedOrder]:
        return self.service._gateway.state.orders()  # as the verb `orders`, which goes through JSON

    @property
    def orders(self) -> list[SimulatedOrder]:
        return [order for order in self.all_orders if order.order_id not in self.foreign]

    @property
    def movements(self) -> list[Movement]:
        return self.service._gateway.state.movements()


@dataclass(frozen=True)
class User:
    """Somebody with keys of their own."""

    wallet: Wallet
    namespace: str


class World:
    """Two services, the store that all use, time, and death. Every example has accounts of its own."""

    def __init__(self, store_url: str, monkeypatch: pytest.MonkeyPatch, services: list[Simulator]) -> None:
        self.store_url = store_url
        self.services = services
        self.clock = Clock(monkeypatch)
        self.deaths = Deaths(monkeypatch)
        self.wire = Wire(monkeypatch)
        self.nobody = f"http://127.0.0.1:{closed_port()}"
        self.accounts = (f"account-{number}" for number in itertools.count())
        self.steps: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        for service in services:
            self.wire.watch(service)
        monkeypatch.setattr(endpoints_orders, "LIST_LENGTH", LIST_LENGTH)
        monkeypatch.setattr(recovery, "LIST_LENGTH", LIST_LENGTH)
        monkeypatch.setattr(ledger, "RUN_AHEAD", RUN_AHEAD)
        # Who waits for a process that has died waits until it must have.
        monkeypatch.setattr(purchasing.Purchases, "_wait_for_others", lambda *_: self.clock.pass_by(LEASE))

    def summary(self) -> str:
        """What has been done, and what came of it."""
        counts = {name: self.steps[name] for name in ("example", "order", "renew", "reconcile", "fault")}
        counts |= {name: self.outcomes[name] for name in ("paid", "Died", "PurchaseUnknownError", "told")}
        counts["step"] = sum(self.steps.values()) - self.steps["example"]
        return ", ".join(f"{count} × {name}" for name, count in counts.items())


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


def has_orders(machine: Any) -> bool:
    return any(wallet.made for wallet in machine.wallets)


class Money(RuleBasedStateMachine):
    """Orders under a few keys that get codes, are renewed, are given back and end, with faults and deaths."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        wallets = []
        for service in self.world.services:
            service.reset()
            wallets.append(Wallet(service, next(self.world.accounts)))
        self.wallets = wallets
        self.users = [User(wallets[0], ""), User(wallets[0], "other"), User(wallets[1], "")]
        self.has_doubts, self.is_settled = False, True

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
        for service in self.world.services if price else ():
            offer, which = price
            service.set_offer(OFFERS[offer]["product"], SERVICE_IDS[offer], price=PRICES[offer][which])
        self.world.clock.pass_by(seconds)  # and the catalogue is read anew

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

    @precondition(has_orders)
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

    @precondition(has_orders)
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

    @precondition(lambda self: self.has_doubts)
    @rule()
    def a_person_tells(self) -> None:
        self.step("tell")
        for wallet in self.wallets:
            self.tell(wallet, "order")

    # -------------------------------------------------------------- what happens at the service

    @precondition(has_orders)
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

    @precondition(lambda self: self.is_settled and len(self.wallets[0].foreign) < 2)
    @rule()
    def a_person_buys_at_the_dashboard(self) -> None:
        """Which is told from a purchase of ours if it was seen before that was sent."""
        self.step("foreign")
        self.world.clock.pass_by(BETWEEN)
        wallet = self.wallets[0]
        state = wallet.service._gateway.state
        offer = state.catalogue.find("temporary", 1012)
        if state.balance < offer.price:
            return
        wallet.foreign.add(state.buy("temporary", offer).order_id)
        wallet.service.clear_faults()
        self.hook(User(wallet, ""), read_timeout=10.0).list_orders()

    # -------------------------------------------------------------- what always holds

    @invariant()
    def the_wallet_is_what_was_paid_and_refunded(self) -> None:
        for wallet in self.wallets:
            assert wallet.service.balance() == START - spent_on(wallet.all_orders)

    @invariant()
    def every_paid_order_is_on_record(self) -> None:
        self.has_doubts, self.is_settled = False, True
        for wallet in self.wallets:
            rows, known = self.rows(wallet), orders_by_id(wallet)
            self.has_doubts = self.has_doubts or any(candidates_of(row) for row in rows)
            self.is_settled = self.is_settled and not any(is_open(row) for row in rows)
            bought = [row for row in rows if row.kind == "order" and row.state == "bought"]
            owned = [row.order_id for row in bought]
            assert len(owned) == len(set(owned)), "an order has two owners"
            assert set(owned) <= set(known), "an order that was never made is on record"
            for row in bought:
                assert row.identity == identity_of(known[row.order_id]), row
            lost = Counter(identity_of(order) for order in known.values() if order.order_id not in owned)
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
        self.world.clock.pass_by(CALM_LEASE + LAG + 1)
        for wallet in self.wallets:
            self.reconcile_calmly(wallet)
        self.world.clock.pass_by(GRACE + 1)
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
        unowned = {order_id: order for order_id, order in known.items() if order_id not in owned}
        for call in report.unknown:
            if call.kind == "renewal":
                (renewed,) = (known[order_id] for order_id in call.order_ids)
                assert renewed.product == "rental" or not is_alive(renewed), "its status tells"
            else:
                assert call.order_ids, f"{call.key} is unknown, and nobody says why"
        reported = {order_id for call in report.unknown for order_id in call.order_ids}
        assert set(unowned) <= reported, "a paid order is in no report"
        self.tell(wallet, "order")
        self.tell(wallet, "renewal")
        report = self.reconcile_calmly(wallet)
        assert not report.unknown
        pending = {order.order_id for order in wallet.all_orders if order.status == "pending"}
        assert {order.order_id for order in report.foreign} == wallet.foreign & pending
        rows = self.rows(wallet)
        bought = [row.order_id for row in rows if row.kind == "order" and row.state == "bought"]
        assert sorted(bought) == sorted(known)
        for order in known.values():
            assert order.renewals == len(renewals_of(rows, order.order_id, ("bought",)))
        if len(known) <= LIST_LENGTH:
            assert report.spent == spent_on(wallet.orders)
        assert report.balance == wallet.service.balance()

    def reconcile_calmly(self, wallet: Wallet) -> Reconciliation:
        """Without faults and in no hurry."""
        return self.hook(
            User(wallet, ""), read_timeout=CALM_LEASE / 3, connect_timeout=CALM_LEASE / 3
        ).reconcile()

    # -------------------------------------------------------------- helps

    def add_fault(self, fault: str, path: str, after: int = 0) -> None:
        for service in self.world.services:
            service.add_fault(replace(FAULTS[fault], path=path, after=after))

    def step(self, name: str) -> None:
        self.world.steps[name] += 1

    def hook(self, user: User, *, base_url: str | None = None, run: str = "run-1", **options: Any) -> Hook:
        """A new process's hook."""
        defaults = {
            "account": user.wallet.account,
            "namespace": user.namespace,
            "rate_limit": 200,
            "rate_period": 0.5,
            "connect_timeout": LEASE - 2 * READ_TIMEOUT,
            "read_timeout": READ_TIMEOUT,
            "call_timeout": 5.0,
            "purchase_grace": GRACE,
        }
        hook = Hook(
            API_KEY,
            base_url=base_url or user.wallet.service.url,
            store_url=self.world.store_url,
            **{**defaults, **options},
        )
        hook.run = run
        return hook

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
        wallet, begun = user.wallet, self.world.clock.now()
        before = len(wallet.movements)
        self.act(user, call, places=places, run=run, base_url=self.world.nobody if is_refused else None)
        news = wallet.movements[before:]
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
                assert spent_since(wallet, begun // DAY * DAY) <= Decimal(options["daily_budget"])
            if options.get("run_budget"):
                assert self.spent_in(wallet, run) <= Decimal(options["run_budget"])

    def spent_in(self, wallet: Wallet, run: str) -> Decimal:
        """USD that the calls of a run have cost, what is open with what it may have cost."""
        known = orders_by_id(wallet)
        total = Decimal(0)
        for row in self.rows(wallet):
            if row.run != run or not (is_open(row) or row.state == "bought"):
                continue
            if row.kind == "order" and row.state == "bought":
                order = known[row.order_id]
                total += Decimal(0) if order.refunded else order.price
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

    def tell(self, wallet: Wallet, kind: str) -> None:
        """A person who knows everything decides what the ledger can not."""
        for row in self.rows(wallet):
            if row.kind != kind or not is_open(row) or (kind == "order" and not row.candidates):
                continue
            truth = (
                self.truth_of_order(wallet, row) if kind == "order" else self.truth_of_renewal(wallet, row)
            )
            self.world.outcomes["told"] += 1
            self.hook(User(wallet, row.namespace)).settle(row.key, order_id=truth)
            assert not any(is_open(other) for other in self.rows(wallet) if other.id == row.id)

    def truth_of_order(self, wallet: Wallet, row: Any) -> int | None:
        """The order that a call has bought; another one where that was taken for a call's of the same."""
        owned = {other.order_id for other in self.rows(wallet) if other.kind == "order"}
        mine = [order_id for order_id, maker in wallet.made.items() if maker == (row.namespace, row.key)]
        known = orders_by_id(wallet)
        free = [
            order_id
            for order_id, order in known.items()
            if order_id not in owned and identity_of(order) == row.identity and order_id in candidates_of(row)
        ]
        return next((order_id for order_id in mine if order_id in free), free[0] if free else None)

    def truth_of_renewal(self, wallet: Wallet, row: Any) -> int | None:
        order_id = int(row.fingerprint.rpartition(" ")[2])
        done = renewals_of(self.rows(wallet), order_id, ("bought",))
        return order_id if wallet.service.order(order_id).renewals > len(done) else None


class Row:
    """A line of the ledger, with the identity of what was to be bought."""

    def __init__(self, row: Any) -> None:
        self.__dict__.update(row._mapping)
        asked = json.loads(row.request)
        names = ("product", "name", "country", "duration", "area_code")
        self.identity = tuple(asked[name] for name in names) if row.kind == "order" else None

    def __repr__(self) -> str:
        return f"Row({self.__dict__})"


def identity_of(order: SimulatedOrder) -> tuple[Any, ...]:
    """What was bought, as the ledger writes what was to be bought."""
    country = None if order.country_id is None else str(order.country_id)
    return order.product, order.service, country, order.duration, order.area_code


def limits(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("max_price", "daily_budget", "run_budget")}


def is_open(row: Any) -> bool:
    return row.state in ("sent", "unknown")


def is_alive(order: SimulatedOrder) -> bool:
    return order.status in ("pending", "active")


def serves(order: SimulatedOrder, used: set[int]) -> bool:
    """Whether an order has not ended, and can be handed out once more."""
    is_rental = order.product in ("rental", "rent-1day", "esim")
    return is_alive(order) and (is_rental or order.order_id not in used)


def candidates_of(row: Any) -> list[int]:
    candidates: list[int] = json.loads(row.candidates or "[]")
    return candidates


def orders_by_id(wallet: Wallet) -> dict[int, SimulatedOrder]:
    return {order.order_id: order for order in wallet.orders}


def renewals_of(rows: Iterable[Any], order_id: int, states: tuple[str, ...]) -> list[Any]:
    return [row for row in rows if row.fingerprint == f"renewal of {order_id}" and row.state in states]


def spent_on(orders: Iterable[SimulatedOrder]) -> Decimal:
    return sum((order.paid - order.refunded for order in orders), Decimal(0))


def spent_since(wallet: Wallet, since: float) -> Decimal:
    """USD that orders and renewals of a time have cost, refunds taken off."""
    paid: Counter[int] = Counter()
    refunded: Counter[int] = Counter()
    for move in wallet.movements:
        if move.order_id is None or move.order_id in wallet.foreign:
            continue
        if move.kind == "refund":
            refunded[move.order_id] += move.amount
        elif move.at.timestamp() >= since:
            paid[move.order_id] -= move.amount
    return sum(
        (max(amount - refunded[order_id], Decimal(0)) for order_id, amount in paid.items()), Decimal(0)
    )


# ------------------------------------------------------------------ running it


@contextmanager
def two_services() -> Iterator[list[Simulator]]:
    """Of two accounts, whose orders have the same ids."""
    services = [
        Simulator(api_key=API_KEY, sms_delay="never", rate_limit=None, balance=START).start()
        for _ in range(2)
    ]
    yield services
    for service in services:
        service.stop()


def run(world: World, **options: Any) -> None:
    """Runs examples; `options` are of hypothesis' `settings`."""
    machine = type("Money", (Money,), {"world": world})
    defaults = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
    run_state_machine_as_test(machine, settings=settings(**{**defaults, **options}))
