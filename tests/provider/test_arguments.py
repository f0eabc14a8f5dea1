"""What stands in the Dag file is checked when that is parsed, wherever in a task it stands."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import timedelta
from enum import Enum
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator, task
from jinja2 import Undefined

from smsverify.errors import InvalidRequestError
from smsverify.simulator import Fault, Simulator
from smsverify_provider.operators.smsverify import (
    SmsVerifyCancelOrderOperator as Cancel,
)
from smsverify_provider.operators.smsverify import (
    SmsVerifyOperator as Verify,
)
from smsverify_provider.operators.smsverify import (
    SmsVerifyOrderOperator as Order,
)
from smsverify_provider.operators.smsverify import (
    SmsVerifyReconcileOperator as Reconcile,
)
from smsverify_provider.operators.smsverify import (
    SmsVerifyRenewExpiringOperator as Expiring,
)
from smsverify_provider.operators.smsverify import (
    SmsVerifyRenewOperator as Renew,
)
from smsverify_provider.sensors.smsverify import SmsVerifyBalanceSensor as Wallet
from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor as Sensor
from smsverify_provider.triggers.smsverify import SmsVerifyMessageTrigger

WHATSAPP = {"product": "temporary", "service": "WhatsApp"}
RENTAL = {"product": "rental", "service": "WhatsApp"}


@task
def some() -> list[Any]:
    """Its result is known only in the run."""
    return []


def refused(make: Callable[[], Any], field: str) -> None:
    with DAG("parsed"), pytest.raises(InvalidRequestError) as caught:
        make()
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("operator", "given", "field"),
    [
        (Order, {"product": "bogus", "service": "WhatsApp"}, "product"),
        (Order, {"product": "temporary"}, "service"),
        (Order, {"product": "temporary", "service": ""}, "service"),
        (Order, {"product": "temporary", "service": ["WhatsApp"]}, "service"),
        (Order, {**RENTAL, "duration": 7}, "duration"),
        (Order, RENTAL, "duration"),
        (Order, {**WHATSAPP, "area_code": "12"}, "area_code"),
        (Order, {**WHATSAPP, "plan": "USA 5GB / 30 days"}, "plan"),
        (Order, {**WHATSAPP, "max_price": -1}, "max_price"),
        (Order, {**WHATSAPP, "country": "Germany"}, "country"),
        (Order, {"product": "global", "service": "WhatsApp"}, "country"),
        (Order, {"product": "esim"}, "plan"),
        (Order, {**WHATSAPP, "run_budget": -1}, "run_budget"),
        (Order, {**WHATSAPP, "key": " "}, "key"),
        (Order, {**WHATSAPP, "key": ["a"]}, "key"),
        (Cancel, {"order_id": "12a"}, "order_id"),
        (Cancel, {"order_id": -1}, "order_id"),
        (Renew, {"order_id": 0}, "order_id"),
        (Renew, {"order_id": None}, "order_id"),
        (Renew, {"order_id": 5, "max_price": -0.5}, "max_price"),
        (Renew, {"order_id": 5, "run_budget": "much"}, "run_budget"),
        (Renew, {"order_id": 5, "key": True}, "key"),
        (Expiring, {"within": "soon"}, "within"),
        (Expiring, {"within": timedelta(days=-1)}, "within"),
        (Expiring, {"within": 60, "max_price": -1}, "max_price"),
        (Expiring, {"within": 60, "run_budget": "much"}, "run_budget"),
        (Expiring, {"within": 60, "order_ids": [1, "x"]}, "order_ids"),
        (Expiring, {"within": 60, "only": "1, 2, x"}, "only"),
        (Expiring, {"within": 60, "exclude": 0}, "exclude"),
        (Wallet, {"minimum": "much"}, "minimum"),
        (Wallet, {"minimum": -1}, "minimum"),
        (Reconcile, {"cancel_after": -1}, "cancel_after"),
        (Sensor, {"order_id": "x"}, "order_id"),
        (Sensor, {"order_id": None}, "order_id"),
        (Sensor, {"order_id": 5, "timeout": -1}, "timeout"),
        (Sensor, {"order_id": 5, "timeout": "soon"}, "timeout"),
        (Sensor, {"order_id": 5, "timeout": float("inf")}, "timeout"),
        (Sensor, {"order_id": 5, "after": "yesterday"}, "after"),
        (Sensor, {"order_id": 5, "after": "2026-11-24T14:22:10"}, "after"),
        (Sensor, {"order_id": 5, "sender": ""}, "sender"),
        (Sensor, {"order_id": 5, "sender": "half \udc80"}, "sender"),
        (Sensor, {"order_id": 5, "pattern": "half \udc80"}, "pattern"),
        (Sensor, {"order_id": 5, "pattern": "(unclosed"}, "pattern"),
        (Sensor, {"order_id": 5, "pattern": re.compile("[0-9]+")}, "pattern"),
        (Order, {**WHATSAPP, "max_price": "1e400"}, "max_price"),
        (Order, {**WHATSAPP, "key": "half \ud83d an emoji"}, "key"),
        (Cancel, {"order_id": b"5"}, "order_id"),
        (Expiring, {"within": b"60"}, "within"),
        (Expiring, {"within": 60, "exclude": b"458731"}, "exclude"),
        (Sensor, {"order_id": 5, "after": "0001-01-01T00:00:00+05:00"}, "after"),
        (Sensor, {"order_id": 10**5000}, "order_id"),
        (Expiring, {"within": 60, "dry_run": ""}, "dry_run"),
        (Expiring, {"within": 60, "dry_run": "False"}, "dry_run"),
        (Expiring, {"within": 60, "dry_run": None}, "dry_run"),
        (Expiring, {"within": 60, "dry_run": "{{ params.dry_run }}"}, "dry_run"),
        (Expiring, {"within": 60, "fail_on_findings": "False"}, "fail_on_findings"),
        (Reconcile, {"fail_on_findings": "no"}, "fail_on_findings"),
        (Order, {**WHATSAPP, "deferrable": "False"}, "deferrable"),
        (Renew, {"order_id": 5, "deferrable": 1}, "deferrable"),
        (Expiring, {"within": 60, "deferrable": None}, "deferrable"),
        (Verify, {**WHATSAPP, "python_callable": print, "deferrable": "False"}, "deferrable"),
        (Sensor, {"order_id": 5, "deferrable": "False"}, "deferrable"),
        (Sensor, {"order_id": 5, "cancel_on_timeout": "False"}, "cancel_on_timeout"),
        (Sensor, {"order_id": 5, "cancel_on_kill": "False"}, "cancel_on_kill"),
    ],
)
def test_a_literal_that_is_wrong_is_refused(
    operator: type[BaseOperator], given: dict[str, Any], field: str
) -> None:
    refused(lambda: operator(task_id="task", **given), field)


@pytest.mark.parametrize("field", ["order_ids", "only", "exclude"])
@pytest.mark.parametrize("make", [iter, lambda ids: map(int, ids), lambda ids: (int(one) for one in ids)])
def test_what_can_be_read_only_once_is_refused(make: Callable[[list[str]], Any], field: str) -> None:
    """The check would read it, and leave nothing to exclude or to choose."""
    refused(lambda: Expiring(task_id="task", within=60, **{field: make(["1", "2"])}), field)


def test_what_the_function_of_each_number_is_called_with_can_be_read_again() -> None:
    refused(lambda: Verify(task_id="task", python_callable=print, **WHATSAPP, op_args=iter("ab")), "op_args")


@pytest.mark.parametrize("order_id", [[], (), iter([]), ["x"], [5, None], "", {"order_id": 5}])
def test_the_orders_of_a_trigger_are_checked(order_id: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        SmsVerifyMessageTrigger(order_id=order_id)
    assert caught.value.field == "order_id"


@pytest.mark.parametrize("field", ["timeout", "after", "sender", "pattern"])
def test_a_result_in_the_place_of_its_field_stays_out_of_the_error(field: str) -> None:
    result = {"order_id": 5, "otp": "481516", "message": "Your code is 481516"}
    with pytest.raises(InvalidRequestError) as caught:
        Sensor(task_id="task", **{"order_id": 5, field: result})
    assert field in str(caught.value)
    assert "481516" not in str(caught.value)


class Named(str, Enum):
    """Of the kind that Jinja writes by its name."""

    TEMPORARY = "temporary"
    BEST = "best-temp"
    WHATSAPP = "WhatsApp"


def test_a_set_is_a_list_in_the_same_order_in_every_process() -> None:
    """Otherwise Airflow would see a new version of the Dag each time that it parses it."""
    ids = [str(number) for number in range(100, 120)]
    with DAG("sets"):
        renew = Expiring(
            task_id="renew", within=60, only=set(ids), exclude=frozenset(ids), order_ids={5, "5"}
        )
    assert (renew.only, renew.exclude, renew.order_ids) == (ids, ids, ["5", 5])


def test_an_enum_s_member_is_what_it_stands_for(run_task: Any, connection: Any, sim: Simulator) -> None:
    with DAG("named"):
        order = Order(task_id="order", product=Named.TEMPORARY, service=Named.WHATSAPP)
        verify = Verify(
            task_id="verify",
            python_callable=lambda number: sim.deliver_sms(number["order_id"], otp="123456"),
            product=Named.TEMPORARY,
            service=Named.WHATSAPP,
            alternatives=[{"product": Named.BEST}],
            deferrable=False,
        )
        sensor = Sensor(task_id="sensor", order_id=5, sender=Named.WHATSAPP)
    assert run_task(order).error is None
    sim.add_fault(Fault("out_of_stock", path="order/temporary/"))
    assert run_task(verify).error is None
    assert sorted(bought.product for bought in sim.orders()) == ["best-temp", "temporary"]
    sensor.render_template_fields({})
    assert sensor.sender == "WhatsApp"


class Odd:
    """As a table: what it is compared with is no truth value."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise ValueError("the truth value is ambiguous")


