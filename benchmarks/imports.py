"""How much longer a Dag file takes to import because it names our operators and our sensor.

    .venv/airflow/bin/python benchmarks/imports.py [rounds]

A Dag file needs `airflow.sdk` anyway. Each round measures both imports in fresh interpreters, one after the
other and in turns, so that a load that comes and goes meets both alike. Exits with 1 above 15 %.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

LIMIT = 0.15
SDK = "from airflow.sdk import DAG, BaseOperator, BaseSensorOperator, task"
OURS = (
    "from smsverify_provider.operators.smsverify import SmsVerifyOrderOperator;"
    "from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor"
)
MEASURE = """
import time
wall, cpu = time.perf_counter(), time.process_time()
{statements}
print("measured", time.perf_counter() - wall, time.process_time() - cpu)
"""


def measure(statements: str) -> tuple[float, float]:
    """Seconds on the clock and of the processor for some statements in a fresh interpreter."""
    # Without cached bytecode the compiler would be measured.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    code = MEASURE.format(statements=statements)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    wall, cpu = done.stdout.split("measured")[-1].split()
    return float(wall), float(cpu)


def main(rounds: int) -> int:
    """Measures, and prints what we add."""
    both = {"airflow.sdk alone": SDK, "with smsverify": f"{SDK}\n{OURS}"}
    for statements in both.values():
        measure(statements)  # fills the caches
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in both}
    for _ in range(rounds):
        for name, statements in both.items():
            times[name].append(measure(statements))
    medians = {}
    print(f"median of {rounds} rounds, seconds        wall     cpu")
    for name, measured in times.items():
        medians[name] = [statistics.median(column) for column in zip(*measured, strict=True)]
        print(f"{name:32}{medians[name][0]:8.3f}{medians[name][1]:8.3f}")
    alone, ours = medians.values()
    added = [ours[column] / alone[column] - 1 for column in (0, 1)]
    print(f"{'added':32}{added[0]:8.1%}{added[1]:8.1%}   (limit {LIMIT:.0%})")
    return int(added[1] > LIMIT)  # the processor's seconds are what a loaded machine falsifies least


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 7))
