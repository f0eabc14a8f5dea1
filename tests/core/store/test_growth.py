"""What a call costs does not grow with what is over: counted in steps of SQLite's machine, which no other
program on the computer changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from rigs import API_KEY
from rigs.bulk import fill_history, fill_unfinished, keep_waits_alive

from smsverify._store.tables import messages, orders, purchases
from smsverify.hook import SmsVerifyHook
from smsverify.models import Message
from smsverify.simulator import Simulator

LITTLE, MUCH = 300, 3_000  # orders
pytestmark = pytest.mark.slow

STEPS = 20  # of SQLite's machine that are counted as one
TIMES = 5  # measurements of each call
Call = Callable[[SmsVerifyHook, int], object]


def purchase(hook: SmsVerifyHook, number: int) -> None:
    hook.order("temporary", service="WhatsApp", key=f"k{number}", run_budget=50)


def look(hook: SmsVerifyHook, number: int) -> None:
    waiter = hook._parts.waiter
    waiter._take_snapshot()
    for is_urgent in (True, False):
        waiter._poller.schedule.claim_due(urgent=is_urgent, looks=True, poll=True)


def message(hook: SmsVerifyHook, number: int) -> None:
    inbox = hook._parts.inbox
    inbox._next_purge = 0.0
    order_id = hook.order("temporary", service="WhatsApp", key="gets messages").order_id
    inbox.put(Message(order_id=order_id, otp=f"{123456 + number}", message=f"It is {123456 + number}"))
    inbox.newest([order_id])


def purchase_beside_an_unknown_one(hook: SmsVerifyHook, number: int) -> None:
    """Those that have followed the unknown one are counted first."""
    hook.order("temporary", service="WhatsApp", key=f"unknown {number}")
    this = sa.and_(purchases.c.account == hook.settings.account_id, purchases.c.namespace == "",
                   purchases.c.key == f"unknown {number}")  # fmt: skip
    with hook._parts.store.write() as connection:
        connection.execute(sa.update(purchases).where(this).values(state="unknown"))
    hook.order("temporary", service="WhatsApp", key=f"beside {number}")
    with hook._parts.store.write() as connection:
        connection.execute(sa.update(purchases).where(this).values(state="bought"))


def put_old_messages(hook: SmsVerifyHook, number: int, order_id: int) -> None:
    """Messages of one order, whose texts are purged."""
    this = {"account": hook.settings.account_id, "order_id": order_id, "came_at": 0.0}
    rows = [this | {"shown_as": f"{one}", "called_as": f"{one}", "received_at": one} for one in range(number)]
    with hook._parts.store.write() as connection:
        connection.execute(sa.insert(messages), rows)


CALLS: dict[str, Call] = {
    "purchase": purchase,
    "purchase beside an unknown one": purchase_beside_an_unknown_one,
    "look": look,
    "message": message,
    "reconcile": lambda hook, _: hook.reconcile(),
    "rentals": lambda hook, _: hook.rentals(),
    "renewals": lambda hook, _: hook.renew_expiring(0, dry_run=True),
}


class Counter:
    """Counts the steps of all statements, the rows that are fetched included."""

    def __init__(self) -> None:
        self.steps = 0
        self.queries = 0

    def note(self, connection: sa.Connection, *_: Any) -> None:
        self.queries += 1
        raw: Any = connection.connection.dbapi_connection
        raw.set_progress_handler(self._step, STEPS)

    def _step(self) -> int:
        self.steps += 1
        return 0


@contextmanager
def counted() -> Iterator[Counter]:
    counter = Counter()
    sa.event.listen(sa.engine.Engine, "before_cursor_execute", counter.note)
    try:
        yield counter
    finally:
        sa.event.remove(sa.engine.Engine, "before_cursor_execute", counter.note)


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[SmsVerifyHook]]:
    """Hooks on stores with little and much history, and the same that is unfinished."""
    directory = tmp_path_factory.mktemp("history")
    service = {"rate_limit": None, "first_order_id": 5_000_000_000, "sms_delay": "never"}
    with ExitStack() as running:
        made = []
        for orders in (LITTLE, MUCH):
            simulator = running.enter_context(Simulator(api_key=API_KEY, **service))
            url = f"sqlite:///{directory}/{orders}.db"
            account = {"rate_limit": 600, "daily_budget": 40}
            hook = SmsVerifyHook(API_KEY, base_url=simulator.url, store_url=url, **account)
            running.callback(hook._parts.store.close)
            fill_history(hook, orders, days=60.0)
            fill_unfinished(hook, waits=20, rentals=5)
            bought = hook.order("temporary", service="WhatsApp", key="gets messages")
            put_old_messages(hook, orders, bought.order_id)
            hook.reconcile()
            hook.rentals()
            made.append(hook)
        yield made


@pytest.mark.parametrize("name", CALLS)
def test_what_is_over_costs_nothing(name: str, hooks: list[SmsVerifyHook]) -> None:
    steps, queries = [], []
    for hook in hooks:
        keep_waits_alive(hook)
        CALLS[name](hook, 0)
        counts = []
        for number in range(1, TIMES + 1):
            with counted() as counter:
                CALLS[name](hook, number)
            counts.append((counter.steps, counter.queries))
        # The smallest: now and then, a call also does what is due once in a while.
        steps.append(min(of_call for of_call, _ in counts))
        queries.append(min(of_call for _, of_call in counts))
    assert queries[1] <= queries[0]
    # Ten times as much history.
    assert steps[1] <= steps[0] * 1.05 + 10


def test_old_messages_cost_an_overview_nothing(hooks: list[SmsVerifyHook]) -> None:
    hook = hooks[0]

    def steps() -> int:
        keep_waits_alive(hook)
        hook.overview()
        with counted() as counter:
            hook.overview()
        return counter.steps

    before = steps()
    put_old_messages(hook, MUCH, order_id=1)
    assert steps() <= before * 1.05 + 10


def test_rentals_that_go_on_cost_nothing_where_unused_numbers_are_looked_for(
    hooks: list[SmsVerifyHook],
) -> None:
    hook = hooks[0]

    def steps() -> int:
        hook.reconcile()
        with counted() as counter:
            hook.reconcile()
        return counter.steps

    before = steps()
    long_ago = {"first_seen_at": 1_000_000_000.0, "expires_estimated": False}
    rental = {"account": hook.settings.account_id, "product": "rental", "status": "active", "key": "k"}
    with hook._parts.store.write() as connection:
        rows = [long_ago | rental | {"order_id": number} for number in range(1, MUCH)]
        connection.execute(sa.insert(orders), rows)
    assert steps() <= before * 1.05 + 10
