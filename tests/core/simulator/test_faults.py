"""Each kind of fault, as a raw client sees it."""

from __future__ import annotations

import http.client
import inspect
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest

from smsverify.simulator import FAULT_KINDS, Fault, Simulator, SimulatorError

BODY = b'{"service_id": 1012}'
ORDER = {"success": True, "data": {"order_id": 458731, "phone": "+1 415 555 0123", "status": "pending"}}
PRICE = Decimal("0.40")


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(sms_delay="never") as running:
        yield running


class Seen:
    """All that came over the wire for one request on a connection of its own."""

    def __init__(self, simulator: Simulator, method: str, path: str, body: bytes = b"") -> None:
        parts = urlsplit(simulator.url)
        self.reset = False
        self.raw = b""
        self.first_byte_after = self.took = 0.0
        started = time.monotonic()
        with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
            connection.sendall(
                f"{method} /api/v1/{path} HTTP/1.1\r\nHost: sim\r\nConnection: close\r\n"
                f"Authorization: Bearer {simulator.api_key}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            try:
                while chunk := connection.recv(65_536):
                    self.first_byte_after = self.first_byte_after or time.monotonic() - started
                    self.raw += chunk
            except ConnectionResetError:
                self.reset = True
        self.took = time.monotonic() - started
        self.head, self.blank_line, self.body = self.raw.partition(b"\r\n\r\n")
        lines = self.head.decode().split("\r\n")
        self.status = int(lines[0].split()[1]) if lines[0].count(" ") > 1 else None
        self.headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)

    @property
    def length(self) -> int:
        return int(self.headers["Content-Length"])

    def json(self) -> Any:
        return json.loads(self.body)


def buy(simulator: Simulator) -> Seen:
    return Seen(simulator, "POST", "order/temporary/", BODY)


def bought(simulator: Simulator) -> int:
    """How many orders were bought; the wallet must agree."""
    orders = len(simulator.orders())
    assert simulator.balance() == Decimal(50) - orders * PRICE
    return orders


def test_without_an_answer_the_connection_is_reset_or_closed(simulator: Simulator) -> None:
    simulator.add_fault(Fault("reset"))
    seen = buy(simulator)
    assert (seen.raw, seen.reset, bought(simulator)) == (b"", True, 0)
    simulator.add_fault(Fault("lost_answer"))
    seen = buy(simulator)
    assert (seen.raw, seen.reset, bought(simulator)) == (b"", False, 1)
    assert [record.status for record in simulator.requests()] == [None, None]
    assert buy(simulator).status == 201


@pytest.mark.parametrize("fraction", [0, 0.5, 0.9])
def test_the_answer_is_cut_inside_its_headers(simulator: Simulator, fraction: float) -> None:
    whole = Seen(simulator, "GET", "balance/")
    simulator.add_fault(Fault("cut_headers", fraction=fraction))
    seen = buy(simulator)
    assert (seen.blank_line, seen.reset, bought(simulator)) == (b"", False, 1)
    assert 0 < len(seen.raw) < len(whole.head) + 40
    assert b"HTTP/1.1 201 Created".startswith(seen.raw[:20])


@pytest.mark.parametrize(("fraction", "share"), [(0, 0), (0.5, 0.5), (0.99, 0.99)])
def test_the_answer_is_cut_inside_its_body(simulator: Simulator, fraction: float, share: float) -> None:
    simulator.add_fault(Fault("truncated_body", fraction=fraction))
    seen = buy(simulator)
    assert (seen.status, bought(simulator)) == (201, 1)
    assert seen.length == len(json.dumps(ORDER))
    assert len(seen.body) == int(seen.length * share) < seen.length


