"""The connection in all the forms that Airflow knows, and its test."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import ANY

import pytest
from airflow.sdk import BaseOperator, Connection, TaskInstanceState
from airflow.sdk._shared.secrets_masker import SecretsMasker, _secrets_masker
from airflow.sdk.bases.secrets_backend import BaseSecretsBackend
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import DRCount, ErrorResponse, GetDRCount
from airflow.sdk.log import mask_secret

from smsverify.errors import InvalidRequestError, SettingsUnavailableError
from smsverify.settings import DEFAULT_BASE_URL
from smsverify.simulator import Simulator
from smsverify_provider.connections import settings_of
from smsverify_provider.hooks.smsverify import SmsVerifyHook
from smsverify_provider.operators.smsverify import SmsVerifyOrderOperator

KEY = "k3y-/+?=&%"  # a key may hold what a URI has to quote
LOCAL = "http://127.0.0.1:8900"


@pytest.fixture
def hook_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SmsVerifyHook]:
    """The hook on a connection that is given like in `AIRFLOW_CONN_…`."""

    def hook_of(value: str | dict[str, Any], **settings: Any) -> SmsVerifyHook:
        text = value if isinstance(value, str) else json.dumps({"conn_type": "smsverify"} | value)
        monkeypatch.setenv("AIRFLOW_CONN_MINE", text)
        return SmsVerifyHook("mine", **settings)

    return hook_of


@pytest.mark.parametrize(
    ("value", "base_url"),
    [
        ({"password": KEY}, DEFAULT_BASE_URL),
        ({"password": KEY, "host": "", "port": None, "schema": "", "login": ""}, DEFAULT_BASE_URL),
        ({"password": KEY, "host": LOCAL}, LOCAL),
        ({"password": KEY, "host": f"{LOCAL}/"}, LOCAL),
        ({"password": KEY, "host": "http://127.0.0.1", "port": 8900}, LOCAL),
        ({"password": KEY, "host": "127.0.0.1", "schema": "http", "port": 8900}, LOCAL),
        ({"password": KEY, "host": LOCAL, "port": 8900}, LOCAL),
        ({"password": KEY, "host": "http://[::1]", "port": 8900}, "http://[::1]:8900"),
        ({"password": KEY, "host": "sms.example.org"}, "https://sms.example.org"),
        ({"password": KEY, "host": "https://sms.example.org/proxy"}, "https://sms.example.org/proxy"),
        ("smsverify://:k3y-%2F%2B%3F%3D%26%25@", DEFAULT_BASE_URL),
        ("smsverify://:k3y-%2F%2B%3F%3D%26%25@127.0.0.1:8900/http", LOCAL),
        ("smsverify://http://:k3y-%2F%2B%3F%3D%26%25@127.0.0.1:8900/", LOCAL),
        ("smsverify://:k3y-%2F%2B%3F%3D%26%25@sms.example.org", "https://sms.example.org"),
    ],
)
def test_key_and_address_are_found_in_every_form(
    hook_of: Any, monkeypatch: pytest.MonkeyPatch, value: str | dict[str, Any], base_url: str
) -> None:
    settings = hook_of(value).settings
    assert settings.api_key.get_secret_value() == KEY
    assert settings.base_url == base_url
    # A connection test on a worker gets the connection as Airflow writes it as a URI.
    as_uri = SmsVerifyHook.get_connection("mine").get_uri()
    assert hook_of(as_uri).settings == settings


@pytest.mark.parametrize(
    "extra", [{"rate_limit": 30, "insecure": True}, {"rate_limit": "30", "insecure": "true"}]
)
def test_the_extras_are_the_settings_by_name(hook_of: Any, tmp_path: Path, extra: dict[str, Any]) -> None:
    store_url = f"sqlite:///{tmp_path}/a b.db"
    settings = hook_of(
        {"password": KEY, "extra": extra | {"store_url": store_url, "account": "mine"}}
    ).settings
    assert settings.rate_limit == 30
    assert settings.insecure is True
    assert settings.account == "mine"
    assert settings.store_url.get_secret_value() == store_url


def test_what_the_form_leaves_blank_comes_from_the_environment(
    hook_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMSVERIFY_API_KEY", "from-the-environment")
    monkeypatch.setenv("SMSVERIFY_BASE_URL", LOCAL)
    monkeypatch.setenv("SMSVERIFY_RATE_PERIOD", "6")
    blank = {
        "store_url": None,
        "store_password": None,
        "rate_limit": None,
        "rate_period": "",
        "insecure": False,
    }
    settings = hook_of({"password": "", "host": "", "extra": blank}).settings
    assert settings.api_key.get_secret_value() == "from-the-environment"
    assert (settings.base_url, settings.rate_limit, settings.rate_period) == (LOCAL, 60, 6)


def test_an_argument_precedes_the_connection(hook_of: Any) -> None:
    hook = hook_of({"password": KEY, "extra": {"rate_limit": 30, "account": "mine"}}, rate_limit=10)
    assert (hook.settings.rate_limit, hook.settings.account) == (10, "mine")


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({}, "api_key"),
        ({"password": KEY, "extra": {"rate_limitt": 60}}, "rate_limitt"),
        ({"password": KEY, "extra": {"rate_limit": "many"}}, "rate_limit"),
        ({"password": KEY, "extra": {"rate_limit": 0}}, "rate_limit"),
        ({"extra": {"api_key": KEY}}, "api_key"),
        ({"password": KEY, "extra": {"base_url": LOCAL}}, "base_url"),
        ({"password": KEY, "host": "http://sms.example.org"}, "base_url"),
        ({"password": KEY, "host": "sms.example.org", "schema": "api"}, "schema"),
        ({"password": KEY, "extra": {"store_url": "mysql://db/sms"}}, "store_url"),
        ({"password": KEY, "extra": "no JSON"}, "extra"),
        ({"password": KEY, "extra": "[1]"}, "extra"),
        ({"password": KEY, "host": "http://[::1"}, "host"),
        ({"password": KEY, "host": "http://user:hunter2\u2100@sms.example.org"}, "host"),
        (
            {
                "password": KEY,
                "extra": {"store_url": "postgresql+psycopg://hunter2\u2100@db/sms", "store_password": "pw"},
            },
            "store_url",
        ),
        ({"password": KEY, "extra": {"store_password": "pw"}}, "store_password"),
        (
            {
                "password": KEY,
                "extra": {"store_url": "postgresql+psycopg://u:p@db/sms", "store_password": "pw"},
            },
            "store_password",
        ),
    ],
)
def test_what_is_wrong_is_refused_by_its_name_and_without_its_secrets(
    hook_of: Any, value: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        hook_of(value).get_balance()
    assert caught.value.field == field
    assert field in str(caught.value)
    assert KEY not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_an_extra_that_no_parser_can_follow_is_refused() -> None:
    nested = Connection(conn_id="mine", conn_type="smsverify", password=KEY, extra="[" * 100_000)
    with pytest.raises(InvalidRequestError) as caught:
        settings_of(nested)
    assert caught.value.field == "extra"


def test_the_stores_password_is_kept_apart_and_put_into_its_url(hook_of: Any) -> None:
    extra = {
        "store_url": "postgresql+psycopg://airflow@db:5432/sms?sslmode=require",
        "store_password": "p@ss/word",
    }
    settings = hook_of({"password": KEY, "extra": extra}).settings
    expected = "postgresql+psycopg://airflow:p%40ss%2Fword@db:5432/sms?sslmode=require"
    assert settings.store_url.get_secret_value() == expected


def test_airflow_masks_every_secret_of_the_connection(hook_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMSVERIFY_API_KEY", "key-of-the-environment")
    extra = {
        "store_url": "postgresql+psycopg://u:password-in-a-url@db/sms",
        "callback_secrets": "callback-secret-one",
    }
    assert hook_of({"extra": extra}).settings
    redacted = str(_secrets_masker().redact("key-of-the-environment password-in-a-url callback-secret-one"))
    assert redacted == "*** *** ***"


def test_a_short_extra_causes_no_warning_and_a_short_secret_does(
    run_task: Any, connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(SecretsMasker, "_has_warned_short_secret", False)
    monkeypatch.setenv(
        "AIRFLOW_CONN_SMSVERIFY_DEFAULT",
        json.dumps(connection | {"extra": connection["extra"] | {"namespace": "dev"}}),
    )
    assert run_task(order("smsverify_default"), **RUN).state == TaskInstanceState.SUCCESS
    assert "too short" not in caplog.text
    SecretsMasker._has_warned_short_secret = False  # Airflow warns once in a process
    mask_secret("1234")
    assert "too short" in caplog.text


# ------------------------------------------------------------------ which wallet is meant

RUN = {"dag_id": "buys", "run_id": "manual"}
NEVER = pytest.mark.smsverify_simulator(sms_delay="never")


class Backend(BaseSecretsBackend):
    """A secrets backend of a deployment's own."""

    problem: Exception | None = None
    values: ClassVar[dict[str, str]] = {}

    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> str | None:
        if self.problem is not None:
            raise self.problem
        return self.values.get(conn_id)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Backend]]:
    """The deployment's own backend, which is asked first."""
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", f"{__name__}.Backend")
    monkeypatch.setattr("airflow.sdk.configuration._secrets_backend_cache", {}, raising=False)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    yield Backend
    Backend.problem, Backend.values = None, {}


