"""Tests the versions beside those of `make test`, each in an environment of its own: `make matrix`.

    scripts/matrix.py --uv .venv/tools/bin/uv [--only <text>]

An older Airflow gets the packages of its time, since it does not run with all that have come later. What has
run is written into docs/reference/tested.md, with its date; a version whose Python is not there is left out.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "reference" / "tested.md"
ENVIRONMENTS = ROOT / ".venv" / "matrix"
HEAD = """# Tested versions

Written by `make matrix`. Each row has run as it stands here. A row counts the tests that there were when it
ran: later rows have more. `make test-all` runs Airflow 3.3 and 3.1 and Prefect 3.8 and 3.6 with every change.

| framework | Python | SQLAlchemy | tests | passed | failed | on |
|---|---|---|---|---|---|---|
"""
# A task marked while it waits gets its number refunded, and no secret is left: on a real stack.
AIRFLOW_TESTS = ("tests/provider/test_real_stack.py", "tests/provider/test_versions.py")
PREFECT_TESTS = ("tests/prefect_tasks",)


@dataclass(frozen=True)
class Cell:
    """One framework's version on one Python.

    Attributes:
        newest: the day of its newest packages, "" for those that `pins` names.
        pins: the environment whose constraints hold, by default that of the framework.
    """

    framework: str
    version: str
    python: str
    newest: str = ""
    pins: str = ""

    @property
    def name(self) -> str:
        """As the table says it."""
        return f"{self.framework.capitalize()} {self.version}"

    def install(self, uv: str) -> Path:
        """Makes the environment; its Python."""
        home = ENVIRONMENTS / f"{self.framework}-{self.version}-{self.python}"
        run(uv, "venv", "--quiet", "--clear", "--python", self.python, str(home))
        package = {"airflow": "apache-airflow"}.get(self.framework, self.framework)
        group = "dev-airflow" if self.framework == "airflow" else "dev"
        command = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(home)]
        if self.newest:
            command += ["--exclude-newer", self.newest]
            command += ["--exclude-newer-package", "pytest-airflow-in-a-box=2026-11-01"]
        else:
            command += ["--constraint", str(ROOT / "constraints" / f"{self.pins or self.framework}.txt")]
        extras = f".[{self.framework},server,postgres]"
        run(*command, "--group", group, f"{package}=={self.version}", "--editable", extras)
        return home / "bin" / "python"


NEWEST = "2026-11-30"  # constraints/prefect.txt has an older one
CELLS = (
    Cell("airflow", "3.1.8", "3.10", "2026-03-31"),
    Cell("airflow", "3.1.8", "3.12", "2026-03-31"),
    Cell("airflow", "3.2.1", "3.12", "2026-05-01"),
    Cell("airflow", "3.2.2", "3.12", "2026-06-15"),
    Cell("airflow", "3.3.2", "3.10"),
    Cell("airflow", "3.3.2", "3.12"),
    Cell("airflow", "3.3.2", "3.13"),
    Cell("airflow", "3.3.2", "3.14"),
    Cell("prefect", "3.6.29", "3.10", pins="prefect-floor"),
    Cell("prefect", "3.6.29", "3.12", pins="prefect-floor"),
    Cell("prefect", "3.9.1", "3.12", NEWEST),
    Cell("prefect", "3.9.1", "3.13", NEWEST),
    Cell("prefect", "3.9.1", "3.14", NEWEST),
)


def main() -> int:
    """Runs the cells and writes the table; 1 if a test has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--uv", required=True, help="the program uv, which makes the environments")
    parser.add_argument("--only", default="", help="a part of a row's name, such as 'Airflow 3.2'")
    options = parser.parse_args()
    has_failed = False
    for cell in CELLS:
        if options.only not in f"{cell.name} on Python {cell.python}":
            continue
        if not has_python(options.uv, cell.python):
            print(f"{cell.name} on Python {cell.python}: there is no such Python here")
            continue
        passed, failed, sqlalchemy = test(cell, cell.install(options.uv))
        has_failed = has_failed or bool(failed)
        write(cell, passed, failed, sqlalchemy)
        print(f"{cell.name} on Python {cell.python}: {passed} passed, {failed} failed", flush=True)
    return int(has_failed)


def test(cell: Cell, python: Path) -> tuple[int, int, str]:
    """How many tests have passed and failed, and the version of SQLAlchemy."""
    tests = AIRFLOW_TESTS if cell.framework == "airflow" else PREFECT_TESTS
    done = subprocess.run(
        [str(python), "-m", "pytest", "-q", *tests], cwd=ROOT, capture_output=True, text=True, check=False
    )
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    failed = counts.get("failed", 0) + counts.get("error", 0)
    if done.returncode:
        print(done.stdout[-5000:], done.stderr[-2000:])
        failed = failed or 1
    version = run(str(python), "-c", "import sqlalchemy; print(sqlalchemy.__version__)").strip()
    return counts.get("passed", 0), failed, version


def write(cell: Cell, passed: int, failed: int, sqlalchemy: str) -> None:
    """Puts one row into the table, in the place of the row before."""
    today = datetime.now(timezone.utc).date().isoformat()
    begin = f"| {cell.name} | {cell.python} |"
    tests = "real stack" if cell.framework == "airflow" else "all of the wing"
    rows = [row for row in rows_before() if not row.startswith(begin)]
    rows.append(f"{begin} {sqlalchemy} | {tests} | {passed} | {failed} | {today} |")
    order = [f"| {one.name} | {one.python} |" for one in CELLS]
    known = [row for row in rows if row.startswith(tuple(order))]
    known.sort(key=lambda row: next(n for n, one in enumerate(order) if row.startswith(one)))
    TABLE.write_text(HEAD + "".join(f"{row}\n" for row in known), encoding="utf-8")


def rows_before() -> Iterator[str]:
    """The rows of the table as it is."""
    text = TABLE.read_text(encoding="utf-8") if TABLE.exists() else ""
    yield from re.findall(r"^\| (?:Airflow|Prefect) .*$", text, flags=re.M)


def has_python(uv: str, version: str) -> bool:
    """Whether there is such a Python."""
    command = (uv, "python", "find", "--no-python-downloads", version)
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def run(*command: str) -> str:
    """What a command prints. Ends with its output where it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
