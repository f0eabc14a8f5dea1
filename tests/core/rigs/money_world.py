"""The world of the money machine: services, wallets, users and hooks, and what their rows say."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any

import pytest

from rigs import API_KEY
from rigs.money import Clock, Deaths, Died, Stops, Wire
from rigs.wire import closed_port
from smsverify._orders.orders import Orders
from smsverify._orders.records import Records
from smsverify._parts import SHORTEST_PLAN_ALIVE, Parts
from smsverify._purchases.ledger import Ledger
from smsverify._purchases.sending import Sender
from smsverify.errors import SmsVerifyError
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Movement, SimulatedOrder, Simulator
from smsverify.wings import RunContext

DAY = 86_400.0
START = Decimal(40)
READ_TIMEOUT = 0.15
SLOW = 0.2  # seconds, longer than a client waits
LAG = 8.0  # seconds for which the service does not show what was bought
GRACE = 30.0  # seconds; after which only the wallet shows what the list does not
LONG_LAG = 4 * GRACE
LEASE = 10.0  # seconds that one call may take
CALM_LEASE = 30.0  # the same where nothing goes wrong, and nothing may seem to
# The settings that they follow from.
HURRIED = {"connect_timeout": (LEASE - 3.3 * READ_TIMEOUT) / 2, "read_timeout": READ_TIMEOUT}
CALM = {"connect_timeout": CALM_LEASE / 5.3, "read_timeout": CALM_LEASE / 5.3}
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


class Run(RunContext):
    """A run of a name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        return self._name


class ShortLists(Parts):
    """The parts of a hook on a service that lists few orders."""

    @cached_property
    def orders(self) -> Orders:
        settings = self.settings
        records = Records(
            self.store, settings.account_id, address=settings.base_url, time_scale=settings.time_scale
        )
        return Orders(self.api, records, self.inbox, time_scale=settings.time_scale, list_length=LIST_LENGTH)

    @cached_property
    def ledger(self) -> Ledger:
        settings = self.settings
        return Ledger(
            self.store,
            self.orders,
            settings.account_id,
            namespace=settings.namespace,
            lease=settings.longest_exchange,
            patience=SHORTEST_PLAN_ALIVE,
            grace=settings.purchase_grace,
            run_ahead=RUN_AHEAD,
        )


class Hook(SmsVerifyHook):
    """A new process's hook."""

    @cached_property
    def _parts(self) -> Parts:
        return ShortLists(self.settings, self._run_context)


@dataclass
class Wallet:
    """A wallet at the service, and what has really been bought with it by whom.

    Attributes:
        service: the simulator.
        account: its name in the store.
        made: who has bought an order, by its id.
        renewed: how often which key has renewed an order.
        foreign: the orders that were not bought through the store.
        explained: the movements, by their number, of which it is written down who made them.
    """

    service: Simulator
    account: str
    made: dict[int, tuple[str, str]] = field(default_factory=dict)
    renewed: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    foreign: set[int] = field(default_factory=set)
    explained: set[int] = field(default_factory=set)

    @property
    def all_orders(self) -> list[SimulatedOrder]:
        return self.service._gateway.state.orders()  # as the verb `orders`, which goes through JSON

    @property
    def orders(self) -> list[SimulatedOrder]:
        return [order for order in self.all_orders if order.order_id not in self.foreign]

    @property
    def movements(self) -> list[Movement]:
        return self.service._gateway.state.movements()

    def may_be_forgotten(self, order: SimulatedOrder) -> bool:
        """Whether an order was refunded in full and the list shows it only after the grace.

        Neither the list nor the wallet shows that it was ever made, and no money is missing.
        """
        entry = self.service._gateway.state._entries[order.order_id]
        is_late = entry.listed_from - order.created_at.timestamp() > GRACE
        return is_late and order.refunded == order.paid


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
        self.stops = Stops(monkeypatch)
        self.wire = Wire(monkeypatch)
        self.nobody = f"http://127.0.0.1:{closed_port()}"
        self.accounts = (f"account-{number}" for number in itertools.count())
        self.order_ids = itertools.count(458_731, 1000)
        self.steps: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        for service in services:
            self.wire.watch(service)
        # Who waits for a process that has died waits until it must have.
        monkeypatch.setattr(Sender, "wait_for_another", lambda *_: self.clock.pass_by(LEASE))

    def hook(self, user: User, *, base_url: str | None = None, run: str = "run-1", **options: Any) -> Hook:
        """A new process's hook."""
        wallet = {"account": user.wallet.account, "namespace": user.namespace}
        return self.hook_at(base_url or user.wallet.service.url, run=run, **{**wallet, **options})

    def hook_at(self, base_url: str, *, run: str, **options: Any) -> Hook:
        """The same at an address, for any account."""
        defaults = {
            "rate_limit": 200,
            "rate_period": 0.5,
            **HURRIED,
            "call_timeout": 5.0,
            "purchase_grace": GRACE,
        }
        return Hook(
            API_KEY,
            base_url=base_url,
            store_url=self.store_url,
            run_context=Run(run),
            **{**defaults, **options},
        )

    def act(
        self, user: User, call: Callable[[Hook], Any], *, places: int | None = None, **options: Any
    ) -> Any:
        """What a process's call returns; `None` where it fails or the process dies."""
        self.deaths.arm(places)
        try:
            return call(self.hook(user, **options))
        except SmsVerifyError as error:
            self.outcomes[type(error).__name__] += 1
        except Died:
            self.outcomes["Died"] += 1
        finally:
            self.deaths.arm(None)
            self.wire.await_silence()
        return None

    def set_price(self, offer: str, which: int) -> None:
        for service in self.services if offer in PRICES else ():
            service.set_offer(OFFERS[offer]["product"], SERVICE_IDS[offer], price=PRICES[offer][which])

    def summary(self) -> str:
        """What has been done, and what came of it."""
        counts = {
            name: self.steps[name]
            for name in ("example", "order", "renew", "reconcile", "fault", "clock", "defect")
        }
        counts |= {name: self.outcomes[name] for name in ("paid", "Died", "PurchaseUnknownError", "resolved")}
        counts["step"] = sum(self.steps.values()) - self.steps["example"]
        return ", ".join(f"{count} × {name}" for name, count in counts.items())


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
    return {name: options[name] for name in ("max_price", "run_budget")}


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
