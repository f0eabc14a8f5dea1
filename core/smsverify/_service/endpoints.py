"""The service's endpoints, one method each: what is sent, and the answer as a model.

The documentation has seven shapes of success. In each, `data` is unwrapped where it is present, and a
list is found at the top or under its name. An object may stand under `order`, alone in a list, or as a text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from smsverify._service.answers import Reply, unexpected
from smsverify._service.bodies import Contradiction, from_text
from smsverify._service.codes import read_fields
from smsverify._service.paging import rows_left_out
from smsverify._service.rate_limit import Priority
from smsverify._service.service_clock import shown_or_now
from smsverify._service.transport import CallOptions, OutcomeUnknown, Transport
from smsverify.checks import OrderRequest
from smsverify.errors import UnexpectedResponseError
from smsverify.models import (
    LIST_LENGTH,
    RENTAL_DURATIONS,
    UNKNOWN_STATUS,
    Balance,
    Country,
    EsimPlan,
    Order,
    OrderStatus,
    Product,
    Service,
    as_price,
    as_whole,
    is_usd,
    known_status,
    reckon_expiry,
)
from smsverify.text import log_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

log = log_of(__name__)

Model = TypeVar("Model", bound=BaseModel)
DEEPEST_ROW = 10  # levels of lists and objects in a row; what is kept of a row has to be written to the store

# Only we fill these fields of an `Order`. Where the service uses such a name, it means something else.
_NOT_ANSWERED = frozenset({"product", "country", "duration", "key", "expires_estimated"})
_RENEWED = frozenset({"active", "pending", "completed"})  # no other status says that a rental was renewed
_NAMING = frozenset({"order_id", "status", "balance"})  # what the models of single objects require
_OF_AN_ORDER = frozenset({"order_id", "otp", "phone"})
_EMPTY: tuple[Any, ...] = (None, "", [], {})
_LIST_NAMES = ("services", "offers", "countries", "orders", "plans", "esims", "results", "items")


@dataclass(frozen=True)
class Listed(Generic[Model]):
    """A list that the service has answered.

    Attributes:
        rows: the rows that could be read.
        unreadable: how many could not; what seems to be missing may be one of them.
        length: how many rows the answer has in all, repeated ones included.
        left_out: how many more rows the list has, at least, by what the answer says of further pages.
        date: when it was answered, by the service's clock (seconds).
    """

    rows: list[Model]
    unreadable: int = 0
    length: int = 0
    left_out: int = 0
    date: float | None = None


class ServiceApi:
    """The service as it is: no ledger, no names for ids. Prices come as `Decimal`, times in UTC.

    Every method takes `CallOptions`. It raises a `ServiceError` by what the service answers, and
    `InvalidRequestError` where the service refuses a value.

    Attributes:
        clock: the service's, as its answers show it.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.clock = transport.clock
        self._logged: set[tuple[str, str]] = set()

    # -------------------------------------------------------------- reads

    def get_balance(self, **options: Unpack[CallOptions]) -> Balance:
        """`GET /api/v1/balance/`"""
        return self._get_balance("/api/v1/balance/", **options)

    def get_wallet_balance(self, **options: Unpack[CallOptions]) -> Balance:
        """`GET /api/v1/wallet/balance/`, the alias."""
        return self._get_balance("/api/v1/wallet/balance/", **options)

    def list_services(self, product: Product, **options: Unpack[CallOptions]) -> Listed[Service]:
        """`GET /api/v1/services/<product>/`; not for `global` and `esim`, which have their own."""
        path = f"/api/v1/services/{product}/"
        return self._get_list(Service, path, lambda row: _service(row, product), **options)

    def list_esim_plans(self, **options: Unpack[CallOptions]) -> Listed[EsimPlan]:
        """`GET /api/v1/services/esim/`"""
        return self._get_list(EsimPlan, "/api/v1/services/esim/", _plan, **options)

    def list_countries(self, **options: Unpack[CallOptions]) -> Listed[Country]:
        """`GET /api/v1/global/countries/`"""
        return self._get_list(Country, "/api/v1/global/countries/", dict, **options)

    def list_global_services(self, country_id: int | str, **options: Unpack[CallOptions]) -> Listed[Service]:
        """`GET /api/v1/global/services/?country_id=<country_id>`. Offers of another country are not taken."""
        params = {"country_id": str(country_id)}
        reply = self._transport.get("/api/v1/global/services/", params, **options)
        if _is_elsewhere(_object(reply), country_id):
            raise unexpected(reply.answer)
        return self._decode_list(Service, lambda row: _offer(row, country_id), reply)

    def list_orders(
        self, *, priority: Priority = Priority.READ, **options: Unpack[CallOptions]
    ) -> Listed[Order]:
        """`GET /api/v1/orders/`: the 50 newest, newest first."""
        reply = self._transport.get("/api/v1/orders/", priority=priority, **options)
        listed = self._decode_list(Order, _order, reply)
        first = {order.order_id: order for order in reversed(listed.rows)}
        others = sum(order.as_dict() != first[order.order_id].as_dict() for order in listed.rows)
        if others:
            self._log_unreadable(
                Counter({"two rows say different things about the same order": others}), reply
            )
        rows = list(reversed(first.values()))
        return replace(listed, rows=rows, unreadable=listed.unreadable + others)

    def get_status(
        self, order_id: int, *, priority: Priority = Priority.READ, **options: Unpack[CallOptions]
    ) -> OrderStatus:
        """`GET /api/v1/order/<order_id>/status/`"""
        reply = self._transport.get(f"/api/v1/order/{order_id}/status/", priority=priority, **options)
        # Rentals end by the service's clock: the calendars of the hosts differ.
        answered_at = shown_or_now(reply.answer.date)
        status = _with_time_left(self._decode_status(order_id, reply), answered_at.timestamp())
        received_at = datetime.now(timezone.utc) if status.arrived else None
        return status.model_copy(
            update={"expires_at": reckon_expiry(status, answered_at), "received_at": received_at}
        )

    # -------------------------------------------------------------- what changes something

    def post_order(self, request: OrderRequest, entry: Service, **options: Unpack[CallOptions]) -> Order:
        """`POST /api/v1/order/<product>/`, once.

        Args:
            request: what is wanted.
            entry: the catalogue's line for it.
            options: how the request is sent.

        Raises:
            OutcomeUnknown: the number may have been bought.
            ServiceError: the number was not bought.
        """
        reply = self._transport.post(
            f"/api/v1/order/{request.product}/",
            _order_body(request, entry),
            priority=Priority.PURCHASE,
            **options,
        )
        try:
            return self._decode(Order, _order(_object(reply)), reply)
        except UnexpectedResponseError as error:
            raise OutcomeUnknown(error) from None

    def post_cancellation(self, order_id: int, **options: Unpack[CallOptions]) -> OrderStatus:
        """`POST /api/v1/order/<order_id>/cancel/`. Repeated where it was not answered, which is harmless."""
        path = f"/api/v1/order/{order_id}/cancel/"
        reply = self._transport.post(path, priority=Priority.RELEASE, is_repeatable=True, **options)
        return self._decode_status(order_id, reply)

    def post_renewal(self, order_id: int, **options: Unpack[CallOptions]) -> OrderStatus:
        """`POST /api/v1/order/<order_id>/renew/`, once; raises like `post_order`."""
        path = f"/api/v1/order/{order_id}/renew/"
        reply = self._transport.post(path, priority=Priority.PURCHASE, **options)
        answered = _object(reply)
        word = str(answered.get("status") or "").strip().lower()
        names_order = answered.get("order_id") not in _EMPTY
        try:
            if not (word in _RENEWED if word else names_order):
                raise unexpected(reply.answer)
            return self._as_status(
                order_id, _status(order_id, {**answered, "status": word or "active"}), reply
            )
        except UnexpectedResponseError as error:
            raise OutcomeUnknown(error) from None

    # -------------------------------------------------------------- decoding

    def _get_balance(self, path: str, **options: Unpack[CallOptions]) -> Balance:
        reply = self._transport.get(path, **options)
        return self._decode(Balance, {"currency": "USD"} | _object(reply), reply)

    def _get_list(
        self,
        model: type[Model],
        path: str,
        prepare: Callable[[Any], dict[str, Any]],
        **options: Unpack[CallOptions],
    ) -> Listed[Model]:
        return self._decode_list(model, prepare, self._transport.get(path, **options))

    def _decode_list(
        self, model: type[Model], prepare: Callable[[Any], dict[str, Any]], reply: Reply
    ) -> Listed[Model]:
        """The rows of a list. One that cannot be read is left out and logged, and the others are kept."""
        found = _rows(reply.body)
        if found is None:
            raise unexpected(reply.answer)
        rows, envelopes = found
        decoded: dict[str, Model] = {}  # a row that is repeated counts once
        left_out: Counter[str] = Counter()
        for row in rows:
            try:
                one = model.model_validate(prepare(_plain_row(row)))
            except ValueError as error:
                left_out[_why(error)] += 1
                continue
            # Not as JSON: what is not documented may hold half an emoji, which cannot be written.
            decoded.setdefault(repr((one.__dict__, one.model_extra)), one)
        if left_out and not decoded:
            raise unexpected(reply.answer)
        if left_out:
            self._log_unreadable(left_out, reply)
        return Listed(
            list(decoded.values()),
            unreadable=sum(left_out.values()),
            length=len(rows),
            left_out=self._left_out(envelopes, rows, reply),
            date=reply.answer.date,
        )

    def _left_out(self, envelopes: Sequence[Mapping[str, Any]], rows: list[Any], reply: Reply) -> int:
        """How many rows an answer leaves out by its own words. Each list that does so is logged once."""
        left_out = rows_left_out(envelopes, len(rows))
        endpoint = reply.answer.endpoint.partition("?")[0]
        is_documented = endpoint.endswith("/orders/") and len(rows) >= LIST_LENGTH
        if left_out and not is_documented and (endpoint, "pages") not in self._logged:
            self._logged.add((endpoint, "pages"))
            text = "%s answered %d rows and says that there are more. Only these %d are read"
            log.warning(text, endpoint, len(rows), len(rows))
        return left_out

    def _decode_status(self, order_id: int, reply: Reply) -> OrderStatus:
        return self._as_status(order_id, _status(order_id, _object(reply)), reply)

    def _as_status(self, order_id: int, values: dict[str, Any], reply: Reply) -> OrderStatus:
        status = self._decode(OrderStatus, values, reply)
        if status.order_id != order_id:
            raise unexpected(reply.answer)
        return status

    def _decode(self, model: type[Model], values: dict[str, Any], reply: Reply) -> Model:
        try:
            return model.model_validate(values)
        except ValidationError:
            raise unexpected(reply.answer) from None

    def _log_unreadable(self, left_out: Counter[str], reply: Reply) -> None:
        """Logs what a list has that cannot be read, each kind once."""
        endpoint = reply.answer.endpoint.partition("?")[0]
        for why, count in left_out.items():
            if (endpoint, why) not in self._logged:
                self._logged.add((endpoint, why))
                text = "%s answered %d rows that cannot be read. They are left out: %s. The answer begins: %s"
                log.warning(text, endpoint, count, why, reply.answer.excerpt)