def test_a_client_library_sees_the_cut_too(simulator: Simulator) -> None:
    parts = urlsplit(simulator.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    headers = {"Authorization": f"Bearer {simulator.api_key}"}
    simulator.add_fault(Fault("truncated_body", path="balance/"))
    connection.request("GET", "/api/v1/balance/", headers=headers)
    with pytest.raises(http.client.IncompleteRead):
        connection.getresponse().read()
    connection.close()
    simulator.add_fault(Fault("lost_answer", path="balance/"))
    connection.request("GET", "/api/v1/balance/", headers=headers)
    with pytest.raises(http.client.RemoteDisconnected):
        connection.getresponse()
    connection.close()
    for _ in range(2):  # the connection is kept alive
        connection.request("GET", "/api/v1/balance/", headers=headers)
        assert connection.getresponse().read() == b'{"balance": 50.0, "currency": "USD"}'
    connection.close()


def test_the_body_is_cut_or_empty_or_mislabelled_with_fitting_headers(simulator: Simulator) -> None:
    simulator.add_fault(Fault("cut_json"))
    simulator.add_fault(Fault("empty_body"))
    simulator.add_fault(Fault("wrong_content_type"))
    cut, empty, mislabelled = buy(simulator), buy(simulator), buy(simulator)
    assert (cut.status, len(cut.body)) == (201, cut.length)
    assert json.dumps(ORDER).encode().startswith(cut.body)
    with pytest.raises(json.JSONDecodeError):
        cut.json()
    assert (empty.status, empty.body, empty.length) == (201, b"", 0)
    assert (mislabelled.status, mislabelled.headers["Content-Type"]) == (201, "text/plain")
    assert mislabelled.json()["data"]["order_id"] == 458733
    assert bought(simulator) == 3


@pytest.mark.parametrize(
    ("kind", "status", "takes_effect", "body"),
    [
        ("error_before", 503, False, {"success": False, "error": "Internal server error"}),
        ("error_after", 500, True, {"success": False, "error": "Internal server error"}),
        (
            "rate_limited",
            429,
            False,
            {"error": "Rate limit exceeded. Maximum 60 requests per minute."},
        ),
        ("unauthorized", 401, False, {"error": "Invalid API key"}),
        ("forbidden", 403, False, {"success": False, "error": "Forbidden"}),
        ("out_of_stock", 400, False, {"success": False, "error": "Service not available"}),
        ("success_false", 200, False, {"success": False, "error": "Service temporarily unavailable"}),
        ("html", 201, True, None),
    ],
)
def test_another_answer_comes(
    simulator: Simulator, kind: str, status: int, takes_effect: bool, body: Any
) -> None:
    simulator.add_fault(Fault(kind))
    seen = buy(simulator)
    assert (seen.status, bought(simulator)) == (status, int(takes_effect))
    if body is None:
        assert seen.headers["Content-Type"].startswith("text/html")
        assert seen.body.startswith(b"<!doctype html>")
    else:
        assert seen.json() == body
    assert "Retry-After" not in seen.headers
    assert simulator.stats().faults == {kind: 1}
    assert (simulator.requests()[0].fault, simulator.requests()[0].status) == (kind, status)


def test_status_body_effect_and_retry_after_of_a_fault_can_be_chosen(simulator: Simulator) -> None:
    django = '{"service_id": ["A valid integer is required."]}'
    simulator.add_fault(Fault("error_before", status=500, body=django, processed=True))
    seen = buy(simulator)
    assert (seen.status, seen.json(), bought(simulator)) == (500, json.loads(django), 1)
    simulator.add_fault(Fault("rate_limited", retry_after=7))
    assert buy(simulator).headers["Retry-After"] == "7"
    simulator.add_fault(Fault("error_before", retry_after="Wed, 21 Oct 2099 07:28:00 GMT"))
    assert buy(simulator).headers["Retry-After"] == "Wed, 21 Oct 2099 07:28:00 GMT"
    simulator.add_fault(Fault("lost_answer", processed=False))
    buy(simulator)
    assert bought(simulator) == 1


def test_a_failure_of_the_provider_rolls_the_debit_back(simulator: Simulator) -> None:
    simulator.add_fault(Fault("provider_failure"))
    seen = buy(simulator)
    assert (seen.status, seen.json()["success"], bought(simulator)) == (502, False, 0)
    assert [(m.kind, m.amount) for m in simulator.movements()[1:]] == [("order", -PRICE), ("refund", PRICE)]
    assert buy(simulator).json()["data"]["order_id"] == 458732


@pytest.mark.parametrize(
    ("fault", "status", "location"),
    [
        (Fault("redirect"), 301, "/api/v1/order/temporary/"),
        (Fault("redirect", status=307, location="http://127.0.0.2:1/"), 307, "http://127.0.0.2:1/"),
    ],
)
def test_a_redirect_leads_elsewhere(simulator: Simulator, fault: Fault, status: int, location: str) -> None:
    simulator.add_fault(fault)
    seen = buy(simulator)
    assert (seen.status, seen.headers["Location"], bought(simulator)) == (status, location, 0)


def test_a_slow_answer_comes_late_whole_and_once(simulator: Simulator) -> None:
    for kind in ("slow_before", "slow_after", "slow_drip"):
        simulator.add_fault(Fault(kind, seconds=0.5))
        seen = buy(simulator)
        assert seen.took >= 0.5
        assert (seen.first_byte_after < seen.took - 0.1) == (kind == "slow_drip")
        assert (seen.status, len(seen.body)) == (201, seen.length)
    assert bought(simulator) == 3


@pytest.mark.parametrize("kind", ["slow_before", "slow_after"])
def test_a_client_that_gave_up_waiting_has_bought_all_the_same(simulator: Simulator, kind: str) -> None:
    parts = urlsplit(simulator.url)
    simulator.add_fault(Fault(kind, seconds=0.5))
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=0.2)
    headers = {"Authorization": f"Bearer {simulator.api_key}", "Content-Type": "application/json"}
    connection.request("POST", "/api/v1/order/temporary/", BODY, headers)
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()
    deadline = time.monotonic() + 30
    while not simulator.orders():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert bought(simulator) == 1


