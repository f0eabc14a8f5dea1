"""The trigger that waits for a code while its task holds no worker."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from smsverify.errors import (
    AuthenticationError,
    NotFoundError,
    OrderEndedError,
    StoreError,
    WaitTimeoutError,
)
from smsverify_provider.kills import give_back

if TYPE_CHECKING:
    from smsverify_provider.hooks.smsverify import SmsVerifyHook

STORE_PAUSE = 5.0  # seconds until a store that could not be used is tried again


class SmsVerifyOtpTrigger(BaseTrigger):
    """Waits until the SMS of an order is in the inbox, on the one poll that everybody in this process shares.

    Its event says how the wait ended, never what the SMS says: `order_id`, `outcome` (`arrived`, `timeout`,
    `ended`, `not_found` or `refused`), and where nothing has arrived a `detail` for people; after a time-out,
    whether the order was `cancelled`.

    Args:
        order_id: the order.
        deadline: when the wait ends, in seconds since the epoch, so that a triggerer that restarts keeps to
            it.
        not_before: when the event may come, in seconds since the epoch.
        waiter: names the try of the sensor that has claimed the order.
        cancel_on_timeout: whether an order that is still pending at the deadline is cancelled.
        cancel_on_kill: whether it is when a user marks or clears the task.
        smsverify_conn_id: the connection.
    """

    def __init__(
        self,
        *,
        order_id: int,
        deadline: float,
        not_before: float,
        waiter: str,
        cancel_on_timeout: bool,
        cancel_on_kill: bool,
        smsverify_conn_id: str,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.order_id = order_id
        self.deadline = deadline
        self.not_before = not_before
        self.waiter = waiter
        self.cancel_on_timeout = cancel_on_timeout
        self.cancel_on_kill = cancel_on_kill
        self.smsverify_conn_id = smsverify_conn_id
        self._claiming = threading.Lock()
        self._is_killed = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments; Airflow keeps them in plain text, and nothing secret is among them."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "order_id": self.order_id,
            "deadline": self.deadline,
            "not_before": self.not_before,
            "waiter": self.waiter,
            "cancel_on_timeout": self.cancel_on_timeout,
            "cancel_on_kill": self.cancel_on_kill,
            "smsverify_conn_id": self.smsverify_conn_id,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Waits, and tells how that ended."""
        outcome = await self._wait()
        await asyncio.sleep(self.not_before - time.time())
        yield TriggerEvent({"order_id": self.order_id} | outcome)  # type: ignore[no-untyped-call]
        # Nothing may follow: a trigger that still runs when its event is taken counts as killed by a user.

    async def on_kill(self) -> None:
        """Gives the order back after a user has marked the task, unless somebody else waits or will wait.

        Airflow calls this also where the task was cleared and is to run again, and on a triggerer that is
        taken for dead, for a trigger that has moved to another one.
        """
        if self.cancel_on_kill:
            # Not in one of the loop's own threads, which are few: hundreds may be marked at once.
            loop, done = asyncio.get_running_loop(), asyncio.Event()

            def release() -> None:
                try:
                    self._give_back()
                finally:
                    loop.call_soon_threadsafe(done.set)

            threading.Thread(target=release, name="smsverify-kill", daemon=True).start()
            await done.wait()

    def _give_back(self) -> None:
        # A kill right after the start may overtake the claim, which would take the release off the record.
        with self._claiming:
            self._is_killed = True
        give_back(
            self._hook(),
            self.order_id,
            ti=self.task_instance,
            waiter=self.waiter,
            tries_left=True,  # if it runs, that is its next try
            reason="the task that waited was killed",
        )

    async def _wait(self) -> dict[str, Any]:
        """Waits until the code is there, the time is over, or waiting makes no sense any more."""
        while True:
            try:
                hook = await asyncio.to_thread(self._claim)
                # The core's own: what is masked stays in this process for good, and is not needed where the
                # text goes nowhere.
                await super(type(hook), hook).await_otp(
                    self.order_id,
                    max(0.0, self.deadline - time.time()),
                    cancel_on_timeout=self.cancel_on_timeout,
                    waiter=self.waiter,
                )
                return {"outcome": "arrived"}
            except WaitTimeoutError as error:
                return {"outcome": "timeout", "detail": str(error), "cancelled": error.cancelled}
            except OrderEndedError as error:
                return {"outcome": "ended", "detail": str(error)}
            except NotFoundError as error:
                return {"outcome": "not_found", "detail": str(error)}
            except AuthenticationError as error:
                return {"outcome": "refused", "detail": str(error)}
            except StoreError as error:
                if time.time() > self.deadline:
                    raise
                self.log.warning("The wait for order %d has to begin again: %s", self.order_id, error)
                await asyncio.sleep(STORE_PAUSE)

    def _claim(self) -> SmsVerifyHook:
        """The hook, with the order claimed under a name of this run's own.

        A trigger that moves runs twice for a while, and the earlier run is told of a kill that nobody meant.
        It must not give back what the later one waits for.
        """
        hook = self._hook()
        with self._claiming:
            if not self._is_killed:
                waiter = uuid.uuid4().hex
                hook.claim(self.order_id, waiter)
                self.waiter = waiter
        return hook

    def _hook(self) -> SmsVerifyHook:
        """The hook. Not for the event loop: reading the connection and loading the client block."""
        from smsverify_provider.hooks.smsverify import SmsVerifyHook

        return SmsVerifyHook(self.smsverify_conn_id)
