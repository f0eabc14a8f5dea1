"""What happens on an account arrives where Airflow's own metrics do: at a StatsD that listens on a socket.

`test_real_stack` shows the same of tasks, of the triggerer and of the API server of a real Airflow.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from smsverify.errors import WaitTimeoutError
from smsverify.metrics import METRICS, Counter, Gauge, Meter, Timing
from smsverify.simulator import Simulator
from smsverify_provider import versions
from smsverify_provider.hooks.smsverify import SmsVerifyHook
from smsverify_provider.runs import AirflowRun
from stacks.statsd import StatsdListener, tags_of, value_of

PREFIX = "airflow.smsverify."


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch) -> Iterator[StatsdListener]:
    """A StatsD that Airflow reports to in this process, as it does in a triggerer."""
    with StatsdListener() as listener:
        for name, value in listener.airflow_settings().items():
            monkeypatch.setenv(name, value)
        restart_stats()
        yield listener
    monkeypatch.undo()
    restart_stats()


def restart_stats() -> None:
    versions.start_stats.cache_clear()
    versions.start_stats()


def arrive(statsd: StatsdListener, names: list[str], values: list[float]) -> bool:
    """Whether the metrics come to these values."""
    deadline = time.monotonic() + 60
    while statsd.values(names) != values and time.monotonic() < deadline:
        time.sleep(0.05)
    assert statsd.values(names) == values
    return True


def test_a_purchase_its_code_and_a_time_out_arrive_with_their_tags(
    statsd: StatsdListener, sim: Simulator, connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection["extra"] |= {"account": "the wallet", "namespace": "dev"}
    monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(connection))
    hook = SmsVerifyHook()
    order = hook.order("temporary", service="WhatsApp")
    code = hook.wait_for_otp(order.order_id, 60).otp
    sim.configure(sms_delay="never")
    with pytest.raises(WaitTimeoutError):
        hook.wait_for_otp(hook.order("temporary", service="WhatsApp").order_id, 0)
    hook.reconcile()
    names = ["purchases.bought", "spent", "messages", "codes", "timeouts", "refunds", "refunded"]
    assert arrive(statsd, [f"{PREFIX}{name}" for name in names], [2, 0.8, 1, 1, 1, 1, 0.4])
    (line, _) = statsd.lines(f"{PREFIX}purchases.bought")
    assert tags_of(line) == {
        "account": "the_wallet",
        "framework": "airflow",
        "namespace": "dev",
        "product": "temporary",
        "service": "WhatsApp",
    }
    (took,) = statsd.lines(f"{PREFIX}time_to_code")
    assert took.endswith("|ms")
    assert 1 < value_of(took) < 60_000
    (balance, *_) = statsd.lines(f"{PREFIX}balance")
    assert balance.endswith("|g")
    text = "\n".join(statsd.lines())
    for secret in (sim.api_key, str(code), str(order.phone).lstrip("+"), hook.settings.key_id):
        assert secret not in text


def test_every_metric_has_a_name_that_airflow_takes(statsd: StatsdListener) -> None:
    meter = AirflowRun().meter("an account with a name that is as long as it can be, or longer")
    tags = {"product": "rent-30days", "service": "Google / Gmail, and = ünïcode " * 5, "namespace": "n" * 100}
    report: dict[type, Callable[..., None]] = {
        Counter: Meter.count, Gauge: Meter.gauge, Timing: Meter.timing
    }  # fmt: skip
    for metric in METRICS:
        report[type(metric)](meter, metric, 1, **tags)
    names = [f"airflow.{metric.name}" for metric in METRICS]
    seconds = [1000.0 if isinstance(metric, Timing) else 1.0 for metric in METRICS]
    assert arrive(statsd, names, seconds)
    assert {tags_of(line)["service"][:14] for line in statsd.lines(names[0])} == {"Google_Gmail_a"}


def test_a_configuration_that_airflow_cannot_read_stops_no_trigger_and_no_receiver(
    connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "perhaps")
    versions.start_stats.cache_clear()
    hook = asyncio.run(SmsVerifyHook.on_event_loop("smsverify_default"))
    assert hook.order("temporary", service="WhatsApp").phone
    assert "No metrics are reported from here" in caplog.text
