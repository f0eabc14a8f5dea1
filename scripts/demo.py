"""The main job on a real Airflow and a real Prefect: a number that gets its code, tried until there is one.

Needs neither a key nor a network: the service is the simulator, a process on this machine. A run whose first
number gets its SMS, then one whose first number gets none and is refunded, in Airflow and then in Prefect, by
example_dags/provision_account.py and prefect_tasks/examples/provision_account.py; at the end a table of what
was ordered. Ctrl-C ends it at any time. Nothing is left running.

Where SMSVERIFY_API_KEY and SMSVERIFY_BASE_URL are both set, that service takes the simulator's place. It is
asked for four numbers, and for more where they get no code; those are cancelled. Since that may cost money,
the demo asks first, unless the service is on this machine. With only one of the two variables the demo uses
the simulator.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Until there is something that has to be ended first, Ctrl-C just ends the program.
signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "core"))  # for smsverify.simulator, which needs nothing but Python

from demo_service import Seen, Service, SimulatedService  # noqa: E402
from smsverify.simulator import Control  # noqa: E402
from stacks import (  # noqa: E402
    Account,
    AirflowStack,
    HttpError,
    Interrupted,
    PrefectServer,
    Processes,
    ProcessFailed,
    SimulatorProcess,
)
from stacks.airflow import WAITING  # noqa: E402
from stacks.processes import python_of  # noqa: E402
from terminal import Progress, table, width  # noqa: E402

DAGS = ROOT / "example_dags"
NAME = "provision_account"  # of the Dag and of the flow
FLOW = ROOT / "prefect_tasks" / "examples" / "provision_account.py"
BLOCK = "smsverify-demo"

SIMULATOR: dict[str, Any] = {"balance": "50.00"}
SMS_DELAY = 9.0  # seconds from a purchase to its SMS, at the simulator
AT_ONCE = {"service": "WhatsApp", "timeout": 120}
AT_THE_SECOND = {"service": "Google", "timeout": 15}
RUN_LIMIT = 300.0  # seconds that a run may take on a very busy machine
GRACE = 4.0  # seconds that the processes have to end; nothing of theirs is kept

Parameters = Mapping[str, object]
Look = Callable[[dict[str, str]], None]  # is given the states of a run's tasks

COLUMNS = (
    "order",
    "by",
    "phone",
    "code",
    "price",
    "status",
    "requests used",
    "wallet before",
    "wallet after",
)
EXPLAINED = {"deferred": "deferred (waits in the triggerer, holds no worker)"}


class Unexpected(RuntimeError):
    """A run did not end as it should."""


@dataclass(frozen=True)
class Ended:
    """A run that has ended: the numbers that it has ordered, and the code of the last one."""

    wing: str
    orders: list[Seen]
    code: str | None
    requests: int | None
    before: Decimal
    after: Decimal

    def rows(self) -> Iterator[tuple[str, ...]]:
        """A row for each number, in the order of `COLUMNS`. What concerns the run is in the last one."""
        for order in self.orders:
            is_last = order is self.orders[-1]
            yield (
                str(order.order_id),
                self.wing,
                order.phone.replace(" ", ""),
                (self.code if is_last else None) or "-",
                f"{order.price:.2f}",
                order.status,
                str(self.requests) if is_last and self.requests is not None else "-",
                f"{self.before:.2f}" if is_last else "-",
                f"{self.after:.2f}" if is_last else "-",
            )


class Demo:
    """The four runs.

    Args:
        progress: shows what happens.
        processes: starts and ends everything.
        home: takes databases and logs.
        airflow, prefect: the two virtual environments.
        other: a service instead of the simulator.
    """

    def __init__(
        self,
        progress: Progress,
        processes: Processes,
        home: Path,
        *,
        airflow: Path,
        prefect: Path,
        other: Account | None,
    ) -> None:
        self._progress = progress
        self._processes = processes
        self._home = home
        self._airflow_environment = airflow
        self._prefect_environment = prefect
        self._other = other
        self._control: Control | None = None  # of the simulator

    def run(self) -> list[Ended]:
        """Runs the main job twice in each wing; returns what has come of it."""
        service = self._start_service()
        prefect = PrefectServer(self._processes, self._prefect_environment, home=self._home / "prefect")
        prefect.start()
        airflow = self._start_airflow(service.account)
        ended = [
            self._run(service, "Airflow", parameters, lambda given, seen: self._run_dag(airflow, given, seen))
            for parameters in (AT_ONCE, AT_THE_SECOND)
        ]
        self._start_prefect(prefect, service.account)
        ended += [
            self._run(
                service, "Prefect", parameters, lambda given, seen: self._run_flow(prefect, given, seen)
            )
            for parameters in (AT_ONCE, AT_THE_SECOND)
        ]
        self._progress.wait("all processes to end")
        return ended

    # -------------------------------------------------------------- starting

    def _start_service(self) -> Service:
        if self._other is not None:
            self._progress.say("service", f"{self._other.settings['base_url']}, as the environment says")
            return Service(self._processes, self._airflow_environment, self._other)
        self._progress.wait("the simulator")
        simulator = SimulatorProcess(self._processes, self._airflow_environment, **SIMULATOR)
        simulator.start()
        self._control = simulator.control()
        balance = f"wallet {self._control.balance():.2f} USD"
        self._progress.say("service", f"simulator at {simulator.url}, {balance}")
        account = simulator.account(self._home / "store.db")
        return SimulatedService(self._processes, self._airflow_environment, account, self._control)

    def _start_airflow(self, account: Account) -> AirflowStack:
        airflow = AirflowStack(
            self._processes,
            self._airflow_environment,
            dags=DAGS,
            home=self._home / "airflow",
            variables=account.airflow_connection(),
        )
        self._progress.wait("Airflow's database")
        airflow.migrate()
        self._progress.say("airflow", "database made")
        airflow.start()
        self._progress.wait("Airflow's API server, scheduler, triggerer and Dag processor")
        airflow.wait_until_ready()
        self._progress.say("airflow", f"API server, scheduler, triggerer, Dag processor at {airflow.url}")
        self._progress.wait(f"the Dag {NAME}")
        airflow.wait_for_dag(NAME)
        return airflow

    def _start_prefect(self, prefect: PrefectServer, account: Account) -> None:
        self._progress.wait("the Prefect server")
        prefect.wait_until_ready()
        self._progress.say("prefect", f"server at {prefect.url}")
        prefect.save_credentials(BLOCK, account)
        self._progress.say("prefect", f"credentials saved as the block {BLOCK}")

    # -------------------------------------------------------------- runs

    def _run(
        self, service: Service, wing: str, parameters: Parameters, run: Callable[[Parameters, Look], bool]
    ) -> Ended:
        """One run of the main job, watched from outside."""
        at_once = parameters is AT_ONCE
        what = "the first number gets its code" if at_once else "the first number gets no code"
        self._progress.heading(f"{wing}: {what} ({parameters['service']}, {parameters['timeout']} s)")
        before, used, known = service.balance(), service.requests(), service.orders()
        self._set_sms_delay(parameters, SMS_DELAY if at_once else "never")
        watch = _Watch(
            self._progress,
            wing.lower(),
            service,
            known,
            # A purchase draws the delay of its SMS: this is for the next number.
            bought=lambda: self._set_sms_delay(parameters, SMS_DELAY),
        )
        self._progress.wait("the run to end")
        succeeded = run(parameters, watch.look)
        now = service.requests()
        orders = service.orders()
        watch.show(orders)
        new = [order for order_id, order in sorted(orders.items()) if order_id not in known]
        if not new:
            raise Unexpected("the run has ordered no number")
        code = service.code(new[-1].order_id) if succeeded else None
        requests = None if now is None or used is None else now - used
        ended = Ended(wing, new, code, requests, before, service.balance())
        if self._other is None:
            _check(ended, at_once=at_once)
        return ended

    def _set_sms_delay(self, parameters: Parameters, delay: float | str) -> None:
        """Sets when the SMS of a run come from its next purchase on, where the service is the simulator."""
        if self._control is not None:
            self._control.configure(services={str(parameters["service"]).lower(): {"sms_delay": delay}})

    def _run_dag(self, airflow: AirflowStack, parameters: Parameters, seen: Look) -> bool:
        run = airflow.trigger_dag(NAME, parameters)
        self._progress.say("airflow", f"{NAME} triggered, run {run.run_id}")
        run = airflow.wait_for_run(run, RUN_LIMIT, seen)
        self._progress.say("airflow", f"{NAME} ended: {run.state}")
        return run.state == "success"

    def _run_flow(self, prefect: PrefectServer, parameters: Parameters, seen: Look) -> bool:
        run = prefect.start_flow(f"{FLOW}:{NAME}", {"credentials": BLOCK, **parameters})
        self._progress.say("prefect", f"{NAME} started")
        prefect.wait_for_flow(run, RUN_LIMIT, seen)
        self._progress.say("prefect", f"{NAME} ended: {'success' if run.succeeded else 'failed'}")
        return run.succeeded


class _Watch:
    """Shows each change of a run and of its order as a line."""

    def __init__(
        self,
        progress: Progress,
        wing: str,
        service: Service,
        known: Mapping[int, Seen],
        bought: Callable[[], None],
    ) -> None:
        self._bought = bought
        self._progress = progress
        self._wing = wing
        self._service = service
        self._states: dict[str, str] = {}
        self._orders = dict(known)

    def look(self, states: Mapping[str, str]) -> None:
        """Shows what is new among the states of the tasks, and at the service."""
        for name, state in states.items():
            if self._states.get(name, WAITING) != state:
                self._states[name] = state
                self._progress.say(self._wing, f"{name}: {EXPLAINED.get(state, state)}")
        if self._service.watchable:
            self.show(self._service.orders())

    def show(self, orders: Mapping[int, Seen]) -> None:
        """Shows what is new among the orders."""
        for order_id, order in orders.items():
            before = self._orders.get(order_id)
            self._orders[order_id] = order
            if before is None:
                self._bought()
                text = f"order {order_id}: {order.status}, {order.phone}, {order.price:.2f} USD"
                self._progress.say("service", text)
            elif before.status != order.status:
                self._progress.say("service", f"order {order_id}: {order.status}")


def _check(ended: Ended, *, at_once: bool) -> None:
    """Raises `Unexpected` for a run on the simulator that did not end as it must."""
    *tried, last = ended.orders
    right = [order.status for order in tried] == ([] if at_once else ["cancelled, refunded"])
    right = right and ended.code is not None and ended.code == last.sent and last.status == "completed"
    if not right or ended.before - ended.after != last.price:
        shown = "; ".join(", ".join(row) for row in ended.rows())
        raise Unexpected(f"{ended.wing}'s run did not end as it must: {shown}")


# ------------------------------------------------------------------ the program


def main() -> int:
    """Runs the demo. Exit codes: 0 done, 1 something failed, 2 bad usage, 128 + n ended by signal n."""
    args = _parser().parse_args()
    other = _other_service()
    try:
        python_of(args.airflow), python_of(args.prefect)
    except FileNotFoundError as error:
        print(f"{error}; `make demo` makes it", file=sys.stderr)
        return 2
    if other is not None and not args.yes and not _may_spend(other.settings["base_url"]):
        return 2
    home = Path(tempfile.mkdtemp(prefix="smsverify-demo-"))
    try:
        with Progress() as progress, Processes(home / "logs", grace=GRACE) as processes:
            demo = Demo(progress, processes, home, airflow=args.airflow, prefect=args.prefect, other=other)
            rows = [row for ended in demo.run() for row in ended.rows()]
    except Interrupted as interruption:
        print(f"\nEnded by {interruption}. Nothing is left running.", file=sys.stderr)
        code = 128 + interruption.number
    except (HttpError, OSError, ProcessFailed, Unexpected) as error:
        print(f"\nThe demo failed: {error}\nAll logs are in {home}", file=sys.stderr)
        return 1
    else:
        print(f"\n{table(COLUMNS, rows, width())}")
        print(f"\nDone in {progress.elapsed:.0f} s. Nothing is left running.")
        code = 0
    shutil.rmtree(home, ignore_errors=True)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    for name in ("airflow", "prefect"):
        text = f"virtual environment with smsverify[{name}] (default: %(default)s)"
        parser.add_argument(f"--{name}", type=Path, default=ROOT / ".venv" / name, metavar="DIR", help=text)
    parser.add_argument("--yes", action="store_true", help="spend money at another service without asking")
    return parser


def _other_service() -> Account | None:
    given = Account.of_environment(os.environ)
    return given if given.settings.get("api_key") and given.settings.get("base_url") else None


def _may_spend(base_url: str) -> bool:
    """Whether the service is on this machine, or a person agrees."""
    host = urlsplit(base_url).hostname or ""
    if host in ("localhost", "::1") or host.startswith("127."):
        return True
    if not sys.stdin.isatty():
        print(f"This would order four numbers or more from {base_url}: add --yes to agree", file=sys.stderr)
        return False
    return input(f"This orders four numbers or more from {base_url}. Go on? [y/N] ").strip().lower() == "y"


if __name__ == "__main__":
    sys.exit(main())
