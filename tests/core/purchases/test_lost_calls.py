"""An older state of the store is put back while a paid call is under way: its key pays no second time."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from rigs.older_state import as_another_process, remember
from rigs.processes import stopped
from rigs.purchases import buy, lose, unknown
from rigs.rooms import rooms_of, settings_of, store_of

from smsverify import NotAvailableError, PurchaseUnknownError, StoreError
from smsverify._purchases.ledger import Ledger
from smsverify._store.tables import purchases
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Fault, Simulator

pytestmark = pytest.mark.slow

MakeHook = Callable[..., SmsVerifyHook]
OUTCOMES = ("record_bought", "record_renewed", "record_unknown", "record_rejected")
MOMENTS = {"before it is planned": "plan", "before it leaves": "mark_sent"}
TINDER = {"product": "rent-1day", "service": "Tinder"}


@pytest.fixture
def hook(simulator: Simulator, make_hook: MakeHook, any_store_url: str) -> SmsVerifyHook:
    hook = make_hook(simulator, any_store_url)
    buy(hook, "before")
    return hook


class Loss:
    """Puts back an older state between the service's answer and its record.

    Args:
        hook: buys.
        moment: the method of the ledger before whose first call the state is remembered.
    """

    def __init__(self, hook: SmsVerifyHook, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.meanwhile: Callable[[], Any] = lambda: None
        """What others do after the older state is there, and before the answer is on record."""
        self.before: Callable[[], Any] = lambda: None
        """What is done after the older state is remembered, and is lost."""
        right = {name: getattr(Ledger, name) for name in (moment, *OUTCOMES)}
        url = str(hook.settings.store_url.get_secret_value())
        states: list[Callable[[], None]] = []

        def remembering(*given: Any, **named: Any) -> Any:
            if not states:
                states.append(remember(url))
                self.before()
            return right[moment](*given, **named)

        def losing(name: str) -> Any:
            def record(*given: Any) -> Any:
                monkeypatch.undo()
                states[0]()
                self.meanwhile()
                return right[name](*given)

            return record

        monkeypatch.setattr(Ledger, moment, remembering)
        for name in OUTCOMES:
            monkeypatch.setattr(Ledger, name, losing(name))


def calls(hook: SmsVerifyHook, key: str = "k") -> list[tuple[str, int | None]]:
    """The state and the order of each call of a key, in the order of its generations."""
    this = sa.select(purchases).where(purchases.c.key == key).order_by(purchases.c.generation)
    with store_of(hook).read() as connection:
        return [(row.state, row.order_id) for row in connection.execute(this)]


def bought(simulator: Simulator) -> list[int]:
    """What was bought after the fixture's order, the earliest first."""
    return sorted(order.order_id for order in simulator.orders())[1:]


def spent(hook: SmsVerifyHook) -> Decimal:
    with store_of(hook).read() as connection:
        return rooms_of(hook).ledger.spending.today(connection).amount


