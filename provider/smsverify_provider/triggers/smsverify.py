"""The triggers: one waits for a code while its task holds no worker, one announces messages as they come."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from smsverify.checks import check_order_ids
from smsverify.errors import (
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    OrderEndedError,
    SmsVerifyError,
    StoreError,
    WaitTimeoutError,
)
from smsverify.text import log_of
from smsverify.wings import Outages, Place, claim, is_taken_over, keep_place, store_name, store_time
from smsverify_provider.event_loop import hook_on, in_own_thread
from smsverify_provider.kills import give_back, state_on_loop
from smsverify_provider.resuming import LEAD, Gap
from smsverify_provider.runs import wait_for_ti
from smsverify_provider.versions import CALLS_ON_KILL, SharedStreamProducer

if TYPE_CHECKING:
    from airflow.triggers.shared_stream import AdvanceItem

    from smsverify.wings import Batch, Subscription
    from smsverify_provider.hooks.smsverify import SmsVerifyHook

log = log_of(__name__)

OTHER_STORE = (
    "the worker and the triggerer have different stores, so neither sees the other's records. Give both the "
    "same store_url: PostgreSQL, or a file that both can open, for example on a volume in both containers"
)
# Seconds that a trigger which ends asks for the state of its task: a busy Airflow needs more than five.
STATE_LIMIT = 20.0
STORE_PAUSE = 5.0  # seconds until a store that could not be used is tried again
# Seconds between two events, besides the second or two until Airflow confirms the first. In Airflow 3.3, no
# Dag run gets an event before the next one comes, if the scheduler has not handled the one before
# (apache/airflow#56050). So a burst of SMS has to become few events, and not in quick succession.
EVENT_GAP = 2.0


class WaitEvent(TriggerEvent):
    """How a wait has ended. Airflow logs the `repr` of each event; the payload holds a function's result."""

    def __init__(self, payload: dict[str, Any]) -> None:
        super().__init__(payload)  # type: ignore[no-untyped-call]

    def __repr__(self) -> str:
        return f"{type(self).__name__}<order {self.payload['order_id']}: {self.payload['outcome']}>"

    __str__ = __repr__


