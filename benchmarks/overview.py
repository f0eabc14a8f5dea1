"""How long an overview takes on a store with much history, and how many queries it makes.

    .venv/core/bin/python benchmarks/overview.py [--store URL ...] [--times 50]

The history: 100,000 orders, spread evenly over 90 days so that 1,100 are of the last 24 hours, one in ten of
them with an SMS on record (10,000 messages), one in twenty expired without a refund, of which 30 are named;
500 waits that go on, 60 rentals, 200 orders that are to be given back, and the slots of the rate limit. By
default a SQLite file and, where PostgreSQL is installed, a server of its own. Exits with 1 if a median is
above 20 ms.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "core"))

from rigs.bulk import keep_waits_alive
from rigs.history import fill
from stores import given_or_empty

from smsverify import SmsVerifyHook

MOST = 0.020


def measure(store_url: str, times: int) -> tuple[float, float, int]:
    """The median and the slowest, in seconds, and the queries that one overview makes."""
    hook = SmsVerifyHook(api_key="benchmark", store_url=store_url, base_url="http://127.0.0.1:9")
    fill(hook, orders=100_000, messages=10_000, waits=500, rentals=60, releases=200)
    hook.overview()
    statements: list[str] = []
    sa.event.listen(sa.engine.Engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    hook.overview()
    queries = len(statements)
    took = []
    for _ in range(times):
        keep_waits_alive(hook)
        begun = time.perf_counter()
        hook.overview()
        took.append(time.perf_counter() - begun)
    return statistics.median(took), max(took), queries


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--store", action="append", default=[], metavar="URL")
    parser.add_argument("--times", type=int, default=50)
    arguments = parser.parse_args()
    is_fast = True
    with given_or_empty(arguments.store) as chosen:
        for name, url in chosen:
            median, slowest, queries = measure(url, arguments.times)
            is_fast &= median <= MOST
            print(f"{name}: median {median * 1e3:.1f} ms, slowest {slowest * 1e3:.1f} ms, {queries} queries")
    return 0 if is_fast else 1


if __name__ == "__main__":
    sys.exit(main())
