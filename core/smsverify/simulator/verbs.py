"""The verbs of the control API, on the simulator's side. JSON in, JSON out, in-process too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from smsverify.simulator.faults import Fault
from smsverify.simulator.gateway import Gateway
from smsverify.simulator.lives import parse_amount
from smsverify.simulator.records import Record, SimulatorError


def perform(gateway: Gateway, verb: str, arguments: Any) -> Any:
    """Do what `verb` says.

    Raises:
        SimulatorError: There is no such verb, or it cannot make sense of its arguments.
    """
    if verb not in VERBS:
        raise SimulatorError(f"unknown verb {verb!r}; known: {', '.join(VERBS)}")
    if not isinstance(arguments, dict):
        raise SimulatorError(f"{verb}: the body must be a JSON object")
    try:
        return VERBS[verb](gateway, **arguments)
    except TypeError as error:
        raise SimulatorError(f"{verb}: {error}") from error


def _records(records: Iterable[Record]) -> list[dict[str, Any]]:
    return [record.to_json() for record in records]


def state(gateway: Gateway) -> dict[str, Any]:
    return {
        "balance": balance(gateway),
        "stats": gateway.stats().to_json(),
        "orders": _records(gateway.state.orders()),
        "movements": _records(gateway.state.movements()),
        "callbacks": _records(gateway.callbacks.records()),
        "faults": faults(gateway),
    }


def balance(gateway: Gateway) -> str:
    return str(gateway.state.balance)


def faults(gateway: Gateway) -> list[dict[str, Any]]:
    return [fault.to_json() for fault in gateway.pending_faults()]


def set_balance(gateway: Gateway, amount: object) -> None:
    gateway.state.set_balance(parse_amount(amount, "amount"))


def deposit(gateway: Gateway, amount: object) -> None:
    gateway.deposit(parse_amount(amount, "amount"))


def set_offer(
    gateway: Gateway, product: str, service: object, country_id: int | None = None, **changes: Any
) -> None:
    with gateway.state.lock:
        offer = gateway.state.catalogue.find(product, service, country_id)
        if offer is None:
            raise SimulatorError(f"service: {product} does not offer {service!r}")
        for name, value in changes.items():
            if name == "stock":
                if not (value is None or (isinstance(value, int) and value >= 0)):
                    raise SimulatorError(f"stock: a whole number, or none for any number, not {value!r}")
                offer.stock = value
            elif isinstance(getattr(offer, name, None), Decimal):
                setattr(offer, name, parse_amount(value, name))
            else:
                raise SimulatorError(f"{name}: nothing that a {product} offer has")


def deliver_sms(
    gateway: Gateway,
    order_id: int,
    otp: str | None = None,
    text: str | None = None,
    sender: str | None = None,
) -> None:
    gateway.state.deliver_sms(order_id, otp, text, sender)


VERBS: dict[str, Callable[..., Any]] = {
    "state": state,
    "balance": balance,
    "settings": lambda gateway: gateway.settings.to_json(),
    "stats": lambda gateway: gateway.stats().to_json(),
    "orders": lambda gateway: _records(gateway.state.orders()),
    "order": lambda gateway, order_id: gateway.state.order(order_id).to_json(),
    "movements": lambda gateway: _records(gateway.state.movements()),
    "requests": lambda gateway: _records(gateway.requests()),
    "callbacks": lambda gateway: _records(gateway.callbacks.records()),
    "faults": faults,
    "add_fault": lambda gateway, **values: gateway.add_fault(Fault.from_json(values)),
    "clear_faults": lambda gateway: gateway.clear_faults(),
    "deliver_sms": deliver_sms,
    "set_balance": set_balance,
    "deposit": deposit,
    "set_offer": set_offer,
    "set_time_left": lambda gateway, order_id, seconds: gateway.state.set_time_left(order_id, seconds),
    "configure": lambda gateway, **changes: gateway.configure(changes),
    "reset": lambda gateway: gateway.reset(),
}
