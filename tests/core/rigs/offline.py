"""A service that is a mock: its addresses, and what a purchase asks for before it is sent."""

from __future__ import annotations

import itertools
from typing import Any

from requests_mock import Mocker

from smsverify.models import PRODUCTS

PHONE = "+1 415 555 0123"
UNSEEN = itertools.count(9000)  # ids of orders that no test's store knows


def address(path: str) -> str:
    return f"http://127.0.0.1:9/api/v1/{path}"


def mock_catalogue(mocker: Mocker, **row: Any) -> None:
    """One service in every catalogue; `row` overrides its fields."""
    row = {"service_id": 1, "name": "X", "price": 0.4, "price_3days": 4.0, **row}
    for product in PRODUCTS:
        if product != "global":
            mocker.get(address(f"services/{product}/"), json=[row])
    mocker.get(address("global/countries/"), json=[{"country_id": 4, "country_name": "UK"}])
    mocker.get(address("global/services/"), json=[row])
    # What is asked for before an account's first purchase.
    mocker.get(address("orders/"), json=[])
    mocker.get(address("balance/"), json={"balance": 50.00})
