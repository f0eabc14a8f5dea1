"""The trigger of an asset's watcher: every SMS in one event, over restarts and bursts, and only its ids."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from airflow.sdk import Asset, AssetWatcher
from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome, SharedStreamManager
from rigs.outages import TwoOutages
from rigs.rooms import rooms_of
from trigger_runs import run, until

from smsverify._messages.callbacks import Callback
from smsverify._store.tables import consumers
from smsverify.errors import InvalidRequestError, NotFoundError
from smsverify.simulator import Simulator
from smsverify_provider.hooks.smsverify import SmsVerifyHook
from smsverify_provider.triggers import smsverify as triggers
from smsverify_provider.triggers.smsverify import MessageStream, SmsVerifyMessageTrigger

pytestmark = pytest.mark.smsverify_simulator(sms_delay="never")

TEXT = "Good morning Mrs Violet"


@pytest.fixture(autouse=True)
def _no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "EVENT_GAP", 0.0)
    monkeypatch.setattr(triggers, "STORE_PAUSE", 0.05)


@pytest.fixture
def order(hook: Any) -> Any:
    return hook.order("rent-1day", service="Tinder")


def called(hook: Any, order: Any, number: int) -> str | None:
    """A callback comes with an SMS."""
    return rooms_of(hook).inbox.take(
        Callback(
            by_secret=True,
            kind="sms",
            is_documented=True,
            order_id=order.order_id,
            phone=order.phone,
            sender="8843",
            message=f"{TEXT}, your code is {number:06}",
        )
    )


class Triggerer:
    """Runs a trigger as Airflow's triggerer does; `confirm` stands for the database, which takes events."""

    def __init__(self, trigger: BaseEventTrigger) -> None:
        self.events: list[TriggerEvent] = []
        self._trigger = trigger
        self._streams = SharedStreamManager()
        self._key = trigger.shared_stream_key()
        self._sent: list[int] = []
        self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        stream = self._streams.subscribe(trigger_id=1, trigger=self._trigger, key=self._key)
        async for event in self._trigger.filter_shared_stream(stream):
            seq = self._streams.bind_pending_event(trigger_id=1, key=self._key)
            assert seq is not None
            self._sent.append(seq)
            self.events.append(event)

    def confirm(self) -> None:
        self._streams.confirm_persisted(self._sent)
        self._sent.clear()

    def announced(self) -> list[int]:
        """The ids of the messages that events have announced."""
        return [announced["message_id"] for event in self.events for announced in event.payload["messages"]]

    async def end(self) -> None:
        """Ends in order, with a chance to clean up."""
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self._streams.stop_all()


async def start(hook: Any, **arguments: Any) -> Triggerer:
    """A triggerer whose trigger reads."""
    before = holders(hook)
    triggerer = Triggerer(restored(SmsVerifyMessageTrigger(**arguments)))
    await until(lambda: holders(hook) - before)
    return triggerer


def restored(trigger: SmsVerifyMessageTrigger) -> SmsVerifyMessageTrigger:
    """A trigger as the triggerer makes it: from what is in the metadata database."""
    return SmsVerifyMessageTrigger(**json.loads(json.dumps(trigger.serialize()[1])))


def holders(hook: Any) -> set[str]:
    with rooms_of(hook).store.read() as connection:
        return {row.holder for row in connection.execute(sa.select(consumers)) if row.holder is not None}


def cursor(hook: Any) -> int:
    with rooms_of(hook).store.read() as connection:
        return int(connection.execute(sa.select(consumers.c.cursor)).scalar_one())


def kill(hook: Any) -> None:
    """What a consumer has that was killed: it keeps its place for a while and then loses it."""
    for subscription in rooms_of(hook).waiter._subscriptions.current():
        subscription.fail(RuntimeError("killed"))


def test_an_sms_is_announced_by_its_ids_alone(hook: Any, order: Any) -> None:
    async def scenario() -> list[TriggerEvent]:
        triggerer = await start(hook)
        called(hook, order, 471_100)
        await until(lambda: triggerer.events)
        triggerer.confirm()
        await until(lambda: cursor(hook))
        await triggerer.end()
        return triggerer.events

    (event,) = run(scenario())
    assert event.payload["smsverify_conn_id"] == "smsverify_default"
    (announced,) = event.payload["messages"]
    assert set(announced) == {"message_id", "order_id", "received_at"}
    assert announced["order_id"] == order.order_id
    assert hook.get_message(announced["message_id"]).otp == "471100"
    text = json.dumps(event.payload)
    assert "471100" not in text
    assert "Violet" not in text
    assert order.phone not in text


