"""`SmsVerifyHook` with its settings from an Airflow connection."""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow.sdk import BaseHook, get_current_context
from airflow.sdk.log import mask_secret

from smsverify.checks import check_order_id, check_stop
from smsverify.errors import InvalidRequestError, SmsVerifyError, WaitStoppedError
from smsverify.hook import SmsVerifyHook as CoreHook
from smsverify.models import Message, Order, OrderStatus
from smsverify.numbers import DEFAULT_TIMEOUT, Attempt, RentedNumber
from smsverify.settings import ENVIRONMENT_PREFIX, Settings
from smsverify.text import log_of
from smsverify.wings import LoopThreads, assign_messages, cached_property, secrets_of, signed_like
from smsverify_provider import connection_form
from smsverify_provider.connections import find_connection, find_connection_on_loop, settings_of
from smsverify_provider.kills import at_kill, give_back
from smsverify_provider.runs import AirflowRun, running_ti
from smsverify_provider.versions import mask_secret as mask_secret_on_loop
from smsverify_provider.versions import start_stats

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from smsverify.reports import RentalsReport

log = log_of(__name__)

# One thread, because Airflow's supervisor answers one question at a time.
_masking = LoopThreads(1, "smsverify-masking")
TEST_TIMEOUT = 20.0  # seconds; a user waits in front of a connection test, and Airflow ends it after 60

_Call = TypeVar("_Call", bound=Callable[..., Any])
_Sms = TypeVar("_Sms", bound=Message)


