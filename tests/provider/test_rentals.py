"""Keeping rentals by operator: what is renewed, what a run says of the rest, and the wallet."""

from __future__ import annotations

import json
import threading
import time
from decimal import Decimal
from typing import Any

import pytest
from airflow.sdk import DAG, Context, TaskInstanceState
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout

from smsverify.errors import FindingsError, InvalidRequestError, ServiceError, StoreError
from smsverify.simulator import Fault, Simulator
from smsverify_provider.operators.smsverify import SmsVerifyRenewExpiringOperator as RenewExpiring
from smsverify_provider.sensors.smsverify import SmsVerifyBalanceSensor

pytestmark = pytest.mark.smsverify_simulator(speed=1, rate_limit=None, balance="100")

DAY = 86_400


@pytest.fixture
def rentals(hook: Any) -> dict[str, int]:
    return {
        "day": hook.order("rent-1day", service="Tinder").order_id,
        "three": hook.order("rental", service="WhatsApp", duration=3).order_id,
        "month": hook.order("rent-30days", service="Instagram").order_id,
    }


def outcomes(report: dict[str, Any]) -> dict[int, str]:
    return {rental["order_id"]: rental["outcome"] for rental in report["rentals"]}


def test_what_is_due_is_renewed_once_for_all_tries_runs_and_dags(
    run_task: Any, connection: Any, rentals: dict[str, int], sim: Simulator
) -> None:
    runs = [("first", "monday", 1), ("first", "monday", 2), ("first", "tuesday", 1), ("second", "monday", 1)]
    for dag_id, run_id, try_number in runs:
        result = run_task(
            RenewExpiring(task_id="renew", within="{{ 4 * 86400 }}", only=[rentals["day"], rentals["three"]]),
            dag_id=dag_id,
            run_id=run_id,
            try_number=try_number,
        )
        assert result.state == TaskInstanceState.SUCCESS, result.error
    assert [order.renewals for order in sim.orders()] == [1, 1, 0]


def test_the_report_is_the_result_and_what_others_need_is_an_xcom(
    run_task: Any, connection: Any, rentals: dict[str, int], sim: Simulator
) -> None:
    result = run_task(
        RenewExpiring(task_id="renew", within=3600 * 25, max_price="{{ 2 }}", exclude="{{ 7 }}, 8")
    )
    assert result.state == TaskInstanceState.SUCCESS, result.error
    report = json.loads(json.dumps(result.xcoms["return_value"]))
    assert outcomes(report) == {
        rentals["day"]: "renewed",
        rentals["three"]: "not_due",
        rentals["month"]: "not_due",
    }
    assert Decimal(report["cost"]) == Decimal("1.20")
    assert Decimal(report["balance"]) == sim.balance()
    assert Decimal(result.xcoms["next_cost"]) == Decimal("17.20")
    assert (report["lasts"], result.xcoms["findings"]) == (True, [])
    assert set(result.xcoms) == {"return_value", "findings", "next_cost"}


@pytest.mark.parametrize("missing", ["{{ None }}", "{{ params.nothing }}"])
def test_a_choice_whose_template_gives_nothing_does_not_mean_all(
    run_task: Any, connection: Any, rentals: dict[str, int], sim: Simulator, missing: str
) -> None:
    result = run_task(
        RenewExpiring(task_id="renew", within=3600 * 25, only=missing, params={"nothing": None})
    )
    assert isinstance(result.error, InvalidRequestError)
    assert result.error.field == "only"
    assert {order.renewals for order in sim.orders()} == {0}


def test_a_rental_that_is_not_kept_fails_the_task_after_the_others_were_renewed(
    run_task: Any, connection: Any, rentals: dict[str, int], sim: Simulator
) -> None:
    sim.add_fault(
        Fault(
            "out_of_stock",
            f"order/{rentals['day']}/renew/",
            status=402,
            body='{"error": "Insufficient balance"}',
        )
    )
    result = run_task(RenewExpiring(task_id="renew", within=4 * DAY))
    assert isinstance(result.error, FindingsError)
    assert f"rental {rentals['day']}" in str(result.error)
    assert outcomes(result.xcoms["return_value"])[rentals["three"]] == "renewed"
    assert result.xcoms["findings"]
    assert [order.renewals for order in sim.orders()] == [0, 1, 0]
    # A retry makes good what may be, and nothing else.
    result = run_task(RenewExpiring(task_id="renew", within=DAY + 60), try_number=2)
    assert result.state == TaskInstanceState.SUCCESS, result.error
    assert [order.renewals for order in sim.orders()] == [1, 1, 0]


def test_a_run_that_does_not_fail_and_one_that_pays_nothing(
    run_task: Any, connection: Any, rentals: dict[str, int], sim: Simulator
) -> None:
    dry = run_task(
        RenewExpiring(task_id="renew", within=4 * DAY, max_price=2, dry_run=True, fail_on_findings=False)
    )
    assert dry.state == TaskInstanceState.SUCCESS, dry.error
    assert outcomes(dry.xcoms["return_value"]) == {
        rentals["day"]: "would_renew",
        rentals["three"]: "too_expensive",
        rentals["month"]: "not_due",
    }
    assert {order.renewals for order in sim.orders()} == {0}


def test_a_budget_of_the_run_is_kept(
    run_task: Any, connection: Any, rentals: dict[str, int], sim: Simulator
) -> None:
    result = run_task(RenewExpiring(task_id="renew", within=4 * DAY, run_budget=4, fail_on_findings=False))
    assert outcomes(result.xcoms["return_value"])[rentals["three"]] == "budget_reached"
    assert [order.renewals for order in sim.orders()] == [1, 0, 0]