@pytest.fixture
def wallet(sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's wallet."""
    for name, value in sim.environment(f"sqlite:///{tmp_path}/smsverify.db").items():
        monkeypatch.setenv(name, value)


def order(conn_id: str) -> BaseOperator:
    return SmsVerifyOrderOperator(
        task_id="order", product="temporary", service="WhatsApp", smsverify_conn_id=conn_id
    )


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        '{"conn_type": "smsverify", "password": "k3y"',
        "[]",
        "k3y",
        "postgres://user:k3y@db/airflow",
        '{"conn_type": "http", "password": "k3y"}',
        '{"conn_type": "smsverify", "password": "k3y", "extra": "no JSON"}',
        '{"conn_type": "smsverify", "password": "k3y", "port": "many"}',
    ],
)
def test_a_connection_that_is_asked_for_by_name_is_read_or_nothing_is_bought(
    run_task: Any, wallet: None, sim: Simulator, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_B", value)
    result = run_task(order("smsverify_b"), **RUN)
    assert isinstance(result.error, InvalidRequestError)
    assert result.error.field in ("api_key", "smsverify_conn_id", "conn_type", "extra")
    assert "k3y" not in str(result.error)
    assert sim.requests() == []


@NEVER
@pytest.mark.parametrize("conn_id", ["smsverify_b", "smsverify_default"])
def test_a_secrets_backend_that_fails_leaves_open_which_wallet_is_meant(
    run_task: Any,
    wallet: None,
    backend: type[Backend],
    connection: dict[str, Any],
    sim: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    conn_id: str,
) -> None:
    backend.values = {conn_id: json.dumps(connection | {"extra": connection["extra"] | {"account": "b"}})}
    assert run_task(order(conn_id), **RUN).state == TaskInstanceState.SUCCESS
    # On the retry, Airflow would go on to the environment, where another connection has the same name.
    backend.problem = PermissionError("the vault is sealed, k3y")
    result = run_task(order(conn_id), **RUN)
    assert isinstance(result.error, SettingsUnavailableError)
    assert "k3y" not in str(result.error)
    monkeypatch.delenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT")
    assert isinstance(run_task(order(conn_id), **RUN).error, SettingsUnavailableError)
    assert len(sim.orders()) == 1
    backend.problem = None
    assert run_task(order(conn_id), **RUN).state == TaskInstanceState.SUCCESS
    assert len(sim.orders()) == 1


@pytest.mark.parametrize("answers", ["an error", "nothing", "denied", "no database"])
def test_an_api_server_that_could_not_look_is_not_one_that_found_nothing(
    wallet: None, sim: Simulator, monkeypatch: pytest.MonkeyPatch, answers: str
) -> None:
    class Supervisor:
        """A task's supervisor, which hands on what the API server answers."""

        def send(self, message: Any) -> Any:
            if isinstance(message, GetDRCount):
                if answers == "no database":
                    raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))
                return DRCount(count=0)
            if answers == "nothing":
                raise ConnectionError
            kinds = {"an error": ErrorType.API_SERVER_ERROR, "denied": ErrorType.PERMISSION_DENIED}
            return ErrorResponse(error=kinds.get(answers, ErrorType.CONNECTION_NOT_FOUND))

    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(), raising=False)
    with pytest.raises(SettingsUnavailableError, match="cannot be read now"):
        SmsVerifyHook().get_balance()
    assert sim.requests() == []


