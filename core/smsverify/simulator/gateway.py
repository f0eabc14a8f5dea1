"""What happens to a request from its arrival to its answer: limiter, route, key, fault, endpoint."""

from __future__ import annotations

import json
import math
import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from smsverify.simulator.agenda import Agenda, logger, now
from smsverify.simulator.answers import Answer, Request, refusal, reply
from smsverify.simulator.callbacks import Callbacks
from smsverify.simulator.faults import LAGS, Fault, FaultBoard
from smsverify.simulator.limiter import SlidingWindow
from smsverify.simulator.mangling import HTML, NOTHING_SENT, mangled, too_many
from smsverify.simulator.records import RequestRecord, SimulatedOrder, Stats
from smsverify.simulator.routes import Route, routes_of
from smsverify.simulator.settings import Settings
from smsverify.simulator.state import Refused, State

LOG_LENGTH = 50_000


@dataclass
class Exchange:
    """An answer, and the fault that meets it on its way out."""

    answer: Answer
    fault: Fault | None = None


class Gateway:
    """The whole service except the socket."""

    def __init__(self, settings: Settings) -> None:
        self._initial = settings
        self.agenda = Agenda("smsverify-simulator-agenda")
        self.callbacks = Callbacks(self.agenda, lambda: self.state.settings)
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._begin()

    def reset(self) -> None:
        """Back to the start: settings, wallet, orders, faults, limiter, records."""
        with self._lock:
            self.state.retire()
            self.agenda.clear()
            self.callbacks.clear()
            self._begin()

    def _begin(self) -> None:
        self.state = State(self._initial, self.agenda, self._sms_arrived)
        self.faults = FaultBoard(self._initial.seed)
        self._windows: dict[str, SlidingWindow] = {}
        self._log: deque[RequestRecord] = deque(maxlen=LOG_LENGTH)
        self._counts: Counter[str] = Counter()
        self._faults_met: Counter[str] = Counter()
        self._requests = self._refused = 0

    @property
    def settings(self) -> Settings:
        return self.state.settings

    def configure(self, changes: Mapping[str, Any]) -> None:
        """Change settings from now on; what is already under way keeps its times."""
        with self.state.lock:
            self.state.settings = self.settings.changed(changes)
            if "catalogue" in changes:
                self.state.catalogue = self.settings.catalogue.copy()
            if "balance" in changes:
                self.state.set_balance(self.settings.balance)

    def handle(
        self, method: str, target: str, authorization: str, content_type: str, body: bytes
    ) -> Exchange:
        """Answer one request to the service.

        Args:
            method: "GET", …
            target: Path and query as they were sent.
            authorization: The header of that name, or "".
            content_type: The header of that name, or "".
            body: The raw body.
        """
        parts = urlsplit(target)
        record = RequestRecord(method, parts.path, parts.query, None, None, False, None, 0.0)
        key = self._known_key(authorization)
        routes, order_id = routes_of(parts.path)
        route = next((route for route in routes if route.method == method), None)
        wait = self._arrive(record, key, route)
        if wait is not None:
            exchange = Exchange(self._too_many(wait))
        elif route is None:
            exchange = Exchange(_no_route(method, target, routes))
        elif key is None:
            exchange = Exchange(refusal(401, *route.unauthorized))
        else:
            request = Request(dict(parse_qsl(parts.query)), order_id=order_id)
            exchange = self._serve(route, request, content_type, body, record)
        unsent = exchange.fault is not None and exchange.fault.kind in NOTHING_SENT
        record.status = None if unsent else exchange.answer.status
        return exchange

    def _known_key(self, authorization: str) -> str | None:
        scheme, _, key = authorization.partition(" ")
        known = self.settings.api_key
        return known if scheme == "Bearer" and key == known else None

    def _arrive(self, record: RequestRecord, key: str | None, route: Route | None) -> float | None:
        """Count a request; None if it may pass, else the real seconds until one may."""
        settings = self.settings
        with self._lock:
            record.at = now()
            self._log.append(record)
            self._requests += 1
            self._counts[route.label if route else "unknown"] += 1
            if key is None:
                return None
            window = self._windows.setdefault(key, SlidingWindow())
            period = settings.real(settings.rate_period)
            wait = window.arrive(record.at, settings.rate_limit, period, settings.count_refused)
            if wait is not None:
                record.refused = True
                self._refused += 1
            return wait

    def _too_many(self, wait: float) -> Answer:
        answer, style = too_many(self.settings.rate_limit), self.settings.retry_after
        if style == "seconds":
            answer.headers["Retry-After"] = str(max(1, math.ceil(wait)))
        elif style == "http-date":
            answer.headers["Retry-After"] = formatdate(math.ceil(self.clock() + wait), usegmt=True)
        return answer

    def _serve(
        self, route: Route, request: Request, content_type: str, body: bytes, record: RequestRecord
    ) -> Exchange:
        with self._lock:
            fault, lags = self.faults.take(route.method, record.path)
            for met in ([fault] if fault else []) + list(lags.values()):
                self._faults_met[met.kind] += 1
        if fault or lags:
            record.fault = fault.kind if fault else next(iter(lags))
            logger.info("fault: %s meets %s %s", record.fault, record.method, record.path)
        list_lag, status_lag = (lags[kind].seconds if kind in lags else 0.0 for kind in LAGS)
        request.lags = (list_lag, status_lag)
        if fault and fault.kind == "slow_before":
            self.stopping.wait(fault.seconds)
        if fault and fault.kind == "provider_failure":
            request.provider_failure = fault.answer_status(502)
        if fault is None:
            return Exchange(self._endpoint(route, request, content_type, body, record))
        answer = self._endpoint(route, request, content_type, body, record) if fault.takes_effect else None
        if fault.kind == "slow_after":
            self.stopping.wait(fault.seconds)
        return Exchange(mangled(fault, answer, route, record.path, self.settings.rate_limit), fault)

    def _endpoint(
        self, route: Route, request: Request, content_type: str, body: bytes, record: RequestRecord
    ) -> Answer:
        try:
            if route.method == "POST" and body:
                request.body = record.body = _json_object(content_type, body)
            answer = route.endpoint(self.state, request)
        except Refused as refused:
            return refusal(refused.status, refused.text, route.wrapped_errors)
        if answer.order and self.settings.callback_before_answer:
            order = self.state.order(answer.order.order_id)
            if order.sms_count:
                self.callbacks.incoming_sms_now(order)
        return answer

    # SMS and callbacks

    def _sms_arrived(self, order: SimulatedOrder) -> None:
        delay = self.state.draw(self.settings.callback_delay)
        if delay is not None:
            self.callbacks.incoming_sms(order, self.settings.real(delay))

    def deposit(self, amount: Decimal) -> None:
        """Pay into the wallet, and post the wallet callback."""
        self.state.deposit(amount)
        self.callbacks.deposit(amount, self.state.balance)

    # What is known

    def clock(self) -> float:
        """The service's own time, seconds since the epoch."""
        return now() + self.settings.clock_skew

    def requests(self) -> list[RequestRecord]:
        with self._lock:
            return list(self._log)

    def stats(self) -> Stats:
        orders = len(self.state.orders())
        callbacks = len(self.callbacks.records())
        with self._lock:
            peak = max((window.max_in_window for window in self._windows.values()), default=0)
            counts, met = dict(self._counts), dict(self._faults_met)
            return Stats(self._requests, self._refused, peak, counts, met, orders, callbacks)

    def add_fault(self, fault: Fault) -> None:
        with self._lock:
            self.faults.add(fault)

    def clear_faults(self) -> None:
        with self._lock:
            self.faults.clear()

    def pending_faults(self) -> list[Fault]:
        with self._lock:
            return self.faults.pending()


def _no_route(method: str, target: str, routes: list[Route]) -> Answer:
    """A path without a route, answered as Django does."""
    if routes:
        allowed = ", ".join(sorted({route.method for route in routes}))
        answer = reply({"detail": f'Method "{method}" not allowed.'}, 405)
        answer.headers["Allow"] = allowed
        return answer
    path, mark, query = target.partition("?")
    if not path.endswith("/") and routes_of(path + "/")[0]:
        return Answer(301, b"", HTML, {"Location": path + "/" + mark + query})
    return Answer(404, b"<!doctype html><title>Not Found</title><h1>Not Found</h1>", HTML)


def _json_object(content_type: str, body: bytes) -> dict[str, Any]:
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, f'Unsupported media type "{content_type}" in request.')
    try:
        value = json.loads(body)
    except ValueError:
        raise Refused(400, "Invalid JSON") from None
    if not isinstance(value, dict):
        raise Refused(400, "Invalid JSON")
    return value
