"""One task for a verified account: `@task.smsverify`, deferred and on a worker, mapped and retried."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator, TaskInstanceState, task
from rigs import let_go_of_all_numbers
from verify_runs import WHATSAPP, Form, verifying

from smsverify.errors import InvalidRequestError
from smsverify.simulator import Fault, Simulator
from smsverify_provider.hooks.smsverify import SmsVerifyHook
from smsverify_provider.operators.smsverify import SmsVerifyOperator
from smsverify_provider.versions import AirflowFailException, AirflowSkipException

pytestmark = pytest.mark.smsverify_simulator(sms_delay="never")
BOTH = pytest.mark.parametrize("deferrable", [True, False])


async def never_awaited(number: dict[str, Any]) -> None:
    """Would type the number into a form."""


@pytest.fixture
def run(dag_maker: Any, session: Any, connection: Any) -> Callable[..., tuple[str, Any]]:
    """Runs a function as `@task.smsverify` with Airflow's own `Dag.test()`; gives its state and result."""
    from airflow.models.xcom import XComModel

    def run(function: Callable[..., Any], **arguments: Any) -> tuple[str, Any]:
        with dag_maker(f"verify_{uuid.uuid4().hex[:8]}") as dag:
            task.smsverify(task_id="sign_up", **{**WHATSAPP, **arguments})(function)()
        (ti,) = dag.test().get_task_instances()
        rows = XComModel.get_many(run_id=ti.run_id, dag_ids=ti.dag_id, task_ids="sign_up", key="return_value")
        values = [XComModel.deserialize_value(row) for row in session.scalars(rows)]
        return str(ti.state), values[0] if values else None

    return run


@BOTH
@pytest.mark.slow
def test_the_next_number_is_tried_until_a_code_comes(
    run: Callable[..., Any], sim: Simulator, deferrable: bool
) -> None:
    form = Form(sim, 2)

    def sign_up(number: dict[str, Any]) -> str:
        return form.submit(number)

    state, returned = run(sign_up, deferrable=deferrable)
    assert state == "success"
    bought = {order.order_id: order for order in sim.orders()}
    assert [bought[order_id].status for order_id in form.typed] == ["cancelled", "completed"]
    last = bought[form.typed[-1]]
    assert returned == {
        "order_id": last.order_id,
        "phone": last.phone,
        "otp": "545122",
        "message": last.message,
        "attempts": 2,
        "cost": returned["cost"],
        "result": f"account {last.phone}",
    }
    assert Decimal(returned["cost"]) == Decimal("0.40")
    assert sim.balance() == Decimal("49.60")


@BOTH
def test_where_no_number_gets_a_code_the_error_lists_them(
    run: Callable[..., Any], sim: Simulator, deferrable: bool, caplog: Any, capsys: Any
) -> None:
    form = Form(sim)

    def sign_up(number: dict[str, Any]) -> str:
        return form.submit(number)

    assert run(sign_up, deferrable=deferrable, attempts=2) == ("failed", None)
    output = caplog.text + capsys.readouterr().out
    assert len(form.typed) == 2
    named = ", ".join(rf"order {order_id} \([+ 0-9]+\)" for order_id in form.typed)
    assert re.search(f"all of it is refunded. temporary, {named}: no code came in time", output)
    assert sim.balance() == 50
    assert ", in next_number" not in output  # the frames of an expected end say nothing


def test_an_error_of_the_function_gives_the_number_back(
    run_task: Any, connection: Any, sim: Simulator
) -> None:
    def sign_up(number: dict[str, Any]) -> None:
        raise RuntimeError("the form is down")

    with DAG("verify_fails") as dag:
        task.smsverify(task_id="sign_up", **WHATSAPP)(sign_up)()
    result = run_task(dag.get_task("sign_up"))
    assert isinstance(result.error, RuntimeError)
    assert sim.balance() == 50


@pytest.mark.parametrize("in_a_block", [False, True])
@pytest.mark.parametrize("end", [AirflowFailException, AirflowSkipException])
def test_an_error_that_airflow_does_not_retry_leaves_no_number_to_a_further_try(
    run_task: Any, connection: Any, sim: Simulator, end: type[Exception], in_a_block: bool
) -> None:
    def sign_up(_number: Any) -> None:
        raise end

    def own() -> None:
        SmsVerifyHook().verify(sign_up, "temporary", service="WhatsApp")

    with DAG("verify_no_more"):
        operator = task(own, retries=1)().operator if in_a_block else verifying(sign_up, retries=1)
    run_task(operator)
    assert [order.status for order in sim.orders()] == ["cancelled"]


