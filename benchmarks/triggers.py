"""What a thousand waits cost Airflow's triggerer, beside a thousand triggers that only sleep.

    .venv/airflow/bin/python benchmarks/triggers.py [--waits 1000] [--seconds 60]

Both run in Airflow's own `TriggerRunner`, which is what a triggerer runs its triggers in, in a process of its
own each; only the supervisor is left out, who would hand it the triggers of the database. Measured are the
processor's time until all wait, its share and the memory once all have waited for a minute, and whether
Airflow says that its loop was blocked, from the start. In the first minute of waits, requests are kept for
their codes, and polls are rarer than later. Airflow says so after a tenth of a second, and one collection of
Python's garbage can take longer with all that Airflow has loaded: it is printed how often it was something
else. The limiter is off, so that all orders can be made; the polls are those of a full budget. Exits with 1
above 5 % of a core, 100 MB more than the sleepers, or for a loop that was blocked by anything else than a
collection.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

MOST_CPU = 0.05
MOST_MEMORY = 100.0
FIRST = 60.0  # seconds of a wait in which its code is expected
BLOCKED = 0.2  # seconds between two ticks of Airflow's watchdog, a tenth apart, from which on it complains
PAGE = resource.getpagesize()


def main() -> int:
    """Measures both, and prints what ours cost more."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--waits", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0, help="for which the cost is measured")
    parser.add_argument("--child", choices=["sleep", "wait"], help=argparse.SUPPRESS)
    parser.add_argument("--first-order", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        asyncio.run(_serve(args))
        return 0
    from orders import make_orders

    from smsverify.simulator import Simulator

    with (
        tempfile.TemporaryDirectory(prefix="smsverify-bench-") as directory,
        Simulator(rate_limit=None, sms_delay="never", balance="100000") as simulator,
    ):
        first = make_orders(simulator, args.waits)[0]
        connection = {
            "conn_type": "smsverify",
            "password": simulator.api_key,
            "host": simulator.url,
            "extra": {"store_url": f"sqlite:///{directory}/store.db"},
        }
        environment = os.environ | {
            "AIRFLOW_HOME": directory,
            "AIRFLOW_CONN_SMSVERIFY_DEFAULT": json.dumps(connection),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "_AIRFLOW_PROCESS_CONTEXT": "client",
        }
        sleepers = _child("sleep", args, first, environment)
        before = simulator.stats()
        waits = _child("wait", args, first, environment)
        stats = simulator.stats()
    print(
        f"{args.waits} triggers          of a core   memory    all started, by the processor   blocked loop"
    )
    for name, one in (("that sleep", sleepers), ("that wait for a code", waits)):
        print(
            f"{name:24}{one['cpu']:7.2%}{one['memory']:9.0f} MB{one['started']:11.1f} s"
            f"{one['start_cpu']:15.1f} s"
            f"   {len(one['blocked'])} times {' '.join(one['blocked'])} "
            f"({one['blocked_otherwise']} of them not by a collection)"
        )
    more = waits["memory"] - sleepers["memory"]
    print(f"ours: {more:.0f} MB more; {stats.requests - before.requests} requests")
    is_bad = waits["cpu"] > MOST_CPU or more > MOST_MEMORY or waits["blocked_otherwise"] > 0
    return int(is_bad)


def _child(kind: str, args: argparse.Namespace, first: int, environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", kind, "--first-order", str(first)]
    command += ["--waits", str(args.waits), "--seconds", str(args.seconds)]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    found = re.search(r"^measured (.*)$", done.stdout, re.MULTILINE)
    if done.returncode or found is None:
        raise SystemExit(f"the {kind} triggers failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    measured: dict[str, Any] = json.loads(found[1])
    measured["blocked"] = re.findall(r"async thread was blocked for ([0-9.]+)", done.stdout + done.stderr)
    return measured


# ------------------------------------------------------------------ in a process of its own


async def _serve(args: argparse.Namespace) -> None:
    from airflow.executors.workloads import RunTrigger
    from airflow.jobs.triggerer_job_runner import TriggerRunner
    from airflow.models.trigger import Trigger
    from airflow.triggers.base import BaseTrigger

    class Sleep(BaseTrigger):
        """Only sleeps."""

        def serialize(self) -> tuple[str, dict[str, Any]]:
            return "triggers.Sleep", {}

        async def run(self) -> AsyncIterator[Any]:
            await asyncio.sleep(3600)
            yield None

    runner = TriggerRunner()
    runner.trigger_cache["triggers.Sleep"] = Sleep
    for number in range(args.waits):
        classpath, arguments = "triggers.Sleep", {}
        if args.child == "wait":
            classpath, arguments = _wait(args.first_order + number)
        encrypted = Trigger.encrypt_kwargs(arguments)
        runner.to_create.append(RunTrigger(id=number, classpath=classpath, encrypted_kwargs=encrypted))
    collections, blocked = _note_collections(), list[float]()
    watchdogs = asyncio.gather(runner.block_watchdog(), _watch_as_airflow_does(runner, collections, blocked))
    began, cpu = time.monotonic(), time.process_time()
    await runner.create_triggers()
    while not await asyncio.to_thread(_all_started, args):
        await asyncio.sleep(0.2)
    started, start_cpu = time.monotonic() - began, time.process_time() - cpu
    await asyncio.sleep(FIRST if args.child == "wait" else 5)
    cpu, since = time.process_time(), time.monotonic()
    ends_at = since + args.seconds
    while time.monotonic() < ends_at:
        # What the runner does each second, with a supervisor who has nothing new.
        finished = await runner.cleanup_finished_triggers()
        assert not finished, f"triggers have ended: {runner.failed_triggers}"
        await asyncio.sleep(1)
    share = (time.process_time() - cpu) / (time.monotonic() - since)
    memory = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6
    runner.stop = True
    await watchdogs
    measured = {
        "cpu": share,
        "memory": memory,
        "started": started,
        "start_cpu": start_cpu,
        "blocked_otherwise": len(blocked),
    }
    print(f"\nmeasured {json.dumps(measured)}", flush=True)
    os._exit(0)


def _note_collections() -> list[tuple[float, float]]:
    """A list that fills with the beginning and the end of each collection of garbage."""
    noted: list[tuple[float, float]] = []
    began = 0.0

    def note(phase: str, _: dict[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = time.monotonic()
        else:
            noted.append((began, time.monotonic()))

    gc.callbacks.append(note)
    return noted


async def _watch_as_airflow_does(
    runner: Any, collections: list[tuple[float, float]], blocked: list[float]
) -> None:
    """Notes for how long the loop is blocked, as Airflow's watchdog does, but for collections of garbage."""
    while not runner.stop:
        began = time.monotonic()
        await asyncio.sleep(0.1)
        ended = time.monotonic()
        collected = sum(max(0.0, min(end, ended) - max(start, began)) for start, end in collections)
        if ended - began - collected > BLOCKED:
            blocked.append(ended - began)


def _wait(order_id: int) -> tuple[str, dict[str, Any]]:
    from smsverify_provider.triggers.smsverify import SmsVerifyOtpTrigger

    return SmsVerifyOtpTrigger(
        order_id=order_id,
        deadline=time.time() + 3600,
        not_before=0.0,
        waiter=uuid.uuid4().hex,
        cancel_on_timeout=True,
        cancel_on_kill=True,
        smsverify_conn_id="smsverify_default",
    ).serialize()


def _all_started(args: argparse.Namespace) -> bool:
    if args.child == "sleep":
        return True
    from smsverify._parts import WAITERS

    watches = list(WAITERS._made.values())
    return sum(len(watch._waits) for watch in watches) == args.waits


if __name__ == "__main__":
    sys.exit(main())