class SmsVerifyHook(CoreHook, BaseHook):
    """The service as `smsverify.SmsVerifyHook` gives it, for use inside Airflow.

    The settings come from a connection of type `smsverify`: the password is the API key, the host the base
    URL, and the extras are the other settings by name. What is left blank counts as not given: then the
    environment (`SMSVERIFY_API_KEY`, …) decides, otherwise the default. If the default connection does not
    exist, arguments and environment decide alone. A connection with another name has to exist. If a
    connection cannot be read now, nothing is done: the environment may hold another wallet.

    Inside a task, a purchase without a key gets one from the task (Dag, run, task, map index; not the try),
    so a retry gets the order that was bought already. Equal calls in one task count as different purchases.
    When Airflow ends the task, its waits and its unsent purchases end. A number that the task waits for or
    tries, or has rented for a block, is given back, unless a further try of the task is to come.

    Codes, texts and activation codes that its methods return are masked in the task's log as far as Airflow
    masks: by default nothing below five characters.

    Args:
        smsverify_conn_id: the connection.
        **settings: settings by name (`smsverify.settings.Settings`); they precede those of the connection.
    """

    conn_name_attr = "smsverify_conn_id"
    default_conn_name = "smsverify_default"
    conn_type = "smsverify"
    hook_name = "SmsVerify"

    # Before 3.2, Airflow asks these two for the form. From 3.2 on the metadata has it, and it calls neither.

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """The form's fields beside Airflow's own, in WTForms."""
        return connection_form.widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """How the form shows Airflow's own fields."""
        return {
            "hidden_fields": connection_form.HIDDEN,
            "relabeling": connection_form.RELABELING,
            "placeholders": connection_form.PLACEHOLDERS,
        }

    def __init__(self, smsverify_conn_id: str = default_conn_name, **settings: Any) -> None:
        if not isinstance(smsverify_conn_id, str) or not smsverify_conn_id:
            raise InvalidRequestError(
                f"smsverify_conn_id must name a connection, and is {smsverify_conn_id!r}",
                field="smsverify_conn_id",
            )
        CoreHook.__init__(self, run_context=AirflowRun(), **settings)
        BaseHook.__init__(self)
        self.smsverify_conn_id = smsverify_conn_id

    @cached_property
    def settings(self) -> Settings:
        """The settings, checked. Raises `InvalidRequestError`, which names the setting."""
        settings = self._load_settings(find_connection(self.smsverify_conn_id, self.get_connection))
        for secret in _secrets_in(settings):
            mask_secret(secret)
        return settings

    @classmethod
    async def on_event_loop(cls, smsverify_conn_id: str) -> SmsVerifyHook:
        """The hook for a trigger: all that it asks Airflow for is asked here, on the event loop.

        What the hook does then may run in threads.

        Args:
            smsverify_conn_id: the connection.

        Raises:
            InvalidRequestError: a setting is malformed.
            SettingsUnavailableError: the connection cannot be read now.
        """
        hook = cls(smsverify_conn_id)
        connection = await find_connection_on_loop(smsverify_conn_id, hook.aget_connection)
        settings = await asyncio.to_thread(hook._load_settings, connection)
        for secret in _secrets_in(settings):
            await mask_secret_on_loop(secret)
        vars(hook)["settings"] = settings
        await asyncio.to_thread(start_stats)
        return hook

    def test_connection(self) -> tuple[bool, str]:
        """Reads the balance (`GET /api/v1/balance/`), which costs nothing. Never raises.

        Returns:
            whether that worked, and the balance or the error as a text.
        """
        hook = type(self)(self.smsverify_conn_id, **self._given | {"call_timeout": TEST_TIMEOUT})
        try:
            balance = hook.get_balance()
        except SmsVerifyError as error:
            return False, str(error)
        except Exception as error:
            # The text of a foreign error could quote a secret.
            return False, f"{type(error).__name__} while the balance was read"
        return True, f"The API key works; the balance is {balance.amount} {balance.currency}"

    # -------------------------------------------------------------- what Airflow's tasks need besides

    @signed_like(CoreHook.order)
    def order(self, product: str, *, stop: threading.Event | None = None, **purchase: Any) -> Order:
        stop = check_stop(stop) or threading.Event()
        with at_kill(stop.set):
            return _masked_order(super().order(product, stop=stop, **purchase))

    @signed_like(CoreHook.renew)
    def renew(self, order_id: int | str, *, stop: threading.Event | None = None, **purchase: Any) -> Order:
        stop = check_stop(stop) or threading.Event()
        with at_kill(stop.set):
            return super().renew(order_id, stop=stop, **purchase)

    @signed_like(CoreHook.renew_expiring)
    def renew_expiring(
        self, within: float | timedelta | str, *, stop: threading.Event | None = None, **selection: Any
    ) -> RentalsReport:
        stop = check_stop(stop) or threading.Event()
        with at_kill(stop.set):
            return super().renew_expiring(within, stop=stop, **selection)

    def get_order(self, order_id: int | str) -> Order:
        return _masked_order(super().get_order(order_id))

    def get_status(self, order_id: int | str) -> OrderStatus:
        return _masked(super().get_status(order_id))

    def cancel(self, order_id: int | str) -> OrderStatus:
        return _masked(super().cancel(order_id))

    @signed_like(CoreHook.check_otp)
    def check_otp(self, order_id: int | str, **options: Any) -> Message | None:
        message = super().check_otp(order_id, **options)
        return None if message is None else _masked(message)

    @signed_like(CoreHook.wait_for_otp)
    def wait_for_otp(
        self,
        order_id: int | str,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        cancel_on_timeout: bool = True,
        stop: threading.Event | None = None,
        waiter: str | None = None,
        **wanted: Any,
    ) -> Message:
        stop, waiter = check_stop(stop) or threading.Event(), waiter or uuid.uuid4().hex
        with at_kill(self._ending(order_id, stop, waiter, cancels=cancel_on_timeout)):
            message = super().wait_for_otp(
                order_id, timeout, cancel_on_timeout=cancel_on_timeout, stop=stop, waiter=waiter, **wanted
            )
        return _masked(message)

    @signed_like(CoreHook.await_otp)
    async def await_otp(
        self,
        order_id: int | str,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        cancel_on_timeout: bool = True,
        stop: threading.Event | None = None,
        waiter: str | None = None,
        **wanted: Any,
    ) -> Message:
        stop, waiter = check_stop(stop) or threading.Event(), waiter or uuid.uuid4().hex
        with at_kill(self._ending(order_id, stop, waiter, cancels=cancel_on_timeout)):
            message = await super().await_otp(
                order_id, timeout, cancel_on_timeout=cancel_on_timeout, stop=stop, waiter=waiter, **wanted
            )
        # In a thread: masking asks Airflow's supervisor, and blocks.
        return await _masking.run_to_end(partial(_masked, message))

    def get_message(self, message_id: int | str) -> Message:
        return _masked(super().get_message(message_id))

    def messages_of(self, triggering_asset_events: Mapping[Any, Iterable[Any]]) -> list[Message]:
        """The SMS that the asset events of `SmsVerifyMessageTrigger` announce, the oldest first.

        Each goes to one run of the Dag only, to all tasks and tries of that run: when a triggerer is killed
        before it has moved its cursor, the same event may come again.

        Args:
            triggering_asset_events: the task's context variable of that name, by asset.

        Returns:
            the messages of this connection, without those whose text has been purged. Where all events are of
            other connections, a warning names these.
        """
        ti = get_current_context()["ti"]
        payloads = [
            (event.extra or {}).get("payload")
            for events in triggering_asset_events.values()
            for event in events
        ]
        ours = [one for one in payloads if isinstance(one, dict) and "smsverify_conn_id" in one]
        mine = [one for one in ours if one["smsverify_conn_id"] == self.smsverify_conn_id]
        if ours and not mine:
            log.warning(
                "No SMS is read: the watcher has the connection %s, and this hook has %s. Give both the same",
                " and ".join(sorted({repr(one["smsverify_conn_id"]) for one in ours})),
                repr(self.smsverify_conn_id),
            )
        ids = [announced["message_id"] for payload in mine for announced in payload["messages"]]
        assigned = assign_messages(self, ids, handler=f"airflow:{ti.dag_id}", run=ti.run_id)
        return [_masked(message) for _, message in assigned]

    @signed_like(CoreHook.rented_number)
    @contextmanager
    def rented_number(
        self, product: str, *, stop: threading.Event | None = None, **purchase: Any
    ) -> Iterator[RentedNumber]:
        stop = check_stop(stop) or threading.Event()
        with (
            at_kill(stop.set),
            super().rented_number(product, stop=stop, **purchase) as number,
            at_kill(lambda: self._give_back(number.order_id)),
        ):
            if stop.is_set():
                raise WaitStoppedError(f"the task was killed while it bought order {number.order_id}")
            _masked_order(number.order)
            yield number

    @signed_like(CoreHook.attempts)
    def attempts(
        self, product: str, *, stop: threading.Event | None = None, **options: Any
    ) -> Iterator[Attempt]:
        stop = check_stop(stop) or threading.Event()
        attempts = cast("Generator[Attempt]", super().attempts(product, stop=stop, **options))
        return self._ended_at_kill(attempts, stop)

    def _ended_at_kill(self, attempts: Generator[Attempt], stop: threading.Event) -> Iterator[Attempt]:
        """The attempts, of which none begins after its task is killed."""
        with at_kill(stop.set), closing(attempts):
            for attempt in attempts:
                order_id = attempt.number.order_id
                with at_kill(partial(self._give_back, order_id)):
                    if stop.is_set():
                        killed = WaitStoppedError(f"the task was killed while it bought order {order_id}")
                        attempt.end(killed)
                        raise killed
                    yield attempt

    def _ending(self, order_id: int | str, stop: threading.Event, waiter: str, *, cancels: bool) -> Any:
        """What ends a wait when its task is killed."""

        def end() -> None:
            stop.set()
            if cancels:
                self._give_back(order_id, waiter)

        return end

    def _give_back(self, order_id: int | str, waiter: str | None = None) -> None:
        give_back(self, check_order_id(order_id), ti=running_ti(), waiter=waiter)

    def _load_settings(self, connection: Connection | None) -> Settings:
        return Settings.load(self._given_settings(connection))

    def _given_settings(self, connection: Connection | None) -> dict[str, Any]:
        given = {name: value for name, value in self._given.items() if value is not None}
        conn_id, variable = self.smsverify_conn_id, f"{ENVIRONMENT_PREFIX}API_KEY"
        settings = given if connection is None else settings_of(connection) | given
        if settings.get("api_key"):
            return settings
        if connection is None and conn_id != self.default_conn_name:
            raise InvalidRequestError(
                f"api_key is missing: the connection {conn_id!r} does not exist. {variable} is used only in "
                f"the place of {self.default_conn_name!r}",
                field="api_key",
            )
        state = "does not exist" if connection is None else "has no password"
        if not os.environ.get(variable):
            raise InvalidRequestError(
                f"api_key is missing: the connection {conn_id!r} {state}, and {variable} is not set",
                field="api_key",
            )
        _say_once(f"The connection {conn_id!r} {state}: the account is that of {variable}")
        return settings


def _secrets_in(settings: Settings) -> Iterator[str]:
    """All of them, wherever they have come from: Airflow knows only that the password is secret."""
    yield settings.api_key.get_secret_value()
    yield from secrets_of(settings.store_url.get_secret_value())
    for secret in settings.callback_secrets:
        yield secret.get_secret_value()


_said: set[str] = set()


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        log.warning("%s", text)


def _masked(message: _Sms) -> _Sms:
    """A message whose code and text Airflow masks from now on."""
    mask_secret(message.otp)
    mask_secret(message.message)
    return message


def _masked_order(order: Order) -> Order:
    """An order whose activation code Airflow masks from now on."""
    mask_secret(order.activation_code)
    return order
