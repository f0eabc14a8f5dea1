"""What the simulator guarantees whatever happens: the limiter's strictness, and a wallet that adds up."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from smsverify.simulator import Fault, Simulator, SimulatorError, Stats
from smsverify.simulator.limiter import SlidingWindow


def call(simulator: Simulator, method: str, path: str, body: object = None) -> requests.Response:
    headers = {"Authorization": f"Bearer {simulator.api_key}"}
    return requests.request(method, f"{simulator.url}/api/v1/{path}", json=body, headers=headers, timeout=30)


# Arrivals in ticks of a quarter second: exact in binary, so that touching windows are distinguished.
ARRIVALS = st.lists(st.integers(0, 40), min_size=1, max_size=80).map(sorted)


@settings(deadline=None)
@given(ticks=ARRIVALS, limit=st.integers(1, 6), count_refused=st.booleans())
def test_no_window_wherever_it_begins_passes_more_than_the_limit(
    ticks: list[int], limit: int, count_refused: bool
) -> None:
    window = SlidingWindow()
    arrivals: list[float] = []
    filling: list[float] = []
    for at in (tick / 4 for tick in ticks):
        refused = window.arrive(at, limit, 2.0, count_refused) is not None
        assert refused == (sum(at - 2.0 < other for other in filling) >= limit)
        arrivals.append(at)
        if count_refused or not refused:
            filling.append(at)
    assert window.max_in_window == max(sum(at - 2.0 < other <= at for other in arrivals) for at in arrivals)


@settings(deadline=None)
@given(ticks=ARRIVALS, limit=st.integers(1, 6), count_refused=st.booleans())
def test_after_the_wait_it_names_and_no_sooner_a_request_passes(
    ticks: list[int], limit: int, count_refused: bool
) -> None:
    def arrive_after(wait: float) -> float | None:
        window = SlidingWindow()
        last = [window.arrive(tick / 4, limit, 2.0, count_refused) for tick in ticks][-1]
        assert last == waits
        return window.arrive(ticks[-1] / 4 + wait, limit, 2.0, count_refused)

    window = SlidingWindow()
    waits = [window.arrive(tick / 4, limit, 2.0, count_refused) for tick in ticks][-1]
    if waits is not None:
        assert 0 < waits <= 2.0
        assert arrive_after(waits) is None
        assert arrive_after(waits - 0.125) is not None


def test_the_sixty_first_request_of_a_minute_gets_the_documented_429() -> None:
    with Simulator() as simulator:
        statuses = [call(simulator, "GET", "balance/").status_code for _ in range(60)]
        refused = call(simulator, "POST", "order/temporary/", {"service_id": 1012})
        assert (set(statuses), refused.status_code) == ({200}, 429)
        assert refused.json() == {"error": "Rate limit exceeded. Maximum 60 requests per minute."}
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert simulator.orders() == []
        stats = simulator.stats()
        assert (stats.requests, stats.refused, stats.max_in_window) == (61, 1, 61)
        assert stats.by_endpoint == {"GET balance/": 60, "POST order/temporary/": 1}
        assert [record.refused for record in simulator.requests()] == [False] * 60 + [True]


def test_a_wrong_key_and_the_control_api_fill_no_window() -> None:
    with Simulator(rate_limit=1) as simulator:
        for _ in range(3):
            answer = requests.get(f"{simulator.url}/api/v1/balance/", timeout=30)
            assert answer.status_code == 401
            assert requests.get(f"{simulator.url}/_sim/state", timeout=30).status_code == 200
        assert call(simulator, "GET", "balance/").status_code == 200
        assert call(simulator, "GET", "balance/").status_code == 429
        assert (simulator.stats().requests, simulator.stats().max_in_window) == (5, 2)


def test_retry_after_is_whole_seconds_an_http_date_or_missing() -> None:
    with Simulator(rate_limit=1, rate_period=90, clock_skew=1000) as simulator:
        call(simulator, "GET", "balance/")
        assert 60 < int(call(simulator, "GET", "balance/").headers["Retry-After"]) <= 90
        simulator.configure(retry_after="http-date")
        headers = call(simulator, "GET", "balance/").headers
        ahead = parsedate_to_datetime(headers["Retry-After"]) - parsedate_to_datetime(headers["Date"])
        assert 60 < ahead.total_seconds() <= 91
        simulator.configure(retry_after="none")
        assert "Retry-After" not in call(simulator, "GET", "balance/").headers


@pytest.mark.slow
def test_waiting_as_long_as_retry_after_says_is_enough() -> None:
    with Simulator(speed=30, rate_limit=1) as simulator:
        call(simulator, "GET", "balance/")
        refused = call(simulator, "GET", "balance/")
        assert refused.status_code == 429
        time.sleep(int(refused.headers["Retry-After"]))
        assert call(simulator, "GET", "balance/").status_code == 200


def test_many_connections_at_once_pass_no_more_than_the_limit() -> None:
    with Simulator(rate_limit=20) as simulator:
        statuses: list[int] = []

        def run() -> None:
            for _ in range(5):
                statuses.append(call(simulator, "GET", "balance/").status_code)

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (statuses.count(200), statuses.count(429)) == (20, 20)
        assert simulator.stats().refused == 20


@pytest.mark.parametrize("speed", [1, 60])
def test_every_duration_is_divided_by_the_speed_and_answered_in_real_time(speed: float) -> None:
    with Simulator(speed=speed, rate_limit=1, sms_delay="never") as simulator:
        assert simulator.rate_period == 60 / speed
        call(simulator, "POST", "order/rent-1day/", {"service_id": 4421})
        retry_after = int(call(simulator, "GET", "balance/").headers["Retry-After"])
        assert retry_after <= 60 / speed
        order = simulator.orders()[0]
        assert math.isclose((order.expires_at - order.created_at).total_seconds(), 86_400 / speed)


# A random day at the service: what is bought, cancelled, renewed, delivered, faulted, in any order.
BUYS = st.sampled_from(
    [
        ("temporary", {"service_id": 1012}),
        ("temporary", {"service_id": 1}),
        ("best-temp", {"service_id": 22}),
        ("rental", {"service": "WhatsApp", "duration": 3}),
        ("rental", {"service": "Google", "duration": 30}),
        ("rent-1day", {"service_id": 4421}),
        ("global", {"service_id": 1012, "country_id": 17}),
        ("esim", {"plan": "USA 1GB / 7 days"}),
    ]
)
FAULTS = st.sampled_from(
    ["lost_answer", "error_after", "error_before", "provider_failure", "cut_json", "reset"]
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("buy"), BUYS),
        st.tuples(st.sampled_from(["cancel", "renew", "deliver", "end"]), st.integers(0, 9)),
        st.tuples(st.just("fault"), FAULTS),
        st.tuples(st.just("price"), st.integers(1, 900)),
        st.tuples(st.just("deposit"), st.integers(1, 2000)),
    ),
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(steps=STEPS, policy=st.sampled_from(["refuse", "refund", "no-refund"]))
def test_the_wallet_is_the_start_less_prices_plus_refunds(steps: list[tuple[str, Any]], policy: str) -> None:
    SHARED.reset()
    SHARED.configure(cancel_active=policy)
    for verb, what in steps:
        take_step(SHARED, verb, what)
    orders, movements = SHARED.orders(), SHARED.movements()
    balance = Decimal(0)
    for movement in movements:
        balance += movement.amount
        assert movement.balance == balance >= 0
    assert SHARED.balance() == balance
    for order in orders:
        own = [movement for movement in movements if movement.order_id == order.order_id]
        assert order.paid == -sum(m.amount for m in own if m.kind in ("order", "renewal"))
        assert order.refunded == sum(m.amount for m in own if m.kind == "refund")
        assert order.refunded in (0, order.paid)
        assert sum(m.kind == "renewal" for m in own) == order.renewals
    known = {order.order_id for order in orders}
    rolled_back = [m.amount for m in movements if m.order_id is not None and m.order_id not in known]
    assert sum(rolled_back) == 0


def take_step(simulator: Simulator, verb: str, what: Any) -> None:
    order_id = 458731 + what if verb in ("cancel", "renew", "deliver", "end") else 0
    actions: dict[str, Callable[[], object]] = {
        "buy": lambda: call(simulator, "POST", f"order/{what[0]}/", what[1]),
        "cancel": lambda: call(simulator, "POST", f"order/{order_id}/cancel/"),
        "renew": lambda: call(simulator, "POST", f"order/{order_id}/renew/"),
        "deliver": lambda: simulator.deliver_sms(order_id),
        "end": lambda: simulator.set_time_left(order_id, 0),
        "fault": lambda: simulator.add_fault(Fault(what, method="POST")),
        "price": lambda: simulator.set_offer("rental", "WhatsApp", price_3days=Decimal(what) / 100),
        "deposit": lambda: simulator.deposit(Decimal(what) / 100),
    }
    # A fault may cut the connection; an order may not be there, or be over.
    with contextlib.suppress(requests.ConnectionError, requests.JSONDecodeError, SimulatorError):
        actions[verb]()


SHARED = Simulator(balance="20", sms_delay="never", rate_limit=None)


@pytest.fixture(scope="module", autouse=True)
def shared_simulator() -> Iterator[None]:
    with SHARED:
        yield


def test_concurrent_purchases_never_overdraw_the_wallet() -> None:
    with Simulator(balance="4.00", rate_limit=None, sms_delay="never") as simulator:
        threads = [
            threading.Thread(target=call, args=(simulator, "POST", "order/temporary/", {"service_id": 1012}))
            for _ in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(simulator.orders()), simulator.balance()) == (10, Decimal(0))
        assert simulator.stats() == Stats(16, 0, 16, {"POST order/temporary/": 16}, {}, 10, 0)
