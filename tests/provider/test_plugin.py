"""The macros, in templates that Airflow renders."""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

from smsverify.errors import InvalidRequestError
from smsverify.simulator import Simulator


def test_a_template_can_use_a_bare_phone_number(run_task: Any) -> None:
    echo = BashOperator(task_id="echo", bash_command="echo {{ macros.smsverify.e164('+1 415 555-0123') }}")
    assert run_task(echo).xcoms["return_value"] == "+14155550123"


def test_a_template_can_use_an_activation_code_which_nothing_shows(
    run_dag: Any, session: Any, hook: Any, sim: Simulator, caplog: Any, capsys: Any
) -> None:
    from airflow.models.renderedtifields import RenderedTaskInstanceFields

    order_id = hook.order("esim", plan="USA 5GB / 30 days").order_id
    with DAG("install") as dag:
        BashOperator(
            task_id="install",
            bash_command="test -n $CODE && echo installing $CODE",
            env={"CODE": f"{{{{ macros.smsverify.activation_code({order_id}) }}}}"},
            do_xcom_push=False,
        )
    result = run_dag(dag)
    assert result.errors == {}
    code = sim.order(order_id).activation_code
    assert code
    rendered = session.query(RenderedTaskInstanceFields).filter_by(dag_id="install").one().rendered_fields
    assert rendered["env"] == {"CODE": "***"}
    assert "installing" in caplog.text + capsys.readouterr().out


def test_an_order_without_an_activation_code_is_refused(run_task: Any, hook: Any) -> None:
    order_id = hook.order("temporary", service="WhatsApp").order_id
    echo = BashOperator(
        task_id="echo", bash_command=f"echo {{{{ macros.smsverify.activation_code({order_id}) }}}}"
    )
    error = run_task(echo).error
    assert isinstance(error, InvalidRequestError)
    assert error.field == "order_id"
