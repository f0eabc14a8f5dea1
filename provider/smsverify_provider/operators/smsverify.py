"""Operators that buy a number, give it back, extend rentals, and compare the records with the service."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from smsverify.checks import (
    LATER,
    check_key,
    check_order_fields,
    check_order_id,
    check_order_ids,
    check_seconds,
    check_switch,
)
from smsverify.errors import FindingsError, StoreError, WaitStoppedError
from smsverify.wings import withdraw_release
from smsverify_provider.arguments import (
    CheckedOperator,
    check_amounts,
    check_known,
    is_known,
    is_nothing,
    order_id_in,
)
from smsverify_provider.kills import at_success, give_back, within_kill_budget
from smsverify_provider.links import SmsVerifyOrderLink
from smsverify_provider.operators.verify import SmsVerifyOperator
from smsverify_provider.results import report_of, without_frames
from smsverify_provider.turns import WaitsForTurn
from smsverify_provider.versions import AirflowFailException, conf

if TYPE_CHECKING:
    from airflow.sdk import Context

    from smsverify_provider.hooks.smsverify import SmsVerifyHook

__all__ = [
    "SmsVerifyCancelOrderOperator",
    "SmsVerifyOperator",
    "SmsVerifyOrderOperator",
    "SmsVerifyReconcileOperator",
    "SmsVerifyRenewExpiringOperator",
    "SmsVerifyRenewOperator",
]

PURCHASE = ("product", "service", "country", "area_code", "duration", "plan", "max_price")
SELECTION = ("order_ids", "only", "exclude")


class SmsVerifyOrderOperator(WaitsForTurn):
    """Buys a phone number or an eSIM (`POST /api/v1/order/<product>/`).

    Safe to retry: the purchase is on record before it is sent, under a key that all tries of the task share.

    Returns the order as a dict (`order_id`, `product`, `service`, `phone`, `price`, `status`, `expires_at`,
    …). `order_id` and `phone` are XComs of their own too, so that `order.output["phone"]` works; with
    `multiple_outputs=True`, each field is. An eSIM's activation code is a secret and in neither: read it with
    `SmsVerifyHook().get_order(order_id)`, or in a template with `macros.smsverify.activation_code(order_id)`.

    Airflow refuses `expand(order_id=orders.output["order_id"])` where `orders` is a mapped task: write
    `expand(order_id=orders.output)`, or put both tasks into a mapped task group.

    Literals in the Dag file are checked when it is parsed. Templates, results of other tasks and all
    arguments of a mapped task are checked before anything is sent. The parameters up to `key` are those of
    `SmsVerifyHook.order`.

    Args:
        product: `temporary`, `best-temp`, `rental`, `rent-1day`, `rent-30days`, `global` or `esim`
            (templated).
        service: id or name from the product's list; not for `esim` (templated).
        country: id or name, for `global` (templated).
        area_code: three digits of the USA, for `temporary` (templated).
        duration: 3 or 30 days, for `rental` (templated).
        plan: the plan's name, for `esim` (templated).
        max_price: most that may be paid, in USD. Nothing is sent when the price is higher or unknown
            (templated).
        run_budget: most that this Dag run may spend, in USD, this call included (templated).
        key: names this purchase. Default: derived from the Dag, the run, the task and the map index
            (templated).
        deferrable: waits for the rate limit in the triggerer, and holds a worker only to pay. Default: the
            deployment's `[operators] default_deferrable`.
        smsverify_conn_id: the connection (templated).

    When Airflow kills the task before its success, it gives the number back, unless a further try is to come.

    Raises:
        InvalidRequestError: a parameter is wrong; `field` names it. Nothing was bought: the request was not
            sent, or the service refused it (`status_code`).
        WaitStoppedError: the task was killed while it bought.
        SmsVerifyError: what `SmsVerifyHook.order` raises.
    """

    template_fields: Sequence[str] = (*PURCHASE, "run_budget", "key", "smsverify_conn_id")
    checked = (*PURCHASE, "run_budget", "key")
    outputs = ("order_id", "phone")
    ui_color = "#d7ecd9"
    operator_extra_links = (SmsVerifyOrderLink(),)

    _hook: SmsVerifyHook | None = None
    _stop: threading.Event
    _ending: threading.Lock  # so that no kill gives a number back that the success of the task hands over
    _order_id: int | None = None
    _ti: Any = None
    _is_killed = False
    _has_result = False

    def __init__(
        self,
        *,
        product: str,
        service: int | str | None = None,
        country: int | str | None = None,
        area_code: str | int | None = None,
        duration: int | str | None = None,
        plan: str | None = None,
        max_price: Decimal | float | str | None = None,
        run_budget: Decimal | float | str | None = None,
        key: int | str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        smsverify_conn_id: str = "smsverify_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.product = product
        self.service = service
        self.country = country
        self.area_code = area_code
        self.duration = duration
        self.plan = plan
        self.max_price = max_price
        self.run_budget = run_budget
        self.key = key
        self.deferrable = check_switch(deferrable, "deferrable")
        self.smsverify_conn_id = smsverify_conn_id
        self._check_arguments()

    def _check(self, given: Mapping[str, Any]) -> None:
        check_order_fields(
            **{"product": None} | {name: value for name, value in given.items() if name in PURCHASE}
        )
        check_amounts(given, ("run_budget",))
        check_known(given.get("key"), check_key)

    def execute(self, context: Context) -> dict[str, Any]:
        """Buys, or finds the order that an earlier try has bought; defers while others go first."""
        return self._buy(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Buys: the turn is near."""
        return self._buy(context, event)

    def _buy(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        from smsverify_provider.hooks.smsverify import SmsVerifyHook

        self._stop, self._ending, self._ti = threading.Event(), threading.Lock(), context.get("ti")
        hook = self._hook = SmsVerifyHook(self.smsverify_conn_id)
        if self._is_killed:
            self._stop.set()
        buy = partial(hook.order, **self._arguments(), stop=self._stop)
        order = self._at_its_turn(hook, buy, event)
        self._order_id = order.order_id
        if self._is_killed:
            self._give_back()  # `on_kill` came before the number
        at_success(self._keep)
        result = self._returned(context, order.as_dict())
        self._has_result = True
        if self._is_killed:
            raise WaitStoppedError(
                f"the task was killed while it bought order {order.order_id}, which is given back unless a "
                "further try of the task is to come"
            )
        return result

    def on_kill(self) -> None:
        """Gives the number back, because the task cannot use it any more."""
        self._is_killed = True
        if self._hook is not None:
            within_kill_budget(self._give_back)

    def _give_back(self) -> None:
        self._stop.set()
        with self._ending:
            if self._hook is not None and self._order_id is not None:
                give_back(
                    self._hook,
                    self._order_id,
                    ti=self._ti,
                    has_result=self._has_result,
                    reason="the task that ordered it was killed",
                )

    def _keep(self) -> None:
        """The task has succeeded: those that read its result have the number, and no kill gives it back.

        Airflow ends also a task that has succeeded, if its callbacks and listeners take too long.
        """
        with self._ending:
            order_id, self._order_id = self._order_id, None
        if not self._is_killed or self._hook is None or order_id is None:
            return
        try:
            withdraw_release(self._hook, order_id)
        except StoreError as error:
            self.log.error(
                "Order %d stays on record to be cancelled in a while, as the store cannot be used: %s. A "
                "wait for its code takes it off the record",
                order_id,
                error,
            )


class SmsVerifyCancelOrderOperator(CheckedOperator):
    """Cancels an order for a refund (`POST /api/v1/order/<order_id>/cancel/`).

    Harmless when there is nothing to cancel: an order that is completed or cancelled already stays as it is,
    and without an order id (the task that should order has failed) the task does nothing. So it can be a
    teardown::

        order.as_setup() >> work >> cancel.as_teardown(setups=order)

    Returns the order's status as a dict, without code and text; `None` if there was no order.

    Args:
        order_id: the order: its id, or the whole result of the task that ordered it (templated).
        smsverify_conn_id: the connection (templated).

    Raises:
        NotCancellableError: the service refuses, and the order has not ended. The wish to cancel it stays on
            record and is tried again.
        SmsVerifyError: what else `SmsVerifyHook.cancel` raises.
    """

    template_fields: Sequence[str] = ("order_id", "smsverify_conn_id")
    checked = ("order_id",)
    ui_color = "#f3dcd5"
    operator_extra_links = (SmsVerifyOrderLink(),)

    def __init__(
        self, *, order_id: int | str | None, smsverify_conn_id: str = "smsverify_default", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.order_id = order_id
        self.smsverify_conn_id = smsverify_conn_id
        self._check_arguments()

    def _check(self, given: Mapping[str, Any]) -> None:
        check_known(order_id_in(given.get("order_id")), check_order_id)

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Cancels, unless there is nothing to cancel."""
        from smsverify_provider.hooks.smsverify import SmsVerifyHook

        order_id = self.order_id = order_id_in(self.order_id)
        if order_id is None or is_nothing(order_id):
            self.log.info("There is nothing to cancel: the task that should order has left no order_id")
            return None
        status = SmsVerifyHook(self.smsverify_conn_id).cancel(order_id)
        return {name: value for name, value in status.as_dict().items() if name not in ("otp", "message")}


class SmsVerifyRenewOperator(WaitsForTurn):
    """Extends a rental by its period at the current price (`POST /api/v1/order/<order_id>/renew/`).

    Safe to retry: all tries of the task share a key, and a key renews once. Returns the order with its new
    expiry as a dict; `order_id` and `expires_at` are XComs of their own too.

    Args:
        order_id: a `rental`, `rent-1day` or `rent-30days` order: its id, or the whole result of the task that
            ordered it (templated).
        max_price: most that may be paid, in USD. Nothing is sent when the price is higher or unknown
            (templated).
        run_budget: most that this Dag run may spend, in USD, this call included (templated).
        key: names this renewal. Default: derived from the Dag, the run, the task and the map index
            (templated).
        deferrable: waits for the rate limit in the triggerer, and holds a worker only to pay. Default: the
            deployment's `[operators] default_deferrable`.
        smsverify_conn_id: the connection (templated).

    Raises:
        SmsVerifyError: what `SmsVerifyHook.renew` raises.
    """

    template_fields: Sequence[str] = ("order_id", "max_price", "run_budget", "key", "smsverify_conn_id")
    checked = ("order_id", "max_price", "run_budget", "key")
    outputs = ("order_id", "expires_at")
    ui_color = "#d7ecd9"
    operator_extra_links = (SmsVerifyOrderLink(),)

    def __init__(
        self,
        *,
        order_id: int | str,
        max_price: Decimal | float | str | None = None,
        run_budget: Decimal | float | str | None = None,
        key: int | str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        smsverify_conn_id: str = "smsverify_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.order_id = order_id
        self.max_price = max_price
        self.run_budget = run_budget
        self.key = key
        self.deferrable = check_switch(deferrable, "deferrable")
        self.smsverify_conn_id = smsverify_conn_id
        self._check_arguments()

    def _check(self, given: Mapping[str, Any]) -> None:
        if given.get("order_id") is not LATER:
            check_order_id(order_id_in(given.get("order_id")))
        check_amounts(given, ("max_price", "run_budget"))
        check_known(given.get("key"), check_key)

    def execute(self, context: Context) -> dict[str, Any]:
        """Renews, unless an earlier try has done so; defers while others go first."""
        return self._renew(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Renews: the turn is near."""
        return self._renew(context, event)

    def _renew(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        from smsverify_provider.hooks.smsverify import SmsVerifyHook

        hook = SmsVerifyHook(self.smsverify_conn_id)
        self.order_id = order_id_in(self.order_id)
        order = self._at_its_turn(hook, partial(hook.renew, **self._arguments()), event)
        return self._returned(context, order.as_dict())


class SmsVerifyRenewExpiringOperator(WaitsForTurn):
    """Renews the rentals that end soon, once for each period (`POST /api/v1/order/<order_id>/renew/`).

    Run it on a schedule, several times in `within`. What is not due is left alone, and catch-up, overlapping
    runs, retries and several Dags with the same rentals renew nothing twice. One rental that cannot be
    renewed never stops the others; the task fails at its end, so that the Dag's alerts reach a person.

    Returns the report as a dict (`rentals` with an `outcome` for each, `cost`, `balance`, `next_cost`,
    `lasts`, `findings`), even if it fails. `findings` and `next_cost` are XComs of their own too;
    `next_cost` is what `SmsVerifyBalanceSensor(minimum=…)` takes, to alert when the wallet will not last the
    next period.

    Args:
        within: seconds or a `timedelta`; a rental that ends sooner is due (templated).
        max_price: most that one renewal may cost, in USD. A rental whose price is higher or unknown is not
            renewed (templated).
        run_budget: most that this Dag run may spend, in USD, this call included (templated).
        order_ids: rentals besides those that were bought through the store: one id, or several (templated).
        only: renews none but these, which may have been rented elsewhere (templated).
        exclude: leaves these alone (templated).
        dry_run: reports what would be done, and pays nothing.
        fail_on_findings: whether the task fails when a rental is not kept.
        deferrable: waits in the triggerer until the first renewal has its turn. Default: the deployment's
            `[operators] default_deferrable`.
        smsverify_conn_id: the connection (templated).

    When Airflow kills the task before its end, it sends no further renewal.

    Raises:
        FindingsError: some rentals were due and could not be renewed. The text says which, and why; a retry
            tries these again.
        SmsVerifyError: what `SmsVerifyHook.renew_expiring` raises.
    """

    template_fields: Sequence[str] = ("within", "max_price", "run_budget", *SELECTION, "smsverify_conn_id")
    checked = ("within", "max_price", "run_budget", *SELECTION)
    outputs = ("findings", "next_cost")
    ui_color = "#d7ecd9"

    def __init__(
        self,
        *,
        within: float | timedelta | str,
        max_price: Decimal | float | str | None = None,
        run_budget: Decimal | float | str | None = None,
        order_ids: Any = (),
        only: Any = None,
        exclude: Any = (),
        dry_run: bool = False,
        fail_on_findings: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        smsverify_conn_id: str = "smsverify_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.within = within
        self.max_price = max_price
        self.run_budget = run_budget
        self.order_ids = order_ids
        self.only = only
        self.exclude = exclude
        self.is_dry_run = check_switch(dry_run, "dry_run")  # the plain name is a method of every operator
        self.fail_on_findings = check_switch(fail_on_findings, "fail_on_findings")
        self.deferrable = check_switch(deferrable, "deferrable")
        self.smsverify_conn_id = smsverify_conn_id
        self._check_arguments()

    def _check(self, given: Mapping[str, Any]) -> None:
        if given.get("within") is not LATER:
            check_seconds(given.get("within"), "within")
        check_amounts(given, ("max_price", "run_budget"))
        for name in SELECTION:
            if is_known(given.get(name)):
                check_known(given.get(name), partial(check_order_ids, field=name))

    def execute(self, context: Context) -> dict[str, Any]:
        """Renews the rentals that are due; defers while others go first."""
        return self._renew(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Renews: the turn is near."""
        return self._renew(context, event)

    def _renew(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        from smsverify_provider.hooks.smsverify import SmsVerifyHook

        hook = SmsVerifyHook(self.smsverify_conn_id)
        renew = partial(hook.renew_expiring, **self._arguments(), dry_run=self.is_dry_run)
        # The report is of one run: once it has paid, it goes on to its end.
        report = self._at_its_turn(hook, renew, event, is_first_only=True)
        return report_of(self, report, context)


class SmsVerifyReconcileOperator(CheckedOperator):
    """Compares the records with the service, and corrects what it can (`GET /api/v1/orders/`).

    Run it on a schedule. It finds out what became of purchases whose answer was lost, tries again to cancel
    orders whose cancellation failed, and fails when a finding needs a person, so that the Dag's alerts reach
    one. It costs a handful of requests, however much was bought.

    Returns the report as a dict (`balance`, `spent_today`, `resolved`, `unknown`, `cancelled`, `to_cancel`,
    `leaks`, `foreign`, `findings`, …), even if it fails. `findings` and `balance` are XComs of their own
    too.

    Args:
        cancel_after: cancels numbers that were bought here, have no code, and that no task has waited for in
            this many seconds; a rental only if it was never handed over. Default: they are only reported
            (templated).
        fail_on_findings: whether the task fails when a finding needs a person.
        smsverify_conn_id: the connection (templated).

    Raises:
        AirflowFailException: a finding needs a person; the text says which, and no retry would change it. The
            cause is the `FindingsError`.
        SmsVerifyError: what `SmsVerifyHook.reconcile` raises.
    """

    template_fields: Sequence[str] = ("cancel_after", "smsverify_conn_id")
    checked = ("cancel_after",)
    outputs = ("findings", "balance")
    ui_color = "#efe6f7"

    _stop: threading.Event | None = None

    def __init__(
        self,
        *,
        cancel_after: float | str | None = None,
        fail_on_findings: bool = True,
        smsverify_conn_id: str = "smsverify_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cancel_after = cancel_after
        self.fail_on_findings = check_switch(fail_on_findings, "fail_on_findings")
        self.smsverify_conn_id = smsverify_conn_id
        self._check_arguments()

    def _check(self, given: Mapping[str, Any]) -> None:
        check_known(given.get("cancel_after"), partial(check_seconds, field="cancel_after"))

    def execute(self, context: Context) -> dict[str, Any]:
        """Reconciles."""
        from smsverify_provider.hooks.smsverify import SmsVerifyHook

        self._stop = threading.Event()
        after: Any = None if is_nothing(self.cancel_after) else self.cancel_after
        report = SmsVerifyHook(self.smsverify_conn_id).reconcile(cancel_after=after, stop=self._stop)
        try:
            return report_of(self, report, context)
        except FindingsError as error:
            raise AirflowFailException(str(error)) from without_frames(error)

    def on_kill(self) -> None:
        """Ends it between two requests."""
        if self._stop is not None:
            self._stop.set()
