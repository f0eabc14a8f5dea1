"""Each example runs as it stands, with nothing but the connection."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from smsverify._parts import Parts
from smsverify.simulator import Fault, Simulator

EXAMPLES = Path(__file__).parents[2] / "example_dags"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, connection: Any, session: Any) -> Callable[..., Run]:
    """Runs an example with Airflow's own `Dag.test()`, out of a Dags folder."""
    from airflow import settings
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setattr(settings, "DAGS_FOLDER", str(EXAMPLES))

    def run(name: str, **conf: Any) -> Run:
        bag = DagBag(EXAMPLES / f"{name}.py")
        assert bag.import_errors == {}
        for task in bag.dags[name].tasks:
            task.retry_delay = timedelta(0)  # this run waits for it
        return Run(bag.dags[name].test(run_conf=conf))

    return run


@pytest.fixture
def tell_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[int]], None]:
    """Lets the next run of a Dag be one that an event of SMS has started."""
    from airflow.models import dagrun
    from airflow.models.asset import AssetEvent, AssetModel

    create = dagrun.get_or_create_dagrun

    def tell_of(message_ids: list[int]) -> None:
        def created(**arguments: Any) -> Any:
            run, session = create(**arguments), arguments["session"]
            messages = [{"message_id": message_id} for message_id in message_ids]
            payload = {"smsverify_conn_id": "smsverify_default", "messages": messages}
            (asset_id,) = session.query(AssetModel.id).filter_by(name="sms").one()
            event = AssetEvent(asset_id=asset_id, extra={"from_trigger": True, "payload": payload})
            run.consumed_asset_events.append(event)
            session.commit()
            return run

        monkeypatch.setattr(dagrun, "get_or_create_dagrun", created)

    return tell_of


class Run:
    """How a run of a Dag has ended: the states of its tasks and what they returned, mapped ones as lists."""

    def __init__(self, dag_run: Any) -> None:
        from airflow.models import DagRun
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        self.state = str(dag_run.state)
        with create_session() as session:
            (run,) = session.query(DagRun).filter_by(dag_id=dag_run.dag_id, run_id=dag_run.run_id)
            tasks = sorted(run.task_instances, key=lambda ti: ti.map_index)
            returned = session.query(XComModel).filter_by(
                dag_id=run.dag_id, run_id=run.run_id, key="return_value"
            )
            self.states = _by_task((ti.task_id, ti.map_index, str(ti.state)) for ti in tasks)
            self.results = _by_task((row.task_id, row.map_index, row.value) for row in returned)