def _object(reply: Reply) -> dict[str, Any]:
    """The object of an answer; empty where there is none, so that its required fields are found missing.

    What `data` says counts. Where it names nothing that is required and its envelope does, both count. The
    envelope's own `message`, and a `status` such as "success", are not the order's.
    """
    body = _unwrapped(reply.body)
    inner = _with_its_order(_unwrapped(body.get("data"))) if isinstance(body, Mapping) else None
    if not isinstance(inner, Mapping):
        parts = [_with_its_order(body, is_envelope=True)]
    elif _NAMING.isdisjoint(inner) and _names_something(body):
        parts = [body, inner]
    else:
        parts = [inner]
    found: dict[str, Any] = {}
    for part in parts:
        if not isinstance(part, Mapping) or isinstance(part, Contradiction):
            return {}
        found = _merged(found, part)
    return found


def _unwrapped(value: Any) -> Any:
    """What stands alone in a list; what is not in a list as it is."""
    value = from_text(value)
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _with_its_order(value: Any, *, is_envelope: bool = False) -> Any:
    """An object that names no order itself, with what it has under `order`; any other value as it is.

    Its own `message` is the order's only beside a code, or beside a status of an order.
    """
    if not isinstance(value, Mapping) or isinstance(value, Contradiction):
        return value
    order = _unwrapped(value.get("order"))
    if not isinstance(order, Mapping) or value.get("order_id") not in _EMPTY:
        return value
    if isinstance(order, Contradiction):
        return order
    left_out = {"order"}
    if not _has_known_status(value):
        left_out |= set() if "otp" in value else {"message"}
        left_out |= {"status"} if is_envelope else set()
    return _merged({name: one for name, one in value.items() if name not in left_out}, order)


