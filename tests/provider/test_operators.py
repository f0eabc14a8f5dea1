"""Ordering, cancelling and renewing by operators: what is refused when, and what a retry does."""

from __future__ import annotations

import traceback
from decimal import Decimal
from typing import Any

import pytest
from airflow.sdk import DAG, TaskInstanceState, task

from smsverify.errors import (
    InvalidRequestError,
    NotCancellableError,
    PriceLimitError,
    SmsVerifyError,
)
from smsverify.models import Order
from smsverify.simulator import Fault, Simulator
from smsverify_provider.operators.smsverify import (
    SmsVerifyCancelOrderOperator,
    SmsVerifyOrderOperator,
    SmsVerifyRenewOperator,
)

WHATSAPP = {"product": "temporary", "service": "WhatsApp"}

# ------------------------------------------------------------------ what a template renders


@pytest.mark.parametrize(
    ("rendered", "field"),
    [
        ({"product": "rental", "service": "WhatsApp", "duration": "{{ 3 + 4 }}"}, "duration"),
        ({"product": "temporary", "service": "WhatsApp", "area_code": "{{ 12 }}"}, "area_code"),
        ({"product": "{{ 'time_scale' }}", "service": "WhatsApp"}, "product"),
    ],
)
def test_a_template_that_renders_wrong_is_refused_before_anything_is_sent(
    run_task: Any, connection: Any, sim: Simulator, rendered: dict[str, Any], field: str
) -> None:
    result = run_task(SmsVerifyOrderOperator(task_id="order", **rendered))
    assert isinstance(result.error, InvalidRequestError)
    assert result.error.field == field
    assert sim.requests() == []


