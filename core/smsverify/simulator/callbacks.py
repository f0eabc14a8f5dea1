"""Callbacks: the POSTs that the service sends when an SMS arrives or money is deposited."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from smsverify.simulator.agenda import Agenda, logger, moment, now
from smsverify.simulator.records import CallbackRecord, SimulatedOrder
from smsverify.simulator.settings import Settings


class Callbacks:
    """Posts payloads, and posts them again with exponential backoff until a 2xx comes back.

    The callback URL carries the receiver's secret: no log line and no record holds it.
    """

    def __init__(self, agenda: Agenda, settings: Callable[[], Settings]) -> None:
        self._agenda = agenda
        self._settings = settings
        self._lock = threading.Lock()
        self._records: list[CallbackRecord] = []
        self._era = 0

    def records(self) -> list[CallbackRecord]:
        with self._lock:
            return list(self._records)

    def clear(self) -> None:
        """Forget the records; what is under way is neither recorded nor repeated."""
        with self._lock:
            self._records.clear()
            self._era += 1

    def incoming_sms(self, order: SimulatedOrder, delay: float) -> None:
        """Post an order's newest SMS `delay` real seconds from now, and wait for nothing."""
        self._begin(self._settings().callback_url, sms_payload(order), order.order_id, delay)

    def incoming_sms_now(self, order: SimulatedOrder) -> None:
        """Post an order's newest SMS, and return when it and its duplicates were tried once."""
        for delivery in self._deliveries(self._settings().callback_url, sms_payload(order), order.order_id):
            self._try(delivery)

    def deposit(self, amount: Decimal, balance: Decimal) -> None:
        payload = {
            "event": "wallet_deposit",
            "amount": float(amount),
            "balance": float(balance),
            "currency": "USD",
        }
        self._begin(self._settings().wallet_callback_url, payload, None, 0.0)

    def _begin(self, url: str | None, payload: dict[str, Any], order_id: int | None, delay: float) -> None:
        deliveries = self._deliveries(url, payload, order_id)
        self._agenda.at(now() + delay, lambda: self._spawn(deliveries))

    def _deliveries(self, url: str | None, payload: dict[str, Any], order_id: int | None) -> list[_Delivery]:
        if not url:
            return []
        body = json.dumps(payload).encode()
        copies = range(1 + self._settings().callback_duplicates)
        return [_Delivery(url, body, payload["event"], order_id, copy, self._era) for copy in copies]

    def _spawn(self, deliveries: list[_Delivery]) -> None:
        """Try one after another, off the agenda's thread: a slow receiver holds up nothing else."""

        def run() -> None:
            for delivery in deliveries:
                self._try(delivery)

        threading.Thread(target=run, name="smsverify-simulator-callback", daemon=True).start()

    def _try(self, delivery: _Delivery) -> None:
        delivery.attempt += 1
        started = delivery.first_tried = delivery.first_tried or now()
        status, error = _post(delivery.url, delivery.body, self._settings().callback_timeout)
        delivered = status is not None and 200 <= status < 300
        record = CallbackRecord(
            delivery.event,
            delivery.order_id,
            delivery.attempt,
            delivery.copy,
            status,
            error,
            delivered,
            moment(now()),
        )
        with self._lock:
            if delivery.era != self._era:
                return
            self._records.append(record)
        about = (
            delivery.event if delivery.order_id is None else f"{delivery.event} of order {delivery.order_id}"
        )
        if delivered:
            logger.info("callback: %s delivered, answered %s", about, status)
            return
        settings = self._settings()
        wait = settings.callback_backoff * 2 ** (delivery.attempt - 1)
        again = now() + settings.real(wait)
        if again - started > settings.real(settings.callback_give_up):
            logger.info("callback: %s not delivered (%s), given up", about, error or status)
            return
        logger.info(
            "callback: %s not delivered (%s), again in %g s", about, error or status, settings.real(wait)
        )
        self._agenda.at(again, lambda: self._spawn([delivery]))


@dataclass
class _Delivery:
    """One payload on its way to one URL."""

    url: str
    body: bytes
    event: str
    order_id: int | None
    copy: int
    era: int
    attempt: int = 0
    first_tried: float = 0.0


def sms_payload(order: SimulatedOrder) -> dict[str, Any]:
    """The documented payload: bare digits, lower-case service, and the literal type "str"."""
    return {
        "event": "incoming_message",
        "message": {
            "order_id": order.order_id,
            "number": re.sub(r"\D", "", order.phone or ""),
            "service": order.service.lower(),
            "sender": order.sender,
            "sms": order.message,
            "type": "str",
        },
    }


def _post(url: str, body: bytes, timeout: float) -> tuple[int | None, str | None]:
    """POST once, following no redirect and using no proxy.

    Returns:
        The status, or None and why there is none.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(
            "POST", target, body, {"Content-Type": "application/json", "User-Agent": "smsverify-simulator"}
        )
        answer = connection.getresponse()
        answer.read()
        return answer.status, None
    except TimeoutError:
        return None, "timed out"
    except (OSError, http.client.HTTPException) as error:
        return None, type(error).__name__
    finally:
        connection.close()
