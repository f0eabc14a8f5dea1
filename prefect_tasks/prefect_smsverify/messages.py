"""Publishes an event to Prefect for each SMS; deployments and automations can be triggered by it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

from prefect import flow, get_run_logger
from prefect.events import Event
from prefect.events.clients import get_events_client

from prefect_smsverify.arguments import ahook_of
from prefect_smsverify.stopping import current_stop
from prefect_smsverify.threads import result_in_thread
from smsverify.checks import check_order_ids, check_seconds
from smsverify.errors import InvalidRequestError, SmsVerifyError
from smsverify.wings import Outages

if TYPE_CHECKING:
    from smsverify.models import Message
    from smsverify.wings import Batch, Subscription

MESSAGE_RECEIVED = "smsverify.message.received"

LOOK = 0.5  # seconds between two checks whether the flow must end
PAUSE = 5.0  # seconds until the next try, after the store could not be used or the server took no events


@flow(name="Publish message events", persist_result=False)
async def publish_message_events_flow(
    credentials: str, order_ids: list[int] | None = None, timeout: float | None = None
) -> int:
    """Publishes an event `smsverify.message.received` to Prefect for each SMS, until it is stopped.

    The flow reads the inbox, which callbacks fill (`smsverify callbacks serve`). Without callbacks, it asks
    the service for each rental about three times a minute. The store keeps its position, under the block's
    name, the block's namespace and the orders, and moves it on once the server has the events. After a crash,
    no SMS is left out, and an event that is sent again has the same id, which Prefect keeps once. The first
    run begins with the SMS that come from then on. Of several runs at the same time, one publishes and the
    others wait until it ends, so that the next run of a schedule takes over without a gap.

    The event's resource is `smsverify.order.<order_id>`. Its payload has ids only: `message_id`, `order_id`,
    `received_at` and `credentials`. The task `get_message` reads the text.

    Args:
        credentials: name of a saved `SmsVerifyCredentials` block.
        order_ids: the orders, one or more; default: all of the account.
        timeout: seconds until the flow ends, for a flow that a schedule starts again and again; default: it
            never ends.

    Returns:
        how many SMS it has published.

    Raises:
        InvalidRequestError: a parameter is wrong; `field` names it.
    """
    _refuse_no_orders(order_ids)
    end = float("inf") if timeout is None else time.monotonic() + check_seconds(timeout, "timeout")
    hook, stop, logger = await ahook_of(credentials), current_stop(), get_run_logger()
    account = await result_in_thread(lambda: hook.settings.account_id, "account")
    orders = "all" if order_ids is None else ",".join(str(order_id) for order_id in sorted(order_ids))
    count, outages = 0, Outages()
    while not stop.is_set() and time.monotonic() < end:
        subscription: Subscription | None = None
        try:
            subscription = await result_in_thread(
                partial(hook.subscribe, f"prefect:{credentials}:{orders}", order_ids=order_ids), "subscribe"
            )
            while (
                batch := await _next(subscription, lambda: stop.is_set() or time.monotonic() >= end)
            ) is not None:
                await _publish([_event(account, credentials, *one) for one in batch])
                await result_in_thread(partial(subscription.advance, batch[-1][0]), "advance")
                count += len(batch)
                logger.info("published %d SMS to Prefect", len(batch))
        except (SmsVerifyError, OSError) as error:
            if outages.begin_with(error):
                logger.warning("SMS cannot be published now; the next try is in %.0f s: %s", PAUSE, error)
            await asyncio.sleep(PAUSE)
        finally:
            if subscription is not None:
                subscription.close()
    return count


def _refuse_no_orders(order_ids: list[int] | None) -> None:
    if order_ids is not None and not check_order_ids(order_ids, "order_ids"):
        raise InvalidRequestError(
            "order_ids is empty, so that nothing would be published: leave it out for all orders",
            field="order_ids",
        )


async def _next(subscription: Subscription, is_over: Callable[[], bool]) -> Batch | None:
    """The next messages; `None` when the flow must end first."""
    asked = asyncio.wrap_future(subscription.next())
    while not is_over():
        done, _ = await asyncio.wait({asked}, timeout=LOOK)
        if done:
            return asked.result()
    asked.cancel()
    return None


async def _publish(events: list[Event]) -> None:
    """Sends events. Raises `SmsVerifyError` if Prefect's server does not take them."""
    try:
        await _emit(events)
    except Exception as error:  # a bare one where the server is being restarted
        raise SmsVerifyError(f"Prefect's server takes no events ({type(error).__name__}: {error})") from error


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
        # The id is the same each time. The time is a part of it, because a new store counts from one again.
        id=uuid5(NAMESPACE_URL, f"smsverify:{account}:{message_id}:{received_at.isoformat()}"),
    )
