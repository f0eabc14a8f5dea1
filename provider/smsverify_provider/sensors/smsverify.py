"""Sensors: one waits for the code of an order, one until the wallet holds enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from smsverify.checks import (
    LATER,
    check_after,
    check_order_id,
    check_price_limit,
    check_seconds,
    check_switch,
)
from smsverify.errors import (
    AuthenticationError,
    NotFoundError,
    OrderEndedError,
    ServiceError,
    SmsVerifyError,
    StoreError,
)
from smsverify.models import Message
from smsverify.text import amount
from smsverify.wings import NO_CODE, claim, log_wait, missing_code
from smsverify_provider.arguments import (
    CheckedOperator,
    check_known,
    check_text_pattern,
    check_text_sender,
    order_id_in,
)
from smsverify_provider.deferring import brought, defer, outlasting_outages, plan_giving_back, waiter_of
from smsverify_provider.kills import give_back, within_kill_budget
from smsverify_provider.links import SmsVerifyOrderLink
from smsverify_provider.results import without_frames
from smsverify_provider.versions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferralError,
    conf,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from smsverify.options import MessageOptions
    from smsverify_provider.hooks.smsverify import SmsVerifyHook

# Seconds after the end of a wait at which a number is given back whose trigger has never started.
START = 60.0
# Airflow itself ends the deferral this many seconds after the trigger's deadline. That happens only where no
# triggerer runs: the trigger can still cancel the order, and Airflow's own end cannot.
BACKSTOP = 900.0


class SmsVerifyOtpSensor(CheckedOperator, BaseSensorOperator):
    """Waits for the SMS of an order and returns its code.

    Prefer `deferrable=True`: the sensor then holds no worker while it waits, and many sensors cost no more
    requests than one. Otherwise it reads the order's status (`GET /api/v1/order/<order_id>/status/`) once in
    `poke_interval`. Errors that may pass never end the wait.

    With `mode="reschedule"`, nothing runs between two looks. A task that is marked then, or whose Dag run is
    ended then, gives no number back. Prefer `deferrable=True`, or add a `SmsVerifyCancelOrderOperator` as
    teardown.

    Returns a dict (`order_id`, `otp`, `message`, `sender`, `phone`, `received_at`). `otp` and `received_at`
    are XComs of their own too, so that `sensor.output["otp"]` works; with `multiple_outputs=True`, each field
    is. `otp` is `None` if no code can be read in the text with certainty. Code and text are masked in the
    task's log as far as Airflow masks: by default nothing below five characters.

    Args:
        order_id: the order: its id, or the whole result of the task that ordered it (templated).
        timeout: seconds to wait, or a `timedelta` (templated).
        cancel_on_timeout: cancels the order for a refund if it has not ended at the time-out, or when
            the wait fails and no further try is to come. An order for which any SMS has come is kept, even
            if the wait was for another SMS.
        after: waits for an SMS that comes later than this: the `received_at` of an earlier one, or a time
            with a zone, as a datetime or in ISO 8601 (templated). Without it, a rental returns its last SMS
            again.
        sender: waits for an SMS from this name or number (templated). Only callbacks name the sender: a
            message that is known from the order's status alone never passes.
        pattern: waits for an SMS whose text matches this regular expression somewhere. Its first group, or
            the whole match if it has none, is the code (templated).
        cancel_on_kill: cancels the order if Airflow or a user ends the task while it waits. A task that
            will run again (it was cleared, has tries left, or its worker shuts down) keeps the order for its
            next try; if that never comes, the order is cancelled later.
        deferrable: waits in the triggerer. Default: the deployment's `[operators] default_deferrable`.
            Airflow applies `execution_timeout` to what runs on a worker, not to this wait: `timeout` ends it.
        poke_interval: seconds between two pokes of a sensor that is not deferrable.
        smsverify_conn_id: the connection (templated).

    Raises:
        AirflowSensorTimeout: nothing came in time; with `soft_fail` the task is skipped. Airflow does not
            retry it, and should not: the number is gone.
        AirflowFailException: waiting makes no sense: the order has ended or does not exist, or the key is
            refused.
    """

    template_fields: Sequence[str] = (
        "order_id",
        "timeout",
        "after",
        "sender",
        "pattern",
        "smsverify_conn_id",
    )
    checked = ("order_id", "timeout", "after", "sender", "pattern")
    outputs = ("otp", "received_at")
    ui_color = "#dbe6f6"
    operator_extra_links = (SmsVerifyOrderLink(),)

    _backstop = BACKSTOP
    _hook: SmsVerifyHook | None = None
    _waiter: str | None = None
    _ti: Any = None
    _is_killed = False
    _trouble = ""

    def __init__(
        self,
        *,
        order_id: int | str,
        timeout: float | timedelta | str = 600,
        cancel_on_timeout: bool = True,
        after: Message | datetime | str | None = None,
        sender: str | None = None,
        pattern: str | None = None,
        cancel_on_kill: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: float | timedelta = 15,
        smsverify_conn_id: str = "smsverify_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.order_id = order_id
        self.after = after
        self.sender = sender
        self.pattern = pattern
        self.timeout: Any = timeout
        self.cancel_on_timeout = check_switch(cancel_on_timeout, "cancel_on_timeout")
        self.cancel_on_kill = check_switch(cancel_on_kill, "cancel_on_kill")
        self.deferrable = check_switch(deferrable, "deferrable")
        self.smsverify_conn_id = smsverify_conn_id
        self._check_arguments()
        if ("timeout",) not in self._later:
            self.timeout = check_seconds(timeout, "timeout")

    def _check(self, given: Mapping[str, Any]) -> None:
        if given.get("order_id") is not LATER:
            check_order_id(order_id_in(given.get("order_id")))
        check_known(given.get("timeout"), partial(check_seconds, field="timeout"))
        check_known(given.get("after"), check_after)
        check_known(given.get("sender"), check_text_sender)
        check_known(given.get("pattern"), check_text_pattern)

    def execute(self, context: Context) -> Any:
        """Waits, or defers to the trigger."""
        order_id = self.order_id = check_order_id(order_id_in(self.order_id))
        self._ti = context.get("ti")
        hook = self._hook = self._make_hook()
        try:
            self._check(self._arguments())
            self.timeout = check_seconds(self.timeout, "timeout")
            return self._wait(context, hook, order_id)
        except AirflowRescheduleException:
            raise
        except (AirflowSensorTimeout, AirflowSkipException) as end:
            raise without_frames(end) from None
        except AirflowFailException as end:
            if not isinstance(end.__cause__, OrderEndedError):
                self._give_back_after(end)
            raise without_frames(end) from None
        except Exception as error:
            self._give_back_after(error)
            raise

    def _wait(self, context: Context, hook: SmsVerifyHook, order_id: int) -> Any:
        # With `reschedule`, the wait has begun long ago, and an outage of the store does not end it.
        if self.deferrable or not self.reschedule or not context.get("task_reschedule_count"):
            waiter = self._claim(hook)
            message = self._look(hook, ask=False)
            if message is not None:
                return self._returned(context, message.as_dict())
            if self.deferrable:
                self._defer(hook, order_id, waiter)
            log_wait(hook, order_id, self.timeout)
        try:
            return self._returned(context, super().execute(context))
        except (AirflowSensorTimeout, AirflowSkipException) as end:
            message = outlasting_outages(partial(self._end, hook, order_id, end))
            return self._returned(context, message.as_dict())

    def _claim(self, hook: SmsVerifyHook) -> str:
        """Claims the order, if this process has not done so. Returns who waits for it."""
        if self._waiter is None:
            waiter = waiter_of(hook, self._ti)
            claim(hook, check_order_id(self.order_id), waiter)
            self._waiter = waiter
        return self._waiter

    def _defer(self, hook: SmsVerifyHook, order_id: int, waiter: str) -> NoReturn:
        if self.cancel_on_timeout:
            plan_giving_back(hook, order_id, waiter=waiter, patience=self.timeout + START)
        defer(
            self,
            hook,
            order_id,
            waiter=waiter,
            seconds=self.timeout,
            backstop=self._backstop,
            cancel_on_timeout=self.cancel_on_timeout,
            cancel_on_kill=self.cancel_on_kill,
            after=self.after,
            sender=self.sender,
            pattern=self.pattern,
            smsverify_conn_id=self.smsverify_conn_id,
        )

    def _end(
        self, hook: SmsVerifyHook, order_id: int, end: AirflowSensorTimeout | AirflowSkipException
    ) -> Message:
        """Gives the number back at the end of the wait, unless its code has come at the last moment."""
        is_timeout = end.__cause__ is None  # otherwise a failure that `soft_fail` makes a skip
        waiter = self._waiter or waiter_of(hook, self._ti)
        is_cancelled = self.cancel_on_timeout and hook.release(order_id, NO_CODE, waiter=waiter)
        # The status is read before the cancellation: it may have shown the code at the last moment.
        message = self._look(hook, ask=False)
        if message is not None:
            return message
        if is_timeout:
            text = missing_code(hook, order_id, is_cancelled=is_cancelled, **self._wanted())
            end = type(end)(text)
        raise end from None

    def poke(self, context: Context) -> PokeReturnValue:
        """Looks once for the SMS."""
        hook = self._hook or self._make_hook()
        try:
            self._claim(hook)
            message = self._look(hook)
        except (AuthenticationError, NotFoundError, OrderEndedError) as error:
            raise AirflowFailException(str(error)) from error
        except (ServiceError, StoreError) as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self.log.warning(
                    "The status of order %s cannot be read; the wait goes on: %s", self.order_id, error
                )
            return PokeReturnValue(False)
        self._trouble = ""
        if message is None and self._is_killed:
            # Airflow lets a killed task run on for a while. This moves its planned release on, so that no
            # process carries it out meanwhile.
            self._give_back()
        return PokeReturnValue(message is not None, message.as_dict() if message else None)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Takes the message out of the inbox, or raises the error that says how the wait ended."""
        if event["outcome"] == "timeout":
            raise AirflowSensorTimeout(event["detail"])
        if event["outcome"] == "ended":
            raise AirflowFailException(event["detail"])
        self._ti = context.get("ti")
        # The templates have been rendered anew, and this order was waited for.
        self.order_id = event["order_id"]
        try:
            if event["outcome"] == "failed":
                raise SmsVerifyError(event["detail"])
            if event["outcome"] != "arrived":
                raise AirflowFailException(event["detail"])
            self._check(self._arguments())
            message = outlasting_outages(partial(self._look, self._make_hook()))
            message = brought(message, self.order_id)
            return self._returned(context, message.as_dict())
        except Exception as error:
            self._give_back_after(error)
            raise

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Releases the order when Airflow has ended the wait."""
        self.order_id = order_id_in(self.order_id)
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (AirflowSensorTimeout, AirflowSkipException) as end:
            if next_method != "execute_complete" and self.cancel_on_timeout:
                self._release_unserved(context)
            raise without_frames(end) from None
        except AirflowFailException as end:
            raise without_frames(end) from None
        except TaskDeferralError:
            if self.cancel_on_timeout:  # the trigger's claim has taken the release for that off the record
                self._ti = context.get("ti")
                self._give_back("the trigger that waited for its code has failed")
            raise

    def _release_unserved(self, context: Context) -> None:
        from smsverify.numbers import errors_logged

        hook, order_id = self._make_hook(), check_order_id(self.order_id)
        with errors_logged(order_id):
            waiter = f"{waiter_of(hook, context.get('ti'))}/"
            hook.release(order_id, "no triggerer has waited for its code", waiter=waiter)

    def on_kill(self) -> None:
        """Gives the number back, unless another call waits for it by now, or this task will run again."""
        if self.cancel_on_kill and self._hook is not None:
            self._is_killed = True
            within_kill_budget(self._give_back)

    def _give_back_after(self, error: Exception) -> None:
        """Gives the number back after a failure, or keeps it for the next try of the task."""
        if self.cancel_on_timeout:
            is_last = isinstance(error, AirflowFailException)
            self._give_back("the wait for its code has failed", is_last=is_last)

    def _give_back(self, reason: str = "the task that waited was killed", *, is_last: bool = False) -> None:
        from smsverify.numbers import errors_logged

        hook, order_id = self._hook or self._make_hook(), check_order_id(self.order_id)
        with errors_logged(order_id):
            # After a deferral, its trigger has the order.
            waiter = self._waiter or f"{waiter_of(hook, self._ti)}/"
            tries_left = False if is_last else None
            give_back(hook, order_id, ti=self._ti, waiter=waiter, tries_left=tries_left, reason=reason)

    def _look(self, hook: SmsVerifyHook, *, ask: bool = True) -> Message | None:
        return hook.check_otp(self.order_id, ask=ask, **self._wanted())

    def _wanted(self) -> MessageOptions:
        return {"after": self.after, "sender": self.sender, "pattern": self.pattern}

    def _make_hook(self) -> SmsVerifyHook:
        from smsverify_provider.hooks.smsverify import SmsVerifyHook

        return SmsVerifyHook(self.smsverify_conn_id)


class SmsVerifyBalanceSensor(CheckedOperator, BaseSensorOperator):
    """Waits until the wallet holds enough (`GET /api/v1/balance/`), once in `poke_interval`.

    Before tasks that spend money, it waits for a top-up. With `timeout=0` it looks once and fails if the
    wallet does not hold enough, so that the Dag's alerts reach a person. Errors that may pass never end the
    wait before its time is over.

    Returns a dict (`amount`, `currency`); `amount` is an XCom of its own too.

    Args:
        minimum: USD, such as the `next_cost` of a `SmsVerifyRenewExpiringOperator` (templated).
        poke_interval: seconds between two looks, each of which costs a request.
        mode: `reschedule` holds no worker between two looks, `poke` does.
        smsverify_conn_id: the connection (templated).

    Raises:
        AirflowSensorTimeout: the wallet did not hold enough in time; with `soft_fail` the task is skipped.
        AirflowFailException: the service refuses the key.
        SmsVerifyError: the last look before the time-out failed, so nobody knows what the wallet holds. A
            further try of the task looks again.
    """

    template_fields: Sequence[str] = ("minimum", "smsverify_conn_id")
    checked = ("minimum",)
    outputs = ("amount",)
    ui_color = "#dbe6f6"

    _seen = ""
    _error: SmsVerifyError | None = None  # of the last look

    def __init__(
        self,
        *,
        minimum: Decimal | float | str,
        poke_interval: float | timedelta = 300,
        mode: str = "reschedule",
        smsverify_conn_id: str = "smsverify_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, mode=mode, **kwargs)
        self.minimum = minimum
        self.smsverify_conn_id = smsverify_conn_id
        self._check_arguments()

    def _check(self, given: Mapping[str, Any]) -> None:
        if given.get("minimum") is not LATER:
            check_price_limit(given.get("minimum"), "minimum")

    def execute(self, context: Context) -> dict[str, Any]:
        """Waits."""
        try:
            return self._returned(context, super().execute(context))
        except (AirflowSensorTimeout, AirflowSkipException) as end:
            if self._error is not None and isinstance(end, AirflowSensorTimeout):
                raise without_frames(self._error) from None  # Airflow retries no time-out
            is_timeout = end.__cause__ is None  # otherwise a failure that `soft_fail` makes a skip
            raise without_frames(type(end)(self._seen) if is_timeout and self._seen else end) from None
        except AirflowFailException as end:
            raise without_frames(end) from None

    def poke(self, context: Context) -> PokeReturnValue:
        """Looks once into the wallet."""
        from smsverify_provider.hooks.smsverify import SmsVerifyHook

        minimum = check_price_limit(self.minimum, "minimum")
        try:
            balance = SmsVerifyHook(self.smsverify_conn_id).get_balance()
        except AuthenticationError as error:
            raise AirflowFailException(str(error)) from None
        except (ServiceError, StoreError) as error:
            self._error = error
            if str(error) != self._seen:
                self._seen = str(error)
                self.log.warning("The balance cannot be read; the wait goes on: %s", error)
            return PokeReturnValue(False)
        seen = f"The wallet holds {amount(balance.amount)} USD, and {amount(minimum)} USD are needed"
        is_first = self._seen == "" and not context.get("task_reschedule_count")
        is_enough = balance.amount >= minimum
        if is_first or is_enough or self._seen not in ("", seen):
            self.log.info("%s", seen)
        self._seen, self._error = seen, None
        return PokeReturnValue(is_enough, balance.as_dict())
