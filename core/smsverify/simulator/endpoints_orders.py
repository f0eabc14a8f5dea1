"""The endpoints that buy, list, ask, cancel and renew."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

from smsverify.simulator.agenda import now
from smsverify.simulator.answers import Answer, Request, reply, reply_data
from smsverify.simulator.catalogue import Offer
from smsverify.simulator.lives import DAY
from smsverify.simulator.records import SimulatedOrder
from smsverify.simulator.state import Refused, State

# Purchases


def order_temporary(state: State, request: Request) -> Answer:
    area_code = request.body.get("area_code")
    if area_code is not None and not re.fullmatch(r"[2-9]\d{2}", str(area_code)):
        raise Refused(400, "area_code must be a 3-digit US area code")
    offer = _find(state, "temporary", _service_id(request), "Service not found")
    order = _buy(state, request, "temporary", offer, area_code=None if area_code is None else str(area_code))
    return reply_data({"order_id": order.order_id, "phone": order.phone, "status": order.status}, 201, order)


def order_by_id(product: str) -> Callable[[State, Request], Answer]:
    """The endpoints that take a `service_id` and state no status of their own: 200."""

    def endpoint(state: State, request: Request) -> Answer:
        offer = _find(state, product, _service_id(request), "Service not found")
        order = _buy(state, request, product, offer)
        return reply_data(
            {"order_id": order.order_id, "status": order.status, "phone": order.phone}, 200, order
        )

    return endpoint


def order_global(state: State, request: Request) -> Answer:
    service_id = _service_id(request)
    country_id = _required(request, "country_id")
    if isinstance(country_id, bool) or not str(country_id).isdecimal():
        raise Refused(400, "country_id must be an integer")
    offer = _find(state, "global", service_id, "Service not available", int(country_id))
    order = _buy(state, request, "global", offer)
    return reply_data({"order_id": order.order_id, "status": order.status, "phone": order.phone}, 201, order)


def order_rental(state: State, request: Request) -> Answer:
    name, duration = _required(request, "service"), _required(request, "duration")
    if str(duration) not in ("3", "30"):
        raise Refused(400, "duration must be 3 or 30")
    offer = _find(state, "rental", name, "Service not found")
    order = _buy(state, request, "rental", offer, duration=int(duration))
    return reply(
        {
            "success": True,
            "order_id": order.order_id,
            "phone": order.phone,
            "sell_price": order.price,
            "price": order.price,
            "status": order.status,
            "expiry_date": _stamp(state, order.expires_at),
        },
        201,
        order,
    )


def order_esim(state: State, request: Request) -> Answer:
    offer = _find(state, "esim", _required(request, "plan"), "Plan not found")
    order = _buy(state, request, "esim", offer)
    return reply(
        {
            "success": True,
            "order_id": order.order_id,
            "activation_code": order.activation_code,
            "sell_price": order.price,
            "price": order.price,
            "status": order.status,
        },
        200,
        order,
    )


# Orders


def order_list(state: State, _request: Request) -> Answer:
    rows = [
        {
            "order_id": order.order_id,
            "service": order.label,
            "status": status,
            "sell_price": order.price,
            "price": order.price,
            "phone": order.phone,
            "created_at": _stamp(state, order.created_at),
        }
        for order, status in state.newest()
    ]
    return reply(_spoilt(rows, state.settings.list_defects))


def _spoilt(rows: list[dict[str, Any]], defects: Collection[str]) -> list[dict[str, Any]]:
    """The rows as a service writes them that is less exact than its documentation."""
    for row in rows:
        for field in ("phone", "service", "price", "created_at"):
            if f"no_{field}" in defects:
                row[field] = None
        if "no_price" in defects:
            row["sell_price"] = None
        elif "rounded" in defects:
            row["price"] = row["sell_price"] = round(row["price"])
        if "other_name" in defects and row["service"]:
            row["service"] = f"{row['service'][:2].upper()}-{len(row['service'])}"
        if "other_time" in defects and row["created_at"]:
            early = datetime.fromisoformat(row["created_at"].rstrip("Z")) - timedelta(hours=1)
            row["created_at"] = f"{early:%Y-%m-%dT%H:%M:%SZ}"
    if "unreadable" in defects and rows:
        rows[0]["order_id"] = None
    return rows


def order_status(state: State, request: Request) -> Answer:
    order, settings = state.ask_status(request.order_id), state.settings
    data: dict[str, Any] = {"order_id": order.order_id, "status": order.status}
    as_integer = settings.otp_as_integer and order.otp is not None and order.otp.isdecimal()
    otp = int(order.otp or 0) if as_integer else order.otp
    for name, value in (("otp", otp), ("message", order.message)):
        if value is not None or settings.otp_while_waiting != "absent":
            data[name] = "" if value is None and settings.otp_while_waiting == "empty" else value
    data["phone"] = order.phone
    if order.product in ("rent-1day", "rent-30days"):
        left = max(0.0, order.expires_at.timestamp() - now())
        times = {"time_left_seconds": int(left), "days_left": math.ceil(left / DAY)}
        data.update({name: times[name] for name in settings.time_left_fields})
    return reply_data(data)


def cancel(state: State, request: Request) -> Answer:
    order = state.cancel(request.order_id)
    return reply_data({"order_id": order.order_id, "status": order.status})


def renew(state: State, request: Request) -> Answer:
    order = state.renew(request.order_id)
    return reply_data({"order_id": order.order_id, "status": order.status, "phone": order.phone})


# Small helps


def _required(request: Request, name: str) -> Any:
    value = request.body.get(name)
    if value is None or value == "":
        raise Refused(400, f"{name} is required")
    return value


def _service_id(request: Request) -> Any:
    value = _required(request, "service_id")
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise Refused(400, "service_id must be an integer")
    return value


def _find(state: State, product: str, wanted: object, missing: str, country_id: int | None = None) -> Offer:
    offer = state.catalogue.find(product, wanted, country_id)
    if offer is None:
        raise Refused(404, missing)
    return offer


def _buy(state: State, request: Request, product: str, offer: Offer, **details: Any) -> SimulatedOrder:
    return state.buy(product, offer, lags=request.lags, provider_failure=request.provider_failure, **details)


def _stamp(state: State, at: datetime) -> str:
    return (at + timedelta(seconds=state.settings.clock_skew)).strftime("%Y-%m-%dT%H:%M:%SZ")