def test_stopping_leaves_no_thread_behind_even_in_a_slow_answer() -> None:
    before = set(threading.enumerate())
    with Simulator() as simulator:
        simulator.add_fault(Fault("slow_before", seconds=3600))
        parts = urlsplit(simulator.url)
        connection = socket.create_connection((parts.hostname, parts.port), timeout=30)
        connection.sendall(b"GET /api/v1/balance/ HTTP/1.1\r\nAuthorization: Bearer sim-key\r\n\r\n")
        while not simulator.stats().faults:
            time.sleep(0.01)
    deadline = time.monotonic() + 30
    while set(threading.enumerate()) - before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    connection.close()


def test_a_request_that_breaks_off_is_not_processed(simulator: Simulator) -> None:
    parts = urlsplit(simulator.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        head = b"POST /api/v1/order/temporary/ HTTP/1.1\r\nAuthorization: Bearer sim-key\r\n"
        connection.sendall(head + b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n" + BODY)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    assert bought(simulator) == 0


def test_an_order_bought_under_lags_is_not_seen_at_first(simulator: Simulator) -> None:
    def listed() -> list[int]:
        return [row["order_id"] for row in Seen(simulator, "GET", "orders/").json()]

    simulator.configure(speed=10)
    for seconds in (36_000, 3):  # the second one's lags last 0.3 s
        simulator.add_fault(Fault("list_lag", seconds=seconds, path="order/temporary/"))
        simulator.add_fault(Fault("status_lag", seconds=seconds, path="order/temporary/"))
    simulator.add_fault(Fault("lost_answer", path="order/temporary/"))
    assert buy(simulator).raw == b""
    assert buy(simulator).status == 201
    deadline = time.monotonic() + 30
    while listed() != [458732]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert simulator.order(458732).created_at.timestamp() + 0.3 <= time.time()
    assert Seen(simulator, "GET", "order/458732/status/").status == 200
    assert Seen(simulator, "GET", "order/458731/status/").status == 404
    assert simulator.stats().faults == {"list_lag": 2, "status_lag": 2, "lost_answer": 1}
    assert bought(simulator) == 2


def test_the_settings_lags_hold_for_every_order() -> None:
    with Simulator(list_lag=3600, status_lag=3600) as simulator:
        buy(simulator)
        assert Seen(simulator, "GET", "orders/").json() == []
        for method, what in (("GET", "status"), ("POST", "cancel"), ("POST", "renew")):
            assert Seen(simulator, method, f"order/458731/{what}/").status == 404
        assert bought(simulator) == 1


PATHS = [
    ("**", {"order/temporary/", "order/1/status/", "order/1/cancel/", "orders/"}),
    ("order/*/", {"order/temporary/"}),
    ("order/*/status/", {"order/1/status/"}),
    ("order/**", {"order/temporary/", "order/1/status/", "order/1/cancel/"}),
    ("/api/v1/orders/", {"orders/"}),
    ("orders", set()),
]


@pytest.mark.parametrize(("pattern", "expected"), PATHS, ids=[row[0] for row in PATHS])
def test_a_fault_meets_the_paths_of_its_pattern(
    simulator: Simulator, pattern: str, expected: set[str]
) -> None:
    simulator.add_fault(Fault("forbidden", path=pattern, times=None))
    requests = {
        "order/temporary/": "POST",
        "order/1/status/": "GET",
        "order/1/cancel/": "POST",
        "orders/": "GET",
    }
    met = {path for path, method in requests.items() if Seen(simulator, method, path).status == 403}
    assert met == expected


def test_a_fault_has_a_method_a_beginning_and_an_end(simulator: Simulator) -> None:
    simulator.add_fault(Fault("error_before", path="orders/", method="GET", after=1, times=2))
    assert Seen(simulator, "GET", "balance/").status == 200
    assert [Seen(simulator, "GET", "orders/").status for _ in range(5)] == [200, 503, 503, 200, 200]
    simulator.add_fault(Fault("error_before", method="POST", times=None))
    assert Seen(simulator, "GET", "balance/").status == 200
    assert [buy(simulator).status for _ in range(3)] == [503] * 3
    assert [(fault.kind, fault.times) for fault in simulator.faults()] == [("error_before", None)]
    simulator.clear_faults()
    assert (simulator.faults(), buy(simulator).status) == ([], 201)


def test_a_probability_is_kept_and_repeats_with_the_seed() -> None:
    def run(seed: int) -> list[int | None]:
        with Simulator(seed=seed, rate_limit=None) as simulator:
            simulator.add_fault(Fault("error_before", probability=0.3, times=None))
            return [Seen(simulator, "GET", "balance/").status for _ in range(100)]

    first = run(1)
    assert 10 < first.count(503) < 50
    assert run(1) == first != run(2)


def test_the_first_fault_that_matches_is_met_and_the_others_wait(simulator: Simulator) -> None:
    simulator.add_fault(Fault("forbidden"))
    simulator.add_fault(Fault("error_before"))
    assert [Seen(simulator, "GET", "balance/").status for _ in range(3)] == [403, 503, 200]


def test_a_refused_request_uses_no_fault_up() -> None:
    with Simulator(rate_limit=1) as simulator:
        simulator.add_fault(Fault("lost_answer", path="order/**"))
        Seen(simulator, "GET", "balance/")
        assert buy(simulator).status == 429
        assert [fault.times for fault in simulator.faults()] == [1]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"kind": "explode"}, "kind"),
        ({"kind": "reset", "times": 0}, "times"),
        ({"kind": "reset", "probability": 1.5}, "probability"),
        ({"kind": "reset", "fraction": "half"}, "fraction"),
        ({"kind": "reset", "method": "post"}, "method"),
        ({"kind": "reset", "speed": 1}, "fault"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_by_its_field(values: dict[str, Any], field: str) -> None:
    with pytest.raises(SimulatorError, match=field):
        Fault.from_json(values)


def test_the_table_of_the_kinds_is_complete_and_true() -> None:
    table = inspect.getdoc(Fault) or ""
    rows = re.findall(r"^(\w+) +(yes|no)(?: +(\d{3}))? {2,}\S", table, re.MULTILINE)
    documented = {kind: (effect == "yes", int(status) if status else None) for kind, effect, status in rows}
    assert documented == {kind: tuple(facts) for kind, facts in FAULT_KINDS.items()}
