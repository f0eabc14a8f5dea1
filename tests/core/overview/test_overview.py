"""An overview shows what the records hold, with no request, few queries, and no secret."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from rigs import API_KEY, eventually
from rigs.history import fill
from rigs.rooms import rooms_of, store_of

from smsverify import errors
from smsverify._messages.callbacks import Callback
from smsverify._store.tables import purchases
from smsverify.hook import SmsVerifyHook
from smsverify.overview import Callbacks, Overview, Task
from smsverify.overview_tables import Fact, called, facts, tables
from smsverify.simulator import Fault, Simulator
from smsverify.wings import RunContext

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]

TASK = Task(
    framework="airflow",
    workflow="provision_many",
    name="order_number[3]",
    ids={"dag_id": "provision_many", "run_id": "r", "task_id": "order_number", "map_index": 3},
)
SECRET = "a-callback-secret-of-a-test"
CODE = "918273"
MOST_QUERIES = 11  # of one overview, the beginning of its transaction included


class Run(RunContext):
    """The run of a task."""

    def task(self) -> Task:
        return TASK


@contextmanager
def waiting(hook: SmsVerifyHook, order_id: int, timeout: float = 600.0) -> Iterator[None]:
    """Somebody waits for an order's code during this block."""
    stop = threading.Event()

    def wait() -> None:
        with pytest.raises(errors.WaitStoppedError):
            hook.wait_for_otp(order_id, timeout, stop=stop)

    thread = threading.Thread(target=wait)
    thread.start()
    eventually(lambda: hook.overview().waits.rows, "the wait is on record")
    yield
    stop.set()
    thread.join()