def _merged(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """Both. What the inner one says counts; where it says nothing, it hides nothing."""
    said = {name: one for name, one in inner.items() if name not in outer or one not in _EMPTY}
    return {**outer, **said}


def _names_something(envelope: Mapping[str, Any]) -> bool:
    return "order_id" in envelope or "balance" in envelope or _has_known_status(envelope)


def _has_known_status(value: Mapping[str, Any]) -> bool:
    return known_status(value.get("status")) is not None


def _plain_row(row: Any) -> Mapping[str, Any]:
    """A row of a list. Raises `ValueError` where it cannot be read or kept."""
    if not isinstance(row, Mapping):
        raise ValueError("a row is not an object")
    if isinstance(row, Contradiction):
        raise ValueError("a row gives a field two values")
    if _is_deep(row, DEEPEST_ROW):
        raise ValueError("a row is nested too deeply")
    return row


def _is_deep(value: Any, left: int) -> bool:
    if not isinstance(value, (Mapping, list)):
        return False
    inner = value.values() if isinstance(value, Mapping) else value
    return left == 0 or any(_is_deep(one, left - 1) for one in inner)


def _why(error: ValueError) -> str:
    """Why a row cannot be read, without its values."""
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"its {problem['loc'][0]} is missing or unusable"


def _rows(
    body: Any, envelopes: tuple[Mapping[str, Any], ...] = ()
) -> tuple[list[Any], tuple[Mapping[str, Any], ...]] | None:
    """The list of an answer: the answer itself, its `data`, or what either has under a known name. And the
    objects that it stands in."""
    body = from_text(body)
    if isinstance(body, list):
        return body, envelopes
    if isinstance(body, Mapping):
        for name in ("data", *_LIST_NAMES):
            inner = from_text(body.get(name))
            if isinstance(inner, (list, Mapping)):
                return _rows(inner, (*envelopes, body))
    return None


def _prices(row: Mapping[str, Any], suffix: str = "") -> tuple[Decimal | None, Decimal | None]:
    """The price that is charged, and the largest one stated. In another currency than USD, it is unknown."""
    if not is_usd(row.get("currency")):
        return None, None
    stated = [as_price(row.get(f"{name}{suffix}")) for name in ("sell_price", "price")]
    known = [price for price in stated if price is not None]
    return (known[0], max(known)) if known else (None, None)


def _order(row: Mapping[str, Any]) -> dict[str, Any]:
    documented = {name: value for name, value in row.items() if name not in _NOT_ANSWERED}
    return documented | _activation_code(row) | {"price": _prices(row)[0]}


def _activation_code(row: Mapping[str, Any]) -> dict[str, str]:
    """The activation code of an eSIM as a text, where it is an object: such as its text and its picture."""
    code = row.get("activation_code")
    is_object = isinstance(code, (Mapping, list))
    return {"activation_code": json.dumps(code, default=str, ensure_ascii=False)} if is_object else {}


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


def _offer(row: Mapping[str, Any], country_id: int | str) -> dict[str, Any]:
    if _is_elsewhere(row, country_id):
        raise ValueError("a row is of another country than was asked for")
    return _service(row, "global") | {"country_id": country_id}


def _is_elsewhere(stated: Mapping[str, Any], country_id: int | str) -> bool:
    """Whether an object names another country: its price is not the one that would be paid."""
    named = stated.get("country_id")
    return named is not None and str(as_whole(named)).strip() != str(country_id)


def _status(order_id: int, row: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: value for name, value in row.items() if value is not None}
    values["otp"], values["message"] = read_fields(
        values.get("otp"),
        values.get("message"),
        status=values.get("status"),
        phone=values.get("phone"),
        order_id=order_id,
        needs_code=_OF_AN_ORDER.isdisjoint(row) and not _has_known_status(row),
    )
    if "status" in row or values["otp"] or values["message"]:
        values.setdefault("status", UNKNOWN_STATUS)
    return {"order_id": order_id} | values | _activation_code(row)


def _with_time_left(status: OrderStatus, answered_at: float) -> OrderStatus:
    """A status that shows a date alone, with the time that is left until then.

    Args:
        status: the status.
        answered_at: by the service's clock.
    """
    if status.expires_at is None or status.time_left_seconds is not None or status.days_left is not None:
        return status
    return status.model_copy(update={"time_left_seconds": status.expires_at.timestamp() - answered_at})


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
