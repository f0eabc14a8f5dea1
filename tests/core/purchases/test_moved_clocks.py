"""Money and waits while clocks are set: the one of the process, on both databases, and the database's own."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from rigs.clocks import DatabaseClock

from smsverify import errors
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Fault, Simulator

DAY = 86_400.0
STEPS = [61.0, -61.0, DAY, -DAY]

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]
Step = Callable[[float], None]


@pytest.fixture(
    params=[
        "process, SQLite",
        pytest.param("process, PostgreSQL", marks=pytest.mark.slow),
        pytest.param("database", marks=pytest.mark.slow),
    ]
)
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Step]:
    """A store, and what sets a clock by so many seconds."""
    if request.param == "database":
        clock: DatabaseClock = request.getfixturevalue("database_clock")
        return request.getfixturevalue("shared_store_url"), clock.step
    right, steps = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: right() + sum(steps))
    is_sqlite = request.param.endswith("SQLite")
    return request.getfixturevalue("store_url" if is_sqlite else "shared_store_url"), steps.append


@pytest.mark.slow
@pytest.mark.parametrize("seconds", STEPS)
def test_a_step_ends_no_grace_of_a_purchase_whose_answer_was_lost(
    seconds: float, where: tuple[str, Step], simulate: Simulate, make_hook: MakeHook
) -> None:
    """The list is late. A purchase that counts as not made after its grace must not be made twice."""
    url, step = where
    simulator = simulate(list_lag=90)
    hook = make_hook(simulator, url, purchase_grace=60)
    simulator.add_fault(Fault("lost_answer", path="order/temporary/"))
    order, patience = None, time.monotonic() + 120
    while order is None:
        assert time.monotonic() < patience
        try:
            order = hook.order("temporary", service="WhatsApp", key="k")
        except errors.PurchaseUnknownError:
            step(seconds)
    assert [one.order_id for one in simulator.orders()] == [order.order_id]


@pytest.mark.slow
@pytest.mark.parametrize("seconds", STEPS)
def test_a_step_begins_no_new_day_of_a_budget(
    seconds: float, where: tuple[str, Step], simulate: Simulate, make_hook: MakeHook
) -> None:
    url, step = where
    simulator = simulate()
    hook = make_hook(simulator, url, daily_budget="0.50")
    hook.order("temporary", service="WhatsApp")
    step(seconds)
    with pytest.raises(errors.SpendingLimitError):
        hook.order("temporary", service="WhatsApp")
    assert len(simulator.orders()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seconds", STEPS)
def test_a_step_holds_up_no_poll_and_ends_no_wait(
    seconds: float, where: tuple[str, Step], simulate: Simulate, make_hook: MakeHook
) -> None:
    url, step = where
    simulator = simulate(sms_delay=5)
    hook = make_hook(simulator, url)
    first = hook.order("temporary", service="WhatsApp")
    assert hook.wait_for_otp(first.order_id, 30).otp
    second = hook.order("temporary", service="WhatsApp")
    step(seconds)
    assert hook.wait_for_otp(second.order_id, 30).otp
    assert simulator.stats().refused == 0


@pytest.mark.slow
@pytest.mark.parametrize("seconds", STEPS)
def test_a_step_makes_no_old_list_of_a_catalogue_new_and_no_new_one_old(
    seconds: float, where: tuple[str, Step], simulate: Simulate, make_hook: MakeHook
) -> None:
    url, step = where
    simulator = simulate(speed=1.0)
    hook = make_hook(simulator, url)
    for _ in range(2):
        hook.order("temporary", service="WhatsApp")
        step(seconds)
    assert simulator.stats().by_endpoint["GET services/temporary/"] == 1