def test_a_further_try_gets_the_same_number(run_task: Any, connection: Any, sim: Simulator) -> None:
    form = Form(sim, 2)

    def sign_up(number: dict[str, Any]) -> str:
        account = form.submit(number)
        if len(form.typed) == 1:
            raise RuntimeError("the form is down")
        return account

    with DAG("verify_again") as dag:
        task.smsverify(task_id="sign_up", deferrable=False, retries=1, retry_delay=timedelta(0), **WHATSAPP)(
            sign_up
        )()
    assert run_task(dag.get_task("sign_up")).state == TaskInstanceState.UP_FOR_RETRY
    assert [order.status for order in sim.orders()] == ["pending"]
    again = run_task(dag.get_task("sign_up"), try_number=2)
    assert again.state == TaskInstanceState.SUCCESS, again.error
    assert form.typed[0] == form.typed[1] == sim.orders()[0].order_id
    assert again.xcoms["return_value"]["attempts"] == 1


def test_a_further_try_gets_the_code_that_an_event_has_brought_in_vain(
    run_task: Any, connection: Any, hook: SmsVerifyHook, sim: Simulator
) -> None:
    form = Form(sim, 1)

    def sign_up(number: dict[str, Any]) -> str:
        return form.submit(number)

    with DAG("verify_lost_event") as dag:
        task.smsverify(task_id="sign_up", retries=1, retry_delay=timedelta(0), **{**WHATSAPP, "timeout": 60})(
            sign_up
        )()
    assert run_task(dag.get_task("sign_up")).state == TaskInstanceState.DEFERRED
    hook.wait_for_otp(form.typed[0], timeout=60)  # as the trigger does; its event never reaches the task
    again = run_task(dag.get_task("sign_up"), try_number=2)
    assert again.state == TaskInstanceState.SUCCESS, again.error
    assert again.xcoms["return_value"]["otp"] == "545121"
    assert [order.status for order in sim.orders()] == ["completed"]


def test_a_further_try_gets_the_same_code_where_the_worker_has_died_with_the_result(
    run_task: Any, connection: Any, sim: Simulator
) -> None:
    form = Form(sim, 1)

    def sign_up(number: dict[str, Any]) -> str:
        return form.submit(number)

    operator = verifying(sign_up, deferrable=False, retries=1, dag=DAG("verify_died"))
    first = run_task(operator)  # without the callbacks, which follow the task's end
    let_go_of_all_numbers()
    again = run_task(operator, try_number=2)
    assert again.xcoms["return_value"] == first.xcoms["return_value"]
    assert again.xcoms["return_value"]["otp"] == "545121"
    assert (form.typed, sim.balance()) == (2 * [sim.orders()[0].order_id], Decimal("49.60"))