@pytest.mark.parametrize(("operator", "field"), [(Cancel, "order_id"), (Reconcile, "cancel_after")])
def test_a_table_that_another_task_gives_is_refused_by_name(
    run_task: Any, connection: Any, sim: Simulator, operator: type[BaseOperator], field: str
) -> None:
    task: Any = operator(task_id="task", **{field: None})
    setattr(task, field, Odd())
    error = run_task(task).error
    assert isinstance(error, InvalidRequestError), error
    assert error.field == field
    assert sim.requests() == []


STOPPABLE: dict[str, Callable[[Any, Any], Any]] = {
    "order": lambda hook, stop: hook.order(**WHATSAPP, stop=stop),
    "renew": lambda hook, stop: hook.renew(1, stop=stop),
    "renew_expiring": lambda hook, stop: hook.renew_expiring(60, stop=stop),
    "wait_for_otp": lambda hook, stop: hook.wait_for_otp(1, 60, stop=stop),
    "await_otp": lambda hook, stop: asyncio.run(hook.await_otp(1, 60, stop=stop)),
    "rented_number": lambda hook, stop: hook.rented_number(**WHATSAPP, stop=stop).__enter__(),
    "attempts": lambda hook, stop: hook.attempts(**WHATSAPP, stop=stop),
}


