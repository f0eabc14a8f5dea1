"""The sensor that waits for the code of an order."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseSensorOperator, PokeReturnValue, conf
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout, AirflowSkipException
from airflow.sdk.log import mask_secret

from smsverify.errors import (
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    OrderEndedError,
    ServiceError,
    StoreError,
)
from smsverify.models import LATER, check_order_id
from smsverify_provider.common import known, within_kill_budget

if TYPE_CHECKING:
    from airflow.sdk import Context

    from smsverify.models import Message
    from smsverify_provider.hooks.smsverify import SmsVerifyHook

# A worker's supervisor notices only every five seconds that its task has deferred. If the task is resumed
# before that, the scheduler takes the old run's late end for the failure of the new one, and the event is
# lost. So no event comes earlier than this many seconds after the deferral.
RESUME_GAP = 8.0
# Airflow itself ends the deferral this many seconds after the trigger should have. That happens only where no
# triggerer runs: the trigger's own deadline is the one that can still cancel the order.
BACKSTOP = 900.0


class SmsVerifyOtpSensor(BaseSensorOperator):
    """Waits for the SMS of an order and returns its code.

    Deferrable it holds no worker while it waits, and many sensors cost no more requests than one: prefer
    that. Otherwise it looks at the order (`GET /api/v1/order/<order_id>/status/`) once in `poke_interval`.
    Errors that may pass never end the wait.

    Returns a dict (`order_id`, `otp`, `message`, `sender`, `phone`, `received_at`), and each field as an XCom
    of its own, so that `sensor.output["otp"]` works. `otp` is `None` where no code can be read in the text
    with certainty. Code and text are masked in the task's log as far as Airflow masks: by default nothing
    below five characters.

    Args:
        order_id: the order (templated).
        timeout: seconds to wait, or a `timedelta` (templated).
        cancel_on_timeout: whether an order that is still pending then is cancelled for a refund.
        cancel_on_kill: whether it is when a user marks or clears the task while it waits. If a cleared task
            starts again, it keeps the order.
        deferrable: waits in the triggerer. Default: the deployment's `[operators] default_deferrable`.
        poke_interval: seconds between two looks where it is not deferrable.
        smsverify_conn_id: the connection (templated).

    Raises:
        AirflowSensorTimeout: nothing came in time; with `soft_fail` the task is skipped. Airflow does not
            retry it, and should not: the number is gone.
        AirflowFailException: waiting makes no sense: the order has ended or does not exist, or the key is
            refused.
    """

    template_fields: Sequence[str] = ("order_id", "timeout", "smsverify_conn_id")
    ui_color = "#dbe6f6"

    _hook: SmsVerifyHook | None = None
    _waiter: str | None = None

    def __init__(
        self,
        *,
        order_id: int | str,
        timeout: float | timedelta | str = 600,
        cancel_on_timeout: bool = True,
        cancel_on_kill: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: float | timedelta = 15,
        smsverify_conn_id: str = "smsverify_default",
        multiple_outputs: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, multiple_outputs=multiple_outputs, **kwargs)
        self.order_id = order_id
        self.timeout: Any = timeout if known(timeout) is LATER else _seconds(timeout)
        self.cancel_on_timeout = cancel_on_timeout
        self.cancel_on_kill = cancel_on_kill
        self.deferrable = deferrable
        self.smsverify_conn_id = smsverify_conn_id
        if known(order_id) is not LATER:
            check_order_id(order_id)

    def execute(self, context: Context) -> Any:
        """Waits, or defers to the trigger."""
        order_id = check_order_id(self.order_id)
        self.timeout = _seconds(self.timeout)
        waiter = self._waiter = uuid.uuid4().hex
        hook = self._hook = self._make_hook()
        hook.claim(order_id, waiter)
        message = hook.check_otp(order_id, ask=False)
        if message is not None:
            return self._result(message)
        if self.deferrable:
            self._defer(order_id, waiter)
        try:
            return super().execute(context)
        except (AirflowSensorTimeout, AirflowSkipException):
            if self.cancel_on_timeout:
                hook.release(order_id, "no code came in time", waiter=waiter)
            # The look before the cancellation may have found it at the last moment.
            message = hook.check_otp(order_id, ask=False)
            if message is None:
                raise
            return self._result(message)

    def poke(self, context: Context) -> PokeReturnValue:
        """Looks once for the SMS."""
        hook = self._hook or self._make_hook()
        try:
            message = hook.check_otp(self.order_id)
        except (AuthenticationError, NotFoundError, OrderEndedError) as error:
            raise AirflowFailException(str(error)) from error
        except (ServiceError, StoreError) as error:
            self.log.warning("Order %s could not be looked at, waiting goes on: %s", self.order_id, error)
            message = None
        return PokeReturnValue(message is not None, self._result(message) if message else None)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Takes the message out of the inbox, or raises what else has ended the wait."""
        if event["outcome"] == "timeout":
            end = "it was cancelled" if event["cancelled"] else "it was not cancelled"
            raise AirflowSensorTimeout(f"{event['detail']}; {end}")
        if event["outcome"] != "arrived":
            raise AirflowFailException(event["detail"])
        message = self._make_hook().check_otp(event["order_id"])
        if message is None:
            raise StoreError(
                f"the code of order {event['order_id']} has come, but this worker does not see it: triggerer "
                "and workers need the same store_url"
            )
        return self._result(message)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Gives the order back where it was Airflow that ended the wait."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (AirflowSensorTimeout, AirflowSkipException):
            if next_method != "execute_complete" and self.cancel_on_timeout:
                self._make_hook().release(self.order_id, "no triggerer has waited for its code")
            raise

    def on_kill(self) -> None:
        """Gives the number back, unless somebody else waits for it by now."""
        hook = self._hook
        if self.cancel_on_kill and hook is not None:
            reason = "the task that waited was killed"
            within_kill_budget(lambda: hook.release(self.order_id, reason, waiter=self._waiter))

    def _defer(self, order_id: int, waiter: str) -> NoReturn:
        from smsverify_provider.triggers.smsverify import SmsVerifyOtpTrigger

        now = time.time()
        self.defer(
            trigger=SmsVerifyOtpTrigger(
                order_id=order_id,
                deadline=now + self.timeout,
                not_before=now + RESUME_GAP,
                waiter=waiter,
                cancel_on_timeout=self.cancel_on_timeout,
                cancel_on_kill=self.cancel_on_kill,
                smsverify_conn_id=self.smsverify_conn_id,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout + BACKSTOP),
        )

    def _result(self, message: Message) -> dict[str, Any]:
        """What goes into the XComs; the task's log is to mask it."""
        mask_secret(message.otp)
        mask_secret(message.message)
        return message.as_dict()

    def _make_hook(self) -> SmsVerifyHook:
        from smsverify_provider.hooks.smsverify import SmsVerifyHook

        return SmsVerifyHook(self.smsverify_conn_id)


def _seconds(timeout: Any) -> float:
    """A time-out as given or rendered."""
    try:
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InvalidRequestError(
            f"timeout {timeout!r} is malformed: it must be seconds, zero or more, or a timedelta",
            field="timeout",
        )
    return seconds
