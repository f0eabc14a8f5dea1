"""Heartbeats of calls that are planned and wait for their turn: one write for all of a process."""

from __future__ import annotations

import contextlib
import itertools
from types import SimpleNamespace

import pytest
from rigs.clocks import later
from rigs.rooms import rooms_of

from smsverify._purchases.calls import Intent, Purchase, UnderWay
from smsverify._purchases.spending import Caps
from smsverify._runtime import heartbeats
from smsverify.hook import SmsVerifyHook


def test_a_heartbeat_is_for_all_plans_of_the_process_but_for_one_that_was_taken_over(
    hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    always_due = SimpleNamespace(monotonic=itertools.count(step=100).__next__)
    monkeypatch.setattr(heartbeats, "time", always_due)
    ledger = rooms_of(hook).ledger

    def plan(key: str) -> Intent:
        intent = ledger.plan(Purchase(key, "order", "f", Caps()), {}, None)
        assert isinstance(intent, Intent)
        return intent

    with contextlib.ExitStack() as waiting:
        first, second, _ = (waiting.enter_context(ledger.heartbeats.of(plan(key))) for key in "abc")
        later(monkeypatch, 60)
        plan("b")
        later(monkeypatch, 60)
        first()
        alive = [key for key in "abc" if ledger.heartbeat(key) is not None]
        with pytest.raises(UnderWay):
            second()
    assert alive == ["a", "c"]
