"""Metrics: what happens on an account, for the monitoring that a deployment has. Knows no framework.

`Meter` is what the rooms report to. It hands on to the `Metrics` of the run context: an integration gives
those of its framework, and otherwise OpenTelemetry's API is taken if it is installed (extra `otel`).
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.util import find_spec
from typing import Any, Final, Protocol, TypeVar

from smsverify.text import log_of

log = log_of(__name__)

LONGEST_TAG = 40  # characters: some backends limit the length of a name with all its tags


# ------------------------------------------------------------------ what there is


@dataclass(frozen=True)
class Metric:
    """What is measured.

    Attributes:
        name: as monitoring shows it, below a prefix that some add.
        unit: in the notation of OpenTelemetry.
        about: what it says, for people.
    """

    name: str
    unit: str
    about: str


class Counter(Metric):
    """Grows."""


class Gauge(Metric):
    """Goes up and down; the last value counts."""


class Timing(Metric):
    """How long something took."""


_Metric = TypeVar("_Metric", bound=Metric)

BOUGHT: Final = Counter("smsverify.purchases.bought", "{order}", "numbers and eSIMs that were bought")
REJECTED: Final = Counter(
    "smsverify.purchases.rejected", "{order}", "purchases that were refused or could not be sent"
)
UNKNOWN: Final = Counter("smsverify.purchases.unknown", "{order}", "purchases whose answer was lost")
RENEWED: Final = Counter("smsverify.renewals.bought", "{renewal}", "renewals that were made")
NOT_RENEWED: Final = Counter(
    "smsverify.renewals.rejected", "{renewal}", "renewals that were refused or could not be sent"
)
MAYBE_RENEWED: Final = Counter("smsverify.renewals.unknown", "{renewal}", "renewals whose answer was lost")
SPENT: Final = Counter("smsverify.spent", "USD", "what purchases and renewals have cost")
REFUNDS: Final = Counter("smsverify.refunds", "{order}", "orders that the list shows as refunded")
REFUNDED: Final = Counter("smsverify.refunded", "USD", "what these refunds have brought back")
MESSAGES: Final = Counter("smsverify.messages", "{message}", "SMS that have come")
CODES: Final = Counter("smsverify.codes", "{message}", "SMS with a code that can be read")
TIME_TO_CODE: Final = Timing("smsverify.time_to_code", "s", "from an order to its first SMS")
TIMEOUTS: Final = Counter("smsverify.timeouts", "{wait}", "waits that ended without a code")
REFUSALS: Final = Counter("smsverify.rate_limit.refusals", "{request}", "requests answered with 429")
QUEUE_LENGTH: Final = Gauge("smsverify.queue.length", "{request}", "requests that wait for the rate limit")
QUEUE_AGE: Final = Gauge("smsverify.queue.age", "s", "how long the first of them has waited")
CALLBACKS: Final = {
    "verified": Counter("smsverify.callbacks.verified", "{callback}", "callbacks that have brought an SMS"),
    "unverified": Counter("smsverify.callbacks.unverified", "{callback}", "callbacks that prove nothing"),
    "open": Counter("smsverify.callbacks.early", "{callback}", "callbacks whose order was not known yet"),
    "kept": Counter("smsverify.callbacks.other", "{callback}", "callbacks about no order, such as deposits"),
}
CALLBACKS_REFUSED: Final = Counter("smsverify.callbacks.refused", "{callback}", "callbacks that were refused")
FINDINGS: Final = {
    "unknown": Gauge("smsverify.findings.unknown", "{call}", "paid calls that a person has to resolve"),
    "to_cancel": Gauge("smsverify.findings.to_cancel", "{order}", "orders that cannot be cancelled yet"),
    "leaks": Gauge("smsverify.findings.leaks", "{order}", "orders that are paid and not used"),
    "missing_refunds": Gauge("smsverify.findings.missing_refunds", "{order}", "refunds that never arrived"),
    "foreign": Gauge("smsverify.findings.foreign", "{order}", "orders bought elsewhere"),
    "overcharged": Gauge("smsverify.findings.overcharged", "{order}", "orders that cost too much"),
}
BALANCE: Final = Gauge("smsverify.balance", "USD", "what the wallet held when it was last read")

METRICS: Final[tuple[Metric, ...]] = (
    *(BOUGHT, REJECTED, UNKNOWN, RENEWED, NOT_RENEWED, MAYBE_RENEWED, SPENT, REFUNDS, REFUNDED, BALANCE),
    *(MESSAGES, CODES, TIME_TO_CODE, TIMEOUTS, REFUSALS, QUEUE_LENGTH, QUEUE_AGE),
    *CALLBACKS.values(),
    CALLBACKS_REFUSED,
    *FINDINGS.values(),
)
"""All of them."""


# ------------------------------------------------------------------ where they go


class Metrics(Protocol):
    """Where metrics go. Its methods may be called by any thread, and do not block."""

    def count(self, metric: Counter, amount: float, tags: Mapping[str, str]) -> None:
        """Adds to a counter."""

    def gauge(self, metric: Gauge, value: float, tags: Mapping[str, str]) -> None:
        """Sets a gauge."""

    def timing(self, metric: Timing, seconds: float, tags: Mapping[str, str]) -> None:
        """Adds to what is known of a duration."""


class OpenTelemetry:
    """OpenTelemetry's API. Without an SDK that the application has set up, it drops what it is given."""

    def __init__(self) -> None:
        self._instruments: dict[Metric, Any] = {}
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def count(self, metric: Counter, amount: float, tags: Mapping[str, str]) -> None:
        """Adds to a counter."""
        self._of(metric).add(amount, tags)

    def gauge(self, metric: Gauge, value: float, tags: Mapping[str, str]) -> None:
        """Sets a gauge."""
        self._of(metric).set(value, tags)

    def timing(self, metric: Timing, seconds: float, tags: Mapping[str, str]) -> None:
        """Adds to a histogram."""
        self._of(metric).record(seconds, tags)

    def _renew(self) -> None:
        # The thread that had it when the process was forked is not there.
        self._making = threading.Lock()

    def _of(self, metric: Metric) -> Any:
        instrument = self._instruments.get(metric)
        if instrument is None:
            with self._making:
                instrument = self._instruments.setdefault(metric, _instrument(metric))
        return instrument


