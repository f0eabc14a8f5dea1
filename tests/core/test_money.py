"""Whatever happens in whatever order: no money is lost, and every paid order is accounted for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import Phase
from rigs.money_machine import World, run, two_services

from smsverify import spending
from smsverify.ledger import Intent, Ledger
from smsverify.purchasing import Purchases
from smsverify.recovery import Matching, Recovery
from smsverify.transport import Transport

SOAK = bool(os.environ.get("SMSVERIFY_SOAK"))
ROUNDS, EXAMPLES = 20, 10


@pytest.fixture
def world(any_store_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with two_services() as services:
        yield World(any_store_url, monkeypatch, services)


def test_whatever_happens_no_money_is_lost(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    if not SOAK:
        run(world, max_examples=6, stateful_step_count=20, derandomize=True)
        return
    began = time.monotonic()
    for number in range(ROUNDS):
        # What fails is told as it is: to make it smaller takes longer than to understand it.
        run(world, max_examples=EXAMPLES, stateful_step_count=40, phases=[Phase.generate])
        with capsys.disabled():
            seconds = time.monotonic() - began
            print(f"  round {number + 1} of {ROUNDS}, {seconds:.0f} s: {world.summary()}", flush=True)


# ------------------------------------------------------------------ the machine sees what is broken


def without_an_intent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "sending", lambda self, intent: None)


def with_a_second_post_after_a_5xx(monkeypatch: pytest.MonkeyPatch) -> None:
    post = Transport.post

    def repeated(self: Transport, *arguments: Any, **options: Any) -> Any:
        return post(self, *arguments, **{**options, "is_repeatable": True})

    monkeypatch.setattr(Transport, "post", repeated)


def with_unknown_taken_for_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    def rejected(self: Ledger, intent: Intent, reason: str) -> None:
        self.rejected(intent, reason)

    monkeypatch.setattr(Ledger, "unknown", rejected)


def with_what_is_open_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spending, "_MAY_HAVE_COST", ("bought",))


def without_a_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    settle = Recovery.settle

    def at_once(self: Recovery) -> Any:
        self._grace = 0.0
        return settle(self)

    monkeypatch.setattr(Recovery, "settle", at_once)


def with_an_order_given_to_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smsverify.orderbook.OrderBook.assign", lambda *_: None)


def with_a_new_order_for_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Purchases, "_can_still_serve", lambda *_: False)


def with_nothing_ever_adopted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smsverify.recovery.match", lambda *_: Matching({}, {}))


# Damages that a random walk meets often enough; rarer ones have examples in test_recovery.py.
BREAKS: list[Callable[[pytest.MonkeyPatch], None]] = [
    without_an_intent,
    with_a_second_post_after_a_5xx,
    with_unknown_taken_for_rejected,
    with_what_is_open_not_counted,
    without_a_grace,
    with_an_order_given_to_two,
    with_a_new_order_for_each_call,
    with_nothing_ever_adopted,
]


if SOAK:

    @pytest.mark.parametrize("damage", BREAKS, ids=lambda damage: damage.__name__)
    def test_a_broken_ledger_is_noticed(
        damage: Callable[[pytest.MonkeyPatch], None],
        store_url: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        with two_services() as services:
            world = World(store_url, monkeypatch, services)
            damage(monkeypatch)
            with pytest.raises(AssertionError) as caught:
                run(world, max_examples=400, phases=[Phase.generate])
        with capsys.disabled():
            reason = str(caught.value).partition("\n")[0]
            print(f"  noticed after {world.steps['example'] + 1} examples: {reason}", flush=True)
