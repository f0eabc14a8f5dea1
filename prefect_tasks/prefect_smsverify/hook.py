"""`SmsVerifyHook` inside of a flow run."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from prefect_smsverify.actions import check_action, check_result
from prefect_smsverify.runs import PrefectRun
from prefect_smsverify.stopping import current_stop
from prefect_smsverify.waiting import agive_back_unless_decided, give_back_unless_decided
from smsverify.hook import SmsVerifyHook
from smsverify.models import Message, Order
from smsverify.numbers import DEFAULT_TIMEOUT
from smsverify.verification import Verification
from smsverify.wings import signed_like

_Call = TypeVar("_Call", bound=Callable[..., Any])


def _stopped_with_the_run(core: _Call) -> _Call:
    """Lets a method of the core's end when the run goes down, unless it is given a `stop`."""

    @signed_like(core)
    def method(self: PrefectHook, *args: Any, stop: threading.Event | None = None, **options: Any) -> Any:
        return core(self, *args, stop=_or_that_of_the_run(stop), **options)

    return method


def _or_that_of_the_run(stop: threading.Event | None) -> threading.Event:
    # No rollback sets it: Prefect rolls back for a failed step too whose error the code around it catches.
    # An error that goes on ends a block or an attempt by itself.
    return current_stop(undone=False) if stop is None else stop


class PrefectHook(SmsVerifyHook):
    """The core's hook: a purchase without a key gets one from the run, and what lasts ends with the run.

    A step that fails in the transaction around a call ends nothing here, unless its error is raised on.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(run_context=PrefectRun(), **settings)

    order = _stopped_with_the_run(SmsVerifyHook.order)
    rented_number = _stopped_with_the_run(SmsVerifyHook.rented_number)
    attempts = _stopped_with_the_run(SmsVerifyHook.attempts)
    renew = _stopped_with_the_run(SmsVerifyHook.renew)
    renew_expiring = _stopped_with_the_run(SmsVerifyHook.renew_expiring)
    reconcile = _stopped_with_the_run(SmsVerifyHook.reconcile)
    prune_store = _stopped_with_the_run(SmsVerifyHook.prune_store)

    @signed_like(SmsVerifyHook.verify)
    def verify(self, action: Callable[[Order], Any], product: str, **options: Any) -> Verification:
        check_action(action)
        return super().verify(lambda order: check_result(action(order)), product, **options)

    # A time limit, the end of a run or a failure ends a wait, and its number must not be left behind.

    @signed_like(SmsVerifyHook.wait_for_otp)
    def wait_for_otp(
        self,
        order_id: int | str,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        cancel_on_timeout: bool = True,
        waiter: str | None = None,
        stop: threading.Event | None = None,
        **options: Any,
    ) -> Message:
        waiter, stop = waiter or uuid.uuid4().hex, _or_that_of_the_run(stop)
        options |= {"cancel_on_timeout": cancel_on_timeout, "waiter": waiter, "stop": stop}
        try:
            return super().wait_for_otp(order_id, timeout, **options)
        except BaseException as error:
            if cancel_on_timeout:
                give_back_unless_decided(self, order_id, waiter, error)
            raise

    @signed_like(SmsVerifyHook.await_otp)
    async def await_otp(
        self,
        order_id: int | str,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        cancel_on_timeout: bool = True,
        waiter: str | None = None,
        stop: threading.Event | None = None,
        **options: Any,
    ) -> Message:
        waiter, stop = waiter or uuid.uuid4().hex, _or_that_of_the_run(stop)
        options |= {"cancel_on_timeout": cancel_on_timeout, "waiter": waiter, "stop": stop}
        try:
            return await super().await_otp(order_id, timeout, **options)
        except BaseException as error:
            if cancel_on_timeout:
                await agive_back_unless_decided(self, order_id, waiter, error)
            raise
