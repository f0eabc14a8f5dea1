"""What a flow does arrives at OpenTelemetry, by the names and with the tags that it has in Airflow."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prefect import flow

from prefect_smsverify import SmsVerifyCredentials, order_number, reconcile, wait_for_otp
from smsverify.errors import WaitTimeoutError
from smsverify.simulator import Simulator


@pytest.fixture(scope="module")
def reader() -> InMemoryMetricReader:
    """Keeps what this process reports."""
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    return reader


def reported(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, Any], Any]]]:
    """By the name of a metric, its tags and points."""
    data = reader.get_metrics_data()
    assert data is not None
    return {
        metric.name: [(dict(point.attributes or {}), point) for point in metric.data.data_points]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


@flow
def verifies(credentials: SmsVerifyCredentials, simulator: Simulator) -> str | None:
    order = order_number(credentials, "temporary", service="WhatsApp")
    code = wait_for_otp(credentials, order.order_id, timeout=60).otp
    simulator.configure(sms_delay="never")
    late = order_number(credentials, "temporary", service="WhatsApp")
    with pytest.raises(WaitTimeoutError):
        wait_for_otp(credentials, late.order_id, timeout=0)
    reconcile(credentials)
    return code


def test_a_flow_reports_what_it_does(simulator: Simulator, reader: InMemoryMetricReader) -> None:
    code = verifies(SmsVerifyCredentials(account="the wallet", namespace="dev"), simulator)
    found = reported(reader)
    names = ("purchases.bought", "spent", "messages", "codes", "timeouts", "refunds", "refunded", "balance")
    values = [sum(point.value for _, point in found[f"smsverify.{name}"]) for name in names]
    assert [round(value, 2) for value in values] == [2, 0.8, 1, 1, 1, 1, 0.4, 49.6]
    ((tags, _),) = found["smsverify.purchases.bought"]
    assert tags == {
        "account": "the_wallet",
        "framework": "prefect",
        "namespace": "dev",
        "product": "temporary",
        "service": "WhatsApp",
    }
    ((_, took),) = found["smsverify.time_to_code"]
    assert (took.count, took.sum > 0) == (1, True)
    assert simulator.api_key not in str(found)
    assert str(code) not in str(found)