def test_a_further_try_gets_the_same_code_where_airflow_has_not_taken_the_result(
    run_task: Any, connection: Any, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = Form(sim, 1)

    def sign_up(number: dict[str, Any]) -> str:
        return form.submit(number)

    def lose(*_: Any) -> None:
        raise OSError("the API server cannot be reached")

    operator = verifying(sign_up, deferrable=False, retries=1, dag=DAG("verify_lost"))
    with monkeypatch.context() as patched:
        patched.setattr(SmsVerifyOperator, "_returned", lose)
        first = run_task(operator, run_callbacks=True)
    assert first.state == TaskInstanceState.UP_FOR_RETRY
    again = run_task(operator, try_number=2, run_callbacks=True)
    assert again.xcoms["return_value"]["otp"] == "545121"
    assert (form.typed, sim.balance()) == (2 * [sim.orders()[0].order_id], Decimal("49.60"))


def test_a_task_that_has_succeeded_and_is_cleared_gets_another_number(
    run_task: Any, connection: Any, sim: Simulator
) -> None:
    form = Form(sim, 1, 2)

    def sign_up(number: dict[str, Any]) -> str:
        return form.submit(number)

    operator = verifying(sign_up, deferrable=False, dag=DAG("verify_cleared"))
    for number in (1, 2):
        result = run_task(operator, try_number=number, run_callbacks=True)
        assert result.xcoms["return_value"]["otp"] == f"54512{number}"
    assert form.typed == [order.order_id for order in sim.orders()]


def test_it_can_be_mapped_and_takes_arguments_and_context(
    run_dag: Any, connection: Any, sim: Simulator
) -> None:
    def sign_up(number: dict[str, Any], name: str, *, ti: Any = None) -> str:
        sim.deliver_sms(number["order_id"], otp="123456")
        return f"{name} {ti.map_index}"

    @task
    def both(codes: list[str]) -> list[str]:
        return list(codes)

    with DAG("verify_mapped") as dag:
        signed_up = task.smsverify(task_id="sign_up", **WHATSAPP)(sign_up).expand(name=["ada", "grace"])
        both(signed_up["otp"])
        with pytest.raises(InvalidRequestError, match=r"multiple_outputs.*xcom_pull\('sign_up'\)\[0\]"):
            signed_up["cost"]
    results = run_dag(dag, run_triggerer=True)
    assert results["both"].xcom == ["123456", "123456"]
    mapped = [results["sign_up", nth] for nth in range(2)]
    assert [one.xcom["result"] for one in mapped] == ["ada 0", "grace 1"]
    assert len({one.xcom["order_id"] for one in mapped}) == 2


def test_the_class_does_the_same(run_dag: Any, connection: Any, sim: Simulator) -> None:
    form = Form(sim, 1)
    with DAG("verify_class") as dag:
        SmsVerifyOperator(task_id="sign_up", python_callable=form.submit, **WHATSAPP)
    result = run_dag(dag, run_triggerer=True)["sign_up"]
    assert str(result.state) == "success", result.error
    assert result.xcom["otp"] == "545121"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"product": "esim", "service": None}, "plan"),
        ({"attempts": 0}, "attempts"),
        ({"timeout": "soon"}, "timeout"),
        ({"alternatives": [{"product": "best"}]}, "alternatives"),
        ({"max_cost": -1}, "max_cost"),
        ({"pattern": "("}, "pattern"),
        ({"service": None}, "service"),
        ({"timeout": None}, "timeout"),
        ({"attempts": None}, "attempts"),
        ({"pattern": re.compile("[0-9]+")}, "pattern"),  # the metadata database keeps no flags
        ({"alternatives": {"product": "best-temp"}}, "alternatives"),
        ({"python_callable": "print"}, "python_callable"),
        ({"python_callable": never_awaited}, "python_callable"),
        ({"python_callable": lambda: 1}, "python_callable"),
        ({"python_callable": lambda number, name: 1}, "python_callable"),
        ({"python_callable": lambda number: 1, "op_args": ["ada"]}, "python_callable"),
        ({"python_callable": lambda number, name: 1, "op_kwargs": {"number": 1}}, "python_callable"),
        ({"python_callable": lambda ti, **context: 1}, "python_callable"),
        ({"python_callable": dict}, "python_callable"),
    ],
)
def test_what_stands_in_the_dag_file_is_checked_when_that_is_parsed(
    arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        SmsVerifyOperator(task_id="sign_up", **{"python_callable": print, **WHATSAPP, **arguments})
    assert caught.value.field == field


def test_a_coroutine_function_is_refused_when_the_dag_file_is_parsed() -> None:
    with DAG("verify_async"), pytest.raises(InvalidRequestError, match="coroutine function") as caught:
        task.smsverify(task_id="sign_up", **WHATSAPP)(never_awaited)()
    assert caught.value.field == "python_callable"


def test_a_product_without_its_name_is_refused_as_airflow_refuses_it() -> None:
    with pytest.raises(TypeError, match="No positional arguments allowed while using @task"):
        task.smsverify("temporary", service="WhatsApp")


def takes_params(params: Any) -> None: ...


def takes_run(run_id: Any, ti: Any = None) -> None: ...


def takes_name(number: Any, task: Any) -> None: ...


@pytest.mark.parametrize("function", [takes_params, takes_run])
def test_a_function_whose_first_parameter_airflow_fills_is_refused_when_the_dag_file_is_parsed(
    function: Callable[..., Any],
) -> None:
    with DAG("verify_context"), pytest.raises(InvalidRequestError, match="context variables") as caught:
        task.smsverify(task_id="sign_up", **WHATSAPP)(function)()
    assert caught.value.field == "python_callable"


def test_what_only_the_run_gives_to_a_function_is_no_reason_to_refuse_it() -> None:
    with DAG("verify_later") as dag:
        names = BaseOperator(task_id="names").output
        verifying(takes_name, dag=dag)
        verifying(print, op_args=[1, names], task_id="a")
        verifying(lambda number, name: 1, op_kwargs={"name": names}, task_id="b")
        verifying(lambda number, name: 1, op_kwargs=names, task_id="c")


def test_a_function_that_returns_a_coroutine_gives_the_number_back(
    run_task: Any, connection: Any, sim: Simulator
) -> None:
    def sign_up(number: dict[str, Any]) -> Any:
        return never_awaited(number)

    error = run_task(verifying(sign_up)).error
    assert isinstance(error, InvalidRequestError), error
    assert error.field == "python_callable"
    assert [order.status for order in sim.orders()] == ["cancelled"]


def test_templates_wait_for_their_values() -> None:
    SmsVerifyOperator(
        task_id="sign_up",
        python_callable=print,
        product="{{ params.product }}",
        service="{{ params.service }}",
        attempts="{{ params.attempts }}",
        timeout="{{ params.timeout }}",
    )
    for alternatives in (
        [{"product": "{{ params.p }}"}],
        [{"service": "{{ params.s }}", "max_price": 1}, {"service": "{{ params.t }}", "max_price": 2}],
    ):
        verifying(print, alternatives=alternatives)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"timeout": "{{ none }}"}, "timeout"),
        ({"timeout": "{{ 'soon' }}"}, "timeout"),
        ({"attempts": "{{ 0 }}"}, "attempts"),
        ({"pattern": "{{ '(' }}"}, "pattern"),
        ({"sender": "{{ none }}"}, "sender"),
        ({"alternatives": [{"product": "{{ 'best' }}"}]}, "alternatives"),
    ],
)
def test_what_a_template_gives_is_checked_before_anything_is_bought(
    run_task: Any, connection: Any, sim: Simulator, arguments: dict[str, Any], field: str
) -> None:
    error = run_task(verifying(print, **arguments)).error
    assert isinstance(error, InvalidRequestError)
    assert error.field == field
    assert sim.requests() == []


