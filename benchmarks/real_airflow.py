"""Fifty codes on a real Airflow, in real time, by the operators for HTTP and by those of smsverify.

    .venv/core/bin/python benchmarks/real_airflow.py [--numbers 50] [--write]

Scheduler, triggerer, API server and DAG processor run as they do in production, but on one machine, with the
LocalExecutor and SQLite; each way has a simulator of its own with the limit of 60 requests a minute enforced.
The DAGs are in `airflow_dags/`. A code is in hand when the task that waits for it has ended, since whatever
uses it can start then. `--write` puts the table into docs/waiting.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
sys.path.insert(0, str(Path(__file__).parent))

import report

from stacks import AirflowStack, Processes, Run, SimulatorProcess

ROOT = Path(__file__).parents[1]
CORE, AIRFLOW = (ROOT / ".venv" / name for name in ("core", "airflow"))
DOCS = ROOT / "docs"
SERVICE = {"balance": "1000", "sms_delay": [5, 60], "seed": 1}
PATIENCE = 1800.0
WAYS = {
    "by_http": "HttpOperator and HttpSensor",
    "by_smsverify": "SmsVerifyOrderOperator and SmsVerifyOtpSensor",
}


@dataclass(frozen=True)
class Result:
    """What one way has given; seconds."""

    codes_per_minute: float
    latencies: list[float]
    requests: int
    refused: int
    lost: int


def measure(airflow: AirflowStack, simulator: SimulatorProcess, dag_id: str, count: int) -> Result:
    """Runs a DAG to its end."""
    run = airflow.trigger_dag(dag_id)
    control, seen = simulator.control(), 0

    def show(states: dict[str, str]) -> None:
        nonlocal seen
        there = sum(state == "success" for task_id, state in states.items() if task_id.startswith("wait"))
        if there != seen:
            seen = there
            print(f"\r{dag_id}: {there} of {count} codes", end="", file=sys.stderr, flush=True)

    airflow.wait_for_run(run, PATIENCE, show)
    print(file=sys.stderr)
    ends = {task["task_id"]: task for task in tasks(airflow, run)}
    orders = {order.order_id: order for order in control.orders()}
    in_hand: list[tuple[float, float]] = []
    for number in range(count):
        task = ends[f"wait_{number}"]
        if task["state"] == "success":
            returned = airflow.xcom(run, f"order_{number}")
            order = orders[int(returned["order_id"] if isinstance(returned, dict) else returned)]
            assert order.sms_at is not None, "a code that was never sent"
            in_hand.append((order.sms_at.timestamp(), moment(task["end_date"])))
    stats = control.stats()
    first = min(order.created_at.timestamp() for order in orders.values())
    last = max((at for _, at in in_hand), default=first)
    return Result(
        codes_per_minute=len(in_hand) / max((last - first) / 60, 1e-9),
        latencies=[at - sms_at for sms_at, at in in_hand],
        requests=stats.requests,
        refused=stats.refused,
        lost=count - len(in_hand),
    )


def tasks(airflow: AirflowStack, run: Run) -> list[dict[str, Any]]:
    """What the API says of all tasks of a run."""
    return list(airflow.rest.get(f"{run.path}/taskInstances?limit=1000")["task_instances"])


def moment(text: str) -> float:
    """Seconds since 1970."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def main() -> int:
    """Runs both, prints, and writes what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--numbers", type=int, default=50, help="how many numbers are wanted at once")
    parser.add_argument("--write", action="store_true", help="write docs/waiting.md")
    args = parser.parse_args()
    summaries = []
    with tempfile.TemporaryDirectory(prefix="smsverify-bench-") as directory:
        base = Path(directory)
        with (
            Processes(base / "logs-http") as other_processes,
            Processes(base / "logs") as processes,
            SimulatorProcess(other_processes, CORE, **SERVICE) as for_http,
            SimulatorProcess(processes, CORE, **SERVICE) as for_ours,
        ):
            key = for_http.account(base).settings["api_key"]
            headers = {"Authorization": f"Bearer {key}"}
            connection = {"conn_type": "http", "host": for_http.url, "extra": headers}
            variables = for_ours.account(base / "store.db").airflow_connection() | {
                "AIRFLOW_CONN_SMS": json.dumps(connection),
                "AIRFLOW__CORE__PARALLELISM": "8",
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{base}/airflow/airflow.db?timeout=60",
                "NUMBERS": str(args.numbers),
            }
            dags, home = Path(__file__).parent / "airflow_dags", base / "airflow"
            with AirflowStack(processes, AIRFLOW, dags=dags, home=home, variables=variables) as airflow:
                for dag_id, simulator in (("by_smsverify", for_ours), ("by_http", for_http)):
                    result = measure(airflow, simulator, dag_id, args.numbers)
                    summaries.append(report.summary(WAYS[dag_id], [result]))
                    print(summaries[-1].line(), flush=True)
    if args.write:
        page = DOCS / "waiting.md"
        today = time.strftime("%Y-%m-%d")
        how = f"Made by `benchmarks/real_airflow.py` on {today}, N = {args.numbers}, in real time."
        text = page.read_text(encoding="utf-8")
        table = report.table(summaries)
        page.write_text(report.written_between(text, "airflow", f"{how}\n\n{table}"), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