def test_an_sms_before_the_watcher_is_not_announced(hook: Any, order: Any) -> None:
    called(hook, order, 1)

    async def scenario() -> list[int]:
        triggerer = await start(hook)
        called(hook, order, 2)
        await until(triggerer.announced)
        await triggerer.end()
        return triggerer.announced()

    (message_id,) = run(scenario())
    assert hook.get_message(message_id).otp == "000002"


@pytest.mark.slow
def test_a_burst_with_repeats_is_announced_once_each_in_few_events(hook: Any, order: Any) -> None:
    async def scenario() -> Triggerer:
        triggerer = await start(hook)
        for number in range(20):
            assert called(hook, order, number) == "verified"
            assert called(hook, order, number) is None  # the service repeats itself
        while len(triggerer.announced()) < 20:
            triggerer.confirm()
            await asyncio.sleep(0.01)
        await triggerer.end()
        return triggerer

    triggerer = run(scenario())
    codes = [hook.get_message(message_id).otp for message_id in triggerer.announced()]
    assert codes == [f"{number:06}" for number in range(20)]
    assert len(triggerer.events) < 20


def test_the_next_event_waits_for_the_one_before(
    hook: Any, order: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triggers, "EVENT_GAP", 0.7)

    async def scenario() -> tuple[list[int], float]:
        triggerer = await start(hook)
        called(hook, order, 1)
        await until(triggerer.announced)
        called(hook, order, 2)
        called(hook, order, 3)
        await asyncio.sleep(0.5)
        assert len(triggerer.events) == 1  # it is not in Airflow's database yet
        triggerer.confirm()
        confirmed = time.monotonic()
        await until(lambda: len(triggerer.events) == 2)
        took = time.monotonic() - confirmed
        await triggerer.end()
        return [len(event.payload["messages"]) for event in triggerer.events], took

    sizes, took = run(scenario())
    assert sizes == [1, 2]
    assert took >= 0.7


@pytest.mark.parametrize("is_killed", [True, False])
def test_a_triggerer_that_ends_before_airflow_has_the_event_announces_it_again(
    hook: Any, order: Any, is_killed: bool
) -> None:
    async def scenario() -> tuple[list[int], list[int]]:
        first = await start(hook)
        called(hook, order, 1)
        await until(first.announced)
        if is_killed:
            kill(hook)
        await first.end()
        second = await start(hook)
        await until(second.announced)
        await second.end()
        return first.announced(), second.announced()

    first, second = run(scenario())
    assert first == second


def test_a_triggerer_that_ends_afterwards_does_not(hook: Any, order: Any) -> None:
    async def scenario() -> tuple[list[int], list[int]]:
        first = await start(hook)
        before = cursor(hook)
        called(hook, order, 1)
        await until(first.announced)
        first.confirm()
        await until(lambda: cursor(hook) > before)
        kill(hook)
        await first.end()
        called(hook, order, 2)
        second = await start(hook)
        await until(second.announced)
        await second.end()
        return first.announced(), second.announced()

    first, second = run(scenario())
    assert [hook.get_message(message_id).otp for message_id in first + second] == ["000001", "000002"]


def test_what_airflow_did_not_take_is_not_put_on_record(hook: Any, order: Any) -> None:
    async def scenario() -> None:
        stream = triggers.MessageStream(None, "smsverify_default")
        coming = asyncio.create_task(anext(stream.open_stream()))
        await until(lambda: holders(hook))
        called(hook, order, 1)
        _, message_id = await coming
        before = cursor(hook)
        await stream.advance([AdvanceItem(message_id, AdvanceOutcome(acked=0, failed=1))])
        assert cursor(hook) == before
        await stream.advance([AdvanceItem(message_id, AdvanceOutcome(acked=1, failed=0))])
        assert cursor(hook) == message_id
        await stream.aclose()

    run(scenario())


def test_two_triggerers_do_not_announce_the_same_sms(hook: Any, order: Any) -> None:
    async def scenario() -> list[int]:
        first = await start(hook)
        second = Triggerer(SmsVerifyMessageTrigger())
        for number in range(5):
            called(hook, order, number)
            await until(lambda number=number: len(first.announced()) > number)
            first.confirm()
        assert not second.events
        await first.end()
        called(hook, order, 5)
        await until(second.events.__len__)
        await second.end()
        return first.announced() + second.announced()

    announced = run(scenario())
    assert len(announced) == len(set(announced)) == 6


async def announced_of_an_sms(
    hook: Any, order: Any, sim: Simulator, *, before: Callable[[], object] = lambda: None
) -> list[int]:
    """What a trigger announces after one SMS, and after what is done once it has started."""
    triggerer = await start(hook, order_id=order.order_id)
    await asyncio.to_thread(before)
    await asyncio.to_thread(sim.deliver_sms, order.order_id, otp="471100")
    await until(triggerer.announced)
    await triggerer.end()
    return triggerer.announced()


