"""Many codes on a real Airflow, in real time, by the operators for HTTP and by `@task.smsverify`.

    .venv/core/bin/python benchmarks/real_airflow.py [--numbers 50] [--ways task,http] [--times 3] [--write]

Scheduler, triggerer, API server and Dag processor run as they do in production, but on one machine, with the
LocalExecutor, eight workers and SQLite; each way has a simulator of its own with the limit of 60 requests a
minute enforced. The ways run one after the other, and then all again, `--times` times: printed are medians.
The Dags are in `airflow_dags/`, in a file each, since Airflow reads it for each task that it runs. "Loaded
before" has Airflow's local settings of `docs/snippets/`. A code is in hand when the task that waits for it
has ended: whatever uses it can start then.

What the tasks do all this time is read from Airflow's database several times a second. A task holds a worker
while it is running. It waits for a worker while it is scheduled or queued, and for the rate limit while it is
deferred and its number is not ordered yet. `--write` puts the table into docs/waiting.md.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
sys.path.insert(0, str(Path(__file__).parent))

import report

from stacks import Account, AirflowStack, Processes, SimulatorProcess
from stacks.processes import free_port
from stacks.receiver import start_receiver

ROOT = Path(__file__).parents[1]
CORE, AIRFLOW = (ROOT / ".venv" / name for name in ("core", "airflow"))
DOCS = ROOT / "docs"
SERVICE = {"balance": "1000", "sms_delay": [5, 60], "seed": 1}
PATIENCE = 3600.0
WORKERS = 8
GLANCE = 0.25  # seconds between two looks at the states of the tasks


@dataclass(frozen=True)
class Way:
    """One way.

    Attributes:
        name: for the table.
        dag_id: its Dag.
        orders: the task that orders the number, without its place.
        ends: the task that has ended when the code is in hand.
        settings: of smsverify.
        is_called: whether the service sends callbacks, to a receiver in a process of its own.
        is_loaded: whether Airflow's local settings load smsverify.
    """

    name: str
    dag_id: str
    orders: str
    ends: str
    settings: Mapping[str, str] = field(default_factory=dict)
    is_called: bool = False
    is_loaded: bool = False


WAYS = {
    "task": Way("@task.smsverify", "by_task", "verify", "verify"),
    "late": Way("@task.smsverify, code_latency 40 s", "by_task", "verify", "verify", {"code_latency": "40"}),
    "called": Way("@task.smsverify, callbacks", "by_task", "verify", "verify", is_called=True),
    "loaded": Way(
        "@task.smsverify, callbacks, loaded before",
        "by_task",
        "verify",
        "verify",
        is_called=True,
        is_loaded=True,
    ),
    "operators": Way("SmsVerifyOrderOperator and SmsVerifyOtpSensor", "by_operators", "order", "wait"),
    "http": Way("HttpOperator and HttpSensor", "by_http", "order", "wait"),
}
SECRET = "the-secret-of-the-callback-url"


@dataclass(frozen=True)
class Result:
    """What one way has given; seconds.

    Attributes:
        worker_seconds: for which all tasks together have held a worker.
        for_worker, for_limit: of each number, how long its task waited for a worker, and for the rate limit.
    """

    codes_per_minute: float
    latencies: list[float]
    requests: int
    refused: int
    lost: int
    worker_seconds: float
    for_worker: list[float]
    for_limit: list[float]


@dataclass
class Watch:
    """What the tasks of a Dag do, as Airflow's database has it.

    Attributes:
        seconds: of each task and state.
        deferred: for each task, when it was seen deferred, and for how long until the next look.
    """

    database: Path
    dag_id: str
    seconds: Counter[tuple[str, str]] = field(default_factory=Counter)
    deferred: list[tuple[str, float, float]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        query = "SELECT task_id, state FROM task_instance WHERE dag_id = ? AND state IS NOT NULL"
        since = time.time()
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)) as connection:
            while not self._over.wait(GLANCE):
                with suppress(sqlite3.OperationalError):  # it is being written; the next look counts for both
                    rows = connection.execute(query, [self.dag_id]).fetchall()
                    now = time.time()
                    for task_id, state in rows:
                        self.seconds[task_id, state] += now - since
                        if state == "deferred":
                            self.deferred.append((task_id, since, now - since))
                    since = now

    def held(self) -> float:
        """Seconds for which all tasks together have held a worker."""
        return sum(seconds for (_, state), seconds in self.seconds.items() if state == "running")

    def for_worker(self, task_id: str) -> float:
        """Seconds for which a task has waited for a worker."""
        return self.seconds[task_id, "scheduled"] + self.seconds[task_id, "queued"]

    def for_limit(self, task_id: str, ordered_at: float) -> float:
        """Seconds for which a task was deferred before its number was ordered."""
        return sum(seconds for task, at, seconds in self.deferred if task == task_id and at < ordered_at)


def measure(airflow: AirflowStack, simulator: SimulatorProcess, way: Way, count: int) -> Result:
    """Runs a Dag to its end."""
    control, seen = simulator.control(), 0

    def show(states: dict[str, str]) -> None:
        nonlocal seen
        there = sum(state == "success" for task_id, state in states.items() if task_id.startswith(way.ends))
        if there != seen:
            seen = there
            print(f"\r{way.name}: {there} of {count} codes", end="", file=sys.stderr, flush=True)

    with Watch(airflow.database, way.dag_id) as watch:
        run = airflow.trigger_dag(way.dag_id)
        airflow.wait_for_run(run, PATIENCE, show)
    print(file=sys.stderr)
    ends = {task["task_id"]: task for task in airflow.tasks(run)}
    orders = {order.order_id: order for order in control.orders()}
    in_hand: list[tuple[float, float]] = []
    for_worker, for_limit = [], []
    for number in range(count):
        task = ends[f"{way.ends}_{number}"]
        if task["state"] == "success":
            orderer = f"{way.orders}_{number}"
            returned = airflow.xcom(run, orderer)
            order = orders[int(returned["order_id"] if isinstance(returned, dict) else returned)]
            assert order.sms_at is not None, "a code that was never sent"
            in_hand.append((order.sms_at.timestamp(), moment(task["end_date"])))
            for_worker.append(watch.for_worker(orderer))
            for_limit.append(watch.for_limit(orderer, order.created_at.timestamp()))
    stats = control.stats()
    first = min(order.created_at.timestamp() for order in orders.values())
    last = max((at for _, at in in_hand), default=first)
    return Result(
        codes_per_minute=len(in_hand) / max((last - first) / 60, 1e-9),
        latencies=[at - sms_at for sms_at, at in in_hand],
        requests=stats.requests,
        refused=stats.refused,
        lost=count - len(in_hand),
        worker_seconds=watch.held(),
        for_worker=for_worker,
        for_limit=for_limit,
    )


def waits(seconds: list[float]) -> str:
    """Median and longest."""
    return f"{statistics.median(seconds):.1f} / {max(seconds):.1f} s" if seconds else "-"


HEAD = """\
| way | codes/min | p50 | p95 | requests | 429s | lost | worker seconds a code \
| order task waits for a worker, p50 / most | for the rate limit, p50 / most |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"""


def row(name: str, results: Sequence[Result]) -> str:
    """A row of the table: medians over runs. The waits are those of all their tasks."""
    one = report.summary(name, results)
    held = statistics.median(result.worker_seconds / max(len(result.latencies), 1) for result in results)
    for_worker = [seconds for result in results for seconds in result.for_worker]
    for_limit = [seconds for result in results for seconds in result.for_limit]
    return (
        f"| {name} | {one.codes_per_minute:.1f} | {one.p50:.1f} s | {one.p95:.1f} s | {one.requests} "
        f"| {one.refused} | {one.lost} | {held:.1f} | {waits(for_worker)} | {waits(for_limit)} |"
    )


def moment(text: str) -> float:
    """Seconds since 1970."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def main() -> int:
    """Runs the ways, prints, and writes what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--numbers", type=int, default=50, help="how many numbers are wanted at once")
    parser.add_argument(
        "--ways", default="task,late,called,loaded,http", help=f"some of {', '.join(WAYS)}, in this order"
    )
    parser.add_argument("--times", type=int, default=1, help="runs of each way")
    parser.add_argument("--write", action="store_true", help="write docs/waiting.md")
    args = parser.parse_args()
    ways = args.ways.split(",")
    results: dict[str, list[Result]] = {key: [] for key in ways}
    with tempfile.TemporaryDirectory(prefix="smsverify-bench-") as directory:
        for turn in range(args.times):
            for key in ways:
                result = run(Path(directory) / f"{key}-{turn}", WAYS[key], args.numbers)
                results[key].append(result)
                print(row(WAYS[key].name, [result]), flush=True)
    table = "\n".join([HEAD, *(row(WAYS[key].name, runs) for key, runs in results.items())])
    print(table)
    if args.write:
        today = time.strftime("%Y-%m-%d")
        what = f"N = {args.numbers}, runs: {args.times}, in real time"
        how = f"Made by `benchmarks/real_airflow.py` on {today}, {what}."
        report.write_into(DOCS / "waiting.md", f"airflow {args.numbers}", f"{how}\n\n{table}")
    return 0


def run(base: Path, way: Way, numbers: int) -> Result:
    """One way, on a stack and a simulator of its own."""
    base.mkdir()
    port, called = free_port(), {}
    if way.is_called:
        called = {"callback_url": f"http://127.0.0.1:{port}/callback/{SECRET}"}
    with (
        Processes(base / "logs") as processes,
        SimulatorProcess(processes, CORE, **SERVICE, **called) as simulator,
    ):
        settings = {**simulator.account(base / "store.db").settings, **way.settings}
        if way.is_called:
            settings["callback_secrets"] = SECRET
            start_receiver(processes, CORE, Account(settings), port=port)
        account = Account(settings)
        headers = {"Authorization": f"Bearer {settings['api_key']}"}
        connection = {"conn_type": "http", "host": simulator.url, "extra": headers}
        home = base / "airflow"
        variables = account.airflow_connection() | {
            "AIRFLOW_CONN_SMS": json.dumps(connection),
            "AIRFLOW__CORE__PARALLELISM": str(WORKERS),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=60",
            "NUMBERS": str(numbers),
        }
        if way.is_loaded:
            variables["PYTHONPATH"] = str(DOCS / "snippets")
        dags = Path(__file__).parent / "airflow_dags"
        with AirflowStack(processes, AIRFLOW, dags=dags, home=home, variables=variables) as airflow:
            return measure(airflow, simulator, way, numbers)


if __name__ == "__main__":
    sys.exit(main())
