"""The examples run as they stand."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.exceptions import ObjectNotFound
from rigs.rooms import store_of

from prefect_smsverify import SmsVerifyCredentials
from smsverify import VerificationError, WaitTimeoutError
from smsverify._store.tables import consumers
from smsverify.simulator import Fault, Simulator

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
        "alerts",
        "handle_sms",
        "keep_rentals_alive",
        "provision_account",
        "provision_in_steps",
        "provision_many",
        "reconcile",
        "publish_message_events",
    }


def test_an_account_is_provisioned_with_the_account_of_the_environment_and_of_a_block(
    simulator: Simulator,
) -> None:
    SmsVerifyCredentials().save("example")
    phones = [example("provision_account")(), example("provision_account")("example", "Telegram")]
    assert [order.phone for order in simulator.orders()] == phones
    assert [order.status for order in simulator.orders()] == ["completed"] * 2


def test_an_account_whose_sms_never_comes_gives_its_numbers_back(silent: Simulator) -> None:
    with pytest.raises(VerificationError):
        example("provision_account")(timeout=0.1)
    assert [order.status for order in silent.orders()] == ["cancelled"] * 3
    assert silent.balance() == 50


def test_an_account_is_provisioned_in_steps(simulator: Simulator) -> None:
    phone = example("provision_in_steps")()
    assert [(order.phone, order.status) for order in simulator.orders()] == [(phone, "completed")]


def test_in_steps_too_a_number_whose_sms_never_comes_is_given_back(silent: Simulator) -> None:
    with pytest.raises(WaitTimeoutError):
        example("provision_in_steps")(timeout=0.1)
    assert [order.status for order in silent.orders()] == ["cancelled"]
    assert silent.balance() == 50


@pytest.mark.slow
def test_many_accounts_are_provisioned_and_one_that_fails_stops_no_other(
    simulate: Callable[..., Simulator],
) -> None:
    simulator = simulate()
    assert len(set(example("provision_many")())) == 3

    simulator.configure(services={"telegram": {"sms_delay": "never"}})
    with pytest.raises(VerificationError):
        example("provision_many")(timeout=3)
    ends = [order.status for order in simulator.orders() if order.service == "Telegram"]
    assert ends == ["completed", "cancelled", "cancelled", "cancelled"]
    assert [order.status for order in simulator.orders() if order.service == "WhatsApp"] == ["completed"] * 4


@pytest.mark.slow
def test_the_records_are_compared_on_a_schedule(
    silent: Simulator, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    assert serve("reconcile", "Reconcile SMS orders/reconcile") == ["*/15 * * * *"]
    assert "/api/v1/orders/" in {request.path for request in silent.requests()}


@pytest.mark.slow
def test_rentals_are_kept_on_a_schedule(
    simulate: Callable[..., Simulator], prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulate(speed=1, rate_limit=None)
    rental = SmsVerifyCredentials().get_hook().order("rent-1day", service="Tinder")
    simulator.set_time_left(rental.order_id, 3600)
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    assert serve("keep_rentals_alive", "Renew rentals/keep-rentals-alive") == ["0 * * * *"]
    assert [order.renewals for order in simulator.orders()] == [1]


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The texts that have been posted to `ALERT_URL`."""
    posted: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("ALERT_URL", f"http://127.0.0.1:{server.server_port}")
        yield posted
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_a_person_is_alerted_of_findings_and_of_an_empty_wallet(
    silent: Simulator, prefect_server: str, monkeypatch: pytest.MonkeyPatch, webhook: list[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    hook = SmsVerifyCredentials().get_hook()
    with running("alerts"), get_client(sync_client=True) as client:

        def served() -> Any:
            with contextlib.suppress(ObjectNotFound):
                return client.read_deployment_by_name("alerts/alerts")

        deployment = eventually(served)

        def ends_in() -> str:
            run = client.create_flow_run_from_deployment(deployment.id)
            state = eventually(lambda: is_final(client.read_flow_run(run.id).state))
            return str(state.type.value)

        assert ends_in() == "COMPLETED"
        number = hook.order("temporary", service="WhatsApp").order_id
        silent.add_fault(Fault("error_before", path="order/*/cancel/", times=None))
        assert not hook.release(number, "a test")
        silent.set_balance("1.00")
        assert ends_in() == "FAILED"
        (alert,) = eventually(lambda: webhook)
    assert alert.startswith("smsverify: ")
    assert str(number) in alert
    assert "5.00 USD are needed" in alert


@pytest.mark.slow
def test_an_sms_starts_a_flow_run(
    silent: Simulator, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    hook = SmsVerifyCredentials().get_hook()
    rental = hook.order("rent-1day", service="Tinder")
    with (
        running("publish_message_events"),
        running("handle_sms", str(rental.order_id)),
        get_client(sync_client=True) as client,
    ):

        def served() -> Any:
            with contextlib.suppress(ObjectNotFound):
                return client.read_deployment_by_name("handle-sms/handle-sms")

        def is_read() -> bool:
            with store_of(hook).read() as connection:
                return connection.execute(consumers.select()).first() is not None

        eventually(is_read)
        wanted = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[eventually(served).id]))
        silent.deliver_sms(rental.order_id, otp="471100")
        eventually(lambda: [run for run in client.read_flow_runs(flow_run_filter=wanted) if is_done(run)])


def eventually(condition: Callable[[], Any]) -> Any:
    """What `condition` returns as soon as that is true."""
    deadline = time.monotonic() + 120
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return value


def is_done(run: Any) -> bool:
    return bool(run.state.is_completed())


def is_final(state: Any) -> Any:
    return state if state.is_final() else None


@contextlib.contextmanager
def running(name: str, *arguments: str) -> Iterator[None]:
    """Runs an example for a block."""
    with subprocess.Popen([sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]) as process:
        try:
            yield
        finally:
            process.terminate()


def serve(name: str, deployment: str) -> list[str]:
    """Serves an example until a run of it has ended well; its schedules."""
    deadline = time.monotonic() + 120
    with subprocess.Popen([sys.executable, str(EXAMPLES / f"{name}.py")]) as process:
        try:
            with get_client(sync_client=True) as client:

                def served() -> Any:
                    with contextlib.suppress(ObjectNotFound):
                        return client.read_deployment_by_name(deployment)

                while (found := served()) is None:
                    assert process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.2)
                run = client.create_flow_run_from_deployment(found.id)
                while not client.read_flow_run(run.id).state.is_final():
                    assert time.monotonic() < deadline
                    time.sleep(0.2)
                assert client.read_flow_run(run.id).state.is_completed()
                return [schedule.schedule.cron for schedule in found.schedules]
        finally:
            process.terminate()
