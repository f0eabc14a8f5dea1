"""No secret is left in Airflow's metadata database or in logs, but the code that was asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from airflow.sdk import DAG, task

from smsverify.simulator import Simulator
from smsverify_provider.operators.smsverify import (
    SmsVerifyCancelOrderOperator,
    SmsVerifyOrderOperator,
    SmsVerifyRenewOperator,
)
from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor

API_KEY = hashlib.sha256(
    b"a key that is not written here"
).hexdigest()  # this file is in the database as Dag code


def cells(session: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of the metadata database, with the name of its table."""
    metadata = sa.MetaData()
    metadata.reflect(session.get_bind())
    for table in metadata.sorted_tables:
        for row in session.execute(sa.select(table)):
            yield table.name, dict(row._mapping)


# A code so long that no time or id in the database looks like it by chance.
@pytest.mark.smsverify_simulator(api_key=API_KEY, sms_delay=30, services={"whatsapp": {"digits": 12}})
def test_the_metadata_database_and_the_logs_hold_no_secret(
    run_dag: Any, session: Any, connection: Any, sim: Simulator, capfd: Any, caplog: Any
) -> None:
    caplog.set_level("DEBUG")
    with DAG("secrets") as dag:
        order = SmsVerifyOrderOperator(task_id="order", product="temporary", service="WhatsApp")
        rental = SmsVerifyOrderOperator(task_id="rental", product="rental", service="Google", duration=3)
        SmsVerifyOrderOperator(task_id="esim", product="esim", plan="USA 5GB / 30 days")
        wait = SmsVerifyOtpSensor(task_id="wait", order_id=order.output["order_id"], deferrable=True)

        @task
        def use(otp: str) -> None:
            assert otp

        SmsVerifyRenewOperator(task_id="renew", order_id=rental.output["order_id"])
        cancel = SmsVerifyCancelOrderOperator(task_id="cancel", order_id=order.output["order_id"])
        use(wait.output["otp"]) >> cancel
    result = run_dag(dag, run_triggerer=True)
    assert result.errors == {}
    bought = {order.product: order for order in sim.orders()}
    code, text = bought["temporary"].otp, bought["temporary"].message
    activation_code = bought["esim"].activation_code
    assert code
    assert text
    assert activation_code

    found: dict[str, set[tuple[str, str, str]]] = {
        code: set(),
        text: set(),
        API_KEY: set(),
        activation_code: set(),
    }
    for table, row in cells(session):
        for secret, places in found.items():
            if secret in json.dumps(row, default=str):
                places.add((table, row.get("task_id", ""), row.get("key", "")))
    asked_for = {("xcom", "wait", "return_value")}
    assert found[code] == asked_for | {("xcom", "wait", "otp"), ("xcom", "wait", "message")}
    assert found[text] == asked_for | {("xcom", "wait", "message")}
    assert found[API_KEY] == found[activation_code] == set()

    logged = caplog.text + "".join(capfd.readouterr())
    logged += "".join(path.read_text() for path in Path(dag.folder).glob("**/*.log"))
    assert "smsverify" in logged
    for secret in (API_KEY, code, text, activation_code):
        assert secret not in logged
