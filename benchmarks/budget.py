"""How much of the limit several processes on one key use together, and that they never use more.

    .venv/core/bin/python benchmarks/budget.py [--minutes 10] [--speed 5] [--processes 8] [--store URL ...]

Every process sends whatever it may, from several threads, for so many minutes of a service whose time runs
faster than ours; the network delays one answer in five by up to a fifteenth of the service's minute. The
simulator counts in a strict sliding window and refuses what is too much. Exits with 1 below 95 %, and for any
request refused. By default a SQLite file and, where PostgreSQL is installed, a server of its own are tried.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import threading
import time
from multiprocessing.synchronize import Barrier
from typing import Any

from stores import given_or_empty

from smsverify import SmsVerifyHook
from smsverify.simulator import Fault, Simulator

LEAST = 0.95
LIMIT = 60


def use(settings: dict[str, Any], threads: int, all_ready: Barrier, seconds: float) -> None:
    """One process: sends what it may until the time is over."""
    hook = SmsVerifyHook(**settings)
    hook.upgrade_store()
    all_ready.wait(120)
    ends_at = time.time() + seconds

    def send() -> None:
        while time.time() < ends_at:
            hook.get_balance()

    senders = [threading.Thread(target=send) for _ in range(threads)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()


def measure(
    store_url: str, minutes: float, speed: float, processes: int, threads: int
) -> tuple[float, int, int]:
    """The share of the limit that was used, the requests refused, and the most in any window."""
    with Simulator(speed=speed) as simulator:
        period = simulator.rate_period
        for seconds in (period / 60, period / 30, period / 15):
            simulator.add_fault(
                Fault("slow_after", path="balance/", seconds=seconds, times=None, probability=0.07)
            )
        settings = {
            "api_key": simulator.api_key,
            "base_url": simulator.url,
            "store_url": store_url,
            "rate_limit": LIMIT,
            "rate_period": period,
        }
        SmsVerifyHook(**settings).upgrade_store()
        spawn = multiprocessing.get_context("spawn")
        arguments = (settings, threads, spawn.Barrier(processes), minutes * period + 5)
        users = [spawn.Process(target=use, args=arguments) for _ in range(processes)]
        for user in users:
            user.start()
        while any(user.is_alive() for user in users):
            _show(simulator.stats().requests, minutes)
            time.sleep(0.5)
        print(file=sys.stderr)
        stats = simulator.stats()
        times = sorted(request.at for request in simulator.requests())
    # The first minute's slots are there from the start: how fast do they come round? So the whole minutes
    # after that count. What is left to releases is used at a minute's end if all others come at its start.
    begin, end = times[0] + period, times[0] + minutes * period
    share = sum(begin <= at < end for at in times) / (LIMIT * (minutes - 1))
    return share, stats.refused, stats.max_in_window


def _show(requests: int, minutes: float) -> None:
    if sys.stderr.isatty():
        print(f"\r{requests} of about {LIMIT * minutes:.0f} requests", end="", file=sys.stderr)


def main() -> int:
    """Measures with each store, and prints how it went."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="of the service")
    parser.add_argument("--speed", type=float, default=5, help="seconds of the service in a real second")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--threads", type=int, default=4, help="in each process")
    parser.add_argument(
        "--store", action="append", default=[], help="SQLAlchemy URL; may be given repeatedly"
    )
    args = parser.parse_args()
    is_bad = False
    with given_or_empty(args.store) as chosen:
        for name, url in chosen:
            share, refused, most = measure(url, args.minutes, args.speed, args.processes, args.threads)
            is_bad |= share < LEAST or refused > 0
            print(
                f"{name:12}{args.processes} processes, {args.minutes:g} minutes: {share:7.1%} of the limit "
                f"used (at least {LEAST:.0%}), {refused} answers 429, at most {most} requests in any minute",
                flush=True,
            )
    return int(is_bad)


if __name__ == "__main__":
    sys.exit(main())
