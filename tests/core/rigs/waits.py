"""Waits for the codes of many orders, in threads of their own, and what they cost."""

from __future__ import annotations

import threading
from typing import Any

from smsverify import errors
from smsverify.hook import SmsVerifyHook
from smsverify.models import Message
from smsverify.simulator import Simulator

PATIENT = 60.0  # seconds; for waits that end by themselves


def buy(hook: SmsVerifyHook, count: int = 1) -> list[int]:
    return [hook.order("temporary", service="WhatsApp").order_id for _ in range(count)]


class Waiting:
    """Waits in threads of their own; how each ends is in `ends`."""

    def __init__(
        self, hook: SmsVerifyHook, order_ids: list[int], timeout: float = PATIENT, **options: Any
    ) -> None:
        self.ends: list[Message | BaseException | None] = [None] * len(order_ids)
        self._hook = hook
        self._options = options
        self._threads = [
            threading.Thread(target=self._wait, args=(place, order_id, timeout), daemon=True)
            for place, order_id in enumerate(order_ids)
        ]
        for thread in self._threads:
            thread.start()

    def _wait(self, place: int, order_id: int, timeout: float) -> None:
        try:
            self.ends[place] = self._hook.wait_for_otp(order_id, timeout, **self._options)
        except errors.SmsVerifyError as error:
            self.ends[place] = error

    def join(self) -> list[Message | BaseException | None]:
        for thread in self._threads:
            thread.join(PATIENT + 30)
        assert None not in self.ends, "a wait hangs"
        return self.ends

    def messages(self) -> list[Message]:
        ends = self.join()
        assert all(isinstance(end, Message) for end in ends), ends
        return [end for end in ends if isinstance(end, Message)]

    def codes(self) -> list[str | None]:
        return [message.otp for message in self.messages()]


def status_requests(simulator: Simulator) -> int:
    return simulator.stats().by_endpoint.get("GET order/{id}/status/", 0)