class SmsVerifyOtpTrigger(BaseTrigger):
    """Waits until the SMS of an order is in the inbox, by the one poll that all waits share.

    Its event says how the wait ended, never what the SMS says: `order_id`, `outcome` (`arrived`, `timeout`,
    `ended`, `not_found`, `refused`, `other_store` or `failed`), and if nothing has arrived a `detail` for
    people, unless a newer call has the number; after a time-out and an end, the `reason` for the list of
    attempts, without order and what to do next; after a time-out, whether the order was `cancelled`.

    Args:
        order_id: the order.
        deadline: when the wait ends, by the store's time, so that a triggerer that restarts keeps to it.
        not_before: when the event may come, by the store's time.
        waiter: names the try of the task that has claimed the order, and after an @ the store with that
            claim: the triggerer needs the same store.
        cancel_on_timeout: cancels the order if it has not ended at the deadline.
        cancel_on_kill: cancels the order if a user marks or clears the task.
        after, sender, pattern: which message, as the sensor takes them; the time in ISO 8601.
        passed_on: further items of the event, for the task that is resumed: `dag.test()` loses the keyword
            arguments of a deferral. Texts only: the triggerer decodes all else, and ends if it cannot.
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
        after: str | None = None,
        sender: str | None = None,
        pattern: str | None = None,
        passed_on: dict[str, str] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.order_id = order_id
        self.deadline = deadline
        self.not_before = not_before
        self.waiter = waiter
        self.cancel_on_timeout = cancel_on_timeout
        self.cancel_on_kill = cancel_on_kill
        self.smsverify_conn_id = smsverify_conn_id
        self.after = after
        self.sender = sender
        self.pattern = pattern
        self.passed_on = passed_on
        self._gap = Gap(not_before)
        self._claiming = threading.Lock()
        self._is_killed = False
        self._has_ended = False
        self._hook: SmsVerifyHook | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments; nothing secret is among them, except what `passed_on` may hold."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "order_id": self.order_id,
            "deadline": self.deadline,
            "not_before": self.not_before,
            "waiter": self.waiter,
            "cancel_on_timeout": self.cancel_on_timeout,
            "cancel_on_kill": self.cancel_on_kill,
            "smsverify_conn_id": self.smsverify_conn_id,
            "after": self.after,
            "sender": self.sender,
            "pattern": self.pattern,
            "passed_on": self.passed_on,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Waits, and yields an event that says how the wait ended."""
        wait_for_ti(self.task_instance)
        try:
            outcome = await self._wait()
        except Exception as error:
            # Airflow would not bring the order back to the task, whose templates may name another one by now.
            self.log.exception("The wait for order %d failed", self.order_id)
            # The text of a foreign error could quote a secret.
            why = str(error) if isinstance(error, SmsVerifyError) else type(error).__name__
            outcome = {"outcome": "failed", "detail": f"the wait failed in the triggerer: {why}"}
        self._has_ended = True
        await self._gap.passed()
        yield WaitEvent({"order_id": self.order_id} | (self.passed_on or {}) | outcome)
        # Nothing may follow: a trigger that still runs when Airflow takes its event counts as killed.

    async def on_kill(self) -> None:
        """Gives the order back after a user has marked the task, unless another call waits or will wait.

        Airflow also calls this if the task was cleared and will run again, and on a triggerer that counts
        as dead, for a trigger that has moved to another one.
        """
        if self.cancel_on_kill:
            await self._release()

    async def cleanup(self) -> None:
        """Releases the number of a killed task on an Airflow that does not call `on_kill`.

        Airflow calls this whenever the trigger ends, also when its triggerer stops and another one goes on
        with the wait. So the state of the task decides.
        """
        if CALLS_ON_KILL or self._has_ended or not self.cancel_on_kill:
            return
        state: str | Exception | None
        try:
            state = await asyncio.wait_for(state_on_loop(self.task_instance), STATE_LIMIT)
        except Exception as error:
            state = error
        if state != "deferred":
            await self._release(partial(_given, state))

    async def _release(self, read_state: Callable[[Any], str | None] | None = None) -> None:
        hook = self._hook or await self._make_hook()
        # Not in one of the loop's own threads, which are few: hundreds may be marked at once.
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def release() -> None:
            try:
                self._give_back(hook, read_state)
            finally:
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=release, name="smsverify-kill", daemon=True).start()
        await done.wait()

    def _give_back(self, hook: SmsVerifyHook, read_state: Callable[[Any], str | None] | None) -> None:
        # A kill right after the start may overtake the claim, which would take the release off the record.
        with self._claiming:
            self._is_killed = True
        give_back(
            hook,
            self.order_id,
            ti=self.task_instance,
            waiter=self.waiter,
            tries_left=True,  # if it runs, that is its next try
            reason="the task that waited was killed",
            read_state=read_state,
        )

    async def _wait(self) -> dict[str, Any]:
        """Waits until the code is there, the time is over, or waiting makes no sense any more."""
        # By this machine's calendar, until the store's time is known.
        end = time.monotonic() + max(0.0, self.deadline - time.time())
        refused_key, refusal, outages = None, "", Outages()
        while True:
            try:
                hook = self._hook = await self._make_hook()
                if hook.settings.api_key == refused_key:
                    return {"outcome": "refused", "detail": refusal}
                if refused := await in_own_thread(self._refused, hook):
                    return refused
                left = await in_own_thread(self._claim, hook)
                end = time.monotonic() + left
                # The core's method, which masks nothing: a masked text stays in this process for good, and
                # this process logs no code.
                await super(type(hook), hook).await_otp(
                    self.order_id,
                    left,
                    cancel_on_timeout=self.cancel_on_timeout,
                    after=self.after,
                    sender=self.sender,
                    pattern=self.pattern,
                    waiter=self.waiter,
                )
                return {"outcome": "arrived"}
            except WaitTimeoutError as error:
                return {
                    "outcome": "timeout",
                    "detail": str(error),
                    "reason": error.reason,
                    "cancelled": error.cancelled,
                }
            except OrderEndedError as error:
                return {"outcome": "ended", "detail": str(error), "reason": error.reason}
            except NotFoundError as error:
                return {"outcome": "not_found", "detail": str(error)}
            except AuthenticationError as error:
                # The connection is read once more: it may have a new key by now.
                refused_key, refusal = hook.settings.api_key, str(error)
            except StoreError as error:
                if time.monotonic() > end:
                    raise
                if outages.begin_with(error):
                    self.log.warning("The wait for order %d has to begin again: %s", self.order_id, error)
                await asyncio.sleep(STORE_PAUSE)

    def _refused(self, hook: SmsVerifyHook) -> dict[str, Any] | None:
        """What ends the wait before it begins: another store, or a newer call that has the number."""
        store = self.waiter.partition("/")[0].partition("@")[2]
        if store and store_name(hook) != store:
            return {"outcome": "other_store", "detail": OTHER_STORE}
        holder = (self.passed_on or {}).get("holder")
        if holder and is_taken_over(hook, self.order_id, holder):
            return {"outcome": "ended", "reason": "a newer call with the key of its task has the number"}
        return None

    def _claim(self, hook: SmsVerifyHook) -> float:
        """Claims the order under a name of this run's own. Returns for how many seconds it may be waited for.

        A trigger that moves runs twice for a while, and Airflow calls `on_kill` of the earlier run although
        no user has ended the task. It must not give back the order that the later run waits for.
        """
        sensor = self.waiter.partition("/")[0]
        with self._claiming:
            if not self._is_killed:
                waiter = f"{sensor}/{uuid.uuid4().hex}"
                claim(hook, self.order_id, waiter)
                self.waiter = waiter
        now = store_time(hook)
        self._gap.note(now)
        return max(0.0, self.deadline - now)

    async def _make_hook(self) -> SmsVerifyHook:
        return await hook_on(self.smsverify_conn_id)