def test_a_task_that_is_killed_sends_no_further_renewal(
    run_task: Any, connection: Any, rentals: dict[str, int], sim: Simulator
) -> None:
    sim.add_fault(Fault("slow_after", "order/*/renew/", seconds=2))
    running: list[RenewExpiring] = []

    class Killable(RenewExpiring):
        """Records which instance runs: Airflow executes, and kills, a copy of the one in the Dag."""

        def execute(self, context: Context) -> dict[str, Any]:
            running.append(self)
            return super().execute(context)

    def kill_in_the_middle() -> None:
        while not sim.order(rentals["day"]).renewals:
            time.sleep(0.01)
        running[0].on_kill()

    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    result = run_task(Killable(task_id="renew", within=4 * DAY, fail_on_findings=False))
    killer.join()
    assert outcomes(result.xcoms["return_value"]) == {
        rentals["day"]: "renewed",
        rentals["three"]: "stopped",
        rentals["month"]: "not_due",
    }


def test_nothing_is_renewed_with_a_store_in_a_file_where_tasks_run_on_several_machines(
    run_task: Any, connection: Any, rentals: dict[str, int], sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    assert isinstance(run_task(RenewExpiring(task_id="renew", within=4 * DAY)).error, StoreError)
    assert {order.renewals for order in sim.orders()} == {0}


def test_a_template_that_renders_wrong_is_refused_before_anything_is_sent(
    run_task: Any, connection: Any, sim: Simulator
) -> None:
    for name, value in (("within", "soon"), ("only", "seven"), ("max_price", "much")):
        result = run_task(RenewExpiring(**{"task_id": "renew", "within": 60, name: f"{{{{ '{value}' }}}}"}))
        assert isinstance(result.error, InvalidRequestError)
        assert result.error.field == name
    assert sim.requests() == []


# ------------------------------------------------------------------ the wallet


def test_the_wallet_holds_enough(run_task: Any, connection: Any, sim: Simulator) -> None:
    result = run_task(SmsVerifyBalanceSensor(task_id="wallet", minimum="{{ 100 }}", mode="poke"))
    assert result.state == TaskInstanceState.SUCCESS, result.error
    assert Decimal(result.xcoms["return_value"]["amount"]) == 100
    assert result.xcoms["return_value"]["currency"] == "USD"
    assert set(result.xcoms) == {"return_value", "amount"}


def test_a_wallet_that_holds_too_little_is_looked_at_again_without_a_worker(
    run_task: Any, connection: Any, sim: Simulator
) -> None:
    result = run_task(SmsVerifyBalanceSensor(task_id="wallet", minimum="100.01"))
    assert result.state == TaskInstanceState.UP_FOR_RESCHEDULE
    assert SmsVerifyBalanceSensor(task_id="wallet", minimum=1).poke_interval == 300
    sim.deposit("0.01")
    assert (
        run_task(SmsVerifyBalanceSensor(task_id="wallet", minimum="100.01")).state
        == TaskInstanceState.SUCCESS
    )


def test_without_time_it_looks_once_and_fails(run_task: Any, connection: Any, sim: Simulator) -> None:
    result = run_task(SmsVerifyBalanceSensor(task_id="wallet", minimum=101, mode="poke", timeout=0))
    assert isinstance(result.error, AirflowSensorTimeout)
    assert str(result.error) == "The wallet holds 100.00 USD, and 101.00 USD are needed"
    assert len(sim.requests()) == 1


@pytest.mark.slow
def test_where_its_last_look_fails_the_task_fails_with_that_error_and_may_be_retried(
    run_task: Any, connection: Any, sim: Simulator
) -> None:
    once = {"task_id": "wallet", "minimum": 1, "mode": "poke", "timeout": 0}
    sim.add_fault(Fault("html", "balance/", times=None))
    result = run_task(SmsVerifyBalanceSensor(**once, retries=1))
    assert isinstance(result.error, ServiceError), result.error
    assert result.state == TaskInstanceState.UP_FOR_RETRY
    skipped = run_task(SmsVerifyBalanceSensor(**once, soft_fail=True))
    assert skipped.state == TaskInstanceState.SKIPPED


def test_what_may_pass_ends_no_wait_and_a_refused_key_does(
    run_task: Any, connection: Any, sim: Simulator
) -> None:
    sim.add_fault(Fault("html", "balance/"))
    sensor = {"task_id": "wallet", "minimum": 1, "mode": "poke", "poke_interval": 0.05}
    assert run_task(SmsVerifyBalanceSensor(**sensor)).state == TaskInstanceState.SUCCESS
    sim.add_fault(Fault("unauthorized", "balance/"))
    assert isinstance(run_task(SmsVerifyBalanceSensor(**sensor)).error, AirflowFailException)


def test_the_minimum_may_come_from_the_renewals(
    run_dag: Any, connection: Any, rentals: dict[str, int]
) -> None:
    with DAG("kept") as dag:
        renew = RenewExpiring(task_id="renew", within=60)
        renew >> SmsVerifyBalanceSensor(
            task_id="wallet", minimum=renew.output["next_cost"], mode="poke", timeout=0
        )
    result = run_dag(dag)
    assert {name: str(state) for name, state in result.states.items()} == {
        "renew": "success",
        "wallet": "success",
    }
