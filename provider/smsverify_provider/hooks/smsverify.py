"""`SmsVerifyHook` with its settings from an Airflow connection."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from functools import cached_property
from itertools import count
from typing import Any
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseHook, Connection, conf, get_current_context
from airflow.sdk.log import mask_secret

from smsverify.errors import InvalidRequestError, SmsVerifyError
from smsverify.hook import SmsVerifyHook as CoreHook
from smsverify.settings import Settings

TASK_LENGTH = 300  # of the 500 characters that a key may have with its namespace
TEST_TIMEOUT = 20.0  # seconds; a user waits in front of a connection test, and Airflow ends it after 60

# The executors whose tasks all run on the scheduler's machine.
LOCAL_EXECUTORS = frozenset({"LocalExecutor", "SequentialExecutor", "DebugExecutor"})

# The keys that each try of a task has used: equal calls get different ones, and a retry gets the same again.
_used_keys: set[tuple[str, str]] = set()
_used_keys_lock = threading.Lock()


class SmsVerifyHook(CoreHook, BaseHook):
    """The service as `smsverify.SmsVerifyHook` gives it, for use inside Airflow.

    The settings come from a connection of type `smsverify`: the password is the API key, the host the base
    URL, and the extras are the other settings by name. What is left blank counts as not given: then the
    environment (`SMSVERIFY_API_KEY`, …) decides, else the default.

    Inside a task, a purchase without a key gets one from the task (Dag, run, task, map index; not the try),
    so that a retry is handed the order that it has bought already. Equal calls in one task count as different
    purchases.

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
        try:
            ti = get_current_context()["ti"]
        except RuntimeError:
            return super()._run_name()
        return f"airflow:{ti.dag_id}:{ti.run_id}"

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
        return settings_of(self.get_connection(self.smsverify_conn_id)) | given


def _running_try() -> tuple[str, str] | None:
    """Names the try that runs, and what all tries of its task have in common; `None` outside of a task."""
    try:
        ti = get_current_context()["ti"]
    except RuntimeError:
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
