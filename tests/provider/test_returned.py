"""What the function of a task for a verified account returns, on its way through the wait for the code."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
import pytest
from airflow.models.trigger import Trigger
from pydantic import BaseModel
from trigger_runs import event_of
from verify_runs import resume, verifying

from smsverify.errors import InvalidRequestError
from smsverify.simulator import Simulator
from smsverify_provider.results import decoded, encoded
from smsverify_provider.triggers.smsverify import SmsVerifyOtpTrigger
from smsverify_provider.versions import deserialize, serialize

pytestmark = [pytest.mark.slow, pytest.mark.smsverify_simulator(sms_delay="never")]
BOTH = pytest.mark.parametrize("deferrable", [True, False])


@dataclass
class Account:
    name: str


class Profile(BaseModel):
    name: str


def itself() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


def brought_back(run_task: Any, sim: Simulator, returned: Any, *, deferrable: bool) -> Any:
    """The function's result, after its trigger has been a row of Airflow's database."""

    def sign_up(number: dict[str, Any]) -> Any:
        sim.deliver_sms(number["order_id"], otp="545121")
        return returned

    wait = verifying(sign_up, deferrable=deferrable)
    result = run_task(wait)
    if not deferrable:
        return deserialize(result.xcoms["result"])
    row = json.dumps(result.msg.model_dump(mode="json")["trigger_kwargs"])
    trigger = SmsVerifyOtpTrigger(**Trigger._decrypt_kwargs(row))
    event = asyncio.run(event_of(trigger))
    wait.do_xcom_push = False
    return resume(wait, trigger, json.loads(json.dumps(event)))["result"]


@BOTH
@pytest.mark.parametrize(
    "returned",
    [
        {"at": datetime(2026, 12, 1, tzinfo=timezone.utc), "price": Decimal("1.50"), "pair": (1, [2, None])},
        {"days": {1, 2}, "rate": float("inf"), "id": 2**64 - 1, "__type": "account", "text": "\0 \u20ac"},
        None,
    ],
)
def test_what_the_function_returns_is_the_same_deferred_and_on_a_worker(
    run_task: Any, connection: Any, sim: Simulator, returned: Any, deferrable: bool
) -> None:
    back = brought_back(run_task, sim, returned, deferrable=deferrable)
    assert back == returned
    assert repr(back) == repr(decoded(encoded(returned, "python_callable")))


OFFSET = timezone(timedelta(hours=2))
AT = datetime(2026, 12, 1, 10, tzinfo=OFFSET)


@BOTH
@pytest.mark.parametrize(
    "returned",
    [AT, {"user": {"created": AT}}, [AT, (1, {AT})], AT.replace(tzinfo=timezone.utc).astimezone()],
    ids=["alone", "in a dict", "in a list", "of this machine"],
)
def test_a_time_with_a_fixed_offset_comes_back_as_the_same_moment(
    run_task: Any, connection: Any, sim: Simulator, returned: Any, deferrable: bool
) -> None:
    assert brought_back(run_task, sim, returned, deferrable=deferrable) == returned


@pytest.mark.parametrize("zone", [ZoneInfo("Europe/Berlin"), pendulum.timezone("Asia/Tokyo"), None])
def test_a_time_keeps_a_zone_that_has_a_name(zone: Any) -> None:
    back = decoded(encoded({"at": AT.replace(tzinfo=zone)}, "python_callable"))["at"]
    assert back == AT.replace(tzinfo=zone)
    assert getattr(back.tzinfo, "key", None) == getattr(zone, "key", None)


@BOTH
def test_an_object_of_a_class_that_airflow_may_import_comes_back(
    run_task: Any, connection: Any, sim: Simulator, deferrable: bool
) -> None:
    assert brought_back(run_task, sim, Account("ada"), deferrable=deferrable) == Account("ada")


@BOTH
@pytest.mark.parametrize(
    "returned",
    [
        Account("ada"),
        Profile(name="ada"),
        [Account("ada")],
        {"__type": "datetime", "__var": "soon"},
        {"__classname__": "builtins.tuple", "__version__": 1, "__data__": [1]},
        2**64,
        "half a character: \udc80",
        b"ada",
        object(),
        iter("ada"),
        itself(),
    ],
    ids=lambda returned: type(returned).__name__,
)
def test_what_no_xcom_can_be_is_refused_before_the_wait(
    run_task: Any,
    connection: Any,
    sim: Simulator,
    returned: Any,
    deferrable: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As in a deployment: the tests of Airflow let it import the classes of tests as well.
    monkeypatch.setattr(f"{serialize.__module__}._match", lambda name: name.startswith("airflow."))
    error = run_task(verifying(lambda _number: returned, deferrable=deferrable)).error
    assert isinstance(error, InvalidRequestError), error
    assert error.field == "python_callable"
    assert f"has returned a {type(returned).__name__} that cannot be an XCom" in str(error)
    assert "ada" not in str(error)
    assert [order.status for order in sim.orders()] == ["cancelled"]


def test_what_the_function_returns_is_in_no_log_of_the_triggerer(
    run_task: Any, connection: Any, sim: Simulator
) -> None:
    def sign_up(number: dict[str, Any]) -> str:
        return "hunter2"

    wait = verifying(sign_up, do_xcom_push=False)
    trigger = SmsVerifyOtpTrigger(**run_task(wait).msg.trigger_kwargs)
    sim.deliver_sms(trigger.order_id, otp="545121")

    async def fired() -> Any:
        return await anext(aiter(trigger.run()))

    event = asyncio.run(fired())
    assert "hunter2" not in f"{event!r} {event}"  # the triggerer logs each event
    assert resume(wait, trigger, event.payload)["result"] == "hunter2"
