"""Faults: what can go wrong between a client and the service, on demand.

A fault is met only by a request that would otherwise have been served: one that the limiter refuses, or whose
key is wrong, uses none up.
"""

from __future__ import annotations

import dataclasses
import math
import random
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from smsverify.simulator.records import SimulatorError

API_ROOT = "/api/v1/"


class FaultKind(NamedTuple):
    """What `Fault` says of a kind, for the code."""

    processed: bool
    status: int | None = None


FAULT_KINDS: dict[str, FaultKind] = {
    "reset": FaultKind(False),
    "lost_answer": FaultKind(True),
    "cut_headers": FaultKind(True),
    "truncated_body": FaultKind(True),
    "slow_before": FaultKind(True),
    "slow_after": FaultKind(True),
    "slow_drip": FaultKind(True),
    "error_before": FaultKind(False, 503),
    "error_after": FaultKind(True, 500),
    "provider_failure": FaultKind(True, 502),
    "rate_limited": FaultKind(False, 429),
    "unauthorized": FaultKind(False, 401),
    "forbidden": FaultKind(False, 403),
    "out_of_stock": FaultKind(False, 400),
    "success_false": FaultKind(False, 200),
    "redirect": FaultKind(False, 301),
    "html": FaultKind(True),
    "cut_json": FaultKind(True),
    "empty_body": FaultKind(True),
    "wrong_content_type": FaultKind(True),
    "list_lag": FaultKind(True),
    "status_lag": FaultKind(True),
}
"""Every kind of fault, whether the request takes effect, and its own status. The table is at `Fault`."""

