"""A process that is stopped (SIGSTOP, a suspended machine) and goes on later neither pays twice nor sends
too much, wherever it was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from rigs.processes import stopped
from rigs.purchases import read_prices
from rigs.rooms import settings_of

from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Simulator
from smsverify.wings import claim

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]

# So that a call that was begun is soon taken for one that has died.
SHORT: Final[dict[str, Any]] = {"connect_timeout": 0.2, "read_timeout": 0.2, "purchase_grace": 0.25}
LEASE = 1.06  # seconds that follow from these
PLACES = [
    "smsverify._purchases.ledger.Ledger.mark_sent",  # on record as sent
    "smsverify._service.wire.Wire._session",  # about to connect
    "smsverify._service.wire.WatchedConnection.connect",  # connected
]


def paid(simulator: Simulator, path: str = "order/") -> list[str]:
    """The POSTs that have come."""
    return [
        request.path
        for request in simulator.requests()
        if request.method == "POST" and request.path.startswith(f"/api/v1/{path}")
    ]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.slow
def test_a_purchase_that_was_stopped_before_its_first_byte_takes_what_others_have_bought_meanwhile(
    place: str, simulate: Simulate, make_hook: MakeHook, any_store_url: str, tmp_path: Path
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url, **SHORT)
    read_prices(hook)
    order = {"product": "temporary", "service": "WhatsApp", "key": "k"}
    with stopped("buy", place, tmp_path, settings=settings_of(hook), order=order) as results:
        bought = hook.order(**order).order_id
    assert results == [bought]
    assert [order.order_id for order in simulator.orders()] == [bought]
    assert hook.reconcile().findings == []


@pytest.mark.slow
def test_a_renewal_that_was_stopped_before_its_first_byte_is_not_made_twice(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str, tmp_path: Path
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url, **SHORT)
    order_id = hook.order("rent-1day", service="Tinder").order_id
    place = "smsverify._purchases.ledger.Ledger.mark_sent"
    with stopped("renew", place, tmp_path, settings=settings_of(hook), order_id=order_id) as results:
        hook.renew(order_id)
    assert results == ["renewed"]
    assert len(paid(simulator, f"order/{order_id}/renew/")) == simulator.order(order_id).renewals == 1


@pytest.mark.slow
def test_a_cancellation_that_was_stopped_before_its_first_byte_leaves_alone_who_waits_since(
    simulate: Simulate, make_hook: MakeHook, any_store_url: str, tmp_path: Path
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, any_store_url, connect_timeout=0.3, read_timeout=0.3)
    order_id = hook.order("temporary", service="WhatsApp").order_id
    place = "smsverify._orders.cancelling.Cancelling._raise_if_needed"
    with stopped(
        "release", place, tmp_path, skip=1, settings=settings_of(hook), order_id=order_id
    ) as results:
        claim(hook, order_id, "somebody else")
        time.sleep(1.0)  # longer than what it has looked at holds
    assert results == [False]
    assert paid(simulator, f"order/{order_id}/cancel/") == []


@pytest.mark.parametrize("verb", ["reads", "cancellations"])
@pytest.mark.slow
def test_requests_that_were_stopped_with_their_slots_do_not_go_beyond_the_limit(
    verb: str, simulate: Simulate, make_hook: MakeHook, any_store_url: str, tmp_path: Path
) -> None:
    """Their slots are free for others when the lease is over, and are not used any more."""
    simulator = simulate(rate_limit=20, speed=40.0, balance="100")
    hook = make_hook(simulator, any_store_url, rate_limit=20, connect_timeout=0.2, read_timeout=0.2)
    given = {"settings": settings_of(hook), "threads": 8, "requests": 1}
    if verb == "cancellations":
        given["order_ids"] = [hook.order("temporary", service="WhatsApp").order_id for _ in range(8)]
    place = "smsverify._service.wire.Wire._session"  # each has its slot, and nobody has sent yet
    with stopped("use_up", place, tmp_path, calls=8, **given) as results:
        time.sleep(LEASE + simulator.rate_period)
        for _ in range(20):
            hook.get_balance()
    assert results == [8]
    assert simulator.stats().refused == 0
