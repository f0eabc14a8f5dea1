"""`SmsVerifyHook` with its settings from an Airflow connection."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property, wraps
from itertools import count
from typing import Any, TypeVar, cast
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseHook, Connection, conf, get_current_context
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from smsverify.errors import InvalidRequestError, SmsVerifyError, WaitStoppedError
from smsverify.hook import DEFAULT_TIMEOUT, RentedNumber
from smsverify.hook import SmsVerifyHook as CoreHook
from smsverify.models import Message, Order, OrderStatus, check_order_id
from smsverify.rentals import RentalsReport
from smsverify.settings import ENVIRONMENT_PREFIX, Settings
from smsverify_provider.kills import at_kill, give_back, has_tries_left

TASK_LENGTH = 300  # of the 500 characters that a key may have with its namespace
TEST_TIMEOUT = 20.0  # seconds; a user waits in front of a connection test, and Airflow ends it after 60

# The executors whose tasks all run on the scheduler's machine.
LOCAL_EXECUTORS = frozenset({"LocalExecutor", "SequentialExecutor", "DebugExecutor"})

# The keys that each try of a task has used: equal calls get different ones, and a retry gets the same again.
_used_keys: set[tuple[str, str]] = set()
_used_keys_lock = threading.Lock()

_Call = TypeVar("_Call", bound=Callable[..., Any])
_Told = TypeVar("_Told", bound=Message)


def _signed_like(core: _Call) -> Callable[[Callable[..., Any]], _Call]:
    """Lets a method show the signature and the text of the core's that it calls."""
    return lambda own: cast("_Call", wraps(core)(own))


