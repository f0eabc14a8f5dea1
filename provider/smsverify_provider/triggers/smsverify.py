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

if TYPE_CHECKING:
    from smsverify_provider.hooks.smsverify import SmsVerifyHook

# Clearing a task kills its trigger and starts its next try, in either order and some seconds apart; a trigger
# that moves is killed here about when it starts elsewhere. For this long, whoever waits next may claim the
# order. It has to stay well below Airflow's limit for on_kill, `[triggerer] on_kill_timeout` (30 seconds).
KILL_GRACE = 8.0
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
        """Gives the order back after a user has marked or cleared the task, unless somebody waits by then."""
        if self.cancel_on_kill:
            # Not in one of the loop's own threads, which are few: hundreds may be cleared at once, and each
            # release begins with a pause.
            loop, done = asyncio.get_running_loop(), asyncio.Event()

            def release() -> None:
                try:
                    self._release()
                finally:
                    loop.call_soon_threadsafe(done.set)

            threading.Thread(target=release, name="smsverify-kill", daemon=True).start()
            await done.wait()

    def _release(self) -> None:
        hook, reason = self._hook(), "the task that waited was killed"
        if not hook.release(self.order_id, reason, waiter=self.waiter, grace=KILL_GRACE):
            # A kill right after the start overtakes the start of the wait, whose claim then takes the release
            # off the record. By now it has happened; where somebody else has the order, this does nothing.
            hook.release(self.order_id, reason, waiter=self.waiter)

    async def _wait(self) -> dict[str, Any]:
        """Waits until the code is there, the time is over, or waiting makes no sense any more."""
        while True:
            try:
                hook = await asyncio.to_thread(self._claim)
                await hook.await_otp(
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
        waiter = uuid.uuid4().hex
        hook.claim(self.order_id, waiter)
        self.waiter = waiter
        return hook

    def _hook(self) -> SmsVerifyHook:
        """The hook. Not for the event loop: reading the connection and loading the client block."""
        from smsverify_provider.hooks.smsverify import SmsVerifyHook

        return SmsVerifyHook(self.smsverify_conn_id)
