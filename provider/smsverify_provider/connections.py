"""Airflow's connections: which one is meant, and what it says.

Airflow asks one secrets backend after the other, and takes each error for "not here". So it reports a
connection that could not be read as missing, or returns another one of the same name. A task that then buys
with the key of the environment might buy from another wallet, and its next try would buy again from the right
one. Therefore this module makes sure that no backend has failed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, quote, urlsplit

from smsverify.errors import InvalidRequestError, SettingsUnavailableError
from smsverify_provider.versions import MASKER, AirflowNotFoundException, ask, conf

if TYPE_CHECKING:
    from airflow.sdk import Connection

# The connection of a test that no `conn_type` was given for, and the type that knows no fields of its own.
TYPES = frozenset({"smsverify", "generic"})

_reads_connection: ContextVar[bool] = ContextVar("_reads_connection", default=False)

_Found = TypeVar("_Found")


def find_connection(conn_id: str, look_up: Callable[[str], Connection]) -> Connection | None:
    """A connection as Airflow finds it; `None` if it certainly does not exist. Blocks.

    Args:
        conn_id: its name.
        look_up: Airflow's way to find it.

    Raises:
        InvalidRequestError: it is malformed; `field` is "smsverify_conn_id".
        SettingsUnavailableError: the connection cannot be read now, or a backend has failed.
    """
    found = _find(conn_id, _Here(look_up))
    try:
        found.send(None)
    except StopIteration as end:  # it has nothing to wait for
        connection: Connection | None = end.value
        return connection
    raise RuntimeError("a lookup in this thread must not wait")


async def find_connection_on_loop(
    conn_id: str, look_up: Callable[[str], Awaitable[Connection]]
) -> Connection | None:
    """The same for a triggerer, which asks Airflow on its event loop and in no thread.

    Args:
        conn_id: its name.
        look_up: Airflow's coroutine that finds it.

    Raises:
        InvalidRequestError, SettingsUnavailableError: as for `find_connection`.
    """
    return await ask(_find(conn_id, _OnLoop(look_up)))


class _Here:
    """Asks in this thread. Its coroutines never wait."""

    def __init__(self, look_up: Callable[[str], Connection]) -> None:
        self._look_up = look_up

    async def look_up(self, conn_id: str) -> Connection:
        return self._look_up(conn_id)

    async def call(self, work: Callable[[], _Found]) -> _Found:
        return work()

    async def send(self, comms: Any, question: Any) -> Any:
        return comms.send(question)


class _OnLoop:
    """Asks on an event loop."""

    def __init__(self, look_up: Callable[[str], Awaitable[Connection]]) -> None:
        self._look_up = look_up

    async def look_up(self, conn_id: str) -> Connection:
        return await self._look_up(conn_id)

    async def call(self, work: Callable[[], _Found]) -> _Found:
        return await asyncio.to_thread(work)

    async def send(self, comms: Any, question: Any) -> Any:
        return await comms.asend(question)


async def _find(conn_id: str, way: _Here | _OnLoop) -> Connection | None:
    try:
        with _without_false_alarm():
            found = await way.look_up(conn_id)
    except AirflowNotFoundException:
        await way.call(lambda: _ask_backends(conn_id))
        await _ask_server(conn_id, way)
        return None
    except Exception as error:
        raise _unavailable(conn_id, type(error).__name__) from error
    await way.call(lambda: _ask_backends(conn_id))
    return found


@contextmanager
def _without_false_alarm() -> Iterator[None]:
    """Reads a connection without a warning that one of its extras is too short to be masked.

    Airflow takes each text among the extras for a secret, and warns of a short one. None of ours that is so
    short is secret, such as a namespace.
    """
    logging.getLogger(MASKER).addFilter(_is_of_no_connection)
    token = _reads_connection.set(True)
    try:
        yield
    finally:
        _reads_connection.reset(token)


def _is_of_no_connection(record: logging.LogRecord) -> bool:
    return not (_reads_connection.get() and "too short" in str(record.msg))


def _ask_backends(conn_id: str) -> None:
    """Makes sure that no backend failed that Airflow asks before it finds the connection."""
    from airflow.sdk.execution_time.secrets.execution_api import ExecutionAPISecretsBackend
    from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

    for backend in ensure_secrets_backend_loaded():
        if isinstance(backend, ExecutionAPISecretsBackend):
            continue  # it never fails: see `_ask_server`
        name = type(backend).__name__
        try:
            found = backend.get_connection(conn_id=conn_id)
        except Exception as error:
            # Its text could quote the connection.
            if name == "EnvironmentVariablesBackend":
                raise InvalidRequestError(
                    f"smsverify_conn_id {conn_id!r}: AIRFLOW_CONN_{conn_id.upper()} in the environment is "
                    f"malformed ({type(error).__name__}): it must be a JSON object, or a URI",
                    field="smsverify_conn_id",
                ) from None
            raise _unavailable(conn_id, f"{name}: {type(error).__name__}") from error
        if found:
            return


async def _ask_server(conn_id: str, way: _Here | _OnLoop) -> None:
    """Makes sure that Airflow's API server, if Airflow asks it, has found no such connection."""
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ErrorResponse, GetConnection, GetDRCount

    comms = getattr(task_runner, "SUPERVISOR_COMMS", None)
    if comms is None:
        return
    if conf.get("workers", "secrets_backend", fallback="") and conf.get("secrets", "backend", fallback=""):
        # The server has a secrets backend of its own, and its answer does not show a failure of that.
        raise _unavailable(
            conn_id, "the API server asks a secrets backend of its own, and does not say whether that failed"
        )
    try:
        # The server answers "not found" also when its database is out of reach: so ask the database first.
        database = await way.send(comms, GetDRCount(dag_id=conn_id))
        answer = await way.send(comms, GetConnection(conn_id=conn_id))
    except Exception as error:
        raise _unavailable(conn_id, f"the API server: {type(error).__name__}") from error
    is_missing = isinstance(answer, ErrorResponse) and answer.error.name == "CONNECTION_NOT_FOUND"
    if isinstance(database, ErrorResponse) or not is_missing:
        raise _unavailable(conn_id, "the API server could not look it up")


