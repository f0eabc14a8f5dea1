"""What purchases, waits, reconciliations and rentals cost the store, empty and after a million orders.

    .venv/core/bin/python benchmarks/store.py [--database sqlite] [--orders N] [--waits 10,100] [--write]

First comes growth. The same unfinished work, 1,000 waits and 20 rentals, is on record in both stores; the
second one has the history of `rigs.bulk.fill_history` besides. All calls are real ones against a simulator.
Queries and seconds are those of the database's cursor, fetching the rows included. By default a SQLite file
and, where PostgreSQL is installed, a server of its own. Then comes the cost of many waits at once, in one
process and in real time, with the limit of 60 requests a minute. `--write` puts both into docs/store.md.
Exits with 1 where a call costs more than 1.5 times as much after a million orders, in queries or in time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.cursor import CursorFetchStrategy

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "core"))

import report
from orders import make_orders
from rigs import await_end_of_waits
from rigs.bulk import fill_history, fill_unfinished, keep_waits_alive
from stores import DATABASES, empty_stores

from smsverify import SmsVerifyHook
from smsverify._messages.filters import MessageFilter
from smsverify.models import Message, Order
from smsverify.simulator import Simulator

DOCS = Path(__file__).parents[1] / "docs"
MOST = 1.5  # times what it costs in an empty store
WAITS, RENTALS = 1000, 20


@dataclass
class Meter:
    """The queries of this process, and the seconds that the database took for them."""

    queries: int = 0
    seconds: float = 0.0
    by_statement: Counter[str] = field(default_factory=Counter)
    _began: threading.local = field(default_factory=threading.local)

    def listen(self) -> None:
        """Counts from now on."""
        sa.event.listen(sa.engine.Engine, "before_cursor_execute", self._begin)
        sa.event.listen(sa.engine.Engine, "after_cursor_execute", self._end)
        kinds = [CursorFetchStrategy]
        for kind in kinds:
            kinds += kind.__subclasses__()
            for name in ("fetchone", "fetchmany", "fetchall"):
                if name in vars(kind):
                    setattr(kind, name, self._timed(getattr(kind, name)))

    def take(self) -> tuple[int, float]:
        """What was counted since the last time."""
        taken = self.queries, self.seconds
        self.queries, self.seconds = 0, 0.0
        return taken

    def _begin(self, *args: Any) -> None:
        self._began.at = time.perf_counter()

    def _end(self, connection: Any, cursor: Any, statement: str, *args: Any) -> None:
        took = time.perf_counter() - self._began.at
        self.queries += 1
        self.seconds += took
        self._began.statement = statement
        self.by_statement[statement] += round(took * 1e6)

    def _timed(self, fetch: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return fetch(*args, **kwargs)
            finally:
                took = time.perf_counter() - began
                self.seconds += took
                self.by_statement[getattr(self._began, "statement", "?")] += round(took * 1e6)

        return timed


METER = Meter()


def calls_of(hook: SmsVerifyHook, awaited: list[int]) -> Iterator[tuple[str, Callable[[int], object]]]:
    """What is measured, by name; each is called with a number that is new."""
    parts = hook._parts
    waiter = parts.waiter
    schedule = waiter._poller.schedule

    def look(number: int) -> None:
        waiter._take_snapshot()
        with parts.store.write() as connection:
            connection.execute(sa.text("UPDATE smsverify_polls SET next_at = 0"))
        schedule.claim_due(urgent=True, looks=True, poll=True)
        schedule.claim_due(urgent=False, looks=True, poll=True)
        parts.inbox.newest(awaited)

    def sms(number: int) -> None:
        parts.inbox._next_purge = 0.0
        text = f"Your code is {100_000 + number}"
        parts.inbox.put(Message(order_id=awaited[0], otp=str(100_000 + number), message=text))

    yield (
        "purchase",
        lambda number: hook.order("temporary", service="WhatsApp", key=f"measured {number}", run_budget=1000),
    )
    yield f"look of {WAITS:,} waits", look
    yield "an SMS put, with the purge", sms
    yield "reconcile", lambda number: hook.reconcile()
    yield "rentals", lambda number: hook.rentals()


@dataclass(frozen=True)
class Cost:
    """The median of the queries, and the quickest of some calls: other programs only make them slower."""

    queries: float
    seconds: float


def measure(
    hooks: list[SmsVerifyHook], awaited: list[list[int]], times: int, *, verbose: bool
) -> dict[str, list[Cost]]:
    """What each call costs with each hook. They take turns, so that the machine is as busy for both."""
    costs = {}
    calls = [calls_of(hook, orders) for hook, orders in zip(hooks, awaited, strict=True)]
    for pairs in zip(*calls, strict=True):
        name, found = pairs[0][0], [[] for _ in hooks]
        statements = [Counter[str]() for _ in hooks]
        for number in range(times + 1):
            for hook, (_, call), taken, took in zip(hooks, pairs, found, statements, strict=True):
                keep_waits_alive(hook)
                METER.take()
                METER.by_statement = took
                call(number)
                if number:  # the first one finds nothing in memory
                    taken.append(METER.take())
        costs[name] = [
            Cost(statistics.median(queries for queries, _ in taken), min(took for _, took in taken))
            for taken in found
        ]
        if verbose:
            print(name)
            for cost, took in zip(costs[name], statements, strict=True):
                print(f"  {cost}")
                for statement, microseconds in took.most_common(6):
                    print(f"    {microseconds / times / 1e3:8.2f} ms  {' '.join(statement.split())[:700]}")
    return costs


@dataclass(frozen=True)
class Growth:
    """What one call costs in an empty store, and in one with a history."""

    database: str
    name: str
    empty: Cost
    full: Cost

    @property
    def ratios(self) -> tuple[float, float]:
        """By how much more, in queries and in time."""
        return self.full.queries / self.empty.queries, self.full.seconds / self.empty.seconds


def grow(database: str, urls: tuple[str, str], orders: int, times: int, *, verbose: bool) -> list[Growth]:
    """Measures in an empty store and in one with a history."""
    hooks, awaited = [], []
    with ExitStack() as running:
        for url, number in zip(urls, (0, orders), strict=True):
            simulator = running.enter_context(
                Simulator(rate_limit=None, first_order_id=5_000_000_000, balance="10000", sms_delay="never")
            )
            hook = SmsVerifyHook(
                api_key=simulator.api_key,
                base_url=simulator.url,
                store_url=url,
                rate_limit=600,
                daily_budget=100_000,
            )
            began = time.monotonic()
            if number:
                fill_history(hook, number)
                print(f"{number:,} orders on record in {time.monotonic() - began:.0f} s", flush=True)
            awaited.append(fill_unfinished(hook, waits=WAITS, rentals=RENTALS))
            hooks.append(hook)
        for hook, url in zip(hooks, urls, strict=True):
            settle(database, url)
            hook.reconcile()
        costs = measure(hooks, awaited, times, verbose=verbose)
    grown = [Growth(database, name, *both) for name, both in costs.items()]
    for one in grown:
        print(
            f"  {one.name:30}{one.empty.queries:6.0f} -> {one.full.queries:6.0f} queries"
            f" ({one.ratios[0]:.2f})"
            f"{one.empty.seconds * 1e3:9.1f} -> {one.full.seconds * 1e3:9.1f} ms ({one.ratios[1]:.2f})",
            flush=True,
        )
    return grown


def settle(database: str, url: str) -> None:
    """What the database and the system do by themselves in the minutes after so many rows."""
    with sa.create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
        if database == "postgresql":
            connection.execute(sa.text("VACUUM ANALYZE"))
            connection.execute(sa.text("CHECKPOINT"))
        else:
            connection.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)"))
    os.sync()


# ------------------------------------------------------------------ many waits at once


@dataclass(frozen=True)
class Load:
    """What so many waits at once cost while they go on.

    Attributes:
        begin: seconds of the database to begin one wait.
        queries, seconds: of the database, in one second.
        connections: to the database, at the most.
        requests: to the service, in one minute.
        rows: in the store, for each wait.
    """

    database: str
    waits: int
    begin: float
    queries: float
    seconds: float
    connections: int
    requests: float
    rows: float


def load(database: str, url: str, waits: int, duration: float) -> Load:
    """Waits for so many orders in one process for a while."""
    with Simulator(balance="100000", sms_delay="never", products={"temporary": {"validity": 36_000}},
                   rate_limit=None) as simulator:  # fmt: skip
        hook = SmsVerifyHook(api_key=simulator.api_key, base_url=simulator.url, store_url=url)
        hook.upgrade_store()
        records, store = hook._parts.orders.records, hook._parts.store
        ids = make_orders(simulator, waits)
        for first in range(0, waits, 1000):
            with store.write() as connection:
                for order_id in ids[first : first + 1000]:
                    order = Order(order_id=order_id, product="temporary", phone="+14155550100", key="k")
                    records.put(connection, order)
        before = sum(hook.check_store().rows.values())
        METER.take()
        going_on = [
            hook._parts.waiter.add(order_id, 36_000, wanted=MessageFilter.check()) for order_id in ids
        ]
        begin = METER.take()[1] / waits
        time.sleep(duration / 6)  # the first polls
        METER.take()
        asked, began = simulator.stats().requests, time.monotonic()
        pool, connections = store._engine.pool, 0
        while time.monotonic() - began < duration:
            connections = max(connections, pool.checkedin() + pool.checkedout())
            time.sleep(0.2)
        took = time.monotonic() - began
        queries, seconds = METER.take()
        requests = (simulator.stats().requests - asked) / took * 60
        rows = (sum(hook.check_store().rows.values()) - before) / waits
        for wait in going_on:
            wait.future.cancel()
        await_end_of_waits()
        store.close()
    found = Load(database, waits, begin, queries / took, seconds / took, connections, requests, rows)
    print(f"  {found}", flush=True)
    return found


# ------------------------------------------------------------------ what is written


def written(grown: list[Growth], loads: list[Load], orders: int) -> str:
    """The tables, as Markdown."""
    kinds = "/".join(dict.fromkeys(one.database for one in (*grown, *loads)))
    cores, busy = os.cpu_count(), os.getloadavg()[1]
    how = (
        f"Made by `benchmarks/store.py` on {time.strftime('%Y-%m-%d')}, on a machine of {cores} cores with a "
        f"load of {busy:.1f}; {kinds}, on the same machine."
    )
    growth = [
        f"| call | database | queries, empty | after {orders:,} | time, empty | after {orders:,} |",
        "|---|---|---:|---:|---:|---:|",
        *(
            f"| {one.name} | {one.database} | {one.empty.queries:.0f} | {one.full.queries:.0f} "
            f"| {one.empty.seconds * 1e3:.1f} ms | {one.full.seconds * 1e3:.1f} ms |"
            for one in grown
        ),
    ]
    many = [
        "| waits at once | database | to begin one | queries a second | database time a second "
        "| connections | requests a minute | rows for each |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {one.waits:,} | {one.database} | {one.begin * 1e3:.1f} ms | {one.queries:.0f} "
            f"| {one.seconds * 1e3:.0f} ms | {one.connections} | {one.requests:.0f} | {one.rows:.1f} |"
            for one in loads
        ),
    ]
    return "\n".join([how, "", *growth, "", *many])


def main() -> int:
    """Measures, and prints how it went."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--database", action="append", choices=DATABASES, default=[])
    parser.add_argument("--orders", type=int, default=1_000_000, help="0 to leave growth out")
    parser.add_argument("--times", type=int, default=30, help="measurements of each call")
    parser.add_argument("--waits", default="10,100,1000,10000", help="how many at once, or nothing")
    parser.add_argument("--duration", type=float, default=60.0, help="seconds for which they wait")
    parser.add_argument("--write", action="store_true", help="write docs/store.md")
    parser.add_argument("--verbose", action="store_true", help="name the statements that take longest")
    args = parser.parse_args()
    METER.listen()
    waits = [int(number) for number in args.waits.split(",") if number]
    grown: list[Growth] = []
    loads: list[Load] = []
    with empty_stores(args.database or DATABASES, 2 + len(waits)) as chosen:
        for name, (empty, full, *others) in chosen.items():
            print(f"{name}:", flush=True)
            if args.orders:
                grown += grow(name, (empty, full), args.orders, args.times, verbose=args.verbose)
            loads += [
                load(name, url, number, args.duration) for url, number in zip(others, waits, strict=True)
            ]
    if args.write:
        report.write_into(DOCS / "store.md", "figures", written(grown, loads, args.orders))
    return 0 if all(max(one.ratios) <= MOST for one in grown) else 1


if __name__ == "__main__":
    sys.exit(main())
