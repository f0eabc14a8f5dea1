"""A planned call that has to let another one pass goes on as soon as that is over, at its own turn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from rigs.purchases import buy, posts
from rigs.rooms import rooms_of

from smsverify import _parts
from smsverify._purchases.calls import Intent, Purchase, renewal_of
from smsverify._purchases.ledger import Ledger
from smsverify._purchases.spending import Caps
from smsverify._runtime.clock import DAY
from smsverify.errors import PurchaseUnknownError
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Simulator

mark_sent = Ledger.mark_sent


@pytest.fixture(autouse=True)
def plans_live_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing goes on merely because a plan counts as dead after a while."""
    monkeypatch.setattr(_parts, "PLAN_ALIVE", DAY)


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    """Ends a call that would wait for a day."""
    event = threading.Event()
    timer = threading.Timer(60, event.set)
    timer.start()
    yield event
    timer.cancel()


@pytest.fixture
def rental(hook: SmsVerifyHook) -> int:
    return buy(hook, "before", product="rent-30days").order_id


def sent_by_another(ledger: Ledger, rental: int) -> Intent:
    """A renewal of the rental under another key, whose answer may still come."""
    another = Purchase("another", "renewal", renewal_of(rental), Caps())
    return mark_sent(ledger, planned(ledger, another, order_id=rental))


def planned(ledger: Ledger, purchase: Purchase, **request: int) -> Intent:
    intent = ledger.plan(purchase, request, None)
    assert isinstance(intent, Intent)
    return intent


def before_leaving(monkeypatch: pytest.MonkeyPatch, key: str, *acts: Callable[[], object]) -> list[str]:
    """Does something each time a call with a key is about to leave; returns what has been about to."""
    tried: list[str] = []
    left = iter(acts)

    def act_first(self: Ledger, intent: Intent) -> Intent:
        if intent.key == key:
            tried.append(key)
            next(left, lambda: None)()
        return mark_sent(self, intent)

    monkeypatch.setattr(Ledger, "mark_sent", act_first)
    return tried


def test_a_purchase_that_would_run_ahead_leaves_when_the_earlier_one_has_its_answer(
    simulator: Simulator,
    hook: SmsVerifyHook,
    stop: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(Ledger.__init__.__kwdefaults__, "run_ahead", 0)
    buy(hook, "before")
    ledger = rooms_of(hook).ledger
    first = planned(ledger, Purchase("first", "order", "f", Caps()))
    tried = before_leaving(
        monkeypatch,
        "second",
        lambda: mark_sent(ledger, first),
        lambda: ledger.record_rejected(first, "the service has refused it"),
    )
    order = buy(hook, "second", stop=stop)
    assert tried == ["second"] * 2
    assert order.order_id in [one.order_id for one in simulator.orders()]
    assert posts(simulator) == 2


def test_a_renewal_leaves_when_another_one_of_its_rental_was_refused(
    simulator: Simulator,
    hook: SmsVerifyHook,
    rental: int,
    stop: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger, first = rooms_of(hook).ledger, list[Intent]()
    tried = before_leaving(
        monkeypatch,
        "own",
        lambda: first.append(sent_by_another(ledger, rental)),
        lambda: ledger.record_rejected(first[0], "the service has refused it"),
    )
    assert hook.renew(rental, key="own", stop=stop).order_id == rental
    assert tried == ["own"] * 2
    assert posts(simulator, f"order/{rental}/renew") == 1


def test_a_renewal_that_was_not_sent_is_planned_anew_at_once(
    simulator: Simulator,
    hook: SmsVerifyHook,
    rental: int,
    stop: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger, first = rooms_of(hook).ledger, list[Intent]()

    def lose_another() -> None:
        first.append(sent_by_another(ledger, rental))
        ledger.record_unknown(first[0], "its answer was lost")

    before_leaving(monkeypatch, "own", lose_another)
    with pytest.raises(PurchaseUnknownError):
        hook.renew(rental, key="own", stop=stop)
    ledger.record_rejected(first[0], "a person has found out that it was not made")
    assert hook.renew(rental, key="own", stop=stop).order_id == rental
    assert posts(simulator, f"order/{rental}/renew") == 1
