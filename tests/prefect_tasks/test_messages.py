"""SMS as Prefect events: each in one event, over restarts, with ids only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import anyio
import pytest
from prefect.client.orchestration import get_client
from prefect.events import Event
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter
from rigs.outages import TwoOutages
from rigs.rooms import rooms_of

from prefect_smsverify import (
    MESSAGE_RECEIVED,
    SmsVerifyCredentials,
    aget_message,
    get_message,
    messages,
    publish_message_events_flow,
)
from smsverify._messages.callbacks import Callback
from smsverify._parts import Parts
from smsverify._store.tables import consumers
from smsverify.errors import InvalidRequestError, NotFoundError, SmsVerifyError
from smsverify.models import Order
from smsverify.simulator import Simulator

TEXT = "Good morning Mrs Violet"
PATIENT = 60.0


class Killed(BaseException):
    """The end of the process."""


@pytest.fixture
def block(silent: Simulator, request: pytest.FixtureRequest) -> str:
    name = f"messages-{abs(hash(request.node.name)) % 10**8}"
    SmsVerifyCredentials().save(name, overwrite=True)
    return name


@pytest.fixture
def order(silent: Simulator, account: SmsVerifyCredentials) -> Order:
    return account.get_hook().order("rent-1day", service="Tinder")


def rooms() -> Parts:
    return rooms_of(SmsVerifyCredentials().get_hook())


def called(order: Order, *numbers: int) -> None:
    """Callbacks come, each of them twice."""
    for number in numbers * 2:
        rooms().inbox.take(
            Callback(
                True, "sms", True, order.order_id, order.phone, "8843", f"{TEXT}, your code is {number:06}"
            )
        )


def is_reading() -> bool:
    with rooms().store.read() as connection:
        return any(row.holder is not None for row in connection.execute(consumers.select()))


async def until(condition: Callable[[], Any]) -> None:
    with anyio.fail_after(PATIENT):
        while not condition():
            await asyncio.sleep(0.05)


async def events_of(block: str, count: int) -> list[dict[str, Any]]:
    """The events of a block, the oldest first, as soon as there are so many."""
    since = EventOccurredFilter(since=datetime.now(timezone.utc) - timedelta(hours=1))
    wanted = EventFilter(event=EventNameFilter(name=[MESSAGE_RECEIVED]), occurred=since)
    with anyio.fail_after(PATIENT):
        async with get_client() as client:
            while True:
                page = await client.read_events(filter=wanted, limit=50)
                events = [event for event in page.events if event.payload["credentials"] == block]
                if len(events) >= count:
                    return sorted(
                        ({"resource": event.resource.id, **event.payload} for event in events),
                        key=lambda event: event["message_id"],
                    )
                await asyncio.sleep(0.2)


async def publish(block: str, order: Order, *numbers: int, **parameters: Any) -> int:
    """Runs the flow while SMS come, until it has published so many."""
    running = asyncio.create_task(publish_message_events_flow(block, **parameters))
    await until(lambda: is_reading() or running.done())
    await asyncio.to_thread(called, order, *numbers)
    return await running


def published(block: str, count: int, before: int = 0) -> int:
    """How many SMS the flow publishes until it has published so many; on a busy machine it may run again."""
    while before < count:
        before += asyncio.run(publish_message_events_flow(block, timeout=10))
    return before


def code_of(block: str, event: dict[str, Any]) -> str | None:
    return get_message.fn(block, event["message_id"]).otp


@pytest.mark.slow
def test_each_sms_is_in_one_event_with_ids_only(block: str, order: Order) -> None:
    begun = asyncio.run(publish(block, order, *range(20), timeout=10))
    assert published(block, 20, before=begun) == 20
    events = asyncio.run(events_of(block, 20))
    assert [code_of(block, event) for event in events] == [f"{number:06}" for number in range(20)]
    for event in events:
        assert set(event) == {"resource", "message_id", "order_id", "received_at", "credentials"}
        assert event["resource"] == f"smsverify.order.{order.order_id}"
        assert event["order_id"] == order.order_id
        assert "Violet" not in json.dumps(event)
    message = asyncio.run(aget_message.fn(block, events[0]["message_id"]))
    assert message == get_message.fn(block, events[0]["message_id"])
    with pytest.raises(NotFoundError):
        get_message.fn(block, 999_999)


@pytest.mark.slow
def test_one_that_dies_before_it_is_on_record_publishes_again_and_prefect_keeps_one(
    block: str, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asyncio.run(publish_message_events_flow(block, timeout=1)) == 0
    called(order, 1, 2, 3)  # which come in one batch
    sent: list[Event] = []
    emit = messages._emit

    async def emit_and_die(events: list[Event]) -> None:
        await emit(events)
        sent.extend(events)
        if len(sent) == len(events):
            raise Killed

    monkeypatch.setattr(messages, "_emit", emit_and_die)
    with pytest.raises(Killed):
        asyncio.run(publish_message_events_flow(block))
    assert published(block, 3) == 3
    called(order, 4)
    assert published(block, 1) == 1
    assert [event.id for event in sent[:3]] == [event.id for event in sent[3:6]]
    assert [code_of(block, event) for event in asyncio.run(events_of(block, 4))] == [
        "000001", "000002", "000003", "000004"
    ]  # fmt: skip


@pytest.mark.slow
def test_while_the_server_takes_nothing_it_waits(
    block: str, order: Order, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(messages, "PAUSE", 0.1)
    # Of a server that is being restarted, Prefect's client says so with a bare `Exception`.
    failures = [
        asyncio.TimeoutError(),
        Exception("Unable to authenticate to the event stream"),
        ConnectionError("no server"),
        SmsVerifyError("no store"),
    ]
    emit = messages._emit

    async def emit_after_all(events: list[Event]) -> None:
        if failures:
            raise failures.pop()
        await emit(events)

    monkeypatch.setattr(messages, "_emit", emit_after_all)
    assert published(block, 1, before=asyncio.run(publish(block, order, 1, timeout=10))) == 1
    assert [code_of(block, event) for event in asyncio.run(events_of(block, 1))] == ["000001"]
    for text in ("TimeoutError", "Unable to authenticate", "no server", "no store"):
        assert text in caplog.text


def test_each_outage_of_the_store_is_logged_once_where_no_sms_comes_between(
    block: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(messages, "PAUSE", 0.0)
    outages = TwoOutages(monkeypatch)

    def subscribe(*_args: Any, **_options: Any) -> None:
        outages.strike()
        raise Killed

    monkeypatch.setattr("smsverify.hook.SmsVerifyHook.subscribe", subscribe)
    with pytest.raises(Killed):
        asyncio.run(publish_message_events_flow(block))
    assert caplog.text.count("cannot be published now") == 2


@pytest.mark.slow
def test_the_next_one_takes_over_without_a_gap(block: str, order: Order) -> None:
    async def scenario() -> int:
        first = asyncio.create_task(publish_message_events_flow(block, timeout=8))
        await until(is_reading)
        second = asyncio.create_task(publish_message_events_flow(block, timeout=20))
        await asyncio.to_thread(called, order, 1)
        one = await first
        await asyncio.to_thread(called, order, 2)
        return one + await second

    assert published(block, 2, before=asyncio.run(scenario())) == 2
    assert [code_of(block, event) for event in asyncio.run(events_of(block, 2))] == ["000001", "000002"]


@pytest.mark.parametrize(
    ("field", "given"), [("order_ids", [0]), ("order_ids", []), ("timeout", -1), ("timeout", float("nan"))]
)
def test_bad_input_is_refused_before_anything_is_read(field: str, given: Any, block: str) -> None:
    with pytest.raises(InvalidRequestError) as error:
        asyncio.run(publish_message_events_flow(block, **{"timeout": 6, field: given}))
    assert error.value.field == field