@pytest.mark.parametrize("stop", [True, False, lambda: False], ids=["true", "false", "function"])
@pytest.mark.parametrize("method", STOPPABLE)
def test_a_stop_that_is_no_event_is_refused(method: str, stop: Any, hook: Any, sim: Simulator) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        STOPPABLE[method](hook, stop)
    assert caught.value.field == "stop"
    assert sim.requests() == []


def test_a_limit_inside_of_an_argument_whose_template_gives_nothing_does_not_mean_none(
    run_task: Any, connection: Any, sim: Simulator
) -> None:
    sim.add_fault(Fault("out_of_stock", path="order/temporary/"))
    with DAG("native", render_template_as_native_obj=True):
        verify = Verify(
            task_id="task",
            python_callable=print,
            **WHATSAPP,
            max_price=1,
            alternatives=[{"product": "best-temp", "max_price": "{{ none }}"}],
        )
    error = run_task(verify).error
    assert isinstance(error, InvalidRequestError)
    assert error.field == "alternatives"
    assert sim.requests() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operator", "fixed", "mapped", "field"),
    [
        (Order, {"product": "rental", "service": "WhatsApp"}, {"duration": [7]}, "duration"),
        (Order, {**WHATSAPP, "max_price": "{{ params.most }}"}, {"key": [""]}, "key"),
        (Renew, {"max_price": -1}, {"order_id": [5]}, "max_price"),
        (Expiring, {"within": 60}, {"only": [["x"]]}, "only"),
        (Sensor, {"timeout": "soon"}, {"order_id": [5]}, "timeout"),
        (Order, WHATSAPP, {"max_price": [None]}, "max_price"),
        (Expiring, {"within": 60}, {"only": [None]}, "only"),
        (Sensor, {"order_id": 5, "cancel_on_timeout": False}, {"sender": [None]}, "sender"),
    ],
)
def test_a_mapped_task_with_a_wrong_argument_fails_before_anything_is_sent(
    run_dag: Any,
    connection: Any,
    sim: Simulator,
    operator: type[BaseOperator],
    fixed: dict[str, Any],
    mapped: dict[str, Any],
    field: str,
) -> None:
    errors = []
    with DAG("mapped", params={"most": 1}) as dag:
        mapping = operator.partial(
            task_id="task", on_failure_callback=lambda context: errors.append(context["exception"]), **fixed
        )
        mapping.expand(**mapped)
    run_dag(dag)
    assert [error.field for error in errors] == [field]
    assert sim.requests() == []


