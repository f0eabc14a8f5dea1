"""The main job on a real Airflow, and what it leaves behind in the metadata database and in the logs.

One stack for all tests: API server, scheduler, triggerer and Dag processor as processes, the simulator as
another. The examples run with a code that comes, in one task and in several, and with one that never does; a
Dag file beside them handles the other secrets.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from smsverify.simulator import SimulatedOrder, Stats
from stacks import AirflowStack, Processes, SimulatorProcess
from stacks.airflow import COMPONENTS
from stacks.rest import HttpError
from stacks.statsd import StatsdListener, tags_of
from stacks.traces import copy_database, in_database, in_files

# The first test starts everything, on a busy machine perhaps.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "example_dags"
API_KEY = "key-that-nobody-may-see"
STORE_PASSWORD = "password-that-nobody-may-see"
TEXT = "Good morning Mrs Violet"
SETTINGS = {
    "api_key": API_KEY,
    "balance": "50.00",
    # A code so long that nothing else looks like it by chance.
    "services": {
        "whatsapp": {"sms_delay": "never", "digits": 12, "text": f"{TEXT}, your code is {{otp}}"},
        "amazon": {"sms_delay": 15, "digits": 12, "text": f"{TEXT}, your code is {{otp}}"},
        "telegram": {"sms_delay": "never"},
        "google": {"sms_delay": "never"},
        "discord": {"digits": 12, "sms_delay": 2},
    },
}
PLAN = "USA 1GB / 7 days"
OTHER_SECRETS = f'''
from airflow.sdk import dag, task

from smsverify_provider.operators.smsverify import SmsVerifyOrderOperator
from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor


@dag(schedule=None)
def other_secrets():
    """An eSIM has an activation code; the address of a store, here one that is not there, a password.

    A task of the user's own returns a code, which Airflow writes into its log.
    """
    SmsVerifyOrderOperator(task_id="order_esim", product="esim", plan="{PLAN}")
    SmsVerifyOrderOperator(
        task_id="order_without_store", product="temporary", service="Uber", smsverify_conn_id="without_store"
    )

    @task
    def own():
        from smsverify_provider.hooks.smsverify import SmsVerifyHook

        with SmsVerifyHook().rented_number("temporary", service="Discord") as number:
            return number.wait_for_otp(120).otp

    own()


other_secrets()


@dag(schedule=None)
def marked():
    """A user marks the task that waits as failed, and nothing else gives the number back."""
    order = SmsVerifyOrderOperator(task_id="order", product="temporary", service="Google")
    SmsVerifyOtpSensor(task_id="wait", order_id=order.output["order_id"], deferrable=True)


marked()
'''


METRICS = [
    f"airflow.smsverify.{name}"
    for name in ("purchases.bought", "spent", "codes", "timeouts", "callbacks.refused")
]


@dataclass(frozen=True)
class Evidence:
    """What the runs have left behind: states and results of tasks by Dag run, orders by service, …"""

    states: dict[str, dict[str, str]]
    results: dict[str, dict[str, Any]]
    orders: dict[str, SimulatedOrder]
    stats: Stats
    balance: Decimal
    secrets: dict[str, str]
    while_deferred: Path
    at_the_end: Path
    logs: Path
    statsd: StatsdListener


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    base = tmp_path_factory.mktemp("stack")
    environment = Path(sys.prefix)
    dags = base / "dags"
    dags.mkdir()
    for name in ("provision_account", "provision_in_steps"):
        shutil.copy(EXAMPLES / f"{name}.py", dags)
    (dags / "other_secrets.py").write_text(OTHER_SECRETS)
    logs = base / "logs"
    with (
        StatsdListener() as statsd,
        Processes(logs) as processes,
        SimulatorProcess(processes, environment, **SETTINGS) as simulator,
        AirflowStack(
            processes,
            environment,
            dags=dags,
            home=base / "airflow",
            variables=connections(simulator, base / "store.db")
            | statsd.airflow_settings()
            | {"PYTHONPATH": f"{ROOT / 'core'}:{ROOT / 'provider'}"},
        ) as airflow,
    ):
        evidence = collect(airflow, simulator, base, statsd)
    for name in ("simulator.json", "simulator.log"):  # the service's own: they hold the API key
        (logs / name).unlink()
    shutil.move(base / "airflow" / "logs", logs / "tasks")
    return evidence


def connections(simulator: SimulatorProcess, store: Path) -> dict[str, str]:
    variables = simulator.account(store).airflow_connection()
    without_store = json.loads(variables["AIRFLOW_CONN_SMSVERIFY_DEFAULT"])
    without_store["extra"]["store_url"] = f"postgresql+psycopg://me:{STORE_PASSWORD}@127.0.0.1:9/none"
    return variables | {"AIRFLOW_CONN_WITHOUT_STORE": json.dumps(without_store)}


def collect(
    airflow: AirflowStack, simulator: SimulatorProcess, base: Path, statsd: StatsdListener
) -> Evidence:
    runs = {
        "comes": airflow.trigger_dag("provision_account", {"service": "WhatsApp", "timeout": 240}),
        "steps": airflow.trigger_dag("provision_in_steps", {"service": "Amazon", "timeout": 240}),
        "never": airflow.trigger_dag("provision_in_steps", {"service": "Telegram", "timeout": 12}),
        "others": airflow.trigger_dag("other_secrets"),
        "marked": airflow.trigger_dag("marked"),
    }
    airflow.wait_for_state(runs["marked"], "wait", ["deferred"], timeout=240)
    wait_until_triggered(base, "marked/.*/wait")
    airflow.mark(runs["marked"], "wait", "failed")
    airflow.wait_for_state(runs["comes"], "sign_up", ["deferred"], timeout=240)
    while_deferred = copy_database(airflow.database, base / "while-deferred.db")
    (awaited,) = (order for order in simulator.control().orders() if order.service == "WhatsApp")
    simulator.control().deliver_sms(awaited.order_id)
    ended = {name: airflow.wait_for_run(run, timeout=400) for name, run in runs.items()}
    with pytest.raises(HttpError, match="404"):
        airflow.rest.post("/smsverify/callback/a-secret-of-no-account", {})
    orders = {order.service: order for order in simulator.control().orders()}
    return Evidence(
        states={name: {"": run.state} | airflow.task_states(run) for name, run in ended.items()},
        results={
            "comes": airflow.xcom(runs["comes"], "sign_up"),
            "steps": airflow.xcom(runs["steps"], "wait_for_code"),
        },
        orders=orders,
        stats=simulator.control().stats(),
        balance=simulator.control().balance(),
        secrets={
            "API key": API_KEY,
            "store password": STORE_PASSWORD,
            "text": TEXT,
            "code": orders["WhatsApp"].otp or "",
            "code of steps": orders["Amazon"].otp or "",
            "own code": orders["Discord"].otp or "",
            "activation code": orders[PLAN].activation_code or "",
        },
        while_deferred=while_deferred,
        at_the_end=copy_database(airflow.database, base / "at-the-end.db"),
        logs=base / "logs",
        statsd=statsd,
    )


def wait_until_triggered(base: Path, task: str) -> None:
    """Waits until the trigger of a deferred task runs: Airflow calls its `on_kill` only from then on."""
    deadline = time.monotonic() + 240
    while not any(
        re.search(f"trigger {task}.* starting", file.read_text(errors="replace"))
        for file in base.rglob("*.log*")
    ):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize(("run", "service"), [("comes", "WhatsApp"), ("steps", "Amazon")])
def test_a_run_gets_the_code_that_the_service_has_sent(evidence: Evidence, run: str, service: str) -> None:
    assert set(evidence.states[run].values()) == {"success"}
    order = evidence.orders[service]
    assert evidence.results[run]["order_id"] == order.order_id
    assert evidence.results[run]["otp"] == order.otp
    assert order.status == "completed"


def test_a_run_without_an_sms_fails_and_its_number_is_refunded(evidence: Evidence) -> None:
    assert evidence.states["never"] == {
        "": "failed",
        "order_number": "success",
        "sign_up": "success",
        "wait_for_code": "failed",
        "confirm": "upstream_failed",
        "cancel_number": "success",
    }
    order = evidence.orders["Telegram"]
    assert order.status == "cancelled"
    assert order.refunded == order.paid == order.price


def test_every_number_is_bought_once_and_the_rate_limit_is_never_met(evidence: Evidence) -> None:
    assert evidence.states["others"]["order_esim"] == "success"
    assert evidence.states["others"]["order_without_store"] == "failed"
    assert evidence.stats.orders == len(evidence.orders) == 6
    used = [evidence.orders[service].price for service in ("WhatsApp", "Amazon", "Discord", PLAN)]
    assert evidence.balance == 50 - sum(used)
    assert evidence.stats.refused == 0


def test_a_task_that_a_user_marks_while_it_waits_has_its_number_refunded(evidence: Evidence) -> None:
    assert evidence.states["marked"] == {"": "failed", "order": "success", "wait": "failed"}
    order = evidence.orders["Google"]
    assert order.status == "cancelled"
    assert order.refunded == order.paid == order.price


def test_a_statsd_hears_of_what_tasks_triggerer_and_api_server_have_done(evidence: Evidence) -> None:
    bought = evidence.statsd.lines("airflow.smsverify.purchases.bought")
    assert {tags_of(line)["service"] for line in bought} >= {"WhatsApp", "Telegram", "Google", "Discord"}
    assert evidence.statsd.values(METRICS) == [
        evidence.stats.orders,
        float(sum(order.price for order in evidence.orders.values())),
        3,  # two for tasks that wait in the triggerer, one for a task that waits itself
        1,
        1,
    ]
    text = "\n".join(evidence.statsd.lines())
    phones = {f"phone of {name}": str(order.phone).lstrip("+") for name, order in evidence.orders.items()}
    for name, secret in (evidence.secrets | phones).items():
        assert secret not in text, name


def test_the_trigger_of_a_deferred_task_holds_no_secret(evidence: Evidence) -> None:
    with closing(sqlite3.connect(evidence.while_deferred)) as connection:
        triggers = connection.execute("SELECT kwargs FROM trigger").fetchall()
    assert any(str(evidence.orders["WhatsApp"].order_id) in kwargs for (kwargs,) in triggers)
    asked_for = {"own code", "code of steps"}  # which a task has returned by then
    assert {trace.name for trace in in_database(evidence.while_deferred, evidence.secrets)} <= asked_for


def test_the_metadata_database_holds_no_secret_but_the_code_that_was_asked_for(evidence: Evidence) -> None:
    traces = in_database(evidence.at_the_end, evidence.secrets)
    one, sensor = "provision_account sign_up", "provision_in_steps wait_for_code"
    assert {(trace.name, trace.place, trace.about) for trace in traces} == {
        ("code", "xcom.value", f"{one} return_value"),
        ("text", "xcom.value", f"{one} return_value"),
        ("code", "xcom.value", f"{one} otp"),
        ("code of steps", "xcom.value", f"{sensor} return_value"),
        ("text", "xcom.value", f"{sensor} return_value"),
        ("code of steps", "xcom.value", f"{sensor} otp"),
        ("own code", "xcom.value", "other_secrets own return_value"),
        # The examples' own tasks take the code as an argument, which Airflow shows as a rendered field.
        ("code", "rendered_task_instance_fields.rendered_fields", "provision_account confirm"),
        ("text", "rendered_task_instance_fields.rendered_fields", "provision_account confirm"),
        ("code of steps", "rendered_task_instance_fields.rendered_fields", "provision_in_steps confirm"),
    }


def test_no_log_holds_a_secret(evidence: Evidence) -> None:
    order_id = {"order": str(evidence.orders["WhatsApp"].order_id)}
    places = " ".join(trace.place for trace in in_files(evidence.logs, order_id))
    assert "task_id=sign_up" in places
    (own,) = (evidence.logs / "tasks" / "dag_id=other_secrets").glob("*/task_id=own/attempt=1.log")
    assert "Returned value was: ***" in own.read_text()
    assert ".log.trigger." in places
    assert {f"airflow-{component}.log" for component in COMPONENTS} <= {
        path.name for path in evidence.logs.iterdir()
    }
    # The copy of a task's log that the LocalExecutor writes to the scheduler's console is not masked by
    # Airflow, in any case. Only what a task itself writes or returns is in there.
    in_the_console = {("own code", "airflow-scheduler.log")}
    found = {(trace.name, trace.place) for trace in in_files(evidence.logs, evidence.secrets)}
    assert found <= in_the_console
