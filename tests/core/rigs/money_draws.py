"""What the money machine draws: the faults, and the options of what users do."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st

from rigs.money_world import DAY, LAG, LONG_LAG, OFFERS, SLOW
from smsverify.simulator import Fault

# Seconds by which a clock is set.
STEPS = [5.0, -5.0, 61.0, -61.0, 3600.0, -3600.0, DAY, -DAY]
PATHS = [
    *["order/temporary/", "order/best-temp/", "order/global/", "order/rental/", "order/rent-1day/"],
    *["order/esim/", "order/*/renew/", "order/*/cancel/", "order/*/status/", "orders/", "order/**", "**"],
]
FAULTS = {
    **{kind: Fault(kind) for kind in ("reset", "lost_answer", "cut_headers", "truncated_body", "cut_json")},
    **{kind: Fault(kind) for kind in ("html", "empty_body", "wrong_content_type", "success_false")},
    **{kind: Fault(kind) for kind in ("provider_failure", "rate_limited", "out_of_stock", "unauthorized")},
    "503 before": Fault("error_before"),
    "500 before": Fault("error_before", status=500),
    "500 after": Fault("error_after"),
    "503 after": Fault("error_after", status=503),
    "402": Fault("out_of_stock", status=402, body='{"error": "Insufficient balance"}'),
    "slow_before": Fault("slow_before", seconds=SLOW),
    "slow_after": Fault("slow_after", seconds=SLOW),
    "list_lag": Fault("list_lag", seconds=LAG),
    "long list_lag": Fault("list_lag", seconds=LONG_LAG),
    "status_lag": Fault("status_lag", seconds=LAG),
}
rarely = st.sampled_from([False] * 9 + [True])
PLACES = st.integers(0, 12)
LIMITS: dict[str, st.SearchStrategy[Any]] = {
    "max_price": st.sampled_from([None, None, None, "0.40", "4"]),
    "daily_budget": st.sampled_from([None, None, None, "1.20", "6"]),
    "run_budget": st.sampled_from([None, None, None, "0.80", "5"]),
    "run": st.sampled_from(["run-1", "run-2"]),
}
ORDERS: dict[str, st.SearchStrategy[Any]] = {
    **LIMITS,
    "user": st.sampled_from([0, 0, 0, 1, 2]),
    "offer": st.sampled_from(sorted(OFFERS)),
    "number": st.integers(0, 1),
    "is_mistaken": rarely,
    "is_refused": rarely,
}
RENEWALS = {**LIMITS, "place": st.integers(0, 30), "key": st.sampled_from([None, None, None, "mine"])}