@pytest.mark.slow
def test_a_mapped_task_whose_fixed_arguments_leave_a_limit_out_has_none(
    run_dag: Any, connection: Any, sim: Simulator
) -> None:
    with DAG("mapped") as dag:
        Order.partial(task_id="task", product="temporary", max_price=None).expand(service=["WhatsApp"])
    run_dag(dag)
    assert len(sim.orders()) == 1


@pytest.mark.parametrize("field", ["order_ids", "only", "exclude"])
@pytest.mark.parametrize("is_native", [False, True])
def test_a_template_without_a_value_leaves_nothing_out_of_a_selection(
    run_task: Any, connection: Any, sim: Simulator, field: str, is_native: bool
) -> None:
    with DAG("empty", render_template_as_native_obj=is_native, template_undefined=Undefined):
        renew = Expiring(task_id="task", within=60, **{field: "{{ params.keep }}"})
    error = run_task(renew).error
    assert isinstance(error, InvalidRequestError), error
    assert error.field == field
    assert sim.requests() == []


@pytest.mark.parametrize("is_native", [False, True])
def test_there_is_nothing_to_cancel_where_a_template_has_no_value(
    run_task: Any, connection: Any, sim: Simulator, is_native: bool
) -> None:
    with DAG("empty", render_template_as_native_obj=is_native, template_undefined=Undefined):
        cancel = Cancel(task_id="task", order_id="{{ params.order_id }}")
    assert run_task(cancel).error is None
    assert sim.requests() == []


def test_a_function_in_the_place_of_a_template_is_called_in_the_run(
    run_task: Any, connection: Any, sim: Simulator
) -> None:
    def service(context: Any, jinja_env: Any) -> str:
        return "WhatsApp"

    with DAG("function"):
        order = Order(task_id="task", product="temporary", service=service)
    assert run_task(order).error is None
    assert [bought.service for bought in sim.orders()] == ["WhatsApp"]


