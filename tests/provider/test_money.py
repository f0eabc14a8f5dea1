"""Budgets, the store that everybody has to share, and reconciling, as Airflow's tasks use them."""

from __future__ import annotations

import json
import threading
import time
from decimal import Decimal
from typing import Any

import pytest
from airflow.sdk import DAG, TaskInstanceState, task
from airflow.sdk.exceptions import AirflowFailException

from smsverify.errors import (
    FindingsError,
    InvalidRequestError,
    SpendingLimitError,
    StoreError,
    WaitStoppedError,
)
from smsverify.simulator import Fault, Simulator
from smsverify.wings import plan_release
from smsverify_provider.hooks.smsverify import SmsVerifyHook
from smsverify_provider.operators.smsverify import (
    SmsVerifyOrderOperator,
    SmsVerifyReconcileOperator,
    SmsVerifyRenewOperator,
)

WHATSAPP = {"product": "temporary", "service": "WhatsApp"}  # 0.40 USD
NEVER = pytest.mark.smsverify_simulator(sms_delay="never")

# ------------------------------------------------------------------ budgets


@NEVER
@pytest.mark.parametrize("where", ["operator", "connection"])
def test_the_mapped_tasks_of_a_dag_run_share_its_budget(
    run_dag: Any, connection: Any, monkeypatch: pytest.MonkeyPatch, sim: Simulator, where: str
) -> None:
    given = {"run_budget": "{{ 0.4 * 2 + 0.1 }}"} if where == "operator" else {}
    if where == "connection":
        connection["extra"]["run_budget"] = 0.9
        monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(connection))

    def run() -> Any:
        with DAG("budgeted") as dag:
            order = SmsVerifyOrderOperator.partial(task_id="order", product="temporary", **given)
            order.expand(service=["WhatsApp"] * 4)

            @task(trigger_rule="all_done")
            def own() -> None:
                SmsVerifyHook().order(**WHATSAPP, run_budget=0.9)

            order_after = own()
            dag.get_task("order") >> order_after
        return run_dag(dag)

    result = run()
    assert sim.balance() == 50 - 2 * Decimal("0.40")
    assert len(result.errors) == 3
    assert {type(error) for error in result.errors.values()} == {SpendingLimitError}


def test_another_dag_run_has_a_budget_of_its_own_and_the_day_is_shared(
    run_task: Any, connection: dict[str, Any], sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def order(run_id: str, **budgets: Any) -> Any:
        return run_task(
            SmsVerifyOrderOperator(task_id="order", **WHATSAPP, **budgets),
            dag_id="dag",
            run_id=run_id,
            map_index=len(sim.orders()),
        )

    assert order("monday", run_budget=0.5).state == TaskInstanceState.SUCCESS
    assert isinstance(order("monday", run_budget=0.5).error, SpendingLimitError)
    connection["extra"]["daily_budget"] = "0.80"
    monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(connection))
    assert order("tuesday", run_budget=0.5).state == TaskInstanceState.SUCCESS
    assert isinstance(order("wednesday", run_budget=0.5).error, SpendingLimitError)
    assert len(sim.orders()) == 2


def test_a_renewal_counts_in_the_budget_of_its_dag_run(
    run_task: Any, connection: Any, hook: Any, sim: Simulator
) -> None:
    rental = hook.order("rental", service="WhatsApp", duration=3)  # 4 USD, outside of any run
    results = [
        run_task(
            SmsVerifyRenewOperator(task_id="renew", order_id=rental.order_id, run_budget="7.99"),
            dag_id="dag",
            run_id="monday",
            map_index=index,
        )
        for index in range(2)
    ]
    assert results[0].state == TaskInstanceState.SUCCESS, results[0].error
    assert isinstance(results[1].error, SpendingLimitError)
    assert [order.renewals for order in sim.orders()] == [1]


def test_a_budget_that_renders_wrong_is_refused_before_anything_is_sent(
    run_task: Any, connection: Any, sim: Simulator
) -> None:
    error = run_task(SmsVerifyOrderOperator(task_id="order", **WHATSAPP, run_budget="{{ 'a lot' }}")).error
    assert isinstance(error, InvalidRequestError)
    assert error.field == "run_budget"
    assert sim.requests() == []


# ------------------------------------------------------------------ a store that not everybody sees


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor", "CeleryExecutor"),
        ("AIRFLOW__CORE__EXECUTOR", "LocalExecutor,KubernetesExecutor", "KubernetesExecutor"),
        ("AIRFLOW__CORE__EXECUTOR", "airflow.providers.edge3.executors.EdgeExecutor", "EdgeExecutor"),
        ("AIRFLOW__CORE__EXECUTOR", "LocalExecutor;team=far:my.pkg.FarExecutor", "FarExecutor"),
        ("AIRFLOW_IS_K8S_EXECUTOR_POD", "True", "pod"),
    ],
)
def test_nothing_is_paid_with_a_store_in_a_file_where_tasks_run_on_several_machines(
    run_task: Any,
    connection: Any,
    hook: Any,
    sim: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    text: str,
) -> None:
    rental = hook.order("rental", service="WhatsApp", duration=3)
    balance = sim.balance()
    monkeypatch.setenv(variable, value)
    for operator in (
        SmsVerifyOrderOperator(task_id="task", **WHATSAPP),
        SmsVerifyRenewOperator(task_id="task", order_id=rental.order_id),
    ):
        error = run_task(operator).error
        assert isinstance(error, StoreError)
        assert text in str(error)
        assert "allow_unshared_store" in str(error)
    assert sim.balance() == balance
    assert hook.get_status(rental.order_id).status == "active"  # what costs nothing goes on

    connection["extra"]["allow_unshared_store"] = True
    monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(connection))
    assert run_task(SmsVerifyOrderOperator(task_id="task", **WHATSAPP)).state == TaskInstanceState.SUCCESS