def _unavailable(conn_id: str, why: str) -> SettingsUnavailableError:
    return SettingsUnavailableError(
        f"the connection {conn_id!r} cannot be read now ({why}). Nothing was sent, because the environment "
        "may name another wallet. Try again. If there is no such connection, create it"
    )


def settings_of(connection: Connection) -> dict[str, Any]:
    """The settings that a connection gives, by name; they are checked where they are used.

    Raises:
        InvalidRequestError: a field is in the wrong place or malformed; `field` names it.
    """
    kind = connection.conn_type or ""
    if kind not in TYPES and (kind or not connection.password):
        raise InvalidRequestError(
            f"conn_type of the connection {connection.conn_id!r} must be smsverify", field="conn_type"
        )
    try:
        settings = json.loads(connection.extra or "{}")
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise InvalidRequestError("extra must be a JSON object with settings by name", field="extra")
    for name, place in (("api_key", "password"), ("base_url", "host")):
        if name in settings:
            raise InvalidRequestError(
                f"{name} is not an extra: put it into the connection's {place}", field=name
            )
    if connection.login and not connection.password:
        raise InvalidRequestError(
            f"the connection {connection.conn_id!r} has a login and no password: the API key is the password",
            field="login",
        )
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
            "schema must be http, https or blank. Write a path into the host", field="schema"
        )
    parts = _split(host if "://" in host else f"{scheme or 'https'}://{host}", "host")
    if connection.port and not parts.netloc.endswith(f":{connection.port}"):
        parts = parts._replace(netloc=f"{parts.netloc}:{connection.port}")
    return parts.geturl()


def _split(url: str, field: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # whose text may quote a password
        raise InvalidRequestError(
            f"{field} is malformed: it has a host that no URL can have. Look for brackets and odd characters",
            field=field,
        ) from None


def _with_password(store_url: Any, password: Any) -> str:
    """The store's URL with its password, which is apart from it because Airflow masks extras by name."""
    parts = _split(str(store_url or ""), "store_url")
    user, at, host = parts.netloc.rpartition("@")
    if not at or ":" in user:
        raise InvalidRequestError(
            "store_password goes with a store_url that names a user without a password, such as "
            "postgresql+psycopg://<user>@<host>/<database>",
            field="store_password",
        )
    return parts._replace(netloc=f"{user}:{quote(str(password), safe='')}@{host}").geturl()