@NEVER
def test_the_default_connection_that_does_not_exist_leaves_it_to_the_environment_and_says_so(
    run_task: Any, wallet: None, sim: Simulator, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr("smsverify_provider.hooks.smsverify._said", set())
    for _ in range(2):
        assert run_task(order("smsverify_default"), **RUN).state == TaskInstanceState.SUCCESS
    assert len(sim.orders()) == 1
    lines = [line for line in caplog.messages if "SMSVERIFY_API_KEY" in line]
    assert len(lines) == 1
    assert "smsverify_default" in lines[0]


def test_the_api_server_asks_its_database_and_says_where_that_fails(
    session: Any, wallet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.secrets.metastore import MetastoreBackend

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("no database")

    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    assert SmsVerifyHook().test_connection()[0]
    monkeypatch.setattr(MetastoreBackend, "get_connection", fail)
    works, message = SmsVerifyHook().test_connection()
    assert not works
    assert "MetastoreBackend" in message


# ------------------------------------------------------------------ the test of a connection


def test_the_test_shows_the_balance(hook: SmsVerifyHook, sim: Simulator) -> None:
    works, message = hook.test_connection()
    assert works, message
    assert "50" in message
    assert sim.api_key not in message


@pytest.mark.parametrize(
    "change",
    [
        {"password": "wr0ng-s3cret"},
        {"password": ""},
        {"host": "http://127.0.0.1:9"},
        {"host": "ftp://127.0.0.1"},
        {"extra": {"store_url": "sqlite:////dev/null/store.db"}},
        {"extra": {"call_timeout": 1, "nonsense": "wr0ng-s3cret"}},
        {"extra": "no JSON, but wr0ng-s3cret"},
    ],
)
def test_a_test_that_fails_says_why_and_raises_nothing(
    hook_of: Any, connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    monkeypatch.setattr("smsverify_provider.hooks.smsverify.TEST_TIMEOUT", 2.0)
    works, message = hook_of(connection | change).test_connection()
    assert not works
    assert message
    assert "wr0ng-s3cret" not in message
    assert connection["password"] not in message


@pytest.mark.slow
def test_the_docs_say_what_to_run_where_airflows_own_button_fails() -> None:
    from airflow.api_fastapi.core_api.routes.public.connections import _same_endpoint

    # The form sends 0 for a port that is blank. Once Airflow takes that, the paragraph may go.
    assert not _same_endpoint(0, None)
    page = (Path(__file__).parents[2] / "docs" / "get-started.md").read_text()
    (paragraph,) = (part for part in page.split("\n\n") if "apache/airflow#73298" in part)
    assert "smsverify balance" in paragraph


def test_without_a_connection_arguments_and_environment_are_enough(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMSVERIFY_API_KEY", sim.api_key)
    monkeypatch.setenv("SMSVERIFY_BASE_URL", sim.url)
    hook = SmsVerifyHook(store_url=f"sqlite:///{tmp_path}/smsverify.db", rate_period=sim.rate_period)
    assert hook.get_balance().amount == 50
    monkeypatch.setenv("SMSVERIFY_API_KEY", "of somebody else")
    assert SmsVerifyHook("not_there", api_key="mine").settings.api_key.get_secret_value() == "mine"


def test_a_key_in_the_login_s_place_is_not_taken_for_none(
    hook_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMSVERIFY_API_KEY", "another-wallet")
    with pytest.raises(InvalidRequestError, match="password") as caught:
        _ = hook_of({"login": KEY}).settings
    assert caught.value.field == "login"
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("conn_id", [None, "", 7])
def test_what_names_no_connection_is_refused(conn_id: Any) -> None:
    with pytest.raises(InvalidRequestError, match="must name a connection"):
        SmsVerifyHook(conn_id)


@pytest.mark.parametrize(("conn_id", "why"), [("not_there", "does not exist"), ("blank", "has no password")])
def test_where_no_key_comes_from_anywhere_the_connection_is_named(
    monkeypatch: pytest.MonkeyPatch, conn_id: str, why: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BLANK", json.dumps({"conn_type": "smsverify", "host": LOCAL}))
    works, message = SmsVerifyHook(conn_id).test_connection()
    assert not works
    assert f"the connection '{conn_id}' {why}" in message
    assert "SMSVERIFY_API_KEY" in message
    with pytest.raises(InvalidRequestError) as caught:
        SmsVerifyHook(conn_id).get_balance()
    assert caught.value.field == "api_key"


def test_a_service_that_echoes_the_key_does_not_get_it_shown(
    hook_of: Any, connection: dict[str, Any], requests_mock: Any
) -> None:
    answer = {"error": f"the key {connection['password']} is not valid"}
    requests_mock.get(f"{connection['host']}/api/v1/balance/", json=answer, status_code=400)
    works, message = hook_of(connection).test_connection()
    assert not works
    assert connection["password"] not in message


@pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")  # Airflow's server still uses it
def test_airflow_itself_can_test_the_connection_in_its_server_and_on_a_worker(
    connection: dict[str, Any], sim: Simulator
) -> None:
    from airflow.models import Connection as ServersConnection

    stored = ServersConnection.from_json(json.dumps(connection), conn_id="smsverify_default")
    assert stored.test_connection() == (True, ANY)
    worker = Connection(conn_id="somewhere", uri=stored.get_uri())
    assert worker.test_connection() == (True, ANY)
    assert len(sim.requests()) == 2


# ------------------------------------------------------------------ the fixture of tests


@NEVER
def test_in_a_test_no_connection_leads_to_a_real_wallet(
    run_task: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", "smsverify://:real-key@")
    monkeypatch.setenv("SMSVERIFY_RUN_BUDGET", "0")
    sim = request.getfixturevalue("smsverify_env")
    assert run_task(order("smsverify_default"), **RUN).state == TaskInstanceState.SUCCESS
    assert len(sim.orders()) == 1
    # Such as from the metadata database, or from a secrets backend that is asked first.
    monkeypatch.setenv("AIRFLOW_CONN_PROD", "smsverify://:real-key@smsverificationservice.com")
    result = run_task(order("prod"), **RUN)
    assert isinstance(result.error, InvalidRequestError)
    assert result.error.field == "base_url"
