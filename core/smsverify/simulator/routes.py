"""The service's endpoints: each with its method, its path, and the shape of its errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from smsverify.simulator import endpoints_catalogue as catalogue
from smsverify.simulator import endpoints_orders as orders
from smsverify.simulator.answers import Answer, Request
from smsverify.simulator.faults import API_ROOT
from smsverify.simulator.state import State


@dataclass(frozen=True)
class Route:
    """One endpoint: its method, its path below the API's root, what it does, and the shape of its errors."""

    method: str
    path: str
    endpoint: Callable[[State, Request], Answer]
    wrapped_errors: bool = False
    unauthorized: tuple[str, bool] = ("Invalid API key", False)

    @property
    def label(self) -> str:
        return f"{self.method} {self.path}"


ROUTES = (
    Route("GET", "balance/", catalogue.balance),
    Route("GET", "wallet/balance/", catalogue.wallet_balance),
    Route(
        "GET",
        "services/temporary/",
        catalogue.services("temporary"),
        unauthorized=("Invalid or missing API key", True),
    ),
    Route("GET", "services/rental/", catalogue.rental_services),
    Route("GET", "services/rent-1day/", catalogue.services("rent-1day")),
    Route("GET", "services/rent-30days/", catalogue.services("rent-30days")),
    Route("GET", "services/best-temp/", catalogue.services("best-temp", country="US")),
    Route("GET", "services/esim/", catalogue.esim_plans),
    Route("GET", "global/countries/", catalogue.countries),
    Route("GET", "global/services/", catalogue.global_services),
    Route("POST", "order/temporary/", orders.order_temporary, wrapped_errors=True),
    Route("POST", "order/rental/", orders.order_rental),
    Route("POST", "order/best-temp/", orders.order_by_id("best-temp"), wrapped_errors=True),
    Route("POST", "order/rent-1day/", orders.order_by_id("rent-1day"), wrapped_errors=True),
    Route("POST", "order/rent-30days/", orders.order_by_id("rent-30days"), wrapped_errors=True),
    Route("POST", "order/global/", orders.order_global, wrapped_errors=True),
    Route("POST", "order/esim/", orders.order_esim),
    Route("GET", "orders/", orders.order_list),
    Route("GET", "order/{id}/status/", orders.order_status, wrapped_errors=True),
    Route("POST", "order/{id}/cancel/", orders.cancel, wrapped_errors=True),
    Route("POST", "order/{id}/renew/", orders.renew, wrapped_errors=True),
)

_PATTERNS = [
    (re.compile(API_ROOT + route.path.replace("{id}", r"(?P<id>\d+)"), re.ASCII), route) for route in ROUTES
]


def routes_of(path: str) -> tuple[list[Route], int]:
    """The routes of a path, whatever their method, and the order id that it holds (0 for none)."""
    matches = [(match, route) for pattern, route in _PATTERNS if (match := pattern.fullmatch(path))]
    order_id = int(matches[0][0].groupdict().get("id") or 0) if matches else 0
    return [route for _, route in matches], order_id