LAGS = ("list_lag", "status_lag")


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with the requests that it matches.

    ==================  ============  ======  ========================================================
    kind                takes effect  status  the client sees
    ==================  ============  ======  ========================================================
    reset               no                    the connection reset (RST) without an answer
    lost_answer         yes                   the connection closed without an answer
    cut_headers         yes                   it closed inside the headers, after `fraction` of them
    truncated_body      yes                   it closed inside the body, after `fraction` of it
    slow_before         yes                   `seconds` pass, then it is processed and answered
    slow_after          yes                   it is processed, then `seconds` pass until the answer
    slow_drip           yes                   the body comes in small pieces over `seconds`
    error_before        no            503     an error, or `body`
    error_after         yes           500     the same, although the request took effect
    provider_failure    yes           502     an error; a purchase is debited and rolled back
    rate_limited        no            429     the documented 429, with `retry_after`
    unauthorized        no            401     the documented 401
    forbidden           no            403     a 403
    out_of_stock        no            400     "Service not available"
    success_false       no            200     ``{"success": false, "error": …}``
    redirect            no            301     a redirect to `location`, or to the same path
    html                yes                   an HTML page, or `body`, in the answer's place
    cut_json            yes                   `fraction` of the JSON, its Content-Length fitting
    empty_body          yes                   the right status and no body
    wrong_content_type  yes                   the right JSON as ``text/plain``
    list_lag            yes                   the order bought is not in `orders/` for `seconds`
    status_lag          yes                   the order bought answers 404 for `seconds`
    ==================  ============  ======  ========================================================

    One request meets at most one fault (the first one added that matches), except the two lags, which come
    on top of it.

    Attributes:
        kind: One of the table's.
        path: Which requests: a path below ``/api/v1/`` such as "order/temporary/", or a whole one that begins
            with "/". ``*`` stands for one segment (``order/*/status/``), ``**`` for anything.
        method: "GET", "POST" or ``*`` for any.
        times: How many requests meet it; None for all that match.
        after: How many matching requests pass before it begins.
        probability: With which probability a matching request meets it (seeded by the settings' `seed`).
        processed: Overrides the table's "takes effect".
        status: Overrides the table's status.
        body: A body to answer instead of the fault's own.
        seconds: Of the slow faults, real seconds; of the lags, seconds of the service's time.
        fraction: How much of the headers, the body or the JSON is sent; from 0 to below 1.
        retry_after: The answer's Retry-After header, seconds or text; None for none.
        location: Where a `redirect` leads.
    """

    kind: str
    path: str = "**"
    method: str = "*"
    times: int | None = 1
    after: int = 0
    probability: float = 1.0
    processed: bool | None = None
    status: int | None = None
    body: str | None = None
    seconds: float = 0.0
    fraction: float = 0.5
    retry_after: int | str | None = None
    location: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in FAULT_KINDS:
            raise SimulatorError(f"kind: unknown fault {self.kind!r}; known: {', '.join(FAULT_KINDS)}")
        if self.method != self.method.upper():
            raise SimulatorError(f'method: in capitals, or "*", not {self.method!r}')
        bounds = {
            "times": (self.times, 1, math.inf),
            "after": (self.after, 0, math.inf),
            "probability": (self.probability, 0, 1),
            "seconds": (self.seconds, 0, math.inf),
            "fraction": (self.fraction, 0, 1),
            "status": (self.status, 200, 599),
        }
        for name, (value, low, high) in bounds.items():
            fits = isinstance(value, (int, float)) and low <= value <= high
            if not fits and not (value is None and name in ("times", "status")):
                raise SimulatorError(f"{name}: from {low} to {high}, not {value!r}")

    @property
    def takes_effect(self) -> bool:
        """Whether a request that meets the fault is processed."""
        return FAULT_KINDS[self.kind].processed if self.processed is None else self.processed

    def answer_status(self, otherwise: int) -> int:
        """The status to answer; `otherwise` is the one that the request would have had."""
        return self.status or FAULT_KINDS[self.kind].status or otherwise

    def to_json(self) -> dict[str, Any]:
        """The fault as JSON; `Fault.from_json` makes an equal one of it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Fault:
        """A fault from a JSON object; only `kind` is needed."""
        try:
            return cls(**values)
        except TypeError as error:
            raise SimulatorError(f"fault: {error}") from error


class FaultBoard:
    """The faults that are set. Not thread-safe: its owner holds a lock."""

    def __init__(self, seed: int | None) -> None:
        self._random = random.Random(seed)
        self._set: list[_Set] = []

    def add(self, fault: Fault) -> None:
        self._set.append(_Set(fault))

    def clear(self) -> None:
        self._set.clear()

    def pending(self) -> list[Fault]:
        """The faults that may still be met, with the number of `times` that is left."""
        return [
            dataclasses.replace(item.fault, times=item.left)
            for item in self._set
            if item.left is None or item.left > 0
        ]

    def take(self, method: str, path: str) -> tuple[Fault | None, dict[str, Fault]]:
        """What a request meets: the fault of its answer, and the lags by their kind."""
        answer: Fault | None = None
        lags: dict[str, Fault] = {}
        for item in self._set:
            is_lag = item.fault.kind in LAGS
            if (item.fault.kind in lags if is_lag else answer is not None) or not item.strikes(
                method, path, self._random
            ):
                continue
            if is_lag:
                lags[item.fault.kind] = item.fault
            else:
                answer = item.fault
        return answer, lags


class _Set:
    """A fault with its counters."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.left = fault.times
        self._to_pass = fault.after
        self._pattern = _compile(fault.path)

    def strikes(self, method: str, path: str, rng: random.Random) -> bool:
        if self.left == 0 or self.fault.method not in ("*", method) or not self._pattern.fullmatch(path):
            return False
        if self._to_pass > 0:
            self._to_pass -= 1
            return False
        if self.fault.probability < 1 and rng.random() >= self.fault.probability:
            return False
        if self.left is not None:
            self.left -= 1
        return True


def _compile(pattern: str) -> re.Pattern[str]:
    if not pattern.startswith("/"):
        pattern = API_ROOT + pattern
    parts = re.split(r"(\*\*|\*)", pattern)
    return re.compile("".join({"**": ".*", "*": "[^/]*"}.get(part, re.escape(part)) for part in parts))