def _by_task(rows: Iterable[tuple[str, int, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for task_id, map_index, value in rows:
        if map_index < 0:
            found[task_id] = value
        else:
            found.setdefault(task_id, []).append(value)
    return found


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_says_in_airflow_what_it_and_its_parts_are_for(path: Path, connection: Any) -> None:
    from airflow.dag_processing.dagbag import DagBag

    dag = DagBag(path).dags[path.stem]
    assert dag.doc_md
    assert dag.description
    for task in dag.tasks:
        assert task.doc_md, task.task_id
    for name in dag.params:
        param = dag.params.get_param(name)
        assert param.description, name
        assert param.schema["title"], name
        # Of several types without examples, Airflow's form makes a box of several lines.
        assert isinstance(param.schema["type"], str) or param.schema["examples"], name


@pytest.mark.parametrize("name", ["provision_account", "provision_in_steps", "provision_many"])
def test_a_service_is_given_by_its_name_or_its_id(name: str) -> None:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.exceptions import ParamValidationError

    params = DagBag(EXAMPLES / f"{name}.py").dags[name].params
    (field,) = {"service", "services"} & set(params)
    for service in ("Telegram", "1012", 1012):  # the form gives a text
        params[field] = [service] if field == "services" else service
    for nothing in ("", None, True, 10.5):
        with pytest.raises(ParamValidationError):
            params[field] = [nothing] if field == "services" else nothing


def test_an_account_is_provisioned_for_the_id_of_a_service(run: Callable[..., Run], sim: Simulator) -> None:
    assert run("provision_account", service=1012).state == "success"
    assert [order.service for order in sim.orders()] == ["WhatsApp"]


def test_an_account_is_provisioned(run: Callable[..., Run], sim: Simulator) -> None:
    result = run("provision_account")
    assert result.states == {"sign_up": "success", "confirm": "success"}
    (order,) = sim.orders()
    assert result.results["confirm"] == f"test-{order.phone[-4:]}"
    assert result.results["sign_up"]["otp"] == order.otp
    assert order.status == "completed"
    assert sim.balance() == Decimal("49.60")


@pytest.mark.smsverify_simulator(services={"telegram": {"sms_delay": "never"}})
@pytest.mark.slow
def test_numbers_whose_sms_never_comes_are_refunded(run: Callable[..., Run], sim: Simulator) -> None:
    result = run("provision_account", service="Telegram", timeout=0.5)
    assert result.states == {"sign_up": "failed", "confirm": "upstream_failed"}
    assert result.state == "failed"
    assert [order.status for order in sim.orders()] == ["cancelled"] * 6  # three in each of two tries
    assert sim.balance() == Decimal(50)


def test_an_account_is_provisioned_in_steps(run: Callable[..., Run], sim: Simulator) -> None:
    result = run("provision_in_steps")
    assert set(result.states.values()) == {"success"}
    (order,) = sim.orders()
    assert result.results["confirm"] == f"test-{order.phone[-4:]}"
    assert result.results["wait_for_code"]["otp"] == order.otp
    assert order.status == "completed"
    assert sim.balance() == Decimal("49.60")


@pytest.mark.slow
@pytest.mark.smsverify_simulator(services={"telegram": {"sms_delay": "never"}})
def test_in_steps_too_a_number_whose_sms_never_comes_is_refunded(
    run: Callable[..., Run], sim: Simulator
) -> None:
    result = run("provision_in_steps", service="Telegram", timeout=2)
    assert result.states == {
        "order_number": "success",
        "sign_up": "success",
        "wait_for_code": "failed",
        "confirm": "upstream_failed",
        "cancel_number": "success",
    }
    assert result.state == "failed"
    assert [order.status for order in sim.orders()] == ["cancelled"]
    assert sim.balance() == Decimal(50)


@pytest.mark.slow
@pytest.mark.smsverify_simulator(services={"telegram": {"sms_delay": "never"}})
def test_many_are_provisioned_and_only_the_one_without_a_code_is_left_out(
    run: Callable[..., Run], sim: Simulator
) -> None:
    result = run("provision_many", services=["WhatsApp", "Telegram", "Google"], timeout=2)
    assert result.states["provision.sign_up"] == ["success", "failed", "success"]
    assert result.states["provision.confirm"] == ["success", "upstream_failed", "success"]
    used = {order.service: order for order in sim.orders() if order.status == "completed"}
    assert {order.service for order in sim.orders() if order.status == "cancelled"} == {"Telegram"}
    assert result.results["report"] == [f"test-{used[name].phone[-4:]}" for name in ("WhatsApp", "Google")]
    assert sim.balance() == 50 - used["WhatsApp"].price - used["Google"].price


@pytest.mark.smsverify_simulator(speed=1, rate_limit=None)
@pytest.mark.slow
def test_rentals_are_renewed_when_they_end_soon_and_the_wallet_is_looked_at(
    run: Callable[..., Run], hook: Any, sim: Simulator
) -> None:
    day = hook.order("rent-1day", service="Tinder").order_id
    three = hook.order("rental", service="WhatsApp", duration=3).order_id
    first = run("keep_rentals_alive")
    assert first.states == {"renew_expiring": "success", "wallet_lasts": "success"}
    assert {order.renewals for order in sim.orders()} == {0}

    sim.set_time_left(day, timedelta(hours=2).total_seconds())
    sim.set_balance("6.00")
    second = run("keep_rentals_alive")
    assert second.states == {"renew_expiring": "success", "wallet_lasts": "failed"}
    renewed = {kept["order_id"]: kept for kept in second.results["renew_expiring"]["rentals"]}
    assert renewed[three]["outcome"] == "not_due"
    ends = datetime.fromisoformat(renewed[day]["expires_at"])
    assert ends > datetime.now(timezone.utc) + timedelta(hours=24)
    assert [order.renewals for order in sim.orders()] == [1, 0]
    assert Decimal(second.results["renew_expiring"]["next_cost"]) == Decimal("5.20")
    assert sim.balance() == Decimal("4.80")

    another = hook.order("rent-1day", service="Discord").order_id
    sim.set_time_left(another, timedelta(hours=2).total_seconds())
    sim.set_balance("1.00")
    third = run("keep_rentals_alive")
    assert (third.state, third.states["renew_expiring"]) == ("failed", "failed")
    (finding,) = third.results["renew_expiring"]["findings"]
    assert f"rental {another}" in finding
    assert "insufficient_balance" in finding


@pytest.mark.smsverify_simulator(sms_delay="never")
def test_reconciling_ends_well_where_all_is_accounted_for_and_fails_where_not(
    run: Callable[..., Run], hook: Any, sim: Simulator
) -> None:
    released = hook.order("temporary", service="WhatsApp").order_id
    sim.add_fault(Fault("error_before", path="order/*/cancel/", times=None))
    assert not hook.release(released, "a test")
    result = run("reconcile")
    assert (result.state, result.states) == ("failed", {"reconcile": "failed"})
    assert [order["order_id"] for order in result.results["reconcile"]["to_cancel"]] == [released]

    sim.clear_faults()
    result = run("reconcile")
    assert (result.state, result.states) == ("success", {"reconcile": "success"})
    assert result.results["reconcile"]["findings"] == []
    assert sim.balance() == 50


@pytest.mark.smsverify_simulator(sms_delay="never")
def test_a_person_is_alerted_of_findings_and_of_an_empty_wallet(
    run: Callable[..., Run], hook: Any, sim: Simulator, capsys: Any
) -> None:
    def alerts() -> list[str]:
        return re.findall(r"ALERT (.*?) \[", capsys.readouterr().out)

    sim.set_balance("1.00")
    assert run("alerts").states == {"reconcile": "success", "wallet": "failed"}
    (wallet,) = alerts()
    assert wallet == "wallet: The wallet holds 1.00 USD, and 5.00 USD are needed"

    sim.set_balance("50.00")
    assert run("alerts").states == {"reconcile": "success", "wallet": "success"}
    assert alerts() == []

    number = hook.order("temporary", service="WhatsApp").order_id
    sim.add_fault(Fault("error_before", path="order/*/cancel/", times=None))
    assert not hook.release(number, "a test")
    assert run("alerts").states == {"reconcile": "failed", "wallet": "success"}
    (finding,) = alerts()
    assert finding.startswith("reconcile: ")
    assert str(number) in finding


def test_only_the_sms_of_a_rental_start_its_dag(connection: Any) -> None:
    from airflow.dag_processing.dagbag import DagBag

    dag = DagBag(EXAMPLES / "handle_sms.py").dags["handle_sms"]
    (watcher,) = dag.timetable.asset_condition.objects[0].watchers
    _, arguments = watcher.trigger.serialize()
    assert arguments["order_id"] == [458734]


@pytest.mark.smsverify_simulator(sms_delay="never")
def test_an_sms_is_handled_in_one_run(
    run: Callable[..., Run], tell_of: Callable[[list[int]], None], hook: Any, rooms: Parts, sim: Simulator
) -> None:
    order = hook.order("rent-1day", service="Tinder")
    sim.deliver_sms(order.order_id, otp="471100")
    hook.get_status(order.order_id)
    ((message_id, _),) = rooms.inbox.since(0)

    tell_of([message_id])
    first = run("handle_sms")
    assert first.states == {"read": "success", "handle": ["success"]}
    assert first.results["handle"] == [order.order_id]
    assert first.results["read"][0]["has_code"]
    second = run("handle_sms")  # a triggerer that was killed has announced it again
    assert second.results["read"] == []
