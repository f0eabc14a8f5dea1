"""No secret is left in Airflow's metadata database or in logs, but the code that was asked for."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from airflow.sdk import DAG, task
from rigs.loops import full_loop

from smsverify.simulator import Simulator
from smsverify.wings import store_time
from smsverify_provider.operators.smsverify import (
    SmsVerifyCancelOrderOperator,
    SmsVerifyOrderOperator,
    SmsVerifyRenewOperator,
)
from smsverify_provider.sensors.smsverify import SmsVerifyOtpSensor
from smsverify_provider.triggers.smsverify import SmsVerifyOtpTrigger

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
    assert found[code] == asked_for | {("xcom", "wait", "otp")}
    assert found[text] == asked_for
    assert found[API_KEY] == found[activation_code] == set()

    logged = caplog.text + "".join(capfd.readouterr())
    logged += "".join(path.read_text() for path in Path(dag.folder).glob("**/*.log"))
    assert "smsverify" in logged
    for secret in (API_KEY, code, text, activation_code):
        assert secret not in logged


@pytest.fixture
def masked(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The secrets that Airflow is asked to mask."""
    masked: list[str | None] = []
    monkeypatch.setattr("smsverify_provider.hooks.smsverify.mask_secret", masked.append)
    return masked


@pytest.mark.parametrize(
    "method", ["wait_for_otp", "await_otp", "check_otp", "get_status", "cancel", "rented_number"]
)
def test_every_code_and_text_that_the_hook_returns_is_masked(
    hook: Any, sim: Simulator, masked: list[str | None], method: str
) -> None:
    order_id = hook.order("temporary", service="WhatsApp").order_id
    sim.deliver_sms(order_id)
    if method == "await_otp":
        returned = asyncio.run(hook.await_otp(order_id))
    elif method == "rented_number":
        with hook.rented_number("temporary", service="Telegram") as number:
            sim.deliver_sms(number.order_id)
            returned = number.wait_for_otp()
    else:
        returned = getattr(hook, method)(order_id)
    assert returned.otp
    assert {returned.otp, returned.message} <= set(masked)


def test_a_coroutine_gets_its_code_while_its_callers_fill_the_threads_of_the_loop(
    hook: Any, sim: Simulator, masked: list[str | None]
) -> None:
    order_id = hook.order("temporary", service="WhatsApp").order_id
    sim.deliver_sms(order_id, otp="123456")

    async def wait() -> Any:
        with full_loop():
            return await asyncio.wait_for(hook.await_otp(order_id), 30)

    assert asyncio.run(wait()).otp == "123456"
    assert "123456" in masked


@pytest.mark.parametrize("method", ["order", "get_order"])
def test_every_activation_code_that_the_hook_returns_is_masked(
    hook: Any, masked: list[str | None], method: str
) -> None:
    order = hook.order("esim", plan="USA 5GB / 30 days")
    if method == "get_order":
        masked.clear()
        order = hook.get_order(order.order_id)
    assert order.activation_code
    assert order.activation_code in masked


def test_the_trigger_masks_nothing_as_a_triggerer_would_remember_it_for_good(
    hook: Any, sim: Simulator, masked: list[str | None]
) -> None:
    order_id = hook.order("temporary", service="WhatsApp").order_id
    sim.deliver_sms(order_id)
    trigger = SmsVerifyOtpTrigger(
        order_id=order_id,
        deadline=store_time(hook) + 60,
        not_before=0.0,
        waiter="the sensor",
        cancel_on_timeout=True,
        cancel_on_kill=True,
        smsverify_conn_id="smsverify_default",
    )

    async def wait() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    assert asyncio.run(wait()) == [{"order_id": order_id, "outcome": "arrived"}]
    assert sim.order(order_id).otp not in masked
