"""SMS that start work on the real stacks: soon, and each of a thousand once.

The service posts its callbacks to Airflow's API server, and to `smsverify callbacks serve`, which share a
store with Airflow's triggerer and with the flow that publishes events. Each test prints what it has measured.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import statistics
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from smsverify import Order, SmsVerifyHook
from smsverify._store.store import open_store
from smsverify._store.tables import consumers
from stacks import Account, AirflowStack, PrefectServer, Processes, Run, SimulatorProcess
from stacks.receiver import start_receiver
from stacks.rest import HttpError, Unreachable

T = TypeVar("T")

pytestmark = pytest.mark.timeout(1200)  # the first test starts everything, on a busy machine perhaps

ROOT = Path(__file__).parents[2]
CORE, AIRFLOW, PREFECT = (ROOT / ".venv" / name for name in ("core", "airflow", "prefect"))
EXAMPLES = ROOT / "prefect_tasks" / "examples"
SOURCES = ":".join(str(ROOT / name) for name in ("core", "provider", "prefect_tasks"))
SECRET = "the-secret-of-the-callback-url"
TEXT = "Good morning Mrs Violet, your code is {:06}"
PATIENCE = 300.0
BURST = 1000
SINGLES = 5

DAGS = """
from datetime import datetime, timedelta, timezone

from airflow.sdk import Asset, AssetWatcher, dag, task

from smsverify_provider.triggers.smsverify import SmsVerifyMessageTrigger

SMS = Asset("sms", watchers=[AssetWatcher(name="sms_watcher", trigger=SmsVerifyMessageTrigger())])


@dag(
    schedule=[SMS],
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    is_paused_upon_creation=False,
    default_args={"retries": 3, "retry_delay": timedelta(seconds=1)},
)
def on_sms():
    @task
    def read(triggering_asset_events=None):
        from smsverify_provider.hooks.smsverify import SmsVerifyHook

        return [int(message.otp) for message in SmsVerifyHook().messages_of(triggering_asset_events)]

    read()


on_sms()
"""


@dataclass
class Service:
    """What stands for the service: it posts SMS of a rental to the callback."""

    hook: SmsVerifyHook
    order: Order
    url: str
    sent: list[int] = field(default_factory=list)

    def post(self, numbers: list[int], *, duplicates: int = 0, url: str | None = None) -> None:
        """Posts an SMS for each number, from several threads, some more than once, until it is taken."""
        self.sent += numbers
        posts = numbers * (1 + duplicates)
        random.Random(4711).shuffle(posts)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda number: self._post(number, url or self.url), posts))

    def _post(self, number: int, url: str) -> None:
        message = {
            "order_id": self.order.order_id,
            "number": (self.order.phone or "").lstrip("+").replace(" ", ""),
            "service": "tinder",
            "sender": "8843",
            "sms": TEXT.format(number),
            "type": "str",
        }
        body = json.dumps({"event": "incoming_message", "message": message}).encode()
        headers = {"Content-Type": "application/json"}
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=5):
                    return
            except OSError:
                assert time.monotonic() < deadline, "the callback is not taken"
                time.sleep(0.5)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("messages")


@pytest.fixture(scope="module")
def processes(base: Path) -> Iterator[Processes]:
    with Processes(base / "logs") as processes:
        yield processes


@pytest.fixture(scope="module")
def simulator(processes: Processes) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(processes, CORE, balance="50.00", sms_delay="never", rate_period=6) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def service(processes: Processes, simulator: SimulatorProcess, base: Path) -> Service:
    settings = simulator.account(base / "store.db").settings
    hook = SmsVerifyHook(**settings)
    order = hook.order("rent-1day", service="Tinder")
    account = Account({**settings, "callback_secrets": SECRET})
    address = start_receiver(processes, CORE, account, variables={"PYTHONPATH": str(ROOT / "core")})
    return Service(hook, order, address.replace("<secret>", SECRET))


# ------------------------------------------------------------------ Airflow


@pytest.fixture(scope="module")
def airflow(
    processes: Processes, simulator: SimulatorProcess, service: Service, base: Path
) -> Iterator[AirflowStack]:
    dags = base / "dags"
    dags.mkdir()
    (dags / "on_sms.py").write_text(DAGS)
    account = Account({**simulator.account(base / "store.db").settings, "callback_secrets": SECRET})
    variables = account.airflow_connection() | {"PYTHONPATH": SOURCES}
    with AirflowStack(processes, AIRFLOW, dags=dags, home=base / "airflow", variables=variables) as airflow:
        airflow.wait_for_dag("on_sms")
        yield airflow


@dataclass
class Runs:
    """The SMS that Airflow's runs have got: their numbers by run, from the events and from the tasks."""

    airflow: AirflowStack
    service: Service
    events: dict[str, list[int]] = field(default_factory=dict)

    def look(self) -> Counter[int]:
        """How often each SMS is in the events of all runs."""
        for run in self.runs():
            # Airflow cannot show the events of a run that has not started.
            if run.run_id not in self.events and run.state != "queued":
                self.events[run.run_id] = [self._number(one) for one in self._ids(run)]
        return Counter(number for numbers in self.events.values() for number in numbers)

    def handled(self) -> Counter[int]:
        """How often each SMS was handed to a task, when all runs have ended."""
        for run in self.runs():
            assert self.airflow.wait_for_run(run, PATIENCE).state == "success"
        found = [_despite_a_bad_minute(lambda run=run: self.airflow.xcom(run, "read")) for run in self.runs()]
        return Counter(number for numbers in found for number in numbers or ())

    def runs(self) -> list[Run]:
        return [Run("on_sms", run["dag_run_id"], run["state"]) for run in self._runs()]

    def newest(self) -> float:
        """When the newest run was made, in seconds since 1970; asking may take longer than that."""
        return max((_seconds(run["queued_at"]) for run in self._runs()), default=0.0)

    def _runs(self) -> list[dict[str, Any]]:
        path = "/api/v2/dags/on_sms/dagRuns"
        return _despite_a_bad_minute(lambda: self.airflow.entries(path, "dag_runs"))

    def _get(self, path: str) -> Any:
        return _despite_a_bad_minute(lambda: self.airflow.rest.get(path))

    def _ids(self, run: Run) -> list[int]:
        events = self._get(f"{run.path}/upstreamAssetEvents")["asset_events"]
        assert "Violet" not in json.dumps(events)
        return [
            announced["message_id"] for event in events for announced in event["extra"]["payload"]["messages"]
        ]

    def _number(self, message_id: int) -> int:
        return int(self.service.hook.get_message(message_id).otp or 0)