@pytest.mark.parametrize(
    "value", ["LocalExecutor", "SequentialExecutor", "airflow.executors.local_executor.LocalExecutor"]
)
def test_a_store_in_a_file_serves_one_machine(
    run_task: Any, connection: Any, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", value)
    assert run_task(SmsVerifyOrderOperator(task_id="task", **WHATSAPP)).state == TaskInstanceState.SUCCESS


# ------------------------------------------------------------------ reconciling


def test_where_all_is_accounted_for_the_report_is_the_result(
    run_task: Any, connection: Any, hook: Any, sim: Simulator
) -> None:
    order = hook.order(**WHATSAPP)
    sim.deliver_sms(order.order_id)
    hook.wait_for_otp(order.order_id)
    result = run_task(SmsVerifyReconcileOperator(task_id="reconcile"))
    assert result.state == TaskInstanceState.SUCCESS, result.error
    report = result.xcoms["return_value"]
    assert report["findings"] == report["leaks"] == report["to_cancel"] == report["unknown"] == []
    assert Decimal(report["balance"]) == sim.balance()
    assert Decimal(report["spent"]) == Decimal("0.40")
    assert result.xcoms["findings"] == []
    assert result.xcoms["balance"] == report["balance"]
    assert set(result.xcoms) == {"return_value", "findings", "balance"}


def leak(hook: Any, sim: Simulator) -> int:
    """A number that was bought, and whose refund the service refuses."""
    order_id: int = hook.order(**WHATSAPP).order_id
    sim.add_fault(Fault("error_before", path="order/*/cancel/", times=None))
    assert not hook.release(order_id, "a test")
    return order_id


@NEVER
def test_what_needs_a_person_fails_the_task_for_good_and_is_in_its_xcoms(
    run_task: Any, connection: Any, hook: Any, sim: Simulator
) -> None:
    order_id = leak(hook, sim)
    result = run_task(SmsVerifyReconcileOperator(task_id="reconcile", retries=2))
    assert result.state == TaskInstanceState.FAILED
    assert isinstance(result.error, AirflowFailException)
    assert isinstance(result.error.__cause__, FindingsError)
    assert str(order_id) in str(result.error)
    assert [order["order_id"] for order in result.xcoms["return_value"]["to_cancel"]] == [order_id]
    assert result.xcoms["findings"] == result.xcoms["return_value"]["findings"] != []
    assert set(result.xcoms) == {"return_value", "findings", "balance"}


@NEVER
def test_on_request_findings_are_only_reported(
    run_task: Any, connection: Any, hook: Any, sim: Simulator
) -> None:
    leak(hook, sim)
    result = run_task(SmsVerifyReconcileOperator(task_id="reconcile", fail_on_findings=False))
    assert result.state == TaskInstanceState.SUCCESS, result.error
    assert len(result.xcoms["findings"]) == 1


@NEVER
@pytest.mark.parametrize(("cancel_after", "status"), [("{{ 0 }}", "cancelled"), (3600, "pending")])
def test_numbers_that_nobody_waits_for_are_cancelled_on_request(
    run_task: Any, connection: Any, hook: Any, sim: Simulator, cancel_after: Any, status: str
) -> None:
    order_id = hook.order(**WHATSAPP).order_id
    result = run_task(SmsVerifyReconcileOperator(task_id="reconcile", cancel_after=cancel_after))
    assert sim.order(order_id).status == status
    assert result.xcoms["return_value"]["cancelled"] == ([order_id] if status == "cancelled" else [])


@pytest.mark.smsverify_simulator(speed=1)
def test_a_reconciliation_that_is_killed_ends_between_two_requests(
    run_task: Any, connection: Any, hook: Any, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[SmsVerifyReconcileOperator] = []

    class Killable(SmsVerifyReconcileOperator):
        def execute(self, context: Any) -> Any:
            running.append(self)
            return super().execute(context)

    order_id = hook.order(**WHATSAPP).order_id
    sim.add_fault(Fault("slow_before", path="orders/", seconds=1, times=None))

    def kill() -> None:
        while not running or running[0]._stop is None:
            time.sleep(0.01)
        running[0].on_kill()

    plan_release(hook, order_id, "a test", patience=0)
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    result = run_task(Killable(task_id="reconcile"))
    assert isinstance(result.error, WaitStoppedError)
    assert sim.order(order_id).status == "pending"


def test_the_fields_that_users_template_are_template_fields() -> None:
    budgets = {"run_budget", "smsverify_conn_id", "key"}
    assert budgets | {"max_price", "product", "service"} <= set(SmsVerifyOrderOperator.template_fields)
    assert budgets | {"max_price", "order_id"} == set(SmsVerifyRenewOperator.template_fields)
    assert set(SmsVerifyReconcileOperator.template_fields) == {"cancel_after", "smsverify_conn_id"}
