"""The main job on a real Prefect server, and what it leaves behind in the server's database and in the logs.

One server for all tests, as a process with an empty home, and each flow run a process of its own. The
examples run with a code that comes, in one task and in several, and with one that never does; two more flows
handle the other secrets.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from smsverify.simulator import SimulatedOrder, Stats
from stacks import Account, PrefectServer, Processes, SimulatorProcess
from stacks.traces import Trace, copy_database, in_database, in_files

# The first test starts everything, on a busy machine perhaps.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EXAMPLES = Path(__file__).parents[2] / "prefect_tasks" / "examples"
ONE_TASK = EXAMPLES / "provision_account.py"
API_KEY = "key-that-nobody-may-see"
STORE_PASSWORD = "password-that-nobody-may-see"
TEXT = "Good morning Mrs Violet"
SETTINGS = {
    "api_key": API_KEY,
    "balance": "50.00",
    "sms_delay": 12,
    # A code so long that nothing else looks like it by chance.
    "services": {
        "whatsapp": {"digits": 12, "text": f"{TEXT}, your code is {{otp}}"},
        "amazon": {"digits": 12, "text": f"{TEXT}, your code is {{otp}}"},
        "telegram": {"sms_delay": "never"},
    },
}
PLAN = "USA 1GB / 7 days"
OTHER_FLOWS = f'''
from prefect import flow

from prefect_smsverify import order_number


@flow
def order_esim(credentials: str) -> int:
    """An eSIM has an activation code."""
    return order_number(credentials, "esim", plan="{PLAN}").order_id


@flow
def order_without_store(credentials: str) -> int:
    """The address of a store, here one that is not there, has a password."""
    return order_number(credentials, "temporary", service="Uber").order_id
'''


@dataclass(frozen=True)
class Evidence:
    """What the runs have left behind: how they ended, all orders, the last one by service, …"""

    succeeded: dict[str, bool]
    states: dict[str, set[str]]
    orders: list[SimulatedOrder]
    last: dict[str, SimulatedOrder]
    stats: Stats
    balance: Decimal
    secrets: dict[str, str]
    database: Path
    home: Path
    logs: Path


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    base = tmp_path_factory.mktemp("server")
    environment = Path(sys.prefix)
    with (
        Processes(base / "logs") as processes,
        SimulatorProcess(processes, environment, **SETTINGS) as simulator,
        PrefectServer(processes, environment, home=base / "prefect") as prefect,
    ):
        evidence = collect(prefect, simulator, base)
    for name in ("simulator.json", "simulator.log"):  # the service's own: they hold the API key
        (base / "logs" / name).unlink()
    return evidence


def collect(prefect: PrefectServer, simulator: SimulatorProcess, base: Path) -> Evidence:
    account = simulator.account(base / "store.db")
    unreachable = f"postgresql+psycopg://me:{STORE_PASSWORD}@127.0.0.1:9/none"
    prefect.save_credentials("mine", account)
    prefect.save_credentials("without-store", Account({**account.settings, "store_url": unreachable}))
    flows = base / "other_flows.py"
    flows.write_text(OTHER_FLOWS)
    runs = {
        "comes": prefect.start_flow(
            f"{ONE_TASK}:provision_account", {"credentials": "mine", "service": "WhatsApp", "timeout": 240}
        ),
        "steps": prefect.start_flow(
            f"{EXAMPLES / 'provision_in_steps.py'}:provision_in_steps",
            {"credentials": "mine", "service": "Amazon", "timeout": 240},
        ),
        "never": prefect.start_flow(
            f"{ONE_TASK}:provision_account", {"credentials": "mine", "service": "Telegram", "timeout": 6}
        ),
        "esim": prefect.start_flow(f"{flows}:order_esim", {"credentials": "mine"}),
        "without store": prefect.start_flow(f"{flows}:order_without_store", {"credentials": "without-store"}),
    }
    ended = {name: prefect.wait_for_flow(run, timeout=400) for name, run in runs.items()}
    orders = simulator.control().orders()
    last = {order.service: order for order in orders}
    return Evidence(
        succeeded={name: run.succeeded for name, run in ended.items()},
        states={name: set(prefect.states(run).values()) for name, run in ended.items()},
        orders=orders,
        last=last,
        stats=simulator.control().stats(),
        balance=simulator.control().balance(),
        secrets={
            "API key": API_KEY,
            "store password": STORE_PASSWORD,
            "text": TEXT,
            "code": last["WhatsApp"].otp or "",
            "code of steps": last["Amazon"].otp or "",
            "activation code": last[PLAN].activation_code or "",
        },
        database=copy_database(prefect.database, base / "server.db"),
        home=prefect.home,
        logs=base / "logs",
    )


@pytest.mark.parametrize(("run", "service"), [("comes", "WhatsApp"), ("steps", "Amazon")])
def test_a_flow_gets_the_code_and_uses_it(evidence: Evidence, run: str, service: str) -> None:
    assert evidence.succeeded[run]
    assert evidence.states[run] == {"Completed"}
    assert evidence.last[service].status == "completed"


def test_a_flow_without_an_sms_fails_and_its_numbers_are_refunded(evidence: Evidence) -> None:
    assert not evidence.succeeded["never"]
    assert evidence.states["never"] == {"Failed"}
    tried = [order for order in evidence.orders if order.service == "Telegram"]
    assert [order.status for order in tried] == ["cancelled"] * 3
    assert all(order.refunded == order.paid == order.price for order in tried)


def test_every_number_is_bought_once_and_the_rate_limit_is_never_met(evidence: Evidence) -> None:
    assert evidence.succeeded["esim"]
    assert not evidence.succeeded["without store"]
    assert evidence.stats.orders == len(evidence.orders) == 6
    used = [evidence.last[service].price for service in ("WhatsApp", "Amazon", PLAN)]
    assert evidence.balance == 50 - sum(used)
    assert evidence.stats.refused == 0


def test_the_servers_database_holds_no_secret(evidence: Evidence) -> None:
    lines = in_database(evidence.database, {"order": f"order {evidence.last['WhatsApp'].order_id}"})
    assert Trace("order", "log.message", "smsverify.purchases.purchasing") in lines
    assert in_database(evidence.database, evidence.secrets) == []


def test_no_log_and_no_kept_result_holds_a_secret(evidence: Evidence) -> None:
    order_id = {"order": str(evidence.last["WhatsApp"].order_id)}
    assert [trace.place for trace in in_files(evidence.logs, order_id)] == ["prefect-run-1.log"]
    assert in_files(evidence.logs, evidence.secrets) == []
    assert in_files(evidence.home, evidence.secrets) == []