def _instrument(metric: Metric) -> Any:
    from opentelemetry.metrics import get_meter

    meter = get_meter("smsverify")
    make = {Counter: meter.create_counter, Gauge: meter.create_gauge, Timing: meter.create_histogram}
    return make[type(metric)](metric.name, unit=metric.unit, description=metric.about)


@cache
def installed_metrics() -> Metrics | None:
    """OpenTelemetry if its API is installed; `None` if it is not."""
    return OpenTelemetry() if find_spec("opentelemetry") else None


# ------------------------------------------------------------------ what the rooms report to


class Meter:
    """Reports what happens on one account. It never raises: a failure is logged once.

    Report what is on record, and no earlier: a transaction may be rolled back, or made again.

    Args:
        metrics: where the figures go; `None` for nowhere.
        **tags: of all of them; `None` or "" for one that is not known.
    """

    def __init__(self, metrics: Metrics | None = None, **tags: str | None) -> None:
        self._metrics = metrics
        self._tags = tags

    @property
    def is_on(self) -> bool:
        """Whether the figures go anywhere: otherwise nothing needs to be looked up for them."""
        return self._metrics is not None

    def count(self, metric: Counter, amount: float | Decimal = 1, **tags: str | None) -> None:
        """Adds to a counter."""
        if self._metrics is not None:
            self._report(self._metrics.count, metric, amount, tags)

    def gauge(self, metric: Gauge, value: float | Decimal, **tags: str | None) -> None:
        """Sets a gauge."""
        if self._metrics is not None:
            self._report(self._metrics.gauge, metric, value, tags)

    def timing(self, metric: Timing, seconds: float, **tags: str | None) -> None:
        """Adds to what is known of a duration."""
        if self._metrics is not None:
            self._report(self._metrics.timing, metric, seconds, tags)

    def _report(
        self,
        hand_on: Callable[[_Metric, float, Mapping[str, str]], None],
        metric: _Metric,
        value: float | Decimal,
        tags: Mapping[str, str | None],
    ) -> None:
        try:
            known = {name: _plain(text) for name, text in {**self._tags, **tags}.items() if text}
            hand_on(metric, float(value) if isinstance(value, Decimal) else value, known)
        except Exception as error:
            _say_once(metric, error)


def _plain(text: str) -> str:
    """The value of a tag, as every backend takes it."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)[:LONGEST_TAG]


_said = threading.Event()


def _say_once(metric: Metric, error: Exception) -> None:
    if not _said.is_set():
        _said.set()
        log.warning(
            "The metric %s cannot be reported (%s: %s). No further failure of this kind is logged",
            metric.name,
            type(error).__name__,
            error,
        )