@contextmanager
def noting_queries() -> Iterator[list[str]]:
    """The statements that are executed during this block."""
    statements: list[str] = []

    def note(*args: Any) -> None:
        statements.append(args[2])

    sa.event.listen(sa.engine.Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        sa.event.remove(sa.engine.Engine, "before_cursor_execute", note)


@pytest.fixture
def full(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> Iterator[tuple[Simulator, SmsVerifyHook]]:
    """An account with something in each section."""
    simulator = simulate(balance="60")
    hook = make_hook(simulator, any_store_url, run_context=Run(), daily_budget="40", callback_secrets=SECRET)
    with_code, cancelled, awaited = (
        hook.order("temporary", service="WhatsApp", key=key).order_id
        for key in ("code", "cancelled", "awaited")
    )
    hook.order("rent-30days", service="Instagram", key="rental")
    hook.renew_expiring(40 * 86_400, max_price="1")
    simulator.deliver_sms(with_code, otp=CODE)
    assert hook.wait_for_otp(with_code, 30).otp == CODE
    hook.cancel(cancelled)
    simulator.add_fault(Fault("error_before", path="order/*/cancel/", times=None))
    to_give_back = hook.order("temporary", service="WhatsApp", key="back").order_id
    assert not hook.release(to_give_back, "nobody needs it")
    inbox = rooms_of(hook).inbox
    inbox.take(Callback(by_secret=True, kind="sms", is_documented=True, order_id=with_code, message="hello"))
    inbox.take(Callback(by_secret=False, kind="sms", is_documented=True, order_id=5, message="x"))
    simulator.add_fault(Fault("lost_answer", path="order/temporary/"))
    simulator.add_fault(Fault("error_before", path="orders/", times=None))
    with pytest.raises(errors.PurchaseUnknownError):
        hook.order("temporary", service="WhatsApp", key="unknown")
    hook.get_balance()
    with waiting(hook, awaited):
        yield simulator, hook


def test_each_section_shows_what_is_on_record(full: tuple[Simulator, SmsVerifyHook]) -> None:
    simulator, hook = full
    requests = simulator.stats().requests
    seen = eventually(lambda: _quiet(simulator, hook), "an overview without a poll beside it")
    assert simulator.stats().requests >= requests

    assert seen.account == hook.settings.account_id
    assert seen.wallet is not None
    assert seen.wallet.amount == simulator.balance()
    assert seen.spend.amount == Decimal("14.00")
    assert (seen.spend.budget, seen.spend.unpriced) == (Decimal(40), 0)
    assert timedelta() < seen.spend.resets_at - seen.at <= timedelta(days=1)
    assert [(one.workflow, one.amount) for one in seen.spend.workflows.rows] == [
        ("provision_many", Decimal("14.00"))
    ]
    assert 0 <= seen.requests.sent <= seen.requests.limit == 60
    # The service's minute lasts a second here.
    eventually(lambda: hook.get_balance() and hook.overview().requests.sent, "a request of the last minute")

    (wait,) = seen.waits.rows
    assert wait.task == TASK
    assert wait.cancels
    assert wait.until is not None
    assert timedelta(seconds=300) < wait.until - seen.at <= timedelta(seconds=600)
    assert wait.phone == hook.get_order(wait.order_id).phone

    assert (seen.callbacks.state, seen.callbacks.secrets) == ("healthy", 1)
    assert (seen.callbacks.by_secret, seen.callbacks.without_secret) == (1, 1)
    (release,) = seen.releases.rows
    assert (release.reason, release.planned) == ("nobody needs it", False)

    (rental,) = seen.rentals.rows
    assert (rental.outcome, rental.price, rental.kept_by) == ("too_expensive", Decimal("12.00"), TASK)
    assert (rental.renewals, rental.product) == (0, "rent-30days")

    states = {row.state for row in seen.orders.rows}
    assert states - {"unknown", "under_way"} == {"code_arrived", "waiting", "bought", "cancelled"}
    assert (seen.orders.bought, seen.orders.codes, seen.orders.unknown) == (5, 1, 1)
    (with_code,) = [row for row in seen.orders.rows if row.state == "code_arrived"]
    assert with_code.seconds_to_code is not None
    assert with_code.seconds_to_code > 0
    assert all(row.task == TASK for row in seen.orders.rows)


def _quiet(simulator: Simulator, hook: SmsVerifyHook) -> Overview | None:
    """An overview during which no poll has left: it has sent no request itself."""
    before = simulator.stats().requests
    seen = hook.overview()
    return seen if simulator.stats().requests == before else None


def test_it_names_what_a_reconciliation_finds_with_the_command_for_each(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate(balance="60")
    hook = make_hook(simulator, any_store_url, run_context=Run(), exclusive_account=False)
    hook.order("rent-30days", service="Instagram", key="rental")
    hook.renew_expiring(40 * 86_400, max_price="1")
    order_id = hook.order("temporary", service="WhatsApp", key="back").order_id
    simulator.add_fault(Fault("error_before", path="order/*/cancel/", times=None))
    assert not hook.release(order_id, "nobody needs it")
    simulator.add_fault(Fault("lost_answer", path="order/temporary/"))
    with pytest.raises(errors.PurchaseAmbiguousError) as unknown:
        hook.order("temporary", service="WhatsApp", key="unknown")
    (candidate,) = unknown.value.order_ids
    report, seen = hook.reconcile(), hook.overview()
    assert [(need.kind, need.command) for need in seen.needs.rows] == [
        ("purchase_unknown", f"smsverify resolve unknown --order {candidate}"),
        ("rental_not_kept", f"smsverify renew {seen.rentals.rows[0].order_id} --max-price 12.00"),
        ("not_given_back", f"smsverify cancel {order_id}"),
    ]
    assert all(need.task == TASK for need in seen.needs.rows)
    assert len(report.findings) == 2
    assert [call.key for call in report.unknown] == [seen.needs.rows[0].key]
    assert [held.order_id for held in report.to_cancel] == [row.order_id for row in seen.releases.rows]
    assert report.spent_today == seen.spend.amount
    assert seen.wallet is not None
    assert report.balance == seen.wallet.amount
    assert hook.reconcile().unknown[0].task == TASK


def test_no_code_no_text_and_no_secret_is_in_it(full: tuple[Simulator, SmsVerifyHook]) -> None:
    _, hook = full
    seen = hook.overview()
    shown = json.dumps(seen.as_dict()) + str(facts(seen)) + str(list(tables(seen))) + repr(seen)
    for secret in (CODE, "hello", API_KEY, SECRET):
        assert secret not in shown


def test_an_empty_account_has_an_overview(
    simulator: Simulator, make_hook: MakeHook, any_store_url: str
) -> None:
    hook = make_hook(simulator, any_store_url)
    seen = hook.overview()
    assert simulator.stats().requests == 0
    assert (seen.wallet, seen.needs.count, seen.orders.count, seen.waits.count) == (None, 0, 0, 0)
    assert (seen.spend.amount, seen.callbacks.state) == (Decimal(0), "off")
    assert Fact("Callbacks", "off", note="none is expected: callback_secrets is not set") in facts(seen)
    assert Overview.model_validate_json(seen.model_dump_json()) == seen


def test_a_figure_with_a_limit_says_how_close_it_is(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook(simulator, store_url, daily_budget="1")
    levels = []
    for key in ("first", "second"):
        hook.order("temporary", service="WhatsApp", key=key)
        spent = next(fact for fact in facts(hook.overview()) if fact.name.startswith("Spent"))
        levels.append(spent.level)
    assert levels == ["", "warn"]
    assert (spent.text, spent.used, spent.most) == ("0.80 of 1.00 USD", 0.8, 1.0)


def test_callbacks_that_have_stopped_are_said_with_the_reason() -> None:
    at = datetime(2026, 1, 1, tzinfo=timezone.utc)
    given = dict.fromkeys(Callbacks.model_fields) | {"secrets": 1, "by_secret": 1, "without_secret": 0}
    silent = Callbacks.model_validate(
        given | {"refused": 0, "state": "silent", "last_at": at - timedelta(hours=2)}
    )
    assert called(silent, at) == "last 2 h 0 min ago, and the newest SMS came without one"


def test_a_rental_that_was_renewed_since_needs_nobody(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook(simulate(balance="60"), store_url)
    rental = hook.order("rent-30days", service="Instagram", key="rental").order_id
    hook.renew_expiring(40 * 86_400, max_price="1")
    assert [need.kind for need in hook.overview().needs.rows] == ["rental_not_kept"]
    hook.renew(rental)
    seen = hook.overview()
    assert seen.needs.rows == []
    assert [(row.renewals, row.outcome) for row in seen.rentals.rows] == [(1, None)]


def test_a_code_that_nobody_has_fetched_is_named_with_the_command_that_prints_it(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url)
    order_id = hook.order("temporary", service="WhatsApp", key="k").order_id
    simulator.deliver_sms(order_id, otp=CODE)
    assert hook.get_status(order_id).arrived
    store, records = store_of(hook), rooms_of(hook).orders.records
    with store.write() as connection:
        long_ago = store.now(connection) - 7200
        records.update(connection, order_id, first_seen_at=long_ago, waiter_since=long_ago)
    (need,) = hook.overview().needs.rows
    assert (need.kind, need.command) == ("not_used", f"smsverify wait {order_id}")
    assert hook.wait_for_otp(order_id, 30).otp == CODE
    assert hook.overview().needs.rows == []


def test_sections_are_bounded_and_the_queries_few_however_much_is_on_record(
    make_hook: MakeHook, any_store_url: str
) -> None:
    hook = make_hook("http://127.0.0.1:9", any_store_url)
    # 180 are of the last 24 hours.
    fill(hook, orders=90 * 180, messages=1_620, waits=120, rentals=60, releases=70)
    hook.overview()
    with noting_queries() as statements:
        seen = hook.overview()
    assert len(statements) <= MOST_QUERIES, "\n\n".join(statements)
    for section, count in ((seen.waits, 120), (seen.rentals, 60), (seen.releases, 70)):
        assert (len(section.rows), section.count) == (50, count)
    assert len(seen.orders.rows) == 50
    assert 175 <= seen.orders.count == seen.orders.bought <= 185
    # Of those that nobody waits for, one in twenty has expired without a refund, and is named for a day.
    assert 2 <= seen.needs.count == len(seen.needs.rows) <= 4
    assert {(need.kind, need.command) for need in seen.needs.rows} == {("not_used", None)}
    assert all(need.task is not None for need in seen.needs.rows)
    assert (seen.delivery.numbers, len(seen.delivery.rows), seen.delivery.count) == (300, 50, 60)
    midnight = (seen.spend.resets_at - timedelta(days=1)).timestamp()
    today = sa.select(purchases.c.workflow).where(purchases.c.sent_at >= midnight).distinct()
    with store_of(hook).read() as connection:
        assert len(seen.spend.workflows.rows) == len(connection.execute(today).all())
    assert seen.waits.longest_since is not None
    assert timedelta(seconds=58) < seen.at - seen.waits.longest_since < timedelta(seconds=90)
