"""Orders at a simulated service, made without smsverify."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests

if TYPE_CHECKING:
    from smsverify.simulator import Simulator

SERVICE_ID = 1012


def make_orders(simulator: Simulator, count: int) -> list[int]:
    """Orders so many temporary numbers; returns the ids of all orders, the oldest first."""
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {simulator.api_key}"
        for _ in range(count):
            url = f"{simulator.url}/api/v1/order/temporary/"
            session.post(url, json={"service_id": SERVICE_ID}, timeout=30).raise_for_status()
    return sorted(order.order_id for order in simulator.orders())
