"""The service's endpoints, one method each: what is sent, and the answer as a model.

The documentation has seven shapes of success. Whichever comes, `data` is unwrapped where it is present, and a
list is found at the top or under its name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from smsverify.answers import Reply
from smsverify.budget import Priority
from smsverify.errors import UnexpectedResponseError
from smsverify.models import (
    RENTAL_DURATIONS,
    Balance,
    Country,
    EsimPlan,
    Order,
    OrderRequest,
    OrderStatus,
    Product,
    Service,
    as_price,
    reckon_expiry,
    with_leading_zeros,
)
from smsverify.transport import OutcomeUnknown, Transport

Model = TypeVar("Model", bound=BaseModel)

# Fields of an `Order` that only we know; should the service use such a name, it means something else.
_NOT_ANSWERED = frozenset({"product", "country", "duration", "key", "expires_estimated"})
_LIST_NAMES = (
    "services",
    "offers",
    "countries",
    "orders",
    "plans",
    "esims",
    "results",
    "items",
)


class ServiceApi:
    """The service, as it is: no ledger, no names for ids. Prices come as `Decimal`, times in UTC.

    Every method raises a `ServiceError` for what the service answers, `InvalidRequestError` where it refuses
    a value.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    # -------------------------------------------------------------- reads

    def get_balance(self) -> Balance:
        """`GET /api/v1/balance/`"""
        return self._get_one(Balance, "/api/v1/balance/", _named_balance)

    def get_wallet_balance(self) -> Balance:
        """`GET /api/v1/wallet/balance/`, the alias."""
        return self._get_one(Balance, "/api/v1/wallet/balance/", _named_balance)

    def list_services(self, product: Product, *, stop: threading.Event | None = None) -> list[Service]:
        """`GET /api/v1/services/<product>/`; not for `global` and `esim`, which have their own."""
        return self._get_list(
            Service, f"/api/v1/services/{product}/", lambda row: _service(row, product), stop=stop
        )

    def list_esim_plans(self, *, stop: threading.Event | None = None) -> list[EsimPlan]:
        """`GET /api/v1/services/esim/`"""
        return self._get_list(EsimPlan, "/api/v1/services/esim/", _plan, stop=stop)

    def list_countries(self, *, stop: threading.Event | None = None) -> list[Country]:
        """`GET /api/v1/global/countries/`"""
        return self._get_list(Country, "/api/v1/global/countries/", dict, stop=stop)

    def list_global_services(
        self, country_id: int | str, *, stop: threading.Event | None = None
    ) -> list[Service]:
        """`GET /api/v1/global/services/?country_id=<country_id>`"""
        return self._get_list(
            Service,
            "/api/v1/global/services/",
            lambda row: {"country_id": country_id} | _service(row, "global"),
            {"country_id": str(country_id)},
            stop=stop,
        )

    def list_orders(
        self, *, priority: Priority = Priority.READ, stop: threading.Event | None = None
    ) -> tuple[list[Order], float | None]:
        """`GET /api/v1/orders/`: the 50 newest, newest first; and when, by the service's clock (seconds)."""
        reply = self._transport.get("/api/v1/orders/", priority=priority, stop=stop)
        return self._decode_list(Order, _order, reply), reply.answer.date

    def get_status(
        self,
        order_id: int,
        *,
        priority: Priority = Priority.READ,
        stop: threading.Event | None = None,
        hasty: bool = False,
    ) -> OrderStatus:
        """`GET /api/v1/order/<order_id>/status/`"""
        path = f"/api/v1/order/{order_id}/status/"
        reply = self._transport.get(path, priority=priority, stop=stop, hasty=hasty)
        status = self._decode_status(order_id, reply)
        now = datetime.now(timezone.utc)
        return status.model_copy(
            update={
                "expires_at": reckon_expiry(status, now),
                "received_at": now if status.arrived else None,
            }
        )

    # -------------------------------------------------------------- what changes something

    def order(
        self,
        request: OrderRequest,
        entry: Service,
        *,
        before_sending: Callable[[], None] | None = None,
        while_waiting: Callable[[], None] | None = None,
        stop: threading.Event | None = None,
    ) -> Order:
        """`POST /api/v1/order/<product>/`, once.

        Args:
            request: what is wanted.
            entry: the catalogue's line for it.
            before_sending: called when the request has its turn; what it raises keeps it from leaving.
            while_waiting: called now and then until then.
            stop: ends the waiting for the budget.

        Raises:
            OutcomeUnknown: the number may have been bought.
            ServiceError: it was not.
        """
        path = f"/api/v1/order/{request.product}/"
        reply = self._transport.post(
            path,
            _order_body(request, entry),
            priority=Priority.PURCHASE,
            before_sending=before_sending,
            while_waiting=while_waiting,
            stop=stop,
        )
        try:
            return self._decode(Order, _order(_object(reply)), reply)
        except UnexpectedResponseError as error:
            raise OutcomeUnknown(error) from None

    def cancel(
        self,
        order_id: int,
        *,
        before_sending: Callable[[], None] | None = None,
        stop: threading.Event | None = None,
        hasty: bool = False,
    ) -> OrderStatus:
        """`POST /api/v1/order/<order_id>/cancel/`. Repeated where it was not answered, which is harmless."""
        path = f"/api/v1/order/{order_id}/cancel/"
        reply = self._transport.post(
            path,
            priority=Priority.RELEASE,
            is_repeatable=True,
            before_sending=before_sending,
            stop=stop,
            hasty=hasty,
        )
        return self._decode_status(order_id, reply)

    def renew(
        self,
        order_id: int,
        *,
        before_sending: Callable[[], None] | None = None,
        while_waiting: Callable[[], None] | None = None,
        stop: threading.Event | None = None,
    ) -> OrderStatus:
        """`POST /api/v1/order/<order_id>/renew/`, once; raises like `order`."""
        path = f"/api/v1/order/{order_id}/renew/"
        reply = self._transport.post(
            path,
            priority=Priority.PURCHASE,
            before_sending=before_sending,
            while_waiting=while_waiting,
            stop=stop,
        )
        answered = _object(reply)
        try:
            if "order_id" not in answered and "status" not in answered:
                raise self._transport.unexpected(reply)
            status = self._decode(OrderStatus, {"status": "active"} | _status(order_id, answered), reply)
            if status.order_id != order_id:
                raise self._transport.unexpected(reply)
        except UnexpectedResponseError as error:
            raise OutcomeUnknown(error) from None
        return status

    # -------------------------------------------------------------- decoding

    def _get_one(self, model: type[Model], path: str, prepare: Callable[[Any], dict[str, Any]]) -> Model:
        reply = self._transport.get(path)
        return self._decode(model, prepare(_object(reply)), reply)

    def _get_list(
        self,
        model: type[Model],
        path: str,
        prepare: Callable[[Any], dict[str, Any]],
        params: dict[str, str] | None = None,
        *,
        stop: threading.Event | None = None,
    ) -> list[Model]:
        return self._decode_list(model, prepare, self._transport.get(path, params, stop=stop))

    def _decode_list(
        self, model: type[Model], prepare: Callable[[Any], dict[str, Any]], reply: Reply
    ) -> list[Model]:
        rows = _rows(reply.body)
        if rows is None or not all(isinstance(row, Mapping) for row in rows):
            raise self._transport.unexpected(reply)
        return [self._decode(model, prepare(row), reply) for row in rows]

    def _decode_status(self, order_id: int, reply: Reply) -> OrderStatus:
        status = self._decode(OrderStatus, _status(order_id, _object(reply)), reply)
        if status.order_id != order_id:
            raise self._transport.unexpected(reply)
        return status

    def _decode(self, model: type[Model], values: dict[str, Any], reply: Reply) -> Model:
        try:
            return model.model_validate(values)
        except ValidationError:
            raise self._transport.unexpected(reply) from None


