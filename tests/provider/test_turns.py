"""Tasks that wait for the rate limit: deferred, in their order, and paid for once when they come back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from airflow.sdk import DAG, TaskInstanceState, task
from airflow.sdk.exceptions import AirflowFailException
from rigs import eventually
from rigs.outages import TwoOutages

from smsverify._parts import Parts
from smsverify._store.tables import queue
from smsverify.simulator import Simulator
from smsverify.wings import TurnIsFar, leaving_queue, store_name, store_time
from smsverify_provider.operators.smsverify import (
    SmsVerifyOperator,
    SmsVerifyOrderOperator,
    SmsVerifyRenewExpiringOperator,
    SmsVerifyRenewOperator,
)
from smsverify_provider.triggers.smsverify import OTHER_STORE, SmsVerifyTurnTrigger

LIMIT = 10
pytestmark = pytest.mark.smsverify_simulator(sms_delay="never", rate_limit=LIMIT, speed=8.0)
WHATSAPP: dict[str, Any] = {"product": "temporary", "service": "WhatsApp", "max_price": "0.50"}


@pytest.fixture(autouse=True)
def _every_wait_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smsverify_provider.turns.WORTH_DEFERRING", 0.5)
    monkeypatch.setattr("smsverify_provider.turns.RESUME_GAP", 0.0)
    monkeypatch.setattr("smsverify_provider.triggers.smsverify.LEAD", 0.2)


@pytest.fixture
def connection(connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    connection["extra"]["rate_limit"] = LIMIT
    monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(connection))
    return connection


@pytest.fixture
def use_up(hook: Any, rooms: Parts) -> Callable[[], None]:
    """Lets no purchase leave for some seconds: they have their share while codes are polled for."""
    hook.order("temporary", service="WhatsApp")

    def use_up() -> None:
        with rooms.store.write() as connection:
            rooms.rate_limit.codes_are_polled_for(connection)
        with contextlib.suppress(TurnIsFar), leaving_queue(beyond=0.5):
            while True:
                hook.order("temporary", service="WhatsApp")
        with rooms.store.write() as connection:
            connection.execute(sa.delete(queue))

    return use_up


@pytest.fixture
def rent(hook: Any, use_up: Any) -> Callable[[], int]:
    return lambda: hook.order("rental", service="WhatsApp", duration=3).order_id


def purchases(sim: Simulator) -> int:
    return sum(one.path.startswith("/api/v1/order/temporary") for one in sim.requests())


def trigger_of(deferral: Any) -> SmsVerifyTurnTrigger:
    """The trigger as the triggerer makes it, from what is in the metadata database."""
    trigger = SmsVerifyTurnTrigger(**json.loads(json.dumps(deferral.trigger_kwargs)))
    assert trigger.serialize() == (deferral.classpath, deferral.trigger_kwargs)
    return trigger


async def event_of(trigger: SmsVerifyTurnTrigger) -> dict[str, Any]:
    return (await anext(aiter(trigger.run()))).payload


@pytest.mark.slow
@pytest.mark.parametrize("decorated", [False, True])
def test_a_dag_waits_deferred_and_buys_once(
    dag_maker: Any, session: Any, sim: Simulator, use_up: Callable[[], None], decorated: bool, caplog: Any
) -> None:
    before: list[int] = []

    def as_it_begins(_: Any) -> None:
        """Airflow itself may take longer to begin than the turn takes to come."""
        if not before:
            use_up()
            before.append(purchases(sim))

    def sign_up(number: dict[str, Any]) -> str:
        sim.deliver_sms(number["order_id"], otp="545121")
        return "done"

    with dag_maker(f"turn_{uuid.uuid4().hex[:8]}") as dag:
        if decorated:
            task.smsverify(task_id="buy", **WHATSAPP, timeout=20, pre_execute=as_it_begins)(sign_up)()
        else:
            SmsVerifyOrderOperator(task_id="buy", **WHATSAPP, deferrable=True, pre_execute=as_it_begins)
    with caplog.at_level("INFO"):
        (ti,) = dag.test().get_task_instances()
    assert str(ti.state) == "success"
    assert "it is deferred until then" in caplog.text
    assert purchases(sim) - before[0] == 1
    assert sim.stats().refused == 0


@pytest.mark.slow
def test_a_task_that_may_not_defer_waits_on_its_worker(
    run_task: Any, sim: Simulator, use_up: Callable[[], None]
) -> None:
    use_up()
    result = run_task(SmsVerifyOrderOperator(task_id="buy", **WHATSAPP, deferrable=False))
    assert result.state == TaskInstanceState.SUCCESS


@pytest.mark.slow
def test_a_deferral_sends_nothing_and_holds_no_secret(
    run_task: Any, hook: Any, sim: Simulator, use_up: Callable[[], None]
) -> None:
    use_up()
    before = len(sim.requests())
    deferral = run_task(SmsVerifyOrderOperator(task_id="buy", **WHATSAPP, deferrable=True)).msg
    assert len(sim.requests()) == before
    assert deferral.next_method == "execute_complete"
    assert sim.api_key not in str(deferral.trigger_kwargs)
    assert hook.rate_limit().waiting == 1
    event = asyncio.run(event_of(trigger_of(deferral)))
    assert event == {name: deferral.trigger_kwargs[name] for name in ("place", "arrived_at")}


def test_a_place_is_kept_while_airflow_cannot_take_the_event(
    run_task: Any, hook: Any, rooms: Parts, use_up: Callable[[], None]
) -> None:
    use_up()
    deferral = run_task(SmsVerifyOrderOperator(task_id="buy", **WHATSAPP, deferrable=True)).msg
    deferral.trigger_kwargs["not_before"] += 3600
    trigger = trigger_of(deferral)
    with rooms.store.write() as connection:
        connection.execute(sa.delete(queue))

    async def run() -> None:
        event = asyncio.create_task(event_of(trigger))
        await asyncio.to_thread(eventually, lambda: hook.rate_limit().waiting == 1, "a heartbeat")
        event.cancel()

    asyncio.run(run())


def test_no_event_comes_before_a_worker_has_let_go_of_the_task(hook: Any) -> None:
    not_before = store_time(hook) + 1
    trigger = SmsVerifyTurnTrigger(
        place="whose turn it is",
        arrived_at=0.0,
        not_before=not_before,
        store=store_name(hook),
        smsverify_conn_id="smsverify_default",
    )
    asyncio.run(event_of(trigger))
    assert store_time(hook) >= not_before


@pytest.mark.slow
def test_a_worker_whose_clock_is_ahead_holds_no_turn_up(
    run_task: Any, use_up: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_up()
    right = time.time
    with monkeypatch.context() as worker:
        worker.setattr(time, "time", lambda: right() + 3600)
        deferral = run_task(SmsVerifyOrderOperator(task_id="buy", **WHATSAPP, deferrable=True)).msg
    event = asyncio.run(asyncio.wait_for(event_of(trigger_of(deferral)), 60))
    assert "detail" not in event


def test_a_verification_comes_back_with_its_key(run_task: Any, use_up: Callable[[], None]) -> None:
    def sign_up(number: dict[str, Any]) -> None:
        raise AssertionError("it has no number yet")

    with DAG("turn_verify") as dag:
        task.smsverify(task_id="sign_up", **WHATSAPP)(sign_up)()
    use_up()
    deferral = run_task(dag.get_task("sign_up")).msg
    assert deferral.next_method == "execute_at_turn"
    trigger = trigger_of(deferral)
    assert trigger.passed_on is not None
    assert trigger.passed_on["key"].startswith("airflow:")


@pytest.mark.slow
@pytest.mark.parametrize("operator", [SmsVerifyRenewOperator, SmsVerifyRenewExpiringOperator])
def test_a_renewal_waits_deferred_and_is_paid_once(
    operator: Any, run_task: Any, rent: Callable[[], int], sim: Simulator, use_up: Callable[[], None]
) -> None:
    rental = rent()
    if operator is SmsVerifyRenewOperator:
        renew = operator(task_id="renew", order_id=rental, deferrable=True, do_xcom_push=False)
    else:
        renew = operator(
            task_id="renew", within=4 * 86_400, only=[rental], deferrable=True, do_xcom_push=False
        )
    use_up()
    deferral = run_task(renew).msg
    assert deferral.next_method == "execute_complete"
    assert sim.order(rental).renewals == 0
    event = asyncio.run(event_of(trigger_of(deferral)))
    renew.execute_complete({}, event)
    assert sim.order(rental).renewals == 1


def test_a_triggerer_with_another_store_keeps_no_place(
    run_task: Any, connection: dict[str, Any], use_up: Callable[[], None], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    use_up()
    monkeypatch.setattr("smsverify_provider.resuming.RESUME_GAP", 0.2)
    buy = SmsVerifyOrderOperator(task_id="buy", **WHATSAPP, deferrable=True)
    trigger = trigger_of(run_task(buy).msg)
    connection["extra"]["store_url"] = f"sqlite:///{tmp_path / 'another.db'}"
    monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(connection))
    event = asyncio.run(event_of(trigger))
    assert event["detail"] == OTHER_STORE
    with pytest.raises(AirflowFailException, match="different stores"):
        buy.execute_complete({}, event)  # type: ignore[arg-type]


def test_a_store_that_fails_for_a_while_is_logged_once(
    run_task: Any, connection: dict[str, Any], use_up: Callable[[], None], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr("smsverify_provider.triggers.smsverify.STORE_PAUSE", 0.05)
    monkeypatch.setattr(SmsVerifyTurnTrigger, "log", logging.getLogger(__name__))
    use_up()
    trigger = trigger_of(run_task(SmsVerifyOrderOperator(task_id="buy", **WHATSAPP, deferrable=True)).msg)
    connection["extra"]["store_url"] = f"sqlite:///{__file__}/smsverify.db"  # no folder
    monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(connection))
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(event_of(trigger), 1))
    assert caplog.text.count("cannot be kept at the moment") == 1


def test_each_outage_is_logged_once_where_the_store_is_read_and_keeps_no_place(
    run_task: Any, use_up: Callable[[], None], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr("smsverify_provider.triggers.smsverify.STORE_PAUSE", 0.0)
    monkeypatch.setattr(SmsVerifyTurnTrigger, "log", logging.getLogger(__name__))
    use_up()
    trigger = trigger_of(run_task(SmsVerifyOrderOperator(task_id="buy", **WHATSAPP, deferrable=True)).msg)
    outages = TwoOutages(monkeypatch)

    def keep_place(*_args: Any, **_options: Any) -> Future[None]:
        outages.strike()
        kept: Future[None] = Future()
        kept.set_result(None)
        return kept

    monkeypatch.setattr("smsverify_provider.triggers.smsverify.keep_place", keep_place)
    assert "detail" not in asyncio.run(event_of(trigger))
    assert outages.are_over()
    assert caplog.text.count("cannot be kept at the moment") == 2


def test_the_deployments_default_decides_unless_a_function_is_called() -> None:
    assert not SmsVerifyOrderOperator(task_id="buy", **WHATSAPP).deferrable
    assert not SmsVerifyRenewOperator(task_id="renew", order_id=1).deferrable
    assert SmsVerifyOperator(task_id="verify", python_callable=print, **WHATSAPP).deferrable