# ------------------------------------------------------------------ purchases


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_purchase_that_the_store_has_lost_is_put_back_with_its_answer(
    moment: str, simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    Loss(hook, moment, monkeypatch)
    order_id = buy(hook).order_id
    with pytest.raises(StoreError, match="older state"):  # of the rest, this process knows nothing
        buy(hook, "another")
    other = as_another_process(hook)
    assert buy(other).order_id == order_id
    assert bought(simulator) == [order_id]
    assert spent(hook) == Decimal("0.80")
    assert other.get_order(order_id).key == "k"
    buy(other, "another")
    assert other.reconcile().findings == []


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_purchase_whose_answer_is_lost_too_is_put_back_and_found(
    moment: str, simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    Loss(hook, moment, monkeypatch)
    lose(simulator)
    assert "on record" in str(unknown(hook))
    assert calls(hook) == [("unknown", None)]
    assert spent(hook) == Decimal("0.80")
    assert buy(as_another_process(hook)).order_id == bought(simulator)[0]
    assert len(bought(simulator)) == 1


def test_a_purchase_that_was_refused_leaves_nothing_to_put_back(
    simulator: Simulator,
    hook: SmsVerifyHook,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    Loss(hook, "plan", monkeypatch)
    lose(simulator, "out_of_stock")
    with pytest.raises(NotAvailableError):
        buy(hook)
    assert "could not be recorded" not in caplog.text
    assert calls(hook) == []
    assert spent(hook) == Decimal("0.40")


def test_a_list_that_has_shown_the_order_meanwhile_makes_it_no_older_one(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account's sequence gives the same numbers again."""
    loss = Loss(hook, "plan", monkeypatch)
    loss.before = hook.get_balance  # which has a number, too
    loss.meanwhile = hook.list_orders
    order_id = buy(hook).order_id
    assert calls(hook) == [("bought", order_id)]
    assert bought(simulator) == [order_id]


def test_a_call_that_has_got_its_row_s_id_meanwhile_keeps_it(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Loss(hook, "plan", monkeypatch)
    others: list[int] = []
    loss.meanwhile = lambda: others.append(buy(as_another_process(hook), "another").order_id)
    order_id = buy(hook).order_id
    assert calls(hook) == [("bought", order_id)]
    assert calls(hook, "another") == [("bought", others[0])]
    assert bought(simulator) == [order_id, others[0]]
    assert spent(hook) == Decimal("1.20")


def test_a_row_is_put_back_once_although_its_transaction_is_repeated(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the transaction may have been lost on the way back."""
    loss = Loss(hook, "plan", monkeypatch)
    record, given = Ledger.record_bought, []

    def recording(*arguments: Any) -> Any:
        given.append(arguments)
        return record(*arguments)

    monkeypatch.setattr(Ledger, "record_bought", recording)
    loss.meanwhile = lambda: buy(as_another_process(hook), "another")
    order_id = buy(hook).order_id
    monkeypatch.undo()
    assert Ledger.record_bought(*given[0]).order_id == order_id
    assert calls(hook) == [("bought", order_id)]


# ------------------------------------------------------------------ another caller of the key meanwhile


@pytest.mark.parametrize(
    ("place", "is_second"), [("plan", False), ("mark_sent", True)], ids=["planned", "sent"]
)
@pytest.mark.parametrize("is_answer_lost", [False, True], ids=["answered", "lost"])
def test_a_caller_of_the_key_that_comes_meanwhile_buys_only_where_it_has_sent_already(
    place: str,
    is_second: bool,
    is_answer_lost: bool,
    simulator: Simulator,
    hook: SmsVerifyHook,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = {
        "settings": settings_of(hook),
        "order": {"product": "temporary", "service": "WhatsApp", "key": "k"},
    }
    other = stopped("buy", f"smsverify._purchases.ledger.Ledger.{place}", tmp_path, **arguments)
    got: list[list[Any]] = []
    loss = Loss(hook, "plan", monkeypatch)
    loss.meanwhile = lambda: got.append(other.__enter__())
    if is_answer_lost:
        lose(simulator)
        unknown(hook)
        other.__exit__(None, None, None)
    else:
        buy(hook)
        other.__exit__(None, None, None)
    ids = bought(simulator)
    assert len(ids) == 1 + is_second
    assert got == [[ids[-1]]]
    assert [order_id for _, order_id in calls(hook)][-1] == ids[-1]
    assert buy(as_another_process(hook)).order_id == ids[-1]
    assert bought(simulator) == ids
    assert spent(hook) == Decimal("0.40") * (1 + len(ids))


# ------------------------------------------------------------------ renewals


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
@pytest.mark.parametrize("is_answer_lost", [False, True], ids=["answered", "lost"])
def test_a_renewal_that_the_store_has_lost_is_put_back(
    is_answer_lost: bool,
    moment: str,
    simulator: Simulator,
    hook: SmsVerifyHook,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order_id = hook.order(**TINDER).order_id
    if is_answer_lost:
        simulator.add_fault(Fault("lost_answer", path="order/*/renew/"))
    Loss(hook, moment, monkeypatch)
    if is_answer_lost:
        with pytest.raises(PurchaseUnknownError, match="on record"):
            hook.renew(order_id, key="monday")
    else:
        hook.renew(order_id, key="monday")
    other = as_another_process(hook)
    assert other.renew(order_id, key="monday").order_id == order_id
    assert simulator.order(order_id).renewals == 1
    assert calls(hook, "monday") == [("bought", order_id)]