class SmsVerifyHook(CoreHook, BaseHook):
    """The service as `smsverify.SmsVerifyHook` gives it, for use inside Airflow.

    The settings come from a connection of type `smsverify`: the password is the API key, the host the base
    URL, and the extras are the other settings by name. What is left blank counts as not given: then the
    environment (`SMSVERIFY_API_KEY`, …) decides, else the default. Without a connection of that name it is
    arguments and environment alone.

    Inside a task, a purchase without a key gets one from the task (Dag, run, task, map index; not the try),
    so that a retry is handed the order that it has bought already. Equal calls in one task count as different
    purchases. When Airflow ends the task, purchases that are not sent yet and waits end, and a number that
    the task waits for or has rented for a block is given back, unless a further try of the task is to come.

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

    def __init__(self, smsverify_conn_id: str = default_conn_name, **settings: Any) -> None:
        CoreHook.__init__(self, **settings)
        BaseHook.__init__(self)
        self.smsverify_conn_id = smsverify_conn_id

    @cached_property
    def settings(self) -> Settings:
        """The settings, checked. Raises `InvalidRequestError`, which names the setting."""
        settings = Settings.load(self._given_settings())
        # Wherever they have come from: the connection's password is all that Airflow knows to be secret.
        mask_secret(settings.api_key.get_secret_value())
        mask_secret(urlsplit(settings.store_url.get_secret_value()).password)
        for secret in settings.callback_secrets:
            mask_secret(secret.get_secret_value())
        return settings

    def test_connection(self) -> tuple[bool, str]:
        """Asks for the balance (`GET /api/v1/balance/`), which costs nothing. Never raises.

        Returns:
            whether that worked, and the balance or what is wrong.
        """
        hook = type(self)(self.smsverify_conn_id, **self._given | {"call_timeout": TEST_TIMEOUT})
        try:
            balance = hook.get_balance()
        except SmsVerifyError as error:
            return False, str(error)
        except Exception as error:
            # The text of an error that is not ours could quote anything.
            return False, f"{type(error).__name__} while the balance was asked for"
        return True, f"The API key works; the balance is {balance.amount} {balance.currency}"

    # -------------------------------------------------------------- what Airflow's tasks need besides

    @_signed_like(CoreHook.order)
    def order(self, product: str, *, stop: threading.Event | None = None, **purchase: Any) -> Order:
        stop = stop or threading.Event()
        with at_kill(stop.set):
            order = super().order(product, stop=stop, **purchase)
        mask_secret(order.activation_code)
        return order

    @_signed_like(CoreHook.renew)
    def renew(self, order_id: int | str, *, stop: threading.Event | None = None, **purchase: Any) -> Order:
        stop = stop or threading.Event()
        with at_kill(stop.set):
            return super().renew(order_id, stop=stop, **purchase)

    @_signed_like(CoreHook.renew_expiring)
    def renew_expiring(
        self, within: float | timedelta | str, *, stop: threading.Event | None = None, **selection: Any
    ) -> RentalsReport:
        stop = stop or threading.Event()
        with at_kill(stop.set):
            return super().renew_expiring(within, stop=stop, **selection)

    def get_order(self, order_id: int | str) -> Order:
        order = super().get_order(order_id)
        mask_secret(order.activation_code)
        return order

    def get_status(self, order_id: int | str) -> OrderStatus:
        return _masked(super().get_status(order_id))

    def cancel(self, order_id: int | str) -> OrderStatus:
        return _masked(super().cancel(order_id))

    @_signed_like(CoreHook.check_otp)
    def check_otp(self, order_id: int | str, **options: Any) -> Message | None:
        message = super().check_otp(order_id, **options)
        return None if message is None else _masked(message)

    @_signed_like(CoreHook.wait_for_otp)
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
        stop, waiter = stop or threading.Event(), waiter or uuid.uuid4().hex
        with at_kill(self._ending(order_id, stop, waiter, cancels=cancel_on_timeout)):
            message = super().wait_for_otp(
                order_id, timeout, cancel_on_timeout=cancel_on_timeout, stop=stop, waiter=waiter, **wanted
            )
        return _masked(message)

    @_signed_like(CoreHook.await_otp)
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
        stop, waiter = stop or threading.Event(), waiter or uuid.uuid4().hex
        with at_kill(self._ending(order_id, stop, waiter, cancels=cancel_on_timeout)):
            message = await super().await_otp(
                order_id, timeout, cancel_on_timeout=cancel_on_timeout, stop=stop, waiter=waiter, **wanted
            )
        # Telling Airflow blocks.
        return await asyncio.to_thread(_masked, message)

    def get_message(self, message_id: int | str) -> Message:
        return _masked(super().get_message(message_id))

    def assign_messages(
        self, message_ids: Iterable[int | str], *, handler: str, run: str
    ) -> list[tuple[int, Message]]:
        mine = super().assign_messages(message_ids, handler=handler, run=run)
        return [(message_id, _masked(message)) for message_id, message in mine]

    def messages_of(self, triggering_asset_events: Mapping[Any, Iterable[Any]]) -> list[Message]:
        """The SMS that the asset events of `SmsVerifyMessageTrigger` tell of, the oldest first.

        Each is handed to one run of the Dag only, to all of its tasks and tries: the event of a triggerer
        that was killed before it could put on record what it had told may come again.

        Args:
            triggering_asset_events: as a task is given it, by asset.

        Returns:
            the messages of the account of this connection, without those whose text has been purged.
        """
        ti = get_current_context()["ti"]
        payloads = [
            (event.extra or {}).get("payload")
            for events in triggering_asset_events.values()
            for event in events
        ]
        ids = [
            told["message_id"]
            for payload in payloads
            if isinstance(payload, dict) and payload.get("smsverify_conn_id") == self.smsverify_conn_id
            for told in payload["messages"]
        ]
        mine = self.assign_messages(ids, handler=f"airflow:{ti.dag_id}", run=ti.run_id)
        return [message for _, message in mine]

    @_signed_like(CoreHook.rented_number)
    @contextmanager
    def rented_number(self, product: str, **purchase: Any) -> Iterator[RentedNumber]:
        killed = threading.Event()
        with (
            at_kill(killed.set),
            super().rented_number(product, **purchase) as number,
            at_kill(lambda: self._give_back(number.order_id)),
        ):
            if killed.is_set():
                raise WaitStoppedError(f"the task was killed while it bought order {number.order_id}")
            yield number

    def _ending(self, order_id: int | str, stop: threading.Event, waiter: str, *, cancels: bool) -> Any:
        """What ends a wait when its task is killed."""

        def end() -> None:
            stop.set()
            if cancels:
                self._give_back(order_id, waiter)

        return end

    def _give_back(self, order_id: int | str, waiter: str | None = None) -> None:
        ti = _running_ti()
        give_back(self, check_order_id(order_id), ti=ti, waiter=waiter, tries_left=has_tries_left(ti))

    # -------------------------------------------------------------- where things come from

    def _default_key(self, fingerprint: str) -> str | None:
        this_try = _running_try()
        if this_try is None:
            return None
        name, task = this_try
        with _used_keys_lock:
            for nth in count(1):
                key = f"airflow:{task}:{fingerprint[:32]}:{nth}"
                if (name, key) not in _used_keys:
                    _used_keys.add((name, key))
                    return key
        return None

    def _key_failed(self, key: str) -> None:
        this_try = _running_try()
        if this_try is not None:
            with _used_keys_lock:
                _used_keys.discard((this_try[0], key))

    def _run_name(self) -> str:
        ti = _running_ti()
        return super()._run_name() if ti is None else f"airflow:{ti.dag_id}:{ti.run_id}"

    def _why_unshared(self) -> str | None:
        # A pod that an executor has started is told that it runs alone, by the name of a local executor.
        if os.environ.get("AIRFLOW_IS_K8S_EXECUTOR_POD"):
            return "each task runs in a pod of its own"
        # One or several, by name or path, with alias or team: "LocalExecutor,team=alias:my.OtherExecutor".
        configured = re.split(r"[^\w]+", conf.get("core", "executor", fallback="LocalExecutor"))
        distant = sorted({name for name in configured if name.endswith("Executor")} - LOCAL_EXECUTORS)
        return f"{' and '.join(distant)} runs tasks on other machines" if distant else None

    def _given_settings(self) -> dict[str, Any]:
        given = {name: value for name, value in super()._given_settings().items() if value is not None}
        try:
            settings = settings_of(self.get_connection(self.smsverify_conn_id)) | given
            missing = "has no password"
        except AirflowNotFoundException:
            settings, missing = given, "does not exist"
        if not settings.get("api_key") and not os.environ.get(f"{ENVIRONMENT_PREFIX}API_KEY"):
            raise InvalidRequestError(
                f"api_key is missing: the connection {self.smsverify_conn_id!r} {missing}, and "
                f"{ENVIRONMENT_PREFIX}API_KEY is not set",
                field="api_key",
            )
        return settings


def _masked(message: _Told) -> _Told:
    """A message whose code and text Airflow masks from now on."""
    mask_secret(message.otp)
    mask_secret(message.message)
    return message


def _running_ti() -> Any:
    """The task instance that runs; `None` outside of a task."""
    try:
        return get_current_context()["ti"]
    except RuntimeError:
        return None


def _running_try() -> tuple[str, str] | None:
    """Names the try that runs, and what all tries of its task have in common; `None` outside of a task."""
    ti = _running_ti()
    if ti is None:
        return None
    task = f"{ti.dag_id}:{ti.run_id}:{ti.task_id}"
    if len(task) > TASK_LENGTH:
        task = hashlib.sha256(task.encode()).hexdigest()
    return f"{ti.id} {ti.try_number}", f"{task}:{ti.map_index}"


def settings_of(connection: Connection) -> dict[str, Any]:
    """The settings that a connection gives, by name; they are checked where they are used.

    Raises:
        InvalidRequestError: a field is in the wrong place or malformed; `field` names it.
    """
    try:
        settings = json.loads(connection.extra or "{}")
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise InvalidRequestError("extra must be a JSON object with settings by name", field="extra")
    for name, place in (("api_key", "password"), ("base_url", "host")):
        if name in settings:
            raise InvalidRequestError(f"{name} is no extra: it is the connection's {place}", field=name)
    store_password = settings.pop("store_password", None)
    if store_password:
        settings["store_url"] = _with_password(settings.get("store_url"), store_password)
    return settings | {"api_key": connection.password, "base_url": _base_url(connection)}


def _base_url(connection: Connection) -> str | None:
    """The service's address: the host as it stands, or with scheme and port from fields of their own."""
    host, scheme = (connection.host or "").strip(), (connection.schema or "").strip()
    if not host:
        return None
    if scheme not in ("", "http", "https"):
        raise InvalidRequestError(
            "schema must be http, https or blank: a path belongs to the host", field="schema"
        )
    parts = urlsplit(host if "://" in host else f"{scheme or 'https'}://{host}")
    if connection.port and not parts.netloc.endswith(f":{connection.port}"):
        parts = parts._replace(netloc=f"{parts.netloc}:{connection.port}")
    return parts.geturl()


def _with_password(store_url: Any, password: Any) -> str:
    """The store's URL with its password, which is apart from it because Airflow masks extras by name."""
    parts = urlsplit(str(store_url or ""))
    user, at, host = parts.netloc.rpartition("@")
    if not at or ":" in user:
        raise InvalidRequestError(
            "store_password goes with a store_url that names a user without a password, such as "
            "postgresql+psycopg://<user>@<host>/<database>",
            field="store_password",
        )
    return parts._replace(netloc=f"{user}:{quote(str(password), safe='')}@{host}").geturl()