class SmsVerifyTurnTrigger(BaseTrigger):
    """Keeps a task's place in the queue for the rate limit. The task comes back to pay when its turn is near.

    Nothing is sent or bought here: a trigger may run twice, and a purchase must not. Its event names the
    place; if the triggerer has another store than the worker, it has a `detail`.

    Args:
        place, arrived_at: of the place.
        not_before: when the event may come, by the store's time.
        store: the store that the place is in: the triggerer has to have the same.
        passed_on: what the event brings back to the task besides; texts only.
        smsverify_conn_id: the connection.
    """

    def __init__(
        self,
        *,
        place: str,
        arrived_at: float,
        not_before: float,
        store: str,
        smsverify_conn_id: str,
        passed_on: dict[str, str] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.place = place
        self.arrived_at = arrived_at
        self.not_before = not_before
        self.store = store
        self.passed_on = passed_on
        self.smsverify_conn_id = smsverify_conn_id
        self._gap = Gap(not_before)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments; Airflow keeps them in plain text, and nothing secret is among them."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "place": self.place,
            "arrived_at": self.arrived_at,
            "not_before": self.not_before,
            "store": self.store,
            "passed_on": self.passed_on,
            "smsverify_conn_id": self.smsverify_conn_id,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Waits until the turn is near."""
        detail = await self._wait()
        # Others may have given up, so the turn may come sooner than Airflow can take the event.
        await self._gap.passed()
        event = {**(self.passed_on or {}), "place": self.place, "arrived_at": self.arrived_at}
        yield TriggerEvent(event | ({"detail": detail} if detail else {}))  # type: ignore[no-untyped-call]

    async def _wait(self) -> str | None:
        outages = Outages()
        while True:
            try:
                hook = await hook_on(self.smsverify_conn_id)
                kept = await in_own_thread(self._keep, hook)
                if kept is None:
                    return OTHER_STORE
                await asyncio.wrap_future(kept)
                return None
            except StoreError as error:
                if outages.begin_with(error):
                    self.log.warning("The place in the queue cannot be kept at the moment: %s", error)
                await asyncio.sleep(STORE_PAUSE)

    def _keep(self, hook: SmsVerifyHook) -> Future[None] | None:
        if store_name(hook) != self.store:
            return None
        self._gap.note(store_time(hook))
        return keep_place(hook, Place(self.place, self.arrived_at), lead=LEAD)


class SmsVerifyMessageTrigger(BaseEventTrigger):
    """Announces every SMS as it comes, for an `AssetWatcher`, so that an SMS starts a Dag run.

    It reads the inbox, which callbacks fill. Without callbacks, the service is asked for each rental about
    three times a minute. Its cursor is in the store, under the connection, its namespace and the orders. It
    moves once Airflow has the event in its database, so a triggerer that restarts leaves no SMS out. The
    first run of a trigger begins with the SMS that come from then on.

    The event has ids only: `{"smsverify_conn_id": …, "messages": [{"message_id": …, "order_id": …,
    "received_at": …}, …]}`, the oldest first. SMS that come in a burst are in one event.
    `SmsVerifyHook.messages_of` reads the texts in a task.

    Args:
        order_id: one order or several; default: all of the account.
        smsverify_conn_id: the connection.

    Raises:
        InvalidRequestError: an `order_id` is none, or there is none in it.
    """

    def __init__(
        self,
        *,
        order_id: int | str | Sequence[int | str] | None = None,
        smsverify_conn_id: str = "smsverify_default",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Sorted, since Airflow identifies a trigger by its arguments.
        self.order_id = None if order_id is None else sorted(check_order_ids(order_id, "order_id"))
        if self.order_id == []:
            raise InvalidRequestError(
                "order_id names no order: leave it out for all of them", field="order_id"
            )
        self.smsverify_conn_id = smsverify_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments; Airflow keeps them in plain text, and nothing secret is among them."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "order_id": self.order_id,
            "smsverify_conn_id": self.smsverify_conn_id,
        }

    # Airflow's shared streams confirm when an event is in its database. That is their only use here: each
    # trigger has a stream of its own, and the triggers of one process share the core's one watch.

    def shared_stream_key(self) -> tuple[Any, ...]:
        """A stream of its own."""
        return (type(self).__qualname__, self.smsverify_conn_id, *(self.order_id or ("all",)))

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> MessageStream:
        """The stream, which reads the inbox and keeps the cursor."""
        return MessageStream(**kwargs)

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """One event for each batch of messages."""
        async for payload in shared_stream:
            yield TriggerEvent(payload)  # type: ignore[no-untyped-call]

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """The same if Airflow confirms no events: an event that it takes then counts as confirmed."""
        stream = MessageStream(self.order_id, self.smsverify_conn_id)
        try:
            async for payload, message_id in stream.open_stream():
                yield TriggerEvent(payload)  # type: ignore[no-untyped-call]
                await stream.confirm(message_id)
        finally:
            await stream.aclose()


class MessageStream(SharedStreamProducer):
    """The messages of some orders, or of all, as payloads of events.

    Args:
        order_id, smsverify_conn_id: as for the trigger.
    """

    def __init__(self, order_id: list[int] | None, smsverify_conn_id: str) -> None:
        self._order_ids = order_id
        self._conn_id = smsverify_conn_id
        self._subscription: Subscription | None = None
        self._is_confirmed = asyncio.Event()

    async def open_stream(self) -> AsyncIterator[tuple[dict[str, Any], int]]:
        """Each batch as a payload, with the id of its last message; the next one after `confirm`."""
        outages = Outages()
        while True:
            try:
                hook = await hook_on(self._conn_id)
                subscription = self._subscription = await in_own_thread(self._start, hook)
                while True:
                    batch = await asyncio.wrap_future(subscription.next())
                    self._is_confirmed.clear()
                    yield self._payload(batch), batch[-1][0]
                    await self._is_confirmed.wait()
                    await asyncio.sleep(EVENT_GAP)
            except SmsVerifyError as error:
                if outages.begin_with(error):
                    log.warning("SMS cannot be announced now; this goes on as soon as it can: %s", error)
                await self.aclose()
                await asyncio.sleep(STORE_PAUSE)

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Confirms events that Airflow has in its database. Others come again after the next start."""
        if all(item.outcome.is_clean for item in batch):
            await self.confirm(batch[-1].broker_payload)
        else:
            log.warning("Airflow did not store an event of SMS; it is sent again after the next start")

    async def confirm(self, message_id: int) -> None:
        """Moves the cursor: all messages up to this one are announced."""
        if self._subscription is not None:
            await in_own_thread(self._subscription.advance, message_id)
        self._is_confirmed.set()

    async def aclose(self) -> None:
        """Lets another process read."""
        if self._subscription is not None:
            self._subscription.close()

    def _start(self, hook: SmsVerifyHook) -> Subscription:
        orders = "all" if self._order_ids is None else ",".join(map(str, self._order_ids))
        return hook.subscribe(f"airflow:{self._conn_id}:{orders}", order_ids=self._order_ids)

    def _payload(self, batch: Batch) -> dict[str, Any]:
        return {
            "smsverify_conn_id": self._conn_id,
            "messages": [
                {
                    "message_id": message_id,
                    "order_id": message.order_id,
                    "received_at": message.received_at.isoformat() if message.received_at else None,
                }
                for message_id, message in batch
            ],
        }


def _given(state: str | Exception | None, _ti: Any) -> str | None:
    """The state that was read before."""
    if isinstance(state, Exception):
        raise state
    return state
