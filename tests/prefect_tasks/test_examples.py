"""The examples run as they stand."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from prefect_smsverify import SmsVerifyCredentials
from smsverify import WaitTimeoutError
from smsverify.simulator import Simulator

EXAMPLES = Path(__file__).parents[2] / "prefect_tasks" / "examples"


def example(name: str) -> Any:
    """The flow of an example."""
    spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {
        "keep_rental_alive",
        "provision_account",
        "provision_many",
        "reconcile",
    }


def test_an_account_is_provisioned_with_the_account_of_the_environment_and_of_a_block(
    simulator: Simulator,
) -> None:
    SmsVerifyCredentials().save("example")
    phones = [example("provision_account")(), example("provision_account")("example", "Telegram")]
    assert [order.phone for order in simulator.orders()] == phones
    assert [order.status for order in simulator.orders()] == ["completed"] * 2


def test_an_account_whose_sms_never_comes_gives_its_number_back(silent: Simulator) -> None:
    with pytest.raises(WaitTimeoutError):
        example("provision_account")(timeout=0.1)
    assert [order.status for order in silent.orders()] == ["cancelled"]
    assert silent.balance() == 50


def test_many_accounts_are_provisioned_and_one_that_fails_stops_no_other(
    simulate: Callable[..., Simulator],
) -> None:
    simulator = simulate()
    assert len(set(example("provision_many")())) == 3

    simulator.configure(services={"telegram": {"sms_delay": "never"}})
    with pytest.raises(WaitTimeoutError):
        example("provision_many")(timeout=3)
    ends = [order.status for order in simulator.orders() if order.service == "Telegram"]
    assert ends == ["completed", "cancelled"]
    assert [order.status for order in simulator.orders() if order.service == "WhatsApp"] == ["completed"] * 4


def test_a_rental_is_bought_once_and_renewed_when_it_is_due(silent: Simulator) -> None:
    flow = example("keep_rental_alive")
    assert flow(renew_within_hours=0) == flow(renew_within_hours=0)
    (rental,) = silent.orders()
    assert rental.renewals == 0
    flow(renew_within_hours=24 * 3 + 1)
    (rental,) = silent.orders()
    assert rental.renewals == 1
    assert datetime.now(timezone.utc) < rental.expires_at


def test_the_records_are_compared_on_a_schedule(
    silent: Simulator, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    deadline = time.monotonic() + 120
    with subprocess.Popen([sys.executable, str(EXAMPLES / "reconcile.py")]) as process:
        try:
            with get_client(sync_client=True) as client:

                def deployment() -> Any:
                    with contextlib.suppress(ObjectNotFound):
                        return client.read_deployment_by_name("Reconcile SMS orders/reconcile")

                while (found := deployment()) is None:
                    assert process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.2)
                assert [schedule.schedule.cron for schedule in found.schedules] == ["*/15 * * * *"]
                run = client.create_flow_run_from_deployment(found.id)
                while not client.read_flow_run(run.id).state.is_final():
                    assert time.monotonic() < deadline
                    time.sleep(0.2)
                assert client.read_flow_run(run.id).state.is_completed()
        finally:
            process.terminate()
    assert "/api/v1/orders/" in {request.path for request in silent.requests()}