def test_without_callbacks_it_asks_the_service(hook: Any, order: Any, sim: Simulator) -> None:
    (message_id,) = run(announced_of_an_sms(hook, order, sim))
    assert hook.get_message(message_id).otp == "471100"


def test_it_reads_on_with_the_key_that_the_connection_has_by_now(
    connection: dict[str, Any], sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify._waiting.pace.REFUSED_PAUSE", 0.0)

    def connect(key: str) -> None:
        changed = connection | {"password": key, "extra": connection["extra"] | {"account": "wallet"}}
        monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(changed))

    connect(sim.api_key)
    hook = SmsVerifyHook()
    order = hook.order("rent-1day", service="Tinder")

    def rotate() -> None:
        connect("rotated-key-1")
        sim.configure(api_key="rotated-key-1")

    (message_id,) = run(announced_of_an_sms(hook, order, sim, before=rotate))
    assert hook.get_message(message_id).otp == "471100"


def test_each_outage_of_the_store_is_logged_once_where_no_sms_comes_between(
    hook: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outages = TwoOutages(monkeypatch)

    class Over(Exception):
        """The end of the test."""

    def start(*_args: Any) -> None:
        outages.strike()
        raise Over

    monkeypatch.setattr(MessageStream, "_start", start)
    with pytest.raises(Over):
        run(anext(MessageStream(None, "smsverify_default").open_stream()))
    assert caplog.text.count("cannot be announced now") == 2


def test_where_airflow_confirms_nothing_what_it_has_taken_counts(hook: Any, order: Any) -> None:
    async def scenario() -> list[Any]:
        trigger = SmsVerifyMessageTrigger()
        events = trigger.run()
        first = asyncio.create_task(anext(events))  # type: ignore[arg-type]
        await until(lambda: holders(hook))
        called(hook, order, 1)
        payload = (await first).payload
        called(hook, order, 2)
        return [payload, (await anext(events)).payload]

    first, second = run(scenario())
    assert len(first["messages"]) == len(second["messages"]) == 1
    assert first != second


def test_a_store_that_cannot_be_used_is_logged_once_and_tried_again(
    hook: Any, order: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good = triggers.MessageStream._start
    tries = 0

    def broken(stream: Any, hook: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries < 5:
            raise triggers.StoreError("the store is not there")
        return good(stream, hook)

    monkeypatch.setattr(triggers.MessageStream, "_start", broken)

    async def scenario() -> None:
        triggerer = await start(hook)
        called(hook, order, 1)
        await until(triggerer.announced)
        await triggerer.end()

    run(scenario())
    assert caplog.text.count("the store is not there") == 1


def test_a_hook_on_another_connection_than_the_watcher_reads_nothing_and_says_so(
    hook: Any, order: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    called(hook, order, 471_100)
    ((message_id, _),) = rooms_of(hook).inbox.since(0)
    context = {"ti": SimpleNamespace(dag_id="dag", run_id="run")}
    monkeypatch.setattr("smsverify_provider.hooks.smsverify.get_current_context", lambda: context)

    def read(conn_id: str) -> list[Any]:
        payload = {"smsverify_conn_id": conn_id, "messages": [{"message_id": message_id}]}
        return hook.messages_of({"sms": [SimpleNamespace(extra={"payload": payload})]})

    assert hook.messages_of({"other": [SimpleNamespace(extra={"payload": "none of ours"})]}) == []
    assert not caplog.records
    assert read("wallet_2") == []
    assert "the connection 'wallet_2', and this hook has 'smsverify_default'" in caplog.text
    assert [message.otp for message in read("smsverify_default")] == ["471100"]


def test_equal_watchers_are_one_trigger_and_hold_nothing_secret() -> None:
    one = SmsVerifyMessageTrigger(order_id=["9", 8, 9])
    other = SmsVerifyMessageTrigger(order_id=[8, 9])
    assert one.serialize() == other.serialize()
    assert BaseEventTrigger.hash(*one.serialize()) == BaseEventTrigger.hash(*other.serialize())
    assert set(one.serialize()[1]) == {"order_id", "smsverify_conn_id"}
    with pytest.raises(InvalidRequestError):
        SmsVerifyMessageTrigger(order_id="first")
    Asset("sms", watchers=[AssetWatcher(name="watcher", trigger=one)])


def test_a_message_that_is_not_there_is_not_found(hook: Any) -> None:
    with pytest.raises(NotFoundError):
        hook.get_message(1)
