"""Reads what the core reports to OpenTelemetry, of one account at a time."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader

_reader = InMemoryMetricReader()
_provider = MeterProvider([_reader])


class Reported:
    """The metrics of one account.

    Args:
        belongs: picks the points by their tags.
    """

    def __init__(self, belongs: Callable[[dict[str, Any]], bool]) -> None:
        self._belongs = belongs

    def points(self, name: str | None = None) -> list[tuple[str, dict[str, Any], Any]]:
        """Name, tags and value of each series; of one metric, or of all."""
        return [
            (metric.name, dict(point.attributes or {}), point)
            for metric in _instruments()
            for point in metric.data.data_points
            if name in (None, metric.name) and self._belongs(dict(point.attributes or {}))
        ]

    def instrument(self, name: str) -> Any:
        """A metric with its unit and its description."""
        return next(metric for metric in _instruments() if metric.name == name)

    def values(self, *names: str) -> list[float]:
        """The value of each metric, over all of its tags; of a histogram the number of its values."""
        return [round(sum(_value(point) for _, _, point in self.points(name)), 6) for name in names]


def _instruments() -> list[Any]:
    data = _reader.get_metrics_data()
    return [
        metric
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]


def _value(point: Any) -> float:
    return float(point.count if isinstance(point, HistogramDataPoint) else point.value)


def report_to_memory() -> None:
    """Lets OpenTelemetry's API, in this process, keep what it is given."""
    if metrics.get_meter_provider() is not _provider:
        metrics.set_meter_provider(_provider)


def of_new_account() -> tuple[str, Reported]:
    """The name of an account that no other test has, and what is reported of it."""
    report_to_memory()
    account = f"account-{uuid.uuid4().hex}"
    return account, Reported(lambda tags: tags.get("account") == account[:40])
