"""How many codes a minute, and how long after its SMS each is in hand, by different ways to wait.

    .venv/core/bin/python benchmarks/waiting.py [--quick] [--numbers 1,10,50,200] [--ways ours,...] [--write]

All ways run against the same simulator with the limit of 60 requests in any 60 s enforced: N numbers are
ordered at once, their SMS come 5 to 60 s after the order. Printed are medians over the seeds, in seconds of
the service. `--write` puts them into docs/waiting.md, with a plot.

It runs in real time, several runs at once, each with a simulator of its own. With `--speed`, time is faster:
then what the machine itself takes, and the whole seconds of a `Retry-After`, count as much more.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import contenders
import report

from smsverify.simulator import Simulator
from stacks.processes import free_port

DOCS = Path(__file__).parents[1] / "docs"


@dataclass(frozen=True)
class Way:
    """One way to wait.

    Attributes:
        name: for the table.
        key: for the command line.
        run: the function of `contenders`.
        options: for it.
        is_light: whether it leaves the machine idle nearly all the time.
        is_called: whether the service sends callbacks.
    """

    name: str
    key: str
    run: str
    options: dict[str, Any]
    is_light: bool = False
    is_called: bool = False


LIGHT = 3  # runs that leave the machine idle are so many times as many at once
APART = 10.0  # real seconds between two runs: 200 threads take nearly as long to begin
_starting = threading.Lock()

WAYS = [
    Way("a thread per order, requests and tenacity", "by-hand", "by_hand", {}),
    *(
        Way(
            f"one poller, list every {every:g} s, {'evenly paced' if evenly else 'spent at once'}",
            f"coordinated-{every:g}-{'evenly' if evenly else 'at-once'}",
            "coordinated",
            {"list_every": every, "evenly": evenly},
            is_light=True,
        )
        for every, evenly in [
            (1.5, False),
            (5, False),
            (20, False),
            (3, True),
            (5, True),
            (10, True),
            (20, True),
            (40, True),
        ]
    ),
    *(
        Way(
            "smsverify, polling" if seconds == 5 else f"smsverify, polling, code_latency {seconds:g} s",
            "ours" if seconds == 5 else f"ours-{seconds:g}",
            "ours",
            {"code_latency": seconds},
        )
        for seconds in (2.0, 5.0, 10.0, 20.0, 40.0)
    ),
    Way("smsverify, callbacks", "ours-called", "ours_called", {}, is_called=True),
]


@dataclass(frozen=True)
class Result:
    """What one run has given, in seconds of the service."""

    way: str
    number: int
    seed: int
    codes_per_minute: float
    latencies: list[float]
    requests: int
    refused: int
    lost: int
    most_in_a_window: int


def run(way: Way, number: int, seed: int, speed: float) -> Result:
    """One way, once, in a process of its own, so that nothing is left over from the one before."""
    with _starting:
        time.sleep(APART)
    settings: dict[str, Any] = {"speed": speed, "seed": seed, "sms_delay": (5.0, 60.0), "balance": "1000"}
    port = free_port() if way.is_called else None
    if port:
        settings["callback_url"] = f"http://127.0.0.1:{port}/callback/{contenders.SECRET}"
    with Simulator(**settings) as simulator:
        service = contenders.Service(simulator.url, simulator.api_key, speed, port)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            call = partial(getattr(contenders, way.run), service, number, **way.options)
            in_hand = pool.apply(call)
        stats = simulator.stats()
        orders = {order.order_id: order for order in simulator.orders()}
        first = min(request.at for request in simulator.requests())
    latencies = []
    for order_id, at in in_hand:
        sms_at = orders[order_id].sms_at
        assert sms_at is not None, f"{way.key} has a code that was never sent"
        latencies.append((at - sms_at.timestamp()) * speed)
    last = max((at for _, at in in_hand), default=first)
    return Result(
        way.key,
        number,
        seed,
        codes_per_minute=len(in_hand) / max((last - first) * speed / 60, 1e-9),
        latencies=latencies,
        requests=stats.requests,
        refused=stats.refused,
        lost=number - len(in_hand),
        most_in_a_window=stats.max_in_window,
    )


def run_all(ways: Iterable[Way], numbers: list[int], seeds: int, speed: float, at_once: int) -> list[Result]:
    """All runs, with a line of progress for each way."""
    results: list[Result] = []
    plan = [(way, number) for number in numbers for way in ways]
    with ThreadPoolExecutor(at_once) as heavy, ThreadPoolExecutor(LIGHT * at_once) as light:
        runs = [
            [
                (light if way.is_light else heavy).submit(run, way, number, seed, speed)
                for seed in range(seeds)
            ]
            for way, number in plan
        ]
        for done, ((way, number), these) in enumerate(zip(plan, runs, strict=True), 1):
            ended = [one.result() for one in these]
            results += ended
            print(f"[{done}/{len(plan)}] N = {number:<4}{report.summary(way.name, ended).line()}", flush=True)
    return results


PLOT = "![Throughput against latency](waiting.svg)"


def write(results: list[Result], numbers: list[int], args: argparse.Namespace) -> None:
    """Puts the figures and the plot into docs/."""
    names = {way.key: way.name for way in WAYS}
    panels, tables = [], []
    for number in numbers:
        keys = list(dict.fromkeys(result.way for result in results if result.number == number))
        summaries = [
            report.summary(names[key], [one for one in results if (one.way, one.number) == (key, number)])
            for key in keys
        ]
        panels.append((number, list(zip(keys, summaries, strict=True))))
        tables.append(f"**N = {number}**\n\n{report.table(summaries)}")
    today = time.strftime("%Y-%m-%d")
    pace = "in real time" if args.speed == 1 else f"{args.speed:g} times real time"
    how = f"Made by `benchmarks/waiting.py` on {today}, seeds: {args.seeds}, {pace}."
    report.write_into(DOCS / "waiting.md", "figures", "\n\n".join([how, *tables, PLOT]))
    (DOCS / "waiting.svg").write_text(report.plot(panels), encoding="utf-8")


def main() -> int:
    """Runs, prints, and writes what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one seed, up to 50 numbers")
    parser.add_argument("--numbers", default="1,10,50,200", help="how many numbers are wanted at once")
    parser.add_argument("--ways", default="", help=f"some of {', '.join(way.key for way in WAYS)}")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--speed", type=float, default=1.0, help="seconds of the service in a real second")
    parser.add_argument("--at-once", type=int, default=4, help="runs at a time")
    parser.add_argument("--write", action="store_true", help="write docs/waiting.md and its plot")
    parser.add_argument("--results", type=Path, help="where all single results go, as JSON")
    args = parser.parse_args()
    numbers = [int(number) for number in args.numbers.split(",")]
    if args.quick:
        args.seeds, numbers = 1, [number for number in numbers if number <= 50]
    chosen = [way for way in WAYS if not args.ways or way.key in args.ways.split(",")]
    print(f"{len(chosen)} ways, N = {numbers}, {args.seeds} seeds, {args.at_once} at once")
    results = run_all(chosen, numbers, args.seeds, args.speed, args.at_once)
    if args.write:
        write(results, numbers, args)
    if args.results:
        args.results.write_text(json.dumps([asdict(result) for result in results]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