@pytest.fixture(scope="module")
def runs(airflow: AirflowStack, service: Service) -> Runs:
    """Airflow once its watcher has begun to read."""
    _until(lambda: _has_reader(service, "airflow:"), "Airflow's watcher to read")
    return Runs(airflow, service)


def _has_reader(service: Service, name: str) -> bool:
    with open_store(service.hook.settings.store_url.get_secret_value()).read() as connection:
        return any(name in row.name for row in connection.execute(consumers.select()))


def _until(condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> float:
    """Waits; the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout, f"{what} does not happen"
        time.sleep(0.1)
    return time.monotonic() - began


def _despite_a_bad_minute(ask: Callable[[], T]) -> T:
    """Asks an API, which may be slow to answer while its database is locked or the machine busy."""
    for pause in (1, 5, 10, 20):
        with contextlib.suppress(HttpError, Unreachable):
            return ask()
        time.sleep(pause)
    return ask()


def test_an_sms_starts_a_run_of_a_dag_soon(runs: Runs, airflow: AirflowStack, service: Service) -> None:
    took = []
    for number in range(1, 1 + SINGLES):
        began = time.time()
        service.post([number], url=f"{airflow.url}/smsverify/callback/{SECRET}")
        _until(lambda began=began: runs.newest() > began, f"a run for SMS {number}")
        took.append(runs.newest() - began)
        _until(lambda number=number: runs.look()[number], f"SMS {number} among the events of its run")
    _print(f"SMS to Dag run: {_summary(took)}")
    assert runs.handled() == runs.look() == Counter(service.sent)


def test_each_of_a_burst_is_in_one_run(runs: Runs, service: Service) -> None:
    before = len(runs.runs())
    numbers = list(range(10_000, 10_000 + BURST))
    began = time.monotonic()
    service.post(numbers, duplicates=1)
    posted = time.monotonic() - began
    rest = _until(lambda: sum(runs.look().values()) >= len(service.sent), "every SMS in a run")
    assert runs.look() == Counter(service.sent)
    count = len(runs.runs()) - before
    _print(f"{BURST} SMS twice in {posted:.1f} s; {rest:.1f} s later all were in {count} Dag runs")
    assert runs.handled() == Counter(service.sent)


def test_a_killed_triggerer_loses_none_and_no_sms_is_handled_twice(
    runs: Runs, airflow: AirflowStack, service: Service
) -> None:
    numbers = list(range(20_000, 20_200))
    for place, number in enumerate(numbers):
        service.post([number])
        if place == 100:
            airflow.kill("triggerer")
        time.sleep(0.05)
    airflow.start(["triggerer"])
    airflow.wait_until_ready()
    _until(lambda: set(runs.look()) >= set(service.sent), "every SMS in a run")
    again = {number: count for number, count in runs.look().items() if count > 1}
    _print(f"a killed triggerer announced {len(again)} of {len(numbers)} SMS twice")
    assert runs.handled() == Counter(service.sent)


# ------------------------------------------------------------------ Prefect


@dataclass
class PrefectSide:
    """A server with a worker, the deployment that an SMS starts, and the flow that publishes SMS."""

    server: PrefectServer
    deployment_id: str

    def events(self) -> Counter[int]:
        """How often each message is announced, by its id."""
        any_time = {"since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}
        wanted = {"event": {"name": ["smsverify.message.received"]}, "occurred": any_time, "order": "ASC"}
        page = self._post("/events/filter", {"filter": wanted, "limit": 50})
        events = page["events"]
        while page["next_page"]:
            path = page["next_page"].removeprefix(self.server.rest.base_url)
            page = _despite_a_bad_minute(lambda path=path: self.server.rest.get(path))
            events += page["events"]
        assert "Violet" not in json.dumps(events)
        return Counter(event["payload"]["message_id"] for event in events)

    def runs(self) -> list[dict[str, Any]]:
        """The flow runs that SMS have started."""
        wanted = {"deployments": {"id": {"any_": [self.deployment_id]}}}
        return list(self._post("/flow_runs/filter", wanted))

    def _post(self, path: str, body: Any) -> Any:
        return _despite_a_bad_minute(lambda: self.server.rest.post(path, body))

    def newest(self) -> float:
        """When the newest of them was made, in seconds since 1970."""
        return max((_seconds(run["created"]) for run in self.runs()), default=0.0)


@pytest.fixture(scope="module")
def prefect(
    processes: Processes, simulator: SimulatorProcess, service: Service, base: Path
) -> Iterator[PrefectSide]:
    folder = base / "flows"
    shutil.copytree(EXAMPLES, folder)
    # The burst goes to another rental: it is about events, not about a thousand processes.
    yaml = (folder / "prefect.yaml").read_text()
    (folder / "prefect.yaml").write_text(
        yaml.replace("smsverify.order.458734", f"smsverify.order.{service.order.order_id}")
    )
    variables = {"PYTHONPATH": SOURCES, **simulator.account(base / "store.db").environment()}
    with PrefectServer(processes, PREFECT, home=base / "prefect", variables=variables) as server:
        server.start_worker("rentals")
        ids = server.deploy_folder(folder, ["handle-sms"])
        server.start_script(folder / "publish_message_events.py")
        _until(lambda: _has_reader(service, "prefect:"), "the flow to read")
        yield PrefectSide(server, ids["handle-sms"])


def test_an_sms_starts_a_flow_run_soon(prefect: PrefectSide, service: Service) -> None:
    took = []
    for number in range(30_001, 30_001 + SINGLES):
        began = time.time()
        service.post([number])
        _until(lambda began=began: prefect.newest() > began, f"a run for SMS {number}")
        took.append(prefect.newest() - began)
        _until(
            lambda: all(run["state_type"] == "COMPLETED" for run in prefect.runs()), "the end of the flow run"
        )
    _print(f"SMS to flow run: {_summary(took)}")
    assert len(prefect.runs()) == SINGLES


def test_each_of_a_burst_is_in_one_event(prefect: PrefectSide, service: Service) -> None:
    before = prefect.events()
    other = replace(service, order=service.hook.order("rent-1day", service="Discord"), sent=[])
    began = time.monotonic()
    other.post(list(range(40_000, 40_000 + BURST)), duplicates=1)
    posted = time.monotonic() - began
    rest = _until(lambda: sum((prefect.events() - before).values()) >= BURST, "an event of every SMS")
    _print(f"{BURST} SMS twice in {posted:.1f} s; {rest:.1f} s later each was in an event")
    announced = prefect.events() - before
    assert set(announced.values()) == {1}
    codes = [service.hook.get_message(message_id).otp for message_id in announced]
    assert Counter(map(int, filter(None, codes))) == Counter(other.sent)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _print(line: str) -> None:
    print(f"\n{line}", file=sys.__stdout__)


def _summary(took: list[float]) -> str:
    each = ", ".join(f"{one:.1f}" for one in took)
    return f"median {statistics.median(took):.1f} s ({each})"
