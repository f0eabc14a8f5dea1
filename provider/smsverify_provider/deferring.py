"""A task that waits for a code in the triggerer: how it gets there, and what it finds when it comes back."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from smsverify.checks import check_after, check_sender
from smsverify.errors import StoreError
from smsverify.text import log_of
from smsverify.wings import plan_release, store_name, store_time
from smsverify_provider.resuming import RESUME_GAP, longest_deferral

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

    from smsverify.models import Message
    from smsverify_provider.hooks.smsverify import SmsVerifyHook

log = log_of(__name__)

_Result = TypeVar("_Result")

STORE_PATIENCE = 60.0  # seconds; a database that restarts or fails over takes about that long
STORE_PAUSE = 2.0  # seconds until a store that could not be used is tried again


def waiter_of(hook: SmsVerifyHook, ti: Any) -> str:
    """Names the wait of a try and its store: a triggerer with another store cannot see its order.

    A try that comes back from its deferral has the same name, and its triggers have names that begin with it
    and a /.

    Args:
        hook: on the store.
        ti: the task instance, which has an id of its own for each try; `None` outside of a task.
    """
    return f"{uuid.uuid4().hex if ti is None else ti.id}@{store_name(hook)}"


def plan_giving_back(hook: SmsVerifyHook, order_id: int, *, waiter: str, patience: float) -> None:
    """Plans to give a number back whose trigger never starts.

    Airflow calls nothing when it ends a task before its trigger has started. The trigger's claim takes this
    off the record.

    Args:
        hook: on the order's account.
        order_id: the order.
        waiter: who waits for its code.
        patience: seconds until the wait would have ended.
    """
    reason = "its task was ended before its wait began"
    plan_release(hook, order_id, reason, waiter=waiter, patience=patience)


def defer(
    operator: BaseOperator,
    hook: SmsVerifyHook,
    order_id: int,
    *,
    waiter: str,
    seconds: float,
    backstop: float,
    cancel_on_timeout: bool = True,
    cancel_on_kill: bool = True,
    after: Message | datetime | str | None = None,
    sender: str | None,
    pattern: str | None,
    passed_on: dict[str, str] | None = None,
    smsverify_conn_id: str,
) -> NoReturn:
    """Defers a task until the code of an order comes or its wait ends; then `execute_complete` is called.

    Args:
        operator: of the task.
        hook: on the order's account.
        order_id, waiter, cancel_on_timeout, cancel_on_kill, sender, pattern, passed_on, smsverify_conn_id: as
            the trigger takes them.
        seconds: how long the trigger waits.
        backstop: how many seconds after that Airflow itself ends the deferral.
        after: waits for an SMS that comes later than this.
    """
    from smsverify_provider.triggers.smsverify import SmsVerifyOtpTrigger

    now = store_time(hook)
    operator.defer(
        trigger=SmsVerifyOtpTrigger(
            order_id=order_id,
            deadline=now + seconds,
            not_before=now + RESUME_GAP,
            waiter=waiter,
            cancel_on_timeout=cancel_on_timeout,
            cancel_on_kill=cancel_on_kill,
            after=None if after is None else check_after(after).isoformat(),
            sender=None if sender is None else check_sender(sender),
            pattern=pattern,
            passed_on=passed_on,
            smsverify_conn_id=smsverify_conn_id,
        ),
        method_name="execute_complete",
        timeout=longest_deferral(seconds + backstop),
    )


def brought(message: Message | None, order_id: int | str) -> Message:
    """The SMS whose coming an event says, as this worker sees it. Raises `StoreError` where it does not."""
    if message is None:
        raise StoreError(
            f"the code of order {order_id} has come, but this worker cannot see it. Give the triggerer and "
            "the workers the same store_url"
        )
    return message


def outlasting_outages(work: Callable[[], _Result]) -> _Result:
    """Does some work at the end of a wait, and does it again while the store cannot be used.

    Args:
        work: may be done again from its beginning.

    Raises:
        StoreError: the store cannot be used for a minute.
    """
    from smsverify.wings import Outages

    end, outages = time.monotonic() + STORE_PATIENCE, Outages()
    while True:
        try:
            return work()
        except StoreError as error:
            if time.monotonic() > end:
                raise
            if outages.begin_with(error):
                log.warning("The wait is over, and the store is tried again for a minute: %s", error)
            time.sleep(STORE_PAUSE)