def _object(reply: Reply) -> dict[str, Any]:
    """The answer's object; empty where there is none, so that its required fields are missed."""
    body = reply.body
    if not isinstance(body, Mapping):
        return {}
    inner = body.get("data")
    return dict(inner) if isinstance(inner, Mapping) else dict(body)


def _rows(body: Any) -> list[Any] | None:
    """The answer's list: itself, its `data`, or what stands under the list's name in either."""
    if isinstance(body, list):
        return body
    if isinstance(body, Mapping):
        for name in ("data", *_LIST_NAMES):
            if isinstance(body.get(name), (list, Mapping)):
                return _rows(body[name])
    return None


def _named_balance(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"currency": "USD"} | dict(row)


def _prices(row: Mapping[str, Any], suffix: str = "") -> tuple[Decimal | None, Decimal | None]:
    """The price that is charged and the larger of those stated."""
    stated = [as_price(row.get(f"{name}{suffix}")) for name in ("sell_price", "price")]
    known = [price for price in stated if price is not None]
    return (known[0], max(known)) if known else (None, None)


def _order(row: Mapping[str, Any]) -> dict[str, Any]:
    documented = {name: value for name, value in row.items() if name not in _NOT_ANSWERED}
    return documented | {"price": _prices(row)[0]}


def _plan(row: Mapping[str, Any]) -> dict[str, Any]:
    price, highest_price = _prices(row)
    return dict(row) | {"price": price, "highest_price": highest_price}


def _service(row: Mapping[str, Any], product: Product) -> dict[str, Any]:
    price, highest_price = _prices(row)
    by_duration = {days: _prices(row, f"_{days}days") for days in RENTAL_DURATIONS}
    return dict(row) | {
        "product": product,
        "name": row.get("name") or row.get("service_name"),
        "price": price,
        "highest_price": highest_price,
        "prices": {days: pair[0] for days, pair in by_duration.items() if pair[0] is not None},
        "highest_prices": {days: pair[1] for days, pair in by_duration.items() if pair[1] is not None},
    }


def _status(order_id: int, row: Mapping[str, Any]) -> dict[str, Any]:
    values = {"order_id": order_id} | dict(row)
    otp = values.get("otp")
    if isinstance(otp, int) and not isinstance(otp, bool):
        message = values.get("message")
        values["otp"] = with_leading_zeros(otp, message if isinstance(message, str) else None)
    return values


def _order_body(request: OrderRequest, entry: Service) -> dict[str, Any]:
    """The body of an order, with ids and names as the catalogue writes them."""
    if request.product == "esim":
        return {"plan": entry.name}
    if request.product == "rental":
        return {"service": entry.name, "duration": request.duration}
    body: dict[str, Any] = {"service_id": entry.service_id}
    if request.product == "global":
        body["country_id"] = entry.country_id
    if request.area_code is not None:
        body["area_code"] = request.area_code
    return body