@pytest.mark.slow
@pytest.mark.smsverify_simulator(sms_delay="never")
def test_the_whole_result_of_a_task_names_its_order(run_dag: Any, hook: Any, sim: Simulator) -> None:
    rental = hook.order("rental", service="WhatsApp", duration=3)
    number = hook.order("temporary", service="WhatsApp")
    sim.deliver_sms(number.order_id)
    unused = hook.order("temporary", service="Telegram")

    @task
    def whole(order: dict[str, Any]) -> dict[str, Any]:
        return order

    with DAG("whole") as dag:
        Renew(task_id="renew", order_id=whole(rental.as_dict()), key="renewal")
        Sensor(task_id="wait", order_id=whole(number.as_dict()))
        Cancel(task_id="cancel", order_id=whole(unused.as_dict()))
        Cancel.partial(task_id="mapped").expand(order_id=[unused.as_dict()])
    found = run_dag(dag)
    assert found["renew"].xcom["order_id"] == rental.order_id
    assert found["wait"].xcom["order_id"] == number.order_id
    assert found["cancel"].xcom["order_id"] == unused.order_id
    assert {found[name].state for name in ("renew", "wait", "cancel")} == {"success"}
    assert sim.order(unused.order_id).status == "cancelled"


def test_what_default_args_bring_is_checked() -> None:
    with pytest.raises(InvalidRequestError, match="max_price"), DAG("dag", default_args={"max_price": -1}):
        Order(task_id="task", **WHATSAPP)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Order(task_id="task", product="{{ params.product }}", service="WhatsApp"),
        lambda: Order(task_id="task", **WHATSAPP, area_code="{{ params.area_code }}", key="{{ run_id }}"),
        lambda: Order(task_id="task", **RENTAL, duration="{{ params.duration }}"),
        lambda: Order(task_id="task", product="esim", plan="{% if params.big %}USA 5GB / 30 days{% endif %}"),
        lambda: Order(task_id="task", **RENTAL, duration="30", max_price="{{ params.most }}", key=7),
        lambda: Order.partial(task_id="task", max_price="0.5").expand_kwargs(some()),
        lambda: Order.partial(task_id="task", **RENTAL).expand(duration=["{{ params.days }}", 3]),
        lambda: Order.partial(task_id="task", **RENTAL).expand(duration=some()),
        lambda: Order.partial(task_id="task").expand_kwargs(
            [{**WHATSAPP, "max_price": "{{ 1 }}"}, {"product": "esim", "plan": "USA 5GB / 30 days"}]
        ),
        lambda: Order.partial(task_id="task").expand(
            product=["temporary", "best-temp"], service=some().map(str)
        ),
        lambda: Cancel.partial(task_id="task").expand(order_id=[None, "5", 7]),
        lambda: Cancel(task_id="task", order_id=None),
        lambda: Renew(task_id="task", order_id=some(), max_price="{{ 1 }}"),
        lambda: Sensor(task_id="task", order_id=some(), timeout=timedelta(minutes=1)),
        lambda: Sensor(task_id="task", order_id="5", timeout="{{ params.timeout }}"),
        lambda: Sensor.partial(task_id="task", timeout=timedelta(minutes=1)).expand(order_id=some()),
        lambda: Reconcile(task_id="task", cancel_after="{{ params.after }}"),
        lambda: Expiring(task_id="task", within="{{ params.within }}", only=[some(), "{{ params.id }}"]),
        lambda: Expiring(task_id="task", within=timedelta(hours=1), order_ids=some(), exclude="1, {{ 2 }}"),
        lambda: Expiring.partial(task_id="task", within=60).expand(only=[[1, 2], "3, 4"]),
        lambda: Wallet(task_id="task", minimum=some()),
        lambda: Order(task_id="task", product=lambda context, jinja_env: "temporary", service="WhatsApp"),
        lambda: Sensor(task_id="task", order_id=lambda context, jinja_env: 5, timeout=lambda **_: 60),
        lambda: Expiring(task_id="task", within=60, exclude=lambda context, jinja_env: [5]),
        lambda: Sensor(task_id="task", order_id={"order_id": 5}),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_only_the_run_knows_raises_no_false_alarm(make: Callable[[], Any]) -> None:
    with DAG("parsed"):
        make()
