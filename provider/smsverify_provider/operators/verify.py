"""One task for a verified account: it tries numbers until one has its code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from smsverify.checks import (
    LATER,
    OrderRequest,
    check_action,
    check_count,
    check_gets_sms,
    check_key,
    check_order_fields,
    check_result,
    check_seconds,
    check_switch,
)
from smsverify.errors import (
    InvalidRequestError,
    NotFoundError,
    SmsVerifyError,
    StoreError,
    WaitStoppedError,
)
from smsverify.wings import attempts_of, claim, is_taken_from
from smsverify_provider.arguments import (
    check_amounts,
    check_call,
    check_known,
    check_text_pattern,
    check_text_sender,
    is_known,
    known,
)
from smsverify_provider.deferring import brought, defer, outlasting_outages, plan_giving_back, waiter_of
from smsverify_provider.kills import give_back, within_kill_budget
from smsverify_provider.links import SmsVerifyOrderLink
from smsverify_provider.results import decoded, encoded, without_frames
from smsverify_provider.turns import WaitsForTurn
from smsverify_provider.versions import (
    AirflowFailException,
    TaskDeferralError,
    TaskDeferralTimeout,
    TaskDeferred,
    determine_kwargs,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from smsverify.models import Message, Order
    from smsverify.wings import Series
    from smsverify_provider.hooks.smsverify import SmsVerifyHook

PURCHASE = ("product", "service", "country", "area_code", "duration", "max_price")
LIMITS = ("max_cost", "run_budget")
START = 600.0  # seconds until a trigger has begun to wait
BACKSTOP = 600.0  # seconds that Airflow waits beyond the trigger's own deadline


class SmsVerifyOperator(WaitsForTurn):
    """Tries numbers until one receives a code. The class of `@task.smsverify`.

    It buys a number, calls the function with it (such as to type it into a form), and waits for the code.
    If none comes in `timeout`, the number is cancelled for a refund, and the next one is tried. A worker
    is held while it buys and while the function runs; the waits for the rate limit and for the code are in
    the triggerer. Safe to retry: a further try goes on with the same number while that lives, otherwise with
    the next.

    The function is called with the order as a dict (`order_id`, `phone`, `service`, …), then with `op_args`
    and `op_kwargs`; it may also name Airflow's context variables. What it returns has to fit into an
    XCom: anything else is refused before the wait, also with `deferrable=False`, `do_xcom_push=False` or an
    `xcom_backend` of your own. A time with a fixed offset comes back in UTC. If the function raises an
    error, or the wait fails other than by a time-out, the task fails, and gives the number back unless
    Airflow tries the task again. The triggerer does not log what the function returns.

    Returns a dict: `order_id`, `phone`, `otp`, `message`, `attempts` (how many numbers were tried), `cost`
    (USD that all of them cost, without refunds) and `result`, what the function has returned. `order_id`,
    `phone`, `otp` and `result` are XComs of their own too.

    Args:
        python_callable: the function; not a coroutine function, which nothing awaits here.
        op_args, op_kwargs: what it is called with besides (templated).
        product: `temporary`, `best-temp`, `rental`, `rent-1day`, `rent-30days` or `global` (templated).
        service, country, area_code, duration, max_price: as for `SmsVerifyOrderOperator` (templated).
        attempts: how many numbers may be tried (templated).
        timeout: seconds to wait for the code of each, or a `timedelta` (templated).
        alternatives: what is bought instead if a number is not available or too expensive: dicts of
            `product`, `service`, …, tried in their order; or `"best"`, as for `SmsVerifyHook.verify`
            (templated).
        max_cost: most that all attempts may cost together, in USD, without refunds (templated).
        sender, pattern: which SMS is wanted, as for `SmsVerifyOtpSensor` (templated).
        run_budget: most that this Dag run may spend, in USD (templated).
        key: names the purchases. Default: derived from the Dag, the run, the task and the map index
            (templated).
        deferrable: `False` waits on the worker, for deployments without a triggerer.
        smsverify_conn_id: the connection (templated).

    Raises:
        InvalidRequestError: an argument is wrong; `field` names it. Nothing was bought, or the number
            that was bought is given back.
        VerificationError: no number has its code; it lists the attempts. A further try tries new numbers.
        NotFoundError: the service does not know the order any more.
        AirflowFailException: waiting makes no sense: the service refuses the key in the triggerer, or that
            has another store, or the connection was changed to another account, namespace or store. The
            number is given back at once.
        SmsVerifyError: what else `SmsVerifyHook.verify` raises.
    """

    template_fields: Sequence[str] = (
        *PURCHASE,
        *LIMITS,
        "attempts",
        "timeout",
        "alternatives",
        "sender",
        "pattern",
        "key",
        "op_args",
        "op_kwargs",
        "smsverify_conn_id",
    )
    checked = (
        *PURCHASE,
        *LIMITS,
        "attempts",
        "timeout",
        "alternatives",
        "sender",
        "pattern",
        "key",
    )
    outputs = ("order_id", "phone", "otp", "result")
    shallow_copy_attrs: Sequence[str] = ("python_callable",)
    ui_color = "#d7ecd9"
    operator_extra_links = (SmsVerifyOrderLink(),)

    _hook: SmsVerifyHook
    _stop: threading.Event
    _order_id: int | None = None
    _waiter: str
    _ti: Any = None
    _is_killed = False

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        product: str,
        service: int | str | None = None,
        country: int | str | None = None,
        area_code: str | int | None = None,
        duration: int | str | None = None,
        max_price: Decimal | float | str | None = None,
        attempts: int | str = 3,
        timeout: float | timedelta | str = 120,
        alternatives: Sequence[Mapping[str, Any]] | str | None = (),
        max_cost: Decimal | float | str | None = None,
        sender: str | None = None,
        pattern: str | None = None,
        run_budget: Decimal | float | str | None = None,
        key: int | str | None = None,
        deferrable: bool = True,
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        smsverify_conn_id: str = "smsverify_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_action(python_callable, "python_callable")
        self.python_callable = python_callable
        self.product = product
        self.service = service
        self.country = country
        self.area_code = area_code
        self.duration = duration
        self.max_price = max_price
        self.attempts = attempts
        self.timeout = timeout
        self.alternatives = () if alternatives is None else alternatives
        self.max_cost = max_cost
        self.sender = sender
        self.pattern = pattern
        self.run_budget = run_budget
        self.key = key
        self.deferrable = check_switch(deferrable, "deferrable")
        self.op_args = op_args or ()
        self.op_kwargs = op_kwargs or {}
        self.smsverify_conn_id = smsverify_conn_id
        self._check_arguments()
        if LATER not in (known(self.op_args), known(self.op_kwargs)):
            check_call(python_callable, ({}, *self._given_args()), self.op_kwargs)

    def _check(self, given: Mapping[str, Any]) -> None:
        purchase = {"product": None} | {name: value for name, value in given.items() if name in PURCHASE}
        check_order_fields(**purchase)
        check_gets_sms(purchase["product"])
        check_amounts(given, LIMITS)
        if given["attempts"] is not LATER:
            check_count(given["attempts"], "attempts")
        if given["timeout"] is not LATER:
            check_seconds(given["timeout"], "timeout")
        check_known(given.get("sender"), check_text_sender)
        check_known(given.get("pattern"), check_text_pattern)
        check_known(given.get("key"), check_key)
        alternatives = given["alternatives"]
        if is_known([*purchase.values(), alternatives]):
            OrderRequest.check_all(**purchase, alternatives=alternatives)

    def execute(self, context: Context) -> dict[str, Any]:
        """Tries numbers until the task defers to wait for its turn or for a code, or has one."""
        self._begin(context)
        with self._attempts(self.key) as series:
            return self._try_numbers(series, context)

    def execute_at_turn(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Goes on with the number that it is the turn of."""
        self._begin(context)
        with self._attempts(event["key"]) as series:
            return self._try_numbers(series, context, event)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Takes the code, or tries the next number."""
        from smsverify.numbers import errors_logged

        self._open_after_wait(context)
        order_id = self._order_id = event["order_id"]
        try:
            self._check(self._arguments())
        except InvalidRequestError:
            # The templates have been rendered anew, and the number is bought.
            self._give_back("an argument of its task has become wrong since the purchase")
            raise
        with self._attempts(event["key"]) as series:
            if not series.has_bought(order_id):
                self._end_without_records(event)
            order, outcome = series.resume(order_id, event["holder"]), event["outcome"]
            if outcome in ("other_store", "refused"):
                if order is not None:  # after this error comes no further try that could use it
                    with errors_logged(order_id):
                        series.fail(order, "given_up", event["detail"])
                raise AirflowFailException(event["detail"])
            if order is not None and outcome in ("timeout", "ended"):
                series.fail(order, "no_code", event["reason"])
            elif order is not None:
                message: Message | None = None
                with self._attempt(series, order):
                    message = self._brought(event)
                    series.succeed(order, is_whole_task=True)
                if message is not None:
                    return self._verified(series, order, message, event["result"], context)
            return self._try_numbers(series, context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Gives the number back if no event comes: the trigger has failed, or none has run."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout):
            try:
                self._give_up(context)
            except StoreError as error:
                self.log.error(
                    "The number that was tried is not given back, because the store cannot be used: %s. The "
                    "next try of the task goes on with it; otherwise, the next reconciliation with "
                    "`cancel_after` gives it back",
                    error,
                )
            raise

    def _give_up(self, context: Context) -> None:
        self._open_after_wait(context)
        with self._attempts_so_far() as series:
            for order in map(series.resume, [one.order_id for one in series.tried() if one.order_id]):
                if order is not None and not self._is_taken(order.order_id):
                    series.give_up(order, "its trigger failed before the end of the wait")

    def on_kill(self) -> None:
        """Gives the number back that is tried, unless a further try is to come."""
        self._is_killed = True
        within_kill_budget(self._give_back)

    # -------------------------------------------------------------- one number after the other

    def _try_numbers(
        self, series: Series, context: Context, event: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        self._waiter = series.holder = waiter_of(self._hook, self._ti)
        while True:
            order = self._at_its_turn(
                self._hook,
                series.next_number,
                event,
                method_name="execute_at_turn",
                passed_on={"key": series.key},
            )
            event = None
            self._order_id = order.order_id
            if self._is_killed:
                self._give_back()  # `on_kill` came before the number
            message: Message | None = None
            with self._attempt(series, order):
                claim(self._hook, order.order_id, self._waiter)
                self._refuse_if_killed()
                result = encoded(self._call(order, context), "python_callable")
                self._refuse_if_killed()
                message = self._wait(order.order_id, series, result)
                series.succeed(order, is_whole_task=True)
            if message is not None:
                return self._verified(series, order, message, result, context)

    @contextmanager
    def _attempt(self, series: Series, order: Order) -> Iterator[None]:
        """Ends as an attempt of the hook: without a code the next number follows, other errors are raised."""
        from smsverify.numbers import Attempt, RentedNumber

        try:
            yield
        except TaskDeferred:
            raise
        except BaseException as error:
            # What becomes of the number of a killed task, Airflow's records decide: `on_kill` asks for them.
            if (
                self._is_killed
                or self._is_taken(order.order_id)
                or not Attempt(RentedNumber(self._hook, order), series).end(error)
            ):
                raise

    def _is_taken(self, order_id: int) -> bool:
        """Whether a later try of the task has the number by now: Airflow may take a slow one for dead."""
        try:
            return is_taken_from(self._hook, order_id, self._waiter)
        except StoreError:
            return False

    def _refuse_if_killed(self) -> None:
        if self._is_killed:
            raise WaitStoppedError(f"the task was killed while it tried order {self._order_id}")

    def _call(self, order: Order, context: Context) -> Any:
        args = (order.as_dict(), *self._given_args())
        kwargs = determine_kwargs(self.python_callable, args, {**context, **self.op_kwargs})
        return check_result(self.python_callable(*args, **kwargs), "python_callable")

    def _given_args(self) -> Collection[Any]:
        return self.op_args

    def _verified(
        self, series: Series, order: Order, message: Message, result: str, context: Context
    ) -> dict[str, Any]:
        """The result. If Airflow does not take it, the next try has the same number and code."""
        verification = outlasting_outages(lambda: series.verification(order, message, decoded(result)))
        return self._returned(context, verification.as_dict())

    def _wait(self, order_id: int, series: Series, result: str) -> Message:
        series.refuse_if_taken_over(order_id)
        if self.deferrable:
            return self._look(order_id, ask=False) or self._defer(order_id, series, result)
        return self._hook.wait_for_otp(
            order_id,
            check_seconds(self.timeout, "timeout"),
            sender=self.sender,
            pattern=self.pattern,
            stop=self._stop,
            waiter=self._waiter,
        )

    def _brought(self, event: Mapping[str, Any]) -> Message:
        """The SMS whose coming an event says."""
        if event["outcome"] == "not_found":
            raise without_frames(NotFoundError(event["detail"]))
        if event["outcome"] == "failed":
            raise without_frames(SmsVerifyError(event["detail"]))
        message = outlasting_outages(partial(self._look, event["order_id"]))
        return brought(message, event["order_id"])

    def _end_without_records(self, event: Mapping[str, Any]) -> NoReturn:
        """Gives back an order that was bought with what the connection held before. It buys no other one."""
        raise AirflowFailException(
            f"order {event['order_id']} was bought under another account, namespace or store: the connection "
            f"{self.smsverify_conn_id!r}, or its API key, was changed while this task waited, or the store "
            f"has gone back to an older state. {self._fate_without_records(event)}. No other number was "
            "bought. To go on with the order, change the connection back and clear the task. With an "
            "`account` in the connection, a new key changes nothing"
        )

    def _fate_without_records(self, event: Mapping[str, Any]) -> str:
        order_id = event["order_id"]
        if event.get("cancelled"):
            return "The order is cancelled already, because no code came in time"
        reason = "the connection of its task was changed while that waited"
        try:
            if self._hook.release(order_id, reason, waiter=self._waiter, undo=True):
                return "The order is cancelled"
            status = self._hook.get_status(order_id)
        except NotFoundError:
            return "The service does not know the order under the present key: cancel it with the old one"
        except SmsVerifyError as error:
            is_lost = isinstance(error, StoreError)  # the wish is not on record
            next_ = f"so do that with `smsverify cancel {order_id}`" if is_lost else "which is tried again"
            return f"The order is not cancelled yet, {next_} ({error})"
        if status.arrived or status.ended:
            return f"The order is not cancelled: it is {status.status}, or its code has come"
        return "The order is not cancelled yet, which is tried again"

    def _look(self, order_id: int, *, ask: bool = True) -> Message | None:
        return self._hook.check_otp(order_id, ask=ask, sender=self.sender, pattern=self.pattern)

    def _defer(self, order_id: int, series: Series, result: str) -> NoReturn:
        seconds = check_seconds(self.timeout, "timeout")
        plan_giving_back(self._hook, order_id, waiter=self._waiter, patience=seconds + START)
        series.let_go()
        defer(
            self,
            self._hook,
            order_id,
            waiter=self._waiter,
            seconds=seconds,
            backstop=BACKSTOP,
            sender=self.sender,
            pattern=self.pattern,
            passed_on={"key": series.key, "holder": series.holder, "result": result},
            smsverify_conn_id=self.smsverify_conn_id,
        )

    # -------------------------------------------------------------- the hook and the end

    def _begin(self, context: Context) -> None:
        self._open(context)
        self._check(self._arguments())

    def _open(self, context: Context) -> None:
        from smsverify_provider.hooks.smsverify import SmsVerifyHook

        self._stop, self._ti = threading.Event(), context.get("ti")
        if self._is_killed:
            self._stop.set()
        self._hook = SmsVerifyHook(self.smsverify_conn_id)

    def _open_after_wait(self, context: Context) -> None:
        self._open(context)
        # Its trigger has the order.
        self._waiter = outlasting_outages(lambda: f"{waiter_of(self._hook, self._ti)}/")

    def _attempts(self, key: int | str | None) -> Any:
        purchase = {name: getattr(self, name) for name in (*PURCHASE[1:], *LIMITS)}
        return attempts_of(
            self._hook,
            self.product,
            check_count(self.attempts, "attempts"),
            alternatives=self.alternatives,
            key=key,
            stop=self._stop,
            **{name: value for name, value in purchase.items() if value is not None},
        )

    def _attempts_so_far(self) -> Any:
        """Those of the task, whatever its arguments have become by now that say what to try next."""
        names = [name for name in PURCHASE if name != "max_price" and getattr(self, name) is not None]
        purchase = {name: getattr(self, name) for name in names}
        return attempts_of(self._hook, limit=1, key=self.key, stop=self._stop, **purchase)

    def _give_back(self, reason: str = "the task that tried it was killed") -> None:
        if self._ti is not None:
            self._stop.set()
        if self._order_id is not None:
            give_back(
                self._hook,
                self._order_id,
                ti=self._ti,
                waiter=self._waiter,
                reason=reason,
            )
