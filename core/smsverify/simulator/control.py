"""The verbs that script a simulator: the same in this process and from another one."""

from __future__ import annotations

import http.client
import json
from abc import ABC, abstractmethod
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from smsverify.simulator.faults import Fault
from smsverify.simulator.records import (
    CallbackRecord,
    Movement,
    RequestRecord,
    SimulatedOrder,
    SimulatorError,
    Stats,
)
from smsverify.simulator.settings import Settings

_DOCUMENTED_LIMIT = 60  # for clients, while the simulator's limiter is off


class SimulatorControl(ABC):
    """What a test can read from a simulator and set in it. `Simulator` and `Control` are both of this shape.

    No verb is a request to the service: none of them counts for the limiter, nor in `requests` and `stats`.
    """

    @property
    @abstractmethod
    def url(self) -> str:
        """The base URL to give to a client, e.g. ``http://127.0.0.1:8900``."""

    @abstractmethod
    def _call(self, verb: str, **arguments: Any) -> Any:
        """Perform a verb: JSON values in, JSON value out."""

    # What clients need to know

    def settings(self) -> Settings:
        """The settings that are in force."""
        return Settings.from_json(self._call("settings"))

    @property
    def api_key(self) -> str:
        """The key that the service accepts."""
        return self.settings().api_key

    @property
    def rate_period(self) -> float:
        """The limiter's window in real seconds: the setting divided by `speed`."""
        settings = self.settings()
        return settings.real(settings.rate_period)

    def environment(self, store_url: str) -> dict[str, str]:
        """The environment variables that point a client at this simulator.

        Args:
            store_url: Where the client keeps its store, e.g. ``sqlite:////tmp/smsverify.db``.
        """
        settings = self.settings()
        return {
            "SMSVERIFY_API_KEY": settings.api_key,
            "SMSVERIFY_BASE_URL": self.url,
            "SMSVERIFY_STORE_URL": store_url,
            "SMSVERIFY_RATE_LIMIT": str(settings.rate_limit or _DOCUMENTED_LIMIT),
            "SMSVERIFY_RATE_PERIOD": f"{settings.real(settings.rate_period):g}",
        }

    # What happened

    def balance(self) -> Decimal:
        """The wallet, USD. No request is counted for it."""
        return Decimal(self._call("balance"))

    def orders(self) -> list[SimulatedOrder]:
        """All orders ever bought, oldest first."""
        return [SimulatedOrder.from_json(values) for values in self._call("orders")]

    def order(self, order_id: int) -> SimulatedOrder:
        """One order.

        Raises:
            SimulatorError: There is no such order.
        """
        return SimulatedOrder.from_json(self._call("order", order_id=order_id))

    def movements(self) -> list[Movement]:
        """The wallet's ledger, oldest first. All amounts, the start's included, sum up to `balance`."""
        return [Movement.from_json(values) for values in self._call("movements")]

    def requests(self) -> list[RequestRecord]:
        """The requests to the service in order of arrival; the newest 50 000."""
        return [RequestRecord.from_json(values) for values in self._call("requests")]

    def callbacks(self) -> list[CallbackRecord]:
        """The attempts to post a callback, in order of their end."""
        return [CallbackRecord.from_json(values) for values in self._call("callbacks")]

    def stats(self) -> Stats:
        """Counts: requests, 429s, the fullest window, faults met, …"""
        return Stats.from_json(self._call("stats"))

    # What is to happen

    def add_fault(self, fault: Fault) -> None:
        """Let something go wrong with coming requests; see `Fault` for what there is."""
        self._call("add_fault", **fault.to_json())

    def faults(self) -> list[Fault]:
        """The faults that may still be met, each with the `times` that are left."""
        return [Fault.from_json(values) for values in self._call("faults")]

    def clear_faults(self) -> None:
        """Let nothing go wrong any more."""
        self._call("clear_faults")

    def deliver_sms(
        self, order_id: int, *, otp: str | None = None, text: str | None = None, sender: str | None = None
    ) -> None:
        """Let an SMS arrive now, beside the one that the order's delay brings.

        Args:
            order_id: An order that is pending, active or completed, and no eSIM.
            otp: The code; made up if neither it nor `text` is given.
            text: The text; with `text` alone the service finds no code in it (`otp` stays none). Made of
                `otp` if left out.
            sender: The sender; the service's usual one if left out.

        Raises:
            SimulatorError: There is no such order, or it receives no SMS any more.
        """
        self._call("deliver_sms", order_id=order_id, otp=otp, text=text, sender=sender)

    def set_balance(self, amount: Decimal | str | float) -> None:
        """Set the wallet to `amount` USD; the ledger shows an "adjustment"."""
        self._call("set_balance", amount=str(amount))

    def deposit(self, amount: Decimal | str | float) -> None:
        """Pay `amount` USD into the wallet; posts the wallet callback if there is a `wallet_callback_url`."""
        self._call("deposit", amount=str(amount))

    def set_offer(
        self, product: str, service: int | str, *, country_id: int | None = None, **changes: Any
    ) -> None:
        """Change what is for sale, from now on.

        Args:
            product: The API's word, e.g. "temporary".
            service: The service's id, or the name for `rental` and `esim`.
            country_id: Of a global service.
            **changes: ``price`` (``price_3days``, ``price_30days`` of a rental), ``stock`` (None: any
                number).

        Raises:
            SimulatorError: There is no such offer, or it has no such field.
        """
        texts = {name: value if name == "stock" else str(value) for name, value in changes.items()}
        self._call("set_offer", product=product, service=service, country_id=country_id, **texts)

    def set_time_left(self, order_id: int, seconds: float) -> None:
        """Let an order's validity end in `seconds` of real time, as `time_left_seconds` counts."""
        self._call("set_time_left", order_id=order_id, seconds=seconds)

    def configure(self, **changes: Any) -> None:
        """Change settings from now on; see `Settings`. What is under way keeps its times.

        `products` and `services` are merged entry by entry: ``configure(products={"temporary": {"validity":
        60}})``.

        Raises:
            SimulatorError: A setting is unknown or makes no sense; nothing has changed.
        """
        self._call("configure", **_json_settings(changes))

    def reset(self) -> None:
        """Back to the start: settings, wallet, orders, faults, limiter and records."""
        self._call("reset")


class Control(SimulatorControl):
    """The verbs for a simulator in another process, over its control API.

    Args:
        url: The simulator's base URL.
        timeout: Real seconds for one verb.
    """

    def __init__(self, url: str, timeout: float = 30.0) -> None:
        self._url = url.rstrip("/")
        self._timeout = timeout

    @property
    def url(self) -> str:
        return self._url

    def _call(self, verb: str, **arguments: Any) -> Any:
        parts = urlsplit(self._url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=self._timeout)
        try:
            headers = {"Content-Type": "application/json", "Connection": "close"}
            connection.request("POST", f"/_sim/{verb}", json.dumps(arguments), headers)
            answer = connection.getresponse()
            value = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise SimulatorError(value["error"])
        return value


def _json_settings(changes: dict[str, Any]) -> dict[str, Any]:
    """Changes of settings as JSON values: dataclasses become objects, amounts texts."""
    return json.loads(json.dumps(changes, default=_plain))  # type: ignore[no-any-return]


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return str(value)
    if hasattr(value, "to_json"):
        return value.to_json()
    if hasattr(value, "__dataclass_fields__"):
        return vars(value)
    raise SimulatorError(f"not a setting: {value!r}")