def test_alternatives_may_be_templates_or_none(run_task: Any, connection: Any, sim: Simulator) -> None:
    for alternatives in (None, [{"product": "{{ 'best-temp' }}", "service": "{{ 'WhatsApp' }}"}]):
        sim.add_fault(Fault("out_of_stock", path="order/temporary/"))
        run_task(verifying(print, alternatives=alternatives))
    assert [order.product for order in sim.orders()] == ["best-temp"]


@pytest.mark.parametrize("field", ["message", "username"])
def test_a_call_of_the_decorated_function_has_the_fields_of_the_verification_and_no_others(
    field: str,
) -> None:
    def sign_up(number: Any) -> dict[str, str]:
        return {"username": "ada"}

    with DAG("fields"):
        result = task.smsverify(task_id="sign_up", **WHATSAPP)(sign_up)()
        assert not result.operator.multiple_outputs
        assert result["otp"].key == "otp"
        with pytest.raises(InvalidRequestError) as caught:
            result[field]
        assert caught.value.field == field
        renamed = task.smsverify(sign_up, **WHATSAPP).override(task_id="renamed")()
        with pytest.raises(InvalidRequestError):
            renamed[field]
        whole = task.smsverify(task_id="whole", multiple_outputs=True, **WHATSAPP)(sign_up)()
        assert whole["message"].key == "message"


def test_a_field_that_the_decorated_function_has_left_empty_is_none(
    run_dag: Any, connection: Any, sim: Simulator
) -> None:
    def sign_up(number: dict[str, Any]) -> None:
        sim.deliver_sms(number["order_id"], otp="545121")

    @task
    def confirm(otp: str, result: Any) -> str:
        return f"{otp} {result}"

    with DAG("empty_field") as dag:
        account = task.smsverify(task_id="sign_up", deferrable=False, **WHATSAPP)(sign_up)()
        confirm(account["otp"], account["result"])
    assert run_dag(dag)["confirm"].xcom == "545121 None"
