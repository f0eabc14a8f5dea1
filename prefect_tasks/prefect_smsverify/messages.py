"""Telling Prefect of every SMS: events that deployments and automations are triggered by."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

from prefect import flow, get_run_logger
from prefect.events import Event
from prefect.events.clients import get_events_client
from websockets.exceptions import WebSocketException

from prefect_smsverify.calls import block_of
from prefect_smsverify.stop import current_stop
from smsverify.errors import SmsVerifyError

if TYPE_CHECKING:
    from smsverify.following import Batch, Follow
    from smsverify.models import Message

MESSAGE_RECEIVED = "smsverify.message.received"

LOOK = 0.5  # seconds between two looks whether this is to end
PAUSE = 5.0  # seconds until a store that can not be used, or a server that takes no events, is tried again


@flow(name="Tell of SMS", persist_result=False)
async def tell_of_messages_flow(
    credentials: str, order_ids: list[int] | None = None, timeout: float | None = None
) -> int:
    """Tells Prefect of every SMS as it comes, by an event `smsverify.message.received`; runs until stopped.

    It reads the inbox, which callbacks fill (`smsverify callbacks serve`); without callbacks, the service is
    asked for the rentals about three times a minute each. How far it has told is kept in the store, under the
    block's name, the block's namespace and the orders, once the server has the events: where it is killed and
    started anew, nothing is left out, and what is sent again has the same id, which Prefect keeps once. At
    first it begins with what comes from then on. Of several that run at the same time, one tells and the
    others wait for its end, so that the next one of a schedule takes over without a gap.

    The event's resource is `smsverify.order.<order_id>`; its payload has ids only: `message_id`, `order_id`,
    `received_at` and `credentials`. The task `get_message` reads the text.

    Args:
        credentials: name of a saved `SmsVerifyCredentials` block.
        order_ids: the orders; default: all of the account.
        timeout: seconds after which it ends, for one that a schedule starts again and again; default: never.

    Returns:
        how many SMS it has told of.
    """
    hook, stop, logger = block_of(credentials).get_hook(), current_stop(), get_run_logger()
    end = float("inf") if timeout is None else time.monotonic() + timeout
    account = await asyncio.to_thread(lambda: hook.settings.account_id)
    orders = "all" if order_ids is None else ",".join(str(order_id) for order_id in sorted(order_ids))
    count, complaint = 0, ""
    while not stop.is_set() and time.monotonic() < end:
        follow: Follow | None = None
        try:
            follow = await asyncio.to_thread(
                hook.follow_messages, f"prefect:{credentials}:{orders}", order_ids=order_ids
            )
            while (
                batch := await _next(follow, lambda: stop.is_set() or time.monotonic() >= end)
            ) is not None:
                await _emit([_event(account, credentials, *one) for one in batch])
                await asyncio.to_thread(follow.advance, batch[-1][0])
                count, complaint = count + len(batch), ""
                logger.info("Told Prefect of %d SMS", len(batch))
        except (SmsVerifyError, WebSocketException, OSError) as error:
            if str(error) != complaint:
                complaint = str(error)
                logger.warning("SMS can not be told of now; this goes on as soon as it can: %s", error)
            await asyncio.sleep(PAUSE)
        finally:
            if follow is not None:
                follow.close()
    return count


async def _next(follow: Follow, is_over: Callable[[], bool]) -> Batch | None:
    """The next messages; `None` where it is over before any have come."""
    asked = asyncio.wrap_future(follow.next())
    while not is_over():
        done, _ = await asyncio.wait({asked}, timeout=LOOK)
        if done:
            return asked.result()
    asked.cancel()
    return None


async def _emit(events: list[Event]) -> None:
    """Sends events, and waits until the server has confirmed the last one."""
    async with get_events_client(checkpoint_every=len(events)) as client:
        for event in events:
            await client.emit(event)


def _event(account: str, credentials: str, message_id: int, message: Message) -> Event:
    received_at = message.received_at or datetime.now(timezone.utc)
    return Event(
        event=MESSAGE_RECEIVED,
        occurred=received_at,
        resource={
            "prefect.resource.id": f"smsverify.order.{message.order_id}",
            "prefect.resource.name": f"order {message.order_id}",
        },
        payload={
            "message_id": message_id,
            "order_id": message.order_id,
            "received_at": received_at.isoformat(),
            "credentials": credentials,
        },
        # The same whenever it is sent again. The time is in it, since a new store counts from one again.
        id=uuid5(NAMESPACE_URL, f"smsverify:{account}:{message_id}:{received_at.isoformat()}"),
    )
