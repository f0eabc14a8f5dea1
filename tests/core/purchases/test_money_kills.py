"""Processes that buy are killed at random moments: each key gets one order, and none is lost."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from rigs import eventually
from rigs.processes import results_of, start_in_processes
from rigs.rooms import rooms_of, settings_of, store_of

from smsverify._store.store import open_store
from smsverify._store.tables import purchases
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Fault, Simulator

SOAK = bool(os.environ.get("SMSVERIFY_SOAK"))
PURCHASES, WORKERS, KILLS = (200, 8, 60) if SOAK else (24, 4, 8)

TIMEOUT = 0.5  # seconds for a connection, and for an answer
GRACE = 3.0  # seconds; the service is never that slow
# What becomes of so many of a hundred purchases on their way, and of the looks for them.
FAULTS = {
    "lost_answer": 6,
    "error_after": 5,
    "error_before": 4,
    "reset": 4,
    "cut_json": 3,
    "truncated_body": 3,
    "provider_failure": 2,
    "slow_before": 3,
    "slow_after": 3,
    "list_lag": 8,
}
SLOW = 0.7  # seconds


def spoil(simulator: Simulator) -> None:
    """Lets some of all purchases go wrong, each in its way, until the end."""
    for kind, percent in FAULTS.items():
        seconds = SLOW if kind.startswith("slow") else 1.0
        probability = percent / 100
        simulator.add_fault(
            Fault(kind, path="order/temporary/", times=None, probability=probability, seconds=seconds)
        )
    simulator.add_fault(Fault("error_before", path="orders/", times=None, probability=0.05))


def what_was_handed_out(directory: Path) -> dict[str, set[int]]:
    """The orders that the workers got for each key."""
    handed_out: dict[str, set[int]] = defaultdict(set)
    for notes in directory.glob("worker-*"):
        for key, order_id in map(str.split, notes.read_text().splitlines()):
            handed_out[key].add(int(order_id))
    return handed_out


def on_record(store_url: str) -> dict[str, list[tuple[str, int | None]]]:
    """What the ledger has of each key: how its calls ended."""
    rows: dict[str, list[tuple[str, int | None]]] = defaultdict(list)
    with open_store(store_url).read() as connection:
        for row in connection.execute(sa.select(purchases)):
            rows[row.key].append((row.state, row.order_id))
    return rows


@pytest.mark.slow
def test_killed_processes_buy_once_for_each_key(
    simulate: Callable[..., Simulator],
    make_hook: Callable[..., SmsVerifyHook],
    any_store_url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    simulator = simulate(speed=1.0, balance=1000, rate_limit=60, rate_period=2.0, seed=7)
    hook = make_hook(
        simulator, any_store_url, connect_timeout=TIMEOUT, read_timeout=TIMEOUT, purchase_grace=GRACE
    )
    keys = [f"p-{number}" for number in range(PURCHASES)]
    order = {"product": "temporary", "service": "WhatsApp"}
    (directory := tmp_path / "notes").mkdir()
    spoil(simulator)
    began = time.monotonic()
    flock = start_in_processes(
        "buy_until_done",
        1,
        settings=settings_of(hook),
        order=order,
        keys=keys,
        workers=WORKERS,
        kills=KILLS,
        pause=0.25,
        seed=11,
        directory=str(directory),
    )
    while SOAK and flock.poll() is None:
        time.sleep(5)
        with capsys.disabled():
            done = len(what_was_handed_out(directory))
            print(f"  {done} of {PURCHASES} keys are done, {len(simulator.orders())} numbers are bought")
    (end,) = results_of(flock)
    simulator.clear_faults()
    report = eventually(lambda: resolved(hook), "the end of doubt")
    sold = {order.order_id for order in simulator.orders()}
    handed_out, rows = what_was_handed_out(directory), on_record(any_store_url)
    owned = [order_id for calls in rows.values() for state, order_id in calls if state == "bought"]
    with capsys.disabled():
        if SOAK:
            spent = time.monotonic() - began
            print(
                f"  {PURCHASES} purchases by {WORKERS} processes, {end['killed']} killed, in {spent:.0f} s; "
                f"{len(sold)} bought, {len(sold - set(owned))} leaked, {len(sold) - PURCHASES} too many; "
                f"faults met: {simulator.stats().faults}"
            )
    assert end["failed"] == []
    assert end["killed"] == KILLS
    assert len(sold) == PURCHASES
    assert sorted(owned) == sorted(sold)
    assert sorted(rows) == sorted(keys)
    for key in keys:
        bought = [order_id for state, order_id in rows[key] if state == "bought"]
        assert len(bought) == 1, rows[key]
        assert handed_out[key] == set(bought)
        assert {state for state, _ in rows[key]} <= {"bought", "rejected"}
    assert report.foreign == []
    assert report.balance == simulator.balance() == 1000 - report.spent
    assert simulator.stats().refused == 0


def resolved(hook: SmsVerifyHook) -> Any:
    """The reconciliation's report, as soon as it has resolved everything."""
    report = hook.reconcile()
    with store_of(hook).read() as connection:
        return None if report.unknown or rooms_of(hook).ledger.open_calls(connection) else report