# ------------------------------------------------------------------ what is bought


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({**WHATSAPP, "area_code": 212}, {"product": "temporary", "price": "0.40", "status": "pending"}),
        ({"product": "best-temp", "service": 1012}, {"product": "best-temp", "service": "WhatsApp"}),
        ({"product": "rental", "service": "whatsapp", "duration": 3}, {"status": "active", "duration": 3}),
        ({"product": "rent-1day", "service": "Tinder"}, {"price": "1.20"}),
        ({"product": "rent-30days", "service": 7821}, {"service": "Instagram"}),
        ({"product": "global", "service": "WhatsApp", "country": "Germany"}, {"country": "Germany"}),
        ({"product": "esim", "plan": "USA 5GB / 30 days"}, {"phone": None, "status": "active"}),
    ],
)
def test_every_product_can_be_ordered_and_the_result_is_in_three_xcoms(
    run_task: Any, connection: Any, sim: Simulator, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    result = run_task(SmsVerifyOrderOperator(task_id="order", max_price=20, **given))
    assert result.state == TaskInstanceState.SUCCESS, result.error
    order = result.xcoms["return_value"]
    (bought,) = sim.orders()
    assert order["order_id"] == result.xcoms["order_id"] == bought.order_id
    assert Decimal(order["price"]) == bought.price
    for name, value in expected.items():
        assert (
            str(order[name]) == str(Decimal(value).normalize()) if name == "price" else order[name] == value
        )
    assert result.xcoms["phone"] == order["phone"]
    assert set(result.xcoms) == {"return_value", "order_id", "phone"}
    assert "activation_code" not in order
    assert bought.activation_code is None or bought.activation_code not in str(result.xcoms)


@pytest.mark.parametrize(
    ("options", "xcoms"),
    [
        ({}, {"return_value", "order_id", "phone"}),
        ({"multiple_outputs": True}, {"return_value", *Order.model_fields} - {"activation_code"}),
        ({"do_xcom_push": False}, set()),
    ],
)
def test_a_dag_chooses_how_many_xcoms_a_result_is(
    run_task: Any, connection: Any, options: dict[str, Any], xcoms: set[str]
) -> None:
    result = run_task(
        SmsVerifyOrderOperator(task_id="order", product="temporary", service="WhatsApp", **options)
    )
    assert set(result.xcoms) == xcoms


def test_a_field_that_is_no_xcom_is_refused_in_the_dag_file() -> None:
    with DAG("fields"):
        order = SmsVerifyOrderOperator(task_id="order", **WHATSAPP)
        every = SmsVerifyOrderOperator(task_id="every", **WHATSAPP, multiple_outputs=True)
    assert "xcom_pull(task_ids='order', dag_id='fields', key='phone')" in str(order.output["phone"])
    assert every.output["price"] is not None
    with pytest.raises(InvalidRequestError, match="multiple_outputs") as caught:
        order.output["price"]
    assert str(caught.value).endswith("or read the whole result: {{ ti.xcom_pull('order')['price'] }}")
    assert caught.value.field == "price"


def test_nothing_is_bought_above_the_price_limit(run_task: Any, connection: Any, sim: Simulator) -> None:
    result = run_task(SmsVerifyOrderOperator(task_id="order", **WHATSAPP, max_price="{{ '0.39' }}"))
    assert isinstance(result.error, PriceLimitError)
    assert sim.orders() == []
    # Airflow logs each frame, and those of the core say nothing about an expected end.
    assert result.error.__suppress_context__
    frames = traceback.extract_tb(result.error.__traceback__)
    assert not [frame.name for frame in frames if "core/smsverify" in frame.filename]


def test_a_retry_is_handed_the_order_that_the_first_try_has_bought(
    run_task: Any, connection: Any, sim: Simulator
) -> None:
    def order(**of: Any) -> int:
        result = run_task(SmsVerifyOrderOperator(task_id="order", **WHATSAPP), dag_id="dag", **of)
        assert result.state == TaskInstanceState.SUCCESS, result.error
        return int(result.xcoms["order_id"])

    first = order(run_id="monday", map_index=0)
    assert order(run_id="monday", map_index=0, try_number=2) == first
    others = {order(run_id="monday", map_index=1), order(run_id="tuesday", map_index=0)}
    assert len(others | {first}) == len(sim.orders()) == 3


def test_a_lost_answer_is_never_answered_with_a_second_purchase(
    run_task: Any, connection: Any, sim: Simulator
) -> None:
    sim.add_fault(Fault("lost_answer", path="order/temporary/"))
    results = [
        run_task(SmsVerifyOrderOperator(task_id="order", **WHATSAPP), dag_id="dag", try_number=try_number)
        for try_number in (1, 2)
    ]
    (bought,) = sim.orders()
    assert [result.xcoms["order_id"] for result in results] == [bought.order_id, bought.order_id]


def test_a_key_of_ones_own_belongs_to_no_run(run_task: Any, connection: Any, sim: Simulator) -> None:
    operators = [SmsVerifyOrderOperator(task_id="order", **WHATSAPP, key="{{ 'mine' }}") for _ in range(2)]
    orders = [run_task(operator).xcoms["order_id"] for operator in operators]
    assert orders[0] == orders[1]
    assert len(sim.orders()) == 1


@pytest.mark.slow
def test_mapped_tasks_buy_one_number_each(run_dag: Any, connection: Any, sim: Simulator) -> None:
    with DAG("mapped") as dag:
        by_list = SmsVerifyOrderOperator.partial(task_id="by_list", product="temporary", max_price=1)
        by_list.expand(service=["WhatsApp", "WhatsApp", "Telegram"])

        @task
        def wanted() -> list[dict[str, Any]]:
            return [
                {"product": "rental", "service": "WhatsApp", "duration": 3},
                {"product": "esim", "plan": "USA 5GB / 30 days"},
                {"product": "rental", "service": "WhatsApp", "duration": 7},
            ]

        by_dict = SmsVerifyOrderOperator.partial(task_id="by_dict", max_price=20)
        by_dict.expand_kwargs(wanted())
    result = run_dag(dag)
    bought = sorted((order.product, order.service) for order in sim.orders())
    assert bought == [
        ("esim", "USA 5GB / 30 days"),
        ("rental", "WhatsApp"),
        ("temporary", "Telegram"),
        ("temporary", "WhatsApp"),
        ("temporary", "WhatsApp"),
    ]
    (error,) = result.errors.values()
    assert isinstance(error, InvalidRequestError)
    assert error.field == "duration"


# ------------------------------------------------------------------ the hook inside a task


def test_equal_purchases_of_a_task_are_different_ones_and_a_retry_repeats_none(
    run_task: Any, connection: Any, sim: Simulator
) -> None:
    @task
    def buy_two() -> list[int]:
        from smsverify_provider.hooks.smsverify import SmsVerifyHook

        return [SmsVerifyHook().order("temporary", service="WhatsApp").order_id for _ in range(2)]

    bought = []
    for try_number in (1, 2):
        with DAG("dag"):
            operator = buy_two().operator
        result = run_task(operator, try_number=try_number)
        assert result.state == TaskInstanceState.SUCCESS, result.error
        bought.append(result.xcoms["return_value"])
    assert bought[0] == bought[1]
    assert len(set(bought[0])) == len(sim.orders()) == 2


def test_a_loop_around_a_purchase_that_fails_does_not_buy_again(
    run_task: Any, connection: Any, sim: Simulator
) -> None:
    @task
    def persistent() -> int:
        from smsverify_provider.hooks.smsverify import SmsVerifyHook

        failures = 0
        for _ in range(3):
            try:
                SmsVerifyHook().order("temporary", service="WhatsApp")
            except SmsVerifyError:
                failures += 1
        return failures

    sim.add_fault(Fault("lost_answer", path="order/temporary/"))
    sim.add_fault(Fault("error_before", path="orders/", times=None))  # so that nobody can find out
    with DAG("dag"):
        operator = persistent().operator
    result = run_task(operator)
    assert result.state == TaskInstanceState.SUCCESS, result.error
    assert result.xcoms["return_value"] == 3
    assert len(sim.orders()) == 1


# ------------------------------------------------------------------ cancelling


@pytest.mark.smsverify_simulator(sms_delay="never")
def test_an_order_is_cancelled_for_a_refund(
    run_task: Any, connection: Any, hook: Any, sim: Simulator
) -> None:
    order = hook.order("temporary", service="WhatsApp")
    result = run_task(SmsVerifyCancelOrderOperator(task_id="cancel", order_id=str(order.order_id)))
    assert result.xcoms["return_value"]["status"] == "cancelled"
    assert sim.balance() == 50


@pytest.mark.parametrize("ending", ["used", "cancelled"])
def test_cancelling_an_order_that_has_ended_is_harmless(
    run_task: Any, connection: Any, hook: Any, sim: Simulator, ending: str
) -> None:
    order = hook.order("temporary", service="WhatsApp")
    if ending == "used":
        code = hook.wait_for_otp(order.order_id).otp
    else:
        hook.cancel(order.order_id)
    balance = sim.balance()
    result = run_task(SmsVerifyCancelOrderOperator(task_id="cancel", order_id=order.order_id))
    assert result.state == TaskInstanceState.SUCCESS, result.error
    assert sim.balance() == balance
    if ending == "used":
        assert code not in str(result.xcoms["return_value"])


@pytest.mark.smsverify_simulator(sms_delay="never")
def test_a_refund_that_is_refused_fails_the_task_and_stays_on_record(
    run_task: Any, connection: Any, hook: Any, sim: Simulator
) -> None:
    rental = hook.order("rental", service="WhatsApp", duration=3)
    result = run_task(SmsVerifyCancelOrderOperator(task_id="cancel", order_id=rental.order_id))
    assert isinstance(result.error, NotCancellableError)


@pytest.mark.parametrize(
    "missing", [None, "{{ '' }}", "{{ None }}", "{{ ti.xcom_pull('order', key='order_id') }}"]
)
def test_without_an_order_there_is_nothing_to_cancel(
    run_task: Any, connection: Any, sim: Simulator, missing: str | None
) -> None:
    result = run_task(SmsVerifyCancelOrderOperator(task_id="cancel", order_id=missing))
    assert result.state == TaskInstanceState.SUCCESS, result.error
    assert sim.requests() == []


@pytest.mark.smsverify_simulator(sms_delay="never")
def test_as_a_teardown_it_gives_the_number_back_when_the_work_fails(
    run_dag: Any, connection: Any, sim: Simulator
) -> None:
    with DAG("teardown") as dag:
        order = SmsVerifyOrderOperator(task_id="order", **WHATSAPP)

        @task
        def work() -> None:
            raise RuntimeError("the sign-up form has changed")

        cancel = SmsVerifyCancelOrderOperator(task_id="cancel", order_id=order.output["order_id"])
        order.as_setup() >> work() >> cancel.as_teardown(setups=order)
    result = run_dag(dag)
    assert {name: str(state) for name, state in result.states.items()} == {
        "order": "success",
        "work": "failed",
        "cancel": "success",
    }
    assert sim.balance() == 50


def test_cancelling_after_a_purchase_that_failed_does_nothing(
    run_dag: Any, connection: Any, sim: Simulator
) -> None:
    with DAG("failed_order") as dag:
        order = SmsVerifyOrderOperator(task_id="order", **WHATSAPP, max_price="0.01")
        SmsVerifyCancelOrderOperator(
            task_id="cancel", order_id=order.output["order_id"], trigger_rule="all_done"
        )
    result = run_dag(dag)
    assert {name: str(state) for name, state in result.states.items()} == {
        "order": "failed",
        "cancel": "success",
    }
    assert sim.orders() == []


# ------------------------------------------------------------------ renewing


def test_a_renewal_is_paid_once_for_all_tries_of_its_task(
    run_task: Any, connection: Any, hook: Any, sim: Simulator
) -> None:
    rental = hook.order("rental", service="WhatsApp", duration=3)
    results = [
        run_task(
            SmsVerifyRenewOperator(task_id="renew", order_id=rental.order_id, max_price="{{ 4 }}"),
            dag_id="dag",
            run_id=run_id,
            try_number=try_number,
        )
        for run_id, try_number in [("monday", 1), ("monday", 2), ("tuesday", 1)]
    ]
    assert [order.renewals for order in sim.orders()] == [2]
    assert results[0].xcoms["expires_at"] == results[1].xcoms["expires_at"] < results[2].xcoms["expires_at"]
    assert results[0].xcoms["return_value"]["expires_estimated"] is True
    assert set(results[0].xcoms) == {"return_value", "order_id", "expires_at"}


def test_a_renewal_above_the_price_limit_is_not_paid(
    run_task: Any, connection: Any, hook: Any, sim: Simulator
) -> None:
    rental = hook.order("rental", service="WhatsApp", duration=3)
    renew = SmsVerifyRenewOperator(task_id="renew", order_id=rental.order_id, max_price="3.99")
    assert isinstance(run_task(renew).error, PriceLimitError)
    assert [order.renewals for order in sim.orders()] == [0]


@pytest.mark.parametrize("field", ["max_price", "run_budget", "key", "area_code"])
def test_a_template_that_gives_nothing_is_no_missing_limit(
    run_task: Any, connection: Any, sim: Simulator, field: str
) -> None:
    given = {**WHATSAPP, "max_price": "1", field: "{{ params.nothing }}"}
    with DAG("native", render_template_as_native_obj=True, params={"nothing": None}):
        order = SmsVerifyOrderOperator(task_id="order", **given)
    result = run_task(order)
    assert isinstance(result.error, InvalidRequestError)
    assert result.error.field == field
    assert sim.requests() == []
