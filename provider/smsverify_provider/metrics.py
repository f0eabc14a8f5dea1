"""The metrics of Airflow: StatsD, Datadog or OpenTelemetry, as `[metrics]` of its configuration says."""

from __future__ import annotations

from collections.abc import Mapping

from smsverify.metrics import Counter, Gauge, Timing
from smsverify_provider.versions import Stats


class AirflowMetrics:
    """Hands on to Airflow's `Stats`, which adds its prefix, and takes the tags if the backend has any."""

    def count(self, metric: Counter, amount: float, tags: Mapping[str, str]) -> None:
        """Adds to a counter."""
        Stats.incr(metric.name, amount, tags=dict(tags))

    def gauge(self, metric: Gauge, value: float, tags: Mapping[str, str]) -> None:
        """Sets a gauge."""
        Stats.gauge(metric.name, value, tags=dict(tags))

    def timing(self, metric: Timing, seconds: float, tags: Mapping[str, str]) -> None:
        """Adds to a timing, which Airflow has in milliseconds."""
        Stats.timing(metric.name, seconds * 1000, tags=dict(tags))
